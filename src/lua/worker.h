/*
** worker.h: what the files of executors share: the states of their threads, and what
** those begin with.
*/
#ifndef LML_WORKER_H
#define LML_WORKER_H

#include "core/processes.h"
#include "state.h"

/* ---- what a new state begins with (outset.c) ---- */

/* Of an executor: ex->user. Never changed once made, so that its threads may read it. */
typedef struct lml_outset {
  char *path, *cpath;                    /* NULL: Lua's own */
  uint64_t max_jobs;                     /* a worker's state is made anew after so many; 0: never */
  uint64_t max_memory;                   /* or when it keeps more bytes than this; 0: never */
  mli_message *init;                     /* a job and its arguments; NULL: none */
  mli_message *preload;                  /* package.preload: a table name -> function or refusal */
  struct lml_process_options *processes; /* of a ProcessExecutor: owned; else NULL */
  const lml_host *host;                  /* &hosted; NULL: it was made in Lua */
  lml_host hosted;
} lml_outset;

/* Pushes a box with the outset as the state L has it. `init`: the stack index of the first
** of n values that are the init job; n 0: none. `far`: it is for other processes. Raises
** for what cannot cross. */
lml_outset *lml_outset_push(lua_State *L, int init, int n, bool far);
/* Takes the outset out of its box. */
lml_outset *lml_outset_take(lua_State *L, int index);
void lml_outset_free(void *outset);
/* A C function for the new state: its package.preload. Stack: the outset, light. */
int lml_outset_install_preload(lua_State *L);

/* ---- a thread's state (worker.c) ---- */

extern const char lml_init_key; /* registry: the failed init's future; in a pool its error */

/* Makes the state: w->user, or that is NULL and every task fails for memory. */
void lml_worker_open(mli_worker *w);
void lml_worker_close(mli_worker *w);
void lml_worker_visit(mli_worker *w, bool in);

/* What the threads of either kind do: executor_loop.c, executor_pool.c. */
extern const mli_executor_class lml_loop_class, lml_pool_class;
void lml_pool_class_open(void); /* before the first pool is made */

/* ---- one of an executor's threads, chosen (pin.c) ---- */

typedef struct lml_pin {
  mli_object object;
  mli_executor *executor; /* [I] holds a reference */
  unsigned index;         /* [I] from 0 */
  mli_worker *worker;     /* [I] NULL: a child process */
  mli_seat *seat;         /* [I] of a child process: a reference */
  atomic_bool released;   /* [A] */
} lml_pin;

/* The pin whose handle is at `index`, or NULL. */
const lml_pin *lml_pin_test(lua_State *L, int index);

/* ---- making and ending them (executor.c, default_executors.c) ---- */

typedef struct lml_making {
  bool loops;
  unsigned size;
  uint64_t max_pending; /* 0: no bound */
  uint64_t idle_life;   /* ns */
  uint64_t max_jobs, max_memory;
} lml_making;

/* Makes an executor and pushes its handle. `init`: the stack index of the first of
** n values that are the init job; n 0: none. */
mli_executor *lml_executor_make(lua_State *L, const char *name, const lml_making *making, int init,
                                int n);
/* The same for the options but for the user, which is the outset in the box on top of the
** stack: its place takes the handle. */
mli_executor *lml_executor_start(lua_State *L, mli_executor_options *options);
/* Remembers that this state made it. */
void lml_executor_own(lua_State *L, lml_state *S, mli_executor *ex);
/* Forgets those that have ended. */
void lml_executors_disown(lml_state *S);
unsigned lml_default_workers(void);
#define LML_IDLE_LIFE (10 * MLI_SECOND) /* of a worker, unless the maker says otherwise */

/* ---- their functions: each leaves its own in the table on top ---- */

void lml_processes_open(lua_State *L);
void lml_submit_open(lua_State *L);
void lml_executor_jobs_open(lua_State *L);
void lml_default_executors_open(lua_State *L);

#endif
