/*
** ring.h: messages from one writer to one reader, each on a thread of its own,
** without a lock. The reader gives credit: the writer puts no more messages than
** it was granted, and waits for credit between them.
**
**   tail           head            limit
**    |--- put, ---> |--- granted, -> |
**    |  not taken   |  not put yet   |
**
** Each side publishes its count in one word, in which the other side notes that it
** sleeps: so whoever brings something learns in the same step whom to wake.
**
** R1  tail <= head <= limit <= tail + room: a put never finds the ring full.
** R2  Messages are taken in the order in which they were put, each once, also
**     after the end.
** R3  A waiting side is woken exactly once, by what it waits for, or for the reader
**     by the end; or it withdrew, and is not woken.
*/
#ifndef MLI_RING_H
#define MLI_RING_H

#include "message.h"
#include "op.h"

typedef struct mli_ring {
  mli_message **slots;               /* [I] the array; a slot is the writer's, then the reader's */
  uint64_t mask;                     /* [I] its size, a power of two, less one */
  unsigned room;                     /* [I] the most credit */
  _Alignas(64) _Atomic uint64_t put; /* [A] head, and flags: written by the writer */
  mli_waker *writer;                 /* the writer's: whom to wake when it sleeps */
  uint64_t head;                     /* the writer's */
  _Alignas(64) _Atomic uint64_t granted; /* [A] limit, and flags: written by the reader */
  mli_waker *reader;                     /* the reader's: whom to wake when it sleeps */
  uint64_t tail, limit;                  /* the reader's */
} mli_ring;

/* `room` is at least 1. False: out of memory. */
bool mli_ring_init(mli_ring *ring, unsigned room);
/* Frees what was not taken. Nobody uses the ring any more. */
void mli_ring_fini(mli_ring *ring);

/* ---- the writer; none of it blocks ---- */

/* Whether there is credit for a message. */
bool mli_ring_may_put(const mli_ring *ring);
/* Takes over the message; needs credit. May wake the reader. */
void mli_ring_put(mli_ring *ring, mli_message *message);
/* True: there is credit. False: `waker` is woken when there is. */
bool mli_ring_await_credit(mli_ring *ring, mli_waker *waker);
/* True: the waiting writer will not be woken. False: it is being woken. */
bool mli_ring_withdraw_writer(mli_ring *ring);
/* Nothing more will be put; any thread, after the last put. May wake the reader. */
void mli_ring_end(mli_ring *ring);

/* ---- the reader; none of it blocks ---- */

/* Whether there is a message. */
bool mli_ring_ready(const mli_ring *ring);
/* The next message, which passes to the caller, or NULL: there is none now. */
mli_message *mli_ring_take(mli_ring *ring);
/* Whether the end has come. What was put before it can still be taken. */
bool mli_ring_ended(const mli_ring *ring);
/* Grants `n` messages, at most `room`, counted from the next to be taken; what was
** granted before stays. May wake the writer. */
void mli_ring_grant(mli_ring *ring, unsigned n);
/* How many messages were granted and not taken. */
static inline uint64_t mli_ring_open(const mli_ring *ring) { return ring->limit - ring->tail; }
/* True: there is a message, or the end. False: `waker` is woken when there is. */
bool mli_ring_await_message(mli_ring *ring, mli_waker *waker);
/* True: the waiting reader will not be woken. False: it is being woken. */
bool mli_ring_withdraw_reader(mli_ring *ring);

#endif
