/*
** future.c: the Lua face of futures.
**
**   local f = ml.spawn(fetch, url)       -- or executor:submit, promise().future
**   f:result([timeout])                  -- the values, or raises the error
**   f:wait([timeout])                    -- true, values... or nil, err
**   f:exception([timeout])               -- the error, or nil
**   f:traceback()                        -- of a failure
**   f:cancel([reason]) f:cancel_and_wait([timeout])
**   f:done() f:running() f:cancelled()
**   f:add_done_callback(g)
**   f.name
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "crossing.h"
#include "state.h"

static void timeout_error(lua_State *L, lml_future *u) {
  char name[64];
  const char *who = lml_future_name(u, name, sizeof name);
  lml_error_push(L, "timeout", "timeout waiting for %s", who ? who : "the job");
}

static bool waits_for_itself(lml_state *S, lml_future *u) {
  if (S->current)
    return S->current->task ? lml_future_core(u) == &S->current->task->future
                            : S->current->fut == u;
  return S->task && lml_future_core(u) == &S->task->future;
}

/* Checks self, and the timeout that may be a number or { timeout=, cancel= }. */
static lml_future *check_wait(lua_State *L, lml_state *S, uint64_t *deadline, bool *cancel) {
  lml_future *u = lml_future_check(L, S, 1);
  *cancel = false;
  if (lua_istable(L, 2)) {
    for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
      const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
      if (strcmp(key, "timeout") != 0 && strcmp(key, "cancel") != 0)
        lml_misuse(L, "unknown option '%s': timeout or cancel expected", key);
    }
    lua_getfield(L, 2, "cancel");
    *cancel = lua_toboolean(L, -1);
    lua_getfield(L, 2, "timeout");
    *deadline = lml_option_deadline(L, -1, "timeout");
    lua_pop(L, 2);
  } else {
    *deadline = lml_check_deadline(L, 2);
  }
  if (waits_for_itself(S, u) && !mli_future_settled(lml_future_core(u)))
    lml_misuse(L, "a job cannot wait for itself");
  if (*deadline == MLI_FOREVER && S->current && !mli_future_settled(lml_future_core(u)))
    lml_check_cycle(L, S, u);
  return u;
}

/* ---- methods ---- */

static int cancel_then_raise_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_state *S = lml_upstate(L);
  lml_await_end(L, S);
  lml_future *u = lua_touserdata(L, 1);
  mli_future *f = lml_future_core(u);
  if (mli_future_state(f) == MLI_FINISHED) return lml_future_push(L, S, 1);
  mli_future_observe(f);
  if (mli_future_state(f) == MLI_FAILED) return lml_future_push(L, S, 1);
  timeout_error(L, u);
  return lua_error(L);
}

static int result_k(lua_State *L, int status, lua_KContext cancel) {
  (void)status;
  lml_state *S = lml_upstate(L);
  lml_future *u = lua_touserdata(L, 1);
  if (lml_await_end(L, S) == ML_OK) return lml_future_push(L, S, 1);
  if (cancel) {
    mli_future_cancel(lml_future_core(u), NULL);
    return lml_await_future(L, S, 1, MLI_FOREVER, cancel_then_raise_k, 0);
  }
  timeout_error(L, u);
  return lua_error(L);
}

static int f_result(lua_State *L) {
  lml_state *S = lml_upstate(L);
  uint64_t deadline;
  bool cancel;
  lml_future *u = check_wait(L, S, &deadline, &cancel);
  if (mli_future_settled(lml_future_core(u))) return lml_future_push(L, S, 1);
  return lml_await_future(L, S, 1, deadline, result_k, cancel);
}

static int push_wait(lua_State *L, lml_state *S, int index) {
  lml_future *u = lua_touserdata(L, index);
  mli_future *f = lml_future_core(u);
  mli_future_observe(f);
  if (mli_future_state(f) == MLI_FINISHED && lml_future_try_read(L, index, u)) {
    lua_pushboolean(L, 1);
    return 1 + lml_future_push_values(L, index, u->values);
  }
  if (mli_future_state(f) != MLI_FINISHED) lml_future_push_error(L, S, index);
  lua_pushnil(L);
  lua_insert(L, -2);
  return 2;
}

