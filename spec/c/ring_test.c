/* Tests of the ring: R1 to R3 of core/ring.h. */
#include <string.h>
#include "check.h"
#include "core/park.h"
#include "core/ring.h"

static mli_message *number(uint64_t n) {
  mli_message *m = mli_message_new(&n, sizeof n, NULL, 0);
  if (!m) abort();
  return m;
}

/* The number in the message, which it frees; 0: there is no message. */
static uint64_t read_number(mli_message *m) {
  uint64_t n = 0;
  if (m) memcpy(&n, m->bytes, sizeof n);
  mli_message_free(m);
  return n;
}

/* A side that sleeps. */
typedef struct sleeper {
  mli_waker waker;
  mli_parker parker;
  int wakes;
} sleeper;

static void wake_up(mli_waker *waker) {
  sleeper *s = mli_container(waker, sleeper, waker);
  s->wakes++;
  mli_unpark(&s->parker);
}

static sleeper new_sleeper(void) { return (sleeper){ .waker.wake = wake_up }; }

static mli_ring *new_ring(unsigned room) {
  mli_ring *ring = aligned_alloc(_Alignof(mli_ring), sizeof *ring);
  if (!ring || !mli_ring_init(ring, room)) abort();
  return ring;
}

static void free_ring(mli_ring *ring) {
  mli_ring_fini(ring);
  free(ring);
}

static void test_credit(void) {
  mli_ring *ring = new_ring(3);
  CHECK(!mli_ring_may_put(ring) && !mli_ring_ready(ring));
  mli_ring_grant(ring, 3);
  CHECK_EQ(mli_ring_open(ring), 3);
  for (uint64_t i = 1; i <= 3; i++) {
    CHECK(mli_ring_may_put(ring));
    mli_ring_put(ring, number(i));
  }
  CHECK(!mli_ring_may_put(ring));
  CHECK_EQ(read_number(mli_ring_take(ring)), 1);
  CHECK(!mli_ring_may_put(ring)); /* what is taken gives no credit by itself */
  mli_ring_grant(ring, 1);        /* less than there is: changes nothing */
  CHECK_EQ(mli_ring_open(ring), 2);
  mli_ring_grant(ring, 3);
  CHECK(mli_ring_may_put(ring));
  mli_ring_put(ring, number(4));
  mli_ring_end(ring);
  for (uint64_t i = 2; i <= 4; i++) CHECK_EQ(read_number(mli_ring_take(ring)), i);
  CHECK(mli_ring_take(ring) == NULL);
  CHECK(mli_ring_ended(ring));
  free_ring(ring);
}

static void test_wakes(void) {
  mli_ring *ring = new_ring(1);
  sleeper reader = new_sleeper(), writer = new_sleeper();
  CHECK(!mli_ring_await_credit(ring, &writer.waker));
  CHECK(!mli_ring_await_message(ring, &reader.waker));
  mli_ring_grant(ring, 1);
  CHECK_EQ(writer.wakes, 1);
  CHECK(mli_ring_await_credit(ring, &writer.waker)); /* it is there: no wake will come */
  mli_ring_put(ring, number(1));
  CHECK_EQ(reader.wakes, 1);
  CHECK(mli_ring_await_message(ring, &reader.waker));
  CHECK(!mli_ring_withdraw_reader(ring)); /* it was woken */

  CHECK(!mli_ring_await_credit(ring, &writer.waker));
  CHECK(mli_ring_withdraw_writer(ring));
  CHECK_EQ(read_number(mli_ring_take(ring)), 1);
  mli_ring_grant(ring, 1);
  CHECK_EQ(writer.wakes, 1); /* it had withdrawn */

  CHECK(!mli_ring_await_message(ring, &reader.waker));
  mli_ring_end(ring);
  CHECK_EQ(reader.wakes, 2);
  CHECK(mli_ring_await_message(ring, &reader.waker));
  free_ring(ring);
}

static void test_leftovers(void) {
  mli_ring *ring = new_ring(8);
  mli_ring_grant(ring, 8);
  for (uint64_t i = 1; i <= 5; i++) mli_ring_put(ring, number(i)); /* freed with the ring */
  free_ring(ring);
}

typedef struct stream {
  mli_ring *ring;
  uint64_t count;
} stream;

static void sleep_once(sleeper *s) {
  while (mli_park(&s->parker, MLI_FOREVER) != ML_OK) continue;
}

static void *write_all(void *arg) {
  stream *s = arg;
  sleeper writer = new_sleeper();
  for (uint64_t i = 1; i <= s->count; i++) {
    if (!mli_ring_await_credit(s->ring, &writer.waker)) sleep_once(&writer);
    if (!mli_ring_may_put(s->ring)) CHECK(!"woken for credit");
    mli_ring_put(s->ring, number(i));
  }
  mli_ring_end(s->ring);
  return NULL;
}

/* Reads all, in order; every third time it looks, it withdraws first. */
static void read_all(stream *s, unsigned room, unsigned strict) {
  sleeper reader = new_sleeper();
  uint64_t next = 1;
  for (unsigned turn = 0;; turn++) {
    bool ended = mli_ring_ended(s->ring);
    mli_message *m = mli_ring_take(s->ring);
    if (m) {
      if (read_number(m) != next++) CHECK(!"in order");
      if (!strict && mli_ring_open(s->ring) <= room / 2) mli_ring_grant(s->ring, room);
      continue;
    }
    if (ended) break;
    mli_ring_grant(s->ring, room);
    if (mli_ring_await_message(s->ring, &reader.waker)) continue;
    if (turn % 3 == 0 && mli_ring_withdraw_reader(s->ring)) continue;
    sleep_once(&reader);
    if (!mli_ring_ready(s->ring) && !mli_ring_ended(s->ring)) CHECK(!"woken for something");
  }
  CHECK_EQ(next, s->count + 1);
}

static void test_threads(unsigned room, bool strict, uint64_t count) {
  stream s = { new_ring(room), count };
  pthread_t thread = check_thread(write_all, &s);
  read_all(&s, room, strict);
  pthread_join(thread, NULL);
  free_ring(s.ring);
}

int main(void) {
  test_credit();
  test_wakes();
  test_leftovers();
  test_threads(1, true, CHECK_ROUNDS(50000));
  test_threads(1, false, CHECK_ROUNDS(50000));
  test_threads(7, false, CHECK_ROUNDS(500000));
  test_threads(64, false, CHECK_ROUNDS(500000));
  return check_report();
}
