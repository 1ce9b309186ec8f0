/*
** await.c: waiting without colours. In a job a wait yields; on any other thread
** it blocks; where neither can be, it raises and names what is in the way.
*/
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "core/observe.h"
#include "core/system.h"
#include "state.h"

#define SIGNAL_SLICE (100 * MLI_MILLISECOND)

/* ---- where a wait cannot be ---- */

/* Pushes "table.sort" for the function on top of the stack, which it pops. */
static void push_function_name(lua_State *L, const lua_Debug *ar) {
  int function = lua_gettop(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  for (lua_pushnil(L); lua_next(L, function + 1); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING || !lua_istable(L, -1)) continue;
    for (lua_pushnil(L); lua_next(L, function + 3); lua_pop(L, 1)) {
      if (lua_type(L, -2) != LUA_TSTRING || !lua_rawequal(L, -1, function)) continue;
      const char *module = lua_tostring(L, function + 2), *name = lua_tostring(L, function + 4);
      if (strcmp(module, LUA_GNAME) == 0)
        lua_pushstring(L, name);
      else
        lua_pushfstring(L, "%s.%s", module, name);
      lua_replace(L, function);
      lua_settop(L, function);
      return;
    }
  }
  lua_settop(L, function);
  lua_pushstring(L, ar->name ? ar->name : "a C function");
  lua_replace(L, function);
}

/* Whether it is called as that metamethod: "gc", or "__gc" for some releases of Lua. */
static bool is_metamethod(const lua_Debug *ar, const char *name) {
  if (!ar->name || strcmp(ar->namewhat, "metamethod") != 0) return false;
  return strcmp(ar->name, name) == 0 ||
         (strncmp(ar->name, "__", 2) == 0 && strcmp(ar->name + 2, name) == 0);
}

/* Pushes the name of the function in L1's stack that a yield cannot pass. */
static void push_culprit(lua_State *L, lml_state *S, lua_State *L1, int level) {
  lua_Debug ar;
  for (; lua_getstack(L1, level, &ar); level++) {
    lua_getinfo(L1, "Sn", &ar);
    if (is_metamethod(&ar, "gc")) {
      lua_pushliteral(L, "__gc");
      return;
    }
    if (LUA_VERSION_RELEASE_NUM < 50403 && is_metamethod(&ar, "close")) {
      lua_pushliteral(L, "__close, before Lua 5.4.3");
      return;
    }
    if (*ar.what != 'C') continue;
    luaL_checkstack(L1, 2, NULL);
    lua_getinfo(L1, "f", &ar);
    lua_CFunction f = lua_tocfunction(L1, -1);
    bool yieldable = false;
    for (size_t i = 0; i < sizeof S->yieldable / sizeof *S->yieldable; i++)
      if (f == S->yieldable[i]) yieldable = true;
    if (yieldable) {
      lua_pop(L1, 1);
      continue;
    }
    lua_xmove(L1, L, 1);
    push_function_name(L, &ar);
    return;
  }
  lua_pushliteral(L, "the message handler of xpcall"); /* no C function: Lua itself is in the way */
}

static int refuse(lua_State *L, lml_state *S, const char *what, lua_State *at, int level) {
  luaL_checkstack(L, 8, NULL);
  push_culprit(L, S, at, level);
  return lml_misuse(
    L, "cannot wait (%s) inside %s: Lua cannot suspend this function; wait before calling it", what,
    lua_tostring(L, -1));
}

static void check_can_yield(lua_State *L, lml_state *S, const char *what) {
  if (S->closing)
    lml_misuse(
      L, "cannot wait (%s) while a coroutine is being closed: its __close cannot be suspended",
      what);
  if (L != S->running) {
    if (!lua_isyieldable(L)) refuse(L, S, what, L, 1);
    lml_misuse(L,
               "cannot wait (%s) in a coroutine that was resumed by a copy of coroutine.resume or "
               "coroutine.wrap from before require \"moonloop\"",
               what);
  }
  if (!lua_isyieldable(L)) refuse(L, S, what, L, 1);
  for (lml_resume *r = S->frames; r; r = r->outer)
    if (!lua_isyieldable(r->from)) refuse(L, S, what, r->from, 1);
}

/* ---- cancelling at the wait ---- */

static int raise_cancelled_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  lml_state *S = lml_state_of(L);
  lml_scope *scope = lml_job_cancelled(S->current);
  (void)ctx;
  return scope ? lml_raise_cancelled(L, S, scope) : luaL_error(L, "cancelled");
}

