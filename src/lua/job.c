/*
** job.c: jobs: what they are made of, what runs at the bottom of each, cancelling, ending.
**
** A job's coroutine runs a C function, the base, which calls the job's function
** protected: so `__close` variables may wait however the job ends, and the
** traceback is taken where the error happens.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/observe.h"
#include "crossing.h"
#include "generator.h"
#include "state.h"

/* ---- the base ---- */

void lml_resolve(lua_State *L, int index) {
  if (lua_type(L, index) != LUA_TSTRING) return;
  index = lua_absindex(L, index);
  const char *name = lua_tostring(L, index);
  const char *colon = strchr(name, ':');
  if (!colon || colon == name || !colon[1])
    lml_misuse(L, "a job's name is \"module:function\", got \"%s\"", name);
  lua_getglobal(L, "require");
  lua_pushlstring(L, name, (size_t)(colon - name));
  lua_call(L, 1, 1);
  for (const char *field = colon + 1; field;) {
    const char *dot = strchr(field, '.');
    size_t n = dot ? (size_t)(dot - field) : strlen(field);
    if (!lua_istable(L, -1) && luaL_getmetafield(L, -1, "__index") == LUA_TNIL)
      lml_misuse(L, "job \"%s\": cannot look up '%s' in a %s value", name, field,
                 luaL_typename(L, -1));
    else if (!lua_istable(L, -1))
      lua_pop(L, 1);
    lua_pushlstring(L, field, n);
    lua_gettable(L, -2);
    lua_remove(L, -2);
    field = dot ? dot + 1 : NULL;
  }
  if (lua_type(L, -1) != LUA_TFUNCTION && luaL_getmetafield(L, -1, "__call") == LUA_TNIL) {
    lml_misuse(L, "job \"%s\": function expected, got %s", name, luaL_typename(L, -1));
  } else if (lua_gettop(L) > 0 && lua_type(L, -1) != LUA_TFUNCTION) {
    lua_pop(L, 1); /* the __call */
  }
  lua_replace(L, index);
}

/* The base's frame, and what it leaves when the job ends:
**   1 the future of a spawned job, nil for a submitted one
**   2 the message handler
**   3 the function and its arguments; then the results, or the error */
#define FIRST 3

/* The outcome of a submitted job is encoded here, where an error of the encoding
** becomes the error of the job. */
static int leave_outcome(lua_State *L, lml_job *job) {
  if (job->task)
    job->S->outcome = lml_encode(L, FIRST, lua_gettop(L) - FIRST + 1,
                                 job->failed ? LML_ERROR_VALUE : LML_RESULTS);
  return lua_gettop(L);
}

/* An error of the clean-up is the job's. */
static int closed_k(lua_State *L, int status, lua_KContext ctx) {
  lml_job *job = (lml_job *)ctx;
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_insert(L, FIRST);
    lua_settop(L, FIRST);
    job->failed = true;
  }
  return leave_outcome(L, job);
}

/* The generators that the job left open are closed before it ends. What an init made is
** the state's. */
static int close_left(lua_State *L, lml_job *job) {
  if (job->S->starting && !job->task && job->parent == 0) lml_left_join(&job->root.open, NULL);
  if (!lml_left_take(L, job->S, FIRST, &job->root.open, NULL)) return leave_outcome(L, job);
  lml_left_push_close(L, job->failed && !lml_is_own_cancel(L, job, FIRST));
  return closed_k(L, lua_pcallk(L, 2, 0, 2, (lua_KContext)job, closed_k), (lua_KContext)job);
}

static int base_k(lua_State *L, int status, lua_KContext ctx) {
  lml_job *job = (lml_job *)ctx;
  job->failed = status != LUA_OK && status != LUA_YIELD;
  lml_scopes_leave(job);
  return mli_likely(!job->root.open) ? leave_outcome(L, job) : close_left(L, job);
}

