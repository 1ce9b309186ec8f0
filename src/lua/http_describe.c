/*
** http_describe.c: a request as text, for http.to_curl, and the masking of
** secrets for Lua.
**
**   core.describe([url, ]options) -> { method, url, headers = { "Name: value" }, body }
**   core.mask_text(text) -> text      core.mask_line(line) -> line
**   core.is_secret(name) -> boolean   core.is_directory(path) -> boolean
**   core.user_agent
*/
#include <curl/curl.h>
#include <string.h>
#include <sys/stat.h>
#include "http.h"
#include "http/mask.h"

static int l_describe(lua_State *L) {
  lua_settop(L, 2);
  if (!lua_isnil(L, 2) && !lua_istable(L, 2))
    return lml_misuse(L, "to_curl: table of options expected, got %s", luaL_typename(L, 2));
  mli_op **box = lml_op_box(L);
  mli_http *h = mli_http_new(NULL);
  if (!h) return luaL_error(L, "not enough memory");
  *box = &h->op;
  lml_http_fill(L, h, NULL, 1, 2);
  lua_createtable(L, 0, 4);
  lua_pushstring(L, h->method);
  lua_setfield(L, -2, "method");
  lua_pushstring(L, h->url);
  lua_setfield(L, -2, "url");
  lua_newtable(L);
  lua_Integer n = 0;
  for (const struct curl_slist *node = h->headers; node; node = node->next) {
    lua_pushstring(L, node->data);
    lua_rawseti(L, -2, ++n);
  }
  lua_setfield(L, -2, "headers");
  if (h->body) {
    lua_pushlstring(L, h->body, h->body_size);
    lua_setfield(L, -2, "body");
  }
  lml_op_drop(box);
  return 1;
}

static int masked(lua_State *L, bool (*mask)(mli_buffer *, const char *, size_t)) {
  size_t size;
  const char *text = luaL_checklstring(L, 1, &size);
  /* Memory that Lua owns, and enough: "***;" for ";" is the most it grows by. */
  size_t room = 4 * size + 8;
  mli_buffer b = { lua_newuserdatauv(L, room, 0), 0, room };
  if (!mask(&b, text, size) || b.room != room) return luaL_error(L, "not enough memory");
  lua_pushlstring(L, b.bytes, b.size);
  return 1;
}

static int l_mask_text(lua_State *L) { return masked(L, mli_mask_text); }
static int l_mask_line(lua_State *L) { return masked(L, mli_mask_line); }

static int l_is_secret(lua_State *L) {
  size_t size;
  const char *name = luaL_checklstring(L, 1, &size);
  lua_pushboolean(L, mli_mask_is_secret(name, size));
  return 1;
}

static int l_is_directory(lua_State *L) {
  struct stat st;
  lua_pushboolean(L, stat(luaL_checkstring(L, 1), &st) == 0 && S_ISDIR(st.st_mode));
  return 1;
}

void lml_http_describe_open(lua_State *L) {
  static const luaL_Reg functions[] = {
    { "describe", l_describe },   { "mask_text", l_mask_text },       { "mask_line", l_mask_line },
    { "is_secret", l_is_secret }, { "is_directory", l_is_directory }, { NULL, NULL }
  };
  luaL_setfuncs(L, functions, 0);
  lua_pushliteral(L, "moonloop/" ML_VERSION);
  lua_setfield(L, -2, "user_agent");
}