static int wait_k(lua_State *L, int status, lua_KContext cancel);

static int cancel_then_fail_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_state *S = lml_upstate(L);
  lml_await_end(L, S);
  mli_future *f = lml_future_core(lua_touserdata(L, 1));
  if (mli_future_state(f) != MLI_STOPPED) return push_wait(L, S, 1);
  lua_pushnil(L);
  timeout_error(L, lua_touserdata(L, 1));
  return 2;
}

static int wait_k(lua_State *L, int status, lua_KContext cancel) {
  (void)status;
  lml_state *S = lml_upstate(L);
  if (lml_await_end(L, S) == ML_OK) return push_wait(L, S, 1);
  if (cancel) {
    mli_future_cancel(lml_future_core(lua_touserdata(L, 1)), NULL);
    return lml_await_future(L, S, 1, MLI_FOREVER, cancel_then_fail_k, 0);
  }
  lua_pushnil(L);
  timeout_error(L, lua_touserdata(L, 1));
  return 2;
}

static int f_wait(lua_State *L) {
  lml_state *S = lml_upstate(L);
  uint64_t deadline;
  bool cancel;
  lml_future *u = check_wait(L, S, &deadline, &cancel);
  if (mli_future_settled(lml_future_core(u))) return push_wait(L, S, 1);
  return lml_await_future(L, S, 1, deadline, wait_k, cancel);
}

static int push_exception(lua_State *L, lml_state *S) {
  lml_future *u = lua_touserdata(L, 1);
  mli_future *f = lml_future_core(u);
  mli_future_observe(f);
  if (mli_future_state(f) == MLI_FINISHED) {
    if (lml_future_try_read(L, 1, u)) lua_pushnil(L);
  } else {
    lml_future_push_error(L, S, 1);
  }
  return 1;
}

static int exception_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_state *S = lml_upstate(L);
  if (lml_await_end(L, S) == ML_OK) return push_exception(L, S);
  timeout_error(L, lua_touserdata(L, 1));
  return lua_error(L);
}

static int f_exception(lua_State *L) {
  lml_state *S = lml_upstate(L);
  uint64_t deadline;
  bool cancel;
  lml_future *u = check_wait(L, S, &deadline, &cancel);
  if (mli_future_settled(lml_future_core(u))) return push_exception(L, S);
  return lml_await_future(L, S, 1, deadline, exception_k, 0);
}

static int f_traceback(lua_State *L) {
  mli_future *f = lml_future_core(lml_future_check(L, lml_upstate(L), 1));
  if (mli_future_state(f) == MLI_FAILED && f->traceback)
    lua_pushstring(L, f->traceback);
  else
    lua_pushnil(L);
  return 1;
}

/* The reason at `arg`, encoded; NULL for nil. Raises if it cannot cross. */
static mli_message *check_reason(lua_State *L, int arg) {
  return lua_isnoneornil(L, arg) ? NULL : lml_encode(L, arg, 1, LML_ARGUMENTS);
}

/* Cancels the future at index 1; with `hard` what runs in a pool is broken off. */
static bool cancel(lua_State *L, lml_state *S, mli_message *reason, bool hard) {
  lml_future *u = lua_touserdata(L, 1);
  mli_future *f = lml_future_core(u);
  if (reason && lml_future_is_local(u)) { /* its handle owns memory from here on */
    lua_rawgeti(L, LUA_REGISTRYINDEX, S->types[0].ref);
    lua_setmetatable(L, 1);
  }
  bool took = mli_future_cancel(f, reason);
  if (took && hard && f->object.type == &mli_task_type)
    mli_task_force(mli_container(f, mli_task, future));
  return took;
}

