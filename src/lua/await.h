/*
** await.h: waits, of jobs and of the threads of sync states.
*/
#ifndef LML_AWAIT_H
#define LML_AWAIT_H

#include "core/executor.h"
#include "lml.h"

typedef struct lml_state lml_state;
typedef struct lml_future lml_future;
typedef struct lml_await lml_await;

/*
** One wait: of a job, or of the thread of a sync state.
**
**   begun --[lml_await_park]--> parked --[lml_await_wake]--> woken --> k runs
**
** W1  The source wakes a wait exactly once: when what was waited for has come,
**     or after `abort`, when it is sure that it will not come.
** W2  A deadline or a cancel only calls `abort`, once; it never wakes by itself.
** W3  Parked jobs are resumed by their loop's turn only.
*/
struct lml_await {
  union {
    mli_watcher watcher; /* when the source is a future */
    struct {             /* when it is an operation or a primitive */
      mli_waker waker;
      lua_KFunction done; /* of an operation: what runs after its end */
    };
  };
  mli_node node;               /* a wake from another thread, on its way */
  mli_timer timer;             /* the deadline of a job's wait */
  void (*abort)(lml_await *a); /* asks the source to wake it soon */
  void *source;
  const char *what;  /* static: "future", "sleep" */
  uint64_t since;    /* ns */
  atomic_bool woken; /* [A] */
  bool in_job;       /* it is the `await` of a job; else of a sync wait */
  bool parked;
  bool aborted; /* the source gave up for us: nothing was taken */
  uint8_t why;  /* once `abort` was called: LML_DEADLINE, LML_CANCEL, LML_INTERRUPT */
};

enum { LML_DEADLINE = 1, LML_CANCEL, LML_INTERRUPT };

/* A wait of a sync state; they nest when a callback waits. */
typedef struct lml_sync_wait {
  lml_await await;
  mli_parker *parker;
  struct lml_sync_wait *outer;
} lml_sync_wait;

/* Checks that the caller may wait here and returns a wait to fill. Raises: in a
** cancelled job, where Lua cannot yield, on a loop's thread outside a job. */
lml_await *lml_await_begin(lua_State *L, lml_state *S, const char *what);
/* The same check alone: before something is begun that will be waited for. */
void lml_check_wait(lua_State *L, lml_state *S, const char *what);
/* Waits until woken, then returns k(L, LUA_YIELD, ctx), which must call
** lml_await_end first. Fill `abort` and `source` before. */
int lml_await_park(lua_State *L, lml_state *S, lml_await *a, uint64_t deadline, lua_KFunction k,
                   lua_KContext ctx);
/* The task that this worker of a pool runs was cancelled, and no shield is in the way. */
bool lml_task_cancelled(const lml_state *S);
/* Raises that: the same error at each wait. Never returns. */
int lml_raise_task_cancelled(lua_State *L, lml_state *S);
/* Ends the wait: ML_OK or ML_TIMEOUT; raises if the waiter was cancelled or
** interrupted. */
ml_status lml_await_end(lua_State *L, lml_state *S);
/* The source, on any thread: see W1. */
void lml_await_wake(lml_await *a, bool aborted);
/* The `wake` of a waker that is a wait's. */
void lml_await_woken(mli_waker *waker);
/* Waits for the future of the handle at `index`, then runs k. */
int lml_await_future(lua_State *L, lml_state *S, int index, uint64_t deadline, lua_KFunction k,
                     lua_KContext ctx);
/* The future that a parked job waits for, for ever; NULL: anything else. */
const lml_future *lml_awaited_future(const lml_await *a);
/* Refuses a wait for ever for a job that waits for the running one. See forever.c. */
void lml_check_cycle(lua_State *L, lml_state *S, const lml_future *u);
/* The job lets others run. k must call lml_await_end. Job only. */
int lml_yield_turn(lua_State *L, lml_state *S, lua_KFunction k, lua_KContext ctx);

#endif
