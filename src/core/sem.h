/*
** sem.h: a counting semaphore for jobs and threads at once. First come, first
** served: a release hands its permit to the one who has waited longest.
**
** S1  permits + permits held is constant but for what release adds.
** S2  While someone waits, no permit is free.
*/
#ifndef MLI_SEM_H
#define MLI_SEM_H

#include "waiters.h"

#define MLI_SEM_MAX ((uint64_t)INT64_MAX)

typedef struct mli_sem {
  mli_waiters waiters;
  uint64_t permits; /* [M] */
  bool closed;      /* [M] everyone is let through: they look at why themselves */
} mli_sem;

void mli_sem_init(mli_sem *sem, uint64_t permits);
/* True: a permit was taken (or the semaphore is closed). Never blocks. */
bool mli_sem_try(mli_sem *sem);
/* True as above; false: `w` is queued and w->waker is woken when it is granted. */
bool mli_sem_acquire(mli_sem *sem, mli_waiter *w);
/* True: `w` left the queue. False: it was granted, or is being granted now. */
bool mli_sem_remove(mli_sem *sem, mli_waiter *w);
/* Any thread. Wakes at most one waiter. */
void mli_sem_release(mli_sem *sem);
/* The same n times at once. False: there would be more than MLI_SEM_MAX permits. */
bool mli_sem_release_many(mli_sem *sem, uint64_t n);
/* Any thread: the permits that are free now. */
uint64_t mli_sem_value(mli_sem *sem);
/* Any thread. Wakes all; later acquires succeed at once. */
void mli_sem_close(mli_sem *sem);

#endif
