/*
** http_session.c: the core of sessions; lua/moonloop/http/session.lua is their front.
**
**   local core = require "moonloop.http.core"
**   s = core.session(cookies)               core.default_session()
**   s:close()                               true: it was open until now
**   s:closed()
**   s:stats()                               a table of counts
**   s:limits([connections, per_host, host_streams])   sets them; or gives them
**   s:load(path)   s:save(path)             cookie files; s:save: true, or nil, err
**   s:put(line)    s:lines()    s:clear()   cookies, as lines of such a file
**
** A request of a session has it as its option `session`. Handles cross states by
** reference; the session is closed with the last.
*/
#include <string.h>
#include "http.h"
#include "http/address.h"
#include "http/cookies.h"

mli_http_session *lml_http_session_test(lua_State *L, int index) {
  mli_object *object = lml_handle_test(L, index, &mli_http_session_type);
  return object ? mli_container(object, mli_http_session, object) : NULL;
}

static mli_http_session *check(lua_State *L) {
  mli_http_session *s = lml_http_session_test(L, 1);
  if (!s) luaL_typeerror(L, 1, "http session");
  return s;
}

static int no_memory(lua_State *L) { return luaL_error(L, "not enough memory"); }

static int l_session(lua_State *L) {
  lml_handle *h = lml_handle_new(L, &mli_http_session_type);
  mli_http_session *s = mli_http_session_new(lua_toboolean(L, 1));
  if (!s) return no_memory(L);
  h->object = &s->object;
  return 1;
}

static int l_default_session(lua_State *L) {
  mli_http_session *s = mli_http_session_default();
  if (!s) return no_memory(L);
  lml_handle_push(L, &s->object);
  return 1;
}

static int s_close(lua_State *L) {
  mli_http_session *s = check(L);
  lua_pushboolean(L, mli_http_session_close(s));
  return 1;
}

static int s_closed(lua_State *L) {
  lua_pushboolean(L, atomic_load(&check(L)->closed));
  return 1;
}

static int s_tostring(lua_State *L) {
  mli_http_session *s = check(L);
  lua_pushfstring(L, "http session: %p%s", (void *)s, atomic_load(&s->closed) ? " (closed)" : "");
  return 1;
}

/* ---- counts and limits ---- */

static void set_count(lua_State *L, const char *name, uint64_t n) {
  lua_pushinteger(L, (lua_Integer)n);
  lua_setfield(L, -2, name);
}

static int s_stats(lua_State *L) {
  mli_http_counts c = mli_http_session_counts(check(L));
  lua_createtable(L, 0, 6);
  set_count(L, "requests", c.requests);
  set_count(L, "made", c.made);
  set_count(L, "reused", c.reused);
  set_count(L, "queued", c.queued);
  set_count(L, "in_use", c.active > c.queued ? c.active - c.queued : 0);
  set_count(L, "connections", c.connections);
  return 1;
}

static void push_limit(lua_State *L, long limit) {
  if (limit)
    lua_pushinteger(L, limit);
  else
    lua_pushnil(L);
}

static int s_limits(lua_State *L) {
  mli_http_session *s = check(L);
  if (lua_gettop(L) == 1) {
    mli_http_limits l = mli_http_session_limits(s);
    push_limit(L, l.connections);
    push_limit(L, l.per_host);
    push_limit(L, l.host_streams);
    return 3;
  }
  mli_http_limits l = {
    .connections = (long)luaL_optinteger(L, 2, 0),
    .per_host = (long)luaL_optinteger(L, 3, 0),
    .host_streams = (long)luaL_optinteger(L, 4, 0),
  };
  mli_http_session_limit(s, &l);
  return 0;
}

/* ---- cookies ---- */

static int s_load(lua_State *L) {
  if (!mli_http_cookies_load(check(L), luaL_checkstring(L, 2))) return no_memory(L);
  return 0;
}

