/*
** sem.h: a counting semaphore for jobs and threads at once. First come, first
** served: a release hands its permit to the one who has waited longest.
**
** S1  permits + permits held is constant but for what release adds.
** S2  A waiter is granted once, or removed once, never both.
*/
#ifndef MLI_SEM_H
#define MLI_SEM_H

#include "op.h"
#include "park.h"

typedef struct mli_sem_waiter mli_sem_waiter;
struct mli_sem_waiter {
  mli_sem_waiter *next, **link; /* [M] link is NULL when not queued */
  mli_waker *waker;
};

typedef struct mli_sem {
  mli_lock lock;
  uint64_t permits; /* [M] */
  mli_sem_waiter *first, **last;
  bool closed; /* [M] everyone is let through: they look at why themselves */
} mli_sem;

void mli_sem_init(mli_sem *sem, uint64_t permits);
/* True: a permit was taken (or the semaphore is closed). Never blocks. */
bool mli_sem_try(mli_sem *sem);
/* True as above; false: `w` is queued and w->waker is woken when it is granted. */
bool mli_sem_acquire(mli_sem *sem, mli_sem_waiter *w);
/* True: `w` left the queue. False: it was granted, or is being granted now. */
bool mli_sem_remove(mli_sem *sem, mli_sem_waiter *w);
/* Any thread. Wakes at most one waiter. */
void mli_sem_release(mli_sem *sem);
/* Any thread. Wakes all; later acquires succeed at once. */
void mli_sem_close(mli_sem *sem);

#endif
