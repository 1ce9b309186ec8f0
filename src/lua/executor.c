/*
** executor.c: executors in Lua: making them, handing them jobs, closing them;
** and what their threads run. The rest of their methods is in lua/moonloop.
*/
#include <errno.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "crossing.h"
#include "generator.h"
#include "state.h"

#define CLOSE_GRACE (5 * MLI_SECOND)

/* What a new state of an executor begins with: ex->user. */
typedef struct config {
  char *path, *cpath;
  mli_message *init;    /* a job and its arguments; NULL: none */
  mli_message *preload; /* package.preload: a table name -> function or refusal */
} config;

static void config_free(void *user) {
  config *c = user;
  free(c->path);
  free(c->cpath);
  mli_message_free(c->init);
  mli_message_free(c->preload);
  free(c);
}

/* ---- a worker's state ---- */

/* package.preload of the maker's state, as a table of what crosses of it. */
static int refuse_preload(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  return lua_error(L);
}

static int install_preload(lua_State *L) {
  const config *c = lua_touserdata(L, 1);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_settop(L, 2);
  if (!c->preload || lml_decode(L, c->preload) < 1) return 0;
  for (lua_pushnil(L); lua_next(L, 3);) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    if (lua_islightuserdata(L, -1)) { /* a C function of this process */
      lua_CFunction f = (lua_CFunction)lua_touserdata(L, -1);
      lua_pop(L, 1);
      lua_pushcfunction(L, f);
    } else if (lua_type(L, -1) == LUA_TSTRING) {
      lua_pushcclosure(L, refuse_preload, 1);
    }
    lua_rawset(L, 2);
  }
  return 0;
}

static int call_message(lua_State *L) {
  const mli_message *m = lua_touserdata(L, 1);
  lua_settop(L, 0);
  int n = lml_decode(L, m);
  lml_resolve(L, 1);
  lua_call(L, n - 1, LUA_MULTRET);
  return lua_gettop(L);
}

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

static const char init_key; /* registry: the failed init's future */

/* A failed init: each task fails with its error. */
static void fail_task(lml_state *S, mli_task *task) {
  mli_message *outcome = NULL;
  char *traceback = NULL;
  if (!mli_future_start(&task->future)) {
    lml_task_drop(S, task);
    return;
  }
  lua_State *L = S->L;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &init_key);
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
  lua_rawgetp(L, LUA_REGISTRYINDEX, &init_key);
  mli_future *f = lml_future_share(L, S, lua_gettop(L));
  mli_future_observe(f);
  return 0;
}

static void init_done(mli_watcher *watcher) {
  lml_state *S = lml_thread_state;
  (void)watcher;
  lua_State *L = S->from;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &init_key);
  lml_future *u = lua_touserdata(L, -1);
  lua_pop(L, 1);
  S->broken = mli_future_state(lml_future_core(u)) != MLI_FINISHED;
  /* It is none of the jobs that were submitted. */
  mli_count(&S->count->submitted, -1);
  mli_count(S->broken ? &S->count->failed : &S->count->finished, -1);
  S->init_settled = true; /* the turn goes on from here: see worker_turn */
}

/* Prepares a worker's state: libraries, paths, moonloop, init. */
static int prepare(lua_State *L) {
  mli_worker *w = lua_touserdata(L, 1);
  const config *c = w->executor->user;
  luaL_openlibs(L);
  lua_getglobal(L, "package");
  lua_pushstring(L, c->path);
  lua_setfield(L, -2, "path");
  lua_pushstring(L, c->cpath);
  lua_setfield(L, -2, "cpath");
  lml_open(L);
  lua_setfield(L, LUA_REGISTRYINDEX, "moonloop.opened");
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, LUA_REGISTRYINDEX, "moonloop.opened");
  lua_setfield(L, -2, "moonloop");
  lml_state *S = lml_state_of(L);
  w->user = S;
  S->worker = w;
  S->count = &w->counts;
  lua_settop(L, 0);
  lua_pushcfunction(L, install_preload);
  lua_pushlightuserdata(L, (void *)c);
  lua_call(L, 1, 0);
  if (w->loop) {
    S->loop = w->loop;
    S->from = L;
    lml_inbox_attach(S->inbox, w->loop);
  }
  return 0;
}

/* The state is there, or w->user is NULL and every task fails for memory. */
static void open_state(mli_worker *w) {
  lua_State *L = lml_state_new();
  if (!L) return;
  lua_pushcfunction(L, prepare);
  lua_pushlightuserdata(L, w);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
    fprintf(stderr, "moonloop: a worker of '%s' cannot start: %s\n", w->executor->name,
            lua_tostring(L, -1));
    w->user = NULL;
    lml_state_free(L);
    return;
  }
  lml_thread_state = w->user;
  lml_poke_enter(w->user);
}

static void close_state(mli_worker *w) {
  lml_state *S = w->user;
  if (!S) return;
  lml_poke_leave(S);
  if (S->loop) lml_tidy_end(S);
  S->loop = NULL;
  S->from = NULL;
  lml_state_free(S->L);
  lml_thread_state = NULL;
}

