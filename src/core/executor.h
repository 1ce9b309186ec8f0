/*
** executor.h: what takes tasks and gives futures: n loop threads, or a pool of
** worker threads. What a task means is the business of the layer above, which
** gives the hooks.
**
**   OPEN --[mli_executor_shutdown]--> CLOSING --the last thread is gone--> ENDED
**
** E1  A task that was taken is run, or its future settled, exactly once.
** E2  With one loop, or one worker, tasks start in the order of their submits.
** E3  Each thread holds a reference; `ended` settles as the last one leaves.
** E4  A pool worker that submits to its own pool never waits for a free worker.
*/
#ifndef MLI_EXECUTOR_H
#define MLI_EXECUTOR_H

#include <pthread.h>
#include "future.h"
#include "loop.h"
#include "sem.h"
#include "text.h"

typedef struct mli_executor mli_executor;
typedef struct mli_worker mli_worker;
typedef struct mli_task mli_task;

#define MLI_NAME_MAX 64
#define MLI_WHERE_MAX 96

/* A piece of work on its way, and the future of its outcome. */
struct mli_task {
  mli_future future;       /* its object: the task lives as long as anyone holds the future */
  mli_node node;           /* to the loop, or in the pool's queue */
  mli_executor *executor;  /* [I] holds a reference */
  mli_message *payload;    /* what to run: passes to who starts it */
  mli_message *context;    /* [I] the submitter's context variables, or NULL */
  uint64_t submitted_at;   /* [I] ns */
  uint64_t timeout;        /* [I] ns from its start, or MLI_FOREVER */
  mli_node cancel_node;    /* the request to cancel it, to its loop */
  mli_worker *worker;      /* loops: [I] once posted. Pools: [M] of the executor, while it runs */
  mli_worker *pin;         /* [I] the worker that must run it; NULL: any */
  mli_object *seat;        /* [I] the same for child processes; a reference, or NULL */
  const mli_task *origin;  /* [I] the pool's task that it was submitted in; only to compare */
  uint64_t begun_at;       /* [I] outside of loops, if somebody looks: ns; else 0 */
  uint64_t lane;           /* [I] of a trace, once submitted; 0: none */
  atomic_bool over;        /* [A] it has no slot of a bounded executor, or gave it back */
  mli_watcher settled;     /* on its own future: gives the slot back */
  void *runner;            /* [L] of the layer above: what runs it on its loop, while it does */
  uint32_t line;           /* [I] where it was submitted; 0: unknown */
  char name[MLI_NAME_MAX]; /* [I] "" if none was given */
  mli_text *chunk;         /* [I] the chunk in which that is; a reference, or NULL */
};

extern const mli_type mli_task_type, mli_executor_type;

/* A task with one reference for the submitter. NULL: out of memory. */
mli_task *mli_task_new(mli_executor *ex, mli_message *payload);

/* The name of the chunk in which it was submitted, or "?". */
const char *mli_task_chunk(const mli_task *task);

/* The hooks of the layer above; on the worker's own thread unless they say more. */
typedef struct mli_executor_class {
  const char *kind;             /* "async", "thread" or "process" */
  bool far;                     /* tasks run in another process */
  void (*open)(mli_worker *w);  /* the thread begins */
  void (*close)(mli_worker *w); /* it ends; nothing runs on it any more */
  /* Takes over one reference. Loops: begins it soon. Pools: returns when it is done. */
  void (*run)(mli_worker *w, mli_task *task);
  /* Its running task was asked to stop. Loops: on their thread. Pools: on any thread, under the
  ** executor's lock: sets flags and wakes, no more. */
  void (*cancel)(mli_worker *w, mli_task *task);
  /* Pools only; both may be NULL. Under the lock as `cancel`: its running task was cancelled
  ** and is to be broken off even where it does not wait. */
  void (*force)(mli_worker *w, mli_task *task);
  void (*between)(mli_worker *w); /* a task is done, and nobody pinned it */
  /* Loops only; `direct` may be NULL. */
  /* On the thread that submits, before the task is posted: begins it there and takes over the
  ** reference, or returns false: it is to be posted. */
  bool (*direct)(mli_worker *w, mli_task *task);
  bool (*turn)(mli_worker *w);           /* a share of the ready work; true: there is more */
  bool (*idle)(mli_worker *w);           /* no task is left */
  void (*cancel_all)(mli_worker *w);     /* cancel what runs here */
  void (*visit)(mli_worker *w, bool in); /* a thread that drives it comes, or goes on to others */
} mli_executor_class;

/* What happened on one thread: written by it alone, read by anyone. */
typedef struct mli_counts {
  atomic_ullong submitted, finished, failed, cancelled; /* by spawn, for `submitted` */
  atomic_ullong running, parked;                        /* now */
} mli_counts;

static inline void mli_count(atomic_ullong *counter, int by) {
  unsigned long long n = atomic_load_explicit(counter, memory_order_relaxed);
  atomic_store_explicit(counter, n + (unsigned long long)by, memory_order_relaxed);
}

