/* sem.c: permits, handed on in order. */
#include "sem.h"

void mli_sem_init(mli_sem *sem, uint64_t permits) {
  atomic_init(&sem->lock.word, 0);
  sem->permits = permits;
  sem->first = NULL;
  sem->last = &sem->first;
  sem->closed = false;
}

static bool take(mli_sem *sem) {
  if (sem->closed) return true;
  if (sem->permits == 0 || sem->first) return false;
  sem->permits--;
  return true;
}

static mli_sem_waiter *pop(mli_sem *sem) {
  mli_sem_waiter *w = sem->first;
  if (!w) return NULL;
  sem->first = w->next;
  if (w->next)
    w->next->link = &sem->first;
  else
    sem->last = &sem->first;
  w->link = NULL;
  return w;
}

bool mli_sem_try(mli_sem *sem) {
  mli_lock_acquire(&sem->lock);
  bool taken = take(sem);
  mli_lock_release(&sem->lock);
  return taken;
}

bool mli_sem_acquire(mli_sem *sem, mli_sem_waiter *w) {
  mli_lock_acquire(&sem->lock);
  bool taken = take(sem);
  if (!taken) {
    w->next = NULL;
    w->link = sem->last;
    *sem->last = w;
    sem->last = &w->next;
  }
  mli_lock_release(&sem->lock);
  return taken;
}

bool mli_sem_remove(mli_sem *sem, mli_sem_waiter *w) {
  mli_lock_acquire(&sem->lock);
  bool queued = w->link != NULL;
  if (queued) {
    *w->link = w->next;
    if (w->next)
      w->next->link = w->link;
    else
      sem->last = w->link;
    w->link = NULL;
  }
  mli_lock_release(&sem->lock);
  return queued;
}

void mli_sem_release(mli_sem *sem) {
  mli_lock_acquire(&sem->lock);
  mli_sem_waiter *w = pop(sem);
  mli_waker *waker = w ? w->waker : NULL;
  if (!w) sem->permits++;
  mli_lock_release(&sem->lock);
  if (waker) waker->wake(waker);
}

void mli_sem_close(mli_sem *sem) {
  for (;;) {
    mli_lock_acquire(&sem->lock);
    sem->closed = true;
    mli_sem_waiter *w = pop(sem);
    mli_waker *waker = w ? w->waker : NULL;
    mli_lock_release(&sem->lock);
    if (!w) return;
    waker->wake(waker);
  }
}
