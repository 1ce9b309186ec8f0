/*
** channel.h: values handed from any thread or job to any other, in order: what
** queues and channels are made of.
**
** Who sends or receives makes an offer. It is met at once by what is there (a
** stored item, free room, the offer of another party), or it waits in the
** channel's queue of such offers until another party meets it:
**
**   offered --[met by another party]--> MET, the choice's waker is woken
**      |__[mli_choice_give_up]--> GIVEN_UP: nothing was taken or given
**
** Offers on several channels can belong to one choice, of which exactly one is
** met: whoever meets an offer claims its choice first.
**
** N1  An item is in one place: with its sender, stored, or with its receiver.
** N2  A choice is met once, or given up once, never both.
** N3  An offer whose choice is met or given up may still be queued; its owner
**     withdraws it before its memory goes. Others skip it.
** N4  While open choices wait to receive, nothing is stored; while open choices
**     wait to send, there is no room.
*/
#ifndef MLI_CHANNEL_H
#define MLI_CHANNEL_H

#include "waiters.h"

typedef struct mli_item mli_item;
typedef struct mli_offer mli_offer;
typedef struct mli_choice mli_choice;
typedef struct mli_channel mli_channel;

/* What is handed on: the head of what the layer above makes of it. */
struct mli_item {
  mli_item *next, *child;       /* [M] of the channel that stores it */
  double priority;              /* [I] lower is earlier; for MLI_PRIORITY */
  uint64_t number;              /* [M] */
  void (*drop)(mli_item *item); /* [I] nobody took it: frees it; any thread, no lock held */
};

typedef enum mli_order { MLI_FIFO, MLI_LIFO, MLI_PRIORITY } mli_order;

struct mli_channel {
  mli_object object;
  mli_waiters joiners; /* who waits for `unfinished` to be 0; its lock is the channel's */
  mli_offer *senders, **last_sender, *receivers, **last_receiver; /* [M] */
  mli_item *first, **last;  /* [M] stored; for MLI_PRIORITY `first` is a heap */
  uint64_t count, capacity; /* [M] stored; [I] how many may be: 0: none, hand to hand */
  uint64_t number;          /* [M] of the next item */
  uint64_t unfinished;      /* [M] accepted, and not reported as done */
  mli_order order;          /* [I] */
  bool closed;              /* [M] */
};

/* A party that waits; in its own memory. */
struct mli_choice {
  atomic_uint state; /* [A] */
  mli_waker *waker;
  mli_offer *met; /* read when woken */
};

struct mli_offer {
  mli_offer *next, **link; /* [M] link is NULL when not queued */
  mli_channel *channel;
  mli_choice *choice;
  mli_item *item;   /* to send: gone once it was met; to receive: what came */
  ml_status status; /* once met: ML_OK, or ML_CLOSED */
  bool send;
};

/* What a queue and a channel are shown as. */
extern const mli_type mli_queue_type, mli_channel_type;

/* With one reference; NULL: out of memory. */
mli_channel *mli_channel_new(const mli_type *type, uint64_t capacity, mli_order order);

/* No more items: senders end with ML_CLOSED, receivers get what is stored, then
** ML_CLOSED. `drop`: what is stored is dropped and counts as done.
** Thread: any. Blocks: no. */
void mli_channel_close(mli_channel *channel, bool drop);
uint64_t mli_channel_count(mli_channel *channel);
bool mli_channel_is_closed(mli_channel *channel);

/* Reports one item as done. False: there are no more that could be. */
bool mli_channel_done(mli_channel *channel);
bool mli_channel_is_done(mli_channel *channel);
/* True: all items are done. False: `w` is queued and is woken when they are. */
bool mli_channel_join(mli_channel *channel, mli_waiter *w);

/* An offer outside of any choice: ML_OK, ML_CLOSED, or ML_BUSY: it cannot be met
** at once, and nothing changed. Thread: any. Blocks: no. */
ml_status mli_offer_try(mli_offer *offer);

void mli_choice_init(mli_choice *choice, mli_waker *waker);
/* Meets the first of the n offers that can be met at once: true, choice->met is
** it. False: they wait; the waker is woken when one was met. In either case all
** are withdrawn before their memory goes. */
bool mli_choice_offer(mli_choice *choice, mli_offer *offers, size_t n);
/* True: none was met and none will be. False: one was, and the waker is woken. */
bool mli_choice_give_up(mli_choice *choice);
/* The owner: takes what is still queued out of the channels. */
void mli_choice_withdraw(mli_offer *offers, size_t n);

#endif
