/* alarm_uv.c: alarms by a timer of libuv: any system, but by the millisecond. */
#include <assert.h>
#include "alarm.h"

static void on_timer(uv_timer_t *timer) {
  mli_alarm *alarm = timer->data;
  alarm->ring(alarm);
}

int mli_alarm_open(mli_alarm *alarm, uv_loop_t *uv, void (*ring)(mli_alarm *alarm)) {
  alarm->ring = ring;
  int err = uv_timer_init(uv, &alarm->timer);
  alarm->timer.data = alarm;
  return err;
}

void mli_alarm_set(mli_alarm *alarm, uint64_t at_ns) {
  if (at_ns == MLI_FOREVER) {
    uv_timer_stop(&alarm->timer);
    return;
  }
  uv_update_time(alarm->timer.loop); /* Lua may have run for long */
  uint64_t now = mli_now(), ns = at_ns > now ? at_ns - now : 0;
  uint64_t ms = ns / MLI_MILLISECOND + (ns % MLI_MILLISECOND != 0);
  int err = uv_timer_start(&alarm->timer, on_timer, ms, 0);
  assert(err == 0); /* fails for a closed handle only */
  (void)err;
}

void mli_alarm_close(mli_alarm *alarm) { uv_close((uv_handle_t *)&alarm->timer, NULL); }
