/*
** websocket.c: WebSockets for Lua; lua/moonloop/http/websocket.lua is their front.
**
**   local core = require "moonloop.http.websocket.core"
**   ws = core.open(url, options, protocols, max_message, max_queue, ping_interval, ping_timeout)
**   ws:receive([timeout])   ws:ping([data][, timeout])   ws:close([status[, reason[, timeout]]])
**   core.send(ws, data, kind, fin, timeout)   kind: "text" "binary", nil for what follows
**   core.drop(ws)   core.end_of(ws)
**   ws.url  ws.protocol  ws.headers  ws.closed
*/
#include "http/websocket.h"
#include <stdio.h>
#include <string.h>
#include "http.h"
#include "tcp.h"

#define CLOSE_TIMEOUT 10 /* seconds */

static mli_websocket *check(lua_State *L) {
  mli_object *object = lml_handle_test(L, 1, &mli_websocket_type);
  if (!object) luaL_typeerror(L, 1, "websocket");
  return mli_container(object, mli_websocket, object);
}

static void no_memory(lua_State *L) { luaL_error(L, "not enough memory"); }

/* ---- errors ---- */

static const char *masked(const mli_websocket *ws, char *out, size_t size) {
  return mli_http_masked(ws->url, out, size);
}

/* Pushes nil and how it ended. */
static int fail_ended(lua_State *L, mli_websocket *ws) {
  char url[512];
  mli_ws_end end = mli_websocket_end(ws);
  masked(ws, url, sizeof url);
  if (!end.code) return lml_fail(L, "closed", "%s: it is closing", url);
  if (end.why)
    lml_fail(L, end.code, "%s: %s", url, end.why);
  else {
    lua_pushlstring(L, end.reason, end.reason_size);
    lml_fail(L, end.code, "%s: the peer closed it: %d%s%s", url, end.status,
             end.reason_size ? " " : "", lua_tostring(L, -1));
    lua_remove(L, -3);
  }
  lua_pushinteger(L, end.status);
  lua_setfield(L, -2, "status");
  if (end.reason_size)
    lua_pushlstring(L, end.reason, end.reason_size);
  else
    lua_pushstring(L, end.why ? end.why : "");
  lua_setfield(L, -2, "reason");
  return 2;
}

static int fail_op(lua_State *L, mli_websocket *ws, const mli_op *op) {
  if (op->status == ML_CLOSED) return fail_ended(L, ws);
  return lml_fail_op(L, op);
}

/* end_of(ws): nil and the error that tells how it ended; nothing while it is open. */
static int l_end_of(lua_State *L) {
  mli_websocket *ws = check(L);
  return mli_websocket_end(ws).code ? fail_ended(L, ws) : 0;
}

/* ---- opening ---- */

enum { URL = 1, OPTIONS, PROTOCOLS, OPEN_BOX };

static int opened(lua_State *L, int status, lua_KContext ctx) {
  mli_http *h = mli_container((mli_op *)ctx, mli_http, op);
  (void)status;
  luaL_checkstack(L, 8, NULL);
  if (h->op.status != ML_OK) {
    lml_http_push_failure(L, h);
    if (h->head) {
      lua_pushinteger(L, h->status);
      lua_setfield(L, -2, "status");
      lml_http_push_headers(L, h->in.bytes, h->head);
      lua_setfield(L, -2, "headers");
    }
    lml_op_drop(lua_touserdata(L, OPEN_BOX));
    return 2;
  }
  lml_handle *handle = lml_handle_new(L, &mli_websocket_type);
  handle->object = &mli_websocket_take(h)->object;
  lml_op_drop(lua_touserdata(L, OPEN_BOX));
  return 1;
}

static uint64_t nanoseconds(lua_State *L, int arg) {
  lua_Number s = luaL_optnumber(L, arg, 0);
  return s > 1e9 ? 0 : (uint64_t)(s * 1e9);
}

/* open(url, options, protocols, max_message, max_queue, ping_interval, ping_timeout):
** the options are those of a request; the Lua part has checked the others. */
static int l_open(lua_State *L) {
  mli_ws_options options = {
    .max_message = (uint64_t)luaL_checkinteger(L, 4),
    .max_queue = (size_t)luaL_checkinteger(L, 5),
    .ping_interval = nanoseconds(L, 6),
    .ping_timeout = nanoseconds(L, 7),
  };
  const char *protocols = luaL_optstring(L, PROTOCOLS, NULL);
  lua_settop(L, PROTOCOLS);
  mli_loop *loop = lml_io_loop(L);
  mli_op **box = lml_op_box(L);
  mli_http *h = mli_http_new(loop);
  if (!h) no_memory(L);
  *box = &h->op;
  lml_http_fill(L, h, "GET", URL, OPTIONS);
  if (protocols && !(options.protocols = strdup(protocols))) no_memory(L);
  if (!mli_websocket_prepare(h, &options)) no_memory(L);
  return lml_await_op(L, &h->op, MLI_FOREVER, opened);
}

/* ---- receiving ---- */

