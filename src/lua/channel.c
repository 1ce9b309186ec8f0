/*
** channel.c: channels between jobs and threads, and the choice between several.
**
**   local ch = ml.Channel([capacity])  -- 0: a send waits for its receive
**   ch:send(v[, timeout])              -- true, or nil, err: "timeout", "closed"
**   ch:receive([timeout])              -- the value, or nil, err: "timeout", "closed"
**   ch:try_send(v)  ch:try_receive()   -- or nil, err: "busy", "closed"
**   ch:close()                         -- what was sent can still be received
**   for v in ch do ... end             -- until it is closed and empty
**
**   ml.select{ { a, "receive" }, { b, "send", v }, timeout = 1 }
**     -- which, and the value or true; which, nil, err: "closed"; or nil, err: "timeout"
*/
#include <string.h>
#include "sync.h"

static mli_channel *check(lua_State *L, lml_state *S) {
  return mli_container(lml_sync_check(L, S, 1, &mli_channel_type), mli_channel, object);
}

/* ml.Channel([capacity]) */
static int l_channel(lua_State *L) {
  uint64_t capacity = lua_isnoneornil(L, 1) ? 0 : lml_check_whole(L, 1, 0, "Channel: capacity");
  lml_handle *h = lml_handle_new(L, &mli_channel_type);
  mli_channel *channel = mli_channel_new(&mli_channel_type, capacity, MLI_FIFO);
  if (!channel) return luaL_error(L, "not enough memory");
  h->object = &channel->object;
  return 1;
}

#define SEND "channel send"
#define RECEIVE "channel receive"

static int c_send(lua_State *L) {
  lml_state *S = lml_upstate(L);
  mli_channel *channel = check(L, S);
  uint64_t deadline = lml_check_deadline(L, 3);
  return lml_send(L, S, channel, SEND, deadline, 0);
}

static int c_try_send(lua_State *L) {
  lml_state *S = lml_upstate(L);
  return lml_try_send(L, S, check(L, S), SEND, 0);
}

static int c_receive(lua_State *L) {
  lml_state *S = lml_upstate(L);
  mli_channel *channel = check(L, S);
  return lml_receive(L, S, channel, RECEIVE, lml_check_deadline(L, 2));
}

static int c_try_receive(lua_State *L) {
  lml_state *S = lml_upstate(L);
  return lml_try_receive(L, S, check(L, S), RECEIVE);
}

static int c_close(lua_State *L) {
  mli_channel_close(check(L, lml_upstate(L)), false);
  return 0;
}

/* A step of a `for` loop: nil ends it. */
static int c_call(lua_State *L) {
  lml_state *S = lml_upstate(L);
  return lml_receive(L, S, check(L, S), RECEIVE, MLI_FOREVER);
}

static int c_tostring(lua_State *L) {
  mli_channel *channel = check(L, lml_upstate(L));
  lua_pushfstring(L, "channel: %p (%I waiting%s)", (void *)channel,
                  (LUAI_UACINT)mli_channel_count(channel),
                  mli_channel_is_closed(channel) ? ", closed" : "");
  return 1;
}

/* ---- select ---- */

/* What was met: which, and what a receive gives, or true. */
static int selected(lua_State *L, lml_state *S, size_t which, const mli_offer *met) {
  lua_pushinteger(L, (lua_Integer)which);
  if (met->status != ML_OK)
    return lml_fail(L, "closed", "select: %s: closed", met->send ? SEND : RECEIVE) + 1;
  if (met->send)
    lua_pushboolean(L, 1);
  else
    lml_parcel_push(L, S, met->item);
  return 2;
}

static int select_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  lml_state *S = lml_upstate(L);
  mli_offer met;
  size_t which = lml_choice_end(L, S, (lml_choice *)ctx, &met);
  return which ? selected(L, S, which, &met) : lml_timed_out(L, "select");
}

/* Stack: the list, the choice. Adds the case of that number. */
static void add_case(lua_State *L, lml_state *S, lml_choice *c, lua_Integer i) {
  if (lua_rawgeti(L, 1, i) != LUA_TTABLE)
    lml_misuse(L, "select: case %d: table expected, got %s", (int)i, luaL_typename(L, -1));
  lua_rawgeti(L, 3, 1);
  lua_rawgeti(L, 3, 2);
  lua_rawgeti(L, 3, 3);
  mli_object *object = lml_handle_test_in(L, S, 4, &mli_channel_type);
  if (!object)
    lml_misuse(L, "select: case %d: channel expected, got %s", (int)i, luaL_typename(L, 4));
  const char *what = lua_type(L, 5) == LUA_TSTRING ? lua_tostring(L, 5) : "";
  bool send = strcmp(what, "send") == 0;
  if (!send && strcmp(what, "receive") != 0)
    lml_misuse(L, "select: case %d: \"send\" or \"receive\" expected, got %s", (int)i,
               lml_show(L, 5));
  if (send && lua_isnil(L, 6))
    lml_misuse(L, "select: case %d: a value expected: nil cannot be sent", (int)i);
  mli_channel *channel = mli_container(object, mli_channel, object);
  lml_choice_add(c, channel, send ? lml_parcel_new(L, S, 6) : NULL);
  lua_settop(L, 2);
}

/* ml.select(cases) */
static int l_select(lua_State *L) {
  lml_state *S = lml_upstate(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1))
    if (lua_type(L, 2) != LUA_TNUMBER &&
        !(lua_type(L, 2) == LUA_TSTRING && strcmp(lua_tostring(L, 2), "timeout") == 0))
      lml_misuse(L, "select: unknown option '%s'", lml_show(L, 2));
  lua_getfield(L, 1, "timeout");
  uint64_t deadline = lml_option_deadline(L, 2, "timeout");
  lua_settop(L, 1);
  size_t n = lua_rawlen(L, 1);
  if (n == 0) lml_misuse(L, "select: there is no case to wait for");
  lml_choice *c = lml_choice_push(L, "select", n);
  for (size_t i = 1; i <= n; i++) add_case(L, S, c, (lua_Integer)i);
  return lml_choice_wait(L, S, c, deadline, select_k);
}

void lml_channel_open(lua_State *L) {
  static const luaL_Reg functions[] = { { "Channel", l_channel },
                                        { "select", l_select },
                                        { NULL, NULL } };
  static const luaL_Reg methods[] = {
    { "send", c_send },       { "try_send", c_try_send },
    { "receive", c_receive }, { "try_receive", c_try_receive },
    { "close", c_close },     { NULL, NULL },
  };
  static const luaL_Reg metamethods[] = { { "__call", c_call },
                                          { "__tostring", c_tostring },
                                          { NULL, NULL } };
  lml_setfuncs(L, functions);
  lml_sync_declare(L, &mli_channel_type, methods, metamethods);
  lua_pop(L, 1);
}