/* Options at `arg`: a table with a boolean `hard`. Then its reason takes its place, and with
** `timeout` the timeout is pushed. */
static bool check_hard(lua_State *L, int arg, bool timeout) {
  if (!lua_istable(L, arg)) return false;
  lua_pushliteral(L, "hard");
  bool is = lua_rawget(L, arg) == LUA_TBOOLEAN, hard = lua_toboolean(L, -1);
  lua_pop(L, 1);
  if (!is && !timeout) return false; /* a reason */
  for (lua_pushnil(L); lua_next(L, arg); lua_pop(L, 1)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    if (strcmp(key, "hard") != 0 && strcmp(key, "reason") != 0 &&
        (!timeout || strcmp(key, "timeout") != 0))
      lml_misuse(L, "cancel: unknown option '%s'", key);
  }
  if (timeout) lua_getfield(L, arg, "timeout");
  lua_getfield(L, arg, "reason");
  lua_replace(L, arg);
  return hard;
}

static int f_cancel(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lml_future_check(L, S, 1);
  bool hard = check_hard(L, 2, false);
  mli_message *reason = check_reason(L, 2);
  lua_pushboolean(L, cancel(L, S, reason, hard));
  return 1;
}

static int cancel_and_wait_k(lua_State *L, int status, lua_KContext took) {
  (void)status;
  lml_state *S = lml_upstate(L);
  if (lml_await_end(L, S) != ML_OK) {
    lua_pushnil(L);
    timeout_error(L, lua_touserdata(L, 1));
    return 2;
  }
  lua_pushboolean(L, (int)took);
  return 1;
}

static int f_cancel_and_wait(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lml_future *u = lml_future_check(L, S, 1);
  bool hard = false;
  uint64_t deadline;
  mli_message *reason = NULL;
  if (waits_for_itself(S, u)) lml_misuse(L, "a job cannot wait for itself");
  if (lua_istable(L, 2)) {
    hard = check_hard(L, 2, true);
    deadline = lml_option_deadline(L, -1, "timeout");
    lua_pop(L, 1);
    reason = check_reason(L, 2);
  } else {
    deadline = lml_check_deadline(L, 2);
  }
  lua_settop(L, 1);
  bool took = cancel(L, S, reason, hard);
  if (mli_future_settled(lml_future_core(u))) {
    lua_pushboolean(L, took);
    return 1;
  }
  return lml_await_future(L, S, 1, deadline, cancel_and_wait_k, took);
}

static int f_done(lua_State *L) {
  lua_pushboolean(L, mli_future_settled(lml_future_core(lml_future_check(L, lml_upstate(L), 1))));
  return 1;
}

static int f_running(lua_State *L) {
  mli_future *f = lml_future_core(lml_future_check(L, lml_upstate(L), 1));
  lua_pushboolean(L, mli_future_state(f) == MLI_RUNNING);
  return 1;
}

static int f_cancelled(lua_State *L) {
  mli_future *f = lml_future_core(lml_future_check(L, lml_upstate(L), 1));
  lua_pushboolean(L, mli_future_state(f) == MLI_STOPPED);
  return 1;
}

/* ---- callbacks ---- */

typedef struct callback {
  lml_letter letter;
  mli_watcher watcher;
  lml_inbox *inbox;     /* of the state that added it; holds a reference */
  int function, future; /* registry references there */
} callback;

static void callback_fired(mli_watcher *watcher) {
  callback *c = mli_container(watcher, callback, watcher);
  lml_inbox_post(c->inbox, &c->letter);
}

static void callback_deliver(lua_State *L, lml_state *S, lml_letter *letter) {
  callback *c = mli_container(letter, callback, letter);
  (void)S;
  lua_rawgeti(L, LUA_REGISTRYINDEX, c->function);
  lua_rawgeti(L, LUA_REGISTRYINDEX, c->future);
  luaL_unref(L, LUA_REGISTRYINDEX, c->function);
  luaL_unref(L, LUA_REGISTRYINDEX, c->future);
  lua_call(L, 1, 0);
}

static void callback_drop(lml_letter *letter) {
  callback *c = mli_container(letter, callback, letter);
  lml_inbox_release(c->inbox);
  free(c);
}

