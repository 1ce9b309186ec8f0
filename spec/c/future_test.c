/* Tests of futures: F1 to F3 of core/future.h, by hand and between threads. */
#include <string.h>
#include "check.h"
#include "core/future.h"

static mli_message *text(const char *s) { return mli_message_new(s, strlen(s) + 1, NULL, 0); }

static const char *text_of(const mli_message *m) { return m ? (const char *)m->bytes : NULL; }

static atomic_int cancels;
static void count_cancel(mli_future *f) {
  (void)f;
  atomic_fetch_add(&cancels, 1);
}

static void test_settling(void) {
  mli_future *f = mli_future_new();
  CHECK_EQ(mli_future_state(f), MLI_PENDING);
  CHECK(mli_future_start(f));
  CHECK(!mli_future_start(f));
  CHECK_EQ(mli_future_state(f), MLI_RUNNING);
  CHECK(!mli_future_settled(f));
  CHECK(mli_future_settle(f, MLI_FINISHED, text("one"), NULL));
  CHECK(!mli_future_settle(f, MLI_FAILED, text("two"), strdup("where")));
  CHECK(!mli_future_fail(f, ML_CLOSED));
  CHECK(!mli_future_start(f));
  CHECK(mli_future_settled(f));
  CHECK_EQ(mli_future_state(f), MLI_FINISHED);
  CHECK(strcmp(text_of(f->outcome), "one") == 0);
  CHECK(f->traceback == NULL);
  CHECK(!mli_future_cancel(f, text("late")));
  CHECK(f->reason == NULL);
  mli_release(f);
}

static void test_settling_without_a_start(void) {
  mli_future *f = mli_future_new();
  CHECK(mli_future_settle(f, MLI_FAILED, text("no"), strdup("where")));
  CHECK_EQ(mli_future_state(f), MLI_FAILED);
  CHECK(strcmp(f->traceback, "where") == 0);
  mli_release(f);
  f = mli_future_new();
  CHECK(mli_future_fail(f, ML_MEMORY));
  CHECK_EQ(f->status, ML_MEMORY);
  CHECK(f->outcome == NULL);
  mli_release(f);
}

static void test_cancelling(void) {
  mli_future *f = mli_future_new();
  f->on_cancel = count_cancel;
  atomic_store(&cancels, 0);
  CHECK(mli_future_cancel(f, text("why")));
  CHECK_EQ(mli_future_state(f), MLI_STOPPED); /* it had not begun */
  CHECK(!mli_future_start(f));
  CHECK(!mli_future_cancel(f, text("again")));
  CHECK(strcmp(text_of(f->reason), "why") == 0);
  CHECK_EQ(atomic_load(&cancels), 0);
  mli_release(f);

  f = mli_future_new();
  f->on_cancel = count_cancel;
  mli_future_start(f);
  CHECK(mli_future_cancel(f, text("why")));
  CHECK(mli_future_cancel(f, text("again"))); /* not settled yet, but asked once */
  CHECK(mli_future_cancel(f, NULL));
  CHECK_EQ(atomic_load(&cancels), 1);
  CHECK_EQ(mli_future_state(f), MLI_RUNNING);
  CHECK(atomic_load(&f->asked));
  CHECK(strcmp(text_of(f->reason), "why") == 0);
  CHECK(mli_future_settle(f, MLI_FINISHED, text("all the same"), NULL));
  CHECK(!mli_future_cancel(f, NULL));
  mli_release(f);
}

/* ---- watchers ---- */

typedef struct eye {
  mli_watcher watcher;
  mli_future *future;
  atomic_int fired;
  int order;
  void (*also)(struct eye *);
} eye;

static int seen;
static eye eyes[5];

static void on_fired(mli_watcher *w) {
  eye *e = mli_container(w, eye, watcher);
  atomic_fetch_add(&e->fired, 1);
  e->order = seen++;
  if (!mli_future_settled(e->future)) abort();
  if (e->also) e->also(e);
}

static void look(eye *e, mli_future *f) {
  e->future = f;
  e->watcher.fired = on_fired;
  CHECK(mli_future_watch(f, &e->watcher));
}

static void reset_eyes(void) {
  memset(eyes, 0, sizeof eyes);
  seen = 0;
}