/* Raises the cancel of `scope`: at once the first time; then through the ready
** queue, so that a job that swallows it cannot hold the loop; and in the end
** never: the job is stopped for good. */
static void deliver(lua_State *L, lml_state *S, lml_scope *scope) {
  lml_job *job = S->current;
  if (scope->deliveries == 0) lml_raise_cancelled(L, S, scope);
  job->kill = lml_scope_is_swallowed(scope);
  job->await.woken = true;
  lml_job_ready(job);
  S->in_wait = true;
  lua_yieldk(L, 0, 0, raise_cancelled_k);
}

int lml_raise_task_cancelled(lua_State *L, lml_state *S) {
  if (S->task_error == LUA_NOREF) {
    lml_push_cancel_error(L, &S->task->future, "cancelled", S->task->name);
    S->task_error = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->task_error);
  return lua_error(L);
}

static bool shielded(const lml_state *S) {
  for (lml_scope *s = S->scope; s; s = s->parent)
    if (s->shielded) return true;
  return false;
}

bool lml_task_cancelled(const lml_state *S) {
  return S->task && atomic_load(&S->task_cancelled) && !shielded(S);
}

/* ---- begin, park, end ---- */

static lml_await *begin(lml_await *a, lml_job *job, const char *what) {
  memset(a, 0, sizeof *a);
  a->in_job = job != NULL;
  a->what = what;
  return a;
}

void lml_check_wait(lua_State *L, lml_state *S, const char *what) {
  lml_job *job = S->current;
  if (job) {
    check_can_yield(L, S, what);
    lml_scope *scope = lml_job_cancelled(job);
    if (mli_unlikely(scope != NULL)) deliver(L, S, scope);
    return;
  }
  if (S->closed) lml_misuse(L, "cannot wait (%s): this Lua state is closing", what);
  if (mli_loop_self())
    lml_misuse(L, "cannot wait (%s) on a loop's thread outside a job: it would block the loop",
               what);
  if (mli_loop_is_driven_here())
    lml_misuse(L,
               "cannot wait (%s) on a thread that drives a loop outside a job: submit a job that "
               "waits",
               what);
  if (S->scope && lml_scope_expire(S->scope))
    lml_raise_cancelled(L, S, lml_scope_cancelled(S->scope));
  if (lml_task_cancelled(S)) lml_raise_task_cancelled(L, S);
}

lml_await *lml_await_begin(lua_State *L, lml_state *S, const char *what) {
  lml_check_wait(L, S, what);
  if (S->current) return begin(&S->current->await, S->current, what);
  lml_sync_wait *w = &S->sync_first;
  if (S->sync && !(w = malloc(sizeof *w))) luaL_error(L, "not enough memory");
  w->outer = S->sync;
  w->parker = lml_inbox_parker(S->inbox);
  S->sync = w;
  return begin(&w->await, NULL, what);
}

static void sync_pop(lml_state *S) {
  lml_sync_wait *w = S->sync;
  S->sync = w->outer;
  if (w != &S->sync_first) free(w);
}

/* On the job's loop. */
static void woken_here(lml_await *a) {
  lml_job *job = mli_container(a, lml_job, await);
  atomic_store_explicit(&a->woken, true, memory_order_relaxed);
  if (!a->parked) return;
  if (mli_tracing()) lml_observe_woken(job);
  a->parked = false;
  mli_loop_timer_stop(job->S->loop, &a->timer);
  mli_count(&job->S->count->parked, -1);
  mli_count(&job->S->count->running, 1);
  lml_job_ready(job);
}

static void on_wake_node(mli_node *node, mli_loop *loop) {
  (void)loop;
  woken_here(mli_container(node, lml_await, node));
}

void lml_await_wake(lml_await *a, bool aborted) {
  a->aborted = aborted;
  if (a->in_job) {
    mli_loop *loop = mli_container(a, lml_job, await)->S->loop;
    if (mli_loop_self() == loop) {
      woken_here(a);
    } else {
      a->node.run = on_wake_node;
      mli_loop_post(loop, &a->node); /* its loop does not end before the job */
    }
    return;
  }
  mli_parker *parker = mli_container(a, lml_sync_wait, await)->parker;
  atomic_store_explicit(&a->woken, true, memory_order_release);
  mli_unpark(parker);
}

void lml_await_woken(mli_waker *waker) {
  lml_await_wake(mli_container(waker, lml_await, waker), false);
}

