/*
** stats.h: what a program did in all, for a summary at its end. Kept only while
** MLI_OBSERVE_STATS is set, since the start of the program: one record, to which all
** threads add.
*/
#ifndef MLI_STATS_H
#define MLI_STATS_H

#include "future.h"
#include "trace.h"

/* How often each duration came: 16 steps to each power of two, so that what is read out is
** at most 1/16 more than it was. */
#define MLI_HISTOGRAM_STEPS 16
#define MLI_HISTOGRAM_SLOTS (48 * MLI_HISTOGRAM_STEPS)

typedef struct mli_histogram {
  atomic_ullong slots[MLI_HISTOGRAM_SLOTS];
  atomic_ullong count, sum, most;
} mli_histogram;

/* Thread: any, all of them. Times are in ns. */
void mli_histogram_add(mli_histogram *h, uint64_t ns);
/* What the given part (0 to 1) of all does not exceed; 0: there are none. */
uint64_t mli_histogram_at(mli_histogram *h, double part);

/* A job that ran for long without a wait. */
typedef struct mli_stats_run {
  uint64_t took;
  uint32_t number, line;
  char name[64], chunk[96];
} mli_stats_run;

/* The loops of one name. */
typedef struct mli_stats_loop mli_stats_loop;
struct mli_stats_loop {
  mli_stats_loop *next; /* [M] */
  char name[16];        /* [I] */
  unsigned count;       /* [M] that have run */
  uint64_t lived, busy; /* [M] of those that have ended, ns */
};

typedef struct mli_stats {
  mli_histogram queued;           /* from submit or spawn to the beginning */
  mli_histogram runs, tasks;      /* of jobs on loops, from wait to wait; on threads of pools */
  mli_histogram steps;            /* the collector's, that were asked for */
  atomic_ullong settled[3];       /* jobs: finished, failed, cancelled */
  atomic_ullong cycles;           /* the collector's */
  atomic_ullong requests, reused; /* of HTTP; those that found a connection */
  atomic_ullong connections;      /* that were made */
  atomic_ullong blocked;          /* steps that took longer than the limit */
} mli_stats;

extern mli_stats mli_stats_all;

static inline void mli_stats_count(atomic_ullong *counter) {
  atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* Notes the run if it is the longest so far. The texts may be NULL. */
void mli_stats_run_was(uint64_t took, uint32_t number, const char *name, const char *chunk,
                       uint32_t line);
mli_stats_run mli_stats_longest(void);

/* A loop begins on this thread; it looks at it once each turn; it ends. NULL: out of memory,
** and likewise for the others. */
typedef struct mli_stats_turns mli_stats_turns;
mli_stats_turns *mli_stats_loop_begins(void);
void mli_stats_loop_turns(mli_stats_turns *turns, uint64_t idle_ns);
void mli_stats_loop_ends(mli_stats_turns *turns, uint64_t idle_ns);

/* Calls `f` for each name, with what its loops did until now. */
void mli_stats_loops(void (*f)(void *user, const mli_stats_loop *loop), void *user);

#endif
