/*
** http_options.c: the options of a request.
**
** Those of a kind are read in files of their own: see http_options.h.
*/
#include "http_options.h"
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void *lml_http_checked(lua_State *L, void *p) {
  if (!p) luaL_error(L, "not enough memory");
  return p;
}

mli_http_extra *lml_http_extra(lua_State *L, mli_http *h) {
  return lml_http_checked(L, mli_http_extra_get(h));
}

void lml_http_wrong_type(lua_State *L, const char *name, const char *wanted) {
  lml_misuse(L, "option '%s': %s expected, got %s", name, wanted, luaL_typename(L, -1));
  abort(); /* it does not return */
}

void lml_http_check_type(lua_State *L, const char *name, int type) {
  if (lua_type(L, -1) != type) lml_http_wrong_type(L, name, lua_typename(L, type));
}

/* ---- names ---- */

/* How many letters have to be put, dropped or changed to get from a to b. */
static unsigned distance(const char *a, const char *b) {
  unsigned row[32];
  size_t n = strlen(b);
  if (n >= 32) return 32;
  for (size_t j = 0; j <= n; j++) row[j] = (unsigned)j;
  for (unsigned i = 1; *a; a++, i++) {
    unsigned diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= n; j++) {
      unsigned change = diagonal + (*a != b[j - 1]), drop = row[j] + 1, put = row[j - 1] + 1;
      diagonal = row[j];
      row[j] = change < drop ? change : drop;
      if (put < row[j]) row[j] = put;
    }
  }
  return row[n];
}

static const char *nearest_to(const char *key, const lml_http_option *options, size_t n) {
  const char *nearest = options[0].name;
  for (size_t i = 1; i < n; i++)
    if (distance(key, options[i].name) < distance(key, nearest)) nearest = options[i].name;
  return nearest;
}

static int by_name(const void *key, const void *o) {
  return strcmp(key, ((const lml_http_option *)o)->name);
}

void lml_http_read_options(lua_State *L, mli_http *h, const lml_http_option *options, size_t n,
                           const char *prefix) {
  luaL_checkstack(L, 10, NULL);
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      lml_misuse(L, "the name of an option must be a string, got %s", luaL_typename(L, -2));
    const char *key = lua_tostring(L, -2);
    if (*prefix) key = lua_pushfstring(L, "%s%s", prefix, key);
    const lml_http_option *o = bsearch(key, options, n, sizeof *options, by_name);
    if (!o)
      lml_misuse(L, "unknown option '%s': the nearest is '%s'", key, nearest_to(key, options, n));
    if (*prefix) lua_pop(L, 1);
    if (o) o->read(L, h, o->name);
  }
}

/* ---- the options ---- */

bool lml_http_boolean(lua_State *L, const char *name) {
  lml_http_check_type(L, name, LUA_TBOOLEAN);
  return lua_toboolean(L, -1);
}

int64_t lml_http_seconds(lua_State *L, const char *name) {
  if (lua_type(L, -1) != LUA_TNUMBER) lml_http_wrong_type(L, name, "number of seconds");
  lua_Number s = lua_tonumber(L, -1);
  if (isnan(s) || s < 0)
    lml_misuse(L, "option '%s': a number of seconds must not be negative or NaN, got %f", name, s);
  return s > 2e6 ? MLI_HTTP_NO_TIMEOUT : (int64_t)ceil(s * 1e3); /* 2e6: beyond libcurl's range */
}

lua_Integer lml_http_count(lua_State *L, const char *name) {
  int whole = 0;
  lml_http_check_type(L, name, LUA_TNUMBER);
  lua_Integer n = lua_tointegerx(L, -1, &whole);
  if (!whole || n < 0)
    lml_misuse(L, "option '%s': an integer that is not negative expected, got %f", name,
               lua_tonumber(L, -1));
  return n;
}

const char *lml_http_string(lua_State *L, mli_http *h, const char *name) {
  size_t size;
  lml_http_check_type(L, name, LUA_TSTRING);
  const char *s = lua_tolstring(L, -1, &size);
  if (strlen(s) != size) lml_misuse(L, "option '%s': it must not contain a NUL byte", name);
  return lml_http_checked(L, mli_http_text(h, s, size));
}

/* ---- time and size ---- */

static void read_timeout(lua_State *L, mli_http *h, const char *name) {
  h->timeout = lml_http_seconds(L, name);
}
static void read_connect_timeout(lua_State *L, mli_http *h, const char *name) {
  h->connect_timeout = lml_http_seconds(L, name);
}
static void read_follow(lua_State *L, mli_http *h, const char *name) {
  h->follow = lml_http_boolean(L, name);
}
static void read_compressed(lua_State *L, mli_http *h, const char *name) {
  h->compressed = lml_http_boolean(L, name);
}
static void read_max_body(lua_State *L, mli_http *h, const char *name) {
  h->max_body = (uint64_t)lml_http_count(L, name);
}
static void read_max_redirects(lua_State *L, mli_http *h, const char *name) {
  lua_Integer n = lml_http_count(L, name);
  h->max_redirects = n > 10000 ? 10000 : (long)n;
}

