/* ring.c: a ring with credit. */
#include "ring.h"

#include <assert.h>
#include <stdlib.h>

/* The flags below a count. */
#define ASLEEP UINT64_C(1) /* the other side */
#define ENDED UINT64_C(2)
#define ONE UINT64_C(4)

static uint64_t read_word(const _Atomic uint64_t *word) {
  return atomic_load_explicit(word, memory_order_acquire);
}

/* Notes that the caller sleeps, unless the word has changed from what it saw. */
static bool sleep_on(_Atomic uint64_t *word, uint64_t seen) {
  return atomic_compare_exchange_strong_explicit(word, &seen, seen | ASLEEP, memory_order_acq_rel,
                                                 memory_order_relaxed);
}

static bool withdraw(_Atomic uint64_t *word) {
  return atomic_fetch_and_explicit(word, ~ASLEEP, memory_order_acq_rel) & ASLEEP;
}

bool mli_ring_init(mli_ring *ring, unsigned room) {
  uint64_t size = 1;
  while (size < room) size *= 2;
  ring->slots = calloc(size, sizeof *ring->slots);
  if (!ring->slots) return false;
  ring->mask = size - 1;
  ring->room = room;
  ring->head = ring->tail = ring->limit = 0;
  ring->reader = ring->writer = NULL;
  atomic_init(&ring->put, 0);
  atomic_init(&ring->granted, 0);
  return true;
}

void mli_ring_fini(mli_ring *ring) {
  for (mli_message *m; (m = mli_ring_take(ring));) mli_message_free(m);
  free(ring->slots);
}

/* ---- the writer ---- */

bool mli_ring_may_put(const mli_ring *ring) { return read_word(&ring->granted) / ONE > ring->head; }

void mli_ring_put(mli_ring *ring, mli_message *message) {
  assert(mli_ring_may_put(ring));
  ring->slots[ring->head & ring->mask] = message;
  ring->head++;
  uint64_t old = atomic_exchange_explicit(&ring->put, ring->head * ONE, memory_order_acq_rel);
  if (old & ASLEEP) ring->reader->wake(ring->reader);
}

bool mli_ring_await_credit(mli_ring *ring, mli_waker *waker) {
  ring->writer = waker;
  for (;;) {
    uint64_t seen = read_word(&ring->granted);
    if (seen / ONE > ring->head) return true;
    if (sleep_on(&ring->granted, seen)) return false;
  }
}

bool mli_ring_withdraw_writer(mli_ring *ring) { return withdraw(&ring->granted); }

void mli_ring_end(mli_ring *ring) {
  uint64_t old = read_word(&ring->put);
  while (!atomic_compare_exchange_weak_explicit(&ring->put, &old, (old & ~ASLEEP) | ENDED,
                                                memory_order_acq_rel, memory_order_acquire))
    continue;
  if (old & ASLEEP) ring->reader->wake(ring->reader);
}

/* ---- the reader ---- */

bool mli_ring_ready(const mli_ring *ring) { return read_word(&ring->put) / ONE != ring->tail; }

mli_message *mli_ring_take(mli_ring *ring) {
  if (!mli_ring_ready(ring)) return NULL;
  return ring->slots[ring->tail++ & ring->mask];
}

bool mli_ring_ended(const mli_ring *ring) { return read_word(&ring->put) & ENDED; }

void mli_ring_grant(mli_ring *ring, unsigned n) {
  assert(n <= ring->room);
  if (mli_ring_open(ring) >= n) return;
  ring->limit = ring->tail + n;
  uint64_t old = atomic_exchange_explicit(&ring->granted, ring->limit * ONE, memory_order_acq_rel);
  if (old & ASLEEP) ring->writer->wake(ring->writer);
}

bool mli_ring_await_message(mli_ring *ring, mli_waker *waker) {
  ring->reader = waker;
  for (;;) {
    uint64_t seen = read_word(&ring->put);
    if (seen / ONE != ring->tail || seen & ENDED) return true;
    if (sleep_on(&ring->put, seen)) return false;
  }
}

bool mli_ring_withdraw_reader(mli_ring *ring) { return withdraw(&ring->put); }
