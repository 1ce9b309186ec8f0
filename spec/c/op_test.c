/* Tests of operations: O1 to O4 of core/op.h. */
#include <string.h>
#include "check.h"
#include "core/op.h"
#include "core/park.h"

#define MS MLI_MILLISECOND

static bool no_turn(mli_loop *loop) {
  (void)loop;
  return false;
}
static const mli_loop_hooks quiet = { no_turn };

static mli_loop *new_loop(void) {
  mli_loop *loop;
  if (mli_loop_new(&loop, &quiet, NULL) != ML_OK) abort();
  return loop;
}

/* An operation that ends at once, after a while, or when it is aborted. */
typedef struct nap {
  mli_op op;
  mli_timer timer;
  uint64_t ns;
  int started, aborted;
} nap;

#define ONLY_BY_ABORT MLI_FOREVER

static atomic_int alive, wrong_thread;

static void note_thread(nap *n) {
  if (mli_loop_self() != n->op.loop) atomic_fetch_add(&wrong_thread, 1);
}

static void nap_over(mli_timer *timer) {
  nap *n = mli_container(timer, nap, timer);
  note_thread(n);
  mli_op_end(&n->op, ML_OK, NULL, NULL);
}

static void nap_start(mli_op *op) {
  nap *n = mli_container(op, nap, op);
  note_thread(n);
  n->started++;
  if (n->ns == 0) {
    mli_op_end(op, ML_OK, NULL, NULL);
  } else if (n->ns != ONLY_BY_ABORT) {
    n->timer.fire = nap_over;
    mli_loop_timer_start(op->loop, &n->timer, mli_now() + n->ns);
  }
}

static void nap_abort(mli_op *op) {
  nap *n = mli_container(op, nap, op);
  note_thread(n);
  n->aborted++;
  mli_loop_timer_stop(op->loop, &n->timer);
  mli_op_end(op, ML_CANCELLED, NULL, NULL);
}

static const mli_op_class nap_class = { "nap", nap_start, nap_abort };

static void nap_destroy(mli_object *object) {
  nap *n = mli_container(object, nap, op.object);
  mli_op_fini(&n->op);
  atomic_fetch_sub(&alive, 1);
  free(n);
}

static const mli_type nap_type = { "nap", nap_destroy };

static nap *new_nap(mli_loop *loop, uint64_t ns) {
  nap *n = calloc(1, sizeof *n);
  if (!n) abort();
  mli_op_init(&n->op, &nap_type, &nap_class, loop);
  n->ns = ns;
  atomic_fetch_add(&alive, 1);
  return n;
}

/* A thread that waits. */
typedef struct sleeper {
  mli_waker waker;
  mli_parker parker;
  atomic_int woken;
} sleeper;

static void wake_sleeper(mli_waker *waker) {
  sleeper *s = mli_container(waker, sleeper, waker);
  atomic_fetch_add(&s->woken, 1);
  mli_unpark(&s->parker);
}

static bool wait_for(sleeper *s) {
  return CHECK_EQ(mli_park(&s->parker, mli_now() + 10 * MLI_SECOND), ML_OK);
}

#define SLEEPER                                                                                    \
  { .waker.wake = wake_sleeper }

/* ---- a loop on a thread of its own ---- */

static void *run_loop(void *argument) {
  mli_loop_run(argument);
  return NULL;
}

static void stop_now(mli_node *node, mli_loop *loop) {
  (void)node;
  mli_loop_stop(loop);
}

static void stop_and_join(mli_loop *loop, pthread_t thread) {
  mli_node stop = { .run = stop_now };
  CHECK(mli_loop_post(loop, &stop));
  pthread_join(thread, NULL);
}

