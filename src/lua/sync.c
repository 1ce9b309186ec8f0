/*
** sync.c: what the primitives share: their handles, their waits, their holds.
*/
#include "sync.h"

#include <math.h>

/* ---- handles ---- */

mli_object *lml_sync_check(lua_State *L, lml_state *S, int arg, const mli_type *type) {
  mli_object *object = lml_handle_test_in(L, S, arg, type);
  if (mli_unlikely(!object)) lml_typeerror(L, arg, type->name);
  return object;
}

void lml_sync_declare(lua_State *L, const mli_type *type, const luaL_Reg *methods,
                      const luaL_Reg *metamethods) {
  static const luaL_Reg common[] = { { "__gc", lml_handle_gc },
                                     { "__eq", lml_handle_eq },
                                     { NULL, NULL } };
  lua_newtable(L);
  lua_pushstring(L, type->name);
  lua_setfield(L, -2, "__name");
  lml_setfuncs(L, common);
  lml_setfuncs(L, metamethods);
  lua_newtable(L);
  lml_setfuncs(L, methods);
  lua_setfield(L, -2, "__index");
  lml_handle_declare(L, type);
  lua_getfield(L, -1, "__index");
  lua_remove(L, -2);
}

/* ---- waiting ---- */

bool lml_may_be_cancelled(const lml_state *S) {
  if (S->current) return lml_job_cancelled(S->current) != NULL;
  return S->task || (S->scope && lml_scope_expire(S->scope));
}

static void queued_abort(lml_await *a) {
  lml_queued *q = a->source;
  if (mli_waiters_remove(q->queue, &q->waiter)) lml_await_wake(a, true);
}

lml_queued *lml_queued_push(lua_State *L, mli_waiters *queue) {
  lml_queued *q = lua_newuserdatauv(L, sizeof *q, 0);
  *q = (lml_queued){ .queue = queue };
  return q;
}

lml_await *lml_queued_begin(lua_State *L, lml_state *S, const char *what, lml_queued *q) {
  lml_await *a = lml_await_begin(L, S, what);
  a->waker.wake = lml_await_woken;
  a->abort = queued_abort;
  a->source = q;
  q->waiter.waker = &a->waker;
  return a;
}

int lml_timed_out(lua_State *L, const char *what) {
  return lml_fail(L, "timeout", "%s: timeout", what);
}

/* ---- holds ---- */

#define HOLD "moonloop.hold"

static int hold_close(lua_State *L) {
  lml_hold *hold = luaL_checkudata(L, 1, HOLD);
  mli_object *object = hold->object;
  if (!object) return 0;
  hold->release(lml_upstate(L), hold);
  hold->object = NULL;
  mli_object_release(object);
  return 0;
}

lml_hold *lml_hold_push(lua_State *L, void (*release)(lml_state *S, lml_hold *hold)) {
  lml_hold *hold = lua_newuserdatauv(L, sizeof *hold, 0);
  *hold = (lml_hold){ .release = release };
  luaL_setmetatable(L, HOLD);
  return hold;
}

/* Leaves the primitives in the table on top. */
void lml_sync_open(lua_State *L) {
  /* A hold whose coroutine is dropped where it stands is closed by the collector. */
  static const luaL_Reg hold[] = { { "__close", hold_close },
                                   { "__gc", hold_close },
                                   { NULL, NULL } };
  if (luaL_newmetatable(L, HOLD)) lml_setfuncs(L, hold);
  lua_pop(L, 1);
  lml_semaphore_open(L);
  lml_lock_open(L);
  lml_event_open(L);
  lml_channel_open(L);
  lml_queue_open(L);
}