static void test_watching(void) {
  mli_future *f = mli_future_new();
  reset_eyes();
  for (int i = 0; i < 5; i++) look(&eyes[i], f);
  CHECK(mli_future_unwatch(f, &eyes[1].watcher));
  CHECK(!mli_future_unwatch(f, &eyes[1].watcher));
  CHECK(mli_future_unwatch(f, &eyes[4].watcher)); /* the last */
  look(&eyes[1], f);                              /* again, now at the end */
  mli_future_settle(f, MLI_FINISHED, NULL, NULL);
  static const int order[] = { 0, 3, 1, 2 };
  for (int i = 0; i < 4; i++) {
    CHECK_EQ(atomic_load(&eyes[i].fired), 1);
    CHECK_EQ(eyes[i].order, order[i]);
  }
  CHECK_EQ(atomic_load(&eyes[4].fired), 0);
  CHECK(!mli_future_unwatch(f, &eyes[0].watcher));
  CHECK(!mli_future_watch(f, &eyes[4].watcher)); /* settled: ask it */
  CHECK_EQ(atomic_load(&eyes[4].fired), 0);
  mli_release(f);
}

static void test_cancel_fires(void) {
  mli_future *f = mli_future_new();
  reset_eyes();
  look(&eyes[0], f);
  mli_future_cancel(f, NULL);
  CHECK_EQ(atomic_load(&eyes[0].fired), 1);
  mli_release(f);
}

static void unwatch_next(eye *e) { CHECK(mli_future_unwatch(e->future, &(e + 1)->watcher)); }
static void watch_again(eye *e) { CHECK(!mli_future_watch(e->future, &e->watcher)); }
static void let_go(eye *e) { mli_release(e->future); }

static void test_changes_while_firing(void) {
  mli_future *f = mli_future_new();
  reset_eyes();
  eyes[0].also = unwatch_next;
  eyes[2].also = watch_again;
  eyes[3].also = let_go;
  for (int i = 0; i < 4; i++) look(&eyes[i], i == 3 ? mli_retain(f) : f);
  mli_future_settle(f, MLI_FINISHED, NULL, NULL);
  CHECK_EQ(seen, 3);
  CHECK_EQ(atomic_load(&eyes[1].fired), 0);
  mli_release(f);
}

static void local_destroy(mli_object *object) {
  mli_future_fini(mli_container(object, mli_future, object));
}
static const mli_type local_type = { "local future", local_destroy };

static void test_promoting(void) {
  mli_future local;
  mli_future_init(&local, &local_type, false);
  local.on_cancel = count_cancel;
  mli_future_start(&local);
  reset_eyes();
  look(&eyes[0], &local);
  look(&eyes[1], &local);
  mli_future *f = mli_future_new();
  mli_future_promote(f, &local);
  mli_release(&local);
  CHECK_EQ(mli_future_state(f), MLI_RUNNING);
  eyes[0].future = eyes[1].future = f;
  CHECK(mli_future_unwatch(f, &eyes[0].watcher));
  look(&eyes[2], f);
  atomic_store(&cancels, 0);
  mli_future_cancel(f, NULL);
  CHECK_EQ(atomic_load(&cancels), 1);
  mli_future_settle(f, MLI_STOPPED, NULL, NULL);
  CHECK_EQ(atomic_load(&eyes[0].fired), 0);
  CHECK_EQ(eyes[1].order, 0);
  CHECK_EQ(eyes[2].order, 1);
  mli_release(f);

  mli_future_init(&local, &local_type, false);
  mli_future_settle(&local, MLI_FAILED, text("no"), strdup("where"));
  f = mli_future_new();
  mli_future_promote(f, &local);
  mli_release(&local);
  CHECK_EQ(mli_future_state(f), MLI_FAILED);
  CHECK(strcmp(text_of(f->outcome), "no") == 0);
  CHECK(strcmp(f->traceback, "where") == 0);
  CHECK(!mli_future_watch(f, &eyes[0].watcher));
  mli_release(f);

  mli_future_init(&local, &local_type, false);
  mli_future_fail(&local, ML_CLOSED);
  f = mli_future_new();
  mli_future_promote(f, &local);
  mli_release(&local);
  CHECK_EQ(f->status, ML_CLOSED);
  mli_release(f);
}