/* ---- loops ---- */

static int spawn_init(lua_State *L) {
  lml_state *S = lml_state_of(L);
  const config *c = S->worker->executor->user;
  lua_pushcfunction(L, init_main);
  lua_pushlightuserdata(L, c->init);
  lml_job *job = lml_job_spawn(L, S, 1);
  lml_info *info = lml_job_info(job);
  if (info) info->name = strdup("init");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &init_key);
  S->init_watcher.fired = init_done;
  mli_future_watch(lml_future_core(job->fut), &S->init_watcher);
  return 0;
}

static void loop_open(mli_worker *w) {
  open_state(w);
  lml_state *S = w->user;
  const config *c = w->executor->user;
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

static mli_future *job_future(lml_job *job) {
  return job->task ? &job->task->future : lml_future_core(job->fut);
}

static void loop_cancel_all(mli_worker *w) {
  lml_state *S = w->user;
  if (!S) return;
  for (mli_node *n = S->deferred; n; n = n->next)
    mli_future_cancel(&mli_container(n, mli_task, node)->future, NULL);
  lml_cancel_jobs(S, 0);
}

void lml_cancel_jobs(lml_state *S, uint32_t home) {
  for (lml_job *job = S->jobs; job; job = job->next)
    if (home == 0 || job->home == home) {
      mli_future *f = job_future(job);
      if (mli_future_cancel(f, NULL) && job->task && job->started) lml_job_cancel(job);
    }
}

static void loop_cancel(mli_worker *w, mli_task *task) {
  (void)w;
  if (task->runner) lml_job_cancel(task->runner);
}

static const mli_executor_class loop_class = {
  .open = loop_open,
  .close = close_state,
  .run = loop_run,
  .cancel = loop_cancel,
  .turn = loop_turn,
  .idle = loop_idle,
  .cancel_all = loop_cancel_all,
};

/* ---- pools ---- */

static void pool_open(mli_worker *w) {
  open_state(w);
  lml_state *S = w->user;
  const config *c = w->executor->user;
  if (!S || !c->init) return;
  lua_State *L = S->L;
  lua_pushcfunction(L, lml_message_handler);
  lua_pushcfunction(L, call_message);
  lua_pushlightuserdata(L, c->init);
  if (lua_pcall(L, 1, 0, 1) != LUA_OK) {
    S->broken = true;
    lua_rawsetp(L, LUA_REGISTRYINDEX, &init_key); /* the error itself */
  }
  lua_settop(L, 0);
}

/* Stack: the box for the outcome. Runs the task and encodes its results. */
static int run_task(lua_State *L) {
  mli_message **out = lua_touserdata(L, 1);
  lml_state *S = lml_state_of(L);
  lua_settop(L, 0);
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
  *out = lml_encode(L, 1, lua_gettop(L), LML_RESULTS);
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
  atomic_store(&S->task_cancelled, false);
  S->task = task;
  mli_count(&w->counts.running, 1);
  free(S->joined);
  S->joined = NULL;
  lua_settop(L, 0);
  lua_pushcfunction(L, lml_message_handler);
  bool ok;
  if (S->broken) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &init_key);
    ok = false;
  } else {
    lua_pushcfunction(L, run_task);
    lua_pushlightuserdata(L, &outcome);
    ok = lua_pcall(L, 1, 0, 1) == LUA_OK;
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
    outcome = lml_encode_outcome(L, 1, &failed);
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

static const mli_executor_class pool_class = {
  .open = pool_open,
  .close = close_state,
  .run = pool_run,
  .cancel = pool_cancel,
};

/* ---- making executors ---- */

typedef struct owned { /* what this state made, to shut down as it closes */
  mli_executor *executor;
  struct owned *next;
} owned;

mli_executor *lml_executor_check(lua_State *L, int arg) {
  return mli_container(lml_handle_check(L, arg, &mli_executor_type), mli_executor, object);
}

/* Copies of package.path and what crosses of package.preload. */
static void fill_config(lua_State *L, config *c) {
  lua_getglobal(L, "package");
  const char *path = NULL, *cpath = NULL;
  if (lua_istable(L, -1)) {
    lua_getfield(L, -1, "path");
    lua_getfield(L, -2, "cpath");
    path = lua_tostring(L, -2);
    cpath = lua_tostring(L, -1);
    lua_pop(L, 2);
  }
  c->path = strdup(path ? path : "");
  c->cpath = strdup(cpath ? cpath : "");
  lua_pop(L, 1);
  if (!c->path || !c->cpath) luaL_error(L, "not enough memory");
}

static int encode_one(lua_State *L) {
  mli_message **out = lua_touserdata(L, 2);
  *out = lml_encode(L, 1, 1, LML_ARGUMENTS);
  return 0;
}

/* What crosses of package.preload: functions as code; C functions, which stay in
** the process, by address; for the rest the reason, to be raised where it is asked for. */
static void pack_preload(lua_State *L, config *c) {
  lua_newtable(L);
  int table = lua_gettop(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  for (lua_pushnil(L); lua_next(L, table + 1); lua_settop(L, table + 2)) {
    if (lua_type(L, table + 2) != LUA_TSTRING) continue;
    if (strncmp(lua_tostring(L, table + 2), "moonloop", 8) == 0) continue;
    lua_pushvalue(L, table + 2);
    if (lua_iscfunction(L, table + 3) && !lua_getupvalue(L, table + 3, 1)) {
      lua_pushlightuserdata(L, (void *)lua_tocfunction(L, table + 3));
    } else {
      mli_message *out = NULL;
      lua_settop(L, table + 4);
      lua_pushcfunction(L, encode_one);
      lua_pushvalue(L, table + 3);
      lua_pushlightuserdata(L, &out);
      if (lua_pcall(L, 2, 0, 0) == LUA_OK) {
        lua_pushvalue(L, table + 3);
      } else {
        luaL_tolstring(L, -1, NULL);
        lua_remove(L, -2);
      }
      mli_message_free(out);
    }
    lua_rawset(L, table);
  }
  lua_settop(L, table);
  c->preload = lml_encode(L, table, 1, LML_ARGUMENTS);
  lua_pop(L, 1);
}

typedef struct config_box {
  config *c;
} config_box;

static int config_box_gc(lua_State *L) {
  config_box *box = lua_touserdata(L, 1);
  if (box->c) config_free(box->c);
  box->c = NULL;
  return 0;
}

static config_box *push_config(lua_State *L) {
  config_box *box = lua_newuserdatauv(L, sizeof *box, 0);
  box->c = NULL;
  if (luaL_newmetatable(L, "moonloop.config")) {
    lua_pushcfunction(L, config_box_gc);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  box->c = calloc(1, sizeof *box->c);
  if (!box->c) luaL_error(L, "not enough memory");
  return box;
}

/* Makes an executor and pushes its handle. `init`: the stack index of the first of
** n values that are the init job; n 0: none. */
static mli_executor *make(lua_State *L, const char *name, bool loops, unsigned size,
                          uint64_t max_pending, int init, int n) {
  if (lml_state_of(L)->closed) lml_misuse(L, "cannot make an executor: this Lua state is closing");
  config_box *box = push_config(L);
  fill_config(L, box->c);
  pack_preload(L, box->c);
  if (n > 0) box->c->init = lml_encode(L, init, n, LML_JOB);
  lml_handle *h = lml_handle_new(L, &mli_executor_type);
  lml_state_renew_sentinel(L);
  mli_executor_options options = {
    .class = loops ? &loop_class : &pool_class,
    .name = name,
    .loops = loops,
    .size = size,
    .max_pending = max_pending,
    .user = box->c,
    .free_user = config_free,
  };
  box->c = NULL;
  mli_executor *ex;
  ml_status status = mli_executor_new(&ex, &options);
  if (status == ML_MEMORY) luaL_error(L, "not enough memory");
  if (status != ML_OK)
    lml_raise(L, uv_err_name(-errno), "cannot start the threads of executor '%s': %s", name,
              strerror(errno));
  mli_executor_use(ex);
  h->object = &ex->object;
  lua_remove(L, -2);
  return ex;
}

/* Forgets those that have ended. */
static void disown_ended(lml_state *S) {
  for (owned **at = &S->owned; *at;) {
    owned *o = *at;
    if (!mli_future_settled(o->executor->ended)) {
      at = &o->next;
      continue;
    }
    *at = o->next;
    mli_executor_join(o->executor);
    mli_release(o->executor);
    free(o);
  }
}

/* Remembers that this state made it. */
static void own(lua_State *L, lml_state *S, mli_executor *ex) {
  disown_ended(S);
  owned *o = malloc(sizeof *o);
  if (!o) luaL_error(L, "not enough memory");
  o->executor = mli_retain(ex);
  o->next = S->owned;
  S->owned = o;
}

/* executor(kind, name, size, max_pending, init...): kind "async" or "thread". */
static int l_executor(lua_State *L) {
  lml_state *S = lml_upstate(L);
  const char *kind = luaL_checkstring(L, 1), *name = luaL_checkstring(L, 2);
  lua_Integer size = luaL_checkinteger(L, 3), max_pending = luaL_optinteger(L, 4, 0);
  int n = lua_gettop(L) - 4;
  mli_executor *ex = make(L, name, strcmp(kind, "async") == 0, (unsigned)size,
                          (uint64_t)max_pending, 5, n > 0 ? n : 0);
  own(L, S, ex);
  return 1;
}

/* ---- the defaults ---- */

static struct {
  mli_lock lock;             /* a leaf */
  mli_executor *loop, *pool; /* [M] each holds a reference and a use */
  atomic_bool loop_ours;     /* [A] made by us, not set */
  unsigned hosts;            /* [M] states of the host that are open */
} defaults;

/* The default in `slot`, kept alive by this state until it asks again; NULL: none. */
static mli_executor *get_default(lml_state *S, mli_executor **slot) {
  mli_executor **kept = slot == &defaults.loop ? &S->default_loop : &S->default_pool;
  mli_lock_acquire(&defaults.lock);
  mli_executor *ex = *slot, *old = *kept;
  if (ex && ex != old) mli_object_retain(&ex->object);
  *kept = ex;
  mli_lock_release(&defaults.lock);
  if (old && old != ex) mli_release(old);
  return ex;
}

/* Installs `ex` unless another thread was first; returns the one that counts. */
static mli_executor *install_default(lml_state *S, mli_executor **slot, mli_executor *ex) {
  mli_executor_use(ex);
  mli_object_retain(&ex->object);
  mli_lock_acquire(&defaults.lock);
  mli_executor *now = *slot;
  if (!now) {
    *slot = ex;
    if (slot == &defaults.loop) defaults.loop_ours = true;
  }
  mli_lock_release(&defaults.lock);
  if (now) {
    mli_executor_leave(ex);
    mli_release(ex);
  }
  return get_default(S, slot);
}

static void leave_default(mli_executor *ex) {
  mli_executor_leave(ex);
  mli_release(ex);
}

/* A default of ours that was shut down makes place for a new one. */
static void drop_default(mli_executor **slot, mli_executor *ex) {
  mli_lock_acquire(&defaults.lock);
  bool same = *slot == ex;
  if (same) *slot = NULL;
  mli_lock_release(&defaults.lock);
  if (same) leave_default(ex);
}

mli_executor *lml_default_executor(lua_State *L) {
  lml_state *S = lml_state_of(L);
  mli_executor *ex = get_default(S, &defaults.loop);
  if (ex && !(atomic_load(&ex->closing) && defaults.loop_ours)) return ex;
  if (ex) drop_default(&defaults.loop, ex);
  const char *init = getenv("MOONLOOP_INIT");
  if (init && strcmp(init, "0") == 0)
    lml_misuse(L, "no event loop is set and MOONLOOP_INIT=0 forbids making one: call "
                  "moonloop.set_event_loop(moonloop.AsyncExecutor{})");
  ex = make(L, "moonloop", true, 1, 0, 0, 0);
  ex = install_default(S, &defaults.loop, ex);
  lua_pop(L, 1);
  return ex;
}

static unsigned default_workers(void) {
  unsigned n = uv_available_parallelism() + 4;
  return n < 32 ? n : 32;
}

static mli_executor *default_pool(lua_State *L) {
  lml_state *S = lml_state_of(L);
  mli_executor *ex = get_default(S, &defaults.pool);
  if (ex && !atomic_load(&ex->closing)) return ex;
  if (ex) drop_default(&defaults.pool, ex);
  ex = make(L, "moonloop-pool", false, default_workers(), 0, 0, 0);
  ex = install_default(S, &defaults.pool, ex);
  lua_pop(L, 1);
  return ex;
}

static int l_default_executor(lua_State *L) {
  lml_handle_push(L, &lml_default_executor(L)->object);
  return 1;
}

static int l_default_pool(lua_State *L) {
  lml_handle_push(L, &default_pool(L)->object);
  return 1;
}

/* set_default(executor or nil): returns the one before, or nil. */
static int l_set_default(lua_State *L) {
  mli_executor *ex = NULL;
  if (!lua_isnoneornil(L, 1)) {
    ex = lml_executor_check(L, 1);
    if (!ex->loops)
      return lml_misuse(L, "set_event_loop: only an AsyncExecutor can be the event loop");
    mli_executor_use(ex);
    mli_object_retain(&ex->object);
  }
  mli_lock_acquire(&defaults.lock);
  mli_executor *old = defaults.loop;
  defaults.loop = ex;
  defaults.loop_ours = false;
  mli_lock_release(&defaults.lock);
  if (!old) return 0;
  lml_handle_push(L, &old->object);
  leave_default(old);
  return 1;
}

void lml_host_enter(void) {
  mli_lock_acquire(&defaults.lock);
  defaults.hosts++;
  mli_lock_release(&defaults.lock);
}

/* Says on stderr what keeps an executor from ending. */
static void complain(mli_executor *ex) {
  char text[1024];
  int n = snprintf(text, sizeof text,
                   "moonloop: executor '%s' did not stop within %d s of its state's closing:",
                   ex->name, (int)(CLOSE_GRACE / MLI_SECOND));
  mli_lock_acquire(&ex->lock);
  for (unsigned i = 0; i < ex->count && n < (int)sizeof text; i++) {
    const mli_task *task = ex->workers[i]->task;
    if (task)
      n += snprintf(text + n, sizeof text - (size_t)n, " job '%s' (submitted at %s:%u)",
                    task->name[0] ? task->name : "unnamed", mli_task_chunk(task), task->line);
  }
  mli_lock_release(&ex->lock);
  fprintf(stderr, "%s\n", text);
}

/* Ends an executor for good, but waits no longer than the grace. */
static void end_executor(mli_executor *ex) {
  mli_executor_shutdown(ex, true);
  if (mli_future_wait(ex->ended, mli_now() + CLOSE_GRACE) == ML_OK)
    mli_executor_join(ex);
  else
    complain(ex);
}

void lml_host_leave(void) {
  mli_lock_acquire(&defaults.lock);
  bool last = --defaults.hosts == 0;
  mli_executor *loop = last ? defaults.loop : NULL, *pool = last ? defaults.pool : NULL;
  if (last) defaults.loop = defaults.pool = NULL;
  mli_lock_release(&defaults.lock);
  mli_executor *all[] = { pool, loop };
  for (int i = 0; i < 2; i++) {
    if (!all[i]) continue;
    end_executor(all[i]);
    leave_default(all[i]);
  }
}

void lml_executors_each(lml_state *S, void (*f)(mli_executor *ex)) {
  mli_executor *others[2] = { get_default(S, &defaults.loop), get_default(S, &defaults.pool) };
  for (owned *o = S->owned; o; o = o->next) {
    f(o->executor);
    for (int i = 0; i < 2; i++)
      if (others[i] == o->executor) others[i] = NULL;
  }
  for (int i = 0; i < 2; i++)
    if (others[i]) f(others[i]);
}

void lml_executors_close(lml_state *S) {
  if (S->default_loop) mli_release(S->default_loop);
  if (S->default_pool) mli_release(S->default_pool);
  S->default_loop = S->default_pool = NULL;
  while (S->owned) {
    owned *o = S->owned;
    S->owned = o->next;
    end_executor(o->executor);
    mli_release(o->executor);
    free(o);
  }
}

/* ---- submitting ---- */

/* Stack: executor, name or nil, timeout or nil, job, arguments. */
enum { SUBMIT_EXECUTOR = 1, SUBMIT_NAME, SUBMIT_TIMEOUT, SUBMIT_JOB };

static int closed_error(lua_State *L, mli_executor *ex) {
  return lml_raise(L, "closed", "executor '%s' is shut down", ex->name);
}

/* The caller holds a slot. */
static int submit_now(lua_State *L, lml_state *S, mli_executor *ex) {
  uint64_t timeout = MLI_FOREVER;
  if (!lua_isnil(L, SUBMIT_TIMEOUT)) timeout = (uint64_t)(lua_tonumber(L, SUBMIT_TIMEOUT) * 1e9);
  int n = lua_gettop(L) - SUBMIT_JOB + 1;
  lml_future_wrap(L, S, NULL);
  lml_future *u = lua_touserdata(L, -1);
  mli_task *task = mli_task_new(ex, NULL);
  if (!task) return luaL_error(L, "not enough memory");
  u->handle.object = &task->future.object; /* it owns the task while the encoding may raise */
  task->context = lml_context_encode(L, S);
  task->payload = lml_encode(L, SUBMIT_JOB, n, LML_JOB);
  task->timeout = timeout;
  lml_place place = lml_place_of(L, S);
  task->line = place.line;
  if (place.chunk) task->chunk = mli_retain(S->chunks[place.chunk - 1].name);
  const char *name = lua_type(L, SUBMIT_NAME) == LUA_TSTRING  ? lua_tostring(L, SUBMIT_NAME)
                     : lua_type(L, SUBMIT_JOB) == LUA_TSTRING ? lua_tostring(L, SUBMIT_JOB)
                                                              : NULL;
  if (name) snprintf(task->name, sizeof task->name, "%s", name);
  ml_status status = mli_executor_submit(ex, task);
  if (status != ML_OK) {
    mli_future_observe(&task->future);
    if (status == ML_CLOSED) return closed_error(L, ex);
    const char *code = status == ML_SYSTEM ? uv_err_name(-errno) : ml_status_name(status);
    return lml_raise(L, code, "cannot start a thread for the job: %s", strerror(errno));
  }
  return 1;
}

/* A submit that waits for a slot. */
typedef struct slot_wait {
  mli_waiter waiter;
  mli_sem *sem;
} slot_wait;

static void slot_abort(lml_await *a) {
  slot_wait *w = a->source;
  if (mli_sem_remove(w->sem, &w->waiter)) lml_await_wake(a, true);
}

/* The slot is given back if the encoding refuses. */
static int submit_protected(lua_State *L) {
  return submit_now(L, lml_upstate(L), lml_executor_check(L, 1));
}

static int submit_with_slot(lua_State *L, lml_state *S, mli_executor *ex) {
  if (!ex->bounded) return submit_now(L, S, ex);
  lua_pushlightuserdata(L, S);
  lua_pushcclosure(L, submit_protected, 1);
  lua_insert(L, 1);
  if (lua_pcall(L, lua_gettop(L) - 1, 1, 0) == LUA_OK) return 1;
  mli_sem_release(&ex->slots);
  return lua_error(L);
}

static int slot_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_state *S = lml_upstate(L);
  mli_executor *ex = lml_executor_check(L, 1);
  lml_await_end(L, S);
  lua_pop(L, 1); /* the wait's memory */
  if (atomic_load(&ex->closing)) return closed_error(L, ex);
  return submit_with_slot(L, S, ex);
}

static mli_executor *check_submit(lua_State *L, lml_state *S) {
  mli_object *object = lml_handle_test_in(L, S, 1, &mli_executor_type);
  if (!object) lml_misuse(L, "submit: executor expected, got %s", luaL_typename(L, 1));
  return mli_container(object, mli_executor, object);
}

/* submit_opened(executor, name, timeout, function or "module:function", ...) */
static int l_submit_opened(lua_State *L) {
  lml_state *S = lml_upstate(L);
  mli_executor *ex = check_submit(L, S);
  if (atomic_load(&ex->closing)) return closed_error(L, ex);
  if (!ex->bounded || mli_sem_try(&ex->slots)) return submit_with_slot(L, S, ex);
  slot_wait *w = lua_newuserdatauv(L, sizeof *w, 0);
  lml_await *a = lml_await_begin(L, S, "max_pending");
  w->sem = &ex->slots;
  w->waiter.waker = &a->waker;
  a->waker.wake = lml_await_woken;
  a->abort = slot_abort;
  a->source = w;
  if (mli_sem_acquire(&ex->slots, &w->waiter)) atomic_store(&a->woken, true);
  return lml_await_park(L, S, a, MLI_FOREVER, slot_k, 0);
}

/* try_submit_opened(...): the same, or nil and an error with code "busy" */
static int l_try_submit_opened(lua_State *L) {
  lml_state *S = lml_upstate(L);
  mli_executor *ex = check_submit(L, S);
  if (atomic_load(&ex->closing))
    return lml_fail(L, "closed", "executor '%s' is shut down", ex->name);
  if (ex->bounded && !mli_sem_try(&ex->slots))
    return lml_fail(L, "busy", "executor '%s' has as many jobs as max_pending allows", ex->name);
  return submit_with_slot(L, S, ex);
}

static const char open_job_key; /* registry: the front door's submit for other jobs */

static int return_all_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  return lua_gettop(L);
}

/* Functions go straight on; the front door takes anything else apart. */
static int submit_any(lua_State *L, lua_CFunction opened) {
  if (mli_likely(lua_isfunction(L, 2))) {
    lua_pushnil(L);
    lua_pushnil(L);
    lua_rotate(L, 2, 2);
    return opened(L);
  }
  lua_rawgetp(L, LUA_REGISTRYINDEX, &open_job_key);
  lua_pushboolean(L, opened == l_try_submit_opened);
  lua_rotate(L, 1, 2);
  lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, return_all_k);
  return lua_gettop(L);
}

