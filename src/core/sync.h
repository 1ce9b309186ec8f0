/*
** sync.h: events and barriers, for jobs and threads at once.
*/
#ifndef MLI_SYNC_H
#define MLI_SYNC_H

#include "waiters.h"

/* A flag to wait for. Setting it lets through everyone who waits at that moment,
** in order, even if it is cleared at once. */
typedef struct mli_event {
  mli_waiters waiters;
  bool set; /* [M] */
} mli_event;

void mli_event_init(mli_event *event);
bool mli_event_is_set(mli_event *event);
void mli_event_set(mli_event *event);
void mli_event_clear(mli_event *event);
/* True: it is set. False: `w` is queued and is woken when it is. */
bool mli_event_wait(mli_event *event, mli_waiter *w);

/*
** A meeting point of `parties`. The last to come lets all go, and the barrier is
** ready for the next round.
**
**   OPEN --[mli_barrier_abort]--> BROKEN --[mli_barrier_reset]--> OPEN
**
** B1  Who leaves before the barrier is full was never there: the rest wait on.
*/
typedef struct mli_barrier {
  mli_waiters waiters;
  uint64_t parties; /* [I] */
  bool broken;      /* [M] nobody waits */
} mli_barrier;

void mli_barrier_init(mli_barrier *barrier, uint64_t parties);
/* True: nothing to wait for: w->granted is its index, 1 to `parties` in the order
** of arrival, or 0: broken. False: `w` is queued; when woken it finds that there. */
bool mli_barrier_wait(mli_barrier *barrier, mli_waiter *w);
/* Lets go whoever waits with 0, and all who come until the reset. */
void mli_barrier_abort(mli_barrier *barrier);
/* Lets go whoever waits with 0; the barrier is open and empty. */
void mli_barrier_reset(mli_barrier *barrier);
bool mli_barrier_is_broken(mli_barrier *barrier);

#endif