/* { bytes a second, seconds }; or seconds without a single byte. */
static void read_stall(lua_State *L, mli_http *h, const char *name) {
  mli_http_extra *x = lml_http_extra(L, h);
  double bytes = 0;
  if (lua_istable(L, -1)) {
    if (lua_geti(L, -1, 1) != LUA_TNUMBER || !((bytes = lua_tonumber(L, -1)) > 0 && bytes < 1e15))
      lml_misuse(L, "option '%s': { bytes a second, seconds } expected, both more than 0", name);
    lua_geti(L, -2, 2);
    lua_replace(L, -2);
    x->stall_time = lml_http_seconds(L, name);
    lua_pop(L, 1);
  } else {
    x->stall_time = lml_http_seconds(L, name);
  }
  if (x->stall_time == 0) lml_misuse(L, "option '%s': more than 0 seconds expected", name);
  if (x->stall_time == MLI_HTTP_NO_TIMEOUT) x->stall_time = 0;
  bytes = ceil(bytes * (double)x->stall_time / 1e3);
  x->stall_bytes = bytes < 1 ? 1 : (uint64_t)bytes;
}

static void read_http_version(lua_State *L, mli_http *h, const char *name) {
  lml_http_check_type(L, name, LUA_TSTRING);
  const char *s = lua_tostring(L, -1);
  if (strcmp(s, "1.1") == 0)
    h->version = MLI_HTTP_1_1;
  else if (strcmp(s, "2") == 0)
    h->version = MLI_HTTP_2;
  else if (strcmp(s, "2-prior-knowledge") == 0)
    h->version = MLI_HTTP_2_PRIOR;
  else
    lml_misuse(L, "option '%s': '1.1', '2' or '2-prior-knowledge' expected, got '%s'", name, s);
}

/* ---- bodies ---- */

static void only_body(lua_State *L, const mli_http *h) {
  if (h->body || h->uploads)
    lml_misuse(L, "options 'body', 'form', 'json' and 'multipart' exclude each other");
}

static void set_body(lua_State *L, mli_http *h, int index) {
  const char *s = lua_tolstring(L, index, &h->body_size);
  only_body(L, h);
  h->body = lml_http_checked(L, mli_http_text(h, s, h->body_size));
}

static bool is_callable(lua_State *L) {
  if (lua_isfunction(L, -1)) return true;
  bool is = luaL_getmetafield(L, -1, "__call") != LUA_TNIL;
  if (is) lua_pop(L, 1);
  return is;
}

/* A string; or what lua/moonloop/http/exchange.lua puts piece by piece. */
static void read_body(lua_State *L, mli_http *h, const char *name) {
  if (lua_type(L, -1) == LUA_TSTRING) {
    set_body(L, h, -1);
    return;
  }
  only_body(L, h);
  if (!is_callable(L)) {
    if (!lua_istable(L, -1))
      lml_http_wrong_type(L, name, "string, function, generator or { file = path }");
    if (lua_getfield(L, -1, "file") != LUA_TSTRING)
      lml_misuse(L, "option 'body.file': string expected, got %s", luaL_typename(L, -1));
    lua_pop(L, 1);
  }
  h->uploads = h->attended = true;
}

/* A body that lua/moonloop/http/multipart.lua puts piece by piece. */
static void read_multipart(lua_State *L, mli_http *h, const char *name) {
  lml_http_check_type(L, name, LUA_TTABLE);
  only_body(L, h);
  h->uploads = h->attended = true;
}

static void read_length(lua_State *L, mli_http *h, const char *name) {
  lml_http_count(L, name);
  h->attended = true;
}

static void read_stream(lua_State *L, mli_http *h, const char *name) {
  h->streams = lml_http_boolean(L, name);
  h->attended = h->attended || h->streams;
}

static void read_on_progress(lua_State *L, mli_http *h, const char *name) {
  lml_http_check_type(L, name, LUA_TFUNCTION);
  h->attended = true;
}

/* Called by exchange.lua. */
static void read_on_debug(lua_State *L, mli_http *h, const char *name) {
  lml_http_check_type(L, name, LUA_TFUNCTION);
  lml_http_extra(L, h)->debug = true;
  h->attended = true;
}

static void read_json(lua_State *L, mli_http *h, const char *name) {
  lml_http_push_json(L, "encode", "option 'json'");
  lua_pushvalue(L, -2);
  if (lua_pcall(L, 1, 1, 0) != LUA_OK)
    lml_misuse(L, "option '%s': %s", name, luaL_tolstring(L, -1, NULL));
  set_body(L, h, -1);
  lua_pop(L, 1);
  h->type = "application/json";
}