enum { HANDLE = 1, DEADLINE, BOX };

static int push_message(lua_State *L, mli_ws_message *m) {
  lua_pushlstring(L, m->bytes, m->size);
  lua_pushstring(L, m->kind == MLI_WS_TEXT ? "text" : "binary");
  lml_op_drop(lua_touserdata(L, BOX));
  return 2;
}

static mli_ws_receive *new_receive(lua_State *L, mli_websocket *ws) {
  mli_ws_receive *r = NULL;
  mli_op **box = lml_op_box(L);
  ml_status status = mli_ws_receive_new(ws, &r);
  if (status == ML_MISUSE) lml_misuse(L, "another receive waits on this websocket");
  if (status != ML_OK) no_memory(L);
  *box = &r->op;
  return r;
}

static int received(lua_State *L, int status, lua_KContext ctx) {
  mli_ws_receive *r = mli_container((mli_op *)ctx, mli_ws_receive, op);
  (void)status;
  if (r->op.status != ML_OK) return fail_op(L, r->ws, &r->op);
  switch (mli_websocket_next(r)) {
  case ML_OK: return push_message(L, r->message);
  case ML_CLOSED: return fail_ended(L, r->ws);
  default: break;
  }
  /* Someone else took what had come. */
  mli_websocket *ws = check(L);
  uint64_t deadline = (uint64_t)lua_tointeger(L, DEADLINE);
  lml_op_drop(lua_touserdata(L, BOX));
  lua_settop(L, DEADLINE);
  return lml_await_op(L, &new_receive(L, ws)->op, deadline, received);
}

/* ws:receive([timeout]): the next message and "text" or "binary"; or nil, err */
static int l_receive(lua_State *L) {
  mli_websocket *ws = check(L);
  uint64_t deadline = lml_check_deadline(L, 2);
  lua_settop(L, HANDLE);
  lua_pushinteger(L, (lua_Integer)deadline);
  mli_ws_receive *r = new_receive(L, ws);
  if (lml_tcp_at_once(L)) {
    ml_status status = mli_websocket_next(r);
    if (status == ML_OK) return push_message(L, r->message);
    if (status == ML_CLOSED) {
      lml_op_drop(lua_touserdata(L, BOX));
      return fail_ended(L, ws);
    }
  }
  return lml_await_op(L, &r->op, deadline, received);
}

/* ---- sending ---- */

static mli_ws_op *box_op(lua_State *L, mli_op **box, mli_ws_op *o) {
  if (!o) no_memory(L);
  *box = &o->op;
  return o;
}

static int sent(lua_State *L, int status, lua_KContext ctx) {
  mli_ws_op *o = mli_container((mli_op *)ctx, mli_ws_op, op);
  (void)status;
  if (o->op.status != ML_OK) {
    fail_op(L, o->ws, &o->op);
    lua_pushboolean(L, o->on_its_way);
    lua_setfield(L, -2, "on_its_way");
    return 2;
  }
  lml_op_drop(lua_touserdata(L, BOX));
  lua_pushboolean(L, true);
  return 1;
}

/* send(ws, data, kind, fin, timeout): kind "text" or "binary", or nil for the next
** piece of a message. The Lua part has checked all but the text. */
static int l_send(lua_State *L) {
  size_t size;
  mli_websocket *ws = check(L);
  const char *data = luaL_checklstring(L, 2, &size);
  const char *kind = luaL_optstring(L, 3, NULL);
  int opcode = !kind ? WSLAY_CONTINUATION_FRAME : *kind == 't' ? MLI_WS_TEXT : MLI_WS_BINARY;
  bool fin = lua_toboolean(L, 4);
  uint64_t deadline = lml_check_deadline(L, 5);
  if (opcode == MLI_WS_TEXT && fin && !mli_utf8_valid(data, size))
    return lml_misuse(L, "send: a text message must be UTF-8; send it as \"binary\"");
  mli_op **box = lml_op_box(L);
  mli_ws_op *o = box_op(L, box, mli_ws_send_new(ws, opcode, fin, data, size));
  lua_replace(L, BOX);
  lua_settop(L, BOX);
  return lml_await_op(L, &o->op, deadline, sent);
}

/* ---- pings ---- */

static int ponged(lua_State *L, int status, lua_KContext ctx) {
  mli_ws_op *o = mli_container((mli_op *)ctx, mli_ws_op, op);
  (void)status;
  if (o->op.status != ML_OK) return fail_op(L, o->ws, &o->op);
  lua_pushnumber(L, o->seconds);
  lml_op_drop(lua_touserdata(L, BOX));
  return 1;
}

