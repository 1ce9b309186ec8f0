/*
** http.c: HTTP for Lua; lua/moonloop/http.lua is its front.
**
**   local core = require "moonloop.http.core"
**   res = core.get(url[, options])        put post patch delete head options
**   res = core.request([url, ]options)
**   res:json()  res:raise_for_status()    core.Response: their metatable
**   res.headers: core.Headers, a table with the head as text at index 1
*/
#include "http.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "http_file.h"

#define RESPONSE "moonloop.http.response"
#define HEADERS "moonloop.http.headers"

/* ---- JSON ---- */

void lml_http_push_json(lua_State *L, const char *name, const char *what) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, "cjson") != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "cjson");
    if (lua_pcall(L, 1, 1, 0) != LUA_OK)
      luaL_error(L, "%s needs the Lua module cjson, which cannot be loaded: %s", what,
                 luaL_tolstring(L, -1, NULL));
  }
  lua_getfield(L, -1, name);
  lua_replace(L, -3);
  lua_pop(L, 1);
}

/* ---- requests ---- */

void lml_http_push_times(lua_State *L, const mli_http_times *t) {
  lua_createtable(L, 0, 5);
  lua_pushnumber(L, t->resolve);
  lua_setfield(L, -2, "resolve");
  lua_pushnumber(L, t->connect);
  lua_setfield(L, -2, "connect");
  lua_pushnumber(L, t->tls);
  lua_setfield(L, -2, "tls");
  lua_pushnumber(L, t->first_byte);
  lua_setfield(L, -2, "first_byte");
  lua_pushnumber(L, t->total);
  lua_setfield(L, -2, "total");
}

int lml_http_push_failure(lua_State *L, const mli_http *h) {
  if (h->op.message)
    lml_fail(L, h->op.code, "%s", h->op.message);
  else
    lml_fail_op(L, &h->op);
  lua_pushstring(L, h->detail);
  lua_setfield(L, -2, "detail");
  lua_pushstring(L, h->phase);
  lua_setfield(L, -2, "phase");
  lml_http_push_times(L, &h->times);
  lua_setfield(L, -2, "timings");
  return 2;
}

static void push_redirects(lua_State *L, const mli_http *h) {
  const mli_http_hop *hop = h->hops;
  lua_createtable(L, (int)h->redirects, 0);
  for (long i = 1; i <= h->redirects && hop; i++, hop = hop->next) {
    lua_createtable(L, 0, 2);
    lua_pushinteger(L, hop->status);
    lua_setfield(L, -2, "status");
    lua_pushstring(L, hop->url);
    lua_setfield(L, -2, "url");
    lua_rawseti(L, -2, i);
  }
}

void lml_http_push_headers(lua_State *L, const char *head, size_t size) {
  lua_createtable(L, 1, 0);
  lua_pushlstring(L, head, size);
  lua_rawseti(L, -2, 1);
  luaL_setmetatable(L, HEADERS);
}

int lml_http_push_response(lua_State *L, const mli_http *h) {
  size_t size;
  lua_createtable(L, 0, 8);
  lua_pushinteger(L, h->status);
  lua_setfield(L, -2, "status");
  lua_pushboolean(L, h->status < 400);
  lua_setfield(L, -2, "ok");
  const char *reason = mli_http_reason(h, &size);
  lua_pushlstring(L, reason, size);
  lua_setfield(L, -2, "reason");
  lml_http_push_headers(L, h->in.bytes, h->head);
  lua_setfield(L, -2, "headers");
  if (!h->streams) {
    lua_pushlstring(L, h->in.bytes + h->head, h->in.size - h->head);
    lua_setfield(L, -2, "body");
  }
  lua_pushstring(L, h->final);
  lua_setfield(L, -2, "url");
  lua_pushstring(L, mli_http_protocol(h));
  lua_setfield(L, -2, "http_version");
  lml_http_push_times(L, &h->times);
  lua_setfield(L, -2, "timings");
  if (h->redirects) {
    push_redirects(L, h);
    lua_setfield(L, -2, "redirects");
  }
  luaL_setmetatable(L, RESPONSE);
  return 1;
}

enum { URL = 1, OPTIONS, BOX };

static int on_end(lua_State *L, int status, lua_KContext ctx) {
  mli_http *h = mli_container((mli_op *)ctx, mli_http, op);
  (void)status;
  luaL_checkstack(L, 8, NULL);
  int results = h->op.status == ML_OK ? lml_http_push_response(L, h) : lml_http_push_failure(L, h);
  lml_op_drop(lua_touserdata(L, BOX));
  return results;
}

