/* Tests of what a C library keeps with a loop. */
#include <lauxlib.h>
#include <lualib.h>
#include <moonloop.h>
#include <pthread.h>
#include <uv.h>
#include "check.h"

#define LOOPS 3
#define PATIENCE ml_after_ms(20000)

static const char key, other_key;
static atomic_int made, ended, misuses;

/* What a library would keep: something open on the loop. */
typedef struct device {
  uv_timer_t timer;
  pthread_t thread;
  int uses;
} device;

static void on_closed(uv_handle_t *timer) { free(timer->data); }

static void end_device(void *value) {
  device *d = value;
  CHECK(pthread_equal(d->thread, pthread_self()));
  CHECK(ml_loop_kept(d->timer.loop, &key) == NULL);
  atomic_fetch_add(&ended, 1);
  uv_close((uv_handle_t *)&d->timer, on_closed);
}

static void on_timer(uv_timer_t *timer) { (void)timer; }

/* Uses the loop's device; the first one makes it. */
static ml_status use(struct uv_loop_s *loop, ml_values *results, void *user) {
  device *d = ml_loop_kept(loop, &key);
  (void)user;
  if (!d) {
    if (!(d = calloc(1, sizeof *d))) return ML_MEMORY;
    uv_timer_init(loop, &d->timer);
    uv_timer_start(&d->timer, on_timer, 1, 1); /* for ever */
    d->timer.data = d;
    d->thread = pthread_self();
    atomic_fetch_add(&made, 1);
    CHECK_EQ(ml_loop_keep(loop, &key, d, end_device), ML_OK);
    CHECK_EQ(ml_loop_keep(loop, &other_key, &made, NULL), ML_OK);
  }
  if (ml_loop_keep(loop, &key, d, end_device) == ML_MISUSE) atomic_fetch_add(&misuses, 1);
  CHECK_EQ(ml_loop_keep(loop, NULL, d, end_device), ML_MISUSE);
  CHECK(ml_loop_kept(loop, NULL) == NULL);
  CHECK(ml_loop_kept(loop, &other_key) == &made);
  CHECK(pthread_equal(d->thread, pthread_self()));
  ml_values_add_integer(results, ++d->uses);
  ml_values_add_pointer(results, loop);
  return ML_OK;
}

static struct uv_loop_s *use_it(ml_executor *ex) {
  ml_future *f;
  ml_values *results = NULL;
  if (!CHECK_EQ(ml_submit_c(ex, use, NULL, &f), ML_OK)) return NULL;
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK);
  CHECK_EQ(ml_future_values(f, &results), ML_OK);
  struct uv_loop_s *loop = ml_value_pointer(ml_values_at(results, 1));
  ml_values_free(results);
  ml_future_release(f);
  return loop;
}

static void end(ml_executor *ex) {
  if (!CHECK_EQ(ml_executor_shutdown(ex, true, PATIENCE), ML_OK)) printf("  %s\n", ml_last_error());
  ml_executor_release(ex);
}

static void test_loops(void) {
  ml_executor *ex;
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  o.loops = LOOPS;
  if (!CHECK_EQ(ml_executor_new(&ex, &o), ML_OK)) return;
  for (int i = 0; i < 4 * LOOPS; i++) use_it(ex);
  int n = atomic_load(&made);
  CHECK(n >= 1 && n <= LOOPS);
  CHECK_EQ(atomic_load(&misuses), 4 * LOOPS);
  CHECK_EQ(atomic_load(&ended), 0);
  end(ex);
  CHECK_EQ(atomic_load(&ended), n);
}

/* Of a loop that this thread drives, and from a thread that has no loop. */
static void test_wrong(void) {
  ml_executor *ex;
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  int before = atomic_load(&ended);
  o.driven = true;
  if (!CHECK_EQ(ml_executor_new(&ex, &o), ML_OK)) return;
  struct uv_loop_s *loop = use_it(ex);
  CHECK(ml_loop_kept(loop, &key) == NULL);
  CHECK_EQ(ml_loop_keep(loop, &key, NULL, NULL), ML_MISUSE);
  CHECK_EQ(ml_loop_keep(NULL, &key, NULL, NULL), ML_MISUSE);
  end(ex);
  CHECK_EQ(atomic_load(&ended), before + 1);
}

int main(void) {
  test_loops();
  test_wrong();
  return check_report();
}
