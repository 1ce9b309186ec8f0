/* channel.c: offers, and how they meet. */
#include "channel.h"

#include <stdlib.h>

enum { OPEN, MET, GIVEN_UP }; /* of a choice */

static void lock(mli_channel *channel) { mli_lock_acquire(&channel->joiners.lock); }
static void unlock(mli_channel *channel) { mli_lock_release(&channel->joiners.lock); }

/* ---- the store ---- */

static bool before(const mli_item *a, const mli_item *b) {
  return a->priority != b->priority ? a->priority < b->priority : a->number < b->number;
}

/* Makes one pairing heap of two. */
static mli_item *meld(mli_item *a, mli_item *b) {
  if (!a || !b) return a ? a : b;
  if (before(b, a)) {
    mli_item *c = a;
    a = b;
    b = c;
  }
  b->next = a->child;
  a->child = b;
  a->next = NULL;
  return a;
}

/* One heap of the list of heaps that its root leaves: pairs, then all of those. */
static mli_item *meld_all(mli_item *list) {
  mli_item *pairs = NULL, *heap = NULL;
  while (list) {
    mli_item *a = list, *b = a->next;
    list = b ? b->next : NULL;
    a = meld(a, b);
    a->next = pairs;
    pairs = a;
  }
  while (pairs) {
    mli_item *a = pairs;
    pairs = a->next;
    heap = meld(heap, a);
  }
  return heap;
}

static void store(mli_channel *channel, mli_item *item) {
  item->next = item->child = NULL;
  item->number = channel->number++;
  channel->count++;
  if (channel->order == MLI_PRIORITY) {
    channel->first = meld(channel->first, item);
  } else if (channel->order == MLI_LIFO) {
    item->next = channel->first;
    channel->first = item;
  } else {
    *channel->last = item;
    channel->last = &item->next;
  }
}

static mli_item *take(mli_channel *channel) {
  mli_item *item = channel->first;
  channel->count--;
  if (channel->order == MLI_PRIORITY) {
    channel->first = meld_all(item->child);
  } else {
    channel->first = item->next;
    if (!channel->first) channel->last = &channel->first;
  }
  return item;
}

/* Takes out all, as a list. */
static mli_item *take_all(mli_channel *channel) {
  mli_item *list = NULL, **end = &list;
  while (channel->count > 0) {
    *end = take(channel);
    end = &(*end)->next;
  }
  *end = NULL;
  return list;
}

static void drop_all(mli_item *list) {
  while (list) {
    mli_item *item = list;
    list = item->next;
    item->drop(item);
  }
}

/* Nobody waits here any more: who does holds a reference. */
static void channel_destroy(mli_object *object) {
  mli_channel *channel = mli_container(object, mli_channel, object);
  drop_all(take_all(channel));
  free(channel);
}

const mli_type mli_queue_type = { "queue", channel_destroy, NULL };
const mli_type mli_channel_type = { "channel", channel_destroy, NULL };

mli_channel *mli_channel_new(const mli_type *type, uint64_t capacity, mli_order order) {
  mli_channel *channel = calloc(1, sizeof *channel);
  if (!channel) return NULL;
  mli_object_init(&channel->object, type);
  mli_waiters_init(&channel->joiners);
  channel->last_sender = &channel->senders;
  channel->last_receiver = &channel->receivers;
  channel->last = &channel->first;
  channel->capacity = capacity;
  channel->order = order;
  return channel;
}

/* ---- queues of offers ---- */

static mli_offer ***tail_of(mli_offer *offer) {
  return offer->send ? &offer->channel->last_sender : &offer->channel->last_receiver;
}

static void enqueue(mli_offer *offer) {
  mli_offer ***tail = tail_of(offer);
  offer->next = NULL;
  offer->link = *tail;
  **tail = offer;
  *tail = &offer->next;
}

static void dequeue(mli_offer *offer) {
  *offer->link = offer->next;
  if (offer->next)
    offer->next->link = offer->link;
  else
    *tail_of(offer) = offer->link;
  offer->link = NULL;
}

/* Claims the first offer of a queue that can still be had and takes it out. */
static mli_offer *claim(mli_offer **queue) {
  while (*queue) {
    mli_offer *offer = *queue;
    unsigned open = OPEN;
    dequeue(offer);
    if (atomic_compare_exchange_strong(&offer->choice->state, &open, MET)) {
      offer->choice->met = offer;
      return offer;
    }
  }
  return NULL;
}

static void wake(mli_offer *met) {
  mli_waker *waker = met->choice->waker;
  waker->wake(waker);
}

/* ---- meeting ---- */

/* Under the lock. `*other` is whose offer met this one, to be woken; or NULL. */
static ml_status meet_send(mli_offer *offer, mli_offer **other) {
  mli_channel *channel = offer->channel;
  if (channel->closed) return ML_CLOSED;
  if ((*other = claim(&channel->receivers))) {
    (*other)->item = offer->item;
    (*other)->status = ML_OK;
  } else if (channel->count < channel->capacity) {
    store(channel, offer->item);
  } else {
    return ML_BUSY;
  }
  offer->item = NULL;
  channel->unfinished++;
  return ML_OK;
}

static ml_status meet_receive(mli_offer *offer, mli_offer **other) {
  mli_channel *channel = offer->channel;
  bool stored = channel->count > 0;
  if (stored) offer->item = take(channel);
  if ((*other = claim(&channel->senders))) {
    if (stored)
      store(channel, (*other)->item);
    else
      offer->item = (*other)->item;
    (*other)->item = NULL;
    (*other)->status = ML_OK;
    channel->unfinished++;
  }
  if (offer->item) return ML_OK;
  return channel->closed ? ML_CLOSED : ML_BUSY;
}

