/* sem.c: permits, handed on in order. */
#include "sem.h"

void mli_sem_init(mli_sem *sem, uint64_t permits) {
  mli_waiters_init(&sem->waiters);
  sem->permits = permits;
  sem->closed = false;
}

static bool take(mli_sem *sem) {
  if (sem->closed) return true;
  if (sem->permits == 0) return false;
  sem->permits--;
  return true;
}

bool mli_sem_try(mli_sem *sem) {
  mli_lock_acquire(&sem->waiters.lock);
  bool taken = take(sem);
  mli_lock_release(&sem->waiters.lock);
  return taken;
}

bool mli_sem_acquire(mli_sem *sem, mli_waiter *w) {
  mli_lock_acquire(&sem->waiters.lock);
  bool taken = take(sem);
  if (!taken) mli_waiters_add(&sem->waiters, w);
  mli_lock_release(&sem->waiters.lock);
  return taken;
}

bool mli_sem_remove(mli_sem *sem, mli_waiter *w) { return mli_waiters_remove(&sem->waiters, w); }

void mli_sem_release(mli_sem *sem) { mli_sem_release_many(sem, 1); }

bool mli_sem_release_many(mli_sem *sem, uint64_t n) {
  mli_lock_acquire(&sem->waiters.lock);
  if (n > MLI_SEM_MAX - sem->permits) {
    mli_lock_release(&sem->waiters.lock);
    return false;
  }
  uint64_t waiting = sem->waiters.count;
  sem->permits += n > waiting ? n - waiting : 0;
  mli_waiter *chain = mli_waiters_take(&sem->waiters, n);
  mli_lock_release(&sem->waiters.lock);
  mli_waiters_wake(chain);
  return true;
}

uint64_t mli_sem_value(mli_sem *sem) {
  mli_lock_acquire(&sem->waiters.lock);
  uint64_t permits = sem->permits;
  mli_lock_release(&sem->waiters.lock);
  return permits;
}

void mli_sem_close(mli_sem *sem) {
  mli_lock_acquire(&sem->waiters.lock);
  sem->closed = true;
  mli_waiter *chain = mli_waiters_take(&sem->waiters, UINT64_MAX);
  mli_lock_release(&sem->waiters.lock);
  mli_waiters_wake(chain);
}