/* executor:submit(job, ...) -> future */
static int l_submit(lua_State *L) { return submit_any(L, l_submit_opened); }

/* executor:try_submit(job, ...) -> future, or nil, err */
static int l_try_submit(lua_State *L) { return submit_any(L, l_try_submit_opened); }

/* submit_other(f): f(try, executor, ...) submits what is no plain function. */
static int l_submit_other(lua_State *L) {
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &open_job_key);
  return 0;
}

/* ---- closing, looking ---- */

/* shutdown(executor, cancel) -> the future of its end */
static int l_shutdown(lua_State *L) {
  mli_executor *ex = lml_executor_check(L, 1);
  mli_executor_shutdown(ex, lua_toboolean(L, 2));
  lml_handle_push(L, &ex->ended->object);
  return 1;
}

static int l_join(lua_State *L) {
  mli_executor_join(lml_executor_check(L, 1));
  disown_ended(lml_upstate(L));
  return 0;
}

/* Whether the caller is one of the executor's own jobs. */
static int l_is_own(lua_State *L) {
  mli_executor *ex = lml_executor_check(L, 1);
  lml_state *S = lml_upstate(L);
  lua_pushboolean(L, S->worker && S->worker->executor == ex);
  return 1;
}

static void set_count(lua_State *L, const char *key, unsigned long long n) {
  lua_pushinteger(L, (lua_Integer)n);
  lua_setfield(L, -2, key);
}

