/*
** park.h: how a thread sleeps. A lock of four bytes, and a parker: one per
** thread that waits, woken by any other thread.
*/
#ifndef MLI_PARK_H
#define MLI_PARK_H

#include <stdatomic.h>
#include "base.h"

/* A mutual exclusion lock. Zeroed memory is an open lock. Leaf locks only:
** at most one is held at a time and no callback runs under it. */
typedef struct mli_lock {
  atomic_uint word; /* 0 open, 1 held, 2 held and someone sleeps */
} mli_lock;

void mli_lock_slow(mli_lock *lock);
void mli_unlock_slow(mli_lock *lock);

static inline void mli_lock_acquire(mli_lock *lock) {
  unsigned open = 0;
  if (mli_unlikely(!atomic_compare_exchange_strong_explicit(
        &lock->word, &open, 1, memory_order_acquire, memory_order_relaxed)))
    mli_lock_slow(lock);
}

/* Without waiting: in a signal's handler too. */
static inline bool mli_lock_try(mli_lock *lock) {
  unsigned open = 0;
  return atomic_compare_exchange_strong_explicit(&lock->word, &open, 1, memory_order_acquire,
                                                 memory_order_relaxed);
}

static inline void mli_lock_release(mli_lock *lock) {
  if (mli_unlikely(atomic_exchange_explicit(&lock->word, 0, memory_order_release) == 2))
    mli_unlock_slow(lock);
}

/* A parker holds at most one token. `unpark` (any thread, never blocks) puts
** it; `park` (the owning thread) takes it, sleeping until it comes.
** Zeroed memory is a parker without a token. */
typedef struct mli_parker {
  atomic_uint word; /* 0 empty, 1 token, 2 the owner sleeps */
} mli_parker;

/* Parkers for waiting threads come from a pool that is never given back to the
** system, so that a late `unpark` finds a parker, whoever owns it by then; who
** parks looks at what it waits for again in any case. NULL: out of memory. */
mli_parker *mli_parker_get(void);
void mli_parker_put(mli_parker *parker);

/* Returns ML_OK with the token taken, ML_TIMEOUT at the deadline, or
** ML_INTERRUPTED when a signal handler ran on this thread. */
ml_status mli_park(mli_parker *parker, uint64_t deadline);
/* The same, but the token stays where it is. */
ml_status mli_park_peek(mli_parker *parker, uint64_t deadline);
/* Any thread: whether there is a token. */
static inline bool mli_parker_has_token(mli_parker *parker) {
  return atomic_load_explicit(&parker->word, memory_order_acquire) == 1;
}
void mli_unpark(mli_parker *parker);
/* Puts a token into each parker of the pool: whoever waits looks again. */
void mli_unpark_all(void);

#endif