/* ---- races ---- */

enum { ROUNDS = CHECK_ROUNDS(20000) };

static struct {
  pthread_barrier_t gate;
  mli_future *future; /* of this round */
  atomic_int settled, started, taken;
  eye eyes[2];
} arena;

/* Each round: one thread runs the future, one cancels it, one settles it from
** elsewhere, one watches it and looks away. */
static void race_run(mli_future *f) {
  if (!mli_future_start(f)) return;
  atomic_fetch_add(&arena.started, 1);
  if (mli_future_settle(f, MLI_FINISHED, text("ran"), NULL)) atomic_fetch_add(&arena.settled, 1);
}

static void race_cancel(mli_future *f) {
  if (mli_future_cancel(f, text("why"))) atomic_fetch_add(&arena.taken, 1);
}

static void race_settle(mli_future *f) {
  if (mli_future_settle(f, MLI_FAILED, text("closed"), strdup("where")))
    atomic_fetch_add(&arena.settled, 1);
}

static void on_counted(mli_watcher *w) {
  atomic_fetch_add(&mli_container(w, eye, watcher)->fired, 1);
}

static void race_watch(mli_future *f) {
  for (int i = 0; i < 2; i++) {
    eye *e = &arena.eyes[i];
    e->watcher.fired = on_counted;
    atomic_store(&e->fired, 0);
    e->order = mli_future_watch(f, &e->watcher) ? 1 : 0; /* how often it must fire */
  }
  eye *e = &arena.eyes[0];
  if (e->order == 1 && mli_future_unwatch(f, &e->watcher)) e->order = 0;
}

static void *race(void *argument) {
  void (**part)(mli_future *) = argument;
  for (int i = 0; i < ROUNDS; i++) {
    pthread_barrier_wait(&arena.gate);
    (*part)(arena.future);
    pthread_barrier_wait(&arena.gate);
  }
  return NULL;
}

static void test_races(void) {
  static void (*parts[])(mli_future *) = { race_run, race_cancel, race_settle, race_watch };
  enum { PARTS = sizeof parts / sizeof *parts };
  pthread_t threads[PARTS];
  pthread_barrier_init(&arena.gate, NULL, PARTS + 1);
  for (int i = 0; i < PARTS; i++) threads[i] = check_thread(race, &parts[i]);
  int twice = 0, unfired = 0, inconsistent = 0, overasked = 0;
  for (int i = 0; i < ROUNDS; i++) {
    mli_future *f = arena.future = mli_future_new();
    f->on_cancel = count_cancel;
    atomic_store(&arena.settled, 0);
    atomic_store(&arena.started, 0);
    atomic_store(&arena.taken, 0);
    atomic_store(&cancels, 0);
    pthread_barrier_wait(&arena.gate);
    pthread_barrier_wait(&arena.gate);
    mli_state state = mli_future_state(f);
    int settled = atomic_load(&arena.settled), taken = atomic_load(&arena.taken);
    twice += settled + (state == MLI_STOPPED) != 1;
    for (int e = 0; e < 2; e++) unfired += atomic_load(&arena.eyes[e].fired) != arena.eyes[e].order;
    if (state == MLI_FINISHED) inconsistent += strcmp(text_of(f->outcome), "ran") != 0;
    if (state == MLI_FAILED) inconsistent += strcmp(f->traceback, "where") != 0;
    if (state == MLI_STOPPED)
      inconsistent += !taken || atomic_load(&arena.started) || strcmp(text_of(f->reason), "why");
    overasked += atomic_load(&cancels) > taken;
    mli_release(f);
  }
  for (int i = 0; i < PARTS; i++) pthread_join(threads[i], NULL);
  pthread_barrier_destroy(&arena.gate);
  CHECK_EQ(twice, 0);
  CHECK_EQ(unfired, 0);
  CHECK_EQ(inconsistent, 0);
  CHECK_EQ(overasked, 0);
}

int main(void) {
  test_settling();
  test_settling_without_a_start();
  test_cancelling();
  test_watching();
  test_cancel_fires();
  test_changes_while_firing();
  test_promoting();
  test_races();
  return check_report();
}