static int base(lua_State *L) {
  lml_job *job = lml_upstate(L)->current;
  lua_pushcfunction(L, lml_message_handler);
  lua_insert(L, 2);
  int status = lua_pcallk(L, lua_gettop(L) - FIRST, LUA_MULTRET, 2, (lua_KContext)job, base_k);
  return base_k(L, status, (lua_KContext)job);
}

/* A submitted job's: the function and its arguments come out of the message. */
static int task_base(lua_State *L) {
  lml_job *job = lml_upstate(L)->current;
  lua_pushcfunction(L, lml_message_handler);
  if (job->task->context) job->context = lml_context_decode(L, job->task->context);
  lml_decode(L, job->task->payload);
  mli_message_free(job->task->payload);
  job->task->payload = NULL;
  lml_resolve(L, FIRST);
  if (mli_unlikely(lua_isuserdata(L, -1))) lml_generator_begin(L, lml_upstate(L), FIRST);
  int status = lua_pcallk(L, lua_gettop(L) - FIRST, LUA_MULTRET, 2, (lua_KContext)job, base_k);
  return base_k(L, status, (lua_KContext)job);
}

void lml_job_push_future(lua_State *L, lml_job *job) {
  lua_Debug ar;
  luaL_checkstack(L, 1, NULL);
  if (!job->started) { /* base, future, f, ... */
    lua_pushvalue(job->co, 2);
    lua_xmove(job->co, L, 1);
    return;
  }
  int low = 0, high = 1;
  while (lua_getstack(job->co, high, &ar)) low = high, high *= 2;
  while (low + 1 < high) { /* the base is the outermost frame */
    int middle = (low + high) / 2;
    if (lua_getstack(job->co, middle, &ar))
      low = middle;
    else
      high = middle;
  }
  luaL_checkstack(job->co, 1, NULL);
  if (lua_getstack(job->co, low, &ar) && lua_getlocal(job->co, &ar, 1))
    lua_xmove(job->co, L, 1);
  else
    lua_pushnil(L);
}

static const char base_key, task_base_key;

void lml_job_push_task_base(lua_State *co) {
  lua_rawgetp(co, LUA_REGISTRYINDEX, &task_base_key);
  lua_pushnil(co);
}

/* ---- making jobs ---- */

lml_job *lml_job_spawn_at(lua_State *L, lml_state *S, int nargs, lml_place place) {
  lml_coroutine c = lml_coroutine_get(L, S);
  lml_future *u = lua_newuserdatauv(L, sizeof *u, 1);
  mli_future_init(&u->local, &mli_future_type, false);
  u->local.on_cancel = lml_local_cancel;
  u->handle.object = &u->local.object;
  u->values = -1;
  u->job = NULL;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->local_future_ref);
  lua_setmetatable(L, -2);
  lml_job *job = lua_checkstack(c.co, nargs + LUA_MINSTACK) ? lml_job_new(S) : NULL;
  if (!job) {
    lml_coroutine_put(S, c.co, c.slot);
    luaL_error(L, "not enough memory");
  }
  u->job = job;
  job->fut = u;
  job->co = c.co;
  job->slot = c.slot;
  job->place = place;
  job->context = lml_context_share(L, S);
  /* L: f, args..., future. The coroutine: base, future, f, args... */
  lua_rawgetp(L, LUA_REGISTRYINDEX, &base_key);
  lua_pushvalue(L, -2);
  lua_xmove(L, c.co, 2);
  lua_insert(L, -nargs - 2);
  lua_xmove(L, c.co, nargs + 1);
  mli_count(&S->count->submitted, 1);
  lml_job_ready(job);
  return job;
}

lml_job *lml_job_spawn(lua_State *L, lml_state *S, int nargs) {
  return lml_job_spawn_at(L, S, nargs, lml_place_of(L, S));
}

static void on_timeout(mli_timer *timer) {
  lml_job *job = mli_container(timer, lml_info, deadline)->job;
  job->root.timed_out = true;
  lml_job_cancel(job);
}