static int l_stats(lua_State *L) {
  mli_executor *ex = lml_executor_check(L, 1);
  unsigned long long submitted = atomic_load(&ex->submitted), finished = 0, failed = 0,
                     cancelled = atomic_load(&ex->dropped), running = 0, parked = 0;
  mli_lock_acquire(&ex->lock);
  unsigned workers = ex->threads;
  for (unsigned i = 0; i < ex->count; i++) {
    const mli_counts *c = &ex->workers[i]->counts;
    submitted += atomic_load_explicit(&c->submitted, memory_order_relaxed);
    finished += atomic_load_explicit(&c->finished, memory_order_relaxed);
    failed += atomic_load_explicit(&c->failed, memory_order_relaxed);
    cancelled += atomic_load_explicit(&c->cancelled, memory_order_relaxed);
    running += atomic_load_explicit(&c->running, memory_order_relaxed);
    parked += atomic_load_explicit(&c->parked, memory_order_relaxed);
  }
  mli_lock_release(&ex->lock);
  unsigned long long ended = finished + failed + cancelled + running + parked;
  lua_createtable(L, 0, 9);
  set_count(L, "submitted", submitted);
  set_count(L, "queued", submitted > ended ? submitted - ended : 0);
  set_count(L, "running", running);
  set_count(L, "parked", parked);
  set_count(L, "finished", finished);
  set_count(L, "failed", failed);
  set_count(L, "cancelled", cancelled);
  set_count(L, "loops", ex->loops ? ex->size : 0);
  set_count(L, "workers", ex->loops ? 0 : workers);
  return 1;
}