static void on_deadline(mli_timer *timer) {
  lml_await *a = mli_container(timer, lml_await, timer);
  if (a->why) return;
  a->why = LML_DEADLINE;
  a->abort(a);
}

/* A signal's handler may have left a hook to be run, as lua.c's does on Ctrl-C. A wait in
** a callback leaves it for the wait around it. */
static bool interrupted(lua_State *L, lml_state *S, const lua_Hook before[2]) {
  lua_State *states[2] = { L, S->L };
  for (int i = 0; i < 2; i++) {
    lua_Hook hook = lua_gethook(states[i]);
    if (!hook || hook == before[i] || lml_poke_is_hook(hook)) continue;
    if (!S->delivering) {
      lua_sethook(L, NULL, 0, 0);
      lua_sethook(S->L, NULL, 0, 0);
    }
    return true;
  }
  return false;
}

/* The thread sleeps; others see for what. */
static ml_status sleep_until(lml_state *S, mli_parker *parker, const char *what, uint64_t until,
                             uint64_t real) {
  S->waits_for = what;
  ml_status status = mli_clock_park(parker, until, real);
  S->waits_for = NULL;
  return status;
}

static void block(lua_State *L, lml_state *S, lml_await *a, uint64_t deadline) {
  lml_sync_wait *w = mli_container(a, lml_sync_wait, await);
  const lua_Hook before[2] = { lua_gethook(L), lua_gethook(S->L) };
  static _Thread_local int on_main = -1;
  if (on_main < 0) on_main = mli_thread_is_main();
  while (!atomic_load_explicit(&a->woken, memory_order_acquire)) {
    if (a->why == 0 && lml_inbox_deliver(L, S)) continue;
    uint64_t until = a->why ? MLI_FOREVER : deadline, real = MLI_FOREVER;
    if (a->why == 0 && S->scope) {
      uint64_t bound = lml_scope_deadline(S->scope, &real);
      if (bound < until) until = bound;
      if (lml_scope_expire(S->scope)) { /* its time has come, or a callback cancelled it */
        a->why = LML_CANCEL;
        a->abort(a);
        continue;
      }
    }
    /* A signal that comes just before the thread sleeps is noticed a slice later. */
    if (on_main) {
      uint64_t slice = mli_now() + SIGNAL_SLICE;
      if (slice < real) real = slice;
    }
    ml_status status = sleep_until(S, w->parker, a->what, until, real);
    if (status == ML_OK && !lml_task_cancelled(S)) continue;
    if (a->why || atomic_load_explicit(&a->woken, memory_order_acquire)) continue;
    if (lml_task_cancelled(S))
      a->why = LML_CANCEL;
    else if (interrupted(L, S, before))
      a->why = LML_INTERRUPT;
    else if (deadline != MLI_FOREVER && mli_time() >= deadline)
      a->why = LML_DEADLINE;
    if (a->why) a->abort(a);
  }
}

int lml_await_park(lua_State *L, lml_state *S, lml_await *a, uint64_t deadline, lua_KFunction k,
                   lua_KContext ctx) {
  if (!atomic_load_explicit(&a->woken, memory_order_acquire)) {
    if (!a->in_job) {
      uint64_t since = mli_tracing() ? mli_now() : 0;
      block(L, S, a, deadline);
      if (mli_unlikely(since != 0)) mli_observe_wait(a->what, since);
      return k(L, LUA_YIELD, ctx);
    }
    if (deadline == 0) {
      a->why = LML_DEADLINE;
      a->abort(a);
    }
    if (!atomic_load_explicit(&a->woken, memory_order_relaxed)) {
      a->since = mli_tracing() ? mli_now() : mli_now_about();
      if (deadline != MLI_FOREVER && !a->why) {
        a->timer.fire = on_deadline;
        mli_loop_deadline_start(S->loop, &a->timer, deadline);
      }
      a->parked = true;
      mli_count(&S->count->parked, 1);
      mli_count(&S->count->running, -1);
      S->in_wait = true;
      return lua_yieldk(L, 0, ctx, k);
    }
  }
  return k(L, LUA_YIELD, ctx);
}

ml_status lml_await_end(lua_State *L, lml_state *S) {
  lml_job *job = S->current;
  lml_await *a = job ? &job->await : &S->sync->await;
  uint8_t why = a->aborted ? a->why : 0;
  if (!job) sync_pop(S);
  if (mli_likely(why == 0)) return ML_OK;
  if (why == LML_DEADLINE) return ML_TIMEOUT;
  if (why == LML_INTERRUPT) lml_misuse(L, "interrupted!");
  lml_scope *scope = lml_scope_cancelled(job ? job->scope : S->scope);
  if (!job && !scope) lml_raise_task_cancelled(L, S);
  if (scope) lml_raise_cancelled(L, S, scope);
  return ML_TIMEOUT;
}

