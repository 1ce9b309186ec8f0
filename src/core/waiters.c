/* waiters.c: a queue of waiters, and how they leave it. */
#include "waiters.h"

void mli_waiters_init(mli_waiters *queue) {
  atomic_init(&queue->lock.word, 0);
  queue->first = NULL;
  queue->last = &queue->first;
  queue->count = 0;
}

void mli_waiters_add(mli_waiters *queue, mli_waiter *w) {
  w->next = NULL;
  w->link = queue->last;
  *queue->last = w;
  queue->last = &w->next;
  queue->count++;
}

bool mli_waiters_remove(mli_waiters *queue, mli_waiter *w) {
  mli_lock_acquire(&queue->lock);
  bool queued = w->link != NULL;
  if (queued) {
    *w->link = w->next;
    if (w->next)
      w->next->link = w->link;
    else
      queue->last = w->link;
    w->link = NULL;
    queue->count--;
  }
  mli_lock_release(&queue->lock);
  return queued;
}

mli_waiter *mli_waiters_take(mli_waiters *queue, uint64_t n) {
  mli_waiter *chain = queue->first, **end = &chain;
  for (; *end && n > 0; n--) {
    (*end)->link = NULL;
    end = &(*end)->next;
    queue->count--;
  }
  queue->first = *end;
  *end = NULL;
  if (queue->first)
    queue->first->link = &queue->first;
  else
    queue->last = &queue->first;
  return chain;
}

void mli_waiters_wake(mli_waiter *chain) {
  while (chain) {
    mli_waker *waker = chain->waker;
    chain = chain->next; /* read first: a woken waiter's memory is its own */
    waker->wake(waker);
  }
}