/* ---- jobs() ---- */

static void push_seconds(lua_State *L, uint64_t ns) { lua_pushnumber(L, (lua_Number)ns / 1e9); }

/* `names` is where the table of names is, by id. */
static void push_job(lua_State *L, lml_state *S, lml_job *job, int names) {
  char name[64];
  lua_createtable(L, 0, 8);
  lua_pushstring(L, lml_job_name(job, name, sizeof name));
  lua_setfield(L, -2, "name");
  lua_pushstring(L, lml_job_state(job));
  lua_setfield(L, -2, "state");
  if (job->await.parked) {
    lua_pushstring(L, job->await.what);
    lua_setfield(L, -2, "waits_for");
    push_seconds(L, job->await.since);
    lua_setfield(L, -2, "since");
  }
  if (job->parent) {
    lua_rawgeti(L, names, job->parent); /* nil: it has ended */
    lua_setfield(L, -2, "parent");
  }
  uint32_t line = job->task ? job->task->line : job->place.line;
  if (line) {
    lua_pushfstring(L, "%s:%d",
                    job->task ? mli_task_chunk(job->task) : lml_chunk_name(S, job->place.chunk),
                    (int)line);
    lua_setfield(L, -2, "submitted_at");
  }
  if (job->co && job->started) {
    luaL_checkstack(job->co, 12, NULL);
    luaL_traceback(L, job->co, NULL, 0);
    lua_setfield(L, -2, "traceback");
  }
}

