/*
** state.h: the record of a Lua state. Internal to src/lua. Everything here belongs to the
** state's thread unless it is marked.
*/
#ifndef LML_STATE_H
#define LML_STATE_H

#include "await.h"
#include "core/executor.h"
#include "future.h"
#include "host.h"
#include "inbox.h"
#include "job.h"
#include "lml.h"
#include "poke.h"
#include "spot.h"

/* ---- the state (state.c) ---- */

typedef struct lml_resume { /* a coroutine that was resumed from another */
  struct lml_resume *outer;
  lua_State *from;
} lml_resume;

/* What is known of who holds the thread. */
typedef struct lml_held {
  mli_lock lock; /* a leaf, taken under others: see spot.h */
  lml_spot spot; /* [M] */
  /* The incident that is to be reported: */
  atomic_uint beat;        /* [A] its step */
  atomic_bool told;        /* [A] that it is inside a C call was said */
  _Atomic(uint64_t) since; /* [A] ns */
  const lml_host *host;    /* [I] between enter and leave: who is told; NULL: nobody else */
  bool again;              /* the watching thread's: it was poked again */
} lml_held;

/* What jobs there are, asked of a loop that is held up. */
typedef struct lml_question lml_question;
struct lml_question {
  lml_question *next;
  mli_future *answer; /* a reference */
};

#define LML_MAX_TYPES 24

enum { LML_ON_ERROR, LML_ON_BLOCKED, LML_HANDLERS }; /* see handler.c */

struct lml_state {
  lua_State *L; /* its main thread */
  bool closed;  /* lua_close has come to us: everything raises */
  /* Its loop, and what runs there. NULL: a sync state (now). */
  mli_loop *loop;
  lua_State *from;                   /* who runs the loop */
  lua_State *gc;                     /* who runs a finalizer of ours; NULL: none */
  lml_job *current;                  /* the running job; NULL: outside of jobs */
  lua_State *running;                /* the innermost coroutine that we resumed */
  lml_poked poked;                   /* how other threads have it stop for a moment */
  lml_held held;                     /* where it is, for others to see */
  const char *volatile waits_for;    /* what the thread of a sync state sleeps for; NULL: it runs */
  unsigned slice;                    /* of its jobs, microseconds; 0: none */
  bool preempted;                    /* the yield under way is the end of a slice */
  _Atomic(lml_question *) questions; /* [A] to be answered by what runs */
  volatile bool naming;              /* `chunks` is being changed */
  lml_resume *frames;                /* the resumes between the job and `running` */
  unsigned closing;                  /* coroutines being closed: no wait may begin */
  bool in_wait;                      /* the yield under way is a wait's */
  bool in_turn;
  bool starved;         /* the turn is to end after this job: others wait, or memory is short */
  lml_job *turning;     /* the job that this turn is about */
  mli_message *outcome; /* of the job that has just ended, when another state wants it */
  lml_job *ready, **ready_last;
  lml_job *jobs;
  size_t job_count;
  uint32_t next_id;
  lml_job *free_jobs;
  lml_job *fresh_jobs; /* never used yet, in the newest chunk */
  size_t fresh_job_count, job_room;
  void *job_chunks;
  lml_coroutine *idle; /* recycled coroutines */
  size_t idle_count, idle_room;
  unsigned slots; /* coroutines anchored so far */
  unsigned *free_slots;
  size_t free_slot_count, free_slot_room;
  /* Names of chunks in which jobs were spawned. */
  struct lml_chunk {
    const char *source; /* identifies it, with the name; not to be read */
    mli_text *name;     /* holds a reference */
  } * chunks;
  uint32_t chunk_count, chunk_room;
  const void *place_function; /* the function that submitted last, and its chunk */
  uint32_t place_chunk;
  /* The executor whose worker this state is; NULL: a state of the host. */
  mli_worker *worker;
  lml_state *visited;         /* the thread's state before it came to drive this one */
  mli_counts counts, *count;  /* of jobs: `count` is the worker's, or our own */
  mli_task *task;             /* a pool worker: what it runs */
  atomic_bool task_cancelled; /* [A] */
  int task_error;             /* registry reference of its cancel's error, or LUA_NOREF */
  bool breakable;             /* a poke may break it off */
  uint64_t jobs_done;         /* by this state of a pool's worker, if they are counted */
  bool broken;                /* init failed: the error is in the registry */
  bool init_settled;          /* it has just ended */
  mli_watcher init_watcher;
  mli_executor *bound; /* the host's, for this state; a reference and a use */
  struct owned *owned; /* executors that this state made */
  mli_executor *default_loop, *default_pool, *default_cpu; /* as last asked for; each a reference */
  bool starting; /* init has not ended: tasks wait in `deferred` */
  mli_node *deferred, **deferred_last;
  /* Waits of a sync state. */
  lml_sync_wait *sync, sync_first;
  lml_scope *scope;       /* of the thread, outside of jobs; NULL: none */
  lml_generator *open;    /* made by the task of a pool's worker: see left.c */
  struct lml_lock *locks; /* held by its thread, outside of jobs: lock.c */
  int context;            /* of the thread, outside of jobs: as in a job */
  lml_inbox *inbox;
  lua_State *callbacks;   /* the coroutine in which what comes by the inbox runs */
  bool delivering;        /* it does so now */
  size_t idle_generators; /* jobs that wait for a pull */
  mli_timer sweep;        /* of a closing loop: see lml_generators_sweep */
  /* The collector at rest: tidy.c. */
  mli_timer tidy;
  uint64_t tidy_from, tidy_took; /* not before; the time that this collection took */
  unsigned tidy_cycles;          /* still to do */
  bool stirred;                  /* jobs ran since the timer was set */
  char *joined;                  /* as in lml_info, for a sync state */
  int joined_error, traced;      /* `traced`: of the task that runs here */
  /* Child processes: those of a ProcessExecutor, whose loop this is. `far`: this is a child
  ** itself, and the results of its tasks go to its parent. */
  struct mli_processes *processes;
  bool far;
  /* Handles. */
  struct lml_type {
    const mli_type *type;
    const void *metatable;
    int ref;
  } types[LML_MAX_TYPES];
  unsigned type_count;
  const void *local_future; /* the metatable of local futures: no __gc */
  int local_future_ref;
  lua_CFunction yieldable[8];              /* C functions that are not in a wait's way */
  bool tells_cycles;                       /* of the collector: see observed.c */
  bool tracks_opened;                      /* see opened.c, */
  uint32_t opened;                         /* and how much was noted */
  unsigned handler_versions[LML_HANDLERS]; /* of the handlers kept in the registry */
};

