/* state.c: a C program's own Lua states: opening moonloop, futures to and from them. */
#include <string.h>
#include "embed.h"

static const char fallback[] = "(an error that cannot be shown)";

/* ---- calls that may raise ---- */

ml_status mle_fail_lua(lua_State *L, ml_status status, const char *function) {
  const char *text = fallback;
  if (lua_type(L, -1) == LUA_TSTRING) {
    text = lua_tostring(L, -1);
  } else if (lua_istable(L, -1) && lua_checkstack(L, 1)) {
    lua_pushliteral(L, "message");
    lua_rawget(L, -2);
    if (lua_type(L, -1) == LUA_TSTRING) text = lua_tostring(L, -1);
    mle_fail(status, "%s: %s", function, text);
    lua_pop(L, 2);
    return status;
  }
  mle_fail(status, "%s: %s", function, text);
  lua_pop(L, 1);
  return status;
}

static int open_state(lua_State *L) {
  lml_state **out = lua_touserdata(L, 1);
  lml_open(L);
  lua_setfield(L, LUA_REGISTRYINDEX, "moonloop.opened");
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, "moonloop") == LUA_TNIL) {
    lua_getfield(L, LUA_REGISTRYINDEX, "moonloop.opened");
    lua_setfield(L, -3, "moonloop");
  }
  *out = lml_state_of(L);
  return 0;
}

/* Whether L belongs to an executor's thread, and not to this one. */
static bool is_elsewhere(const lml_state *S) {
  const mli_worker *w = S->worker;
  return w && w->user == S && w != mli_worker_self() && !mle_drives(w->executor);
}

ml_status mle_state(lua_State *L, lml_state **out) {
  static const char what[] = "moonloop cannot be opened in this Lua state";
  if (!lua_checkstack(L, 4)) return mle_fail(ML_MEMORY, "%s: out of memory", what);
  lua_pushcfunction(L, open_state);
  lua_pushlightuserdata(L, out);
  int failed = lua_pcall(L, 1, 0, 0);
  if (failed == LUA_OK && is_elsewhere(*out))
    return mle_fail(ML_MISUSE, "this Lua state belongs to a thread of executor '%s'",
                    (*out)->worker->executor->name);
  if (failed == LUA_OK) return ML_OK;
  return mle_fail_lua(L, failed == LUA_ERRMEM ? ML_MEMORY : ML_MISUSE, what);
}

/* ---- opening ---- */

ml_status ml_open(lua_State *L, ml_executor *ex) {
  if (!L) return mle_fail(ML_MISUSE, "ml_open: a Lua state expected, got NULL");
  if (ex && !mle_check(ex, MLE_EXECUTOR, "ml_open")) return ML_MISUSE;
  if (ex && !ex->core->loops)
    return mle_fail(ML_MISUSE, "ml_open: executor '%s' has no loops", ex->core->name);
  lml_state *S;
  ml_status status = mle_state(L, &S);
  if (status != ML_OK) return status;
  lml_bind(S, ex ? ex->core : NULL);
  lua_getfield(L, LUA_REGISTRYINDEX, "moonloop.opened");
  return ML_OK;
}

/* ---- futures ---- */

/* A value that is pushed by a protected call. */
typedef struct pushing {
  mli_future *core;
  bool crossing; /* it could not be rebuilt */
} pushing;

static int push_handle(lua_State *L) {
  pushing *p = lua_touserdata(L, 1);
  lml_handle_push(L, &p->core->object);
  return 1;
}

static int push_values(lua_State *L) {
  pushing *p = lua_touserdata(L, 1);
  lml_state *S = lml_state_of(L);
  lua_settop(L, 0);
  lml_handle_push(L, &p->core->object);
  if (mli_future_state(p->core) == MLI_FINISHED) {
    p->crossing = true; /* if it raises, then so */
    int n = lml_future_push(L, S, 1);
    p->crossing = false;
    return n;
  }
  mli_future_observe(p->core);
  lml_future_push_error(L, S, 1);
  return 1;
}

/* Calls one of them; what it returns or raises is pushed. */
static int push(lua_State *L, lua_CFunction function, pushing *p) {
  lua_pushcfunction(L, function);
  lua_pushlightuserdata(L, p);
  return lua_pcall(L, 1, LUA_MULTRET, 0);
}

ml_status ml_future_push(ml_future *f, lua_State *L, int *count) {
  if (!mle_check(f, MLE_FUTURE, "ml_future_push")) return ML_MISUSE;
  if (!L) return mle_fail(ML_MISUSE, "ml_future_push: a Lua state expected, got NULL");
  if (!mli_future_settled(f->core)) return ml_future_peek(f);
  lml_state *S;
  ml_status status = mle_state(L, &S);
  if (status != ML_OK) return status;
  int top = lua_gettop(L);
  pushing p = { .core = f->core };
  int failed = push(L, push_values, &p);
  if (count) *count = lua_gettop(L) - top;
  if (failed == LUA_OK) return ml_future_peek(f);
  return mle_fail(failed == LUA_ERRMEM ? ML_MEMORY : ML_CROSSING,
                  "ml_future_push: the values cannot be rebuilt in this state");
}

ml_status ml_future_push_handle(ml_future *f, lua_State *L) {
  if (!mle_check(f, MLE_FUTURE, "ml_future_push_handle")) return ML_MISUSE;
  if (!L) return mle_fail(ML_MISUSE, "ml_future_push_handle: a Lua state expected, got NULL");
  lml_state *S;
  ml_status status = mle_state(L, &S);
  if (status != ML_OK) return status;
  pushing p = { .core = f->core };
  if (push(L, push_handle, &p) == LUA_OK) return ML_OK;
  return mle_fail_lua(L, ML_MEMORY, "ml_future_push_handle");
}

/* Stack: a place for the result, a value. */
static int share(lua_State *L) {
  mli_future **out = lua_touserdata(L, 1);
  mli_object *object = lml_handle_export(L, 2);
  if (!object) return 0;
  if (object->type == &mli_future_type || object->type->as == &mli_future_type)
    *out = mli_container(object, mli_future, object);
  else
    mli_object_release(object);
  return 0;
}

ml_status ml_future_from(lua_State *L, int index, ml_future **out) {
  if (!L || !out) return mle_fail(ML_MISUSE, "ml_future_from: NULL");
  index = lua_absindex(L, index);
  lml_state *S;
  ml_status status = mle_state(L, &S);
  if (status != ML_OK) return status;
  mli_future *core = NULL;
  lua_pushcfunction(L, share);
  lua_pushlightuserdata(L, &core);
  lua_pushvalue(L, index);
  if (lua_pcall(L, 2, 0, 0) != LUA_OK) return mle_fail_lua(L, ML_MEMORY, "ml_future_from");
  if (!core)
    return mle_fail(ML_MISUSE, "ml_future_from: a future expected, got %s",
                    luaL_typename(L, index));
  bool is_task = core->object.type == &mli_task_type;
  ml_future *f = mle_future_wrap(core,
                                 is_task ? mli_container(core, mli_task, future)->executor : NULL);
  if (!f) return mle_fail(ML_MEMORY, "ml_future_from: out of memory");
  *out = f;
  return ML_OK;
}