static ml_status meet(mli_offer *offer, mli_offer **other) {
  *other = NULL;
  offer->status = offer->send ? meet_send(offer, other) : meet_receive(offer, other);
  return offer->status;
}

ml_status mli_offer_try(mli_offer *offer) {
  mli_offer *other;
  lock(offer->channel);
  ml_status status = meet(offer, &other);
  unlock(offer->channel);
  if (other) wake(other);
  return status;
}

/* ---- choices ---- */

void mli_choice_init(mli_choice *choice, mli_waker *waker) {
  atomic_init(&choice->state, OPEN);
  choice->waker = waker;
  choice->met = NULL;
}

bool mli_choice_give_up(mli_choice *choice) {
  unsigned open = OPEN;
  return atomic_compare_exchange_strong(&choice->state, &open, GIVEN_UP);
}

void mli_choice_withdraw(mli_offer *offers, size_t n) {
  for (size_t i = 0; i < n; i++) {
    lock(offers[i].channel);
    if (offers[i].link) dequeue(&offers[i]);
    unlock(offers[i].channel);
  }
}

/* One offer waits if it cannot be met, in one step. */
static bool offer_one(mli_choice *choice, mli_offer *offer) {
  mli_offer *other;
  lock(offer->channel);
  bool met = meet(offer, &other) != ML_BUSY;
  if (met)
    choice->met = offer;
  else
    enqueue(offer);
  unlock(offer->channel);
  if (other) wake(other);
  return met;
}

/* Under the lock: could this offer be met now, by another than its own choice? */
static bool could_meet(const mli_offer *offer) {
  const mli_channel *channel = offer->channel;
  if (channel->closed) return true;
  if (offer->send ? channel->count < channel->capacity : channel->count > 0) return true;
  const mli_offer *o = offer->send ? channel->receivers : channel->senders;
  while (o && (o->choice == offer->choice || atomic_load(&o->choice->state) != OPEN)) o = o->next;
  return o != NULL;
}

/* Several offers are queued one channel after the other, and locks are held one at
** a time. As soon as one is queued, others may claim the choice. If on the way an
** offer turns out to be one that could be met, the choice is given up and all
** begins anew: only a choice that is not queued anywhere meets others, so that one
** claim is all it takes. */
bool mli_choice_offer(mli_choice *choice, mli_offer *offers, size_t n) {
  for (size_t i = 0; i < n; i++) {
    offers[i].choice = choice;
    offers[i].link = NULL;
  }
  if (n == 1) return offer_one(choice, offers);
  for (;;) {
    for (size_t i = 0; i < n; i++)
      if (mli_offer_try(&offers[i]) != ML_BUSY) {
        choice->met = &offers[i];
        return true;
      }
    bool again = false;
    for (size_t i = 0; i < n && !again; i++) {
      lock(offers[i].channel);
      again = could_meet(&offers[i]);
      if (!again) enqueue(&offers[i]);
      unlock(offers[i].channel);
    }
    if (!again || !mli_choice_give_up(choice)) return false;
    mli_choice_withdraw(offers, n);
    atomic_store(&choice->state, OPEN);
  }
}

/* ---- closing, counting ---- */

void mli_channel_close(mli_channel *channel, bool drop) {
  mli_offer *ended = NULL, **end = &ended, *offer;
  mli_item *items = NULL;
  mli_waiter *joined = NULL;
  lock(channel);
  channel->closed = true;
  while ((offer = claim(&channel->senders)) || (offer = claim(&channel->receivers))) {
    offer->status = ML_CLOSED;
    *end = offer;
    end = &offer->next;
  }
  *end = NULL;
  if (drop) {
    uint64_t count = channel->count, unfinished = channel->unfinished;
    channel->unfinished = count < unfinished ? unfinished - count : 0;
    items = take_all(channel);
    if (channel->unfinished == 0) joined = mli_waiters_take(&channel->joiners, UINT64_MAX);
  }
  unlock(channel);
  while ((offer = ended)) {
    ended = offer->next;
    wake(offer);
  }
  mli_waiters_wake(joined);
  drop_all(items);
}

uint64_t mli_channel_count(mli_channel *channel) {
  lock(channel);
  uint64_t count = channel->count;
  unlock(channel);
  return count;
}

bool mli_channel_is_closed(mli_channel *channel) {
  lock(channel);
  bool closed = channel->closed;
  unlock(channel);
  return closed;
}

bool mli_channel_done(mli_channel *channel) {
  mli_waiter *joined = NULL;
  lock(channel);
  bool some = channel->unfinished > 0;
  if (some && --channel->unfinished == 0) joined = mli_waiters_take(&channel->joiners, UINT64_MAX);
  unlock(channel);
  mli_waiters_wake(joined);
  return some;
}

bool mli_channel_is_done(mli_channel *channel) {
  mli_lock_acquire(&channel->joiners.lock);
  bool done = channel->unfinished == 0;
  mli_lock_release(&channel->joiners.lock);
  return done;
}

bool mli_channel_join(mli_channel *channel, mli_waiter *w) {
  lock(channel);
  bool done = channel->unfinished == 0;
  if (!done) mli_waiters_add(&channel->joiners, w);
  unlock(channel);
  return done;
}
