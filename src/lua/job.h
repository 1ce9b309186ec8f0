/*
** job.h: jobs and their scopes: job.c, job_memory.c, place.c, scope.c, traceback.c, turn.c.
*/
#ifndef LML_JOB_H
#define LML_JOB_H

#include "await.h"

typedef struct lml_job lml_job;
typedef struct lml_feed lml_feed;
typedef struct lml_generator lml_generator;

/* A scope of cancellation. Each job has a root; others nest in it. */
typedef struct lml_scope lml_scope;
struct lml_scope {
  lml_scope *parent;   /* NULL: a job's root */
  uint64_t since;      /* when it was cancelled, ns; 0: it was not */
  int error;           /* registry reference of its error value, or LUA_NOREF */
  uint8_t deliveries;  /* how often the cancel was raised */
  bool shielded;       /* a cancel of its parents does not reach in */
  bool timed_out;      /* it was its deadline that cancelled it */
  lml_generator *open; /* made in it: see left.c */
};

/* Where a job was submitted. */
typedef struct lml_place {
  uint32_t chunk, line; /* the number of the chunk in S->chunks, from 1; 0: unknown */
} lml_place;

/* What few jobs have. */
typedef struct lml_info {
  char *name;
  char *traceback;    /* of the failure */
  int traced;         /* registry reference of that error, or LUA_NOREF */
  char *joined;       /* traceback of the job or coroutine whose error was raised here last */
  int joined_error;   /* registry reference of that error, or LUA_NOREF */
  uint64_t timeout;   /* `timeout=`, ns from its start, or MLI_FOREVER */
  mli_timer deadline; /* by that */
  lml_feed *feed;     /* it is the body of a generator; holds a reference */
  lml_job *job;
} lml_info;

/*
** A job: a coroutine on this loop.
**
**   READY --turn--> RUNNING --park--> PARKED --wake--> READY ...
**                      |__ends: its future settles, its coroutine is recycled
*/
struct lml_job {
  lml_job *ready_next;
  lml_job *next, **link; /* in its state's list of jobs */
  lml_state *S;
  lua_State *co;   /* a task's: NULL before its first turn */
  lml_future *fut; /* the value at index 1 of `co`; NULL: a task, not asked for here */
  mli_task *task;  /* it was submitted; NULL: it was spawned here */
  lml_scope *scope, root;
  struct lml_lock *locks; /* that it holds: lock.c */
  lml_info *info;         /* NULL until needed */
  const mli_task *origin; /* as in mli_task */
  uint32_t id, parent;    /* parent: the spawning job's id, or 0 */
  uint32_t home;          /* the id of the main job of the `run` it belongs to, or 0 */
  unsigned slot;          /* where `co` is anchored */
  lml_place place;        /* where it was spawned */
  int context;            /* registry reference of its context variables, or LUA_NOREF */
  bool ready, kill, started, failed;
  uint8_t traced; /* the start of the trace in which its begin is, see mli_trace_starts */
  unsigned slice; /* microseconds until others have their turn; 0: until it waits */
  lml_await await;
};

/* ---- making and ending them (job.c) ---- */

/* Spawns the function and `nargs` arguments on top of the stack of L as a job of
** this state's loop; pops them and pushes the future. Raises on lack of memory. */
lml_job *lml_job_spawn(lua_State *L, lml_state *S, int nargs);
/* The same with the place of the caller at hand. */
lml_job *lml_job_spawn_at(lua_State *L, lml_state *S, int nargs, lml_place place);
/* Spawns, or without a loop submits, what is no plain function: the n values on top are
** what ml.spawn was given. Pops them and pushes the future. Raises for what is no job. */
void lml_spawn_other(lua_State *L, int n);
/* Pushes what a job argument at the top stands for: turns "module:function" into
** the function. Raises if it cannot be found. */
void lml_resolve(lua_State *L, int index);
void lml_task_start(lml_state *S, mli_task *task);
void lml_task_drop(lml_state *S, mli_task *task); /* it was cancelled in the queue */
/* Pushes what a submitted job's coroutine begins with. */
void lml_job_push_task_base(lua_State *co);
/* The job begins: so does its `timeout=`, if it has one. */
void lml_job_start_timeout(lml_job *job);
void lml_job_ready(lml_job *job);
/* Pushes the future of a spawned job. */
void lml_job_push_future(lua_State *L, lml_job *job);
/* The outermost cancelled scope that reaches the job, or NULL. */
lml_scope *lml_job_cancelled(const lml_job *job);
/* Cancels it: see "cancelling" in job.c. The job's thread only. */
void lml_job_cancel(lml_job *job);
/* Cancels the jobs that belong to the main job `home`; 0: all. */
void lml_cancel_jobs(lml_state *S, uint32_t home);
/* Wakes a parked job, for a scope of its was cancelled. */
void lml_job_interrupt(lml_job *job);
/* Pushes the error of a cancel, with the future's reason: "cancelled", of the job's own, or
** "job_cancelled", of another's. */
void lml_push_cancel_error(lua_State *L, const mli_future *f, const char *code, const char *who);
/* Raises the scope's cancel; never returns. */
int lml_raise_cancelled(lua_State *L, lml_state *S, lml_scope *scope);
/* Ends a job from outside: its coroutine is closed where it stands. The error
** value on top of L is popped and becomes the job's. */
void lml_job_stop(lua_State *L, lml_state *S, lml_job *job);
/* Settles the job's future and lets the job go. `co` is as the base leaves it. */
void lml_job_finish(lua_State *L, lml_job *job);