static void read_form(lua_State *L, mli_http *h, const char *name) {
  only_body(L, h);
  h->body = lml_http_encode(L, h, name, 0, &h->body_size);
  h->type = "application/x-www-form-urlencoded";
}

/* Whether the server is asked first if it takes the body; or for how long it is
** waited for, in seconds. */
static void read_expect(lua_State *L, mli_http *h, const char *name) {
  bool asked = true;
  if (lua_isboolean(L, -1)) {
    asked = lua_toboolean(L, -1);
  } else {
    int64_t ms = lml_http_seconds(L, name);
    lml_http_extra(L, h)->expect = ms == MLI_HTTP_NO_TIMEOUT ? INT32_MAX : ms ? ms : 1;
  }
  if (asked && !mli_http_add_header(h, "Expect", 6, "100-continue", 12)) lml_http_checked(L, NULL);
}

/* ---- what is asked for ---- */

static void read_method(lua_State *L, mli_http *h, const char *name) {
  size_t size;
  lml_http_check_type(L, name, LUA_TSTRING);
  const char *s = lua_tolstring(L, -1, &size);
  if (!mli_http_is_token(s, size)) lml_misuse(L, "option '%s': '%s' is no method", name, s);
  char *method = lml_http_checked(L, mli_http_text(h, s, size));
  for (char *p = method; *p; p++) *p = (char)toupper((unsigned char)*p);
  h->method = method;
}

/* "0-99", "100-", "-50", several joined by ","; or { first[, last] }. */
static void read_range(lua_State *L, mli_http *h, const char *name) {
  const char *s;
  if (lua_istable(L, -1)) {
    lua_geti(L, -1, 1);
    lua_Integer first = lml_http_count(L, name), last = -1;
    if (lua_geti(L, -2, 2) != LUA_TNIL) last = lml_http_count(L, name);
    if (last >= 0 && last < first)
      lml_misuse(L, "option '%s': the last byte comes before the first", name);
    if (last >= 0)
      s = lua_pushfstring(L, "bytes=%I-%I", first, last);
    else
      s = lua_pushfstring(L, "bytes=%I-", first);
    lua_insert(L, -3);
    lua_pop(L, 2);
  } else {
    if (lua_type(L, -1) != LUA_TSTRING) lml_http_wrong_type(L, name, "string or table");
    s = lua_tostring(L, -1);
    if (!*s || lua_rawlen(L, -1) != strspn(s, "0123456789-, ") || !strchr(s, '-'))
      lml_misuse(L, "option '%s': ranges such as '0-99' expected, got '%s'", name, s);
    s = lua_pushfstring(L, "bytes=%s", s);
  }
  if (!mli_http_add_header(h, "Range", 5, s, strlen(s))) lml_http_checked(L, NULL);
  lua_pop(L, 1);
}

static void set_url(lua_State *L, mli_http *h, int index, const char *what) {
  size_t size;
  const char *s = lua_tolstring(L, index, &size);
  if (strlen(s) != size) lml_misuse(L, "%s: a URL must not contain a NUL byte", what);
  h->url = lml_http_checked(L, mli_http_text(h, s, size));
}

/* Put here by lua/moonloop/http/session.lua. */
static void read_session(lua_State *L, mli_http *h, const char *name) {
  mli_http_session *session = lml_http_session_test(L, -1);
  if (session)
    h->session = mli_retain(session);
  else
    lml_http_wrong_type(L, name, "core of a session");
}

/* lua/moonloop/http/retry.lua has gone by it. */
static void read_retries(lua_State *L, mli_http *h, const char *name) {
  (void)L, (void)h, (void)name;
}

static void read_url(lua_State *L, mli_http *h, const char *name) {
  lml_http_check_type(L, name, LUA_TSTRING);
  set_url(L, h, -1, "option 'url'");
}

/* ---- headers ---- */

/* Adds the header called `key` with the string or number on top of the stack. */
static void add_header(lua_State *L, mli_http *h, const char *name, const char *key, size_t size) {
  size_t value_size;
  int type = lua_type(L, -1);
  if (type != LUA_TSTRING && type != LUA_TNUMBER)
    lml_misuse(L, "option '%s': '%s' must be a string, a number or a list of them, got %s", name,
               key, luaL_typename(L, -1));
  lua_pushvalue(L, -1);
  const char *value = lua_tolstring(L, -1, &value_size);
  if (!mli_http_is_value(value, value_size))
    lml_misuse(L, "option '%s': the value of '%s' contains a line break or a NUL byte", name, key);
  if (!mli_http_add_header(h, key, size, value, value_size)) lml_http_checked(L, NULL);
  lua_pop(L, 1);
}