void lml_job_start_timeout(lml_job *job) {
  lml_info *info = job->info;
  if (!info || info->timeout == MLI_FOREVER) return;
  info->deadline.fire = on_timeout;
  mli_loop_deadline_start(job->S->loop, &info->deadline, mli_time() + info->timeout);
}

/* Takes over a reference of the task. Called outside of the turn: no Lua here. */
void lml_task_start(lml_state *S, mli_task *task) {
  lml_job *job = lml_job_new(S);
  if (job && task->timeout != MLI_FOREVER) {
    lml_info *info = lml_job_info(job);
    if (info)
      info->timeout = task->timeout;
    else
      lml_job_free(job), job = NULL;
  }
  if (!job) {
    mli_task_settle(S->worker, task, MLI_FAILED, NULL, NULL, ML_MEMORY);
    return;
  }
  job->parent = 0;
  job->home = 0;
  job->task = task;
  job->origin = task->origin;
  task->runner = job;
  lml_job_ready(job);
}

void lml_task_drop(lml_state *S, mli_task *task) {
  mli_task_settle(S->worker, task, MLI_STOPPED, NULL, NULL, ML_OK);
}

void lml_job_ready(lml_job *job) {
  lml_state *S = job->S;
  if (job->ready) return;
  job->ready = true;
  job->ready_next = NULL;
  *S->ready_last = job;
  S->ready_last = &job->ready_next;
  if (!S->in_turn) mli_loop_again(S->loop);
}

/* ---- cancelling ---- */

lml_scope *lml_job_cancelled(const lml_job *job) { return lml_scope_cancelled(job->scope); }

void lml_push_cancel_error(lua_State *L, const mli_future *f, const char *code, const char *who) {
  int top = lua_gettop(L);
  luaL_checkstack(L, 8, NULL);
  if (!f->reason || lml_decode(L, f->reason) == 0) lua_pushnil(L);
  lua_settop(L, top + 1);
  if (!*who) who = "the job";
  if (lua_isnil(L, -1))
    lml_error_push(L, code, "%s was cancelled", who);
  else
    lml_error_push(L, code, "%s was cancelled: %s", who, luaL_tolstring(L, -1, NULL));
  lua_pushvalue(L, top + 1);
  lua_setfield(L, -2, "reason");
  lua_replace(L, top + 1);
  lua_settop(L, top + 1);
}

int lml_raise_cancelled(lua_State *L, lml_state *S, lml_scope *scope) {
  lml_job *job = S->current;
  if (scope->deliveries < UINT8_MAX) scope->deliveries++;
  if (scope->error == LUA_NOREF) {
    char name[96];
    if (job && scope == &job->root)
      lml_push_cancel_error(L, job->task ? &job->task->future : lml_future_core(job->fut),
                            "cancelled", lml_job_title(job, name, sizeof name));
    else
      lml_scope_push_error(L, scope);
    scope->error = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, scope->error);
  return lua_error(L);
}

/* A job that has not started never will; a parked one is woken as soon as what
** it waits for is given up; any other is told at its next wait. */
void lml_job_cancel(lml_job *job) {
  if (!job->root.since) job->root.since = mli_now();
  if (job->started && lml_job_cancelled(job)) lml_job_interrupt(job);
}

void lml_job_interrupt(lml_job *job) {
  lml_await *a = &job->await;
  if (!a->parked || a->why) return;
  a->why = LML_CANCEL;
  a->abort(a);
}

void lml_cancel_jobs(lml_state *S, uint32_t home) {
  for (lml_job *job = S->jobs; job; job = job->next) {
    if (home != 0 && job->home != home) continue;
    mli_future *f = job->task ? &job->task->future : lml_future_core(job->fut);
    if (mli_future_cancel(f, NULL) && job->task && job->started) lml_job_cancel(job);
  }
}

/* ---- the end of a job ---- */

