/*
** executor_pool.c: what the threads of a ThreadExecutor do: each has a Lua state and runs one
** task after the other in it.
*/
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "core/observe.h"
#include "core/pool.h"
#include "crossing.h"
#include "generator.h"
#include "worker.h"

static int call_message(lua_State *L) {
  const mli_message *m = lua_touserdata(L, 1);
  lua_settop(L, 0);
  int n = lml_decode(L, m);
  lml_resolve(L, 1);
  lua_call(L, n - 1, LUA_MULTRET);
  return lua_gettop(L);
}

static void pool_open(mli_worker *w) {
  lml_worker_open(w);
  lml_state *S = w->user;
  const lml_outset *c = w->executor->user;
  if (!S || !c->init) return;
  lua_State *L = S->L;
  lua_pushcfunction(L, lml_message_handler);
  lua_pushcfunction(L, call_message);
  lua_pushlightuserdata(L, c->init);
  if (lua_pcall(L, 1, 0, 1) != LUA_OK) {
    S->broken = true;
    lua_rawsetp(L, LUA_REGISTRYINDEX, &lml_init_key); /* the error itself */
  }
  lua_settop(L, 0);
}

/* Stack: the box for the outcome. Runs the task and encodes its results. */
static int run_task(lua_State *L) {
  mli_message **out = lua_touserdata(L, 1);
  lml_state *S = lml_state_of(L);
  lua_settop(L, 0);
  if (mli_unlikely(mli_observing()) && !S->tells_cycles) lml_observe_cycles(L, S);
  if (S->task->context) S->context = lml_context_decode(L, S->task->context);
  int n = lml_decode(L, S->task->payload);
  mli_message_free(S->task->payload); /* it may hold what holds this task's future */
  S->task->payload = NULL;
  lml_resolve(L, 1);
  lua_call(L, n - 1, LUA_MULTRET);
  lml_thread_scopes_leave(S);
  if (S->open && lml_left_take(L, S, 1, &S->open, NULL)) {
    lml_left_push_close(L, false);
    lua_call(L, 2, 0);
  }
  *out = lml_encode(L, 1, lua_gettop(L), S->far ? LML_RESULTS | LML_FAR : LML_RESULTS);
  return 0;
}

/* Stack: the error of a task that left generators open. Raises one of their clean-up
** where that error is but the task's own cancel. */
static int tidy_failed(lua_State *L) {
  lml_state *S = lml_state_of(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->task_error);
  bool own = S->task_error != LUA_NOREF && lua_rawequal(L, 1, 2);
  lua_settop(L, 1);
  if (lml_left_take(L, S, 1, &S->open, NULL)) {
    lml_left_push_close(L, !own);
    lua_call(L, 2, 0);
  }
  return 0;
}

