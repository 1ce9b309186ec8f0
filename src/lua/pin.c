/*
** pin.c: one of an executor's threads or processes, chosen and kept: what is
** submitted to it runs in the same Lua state.
**
**   local pin = pin(executor)         -- the one with the least to do
**   local pin = pin(executor, index)  -- of loops: that one
**   submit(pin, ...)                  -- as to the executor
**   pin_release(pin)                  -- the collector does it too
**   pin_executor(pin)                 -- and its index, from 1
*/
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "core/pool.h"
#include "processes.h"
#include "worker.h"

static void release(lml_pin *pin) {
  if (atomic_exchange(&pin->released, true)) return;
  if (pin->seat)
    mli_seat_leave(pin->seat);
  else if (!pin->executor->loops)
    mli_pool_unpin(pin->worker);
}

static void pin_destroy(mli_object *object) {
  lml_pin *pin = mli_container(object, lml_pin, object);
  release(pin);
  if (pin->seat) mli_object_release(mli_seat_object(pin->seat));
  mli_release(pin->executor);
  free(pin);
}

static const mli_type pin_type = { "worker", pin_destroy, NULL };

const lml_pin *lml_pin_test(lua_State *L, int index) {
  mli_object *object = lml_handle_test(L, index, &pin_type);
  return object ? mli_container(object, lml_pin, object) : NULL;
}

static lml_pin *check_pin(lua_State *L) {
  return mli_container(lml_handle_check(L, 1, &pin_type), lml_pin, object);
}

static ml_status choose(mli_executor *ex, lua_Integer index, lml_pin *pin) {
  if (ex->loops && atomic_load(&ex->closing)) return ML_CLOSED;
  if (ex->class->far) return (pin->seat = lml_processes_hold(ex, &pin->index)) ? ML_OK : ML_MEMORY;
  ml_status status = ML_OK;
  if (!ex->loops)
    status = mli_pool_pin(ex, &pin->worker);
  else
    pin->worker = index ? ex->workers[index - 1] : mli_executor_place(ex);
  if (status == ML_OK) pin->index = pin->worker->index;
  return status;
}

static int l_pin(lua_State *L) {
  mli_executor *ex = lml_executor_check(L, 1);
  lua_Integer index = luaL_optinteger(L, 2, 0);
  lml_handle *h = lml_handle_new(L, &pin_type);
  lml_pin *pin = calloc(1, sizeof *pin);
  if (!pin) return luaL_error(L, "not enough memory");
  ml_status status = choose(ex, index, pin);
  if (status != ML_OK) free(pin);
  if (status == ML_CLOSED) return lml_raise(L, "closed", "executor '%s' is shut down", ex->name);
  if (status == ML_MEMORY) return luaL_error(L, "not enough memory");
  if (status != ML_OK)
    return lml_raise(L, uv_err_name(-errno), "cannot start a worker of executor '%s': %s", ex->name,
                     strerror(errno));
  mli_object_init(&pin->object, &pin_type);
  pin->executor = mli_retain(ex);
  atomic_init(&pin->released, false);
  h->object = &pin->object;
  return 1;
}

static int l_release(lua_State *L) {
  release(check_pin(L));
  return 0;
}

static int l_executor(lua_State *L) {
  lml_pin *pin = check_pin(L);
  lml_handle_push(L, &pin->executor->object);
  lua_pushinteger(L, (lua_Integer)pin->index + 1);
  return 2;
}

static int pin_tostring(lua_State *L) {
  lml_pin *pin = check_pin(L);
  lua_pushfstring(L, "worker %d of %s%s", (int)pin->index + 1, pin->executor->name,
                  atomic_load(&pin->released) ? " (released)" : "");
  return 1;
}

void lml_pin_open(lua_State *L) {
  static const luaL_Reg functions[] = {
    { "pin", l_pin }, { "pin_release", l_release }, { "pin_executor", l_executor }, { NULL, NULL }
  };
  static const luaL_Reg metamethods[] = { { "__gc", lml_handle_gc },
                                          { "__eq", lml_handle_eq },
                                          { "__tostring", pin_tostring },
                                          { NULL, NULL } };
  lml_setfuncs(L, functions);
  lua_newtable(L);
  lua_pushliteral(L, "worker");
  lua_setfield(L, -2, "__name");
  lml_setfuncs(L, metamethods);
  lml_handle_declare(L, &pin_type);
  lua_setfield(L, -2, "pin_metatable"); /* the front door adds the methods */
}
