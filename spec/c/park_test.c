/* Tests of the lock and the parker. */
#include <errno.h>
#include <signal.h>
#include "check.h"
#include "core/park.h"

enum { THREADS = 4, ROUNDS = CHECK_ROUNDS(200000) };

static struct {
  mli_lock lock;
  long value; /* [M] not atomic: the lock alone makes it right */
  bool inside;
  atomic_int overlaps;
} guarded;

static void *add_one_by_one(void *argument) {
  (void)argument;
  for (int i = 0; i < ROUNDS; i++) {
    mli_lock_acquire(&guarded.lock);
    if (guarded.inside) atomic_fetch_add(&guarded.overlaps, 1);
    guarded.inside = true;
    guarded.value++;
    guarded.inside = false;
    mli_lock_release(&guarded.lock);
  }
  return NULL;
}

static void test_lock(void) {
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) threads[i] = check_thread(add_one_by_one, NULL);
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  CHECK_EQ(guarded.value, (long)THREADS * ROUNDS);
  CHECK_EQ(atomic_load(&guarded.overlaps), 0);
  CHECK_EQ(atomic_load(&guarded.lock.word), 0);
}

static void test_tokens(void) {
  mli_parker parker = { 0 };
  mli_unpark(&parker);
  mli_unpark(&parker); /* it holds one at most */
  CHECK_EQ(mli_park(&parker, MLI_FOREVER), ML_OK);
  CHECK_EQ(mli_park(&parker, 0), ML_TIMEOUT);
  mli_unpark(&parker);
  CHECK_EQ(mli_park(&parker, 0), ML_OK); /* a token wins over a passed deadline */
}

static void test_deadlines(void) {
  mli_parker parker = { 0 };
  for (int i = 0; i < 20; i++) {
    uint64_t deadline = mli_now() + (uint64_t)i * MLI_MILLISECOND / 3;
    CHECK_EQ(mli_park(&parker, deadline), ML_TIMEOUT);
    CHECK(mli_now() >= deadline);
  }
  CHECK_EQ(atomic_load(&parker.word), 0);
}

static struct { mli_parker ping, pong; } table;

static void *play(void *argument) {
  (void)argument;
  for (int i = 0; i < ROUNDS / 10; i++) {
    if (mli_park(&table.ping, mli_now() + 10 * MLI_SECOND) != ML_OK) return "late";
    mli_unpark(&table.pong);
  }
  return NULL;
}

static void test_ping_pong(void) {
  pthread_t other = check_thread(play, NULL);
  int answers = 0;
  for (int i = 0; i < ROUNDS / 10; i++) {
    mli_unpark(&table.ping);
    answers += mli_park(&table.pong, mli_now() + 10 * MLI_SECOND) == ML_OK;
  }
  void *late;
  pthread_join(other, &late);
  CHECK(late == NULL);
  CHECK_EQ(answers, ROUNDS / 10);
}

/* A token that comes as the deadline passes is either taken or still there. */
static struct {
  mli_parker parker, taken;
  atomic_bool end;
} race;

static void *unpark_often(void *argument) {
  (void)argument;
  uintptr_t given = 0;
  while (!atomic_load(&race.end)) {
    mli_unpark(&race.parker);
    given++;
    if (mli_park(&race.taken, mli_now() + 10 * MLI_SECOND) != ML_OK) break;
  }
  return (void *)given;
}

static void test_token_at_the_deadline(void) {
  pthread_t other = check_thread(unpark_often, NULL);
  uintptr_t got = 0, wrong = 0;
  for (int i = 0; i < ROUNDS / 20; i++) {
    ml_status status = mli_park(&race.parker, mli_now() + (uint64_t)(i % 20) * 1000);
    wrong += status != ML_OK && status != ML_TIMEOUT;
    if (status == ML_OK) {
      got++;
      mli_unpark(&race.taken);
    }
  }
  atomic_store(&race.end, true);
  while (mli_park(&race.parker, mli_now() + 50 * MLI_MILLISECOND) == ML_OK) {
    got++;
    mli_unpark(&race.taken);
  }
  void *given;
  pthread_join(other, &given);
  CHECK_EQ(wrong, 0);
  CHECK_EQ(got, (uintptr_t)given);
}

#ifndef MLI_PORTABLE
static void on_signal(int number) { (void)number; }

static atomic_int interrupted; /* how many parks have ended so */

static void *park_for_ever(void *argument) {
  mli_parker parker = { 0 };
  for (int i = 0; i < 2; i++) { /* without a deadline, then with one */
    uint64_t deadline = i == 0 ? MLI_FOREVER : mli_now() + 30 * MLI_SECOND;
    if (mli_park(&parker, deadline) == ML_INTERRUPTED) atomic_fetch_add(&interrupted, 1);
  }
  atomic_store((atomic_bool *)argument, true);
  return NULL;
}

/* Whatever flags the host gave its handler. */
static void test_signals(int flags) {
  struct sigaction action = { .sa_handler = on_signal, .sa_flags = flags }, before;
  sigaction(SIGUSR1, &action, &before);
  atomic_bool done = false;
  atomic_store(&interrupted, 0);
  pthread_t other = check_thread(park_for_ever, &done);
  for (int i = 0; i < 2000 && !atomic_load(&done); i++) {
    pthread_kill(other, SIGUSR1);
    nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
  }
  if (CHECK(atomic_load(&done))) pthread_join(other, NULL);
  CHECK_EQ(atomic_load(&interrupted), 2);
  sigaction(SIGUSR1, &before, NULL);
}
#endif

int main(void) {
  test_lock();
  test_tokens();
  test_deadlines();
  test_ping_pong();
  test_token_at_the_deadline();
#ifndef MLI_PORTABLE /* that one does not notice */
  test_signals(0);
  test_signals(SA_RESTART);
#endif
  return check_report();
}
