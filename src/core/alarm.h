/*
** alarm.h: the one timer of a loop that the system keeps: it ends the loop's sleep at an
** absolute time. libuv's own timers count milliseconds and wake up to one late; where the
** system has timers with a descriptor (alarm_fd.c) the loop sleeps until the very tick,
** elsewhere a timer of libuv has to do (alarm_uv.c). CMake builds one of the two.
** Thread: the loop's only.
*/
#ifndef MLI_ALARM_H
#define MLI_ALARM_H

#include <uv.h>
#include "base.h"

typedef struct mli_alarm mli_alarm;
struct mli_alarm {
  void (*ring)(mli_alarm *alarm); /* once for each `set`; maybe before its time */
  union {
    struct {
      int fd;
      uv_poll_t poll;
    };
    uv_timer_t timer;
  };
};

/* 0, or an error of libuv: then there is nothing to close. */
int mli_alarm_open(mli_alarm *alarm, uv_loop_t *uv, void (*ring)(mli_alarm *alarm));
/* Rings at that time, ns, and not at the one that was set before; MLI_FOREVER: not at all.
** One that has rung is silent only when it is set again. */
void mli_alarm_set(mli_alarm *alarm, uint64_t at_ns);
void mli_alarm_close(mli_alarm *alarm);

#endif
