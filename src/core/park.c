/* park.c: locks and parkers. */
#include "park.h"

#include <errno.h>
#include <stdlib.h>
#include "system.h"

void mli_lock_slow(mli_lock *lock) {
  while (atomic_exchange_explicit(&lock->word, 2, memory_order_acquire) != 0)
    mli_futex_wait(&lock->word, 2, MLI_FOREVER);
}

void mli_unlock_slow(mli_lock *lock) { mli_futex_wake(&lock->word); }

ml_status mli_park_peek(mli_parker *parker, uint64_t deadline) {
  for (;;) {
    unsigned word = 0;
    if (!atomic_compare_exchange_strong_explicit(&parker->word, &word, 2, memory_order_acquire,
                                                 memory_order_acquire) &&
        word == 1)
      return ML_OK;
    int err = mli_futex_wait(&parker->word, 2, deadline);
    if (err == EINTR || err == ETIMEDOUT) {
      /* Awake on our own: leave the sleeping state, unless a token came. */
      word = 2;
      if (atomic_compare_exchange_strong_explicit(&parker->word, &word, 0, memory_order_relaxed,
                                                  memory_order_relaxed))
        return err == EINTR ? ML_INTERRUPTED : ML_TIMEOUT;
    }
  }
}

ml_status mli_park(mli_parker *parker, uint64_t deadline) {
  ml_status status = mli_park_peek(parker, deadline);
  if (status == ML_OK) atomic_exchange_explicit(&parker->word, 0, memory_order_acquire);
  return status;
}

void mli_unpark(mli_parker *parker) {
  if (atomic_exchange_explicit(&parker->word, 1, memory_order_release) == 2)
    mli_futex_wake(&parker->word);
}

/* ---- the pool of parkers ---- */

typedef struct pooled {
  mli_parker parker;
  struct pooled *next;  /* [M] free */
  struct pooled *older; /* [I] of all */
} pooled;

static mli_lock pool_lock;
static pooled *pool, *all;

mli_parker *mli_parker_get(void) {
  mli_lock_acquire(&pool_lock);
  pooled *p = pool;
  if (p) pool = p->next;
  mli_lock_release(&pool_lock);
  if (!p && (p = aligned_alloc(64, 64))) { /* a cache line each */
    atomic_init(&p->parker.word, 0);
    p->next = NULL;
    mli_lock_acquire(&pool_lock);
    p->older = all;
    all = p;
    mli_lock_release(&pool_lock);
  }
  return p ? &p->parker : NULL;
}

void mli_parker_put(mli_parker *parker) {
  pooled *p = mli_container(parker, pooled, parker);
  mli_lock_acquire(&pool_lock);
  p->next = pool;
  pool = p;
  mli_lock_release(&pool_lock);
}

void mli_unpark_all(void) {
  mli_lock_acquire(&pool_lock);
  pooled *p = all;
  mli_lock_release(&pool_lock);
  for (; p; p = p->older) mli_unpark(&p->parker);
}
