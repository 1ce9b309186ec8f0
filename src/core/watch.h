/*
** watch.h: is a loop held up? One thread for the process looks at the loops that are at
** work, now and then, and tells when one takes long over a single step: a job that does
** not wait, a callback, a call that blocks.
**
**   a loop:       asleep --[mli_watch_begin]--> at work --[mli_watch_end]--> asleep
**   the thread:   none --first loop at work--> LOOKING --all asleep for a while--> PARKED
**                                                 ^______a loop at work_____________|
**
** W1  A loop pays a store for each step, and for each turn a store and a load.
** W2  While all loops sleep the thread sleeps too, without a timer.
** W3  What a loop's thread waited for a core does not count against its limit, up to as
**     much again.
** W4  `late` runs on the watching thread, with no lock held; the loop is not removed
**     while it runs.
*/
#ifndef MLI_WATCH_H
#define MLI_WATCH_H

#include <time.h>
#include "park.h"

typedef struct mli_watch mli_watch;

/* What a loop is late for. */
typedef enum mli_late {
  MLI_LATE_STEP,  /* it takes longer than the limit: once a step */
  MLI_LATE_STUCK, /* half a limit later it still does: until `late` returns true */
  MLI_LATE_SLICE, /* its slice is over: as long as it takes, once each slice */
} mli_late;

struct mli_watch {
  atomic_uint beat;        /* [A] written by the loop's thread: odd while it is at work */
  atomic_uint slice;       /* [A] likewise: of the step under way, microseconds; 0: none */
  atomic_ullong incidents; /* [A] steps that were longer than the limit */
  _Atomic(uint64_t) since; /* [A] of the watching thread: from when on the step counts, ns */
  bool (*late)(mli_watch *w, mli_late what, uint64_t took_ns); /* [I] */
  void *owner;                                                 /* [I] of the layer above */
  _Atomic(uint64_t) limit;                                     /* [A] ns; 0: none */
  mli_watch *next; /* [M] under the list's lock, as what follows */
  bool listed, pinned, leaving;
  mli_parker left; /* of the thread that removes it, until it is not pinned */
  /* The watching thread's: */
  long thread; /* [I] the loop's, as the kernel numbers it; and the clock of its CPU time */
  clockid_t clock;
  bool has_clock;
  unsigned seen;
  uint64_t sliced_at;
  uint64_t looked_at, cpu; /* the last look, and that clock then */
  uint64_t counted;        /* what the step took until then */
  uint64_t told_at;        /* and as it was told of */
  enum { MLI_TOLD_NOTHING, MLI_TOLD_STEP, MLI_TOLD_STUCK } told;
};

/* The loop's thread. Fill `late`, `owner` and `limit` before. Looks at the loop from its
** next turn on, if there is a limit or a slice. */
void mli_watch_add(mli_watch *w);
/* The loop's thread: when it returns `late` does not run any more. */
void mli_watch_remove(mli_watch *w);

/* Any thread: calls f if the loop is still in the list, and keeps it there meanwhile.
** `f` must not block. */
bool mli_watch_with(mli_watch *w, void (*f)(mli_watch *w, void *argument), void *argument);

/* No loop is left and none will come: the thread ends. Thread: any but a loop's. */
void mli_watch_end(void);

/* Whether the calling thread is the watching one: then it must not wait for a loop. */
bool mli_watch_is_here(void);

/* ---- for the loop's thread ---- */

extern atomic_bool mli_watch_parked;      /* nobody looks */
extern _Atomic(uint64_t) mli_watch_pause; /* how long until it looks again, ns */
void mli_watch_wake(void);

/* A turn begins. Either the watching thread sees the new beat, or we see that it has
** parked. */
static inline void mli_watch_begin(mli_watch *w) {
  if (!w->listed) return;
  unsigned beat = atomic_load_explicit(&w->beat, memory_order_relaxed);
  atomic_store(&w->beat, beat + 1);
  if (mli_unlikely(atomic_load(&mli_watch_parked)) &&
      (atomic_load_explicit(&w->limit, memory_order_relaxed) ||
       atomic_load_explicit(&w->slice, memory_order_relaxed)))
    mli_watch_wake();
}

/* It ends. */
static inline void mli_watch_done(mli_watch *w) {
  if (!w->listed) return;
  unsigned beat = atomic_load_explicit(&w->beat, memory_order_relaxed);
  atomic_store_explicit(&w->beat, beat + 1, memory_order_relaxed);
}

/* The next step of it. */
static inline void mli_watch_step(mli_watch *w) {
  unsigned beat = atomic_load_explicit(&w->beat, memory_order_relaxed);
  atomic_store_explicit(&w->beat, beat + 2, memory_order_relaxed);
}

/* From here on steps have this limit. */
static inline void mli_watch_limit(mli_watch *w, uint64_t limit) {
  atomic_store(&w->limit, limit);
  if (limit && limit < atomic_load(&mli_watch_pause)) mli_watch_wake();
}

/* From here on steps have this slice. */
static inline void mli_watch_slice(mli_watch *w, unsigned microseconds) {
  atomic_store(&w->slice, microseconds);
  if (microseconds && (uint64_t)microseconds * 1000 < atomic_load(&mli_watch_pause))
    mli_watch_wake();
}

#endif