/* Makes the record of L, or returns the one it has. */
lml_state *lml_state_open(lua_State *L);
/* Opens moonloop in L: what luaopen_moonloop does. Leaves the module on the stack. */
void lml_open(lua_State *L);
ML_API int luaopen_moonloop(lua_State *L);
/* A new state for a worker of an executor, as its host wants it (NULL: none does).
** NULL: out of memory, or the host would not. */
lua_State *lml_state_new(const lml_host *host);
void lml_state_free(lua_State *L, const lml_host *host);
/* An executor was made in L: it is to be shut down before it is finalized. */
void lml_state_renew_sentinel(lua_State *L);

/* The state that the calling thread runs now, for reports; may be NULL. */
extern _Thread_local lml_state *lml_thread_state;

/* ---- context variables (context.c) ---- */

/* A reference of its own to the context of what runs now, for a job that it starts. */
int lml_context_share(lua_State *L, lml_state *S);
/* The same for another state, as a message; NULL: there is none. Raises if it cannot cross. */
mli_message *lml_context_encode(lua_State *L, lml_state *S, bool far);
/* From here on the ids of variables begin behind that one: other processes have others. */
void lml_context_number_from(unsigned long long id);
/* Registry reference of a context that came as a message. */
int lml_context_decode(lua_State *L, const mli_message *message);

/* ---- running (run.c) ---- */

/* Runs the function and `nargs` arguments on top of L as the main job of a loop on
** this thread, in this state, until it and what it left behind have ended; pops them
** and pushes the main job's future. False: Ctrl-C ended it. Raises where no loop can be. */
bool lml_run(lua_State *L, int nargs);

/* ---- the collector at rest (tidy.c) ---- */

/* The loop's thread: jobs ran. When it is quiet, what they dropped is collected. */
void lml_tidy_later(lml_state *S);
/* The loop ends. */
void lml_tidy_end(lml_state *S);

/* ---- handlers of the process (handler.c) ---- */

typedef struct lml_handler {
  mli_lock lock;        /* a leaf */
  mli_message *message; /* [M] the function; NULL: none is set */
  atomic_uint version;  /* [A] a state looks at it to know whether its copy is current */
  unsigned slot;        /* [I] LML_ON_ERROR ... */
} lml_handler;

/* Pushes the handler as a function of this state, or nil. */
void lml_handler_push(lua_State *L, lml_state *S, lml_handler *handler);
/* A function of Lua: sets the handler to its argument, returns the one before. */
int lml_handler_set(lua_State *L, lml_handler *handler);
bool lml_handler_is_set(lml_handler *handler); /* Thread: any. */

/* ---- loops that are held up (blocked.c) ---- */