/* The URL or nil and the options or nil are at their places. */
static int perform(lua_State *L, const char *method) {
  mli_loop *loop = lml_io_loop(L);
  mli_op **box = lml_op_box(L);
  mli_http *h = mli_http_new(loop);
  if (!h) return luaL_error(L, "not enough memory");
  *box = &h->op;
  lml_http_fill(L, h, method, URL, OPTIONS);
  if (h->attended) return lml_exchange_attend(L, box, OPTIONS);
  return lml_await_op(L, &h->op, MLI_FOREVER, on_end);
}

/* As luaL_checktype; the function's name is its last upvalue. */
static void check_type(lua_State *L, int arg, int type, int name) {
  if (lua_type(L, arg) != type)
    lml_misuse(L, "bad argument #%d to '%s' (%s expected, got %s)", arg,
               lua_tostring(L, lua_upvalueindex(name)), lua_typename(L, type),
               luaL_typename(L, arg));
}

static void check_arguments(lua_State *L, int name) {
  lua_settop(L, OPTIONS);
  check_type(L, URL, LUA_TSTRING, name);
  if (!lua_isnil(L, OPTIONS)) check_type(L, OPTIONS, LUA_TTABLE, name);
}

static int l_verb(lua_State *L) {
  check_arguments(L, 2);
  return perform(L, lua_tostring(L, lua_upvalueindex(1)));
}

static int l_request(lua_State *L) {
  if (lua_istable(L, URL)) {
    lua_settop(L, URL);
    lua_pushnil(L);
    lua_insert(L, URL);
  } else {
    check_arguments(L, 1);
  }
  return perform(L, NULL);
}

/* ---- responses ---- */

static const char *check_body(lua_State *L, size_t *size) {
  luaL_checktype(L, 1, LUA_TTABLE);
  if (lua_getfield(L, 1, "body") != LUA_TSTRING) luaL_argerror(L, 1, "response expected");
  return lua_tolstring(L, -1, size);
}

/* res:json(): the body's value; or nil and an error with the code "json". */
static int response_json(lua_State *L) {
  size_t size;
  check_body(L, &size);
  lml_http_push_json(L, "decode", "res:json()");
  lua_pushvalue(L, -2);
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) return 1;
  return lml_fail(L, "json", "the body is no JSON: %s", luaL_tolstring(L, -1, NULL));
}

/* res:raise_for_status(): the response; raises if its status is 400 or more. */
static int response_raise_for_status(lua_State *L) {
  char url[512];
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_getfield(L, 1, "status");
  lua_getfield(L, 1, "reason");
  lua_getfield(L, 1, "url");
  int status = (int)lua_tointeger(L, -3);
  if (status < 400) {
    lua_settop(L, 1);
    return 1;
  }
  const char *text = lua_tostring(L, -1), *reason = lua_tostring(L, -2);
  lml_error_push(L, "status", "%d %s: %s", status, reason ? reason : "",
                 mli_http_masked(text ? text : "", url, sizeof url));
  lua_pushinteger(L, status);
  lua_setfield(L, -2, "status");
  lua_pushvalue(L, 1);
  lua_setfield(L, -2, "response");
  return lua_error(L);
}

/* res[key]: a method, or a field that is made when it is first asked for. */
static int response_index(lua_State *L) {
  size_t size;
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL || lua_type(L, 2) != LUA_TSTRING) return 1;
  const char *key = lua_tostring(L, 2);
  if (strcmp(key, "cookies") == 0) {
    lua_pushliteral(L, "headers");
    if (lua_rawget(L, 1) != LUA_TTABLE || lua_rawgeti(L, -1, 1) != LUA_TSTRING) return 0;
    const char *head = lua_tolstring(L, -1, &size);
    lml_http_push_cookies(L, head, size);
  } else if (strcmp(key, "redirects") == 0) {
    lua_newtable(L);
  } else {
    return 0;
  }
  lua_pushvalue(L, 2);
  lua_pushvalue(L, -2);
  lua_rawset(L, 1);
  return 1;
}

static int response_tostring(lua_State *L) {
  char url[512];
  lua_getfield(L, 1, "status");
  lua_getfield(L, 1, "reason");
  lua_getfield(L, 1, "url");
  const char *text = lua_tostring(L, -1), *reason = lua_tostring(L, -2);
  lua_pushfstring(L, "response: %d %s: %s", (int)lua_tointeger(L, -3), reason ? reason : "",
                  mli_http_masked(text ? text : "", url, sizeof url));
  return 1;
}

/* ---- headers ---- */

static const char *check_head(lua_State *L, size_t *size) {
  luaL_checktype(L, 1, LUA_TTABLE);
  if (lua_rawgeti(L, 1, 1) != LUA_TSTRING) luaL_argerror(L, 1, "headers expected");
  return lua_tolstring(L, -1, size);
}

