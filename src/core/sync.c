/* sync.c: events and barriers. */
#include "sync.h"

/* ---- event ---- */

void mli_event_init(mli_event *event) {
  mli_waiters_init(&event->waiters);
  event->set = false;
}

bool mli_event_is_set(mli_event *event) {
  mli_lock_acquire(&event->waiters.lock);
  bool set = event->set;
  mli_lock_release(&event->waiters.lock);
  return set;
}

void mli_event_set(mli_event *event) {
  mli_lock_acquire(&event->waiters.lock);
  event->set = true;
  mli_waiter *chain = mli_waiters_take(&event->waiters, UINT64_MAX);
  mli_lock_release(&event->waiters.lock);
  mli_waiters_wake(chain);
}

void mli_event_clear(mli_event *event) {
  mli_lock_acquire(&event->waiters.lock);
  event->set = false;
  mli_lock_release(&event->waiters.lock);
}

bool mli_event_wait(mli_event *event, mli_waiter *w) {
  mli_lock_acquire(&event->waiters.lock);
  bool set = event->set;
  if (!set) mli_waiters_add(&event->waiters, w);
  mli_lock_release(&event->waiters.lock);
  return set;
}

/* ---- barrier ---- */

void mli_barrier_init(mli_barrier *barrier, uint64_t parties) {
  mli_waiters_init(&barrier->waiters);
  barrier->parties = parties;
  barrier->broken = false;
}

/* Under the lock: if all have come, takes them out, numbered in the order of arrival. */
static mli_waiter *gather(mli_barrier *barrier) {
  if (barrier->waiters.count < barrier->parties) return NULL;
  mli_waiter *chain = mli_waiters_take(&barrier->waiters, UINT64_MAX);
  uint64_t n = 0;
  for (mli_waiter *w = chain; w; w = w->next) w->granted = ++n;
  return chain;
}

bool mli_barrier_wait(mli_barrier *barrier, mli_waiter *w) {
  mli_lock_acquire(&barrier->waiters.lock);
  mli_waiter *chain = NULL;
  bool over = barrier->broken;
  w->granted = 0;
  if (!over) {
    mli_waiters_add(&barrier->waiters, w);
    chain = gather(barrier);
    over = chain != NULL;
  }
  mli_lock_release(&barrier->waiters.lock);
  for (mli_waiter **at = &chain; *at; at = &(*at)->next)
    if (*at == w) { /* the caller is the last: it is not woken, it goes on */
      *at = w->next;
      break;
    }
  mli_waiters_wake(chain);
  return over;
}

static void let_go(mli_barrier *barrier, bool broken) {
  mli_lock_acquire(&barrier->waiters.lock);
  barrier->broken = broken;
  mli_waiter *chain = mli_waiters_take(&barrier->waiters, UINT64_MAX);
  for (mli_waiter *w = chain; w; w = w->next) w->granted = 0;
  mli_lock_release(&barrier->waiters.lock);
  mli_waiters_wake(chain);
}

void mli_barrier_abort(mli_barrier *barrier) { let_go(barrier, true); }
void mli_barrier_reset(mli_barrier *barrier) { let_go(barrier, false); }

bool mli_barrier_is_broken(mli_barrier *barrier) {
  mli_lock_acquire(&barrier->waiters.lock);
  bool broken = barrier->broken;
  mli_lock_release(&barrier->waiters.lock);
  return broken;
}
