/* alarm_fd.c: alarms by timerfd. */
#include <assert.h>
#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "alarm.h"

static void on_readable(uv_poll_t *poll, int status, int events) {
  mli_alarm *alarm = poll->data;
  (void)status, (void)events;
  alarm->ring(alarm);
}

int mli_alarm_open(mli_alarm *alarm, uv_loop_t *uv, void (*ring)(mli_alarm *alarm)) {
  alarm->ring = ring;
  alarm->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (alarm->fd < 0) return -errno;
  int err = uv_poll_init(uv, &alarm->poll, alarm->fd);
  if (err) {
    close(alarm->fd);
    return err;
  }
  alarm->poll.data = alarm;
  err = uv_poll_start(&alarm->poll, UV_READABLE, on_readable);
  assert(err == 0); /* fails for a closed handle only */
  return err;
}

/* A time that has passed rings at once. The descriptor is readable from then until it is
** set again, which saves reading it. */
void mli_alarm_set(mli_alarm *alarm, uint64_t at_ns) {
  struct itimerspec when = { .it_value = { 0 } }; /* zero disarms it */
  if (at_ns != MLI_FOREVER) {
    when.it_value.tv_sec = (time_t)(at_ns / MLI_SECOND);
    when.it_value.tv_nsec = (long)(at_ns % MLI_SECOND);
  }
  int err = timerfd_settime(alarm->fd, TFD_TIMER_ABSTIME, &when, NULL);
  assert(err == 0); /* fails for a wrong argument only */
  (void)err;
}

void mli_alarm_close(mli_alarm *alarm) {
  uv_close((uv_handle_t *)&alarm->poll, NULL);
  close(alarm->fd);
}