/* ---- running them (turn.c) ---- */

/* A bounded share of the ready jobs; true: there are more. */
bool lml_turn(lml_state *S);

/* ---- their records and coroutines (job_memory.c) ---- */

/* A record, in its state's list of jobs; NULL: no memory. */
lml_job *lml_job_new(lml_state *S);
void lml_job_free(lml_job *job);
lml_info *lml_job_info(lml_job *job); /* NULL: out of memory */
/* The state was closed from inside a job, by os.exit: lets go of what jobs still hold. */
void lml_jobs_forget(lml_state *S);

typedef struct lml_coroutine {
  lua_State *co;
  unsigned slot;
} lml_coroutine;

/* An empty coroutine, anchored. Raises on lack of memory. */
lml_coroutine lml_coroutine_get(lua_State *L, lml_state *S);
void lml_coroutine_put(lml_state *S, lua_State *co, unsigned slot);
/* Makes room for one more of `count` elements of `size` bytes; false: no memory. */
bool lml_grow(void **array, size_t *room, size_t count, size_t size);

/* ---- where they were made, and what they are called (place.c) ---- */

/* Describes the caller of the running C function: "file.lua:12". */
void lml_where(lua_State *L, int level, char *chunk, size_t size, uint32_t *line);
/* The same for the caller of the running function, cheaply. */
lml_place lml_place_of(lua_State *L, lml_state *S);
const char *lml_chunk_name(lml_state *S, uint32_t chunk);
void lml_chunks_free(lml_state *S);
const char *lml_job_name(lml_job *job, char *buffer, size_t size);
/* What a job is called in messages: "job 'fetch'", or "job 7". */
const char *lml_job_title(lml_job *job, char *buffer, size_t size);
/* The same of what runs in the state now: a job, a worker's task, or "the calling thread". */
const char *lml_title(lml_state *S, char *buffer, size_t size);
/* The task that this worker of a pool is at, unless callbacks run; or NULL. */
const mli_task *lml_own_task(const lml_state *S);

/* ---- how they fail (traceback.c) ---- */

/* The message handler of every job: keeps the traceback, makes nil an error. */
int lml_message_handler(lua_State *L);
/* Notes a traceback for the error on top of the stack, to begin that of the caller if
** the error goes on through it. Takes over `text` (from malloc; NULL: none). */
void lml_join(lua_State *L, lml_state *S, char *text);
/* Forgets which error of a worker's task was noted last. */
void lml_traced_forget(lua_State *L, lml_state *S);
/* Is the value at `error` the job's own cancel? */
bool lml_is_own_cancel(lua_State *L, const lml_job *job, int error);

/* ---- their scopes (scope.c) ---- */

/* The outermost cancelled scope that reaches into `innermost`, or NULL. */
lml_scope *lml_scope_cancelled(lml_scope *innermost);
/* Of a cancelled scope: its cancel was raised so often, or is so old, that the job is to be
** stopped for good. */
bool lml_scope_is_swallowed(const lml_scope *scope);
/* Pushes the error value of a scope's cancel; not for a job's root. */
void lml_scope_push_error(lua_State *L, lml_scope *scope);
/* A sync state's: when the first of the scopes ends, in seen time and, for those of whoever
** runs tests, in real time; ends those whose time has come, and tells whether one of them
** is cancelled. */
uint64_t lml_scope_deadline(lml_scope *innermost, uint64_t *real);
bool lml_scope_expire(lml_scope *innermost);
/* Whether its own time limit or that of a scope that it is in will cancel it; whether the
** thread is in a scope. Those of whoever runs tests do not count. */
bool lml_job_is_bounded(const lml_job *job);
bool lml_thread_is_scoped(const lml_state *S);
/* The job ends: its scopes are left. */
void lml_scopes_leave(lml_job *job);
/* The same for the thread outside of jobs: a worker's task ends. */
void lml_thread_scopes_leave(lml_state *S);

#endif
