/*
** ring.c: a ring with credit. Who is about to sleep says so first and looks
** again; who brings something looks for a sleeper last: both in the one order of
** all sequentially consistent accesses, so at least one sees the other.
*/
#include "ring.h"

#include <assert.h>
#include <stdlib.h>

bool mli_ring_init(mli_ring *ring, unsigned room) {
  uint64_t size = 1;
  while (size < room) size *= 2;
  ring->slots = calloc(size, sizeof *ring->slots);
  if (!ring->slots) return false;
  ring->mask = size - 1;
  ring->room = room;
  ring->tail = 0;
  atomic_init(&ring->head, 0);
  atomic_init(&ring->limit, 0);
  atomic_init(&ring->reader, NULL);
  atomic_init(&ring->writer, NULL);
  atomic_init(&ring->ended, false);
  return true;
}

void mli_ring_fini(mli_ring *ring) {
  for (mli_message *m; (m = mli_ring_take(ring));) mli_message_free(m);
  free(ring->slots);
}

static bool withdraw(_Atomic(mli_waker *) *sleeper) {
  return atomic_exchange(sleeper, NULL) != NULL;
}

static void wake(_Atomic(mli_waker *) *sleeper) {
  if (!atomic_load(sleeper)) return; /* cheaper than an exchange, and the usual case */
  mli_waker *waker = atomic_exchange(sleeper, NULL);
  if (waker) waker->wake(waker);
}

/* ---- the writer ---- */

bool mli_ring_may_put(const mli_ring *ring) {
  return atomic_load(&ring->limit) > atomic_load_explicit(&ring->head, memory_order_relaxed);
}

void mli_ring_put(mli_ring *ring, mli_message *message) {
  uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
  assert(mli_ring_may_put(ring));
  ring->slots[head & ring->mask] = message;
  atomic_store(&ring->head, head + 1);
  wake(&ring->reader);
}

bool mli_ring_await_credit(mli_ring *ring, mli_waker *waker) {
  if (mli_ring_may_put(ring)) return true;
  atomic_store(&ring->writer, waker);
  return mli_ring_may_put(ring) && withdraw(&ring->writer);
}

bool mli_ring_withdraw_writer(mli_ring *ring) { return withdraw(&ring->writer); }

void mli_ring_end(mli_ring *ring) {
  atomic_store(&ring->ended, true);
  wake(&ring->reader);
}

/* ---- the reader ---- */

mli_message *mli_ring_take(mli_ring *ring) {
  if (!mli_ring_ready(ring)) return NULL;
  return ring->slots[ring->tail++ & ring->mask];
}

void mli_ring_grant(mli_ring *ring, unsigned n) {
  assert(n <= ring->room);
  uint64_t limit = ring->tail + n;
  if (limit <= atomic_load_explicit(&ring->limit, memory_order_relaxed)) return;
  atomic_store(&ring->limit, limit);
  wake(&ring->writer);
}

bool mli_ring_await_message(mli_ring *ring, mli_waker *waker) {
  if (mli_ring_ready(ring) || mli_ring_ended(ring)) return true;
  atomic_store(&ring->reader, waker);
  return (mli_ring_ready(ring) || mli_ring_ended(ring)) && withdraw(&ring->reader);
}

bool mli_ring_withdraw_reader(mli_ring *ring) { return withdraw(&ring->reader); }
