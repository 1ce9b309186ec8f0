/*
** event.c: events and barriers for jobs and threads.
**
**   local event = ml.Event()
**   event:set() event:clear() event:is_set()
**   event:wait([timeout])             -- true, or nil, err
**
**   local barrier = ml.Barrier(3)
**   barrier:wait([timeout])           -- 1 to 3 in the order of arrival, or nil, err
**   barrier:abort()                   -- all waits give "closed", until
**   barrier:reset()                   -- who waits now gets "closed"; a new round
*/
#include <stdlib.h>
#include "core/sync.h"
#include "sync.h"

/* ---- events ---- */

typedef struct event {
  mli_object object;
  mli_event core;
} event;

static void event_destroy(mli_object *object) { free(mli_container(object, event, object)); }

static const mli_type event_type = { "event", event_destroy, NULL };

static mli_event *check_event(lua_State *L, lml_state *S) {
  return &mli_container(lml_sync_check(L, S, 1, &event_type), event, object)->core;
}

/* ml.Event() */
static int l_event(lua_State *L) {
  lml_handle *h = lml_handle_new(L, &event_type);
  event *e = malloc(sizeof *e);
  if (!e) return luaL_error(L, "not enough memory");
  mli_object_init(&e->object, &event_type);
  mli_event_init(&e->core);
  h->object = &e->object;
  return 1;
}

static int e_set(lua_State *L) {
  mli_event_set(check_event(L, lml_upstate(L)));
  return 0;
}

static int e_clear(lua_State *L) {
  mli_event_clear(check_event(L, lml_upstate(L)));
  return 0;
}

static int e_is_set(lua_State *L) {
  lua_pushboolean(L, mli_event_is_set(check_event(L, lml_upstate(L))));
  return 1;
}

static int e_wait_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  if (lml_await_end(L, lml_upstate(L)) == ML_TIMEOUT) return lml_timed_out(L, "event wait");
  lua_pushboolean(L, 1);
  return 1;
}

static int e_wait(lua_State *L) {
  lml_state *S = lml_upstate(L);
  mli_event *e = check_event(L, S);
  uint64_t deadline = lml_check_deadline(L, 2);
  if (!lml_may_be_cancelled(S)) {
    if (mli_event_is_set(e)) {
      lua_pushboolean(L, 1);
      return 1;
    }
    if (deadline == 0) return lml_timed_out(L, "event wait");
    const lml_handle *handle = lua_touserdata(L, 1);
    lml_check_hope(L, S, deadline, handle->object, 1, "event wait");
  }
  lml_queued *q = lml_queued_push(L, &e->waiters);
  lml_await *a = lml_queued_begin(L, S, "event wait", q);
  if (mli_event_wait(e, &q->waiter)) atomic_store(&a->woken, true);
  return lml_await_park(L, S, a, deadline, e_wait_k, 0);
}

static int e_tostring(lua_State *L) {
  mli_event *e = check_event(L, lml_upstate(L));
  lua_pushfstring(L, "event: %p (%s)", (void *)e, mli_event_is_set(e) ? "set" : "clear");
  return 1;
}

/* ---- barriers ---- */

typedef struct barrier {
  mli_object object;
  mli_barrier core;
} barrier;

static void barrier_destroy(mli_object *object) { free(mli_container(object, barrier, object)); }

static const mli_type barrier_type = { "barrier", barrier_destroy, NULL };

static mli_barrier *check_barrier(lua_State *L, lml_state *S) {
  return &mli_container(lml_sync_check(L, S, 1, &barrier_type), barrier, object)->core;
}

/* ml.Barrier(n) */
static int l_barrier(lua_State *L) {
  uint64_t parties = lml_check_whole(L, 1, 1, "Barrier: number of parties");
  lml_handle *h = lml_handle_new(L, &barrier_type);
  barrier *b = malloc(sizeof *b);
  if (!b) return luaL_error(L, "not enough memory");
  mli_object_init(&b->object, &barrier_type);
  mli_barrier_init(&b->core, parties);
  h->object = &b->object;
  return 1;
}

static int b_wait_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  const lml_queued *q = (const lml_queued *)ctx;
  if (lml_await_end(L, lml_upstate(L)) == ML_TIMEOUT) return lml_timed_out(L, "barrier wait");
  if (q->waiter.granted == 0) return lml_fail(L, "closed", "barrier wait: the barrier was broken");
  lua_pushinteger(L, (lua_Integer)q->waiter.granted);
  return 1;
}

static int b_wait(lua_State *L) {
  lml_state *S = lml_upstate(L);
  mli_barrier *b = check_barrier(L, S);
  uint64_t deadline = lml_check_deadline(L, 2);
  if (b->parties > 1 && !lml_may_be_cancelled(S) && !mli_barrier_is_broken(b)) {
    const lml_handle *handle = lua_touserdata(L, 1);
    lml_check_hope(L, S, deadline, handle->object, 1, "barrier wait");
  }
  lml_queued *q = lml_queued_push(L, &b->waiters);
  lml_await *a = lml_queued_begin(L, S, "barrier wait", q);
  if (mli_barrier_wait(b, &q->waiter)) atomic_store(&a->woken, true);
  return lml_await_park(L, S, a, deadline, b_wait_k, (lua_KContext)q);
}

static int b_abort(lua_State *L) {
  mli_barrier_abort(check_barrier(L, lml_upstate(L)));
  return 0;
}

static int b_reset(lua_State *L) {
  mli_barrier_reset(check_barrier(L, lml_upstate(L)));
  return 0;
}

static int b_tostring(lua_State *L) {
  mli_barrier *b = check_barrier(L, lml_upstate(L));
  lua_pushfstring(L, "barrier: %p (%s)", (void *)b, mli_barrier_is_broken(b) ? "broken" : "open");
  return 1;
}

void lml_event_open(lua_State *L) {
  static const luaL_Reg functions[] = { { "Event", l_event },
                                        { "Barrier", l_barrier },
                                        { NULL, NULL } };
  static const luaL_Reg event_methods[] = {
    { "set", e_set },   { "clear", e_clear }, { "is_set", e_is_set },
    { "wait", e_wait }, { NULL, NULL },
  };
  static const luaL_Reg barrier_methods[] = {
    { "wait", b_wait }, { "abort", b_abort }, { "reset", b_reset }, { NULL, NULL }
  };
  static const luaL_Reg event_meta[] = { { "__tostring", e_tostring }, { NULL, NULL } };
  static const luaL_Reg barrier_meta[] = { { "__tostring", b_tostring }, { NULL, NULL } };
  lml_setfuncs(L, functions);
  lml_sync_declare(L, &event_type, event_methods, event_meta);
  lua_pop(L, 1);
  lml_sync_declare(L, &barrier_type, barrier_methods, barrier_meta);
  lua_pop(L, 1);
}