int lml_yield_turn(lua_State *L, lml_state *S, lua_KFunction k, lua_KContext ctx) {
  lml_job *job = S->current;
  job->await.woken = true;
  lml_job_ready(job);
  S->in_wait = true;
  return lua_yieldk(L, 0, ctx, k);
}

/* ---- waiting for a future ---- */

static void future_fired(mli_watcher *watcher) {
  lml_await_wake(mli_container(watcher, lml_await, watcher), false);
}

static void future_abort(lml_await *a) {
  lml_future *u = a->source;
  /* Not hung any more: it is settling right now, and will wake us. */
  if (mli_future_unwatch(lml_future_core(u), &a->watcher)) lml_await_wake(a, true);
}

const lml_future *lml_awaited_future(const lml_await *a) {
  bool for_ever = a->parked && !a->why && !mli_timer_active(&a->timer);
  return for_ever && a->abort == future_abort ? a->source : NULL;
}

int lml_await_future(lua_State *L, lml_state *S, int index, uint64_t deadline, lua_KFunction k,
                     lua_KContext ctx) {
  lml_future *u = lua_touserdata(L, index);
  if (mli_unlikely(S->task != NULL)) lml_pool_serve(L, S, lml_future_core(u));
  lml_await *a = lml_await_begin(L, S, "future");
  a->source = u;
  a->abort = future_abort;
  a->watcher.fired = future_fired;
  if (!mli_future_watch(lml_future_core(u), &a->watcher)) atomic_store(&a->woken, true);
  return lml_await_park(L, S, a, deadline, k, ctx);
}

/* ---- waiting for an operation ---- */

static void op_woken(mli_waker *waker) {
  lml_await *a = mli_container(waker, lml_await, waker);
  mli_op *op = a->source;
  lml_await_wake(a, op->status == ML_CANCELLED);
}

static void op_abort(lml_await *a) { mli_op_cancel(a->source); }

/* One that goes on belongs to a job that lua_close cut off: os.exit was called. */
static int op_box_gc(lua_State *L) {
  mli_op **box = lua_touserdata(L, 1);
  if (*box && (*box)->begun && !(*box)->ended) mli_op_cancel(*box);
  lml_op_drop(box);
  return 0;
}

mli_op **lml_op_box(lua_State *L) {
  mli_op **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  if (luaL_newmetatable(L, "moonloop.op")) {
    lua_pushcfunction(L, op_box_gc);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  return box;
}

void lml_op_drop(mli_op **box) {
  mli_op *op = *box;
  *box = NULL;
  if (op) mli_release(op);
}

static int op_done(lua_State *L, int status, lua_KContext ctx) {
  lml_state *S = lml_state_of(L);
  mli_op *op = (mli_op *)ctx;
  (void)status;
  lml_job *job = S->current;
  lml_await *a = job ? &job->await : &S->sync->await;
  lua_KFunction done = a->done;
  if (lml_await_end(L, S) == ML_TIMEOUT) {
    op->status = ML_TIMEOUT;
    op->code = "timeout";
  }
  return done(L, LUA_YIELD, ctx);
}

int lml_await_op(lua_State *L, mli_op *op, uint64_t deadline, lua_KFunction done) {
  lml_state *S = lml_state_of(L);
  lml_await *a = lml_await_begin(L, S, op->class->name);
  a->source = op;
  a->abort = op_abort;
  a->waker.wake = op_woken;
  a->done = done;
  mli_op_begin(op, &a->waker);
  return lml_await_park(L, S, a, deadline, op_done, (lua_KContext)op);
}

mli_loop *lml_io_loop(lua_State *L) {
  lml_state *S = lml_state_of(L);
  if (S->loop) return S->loop;
  return mli_executor_place(lml_default_executor(L))->loop;
}

/* ---- Lua: sleep, checkpoint, now, poll, in_job ---- */

static void sleep_abort(lml_await *a) { lml_await_wake(a, true); }

static int sleep_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_await_end(L, lml_upstate(L));
  return 0;
}