struct mli_worker {
  mli_executor *executor; /* [I] */
  unsigned index;         /* [I] from 0 */
  mli_loop *loop;         /* [I] NULL in a pool; holds a reference */
  void *user;             /* of the layer above */
  atomic_uint load;       /* [A] tasks posted and not settled: loops only */
  mli_counts counts;      /* [A] written by its own thread only */
  pthread_t thread;
  bool started, joined; /* [M] */
  bool gone;            /* [M] of a pool: it ended for want of work */
  /* loops */
  mli_node close_node;
  bool closing; /* [L] */
  /* pools */
  mli_node *own, **own_last; /* [M] tasks that are pinned to it */
  unsigned pins;             /* [M] */
  mli_worker *next_idle;     /* [M] */
  mli_parker parker;
  mli_task *task; /* [M] what it runs now */
};

struct mli_executor {
  mli_object object;
  const mli_executor_class *class; /* [I] */
  void *user;                      /* [I] of the layer above: freed by `free_user` */
  void (*free_user)(void *user);
  char name[MLI_NAME_MAX];
  unsigned size;           /* [I] loops, or the most workers */
  bool loops;              /* [I] */
  uint64_t idle_life;      /* [I] ns until an idle worker of a pool ends, or MLI_FOREVER */
  bool driven;             /* [I] by the thread that made it: see driven.h */
  atomic_ullong submitted; /* [A] */
  atomic_ullong dropped;   /* [A] tasks cancelled in a pool's queue */
  atomic_uint users;       /* [A] handles that keep it open */
  atomic_bool closing;     /* [A] */
  atomic_bool cancel;      /* [A] closing and cancelling what is left */
  bool bounded;            /* [I] `slots` counts */
  mli_sem slots;           /* max_pending */
  mli_future *ended;       /* [I] settles when the last thread is gone */
  mli_lock lock;           /* a leaf: what follows */
  mli_worker **workers;    /* [M] of a pool; fixed for loops */
  unsigned count, room;
  unsigned alive;          /* [M] workers that will look for tasks */
  unsigned threads;        /* [M] that have not left */
  mli_worker *idle;        /* [M] workers without work, latest first */
  mli_node *queue, **last; /* [M] tasks of a pool */
};

/* Makes an executor and, for loops, starts its threads. `max_pending` 0: no
** bound. `user` passes to the executor, also on failure.
** ML_OK, ML_MEMORY, or ML_SYSTEM with errno. */
typedef struct mli_executor_options {
  const mli_executor_class *class;
  const char *name;
  bool loops;
  bool driven; /* one loop, and no thread for it */
  unsigned size;
  uint64_t max_pending;
  uint64_t idle_life; /* pools */
  void *user;
  void (*free_user)(void *user);
} mli_executor_options;
ml_status mli_executor_new(mli_executor **out, const mli_executor_options *options);

/* Hands the task over (a reference of its own is taken). The caller holds a
** slot if the executor is bounded; it is released when the task settles.
** ML_OK; ML_CLOSED or ML_SYSTEM: the future was settled so.
** Thread: any. Blocks: no. */
ml_status mli_executor_submit(mli_executor *ex, mli_task *task);

/* The worker's thread: the outcome of a task it ran. Takes over what
** mli_future_settle does, counts it and frees its slot and reference. */
void mli_task_settle(mli_worker *w, mli_task *task, mli_state state, mli_message *outcome,
                     char *traceback, ml_status status);

/* A cancelled task that runs in a pool is broken off as its class can. Thread: any. */
void mli_task_force(mli_task *task);

/* No more submits; what was submitted is finished, or cancelled. Again with
** `cancel` cancels what is left. Thread: any. Blocks: no: wait for ex->ended. */
void mli_executor_shutdown(mli_executor *ex, bool cancel);
/* Joins the threads, which must have ended. Thread: any but theirs. */
void mli_executor_join(mli_executor *ex);

/* One more, or one less, user: the last one's leaving shuts it down. */
void mli_executor_use(mli_executor *ex);
void mli_executor_leave(mli_executor *ex);

/* The worker's thread: what it runs now, for others to see. NULL: nothing. */
void mli_worker_runs(mli_worker *w, mli_task *task);

/* Makes the calling thread a worker of a pool that has none: it calls the hooks itself.
** NULL: out of memory. */
mli_worker *mli_executor_adopt(mli_executor *ex);

/* What happened in all its threads so far, as of now. Any thread. */
typedef struct mli_totals {
  unsigned long long submitted, queued, running, parked, finished, failed, cancelled, blocked;
  unsigned threads;
} mli_totals;
void mli_executor_totals(mli_executor *ex, mli_totals *out);

/* The worker with this index, or NULL. It stays as long as the executor. Thread: any. */
mli_worker *mli_executor_worker(mli_executor *ex, unsigned index);

/* The worker that the calling thread is, or NULL. */
mli_worker *mli_worker_self(void);
/* For driven.c: the calling thread is that worker from here on; returns the one before. */
mli_worker *mli_worker_become(mli_worker *w);
/* The last act of a worker's thread. */
void mli_worker_leave(mli_worker *w);
/* A loop of the executor for new I/O: the least loaded. Borrowed. NULL: a pool. */
mli_worker *mli_executor_place(mli_executor *ex);

#endif
