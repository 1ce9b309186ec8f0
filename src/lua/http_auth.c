/*
** http_auth.c: who we are.
**
**   auth = { user, password[, type = "basic" or "digest"] }
**   auth = { bearer = token }
**   auth = { netrc = true or path }
*/
#include <string.h>
#include "http_options.h"

static void read_user(lua_State *L, mli_http *h, mli_http_extra *x) {
  lua_geti(L, -1, 1);
  x->user = lml_http_string(L, h, "auth[1]");
  if (strchr(x->user, ':') && x->auth == MLI_HTTP_BASIC)
    lml_misuse(L, "option 'auth': a user of Basic authentication cannot contain ':'");
  lua_pop(L, 1);
  lua_geti(L, -1, 2);
  x->password = lml_http_string(L, h, "auth[2]");
  lua_pop(L, 1);
}

static void read_type(lua_State *L, mli_http_extra *x) {
  static const char name[] = "auth.type";
  x->auth = MLI_HTTP_BASIC;
  if (lua_getfield(L, -1, "type") != LUA_TNIL) {
    lml_http_check_type(L, name, LUA_TSTRING);
    const char *type = lua_tostring(L, -1);
    if (strcmp(type, "digest") == 0)
      x->auth = MLI_HTTP_DIGEST;
    else if (strcmp(type, "basic") != 0)
      lml_misuse(L, "option '%s': 'basic' or 'digest' expected, got '%s'", name, type);
  }
  lua_pop(L, 1);
}

static void read_bearer(lua_State *L, mli_http *h, const char *name) {
  mli_http_extra *x = lml_http_extra(L, h);
  x->token = lml_http_string(L, h, name);
  if (!mli_http_is_value(x->token, strlen(x->token)))
    lml_misuse(L, "option '%s': a token must not contain a line break", name);
  x->auth = MLI_HTTP_BEARER;
}

static void read_netrc(lua_State *L, mli_http *h, const char *name) {
  mli_http_extra *x = lml_http_extra(L, h);
  if (lua_isboolean(L, -1)) {
    x->netrc = lua_toboolean(L, -1);
    return;
  }
  if (lua_type(L, -1) != LUA_TSTRING) lml_http_wrong_type(L, name, "boolean or path");
  x->netrc = true;
  x->netrc_file = lml_http_string(L, h, name);
}

void lml_http_read_auth(lua_State *L, mli_http *h, const char *name) {
  static const lml_http_option by_name[] = { { "auth.bearer", read_bearer },
                                             { "auth.netrc", read_netrc } };
  lml_http_check_type(L, name, LUA_TTABLE);
  int type = lua_geti(L, -1, 1);
  lua_pop(L, 1);
  if (type == LUA_TNIL) {
    lua_pushnil(L);
    if (!lua_next(L, -2))
      lml_misuse(L,
                 "option '%s': { user, password }, { bearer = token } or { netrc = true } "
                 "expected",
                 name);
    lua_pop(L, 2);
    lml_http_read_options(L, h, by_name, 2, "auth.");
    if (h->extra->auth == MLI_HTTP_BEARER && h->extra->netrc)
      lml_misuse(L, "options 'auth.bearer' and 'auth.netrc' exclude each other");
    return;
  }
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    lua_Integer i = lua_isinteger(L, -2) ? lua_tointeger(L, -2) : 0;
    bool is_type = lua_type(L, -2) == LUA_TSTRING && strcmp(lua_tostring(L, -2), "type") == 0;
    if (i != 1 && i != 2 && !is_type)
      lml_misuse(L, "option '%s': { user, password, type = ... } has no '%s'", name,
                 luaL_tolstring(L, -2, NULL));
  }
  mli_http_extra *x = lml_http_extra(L, h);
  read_type(L, x);
  h->negotiates = x->auth == MLI_HTTP_DIGEST;
  read_user(L, h, x);
}