/* The loop's thread, around its run: from here on it is watched, with the limit and the
** slices of its executor's host, or else the process's limit and none. */
void lml_blocked_enter(lml_state *S);
void lml_blocked_leave(lml_state *S);
/* The process is a C program, which asks for it where it wants it: without a word from the
** environment loops have no limit of their own. Says nothing once there was a loop. */
void lml_blocked_host(void);
/* The loop's thread: what was asked for while a step ran, and was not served in it. */
void lml_blocked_over(lml_state *S);
/* Answers the questions, in L; NULL: with an error, for the loop has ended. */
void lml_questions_answer(lua_State *L, lml_state *S);
void lml_blocked_open(lua_State *L);

/* ---- what traces and summaries tell (observed.c): call only when mli_observing ---- */

/* The job is about to run, for the first time or again: begins to tell of it. Returns the
** time. May raise for lack of memory. */
uint64_t lml_observe_run(lua_State *L, lml_state *S, lml_job *job, bool first);
/* It ran since then, to a wait or its end; it is woken from a wait; it ends. */
void lml_observe_ran(lml_state *S, lml_job *job, uint64_t began);
void lml_observe_woken(lml_job *job);
void lml_observe_end(lml_job *job, mli_state state);
/* From here on the end of each of the collector's cycles in this state is told. */
void lml_observe_cycles(lua_State *L, lml_state *S);
void lml_observed_open(lua_State *L);

/* ---- reports (report.c) ---- */

void lml_report_open(void); /* once per process */
/* Reports the error value on top of the stack; pops it. `traceback` may be NULL. */
void lml_report(lua_State *L, lml_state *S, const char *kind, const char *name,
                const char *traceback, const char *where);
int lml_on_error(lua_State *L);
/* Where reports go that no handler takes: stderr at first. Called on any thread. */
typedef void (*lml_report_writer)(const char *text, size_t size);
extern _Atomic(lml_report_writer) lml_report_write;

/* ---- the tree of jobs (tree.c) ---- */

/* "queued", "parked", "running" or "ready". */
const char *lml_job_state(const lml_job *job);
/* Shows the jobs of a state on stderr, under that name. The state's thread. */
void lml_tree_show(lml_state *S, const char *name);
/* Has the loops of an executor show theirs soon; a pool's are shown at once. Any thread. */
void lml_tree_show_executor(mli_executor *ex);

/* ---- what was opened (opened.c) ---- */

/* Notes that the userdata on top of the stack was opened here and now. */
void lml_opened_note(lua_State *L);

/* ---- parts of the module ---- */

void lml_coroutine_open(lua_State *L, lml_state *S);
void lml_future_open(lua_State *L); /* each leaves its functions in the table on top */
void lml_job_open(lua_State *L);
void lml_await_open(lua_State *L);
void lml_waitset_open(lua_State *L);
void lml_gather_open(lua_State *L);
void lml_executor_open(lua_State *L);
void lml_pin_open(lua_State *L);
void lml_run_open(lua_State *L);
void lml_error_open(lua_State *L);
void lml_promise_open(lua_State *L);
void lml_generator_open(lua_State *L);
void lml_left_open(lua_State *L);
void lml_opened_open(lua_State *L);
void lml_clock_open(lua_State *L);
void lml_scope_open(lua_State *L);
void lml_sync_open(lua_State *L);
/* The job has ended: the locks that it still holds go on, each with a report. */
void lml_locks_end(lua_State *L, lml_job *job);
/* Before a state closes: the locks that are held in it go on to the next in line. */
void lml_locks_leave(lua_State *L);
void lml_ref_open(lua_State *L);
void lml_context_open(lua_State *L);

/* lml_handle_test, with the state's record at hand. */
mli_object *lml_handle_test_in(lua_State *L, lml_state *S, int index, const mli_type *type);

/* ---- executors (executor.c) ---- */

/* The default executor, made if need be. Borrowed; raises. */
mli_executor *lml_default_executor(lua_State *L);
mli_executor *lml_executor_check(lua_State *L, int arg);
/* Whether it is one of the process's defaults. Any thread. */
bool lml_executor_is_default(const mli_executor *ex);
/* The states of the host come and go: with the last one go the defaults. */
void lml_host_enter(void);
void lml_host_leave(void);
/* The state is about to wait for the future. If that is queued in the pool whose worker
** waits, it is served; raises where it cannot be. */
void lml_pool_serve(lua_State *L, lml_state *S, mli_future *f);
/* Calls f for what this state made and has not ended, and for the default executors. */
void lml_executors_each(lml_state *S, void (*f)(mli_executor *ex));
/* The host's executor is the default one of this state from here on; NULL: the process's. */
void lml_bind(lml_state *S, mli_executor *ex);
/* Shuts down what this state made. */
void lml_executors_close(lml_state *S);

#endif