static int s_save(lua_State *L) {
  const char *path = luaL_checkstring(L, 2);
  int err = mli_http_cookies_save(check(L), path);
  if (err) return lml_fail(L, "file", "cannot write the cookies to %s: %s", path, strerror(err));
  lua_pushboolean(L, true);
  return 1;
}

static int s_put(lua_State *L) {
  if (!mli_http_cookies_put(check(L), luaL_checkstring(L, 2))) return no_memory(L);
  return 0;
}

static int s_clear(lua_State *L) {
  if (!mli_http_cookies_clear(check(L))) return no_memory(L);
  return 0;
}

static int free_lines(lua_State *L) {
  struct curl_slist **lines = lua_touserdata(L, 1);
  curl_slist_free_all(*lines);
  *lines = NULL;
  return 0;
}

static int s_lines(lua_State *L) {
  mli_http_session *s = check(L);
  struct curl_slist **lines = lua_newuserdatauv(L, sizeof *lines, 0);
  *lines = NULL;
  if (luaL_newmetatable(L, "moonloop.http.lines")) {
    lua_pushcfunction(L, free_lines);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  if (!mli_http_cookies_list(s, lines)) return no_memory(L);
  lua_newtable(L);
  lua_Integer n = 0;
  for (const struct curl_slist *line = *lines; line; line = line->next) {
    if (mli_http_cookie_expired(line->data)) continue;
    lua_pushstring(L, line->data);
    lua_rawseti(L, -2, ++n);
  }
  curl_slist_free_all(*lines);
  *lines = NULL;
  return 1;
}

/* ---- URLs, dates ---- */

static int free_text(lua_State *L) {
  char **text = lua_touserdata(L, 1);
  curl_free(*text);
  *text = NULL;
  return 0;
}

/* core.join(base, url): the URL, as a page at `base` would mean it, and whether it has
** the scheme, host and port of `base`; or nil and what is wrong. */
static int l_join(lua_State *L) {
  const char *base = luaL_checkstring(L, 1), *text = luaL_checkstring(L, 2), *why = NULL;
  bool same = false;
  char **joined = lua_newuserdatauv(L, sizeof *joined, 0);
  *joined = NULL;
  if (luaL_newmetatable(L, "moonloop.http.text")) {
    lua_pushcfunction(L, free_text);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  *joined = mli_http_join(base, text, &same, &why);
  lua_pushstring(L, *joined);
  if (*joined)
    lua_pushboolean(L, same);
  else
    lua_pushstring(L, why);
  return 2;
}

/* core.date(text): seconds since 1970, or nil: that is no date of HTTP. */
static int l_date(lua_State *L) {
  time_t at = curl_getdate(luaL_checkstring(L, 1), NULL);
  if (at == -1)
    lua_pushnil(L);
  else
    lua_pushinteger(L, (lua_Integer)at);
  return 1;
}

/* ---- the module ---- */

void lml_http_session_open(lua_State *L) {
  static const luaL_Reg functions[] = { { "session", l_session },
                                        { "default_session", l_default_session },
                                        { "is_option", lml_http_is_option },
                                        { "join", l_join },
                                        { "date", l_date },
                                        { NULL, NULL } };
  static const luaL_Reg methods[] = {
    { "close", s_close },   { "stats", s_stats }, { "limits", s_limits }, { "load", s_load },
    { "save", s_save },     { "put", s_put },     { "lines", s_lines },   { "clear", s_clear },
    { "closed", s_closed }, { NULL, NULL },
  };
  static const luaL_Reg metamethods[] = { { "__gc", lml_handle_gc },
                                          { "__eq", lml_handle_eq },
                                          { "__tostring", s_tostring },
                                          { NULL, NULL } };
  luaL_setfuncs(L, functions, 0);
  lua_newtable(L);
  lua_pushliteral(L, "http session");
  lua_setfield(L, -2, "__name");
  luaL_setfuncs(L, metamethods, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lml_handle_declare(L, &mli_http_session_type);
  lua_pop(L, 1);
}