static void test_from_another_thread(void) {
  mli_loop *loop = new_loop();
  pthread_t runner = check_thread(run_loop, loop);
  for (uint64_t ns = 0; ns < 3 * MS; ns += MS) {
    nap *n = new_nap(loop, ns);
    sleeper s = SLEEPER;
    mli_op_begin(&n->op, &s.waker);
    wait_for(&s);
    CHECK_EQ(n->op.status, ML_OK);
    CHECK(n->op.code == NULL);
    CHECK_EQ(n->started, 1);
    CHECK(n->op.ended);
    mli_op_cancel(&n->op); /* too late: nothing happens */
    mli_release(&n->op);
  }

  nap *n = new_nap(loop, ONLY_BY_ABORT);
  sleeper s = SLEEPER;
  mli_op_begin(&n->op, &s.waker);
  CHECK_EQ(mli_park(&s.parker, mli_now() + 2 * MS), ML_TIMEOUT);
  mli_op_cancel(&n->op);
  mli_op_cancel(&n->op);
  wait_for(&s);
  CHECK_EQ(n->op.status, ML_CANCELLED);
  CHECK(strcmp(n->op.code, "cancelled") == 0);
  CHECK_EQ(n->aborted, 1);
  mli_release(&n->op);

  n = new_nap(loop, ONLY_BY_ABORT);
  mli_op_begin(&n->op, &s.waker);
  mli_op_cancel(&n->op); /* right behind the begin */
  wait_for(&s);
  CHECK_EQ(n->op.status, ML_CANCELLED);
  CHECK_EQ(atomic_load(&s.woken), 2);
  mli_release(&n->op);

  stop_and_join(loop, runner);
  CHECK_EQ(atomic_load(&alive), 0);

  n = new_nap(loop, 0); /* the loop has ended */
  sleeper late = SLEEPER;
  mli_op_begin(&n->op, &late.waker);
  CHECK_EQ(atomic_load(&late.woken), 1);
  CHECK_EQ(n->op.status, ML_CLOSED);
  CHECK(strcmp(n->op.code, "closed") == 0);
  CHECK_EQ(n->started, 0);
  mli_op_cancel(&n->op);
  CHECK_EQ(n->aborted, 0);
  mli_release(&n->op);
  CHECK_EQ(atomic_load(&alive), 0);
  mli_release(loop);
}

/* ---- on the loop's own thread ---- */

static struct {
  nap *at_once, *later, *cancelled;
  sleeper sleepers[3];
} own;

static void begin_own(mli_node *node, mli_loop *loop) {
  (void)node;
  own.at_once = new_nap(loop, 0);
  own.later = new_nap(loop, 2 * MS);
  own.cancelled = new_nap(loop, ONLY_BY_ABORT);
  mli_op_begin(&own.at_once->op, &own.sleepers[0].waker);
  CHECK_EQ(atomic_load(&own.sleepers[0].woken), 1); /* no turn of the loop between */
  mli_op_begin(&own.later->op, &own.sleepers[1].waker);
  CHECK_EQ(own.later->started, 1);
  CHECK_EQ(atomic_load(&own.sleepers[1].woken), 0);
  mli_op_begin(&own.cancelled->op, &own.sleepers[2].waker);
  mli_op_cancel(&own.cancelled->op);
  CHECK_EQ(own.cancelled->aborted, 1);
  mli_op_cancel(&own.cancelled->op);
  CHECK_EQ(own.cancelled->aborted, 1);
  CHECK_EQ(own.cancelled->op.status, ML_CANCELLED);
}

static void test_on_its_own_thread(void) {
  mli_loop *loop = new_loop();
  mli_node node = { .run = begin_own };
  for (int i = 0; i < 3; i++) own.sleepers[i] = (sleeper)SLEEPER;
  mli_loop_post(loop, &node);
  pthread_t runner = check_thread(run_loop, loop);
  for (int i = 0; i < 2000 && mli_park(&own.sleepers[1].parker, mli_now() + MS) != ML_OK; i++) {
  }
  stop_and_join(loop, runner);
  for (int i = 0; i < 3; i++) CHECK_EQ(atomic_load(&own.sleepers[i].woken), 1);
  mli_release(&own.at_once->op);
  mli_release(&own.later->op);
  mli_release(&own.cancelled->op);
  CHECK_EQ(atomic_load(&alive), 0);
  mli_release(loop);
}

/* ---- a begin that meets the loop's end ---- */

static void *begin_until_closed(void *argument) {
  mli_loop *loop = argument;
  uintptr_t lost = 0;
  for (bool closed = false; !closed;) {
    nap *n = new_nap(loop, 0);
    sleeper s = SLEEPER;
    mli_op_begin(&n->op, &s.waker);
    if (mli_park(&s.parker, mli_now() + 10 * MLI_SECOND) != ML_OK) {
      lost++;
      break;
    }
    closed = n->op.status == ML_CLOSED;
    lost += n->started != !closed;
    mli_release(&n->op);
  }
  return (void *)lost;
}

