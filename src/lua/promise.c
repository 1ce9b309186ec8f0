/*
** promise.c: futures that are settled by hand, from any state.
**
**   local p = ml.promise()
**   p.future                 -- to wait for, to hand on
**   p:set_result(...)        -- once; a second time raises
**   p:set_error(e)
**
** A promise that is dropped unsettled fails its future with code "abandoned".
*/
#include <stdlib.h>
#include <string.h>
#include "crossing.h"
#include "state.h"

typedef struct promise {
  mli_object object;
  mli_future *future; /* [I] holds a reference */
} promise;

static void promise_destroy(mli_object *object) {
  promise *p = mli_container(object, promise, object);
  if (!mli_future_settled(p->future)) {
    mli_future_observe(p->future); /* who waits sees it; for nobody it is no error */
    mli_future_fail(p->future, ML_ABANDONED);
  }
  mli_release(p->future);
  free(p);
}

static const mli_type promise_type = { "promise", promise_destroy, NULL };

static promise *check_promise(lua_State *L) {
  return mli_container(lml_handle_check(L, 1, &promise_type), promise, object);
}

static int l_promise(lua_State *L) {
  lml_handle *h = lml_handle_new(L, &promise_type);
  promise *p = malloc(sizeof *p);
  mli_future *f = mli_future_new();
  if (!p || !f) {
    free(p);
    if (f) mli_release(f);
    return luaL_error(L, "not enough memory");
  }
  mli_object_init(&p->object, &promise_type);
  p->future = f;
  h->object = &p->object;
  return 1;
}

static int settle(lua_State *L, mli_state state, int first, lml_cargo cargo) {
  promise *p = check_promise(L);
  mli_message *outcome = lml_encode(L, first, lua_gettop(L) - first + 1, cargo);
  if (!mli_future_settle(p->future, state, outcome, NULL))
    return luaL_error(L, "the promise is settled already (%s)",
                      mli_future_state(p->future) == MLI_STOPPED ? "it was cancelled"
                                                                 : "once is all");
  return 0;
}

static int p_set_result(lua_State *L) { return settle(L, MLI_FINISHED, 2, LML_RESULTS); }

static int p_set_error(lua_State *L) {
  lua_settop(L, 2);
  if (lua_isnil(L, 2)) {
    lml_error_push(L, "nil_error", "set_error(nil) was called");
    lua_replace(L, 2);
  }
  return settle(L, MLI_FAILED, 2, LML_ERROR_VALUE);
}

static int p_index(lua_State *L) {
  promise *p = check_promise(L);
  const char *key = luaL_checkstring(L, 2);
  if (strcmp(key, "future") == 0) {
    lml_handle_push(L, &p->future->object);
    return 1;
  }
  lua_pushvalue(L, 2);
  lua_rawget(L, lua_upvalueindex(2));
  return 1;
}

static int p_tostring(lua_State *L) {
  promise *p = check_promise(L);
  lua_pushfstring(L, "promise: %p (%s)", (void *)p,
                  mli_future_settled(p->future) ? "settled" : "pending");
  return 1;
}

void lml_promise_open(lua_State *L) {
  static const luaL_Reg functions[] = { { "promise", l_promise }, { NULL, NULL } };
  static const luaL_Reg methods[] = { { "set_result", p_set_result },
                                      { "set_error", p_set_error },
                                      { NULL, NULL } };
  static const luaL_Reg metamethods[] = { { "__gc", lml_handle_gc },
                                          { "__eq", lml_handle_eq },
                                          { "__tostring", p_tostring },
                                          { NULL, NULL } };
  lml_setfuncs(L, functions);
  lua_newtable(L);
  lua_pushliteral(L, "promise");
  lua_setfield(L, -2, "__name");
  lml_setfuncs(L, metamethods);
  lua_pushlightuserdata(L, lml_state_of(L));
  lua_newtable(L);
  lml_setfuncs(L, methods);
  lua_pushcclosure(L, p_index, 2);
  lua_setfield(L, -2, "__index");
  lml_handle_declare(L, &promise_type);
  lua_pop(L, 1);
}