/* ml.sleep(s): waits for s seconds; 0 lets others run. */
static int l_sleep(lua_State *L) {
  lml_state *S = lml_upstate(L);
  luaL_checkany(L, 1);
  uint64_t deadline = lml_check_deadline(L, 1);
  if (deadline == MLI_FOREVER && lua_isnil(L, 1))
    return luaL_argerror(L, 1, "number expected, got nil");
  lml_await *a = lml_await_begin(L, S, "sleep");
  a->abort = sleep_abort;
  if (deadline == 0 && S->current) return lml_yield_turn(L, S, sleep_k, 0);
  return lml_await_park(L, S, a, deadline, sleep_k, 0);
}

/* ml.checkpoint(): lets other jobs run, and raises if this one was cancelled. */
static int l_checkpoint(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lml_await *a = lml_await_begin(L, S, "checkpoint");
  a->abort = sleep_abort;
  if (S->current) return lml_yield_turn(L, S, sleep_k, 0);
  atomic_store(&a->woken, true);
  lml_inbox_deliver(L, S);
  return sleep_k(L, LUA_OK, 0);
}

/* ml.now(): monotonic seconds. */
static int l_now(lua_State *L) {
  lua_pushnumber(L, (lua_Number)mli_clock_shown(mli_time()) / 1e9);
  return 1;
}

/* real_now(): the same, whatever a test's clock does. */
static int l_real_now(lua_State *L) {
  lua_pushnumber(L, (lua_Number)mli_now() / 1e9);
  return 1;
}

static int poll_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_state *S = lml_upstate(L);
  lml_await_end(L, S);
  lua_pushboolean(L, lml_inbox_deliver(L, S));
  return 1;
}

static void poll_abort(lml_await *a) { lml_await_wake(a, true); }

/* ml.poll([timeout]): runs the callbacks that came for this state; waits up to
** the timeout for the first. Returns whether there was one. */
static int l_poll(lua_State *L) {
  lml_state *S = lml_upstate(L);
  uint64_t deadline = lua_isnoneornil(L, 1) ? 0 : lml_check_deadline(L, 1);
  if (S->loop) { /* a loop runs them at once */
    if (S->current && deadline != 0) {
      lml_await *a = lml_await_begin(L, S, "poll");
      a->abort = poll_abort;
      return lml_await_park(L, S, a, deadline, poll_k, 0);
    }
    lua_pushboolean(L, lml_inbox_deliver(L, S));
    return 1;
  }
  const lua_Hook before[2] = { lua_gethook(L), lua_gethook(S->L) };
  bool some = lml_inbox_deliver(L, S);
  while (!some && deadline != 0) {
    lml_await *a = lml_await_begin(L, S, "poll"); /* raises when a scope has ended */
    uint64_t real, bound = lml_scope_deadline(S->scope, &real);
    uint64_t until = bound < deadline ? bound : deadline;
    mli_parker *parker = mli_container(a, lml_sync_wait, await)->parker;
    ml_status status = sleep_until(S, parker, a->what, until, real);
    sync_pop(S);
    some = lml_inbox_deliver(L, S);
    if (status != ML_OK && interrupted(L, S, before)) lml_misuse(L, "interrupted!");
    if (status == ML_TIMEOUT && mli_time() >= deadline) break;
  }
  lua_pushboolean(L, some);
  return 1;
}

/* check_wait(what): raises where a wait cannot be, before anything is begun for it. */
static int l_check_wait(lua_State *L) {
  lml_check_wait(L, lml_upstate(L), luaL_checkstring(L, 1));
  return 0;
}

/* cancelled(): whether a wait would raise a cancel here. */
static int l_cancelled(lua_State *L) {
  lml_state *S = lml_upstate(L);
  if (S->current)
    lua_pushboolean(L, lml_job_cancelled(S->current) != NULL);
  else
    lua_pushboolean(L, lml_task_cancelled(S) || (S->scope && lml_scope_expire(S->scope)));
  return 1;
}

/* ml.in_job(): whether the caller runs in a job. */
static int l_in_job(lua_State *L) {
  lua_pushboolean(L, lml_upstate(L)->current != NULL);
  return 1;
}

void lml_await_open(lua_State *L) {
  static const luaL_Reg functions[] = {
    { "sleep", l_sleep },
    { "checkpoint", l_checkpoint },
    { "now", l_now },
    { "real_now", l_real_now },
    { "poll", l_poll },
    { "in_job", l_in_job },
    { "check_wait", l_check_wait },
    { "cancelled", l_cancelled },
    { NULL, NULL },
  };
  lml_setfuncs(L, functions);
}
