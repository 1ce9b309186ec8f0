/*
** queue.c: queues between jobs and threads.
**
**   local q = ml.Queue([max])          -- or Queue{ max, order = "fifo" | "lifo" | "priority" }
**   q:put(v[, timeout[, priority]])    -- true, or nil, err: "timeout", "closed"
**   q:get([timeout])                   -- the value, or nil, err: "timeout", "closed"
**   q:try_put(v[, priority])  q:try_get()   -- or nil, err: "busy", "closed"
**   q:task_done()                      -- one of what was taken is done
**   q:join([timeout])                  -- until all that was put is done
**   q:size()
**   q:shutdown{ immediate = true }     -- no more puts; gets go on until it is empty
*/
#include <math.h>
#include <string.h>
#include "sync.h"

static mli_channel *check(lua_State *L, lml_state *S) {
  return mli_container(lml_sync_check(L, S, 1, &mli_queue_type), mli_channel, object);
}

/* ---- making ---- */

/* Refuses what is no option in the table at `index`; `first`: it may have a value at 1. */
static void check_options(lua_State *L, int index, const char *what, const char *const known[],
                          bool first) {
  luaL_checktype(L, index, LUA_TTABLE);
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    if (first && lua_isinteger(L, -2) && lua_tointeger(L, -2) == 1) continue;
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
    int i = 0;
    while (known[i] && !(key && strcmp(key, known[i]) == 0)) i++;
    if (!known[i]) lml_misuse(L, "%s: unknown option '%s'", what, lml_show(L, -2));
  }
}

static mli_order check_order(lua_State *L, int index) {
  static const char *const names[] = { "fifo", "lifo", "priority" };
  if (lua_isnil(L, index)) return MLI_FIFO;
  for (int i = 0; i < 3; i++)
    if (lua_type(L, index) == LUA_TSTRING && strcmp(lua_tostring(L, index), names[i]) == 0)
      return (mli_order)i;
  return (mli_order)lml_misuse(
    L, "Queue: option 'order': \"fifo\", \"lifo\" or \"priority\" expected, got %s",
    lml_show(L, index));
}

/* The options at 1: { max, order = }, where `max` may be named too. Leaves the maximum there. */
static mli_order open_options(lua_State *L) {
  static const char *const known[] = { "max", "order", NULL };
  check_options(L, 1, "Queue", known, true);
  lua_getfield(L, 1, "order");
  mli_order order = check_order(L, 2);
  bool first = lua_rawgeti(L, 1, 1) != LUA_TNIL, named = lua_getfield(L, 1, "max") != LUA_TNIL;
  if (first && named) lml_misuse(L, "Queue: option 'max' is given twice");
  lua_settop(L, first ? 3 : 4);
  lua_replace(L, 1);
  lua_settop(L, 1);
  return order;
}

/* ml.Queue([max or options]) */
static int l_queue(lua_State *L) {
  mli_order order = MLI_FIFO;
  lua_settop(L, 1);
  if (lua_istable(L, 1)) order = open_options(L);
  uint64_t max = lua_isnil(L, 1) ? UINT64_MAX : lml_check_whole(L, 1, 1, "Queue: max");
  lml_handle *h = lml_handle_new(L, &mli_queue_type);
  mli_channel *queue = mli_channel_new(&mli_queue_type, max, order);
  if (!queue) return luaL_error(L, "not enough memory");
  h->object = &queue->object;
  return 1;
}

/* ---- put and get ---- */

#define PUT "queue put"
#define GET "queue get"

static lua_Number check_priority(lua_State *L, int arg, const mli_channel *queue) {
  if (lua_isnoneornil(L, arg)) return 0;
  if (queue->order != MLI_PRIORITY)
    lml_misuse(L, "put: only a queue with order = \"priority\" takes a priority");
  if (lua_type(L, arg) != LUA_TNUMBER || isnan(lua_tonumber(L, arg)))
    lml_misuse(L, "put: priority: number expected, got %s", lml_show(L, arg));
  return lua_tonumber(L, arg);
}

static int q_put(lua_State *L) {
  lml_state *S = lml_upstate(L);
  mli_channel *queue = check(L, S);
  uint64_t deadline = lml_check_deadline(L, 3);
  return lml_send(L, S, queue, PUT, deadline, check_priority(L, 4, queue));
}

static int q_try_put(lua_State *L) {
  lml_state *S = lml_upstate(L);
  mli_channel *queue = check(L, S);
  return lml_try_send(L, S, queue, PUT, check_priority(L, 3, queue));
}

static int q_get(lua_State *L) {
  lml_state *S = lml_upstate(L);
  mli_channel *queue = check(L, S);
  return lml_receive(L, S, queue, GET, lml_check_deadline(L, 2));
}

static int q_try_get(lua_State *L) {
  lml_state *S = lml_upstate(L);
  return lml_try_receive(L, S, check(L, S), GET);
}

/* ---- done, join, shutdown ---- */

static int q_task_done(lua_State *L) {
  if (!mli_channel_done(check(L, lml_upstate(L))))
    lml_misuse(L, "task_done: called more often than values were put");
  return 0;
}

static int join_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  if (lml_await_end(L, lml_upstate(L)) == ML_TIMEOUT) return lml_timed_out(L, "queue join");
  lua_pushboolean(L, 1);
  return 1;
}

static int q_join(lua_State *L) {
  lml_state *S = lml_upstate(L);
  mli_channel *queue = check(L, S);
  uint64_t deadline = lml_check_deadline(L, 2);
  if (!lml_may_be_cancelled(S) && !mli_channel_is_done(queue))
    lml_check_hope(L, S, deadline, &queue->object, 1, "queue join");
  lml_queued *q = lml_queued_push(L, &queue->joiners);
  lml_await *a = lml_queued_begin(L, S, "queue join", q);
  if (mli_channel_join(queue, &q->waiter)) atomic_store(&a->woken, true);
  return lml_await_park(L, S, a, deadline, join_k, 0);
}

static int q_size(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)mli_channel_count(check(L, lml_upstate(L))));
  return 1;
}

static int q_shutdown(lua_State *L) {
  static const char *const known[] = { "immediate", NULL };
  mli_channel *queue = check(L, lml_upstate(L));
  bool immediate = false;
  if (!lua_isnoneornil(L, 2)) {
    check_options(L, 2, "shutdown", known, false);
    lua_getfield(L, 2, "immediate");
    immediate = lua_toboolean(L, -1);
  }
  mli_channel_close(queue, immediate);
  return 0;
}

static int q_tostring(lua_State *L) {
  mli_channel *queue = check(L, lml_upstate(L));
  lua_pushfstring(L, "queue: %p (%I waiting%s)", (void *)queue,
                  (LUAI_UACINT)mli_channel_count(queue),
                  mli_channel_is_closed(queue) ? ", shut down" : "");
  return 1;
}

void lml_queue_open(lua_State *L) {
  static const luaL_Reg functions[] = { { "Queue", l_queue }, { NULL, NULL } };
  static const luaL_Reg methods[] = {
    { "put", q_put },         { "try_put", q_try_put },   { "get", q_get },
    { "try_get", q_try_get }, { "join", q_join },         { "task_done", q_task_done },
    { "size", q_size },       { "shutdown", q_shutdown }, { NULL, NULL },
  };
  static const luaL_Reg metamethods[] = { { "__tostring", q_tostring }, { NULL, NULL } };
  lml_setfuncs(L, functions);
  lml_sync_declare(L, &mli_queue_type, methods, metamethods);
  lua_pop(L, 1);
}