/* Keeps the n values on top of `co` in the future's handle, at 1. */
static void keep_values(lua_State *L, lua_State *co, lml_future *u, int n) {
  if (n > 1) {
    luaL_checkstack(L, n + 2, "too many results");
    lua_createtable(L, n, 0);
    lua_xmove(co, L, n);
    for (int i = n; i > 0; i--) lua_rawseti(L, -i - 1, i);
    lua_xmove(L, co, 1);
  }
  if (n > 0) lua_setiuservalue(co, 1, 1);
  u->values = n;
}

/* Was it the job's own cancel that ended it? Its timeout is a failure. */
static mli_state failure_state(lua_State *L, lml_job *job) {
  lua_State *co = job->co;
  bool own = job->kill && !lml_generator_verdict(job);
  if (!own) own = lml_is_own_cancel(co, job, lua_gettop(co));
  if (!own) return MLI_FAILED;
  mli_message_free(job->S->outcome);
  job->S->outcome = NULL;
  if (!job->root.timed_out) return MLI_STOPPED;
  char name[96];
  lml_error_push(L, "timeout", "%s ran longer than its timeout",
                 lml_job_title(job, name, sizeof name));
  lua_xmove(L, co, 1);
  lua_replace(co, FIRST);
  return MLI_FAILED;
}

static void settle_task(lua_State *L, lml_state *S, lml_job *job, mli_state state,
                        char *traceback) {
  mli_task *task = job->task;
  mli_message *outcome = job->S->outcome;
  job->S->outcome = NULL;
  if (state != MLI_STOPPED && !outcome) {
    bool failed = true;
    lua_pushvalue(job->co, FIRST);
    lua_xmove(job->co, L, 1);
    outcome = lml_encode_outcome(L, 1, &failed);
  }
  bool lost = state != MLI_STOPPED && !outcome;
  job->task = NULL;
  task->runner = NULL;
  if (lost) free(traceback), traceback = NULL;
  mli_task_settle(S->worker, task, state, outcome, traceback, lost ? ML_MEMORY : ML_OK);
}

static void settle_spawned(lua_State *L, lml_state *S, lml_job *job, mli_state state,
                           char *traceback) {
  lua_State *co = job->co;
  lml_future *u = job->fut;
  mli_future *f = lml_future_core(u);
  mli_message *outcome = NULL;
  int n = lua_gettop(co) - FIRST + 1;
  if (state != MLI_STOPPED && !lml_future_is_local(u)) {
    bool failed = state == MLI_FAILED;
    luaL_checkstack(L, n + 4, "too many results");
    for (int i = 0; i < n; i++) {
      lua_pushvalue(co, FIRST + i);
      lua_xmove(co, L, 1);
    }
    outcome = lml_encode_outcome(L, n, &failed);
    if (failed && state != MLI_FAILED) { /* the results do not cross: others see that */
      state = MLI_FAILED;
      n = -1;
    }
  }
  if (n >= 0 && state != MLI_STOPPED) keep_values(L, co, u, n);
  u->job = NULL;
  lua_settop(co, 1);
  /* A failure is to be reported if nobody asks: now the handle needs a finalizer. */
  if (state == MLI_FAILED) lml_future_track(co, S);
  mli_count(state == MLI_FINISHED ? &S->count->finished
            : state == MLI_FAILED ? &S->count->failed
                                  : &S->count->cancelled,
            1);
  if (state == MLI_STOPPED) free(traceback), traceback = NULL;
  mli_future_settle(f, state, outcome, traceback);
}

void lml_job_finish(lua_State *L, lml_job *job) {
  lml_state *S = job->S;
  lml_scopes_leave(job);
  if (mli_unlikely(job->locks != NULL)) lml_locks_end(L, job);
  mli_count(&S->count->running, -1);
  char *traceback = NULL;
  mli_state state = job->failed ? failure_state(L, job) : MLI_FINISHED;
  if (mli_unlikely(mli_observing())) lml_observe_end(job, state);
  if (state == MLI_FAILED && job->info) {
    traceback = job->info->traceback;
    job->info->traceback = NULL;
  }
  if (job->task)
    settle_task(L, S, job, state, traceback);
  else
    settle_spawned(L, S, job, state, traceback);
  lml_coroutine_put(S, job->co, job->slot);
  lml_job_free(job);
}