static int f_add_done_callback(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lml_future *u = lml_future_check(L, S, 1);
  lml_check_callable(L, 2);
  lua_pushvalue(L, 2);
  int function = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushvalue(L, 1);
  int future = luaL_ref(L, LUA_REGISTRYINDEX);
  callback *c = malloc(sizeof *c);
  if (!c) return luaL_error(L, "not enough memory");
  c->letter.deliver = callback_deliver;
  c->letter.drop = callback_drop;
  c->letter.tidying = false;
  c->watcher.fired = callback_fired;
  c->inbox = lml_inbox_retain(S->inbox);
  c->function = function;
  c->future = future;
  if (!mli_future_watch(lml_future_core(u), &c->watcher)) lml_inbox_post(c->inbox, &c->letter);
  return 0;
}

/* ---- metamethods ---- */

static int f_index(lua_State *L) {
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(2)) != LUA_TNIL) return 1;
  lml_state *S = lml_upstate(L);
  lml_future *u = lml_future_check(L, S, 1);
  const char *key = luaL_checkstring(L, 2);
  if (strcmp(key, "name") == 0) {
    char name[64];
    lua_pushstring(L, lml_future_name(u, name, sizeof name));
    return 1;
  }
  lua_pushnil(L);
  return 1;
}

static int f_tostring(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lml_future *u = lml_future_check(L, S, 1);
  mli_future *f = lml_future_core(u);
  static const char *const names[] = { "pending", "running", "finished", "failed", "cancelled" };
  char name[64];
  const char *who = lml_future_name(u, name, sizeof name);
  mli_state state = mli_future_state(f);
  const char *text = names[state];
  if (state == MLI_FAILED) {
    lml_future_push_error(L, S, 1);
    const char *error = luaL_tolstring(L, -1, NULL);
    text = lua_pushfstring(L, "failed: %s", error);
  }
  if (who)
    lua_pushfstring(L, "future: %p \"%s\" (%s)", (void *)f, who, text);
  else
    lua_pushfstring(L, "future: %p (%s)", (void *)f, text);
  return 1;
}

static int f_eq(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lml_future *a = lml_future_test(L, S, 1), *b = lml_future_test(L, S, 2);
  lua_pushboolean(L, a && b && a->handle.object == b->handle.object);
  return 1;
}

/* abandon(future, cancel): nobody will ask. Cancels its job, or only keeps it from
** starting. */
static int l_abandon(lua_State *L) {
  mli_future *f = lml_future_core(lml_future_check(L, lml_upstate(L), 1));
  mli_future_observe(f);
  if (lua_toboolean(L, 2))
    mli_future_cancel(f, NULL);
  else
    mli_future_drop(f);
  return 0;
}

/* is_future(v) */
static int l_is_future(lua_State *L) {
  lua_pushboolean(L, lml_future_test(L, lml_upstate(L), 1) != NULL);
  return 1;
}

void lml_future_open(lua_State *L) {
  static const luaL_Reg methods[] = {
    { "result", f_result },
    { "wait", f_wait },
    { "exception", f_exception },
    { "traceback", f_traceback },
    { "cancel", f_cancel },
    { "cancel_and_wait", f_cancel_and_wait },
    { "done", f_done },
    { "running", f_running },
    { "cancelled", f_cancelled },
    { "add_done_callback", f_add_done_callback },
    { NULL, NULL },
  };
  static const luaL_Reg metamethods[] = { { "__tostring", f_tostring },
                                          { "__eq", f_eq },
                                          { NULL, NULL } };
  static const luaL_Reg functions[] = { { "abandon", l_abandon },
                                        { "is_future", l_is_future },
                                        { NULL, NULL } };
  lml_state *S = lml_state_of(L);
  lml_setfuncs(L, functions);
  lua_newtable(L);
  lml_setfuncs(L, methods);
  for (int collected = 0; collected < 2; collected++) {
    lua_newtable(L);
    lua_pushliteral(L, "future");
    lua_setfield(L, -2, "__name");
    lml_setfuncs(L, metamethods);
    lua_pushlightuserdata(L, S);
    lua_pushvalue(L, -3);
    lua_pushcclosure(L, f_index, 2);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    if (collected) {
      lua_pushlightuserdata(L, S);
      lua_pushcclosure(L, lml_future_gc, 1);
      lua_setfield(L, -2, "__gc");
      lml_handle_declare(L, &mli_future_type);
    } else {
      S->local_future = lua_topointer(L, -1);
      lua_pushvalue(L, -1);
      S->local_future_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}
