/*
** observe.h: what the rest of the program tells of its jobs while somebody looks: events for
** the trace, figures for the summary. Call only what `mli_observing` asks for.
*/
#ifndef MLI_OBSERVE_H
#define MLI_OBSERVE_H

#include "executor.h"
#include "trace.h"

/* A job, or a task of a pool. All borrowed. */
typedef struct mli_observed_job {
  uint64_t lane;
  uint32_t number; /* in its state; 0: it has none */
  uint32_t parent, line;
  const char *name, *chunk; /* NULL or "": unknown */
  bool arrow;               /* it was submitted, and that was seen */
  bool threaded;            /* on a thread of a pool */
} mli_observed_job;

/* What is known of a task by itself. */
mli_observed_job mli_observe_task(const mli_task *task);
/* It is about to be settled. What runs as a job of a loop tells of that itself. */
void mli_observe_settle(const mli_task *task, mli_state state);

/* The task was handed over, from `task->submitted_at` until now. */
void mli_observe_submit(const mli_task *task);
/* It begins at `now`, after it waited for its turn since `since`. */
void mli_observe_start(const mli_observed_job *job, uint64_t since, uint64_t now);
/* It began before the trace did, and runs on at `now`. */
void mli_observe_again(const mli_observed_job *job, uint64_t now);
/* It ran from `began` until now, to a wait or to its end. `limit`: how long it may; 0: for
** ever. */
void mli_observe_run(const mli_observed_job *job, uint64_t began, uint64_t limit);
/* In a child process: the task, which has that lane in the parent's trace, ran so and has ended. */
void mli_observe_far_run(const mli_task *task, uint64_t lane, uint64_t began);
/* It waited for `what` from `since` until now. */
void mli_observe_park(const mli_observed_job *job, const char *what, uint64_t since);
/* It has ended. `begun`: it ran. */
void mli_observe_end(const mli_observed_job *job, mli_state state, bool begun);

/* This thread waited for `what`, or ran callbacks, since then. */
void mli_observe_wait(const char *what, uint64_t since);
void mli_observe_calls(uint64_t since);

/* A loop is held up: who by, and where that is now. */
void mli_observe_held(const char *who, const char *where);

/* Lua's collector: a step that was asked for, since then, and what Lua has now; a cycle has
** come to its end. */
void mli_observe_gc_step(uint64_t since, size_t kib);
void mli_observe_gc_cycle(void);

#endif