/* headers:get(name): the first value of that name, or nil. */
static int headers_get(lua_State *L) {
  size_t size, name_size, at = 0;
  const char *name = luaL_checklstring(L, 2, &name_size), *head = check_head(L, &size);
  mli_http_field field;
  if (!mli_http_next_field(head, size, &at, name, name_size, &field)) return 0;
  lua_pushlstring(L, field.value, field.value_size);
  return 1;
}

/* headers:all(name): a list of all values of that name, in order. */
static int headers_all(lua_State *L) {
  size_t size, name_size, at = 0;
  const char *name = luaL_checklstring(L, 2, &name_size), *head = check_head(L, &size);
  mli_http_field field;
  lua_newtable(L);
  for (lua_Integer i = 1; mli_http_next_field(head, size, &at, name, name_size, &field); i++) {
    lua_pushlstring(L, field.value, field.value_size);
    lua_rawseti(L, -2, i);
  }
  return 1;
}

static int next_header(lua_State *L) {
  size_t size, at = (size_t)lua_tointeger(L, lua_upvalueindex(2));
  const char *head = lua_tolstring(L, lua_upvalueindex(1), &size);
  mli_http_field field;
  if (!mli_http_next_field(head, size, &at, NULL, 0, &field)) return 0;
  lua_pushinteger(L, (lua_Integer)at);
  lua_replace(L, lua_upvalueindex(2));
  lua_pushlstring(L, field.name, field.name_size);
  lua_pushlstring(L, field.value, field.value_size);
  return 2;
}

/* headers:pairs(), and pairs(headers): name and value of each, in order. */
static int headers_pairs(lua_State *L) {
  size_t size;
  check_head(L, &size);
  lua_pushinteger(L, 0);
  lua_pushcclosure(L, next_header, 2);
  return 1;
}

/* headers[name]: a method, or what headers:get(name) gives. */
static int headers_index(lua_State *L) {
  if (lua_type(L, 2) != LUA_TSTRING) return 0;
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
  return headers_get(L);
}

static int headers_tostring(lua_State *L) {
  size_t size;
  check_head(L, &size);
  return 1;
}

/* ---- the module ---- */

/* Bodies become strings of their own, and those go: large blocks, which malloc would give back
** to the system at once and get again page by page, a fault for each. glibc goes by what it sees:
** of what is freed it keeps up to twice the largest block that was freed so far, for each arena.
** So it sees one. Where the host or the environment has set this, or with another malloc, it
** changes nothing. */
static void keep_freed_blocks(void) {
  void *volatile block = malloc((size_t)2 << 20);
  free(block);
}

static void make_response_class(lua_State *L) {
  static const luaL_Reg methods[] = { { "json", response_json },
                                      { "raise_for_status", response_raise_for_status },
                                      { NULL, NULL } };
  luaL_newmetatable(L, RESPONSE);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_pushcclosure(L, response_index, 1);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, response_tostring);
  lua_setfield(L, -2, "__tostring");
}

static void make_headers_class(lua_State *L) {
  static const luaL_Reg methods[] = {
    { "get", headers_get }, { "all", headers_all }, { "pairs", headers_pairs }, { NULL, NULL }
  };
  static const luaL_Reg metamethods[] = { { "__pairs", headers_pairs },
                                          { "__tostring", headers_tostring },
                                          { NULL, NULL } };
  luaL_newmetatable(L, HEADERS);
  luaL_setfuncs(L, metamethods, 0);
  luaL_newlib(L, methods);
  lua_pushcclosure(L, headers_index, 1);
  lua_setfield(L, -2, "__index");
}

ML_API int luaopen_moonloop_http_core(lua_State *L);

int luaopen_moonloop_http_core(lua_State *L) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  static const char *const verbs[][2] = {
    { "get", "GET" },       { "put", "PUT" },   { "post", "POST" },       { "patch", "PATCH" },
    { "delete", "DELETE" }, { "head", "HEAD" }, { "options", "OPTIONS" },
  };
  pthread_once(&once, keep_freed_blocks);
  lua_newtable(L);
  for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
    lua_pushstring(L, verbs[i][1]);
    lua_pushstring(L, verbs[i][0]);
    lua_pushcclosure(L, l_verb, 2);
    lua_setfield(L, -2, verbs[i][0]);
  }
  lua_pushliteral(L, "request");
  lua_pushcclosure(L, l_request, 1);
  lua_setfield(L, -2, "request");
  lml_http_session_open(L);
  lml_http_describe_open(L);
  make_response_class(L);
  lua_setfield(L, -2, "Response");
  make_headers_class(L);
  lua_setfield(L, -2, "Headers");
  lml_exchange_open(L);
  lml_http_file_open(L);
  return 1;
}
