/* future.c: settling, watching, cancelling. */
#include "future.h"

#include <stdlib.h>

static void lock(mli_future *f) {
  if (f->shared) mli_lock_acquire(&f->lock);
}

static void unlock(mli_future *f) {
  if (f->shared) mli_lock_release(&f->lock);
}

void mli_future_init(mli_future *f, const mli_type *type, bool shared) {
  mli_object_init(&f->object, type);
  atomic_init(&f->state, MLI_PENDING);
  atomic_init(&f->observed, false);
  atomic_init(&f->asked, false);
  atomic_init(&f->lock.word, 0);
  f->shared = shared;
  f->watchers = NULL;
  f->last = &f->watchers;
  f->on_cancel = NULL;
  f->reason = f->outcome = NULL;
  f->traceback = NULL;
  f->status = ML_OK;
}

void (*_Atomic mli_future_unobserved)(mli_future *f);

void mli_future_fini(mli_future *f) {
  if (mli_future_state(f) == MLI_FAILED && !atomic_load(&f->observed)) {
    void (*report)(mli_future *) = mli_future_unobserved;
    if (report) report(f);
  }
  mli_message_free(f->reason);
  mli_message_free(f->outcome);
  free(f->traceback);
}

static void future_destroy(mli_object *object) {
  mli_future *f = mli_container(object, mli_future, object);
  mli_future_fini(f);
  free(f);
}

const mli_type mli_future_type = { "future", future_destroy, NULL };

mli_future *mli_future_new(void) {
  mli_future *f = malloc(sizeof *f);
  if (f) mli_future_init(f, &mli_future_type, true);
  return f;
}

bool mli_future_start(mli_future *f) {
  unsigned state = MLI_PENDING;
  if (!f->shared) { /* nobody else can change it: no locked instruction, which waits for memory */
    if (atomic_load_explicit(&f->state, memory_order_relaxed) != state) return false;
    atomic_store_explicit(&f->state, MLI_RUNNING, memory_order_relaxed);
    return true;
  }
  return atomic_compare_exchange_strong_explicit(&f->state, &state, MLI_RUNNING,
                                                 memory_order_acq_rel, memory_order_relaxed);
}

/* Fires the watchers one by one. Each is unhung under the lock, so that
** `unwatch` knows who is first; it may free itself when it has fired. */
static void fire(mli_future *f) {
  for (;;) {
    lock(f);
    mli_watcher *w = f->watchers;
    if (w) {
      f->watchers = w->next;
      if (w->next)
        w->next->link = &f->watchers;
      else
        f->last = &f->watchers;
      w->link = NULL;
    }
    unlock(f);
    if (!w) return;
    w->fired(w);
  }
}

/* Under the lock: from `state` or later to a settled state, with its outcome. */
static bool settle(mli_future *f, unsigned allowed, mli_state state, mli_message *outcome,
                   char *traceback, ml_status status) {
  lock(f);
  unsigned now = atomic_load_explicit(&f->state, memory_order_relaxed);
  bool first = now <= allowed;
  /* A start may come between: only its PENDING to RUNNING happens unlocked. */
  if (first && now == MLI_PENDING) {
    first = atomic_compare_exchange_strong_explicit(&f->state, &now, MLI_RUNNING,
                                                    memory_order_acq_rel, memory_order_relaxed) ||
            now <= allowed;
  }
  if (first) {
    f->outcome = outcome;
    f->traceback = traceback;
    f->status = (uint8_t)status;
    atomic_store_explicit(&f->state, state, memory_order_release);
  }
  unlock(f);
  if (first) {
    fire(f);
  } else {
    mli_message_free(outcome);
    free(traceback);
  }
  return first;
}

bool mli_future_settle(mli_future *f, mli_state state, mli_message *outcome, char *traceback) {
  return settle(f, MLI_RUNNING, state, outcome, traceback, ML_OK);
}

bool mli_future_fail(mli_future *f, ml_status status) {
  return settle(f, MLI_RUNNING, MLI_FAILED, NULL, NULL, status);
}

bool mli_future_cancel(mli_future *f, mli_message *reason) {
  lock(f);
  bool settled = mli_future_settled(f);
  bool first = !settled && !atomic_load_explicit(&f->asked, memory_order_relaxed);
  if (first) {
    f->reason = reason; /* before `asked`: who sees that may read this */
    atomic_store_explicit(&f->asked, true, memory_order_release);
  }
  unlock(f);
  if (!first) mli_message_free(reason);
  if (settled) return false;
  if (first && !settle(f, MLI_PENDING, MLI_STOPPED, NULL, NULL, ML_OK) && f->on_cancel)
    f->on_cancel(f);
  return true;
}

bool mli_future_drop(mli_future *f) {
  return settle(f, MLI_PENDING, MLI_STOPPED, NULL, NULL, ML_OK);
}

bool mli_future_watch(mli_future *f, mli_watcher *w) {
  lock(f);
  bool hung = !mli_future_settled(f);
  if (hung) {
    w->next = NULL;
    w->link = f->last;
    *f->last = w;
    f->last = &w->next;
  }
  unlock(f);
  return hung;
}

bool mli_future_unwatch(mli_future *f, mli_watcher *w) {
  lock(f);
  bool hung = w->link != NULL;
  if (hung) {
    *w->link = w->next;
    if (w->next)
      w->next->link = w->link;
    else
      f->last = w->link;
    w->link = NULL;
  }
  unlock(f);
  return hung;
}

void mli_future_promote(mli_future *to, mli_future *from) {
  atomic_store_explicit(&to->state, mli_future_state(from), memory_order_relaxed);
  atomic_store_explicit(&to->observed, atomic_load(&from->observed), memory_order_relaxed);
  atomic_store_explicit(&to->asked, atomic_load(&from->asked), memory_order_relaxed);
  to->on_cancel = from->on_cancel;
  to->watchers = from->watchers;
  to->last = from->watchers ? from->last : &to->watchers;
  if (to->watchers) to->watchers->link = &to->watchers;
  to->reason = from->reason;
  to->outcome = from->outcome;
  to->traceback = from->traceback;
  to->status = from->status;
  from->reason = from->outcome = NULL;
  from->traceback = NULL;
  from->watchers = NULL;
  from->last = &from->watchers;
}

/* ---- a thread that waits ---- */

typedef struct thread_wait {
  mli_watcher watcher;
  mli_parker *parker;
  atomic_bool woken;
} thread_wait;

static void wake_thread(mli_watcher *watcher) {
  thread_wait *w = mli_container(watcher, thread_wait, watcher);
  mli_parker *parker = w->parker;
  atomic_store_explicit(&w->woken, true, memory_order_release);
  mli_unpark(parker);
}

ml_status mli_future_wait(mli_future *f, uint64_t deadline) {
  thread_wait w = { .parker = mli_parker_get() };
  if (!w.parker) return ML_MEMORY;
  ml_status status = ML_OK;
  w.watcher.fired = wake_thread;
  if (mli_future_watch(f, &w.watcher)) {
    while (!atomic_load_explicit(&w.woken, memory_order_acquire)) {
      if (mli_park(w.parker, deadline) == ML_TIMEOUT && mli_future_unwatch(f, &w.watcher)) {
        status = ML_TIMEOUT;
        break;
      }
    }
  }
  mli_parker_put(w.parker);
  return status;
}