static void read_headers(lua_State *L, mli_http *h, const char *name) {
  lml_http_check_type(L, name, LUA_TTABLE);
  luaL_checkstack(L, 6, NULL);
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    size_t size;
    if (lua_type(L, -2) != LUA_TSTRING)
      lml_misuse(L, "option '%s': the name of a header must be a string, got %s", name,
                 luaL_typename(L, -2));
    const char *key = lua_tolstring(L, -2, &size);
    if (!mli_http_is_token(key, size))
      lml_misuse(L, "option '%s': '%s' is no name of a header", name, key);
    if (!lua_istable(L, -1)) {
      add_header(L, h, name, key, size);
      continue;
    }
    for (lua_Integer i = 1; lua_rawgeti(L, -1, i) != LUA_TNIL; i++, lua_pop(L, 1))
      add_header(L, h, name, key, size);
    lua_pop(L, 1);
  }
}

/* ---- query ---- */

/* Puts the query of the table on top of the stack into the URL. */
static void append_query(lua_State *L, mli_http *h) {
  size_t base = strcspn(h->url, "#"), size;
  char *url = lml_http_encode(L, h, "query", base + 1, &size);
  size_t start = base;
  memcpy(url, h->url, base);
  if (!memchr(h->url, '?', base))
    url[start++] = '?';
  else if (h->url[base - 1] != '?' && h->url[base - 1] != '&')
    url[start++] = '&';
  if (size)
    memmove(url + start, url + base + 1, size + 1);
  else
    url[base] = 0;
  h->url = url;
}

static void read_query(lua_State *L, mli_http *h, const char *name) {
  (void)h;
  lml_http_check_type(L, name, LUA_TTABLE); /* the URL may come later: see lml_http_fill */
}

/* ---- all together ---- */

static const lml_http_option options_of_request[] = {
  { "auth", lml_http_read_auth },
  { "body", read_body },
  { "compressed", read_compressed },
  { "connect_timeout", read_connect_timeout },
  { "expect", read_expect },
  { "follow", read_follow },
  { "form", read_form },
  { "headers", read_headers },
  { "http_version", read_http_version },
  { "interface", lml_http_read_interface },
  { "json", read_json },
  { "length", read_length },
  { "max_body", read_max_body },
  { "max_redirects", read_max_redirects },
  { "method", read_method },
  { "multipart", read_multipart },
  { "on_debug", read_on_debug },
  { "on_progress", read_on_progress },
  { "proxy", lml_http_read_proxy },
  { "query", read_query },
  { "range", read_range },
  { "resolve", lml_http_read_resolve },
  { "retries", read_retries },
  { "session", read_session },
  { "stall", read_stall },
  { "stream", read_stream },
  { "timeout", read_timeout },
  { "tls", lml_http_read_tls },
  { "unix_socket", lml_http_read_unix_socket },
  { "url", read_url },
};

static void refuse_option(lua_State *L, int options, const char *name) {
  if (lua_getfield(L, options, name) != LUA_TNIL)
    lml_misuse(L, "option '%s' is for http.request", name);
  lua_pop(L, 1);
}

/* Lua: is_option(name): true, or false and the name of the option that is nearest. */
int lml_http_is_option(lua_State *L) {
  const size_t n = sizeof options_of_request / sizeof *options_of_request;
  const char *name = luaL_checkstring(L, 1), *nearest = nearest_to(name, options_of_request, n);
  lua_pushboolean(L, strcmp(name, nearest) == 0);
  lua_pushstring(L, nearest);
  return 2;
}

void lml_http_fill(lua_State *L, mli_http *h, const char *method, int url, int options) {
  if (method) h->method = method;
  if (!lua_isnil(L, options)) {
    if (method) {
      refuse_option(L, options, "method");
      refuse_option(L, options, "url");
    }
    lua_pushvalue(L, options);
    lml_http_read_options(L, h, options_of_request,
                          sizeof options_of_request / sizeof *options_of_request, "");
    lua_pop(L, 1);
  }
  if (!lua_isnil(L, url)) {
    if (h->url) lml_misuse(L, "option 'url' is given besides the argument");
    set_url(L, h, url, "argument #1");
  }
  if (!h->url) lml_misuse(L, "option 'url' is missing");
  if (h->type && !mli_http_header(h, "Content-Type") &&
      !mli_http_add_header(h, "Content-Type", 12, h->type, strlen(h->type)))
    lml_http_checked(L, NULL);
  if (lua_isnil(L, options)) return;
  /* What is compressed cannot be decoded from the middle. */
  if (mli_http_header(h, "Range")) h->compressed = false;
  if (lua_getfield(L, options, "query") == LUA_TTABLE) append_query(L, h);
  lua_pop(L, 1);
}