static void pool_run(mli_worker *w, mli_task *task) {
  lml_state *S = w->user;
  if (S) atomic_store(&S->task_cancelled, false); /* before a cancel can find it started */
  if (!mli_future_start(&task->future)) {
    mli_task_settle(w, task, MLI_STOPPED, NULL, NULL, ML_OK);
    return;
  }
  if (!S) {
    mli_task_settle(w, task, MLI_FAILED, NULL, NULL, ML_MEMORY);
    return;
  }
  lua_State *L = S->L;
  mli_message *outcome = NULL;
  mli_state state = MLI_FINISHED;
  char *traceback = NULL;
  S->task = task;
  mli_count(&w->counts.running, 1);
  free(S->joined);
  S->joined = NULL;
  lml_traced_forget(L, S);
  lua_settop(L, 0);
  lua_pushcfunction(L, lml_message_handler);
  bool ok;
  if (S->broken) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &lml_init_key);
    ok = false;
  } else {
    lua_pushcfunction(L, run_task);
    lua_pushlightuserdata(L, &outcome);
    S->breakable = true;
    ok = lua_pcall(L, 1, 0, 1) == LUA_OK;
    S->breakable = false;
  }
  lml_thread_scopes_leave(S);
  if (!ok && S->open) {
    lua_pushcfunction(L, tidy_failed);
    lua_pushvalue(L, -2);
    if (lua_pcall(L, 1, 0, 1) != LUA_OK) lua_remove(L, -2);
    lml_left_drop(&S->open);
  }
  if (!ok) {
    state = MLI_FAILED;
    if (S->task_error != LUA_NOREF) {
      lua_rawgeti(L, LUA_REGISTRYINDEX, S->task_error);
      if (lua_rawequal(L, -1, -2)) state = MLI_STOPPED;
      lua_pop(L, 1);
    }
    if (S->joined && state == MLI_FAILED) traceback = strdup(S->joined);
    bool failed = true;
    outcome = S->far ? lml_encode_far_outcome(L, 1, &failed) : lml_encode_outcome(L, 1, &failed);
    if (state == MLI_STOPPED) {
      mli_message_free(outcome);
      outcome = NULL;
    }
  }
  luaL_unref(L, LUA_REGISTRYINDEX, S->task_error);
  S->task_error = LUA_NOREF;
  luaL_unref(L, LUA_REGISTRYINDEX, S->context);
  S->context = LUA_NOREF;
  lua_settop(L, 0);
  S->task = NULL;
  mli_count(&w->counts.running, -1);
  bool lost = !outcome && state != MLI_STOPPED;
  if (lost) free(traceback), traceback = NULL;
  mli_task_settle(w, task, state, outcome, traceback, lost ? ML_MEMORY : ML_OK);
}

static void pool_cancel(mli_worker *w, mli_task *task) {
  lml_state *S = w->user;
  (void)task;
  if (!S) return;
  atomic_store(&S->task_cancelled, true);
  lml_inbox_nudge(S->inbox);
}

/* Inside the hook of a poke: breaks off what the worker computes. */
static void break_off(lua_State *L, lml_state *S) {
  if (S->breakable && lml_task_cancelled(S)) lml_raise_task_cancelled(L, S);
}

static void pool_force(mli_worker *w, mli_task *task) {
  lml_state *S = w->user;
  (void)task;
  if (S) lml_poke(S, LML_POKE_CANCEL); /* without a signal it sees its cancel as it waits */
}

/* Whether the state has served its time: by its jobs, or by what it keeps. */
static bool is_worn(const lml_outset *c, lml_state *S) {
  lua_State *L = S->L;
  if (c->max_jobs && ++S->jobs_done >= c->max_jobs) return true;
  if (!c->max_memory || (uint64_t)lua_gc(L, LUA_GCCOUNT) << 10 <= c->max_memory) return false;
  lua_gc(L, LUA_GCCOLLECT);
  return (uint64_t)lua_gc(L, LUA_GCCOUNT) << 10 > c->max_memory;
}

static void pool_between(mli_worker *w) {
  lml_state *S = w->user;
  if (!S || !is_worn(w->executor->user, S)) return;
  lml_worker_close(w);
  w->user = NULL;
  pool_open(w);
}

static void serve_pokes(void) { lml_poke_serves(LML_POKE_CANCEL, break_off, NULL); }

void lml_pool_class_open(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, serve_pokes);
}

void lml_pool_serve(lua_State *L, lml_state *S, mli_future *f) {
  if (!S->task || f->object.type != &mli_task_type || mli_future_state(f) != MLI_PENDING) return;
  mli_task *task = mli_container(f, mli_task, future);
  if (task->executor != S->worker->executor) return;
  switch (mli_pool_serve(task)) {
  case ML_OK: return;
  case ML_MISUSE:
    lml_misuse(L, "this worker would wait for itself: the job is pinned to it, behind this one");
    return;
  case ML_MEMORY: luaL_error(L, "not enough memory"); return;
  default:
    lml_raise(L, uv_err_name(-errno),
              "executor '%s' has no free worker for a job that this one waits for, and cannot "
              "start one: %s",
              task->executor->name, strerror(errno));
  }
}

const mli_executor_class lml_pool_class = {
  .kind = "thread",
  .open = pool_open,
  .close = lml_worker_close,
  .run = pool_run,
  .cancel = pool_cancel,
  .force = pool_force,
  .between = pool_between,
};
