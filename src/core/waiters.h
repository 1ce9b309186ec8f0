/*
** waiters.h: a queue of those who wait for one thing, jobs and threads alike:
** first come, first served.
**
**   queued --[mli_waiters_take]--> granted --[mli_waiters_wake]--> woken
**      |__[mli_waiters_remove]--> gone: nothing was granted
**
** Q1  A waiter is granted once, or removed once, never both.
** Q2  A granted waiter is woken by whoever granted it, with no lock held; its
**     memory is its own again after that.
*/
#ifndef MLI_WAITERS_H
#define MLI_WAITERS_H

#include "op.h"
#include "park.h"

typedef struct mli_waiter mli_waiter;
struct mli_waiter {
  mli_waiter *next, **link; /* [M] link is NULL when not queued */
  mli_waker *waker;
  uint64_t granted; /* what it was granted, where the primitive has a choice */
};

/* The lock is that of the primitive the queue belongs to, and guards all of it. */
typedef struct mli_waiters {
  mli_lock lock;
  mli_waiter *first, **last; /* [M] */
  uint64_t count;            /* [M] */
} mli_waiters;

void mli_waiters_init(mli_waiters *queue);
/* Any thread, the lock not held. True: `w` left the queue. False: it was
** granted, and is woken or will be. */
bool mli_waiters_remove(mli_waiters *queue, mli_waiter *w);

/* Under the lock. */
void mli_waiters_add(mli_waiters *queue, mli_waiter *w);
/* Takes out the first n, or as many as there are, as a chain. */
mli_waiter *mli_waiters_take(mli_waiters *queue, uint64_t n);

/* The lock not held: wakes a chain that was taken, in order. */
void mli_waiters_wake(mli_waiter *chain);

#endif
