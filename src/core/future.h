/*
** future.h: one outcome, promised. Any number of threads hold a future, ask
** it, wait for it and cancel it; it settles once.
**
**   PENDING --[mli_future_start]--> RUNNING --[mli_future_settle]--> FINISHED
**      |                               |                             FAILED
**      |                               |                             CANCELLED
**      |__[mli_future_settle]__________|_____________________________^
**      |__[mli_future_cancel]: CANCELLED at once, it never runs______^
**
** F1  A future settles exactly once; its outcome does not change after that.
** F2  A watcher fires once, after the future settled, on the thread that
**     settled it, with no lock held; or it was removed and never fires.
** F3  A pending future that is cancelled never runs. A running one is asked
**     once, through `on_cancel`, and settles as its job ends.
** F4  A future released unsettled by its last producer is settled ABANDONED.
*/
#ifndef MLI_FUTURE_H
#define MLI_FUTURE_H

#include "message.h"
#include "object.h"
#include "park.h"

typedef struct mli_future mli_future;

typedef struct mli_watcher mli_watcher;
struct mli_watcher {
  mli_watcher *next, **link; /* [M] of the future; link is NULL when not hung */
  void (*fired)(mli_watcher *watcher);
};

typedef enum mli_state {
  MLI_PENDING,
  MLI_RUNNING,
  MLI_FINISHED, /* from here on it is settled */
  MLI_FAILED,
  MLI_STOPPED /* cancelled */
} mli_state;

extern const mli_type mli_future_type;

struct mli_future {
  mli_object object;
  atomic_uint state;                /* [A] mli_state; outcome may be read when settled */
  atomic_bool observed;             /* [A] someone asked for the outcome */
  atomic_bool asked;                /* [A] someone asked to cancel it */
  bool shared;                      /* [I] threads may hold it: then the lock is used */
  uint8_t status;                   /* ml_status of a failure without an outcome: the core's own */
  mli_lock lock;                    /* a leaf */
  mli_watcher *watchers, **last;    /* [M] in the order they came */
  void (*on_cancel)(mli_future *f); /* [I] asks whoever runs it; any thread, may be NULL */
  mli_message *reason;              /* [M] why it was cancelled; fixed once `asked` */
  mli_message *outcome;             /* values, or the error value; read-only once settled */
  char *traceback;                  /* of a failure; owned; read-only once settled */
};

/* In the caller's memory. `type` destroys what it is embedded in and must call
** mli_future_fini; mli_future_type is for mli_future_new's own. */
void mli_future_init(mli_future *f, const mli_type *type, bool shared);
void mli_future_fini(mli_future *f);
mli_future *mli_future_new(void); /* NULL: out of memory */

/* Called for each failure that nobody asked for, as its last holder lets it go,
** on that thread. Set once, by the layer above. */
extern void (*_Atomic mli_future_unobserved)(mli_future *f);

static inline mli_state mli_future_state(const mli_future *f) {
  return (mli_state)atomic_load_explicit(&f->state, memory_order_acquire);
}
static inline bool mli_future_settled(const mli_future *f) {
  return mli_future_state(f) >= MLI_FINISHED;
}
static inline void mli_future_observe(mli_future *f) {
  atomic_store_explicit(&f->observed, true, memory_order_relaxed);
}

/* PENDING to RUNNING. False: it was cancelled, do not run it. */
bool mli_future_start(mli_future *f);

/* Settles it. Takes `outcome` (or NULL) and `traceback` (from malloc, or NULL),
** also when it returns false: it was settled before. The caller holds a
** reference of its own. Thread: any. Blocks: no. */
bool mli_future_settle(mli_future *f, mli_state state, mli_message *outcome, char *traceback);

/* Settles it as failed for a reason of the core's own: ML_CLOSED, ML_MEMORY, ... */
bool mli_future_fail(mli_future *f, ml_status status);

/* Asks to cancel. Takes `reason` (NULL: none). True: the future was not
** settled. Thread: any. Blocks: no. */
bool mli_future_cancel(mli_future *f, mli_message *reason);

/* Cancels it if it has not started; a running one is left alone. True: it did. */
bool mli_future_drop(mli_future *f);

/* Hangs `w` on the future until it fires. False: the future is settled
** already and `w` was not hung. */
bool mli_future_watch(mli_future *f, mli_watcher *w);
/* True: `w` was hung and will not fire. False: it has fired, or is firing on
** another thread right now. */
bool mli_future_unwatch(mli_future *f, mli_watcher *w);

/* Blocks the calling thread until `f` is settled: ML_OK, or ML_TIMEOUT.
** Thread: any that runs no loop. */
ml_status mli_future_wait(mli_future *f, uint64_t deadline);

/* Moves an unshared, local future into a new shared one, with its watchers.
** The caller owns both; the local one must not be used after it. */
void mli_future_promote(mli_future *to, mli_future *from);

#endif