static void test_at_the_end(void) {
  for (int i = 0; i < CHECK_ROUNDS(100); i++) {
    mli_loop *loop = new_loop();
    pthread_t runner = check_thread(run_loop, loop), threads[3];
    for (int t = 0; t < 3; t++) threads[t] = check_thread(begin_until_closed, loop);
    nanosleep(&(struct timespec){ .tv_nsec = 300000 }, NULL);
    stop_and_join(loop, runner);
    for (int t = 0; t < 3; t++) {
      void *lost;
      pthread_join(threads[t], &lost);
      CHECK_EQ((uintptr_t)lost, 0);
    }
    mli_release(loop);
  }
  CHECK_EQ(atomic_load(&alive), 0);
}

/* ---- a cancel that meets the end ---- */

static void *nap_and_cancel(void *argument) {
  mli_loop *loop = argument;
  uintptr_t wrong = 0;
  for (int i = 0; i < CHECK_ROUNDS(5000); i++) {
    nap *n = new_nap(loop, (uint64_t)(i % 3) * MS / 2);
    sleeper s = SLEEPER;
    mli_op_begin(&n->op, &s.waker);
    for (volatile int spin = i % 1000; spin > 0; spin--) {
    }
    mli_op_cancel(&n->op);
    if (mli_park(&s.parker, mli_now() + 10 * MLI_SECOND) != ML_OK) return "never woken";
    wrong += n->op.status != ML_OK && n->op.status != ML_CANCELLED;
    wrong += (n->op.status == ML_CANCELLED) != (n->aborted == 1);
    mli_release(&n->op); /* the cancel may still be on its way */
    wrong += atomic_load(&s.woken) != 1;
  }
  return wrong ? "wrong" : NULL;
}

static void test_cancel_races(void) {
  mli_loop *loop = new_loop();
  pthread_t runner = check_thread(run_loop, loop), threads[3];
  for (int t = 0; t < 3; t++) threads[t] = check_thread(nap_and_cancel, loop);
  for (int t = 0; t < 3; t++) {
    void *what;
    pthread_join(threads[t], &what);
    CHECK(what == NULL);
  }
  stop_and_join(loop, runner);
  CHECK_EQ(atomic_load(&alive), 0);
  mli_release(loop);
}

/* ---- results ---- */

static void test_results(void) {
  mli_loop *loop = new_loop();
  nap *n = new_nap(loop, 0);
  mli_op_end(&n->op, ML_SYSTEM, "odd", strdup("what happened"));
  CHECK(strcmp(n->op.code, "odd") == 0);
  CHECK(strcmp(n->op.message, "what happened") == 0);
  mli_release(&n->op); /* nobody waited */

  static const struct {
    int uv;
    ml_status status;
    const char *code, *message;
  } cases[] = {
    { 0, ML_OK, NULL, NULL },
    { UV_ECONNREFUSED, ML_SYSTEM, "ECONNREFUSED", "connect: connection refused" },
    { UV_ECANCELED, ML_CANCELLED, "cancelled", NULL },
    { UV_ENOMEM, ML_MEMORY, NULL, "connect: not enough memory" },
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    n = new_nap(loop, 0);
    mli_op_end_uv(&n->op, cases[i].uv, "connect");
    CHECK_EQ(n->op.status, cases[i].status);
    if (cases[i].code) CHECK(strcmp(n->op.code, cases[i].code) == 0);
    if (cases[i].message)
      CHECK(n->op.message && strcmp(n->op.message, cases[i].message) == 0);
    else
      CHECK(n->op.message == NULL);
    mli_release(&n->op);
  }
  CHECK_EQ(atomic_load(&alive), 0);
  mli_release(loop);
}

int main(void) {
  test_from_another_thread();
  test_on_its_own_thread();
  test_at_the_end();
  test_cancel_races();
  test_results();
  CHECK_EQ(atomic_load(&wrong_thread), 0);
  return check_report();
}
