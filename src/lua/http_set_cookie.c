/*
** http_set_cookie.c: res.cookies, made of the Set-Cookie headers when asked for.
**
**   res.cookies.session        the value of the cookie of that name
**   res.cookies[1]             { name, value, domain, path, expires, max_age,
**                                secure, http_only, same_site }
*/
#include "http.h"
#include "http/set_cookie.h"

static void set_text(lua_State *L, const char *name, const mli_http_span *s) {
  if (!s->text) return;
  lua_pushlstring(L, s->text, s->size);
  lua_setfield(L, -2, name);
}

static void push_cookie(lua_State *L, const mli_http_set_cookie *c) {
  lua_createtable(L, 0, 6);
  set_text(L, "name", &c->name);
  set_text(L, "value", &c->value);
  set_text(L, "domain", &c->domain);
  set_text(L, "path", &c->path);
  set_text(L, "same_site", &c->same_site);
  if (c->has_expires) {
    lua_pushinteger(L, c->expires);
    lua_setfield(L, -2, "expires");
  }
  if (c->has_max_age) {
    lua_pushinteger(L, c->max_age);
    lua_setfield(L, -2, "max_age");
  }
  lua_pushboolean(L, c->secure);
  lua_setfield(L, -2, "secure");
  lua_pushboolean(L, c->http_only);
  lua_setfield(L, -2, "http_only");
}

void lml_http_push_cookies(lua_State *L, const char *head, size_t size) {
  size_t at = 0;
  lua_Integer n = 0;
  mli_http_field field;
  mli_http_set_cookie c;
  lua_newtable(L);
  while (mli_http_next_field(head, size, &at, "Set-Cookie", 10, &field)) {
    if (!mli_http_set_cookie_read(field.value, field.value_size, &c)) continue;
    push_cookie(L, &c);
    lua_rawseti(L, -2, ++n);
    lua_pushlstring(L, c.name.text, c.name.size);
    lua_pushlstring(L, c.value.text, c.value.size);
    lua_rawset(L, -3);
  }
}