void lml_job_stop(lua_State *L, lml_state *S, lml_job *job) {
  luaL_checkstack(L, 4, NULL);
  lml_job_push_future(L, job);
  lml_scopes_leave(job);
  S->closing++;
  lua_resetthread(job->co);
  S->closing--;
  lua_settop(job->co, 0);
  lua_xmove(L, job->co, 1); /* the future */
  lua_pushnil(job->co);
  lua_xmove(L, job->co, 1);
  job->failed = true;
}

/* ---- Lua: spawn, current_job ---- */

static const char spawn_other_key; /* registry: what spawns all but functions */

void lml_spawn_other(lua_State *L, int n) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &spawn_other_key);
  lua_insert(L, -n - 1);
  lua_call(L, n, 1);
}

/* ml.spawn(job, ...): a job on this loop. */
static int l_spawn(lua_State *L) {
  lml_state *S = lml_upstate(L);
  if (mli_likely(S->loop && lua_isfunction(L, 1)))
    lml_job_spawn(L, S, lua_gettop(L) - 1);
  else
    lml_spawn_other(L, lua_gettop(L));
  return 1;
}

static int l_spawn_other(lua_State *L) {
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &spawn_other_key);
  return 0;
}

/* coroutine_function(co): the function of a coroutine that has not started; nil
** if it has. */
static int l_coroutine_function(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  lua_Debug ar;
  if (co && lua_status(co) == LUA_OK && lua_gettop(co) == 1 && !lua_getstack(co, 0, &ar) &&
      lua_isfunction(co, 1) && lua_checkstack(co, 1)) {
    lua_pushvalue(co, 1);
    lua_xmove(co, L, 1);
    return 1;
  }
  return 0;
}

/* resolve("module:function") -> what may be called */
static int l_resolve(lua_State *L) {
  luaL_checktype(L, 1, LUA_TSTRING);
  lua_settop(L, 1);
  lml_resolve(L, 1);
  return 1;
}

/* spawn_named(name, timeout or nil, f, ...): the same with options. */
static int l_spawn_named(lua_State *L) {
  lml_state *S = lml_upstate(L);
  const char *name = luaL_optstring(L, 1, NULL);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  lml_job *job = lml_job_spawn(L, S, lua_gettop(L) - 3);
  lml_info *info = lml_job_info(job);
  if (!info) return luaL_error(L, "not enough memory");
  if (name) info->name = strdup(name);
  info->timeout = lml_option_span(L, 2);
  return 1;
}

/* ml.current_job(): the future of the running job; nil outside of jobs. */
static int l_current_job(lua_State *L) {
  lml_state *S = lml_upstate(L);
  mli_task *task = S->current ? S->current->task : S->task;
  if (task)
    lml_handle_push(L, &task->future.object);
  else if (S->current)
    lml_job_push_future(L, S->current);
  else
    lua_pushnil(L);
  return 1;
}

void lml_job_open(lua_State *L) {
  static const luaL_Reg functions[] = {
    { "spawn", l_spawn },
    { "spawn_other", l_spawn_other },
    { "coroutine_function", l_coroutine_function },
    { "spawn_named", l_spawn_named },
    { "resolve", l_resolve },
    { "current_job", l_current_job },
    { "message_handler", lml_message_handler },
    { NULL, NULL },
  };
  lml_setfuncs(L, functions);
  lml_state *S = lml_state_of(L);
  S->yieldable[5] = base;
  S->yieldable[6] = task_base;
  lua_pushlightuserdata(L, S);
  lua_pushcclosure(L, base, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &base_key);
  lua_pushlightuserdata(L, S);
  lua_pushcclosure(L, task_base, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &task_base_key);
}
