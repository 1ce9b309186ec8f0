/* Tests of the alarm: the one that this build has, and that of libuv beside it. */
#include "check.h"
#include "core/alarm.h"

#define mli_alarm_open uv_alarm_open
#define mli_alarm_set uv_alarm_set
#define mli_alarm_close uv_alarm_close
#include "core/alarm_uv.c"
#undef mli_alarm_open
#undef mli_alarm_set
#undef mli_alarm_close

#define MS MLI_MILLISECOND

static const struct kind {
  int (*open)(mli_alarm *alarm, uv_loop_t *uv, void (*ring)(mli_alarm *alarm));
  void (*set)(mli_alarm *alarm, uint64_t at_ns);
  void (*close)(mli_alarm *alarm);
} kinds[] = { { mli_alarm_open, mli_alarm_set, mli_alarm_close },
              { uv_alarm_open, uv_alarm_set, uv_alarm_close } };

static const struct kind *kind;
static uv_loop_t uv;
static mli_alarm alarm_one;
static uv_timer_t limit;
static int rung;

/* As the loop does it: what has rung is set again or stopped. */
static void ring(mli_alarm *a) {
  rung++;
  kind->set(a, MLI_FOREVER);
  uv_stop(&uv);
}

static void too_late(uv_timer_t *timer) { uv_stop(timer->loop); }

/* Runs the loop until the alarm rings, or for so many milliseconds. */
static void run(unsigned ms) {
  uv_update_time(&uv);
  uv_timer_start(&limit, too_late, ms, 0);
  uv_run(&uv, UV_RUN_DEFAULT);
  uv_timer_stop(&limit);
}

static void test_rings(void) {
  uint64_t best = MLI_FOREVER;
  rung = 0;
  for (int i = 1; i <= 20; i++) {
    uint64_t at = mli_now() + 3 * MS + MS / 7;
    kind->set(&alarm_one, at);
    for (int early = 0; rung < i && early < 3; early++) { /* may come a millisecond early */
      run(5000);
      if (mli_now() >= at || rung < i) break;
      rung = i - 1;
      kind->set(&alarm_one, at);
    }
    CHECK_EQ(rung, i);
    uint64_t now = mli_now();
    CHECK(now >= at);
    if (now - at < best) best = now - at;
  }
  CHECK(best < 2 * MS); /* of twenty, one is not in other programs' way */
}

static void test_set_again(void) {
  rung = 0;
  uint64_t start = mli_now();
  kind->set(&alarm_one, start + 3600 * MLI_SECOND);
  kind->set(&alarm_one, start + 20 * MS); /* sooner */
  kind->set(&alarm_one, start + 40 * MS); /* later */
  run(5000);
  CHECK_EQ(rung, 1);
  CHECK(mli_now() >= start + 38 * MS);
  run(10); /* it rang once */
  CHECK_EQ(rung, 1);
  kind->set(&alarm_one, mli_now() + 5 * MS);
  kind->set(&alarm_one, MLI_FOREVER); /* stopped */
  run(20);
  CHECK_EQ(rung, 1);
  kind->set(&alarm_one, 1); /* passed */
  run(5000);
  CHECK_EQ(rung, 2);
  kind->set(&alarm_one, mli_now() - MS);
  run(5000);
  CHECK_EQ(rung, 3);
}

int main(void) {
  for (kind = kinds; kind < kinds + 2; kind++) {
    CHECK_EQ(uv_loop_init(&uv), 0);
    uv_timer_init(&uv, &limit);
    CHECK_EQ(kind->open(&alarm_one, &uv, ring), 0);
    test_rings();
    test_set_again();
    kind->close(&alarm_one);
    uv_close((uv_handle_t *)&limit, NULL);
    uv_run(&uv, UV_RUN_DEFAULT);
    CHECK_EQ(uv_loop_close(&uv), 0);
  }
  return check_report();
}
