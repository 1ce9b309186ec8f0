/*
** executor_loop.c: what the threads of an AsyncExecutor do: each is a loop with a Lua state,
** whose tasks become jobs. Until the init job has ended they wait.
*/
#include <stdlib.h>
#include <string.h>
#include "crossing.h"
#include "generator.h"
#include "worker.h"

/* ---- init ---- */

static int call_message_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  return lua_gettop(L);
}

/* The body of the init job: may wait. */
static int init_main(lua_State *L) {
  const mli_message *m = lua_touserdata(L, 1);
  lua_settop(L, 0);
  int n = lml_decode(L, m);
  lml_resolve(L, 1);
  lua_callk(L, n - 1, 0, 0, call_message_k);
  return 0;
}

/* A failed init: each task fails with its error. */
static void fail_task(lml_state *S, mli_task *task) {
  mli_message *outcome = NULL;
  char *traceback = NULL;
  if (!mli_future_start(&task->future)) {
    lml_task_drop(S, task);
    return;
  }
  lua_State *L = S->L;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &lml_init_key);
  lml_future *u = lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (u) {
    mli_future *f = lml_future_core(u);
    if (f->outcome) outcome = mli_message_copy(f->outcome);
    if (f->traceback) traceback = strdup(f->traceback);
  }
  if (!outcome) free(traceback), traceback = NULL;
  mli_task_settle(S->worker, task, MLI_FAILED, outcome, traceback, outcome ? ML_OK : ML_MEMORY);
}

static void release_deferred(lml_state *S) {
  S->starting = false;
  while (S->deferred) {
    mli_task *task = mli_container(S->deferred, mli_task, node);
    S->deferred = S->deferred->next;
    if (S->broken)
      fail_task(S, task);
    else
      lml_task_start(S, task);
  }
  S->deferred_last = &S->deferred;
}

static int share_init(lua_State *L) {
  lml_state *S = lml_state_of(L);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &lml_init_key);
  mli_future *f = lml_future_share(L, S, lua_gettop(L));
  mli_future_observe(f);
  return 0;
}

static void init_done(mli_watcher *watcher) {
  lml_state *S = lml_thread_state;
  (void)watcher;
  lua_State *L = S->from;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &lml_init_key);
  lml_future *u = lua_touserdata(L, -1);
  lua_pop(L, 1);
  S->broken = mli_future_state(lml_future_core(u)) != MLI_FINISHED;
  /* It is none of the jobs that were submitted. */
  mli_count(&S->count->submitted, -1);
  mli_count(S->broken ? &S->count->failed : &S->count->finished, -1);
  S->init_settled = true; /* the turn goes on from here: see worker_turn */
}

static int spawn_init(lua_State *L) {
  lml_state *S = lml_state_of(L);
  const lml_outset *c = S->worker->executor->user;
  lua_pushcfunction(L, init_main);
  lua_pushlightuserdata(L, c->init);
  lml_job *job = lml_job_spawn(L, S, 1);
  lml_info *info = lml_job_info(job);
  if (info) info->name = strdup("init");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &lml_init_key);
  S->init_watcher.fired = init_done;
  mli_future_watch(lml_future_core(job->fut), &S->init_watcher);
  return 0;
}

static void loop_open(mli_worker *w) {
  lml_worker_open(w);
  lml_state *S = w->user;
  const lml_outset *c = w->executor->user;
  if (!S || !c->init) return;
  S->starting = true;
  lua_pushcfunction(S->L, spawn_init);
  if (lua_pcall(S->L, 0, 0, 0) != LUA_OK) {
    lua_pop(S->L, 1);
    S->broken = true;
    S->starting = false;
  }
}

static void loop_run(mli_worker *w, mli_task *task) {
  lml_state *S = w->user;
  if (!S) {
    mli_task_settle(w, task, MLI_FAILED, NULL, NULL, ML_MEMORY);
  } else if (S->starting) {
    task->node.next = NULL;
    *S->deferred_last = &task->node;
    S->deferred_last = &task->node.next;
  } else if (S->broken) {
    fail_task(S, task);
  } else {
    lml_task_start(S, task);
  }
}

static bool loop_turn(mli_worker *w) {
  lml_state *S = w->user;
  if (!S) return false;
  bool more = lml_turn(S);
  if (mli_unlikely(S->init_settled)) {
    S->init_settled = false;
    if (S->broken) {
      lua_pushcfunction(S->from, share_init);
      if (lua_pcall(S->from, 0, 0, 0) != LUA_OK) lua_pop(S->from, 1);
    }
    release_deferred(S);
    more = true;
  }
  return more;
}

static bool loop_idle(mli_worker *w) {
  lml_state *S = w->user;
  if (S) lml_generators_sweep(S);
  return !S || (S->job_count == 0 && !S->deferred);
}

static void loop_cancel_all(mli_worker *w) {
  lml_state *S = w->user;
  if (!S) return;
  for (mli_node *n = S->deferred; n; n = n->next)
    mli_future_cancel(&mli_container(n, mli_task, node)->future, NULL);
  lml_cancel_jobs(S, 0);
}

static void loop_cancel(mli_worker *w, mli_task *task) {
  (void)w;
  if (task->runner) lml_job_cancel(task->runner);
}

const mli_executor_class lml_loop_class = {
  .kind = "async",
  .open = loop_open,
  .close = lml_worker_close,
  .run = loop_run,
  .cancel = loop_cancel,
  .turn = loop_turn,
  .idle = loop_idle,
  .cancel_all = loop_cancel_all,
  .visit = lml_worker_visit,
};