/* ws:ping([data][, timeout]): the seconds until the pong came; or nil, err */
static int l_ping(lua_State *L) {
  static atomic_uint count;
  char own[16];
  size_t size;
  mli_websocket *ws = check(L);
  uint64_t deadline = lml_check_deadline(L, 3);
  const char *data = luaL_optlstring(L, 2, NULL, &size);
  if (!data) { /* each its own, so that each has its pong */
    size = (size_t)snprintf(own, sizeof own, "%x", atomic_fetch_add(&count, 1));
    data = own;
  }
  luaL_argcheck(L, size <= MLI_WS_CONTROL_MAX, 2, "more than 125 bytes");
  mli_op **box = lml_op_box(L);
  mli_ws_op *o = box_op(L, box, mli_ws_ping_new(ws, data, size));
  lua_insert(L, 2);
  lua_settop(L, BOX);
  lua_pushvalue(L, 2);
  lua_replace(L, BOX);
  return lml_await_op(L, &o->op, deadline, ponged);
}

/* ---- closing ---- */

static int closed(lua_State *L, int status, lua_KContext ctx) {
  mli_op *op = (mli_op *)ctx;
  (void)status;
  /* It is closed too if its loop has ended. */
  if (op->status != ML_OK && op->status != ML_CLOSED) return lml_fail_op(L, op);
  lml_op_drop(lua_touserdata(L, BOX));
  lua_pushboolean(L, true);
  return 1;
}

/* ws:close([status[, reason[, timeout]]]): true, or nil, err */
static int l_close(lua_State *L) {
  size_t size;
  mli_websocket *ws = check(L);
  lua_Integer status = luaL_optinteger(L, 2, MLI_WS_NORMAL);
  const char *reason = luaL_optlstring(L, 3, "", &size);
  lua_settop(L, 4);
  if (lua_isnil(L, 4)) {
    lua_pushinteger(L, CLOSE_TIMEOUT);
    lua_replace(L, 4);
  }
  uint64_t deadline = lml_check_deadline(L, 4);
  luaL_argcheck(L, status == MLI_WS_NORMAL || (status >= 3000 && status <= 4999), 2,
                "1000, or 3000 to 4999 expected");
  luaL_argcheck(L, size <= MLI_WS_REASON_MAX, 3, "more than 123 bytes");
  luaL_argcheck(L, mli_utf8_valid(reason, size), 3, "not UTF-8");
  mli_op **box = lml_op_box(L);
  mli_ws_op *o = box_op(L, box, mli_ws_close_new(ws, (int)status, reason, size));
  lua_replace(L, BOX);
  lua_settop(L, BOX);
  return lml_await_op(L, &o->op, deadline, closed);
}

/* drop(ws): ends the connection without waiting. */
static int l_drop(lua_State *L) {
  mli_websocket_drop(check(L));
  return 0;
}

static int l_is_open(lua_State *L) {
  const lml_handle *handle = lua_touserdata(L, 1);
  lua_pushboolean(L, handle->object && !mli_websocket_end(check(L)).code);
  return 1;
}

/* ---- what it shows ---- */

static int l_tostring(lua_State *L) {
  char url[512];
  mli_websocket *ws = check(L);
  lua_pushfstring(L, "websocket (%s)%s", masked(ws, url, sizeof url),
                  mli_websocket_end(ws).code ? " (closed)" : "");
  return 1;
}

/* ws.url, ws.protocol, ws.headers, ws.closed, and the methods in the upvalue. */
static int l_index(lua_State *L) {
  mli_websocket *ws = check(L);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
  if (lua_type(L, 2) != LUA_TSTRING) return 0;
  const char *name = lua_tostring(L, 2);
  if (strcmp(name, "closed") == 0)
    lua_pushboolean(L, mli_websocket_end(ws).code != NULL);
  else if (strcmp(name, "protocol") == 0 && ws->protocol)
    lua_pushlstring(L, ws->protocol, ws->protocol_size);
  else if (strcmp(name, "url") == 0)
    lua_pushstring(L, ws->url);
  else if (strcmp(name, "headers") == 0)
    lml_http_push_headers(L, ws->head, ws->head_size);
  else
    return 0;
  return 1;
}

/* ---- the module ---- */

static const luaL_Reg functions[] = {
  { "open", l_open }, { "send", l_send }, { "drop", l_drop }, { "end_of", l_end_of }, { NULL, NULL }
};

static const luaL_Reg methods[] = {
  { "receive", l_receive }, { "ping", l_ping }, { "close", l_close }, { NULL, NULL }
};

static const luaL_Reg metamethods[] = { { "__tostring", l_tostring },
                                        { "__is_open", l_is_open },
                                        { "__gc", lml_handle_gc },
                                        { NULL, NULL } };

ML_API int luaopen_moonloop_http_websocket_core(lua_State *L);

int luaopen_moonloop_http_websocket_core(lua_State *L) {
  lua_newtable(L);
  lml_setfuncs(L, functions);
  lua_newtable(L);
  lml_setfuncs(L, methods);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "methods");
  lua_newtable(L); /* module, methods, meta */
  lml_setfuncs(L, metamethods);
  lua_pushliteral(L, "websocket");
  lua_setfield(L, -2, "__name");
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, l_index, 1);
  lua_setfield(L, -2, "__index");
  lua_pushvalue(L, -1);
  lua_setfield(L, -4, "meta");
  lml_handle_declare(L, &mli_websocket_type);
  lua_pop(L, 2);
  return 1;
}