/* Pushes the list of the state's jobs. */
static int push_jobs(lua_State *L, lml_state *S) {
  char name[64];
  lua_newtable(L);
  int names = lua_gettop(L);
  for (lml_job *job = S->jobs; job; job = job->next) {
    lua_pushstring(L, lml_job_name(job, name, sizeof name));
    lua_rawseti(L, names, job->id);
  }
  lua_newtable(L);
  lua_Integer n = 0;
  for (lml_job *job = S->jobs; job; job = job->next) {
    push_job(L, S, job, names);
    lua_rawseti(L, -2, ++n);
  }
  for (mli_node *node = S->deferred; node; node = node->next) {
    mli_task *task = mli_container(node, mli_task, node);
    lua_createtable(L, 0, 2);
    lua_pushstring(L, task->name[0] ? task->name : "job");
    lua_setfield(L, -2, "name");
    lua_pushliteral(L, "queued");
    lua_setfield(L, -2, "state");
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

/* A question to a loop's state, answered through a future. */
typedef struct question {
  mli_node node;
  mli_future *answer;
} question;

static int answer_jobs(lua_State *L) {
  mli_message **out = lua_touserdata(L, 1);
  push_jobs(L, lml_state_of(L));
  *out = lml_encode(L, lua_gettop(L), 1, LML_RESULTS);
  return 0;
}

static void on_question(mli_node *node, mli_loop *loop) {
  question *q = mli_container(node, question, node);
  mli_worker *w = loop->user;
  lml_state *S = w->user;
  mli_message *out = NULL;
  if (S && S->from && !loop->stopping) {
    lua_pushcfunction(S->from, answer_jobs);
    lua_pushlightuserdata(S->from, &out);
    if (lua_pcall(S->from, 1, 0, 0) != LUA_OK) lua_pop(S->from, 1);
  }
  if (out)
    mli_future_settle(q->answer, MLI_FINISHED, out, NULL);
  else
    mli_future_fail(q->answer, ML_CLOSED);
  mli_release(q->answer);
  free(q);
}

/* ask_jobs(executor) -> a list of futures, one a loop; a pool's jobs at once. */
static int l_ask_jobs(lua_State *L) {
  lml_state *S = lml_upstate(L);
  mli_executor *ex = lml_executor_check(L, 1);
  lua_newtable(L);
  if (!ex->loops) {
    struct {
      char name[MLI_NAME_MAX];
      bool running;
    } list[256];
    int n = 0;
    mli_lock_acquire(&ex->lock);
    for (unsigned i = 0; i < ex->count && n < 256; i++)
      if (ex->workers[i]->task) {
        snprintf(list[n].name, MLI_NAME_MAX, "%s", ex->workers[i]->task->name);
        list[n++].running = true;
      }
    for (mli_node *node = ex->queue; node && n < 256; node = node->next) {
      snprintf(list[n].name, MLI_NAME_MAX, "%s", mli_container(node, mli_task, node)->name);
      list[n++].running = false;
    }
    mli_lock_release(&ex->lock);
    for (int i = 0; i < n; i++) {
      lua_createtable(L, 0, 2);
      lua_pushstring(L, list[i].name[0] ? list[i].name : "job");
      lua_setfield(L, -2, "name");
      lua_pushstring(L, list[i].running ? "running" : "queued");
      lua_setfield(L, -2, "state");
      lua_rawseti(L, -2, i + 1);
    }
    return 1;
  }
  for (unsigned i = 0; i < ex->size; i++) {
    mli_future *answer = mli_future_new();
    if (!answer) return luaL_error(L, "not enough memory");
    lml_future_wrap(L, S, answer);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
    mli_future_observe(answer);
    question *q = malloc(sizeof *q);
    if (!q) return luaL_error(L, "not enough memory");
    q->answer = mli_retain(answer);
    q->node.run = on_question;
    if (!mli_loop_post(ex->workers[i]->loop, &q->node)) {
      mli_future_fail(answer, ML_CLOSED);
      mli_release(answer);
      free(q);
    }
  }
  return 1;
}

/* own_jobs() -> the jobs of the loop that runs in this state. */
static int l_own_jobs(lua_State *L) { return push_jobs(L, lml_upstate(L)); }

/* ---- metatable ---- */

static int ex_gc(lua_State *L) {
  lml_handle *h = lua_touserdata(L, 1);
  if (!h->object) return 0;
  mli_executor *ex = mli_container(h->object, mli_executor, object);
  h->object = NULL;
  mli_executor_leave(ex);
  mli_release(ex);
  return 0;
}

static int ex_eq(lua_State *L) {
  mli_object *a = lml_handle_test(L, 1, &mli_executor_type),
             *b = lml_handle_test(L, 2, &mli_executor_type);
  lua_pushboolean(L, a && a == b);
  return 1;
}

static int ex_tostring(lua_State *L) {
  mli_executor *ex = lml_executor_check(L, 1);
  lua_pushfstring(L, "executor: %p \"%s\" (%s)", (void *)ex, ex->name,
                  mli_future_settled(ex->ended) ? "ended"
                  : atomic_load(&ex->closing)   ? "closing"
                                                : "open");
  return 1;
}

static int ex_name(lua_State *L) {
  mli_executor *ex = lml_executor_check(L, 1);
  lua_pushstring(L, ex->name);
  return 1;
}

/* in_worker(): whether this state is an executor's. */
static int l_in_worker(lua_State *L) {
  lua_pushboolean(L, lml_upstate(L)->worker != NULL);
  return 1;
}

/* is_executor(v) */
static int l_is_executor(lua_State *L) {
  lua_pushboolean(L, lml_handle_test(L, 1, &mli_executor_type) != NULL);
  return 1;
}

static int ex_kind(lua_State *L) {
  mli_executor *ex = lml_executor_check(L, 1);
  lua_pushstring(L, ex->loops ? "async" : "thread");
  return 1;
}

void lml_executor_open(lua_State *L) {
  static const luaL_Reg functions[] = {
    { "executor", l_executor },
    { "default_executor", l_default_executor },
    { "set_default", l_set_default },
    { "default_pool", l_default_pool },
    { "submit", l_submit },
    { "try_submit", l_try_submit },
    { "submit_opened", l_submit_opened },
    { "try_submit_opened", l_try_submit_opened },
    { "submit_other", l_submit_other },
    { "shutdown", l_shutdown },
    { "join", l_join },
    { "is_own", l_is_own },
    { "stats", l_stats },
    { "ask_jobs", l_ask_jobs },
    { "own_jobs", l_own_jobs },
    { "on_error", lml_on_error },
    { "executor_name", ex_name },
    { "executor_kind", ex_kind },
    { "in_worker", l_in_worker },
    { "is_executor", l_is_executor },
    { NULL, NULL },
  };
  static const luaL_Reg metamethods[] = {
    { "__gc", ex_gc }, { "__eq", ex_eq }, { "__tostring", ex_tostring }, { NULL, NULL }
  };
  lml_setfuncs(L, functions);
  lua_pushinteger(L, (lua_Integer)default_workers());
  lua_setfield(L, -2, "default_workers");
  lua_newtable(L);
  lua_pushliteral(L, "executor");
  lua_setfield(L, -2, "__name");
  lml_setfuncs(L, metamethods);
  lml_handle_declare(L, &mli_executor_type);
  lua_setfield(L, -2, "executor_metatable"); /* the front door adds the methods */
  lml_report_open();
}
