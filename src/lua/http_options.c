/*
** http_options.c: the options of a request.
**
**   { method, url, query, headers, body, json, timeout, connect_timeout, follow,
**     max_redirects, http_version, tls = { verify, ca }, compressed, max_body }
*/
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "http.h"

/* A value of an option is on top of the stack; `name` is for messages. */
typedef struct option {
  const char *name;
  void (*read)(lua_State *L, mli_http *h, const char *name);
} option;

static _Noreturn void no_memory(lua_State *L) {
  luaL_error(L, "not enough memory");
  abort(); /* luaL_error does not return */
}

static void *checked(lua_State *L, void *p) {
  if (!p) no_memory(L);
  return p;
}

static void wrong_type(lua_State *L, const char *name, const char *wanted) {
  lml_misuse(L, "option '%s': %s expected, got %s", name, wanted, luaL_typename(L, -1));
}

static void check_type(lua_State *L, const char *name, int type) {
  if (lua_type(L, -1) != type) wrong_type(L, name, lua_typename(L, type));
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

static const char *nearest_to(const char *key, const option *options, size_t n) {
  const char *nearest = options[0].name;
  for (size_t i = 1; i < n; i++)
    if (distance(key, options[i].name) < distance(key, nearest)) nearest = options[i].name;
  return nearest;
}

static void unknown(lua_State *L, const option *options, size_t n, const char *prefix,
                    const char *key) {
  const char *nearest = nearest_to(key, options, n);
  lml_misuse(L, "unknown option '%s%s': the nearest is '%s%s'", prefix, key, prefix, nearest);
}

static int by_name(const void *key, const void *o) {
  return strcmp(key, ((const option *)o)->name);
}

/* Reads each option of the table on top of the stack. */
static void read_options(lua_State *L, mli_http *h, const option *options, size_t n,
                         const char *prefix) {
  luaL_checkstack(L, 8, NULL);
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      lml_misuse(L, "the name of an option must be a string, got %s", luaL_typename(L, -2));
    const char *key = lua_tostring(L, -2);
    const option *o = bsearch(key, options, n, sizeof *options, by_name);
    if (!o)
      unknown(L, options, n, prefix, key);
    else
      o->read(L, h, o->name);
  }
}

/* ---- the options ---- */

static void read_boolean(lua_State *L, const char *name, bool *to) {
  check_type(L, name, LUA_TBOOLEAN);
  *to = lua_toboolean(L, -1);
}

static int64_t read_seconds(lua_State *L, const char *name) {
  if (lua_type(L, -1) != LUA_TNUMBER) wrong_type(L, name, "number of seconds");
  lua_Number s = lua_tonumber(L, -1);
  if (isnan(s) || s < 0)
    lml_misuse(L, "option '%s': a number of seconds must not be negative or NaN, got %f", name, s);
  return s > 2e6 ? MLI_HTTP_NO_TIMEOUT : (int64_t)ceil(s * 1e3); /* 2e6: beyond libcurl's range */
}

static lua_Integer read_count(lua_State *L, const char *name) {
  int whole = 0;
  check_type(L, name, LUA_TNUMBER);
  lua_Integer n = lua_tointegerx(L, -1, &whole);
  if (!whole || n < 0)
    lml_misuse(L, "option '%s': an integer that is not negative expected, got %f", name,
               lua_tonumber(L, -1));
  return n;
}

static void read_timeout(lua_State *L, mli_http *h, const char *name) {
  h->timeout = read_seconds(L, name);
}
static void read_connect_timeout(lua_State *L, mli_http *h, const char *name) {
  h->connect_timeout = read_seconds(L, name);
}
static void read_follow(lua_State *L, mli_http *h, const char *name) {
  read_boolean(L, name, &h->follow);
}
static void read_compressed(lua_State *L, mli_http *h, const char *name) {
  read_boolean(L, name, &h->compressed);
}
static void read_max_body(lua_State *L, mli_http *h, const char *name) {
  h->max_body = (uint64_t)read_count(L, name);
}
static void read_max_redirects(lua_State *L, mli_http *h, const char *name) {
  lua_Integer n = read_count(L, name);
  h->max_redirects = n > 10000 ? 10000 : (long)n;
}

static void read_http_version(lua_State *L, mli_http *h, const char *name) {
  check_type(L, name, LUA_TSTRING);
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

static void set_body(lua_State *L, mli_http *h, int index) {
  if (h->body || h->uploads) lml_misuse(L, "options 'body' and 'json' exclude each other");
  const char *s = lua_tolstring(L, index, &h->body_size);
  h->body = checked(L, mli_http_text(h, s, h->body_size));
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
  if (h->body) lml_misuse(L, "options 'body' and 'json' exclude each other");
  if (!is_callable(L)) wrong_type(L, name, "string, function or generator");
  h->uploads = h->attended = true;
}

static void read_length(lua_State *L, mli_http *h, const char *name) {
  (void)h;
  read_count(L, name);
}

static void read_stream(lua_State *L, mli_http *h, const char *name) {
  read_boolean(L, name, &h->streams);
  h->attended = h->attended || h->streams;
}

static void read_on_progress(lua_State *L, mli_http *h, const char *name) {
  check_type(L, name, LUA_TFUNCTION);
  h->attended = true;
}

static void read_json(lua_State *L, mli_http *h, const char *name) {
  lml_http_push_json(L, "encode", "option 'json'");
  lua_pushvalue(L, -2);
  if (lua_pcall(L, 1, 1, 0) != LUA_OK)
    lml_misuse(L, "option '%s': %s", name, luaL_tolstring(L, -1, NULL));
  set_body(L, h, -1);
  lua_pop(L, 1);
  h->json = true;
}

static void read_verify(lua_State *L, mli_http *h, const char *name) {
  read_boolean(L, name, &h->verify);
}
static void read_ca(lua_State *L, mli_http *h, const char *name) {
  size_t size;
  check_type(L, name, LUA_TSTRING);
  const char *path = lua_tolstring(L, -1, &size);
  h->ca = checked(L, mli_http_text(h, path, size));
}

static void read_tls(lua_State *L, mli_http *h, const char *name) {
  static const option options[] = { { "ca", read_ca }, { "verify", read_verify } };
  check_type(L, name, LUA_TTABLE);
  read_options(L, h, options, 2, "tls.");
}

static void read_method(lua_State *L, mli_http *h, const char *name) {
  size_t size;
  check_type(L, name, LUA_TSTRING);
  const char *s = lua_tolstring(L, -1, &size);
  if (!mli_http_is_token(s, size)) lml_misuse(L, "option '%s': '%s' is no method", name, s);
  char *method = checked(L, mli_http_text(h, s, size));
  for (char *p = method; *p; p++) *p = (char)toupper((unsigned char)*p);
  h->method = method;
}

static void set_url(lua_State *L, mli_http *h, int index, const char *what) {
  size_t size;
  const char *s = lua_tolstring(L, index, &size);
  if (strlen(s) != size) lml_misuse(L, "%s: a URL must not contain a NUL byte", what);
  h->url = checked(L, mli_http_text(h, s, size));
}

/* Put here by lua/moonloop/http/session.lua. */
static void read_session(lua_State *L, mli_http *h, const char *name) {
  mli_http_session *session = lml_http_session_test(L, -1);
  if (session)
    h->session = mli_retain(session);
  else
    wrong_type(L, name, "core of a session");
}

/* lua/moonloop/http/retry.lua has gone by it. */
static void read_retries(lua_State *L, mli_http *h, const char *name) {
  (void)L, (void)h, (void)name;
}

static void read_url(lua_State *L, mli_http *h, const char *name) {
  check_type(L, name, LUA_TSTRING);
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
  if (!mli_http_add_header(h, key, size, value, value_size)) no_memory(L);
  lua_pop(L, 1);
}

static void read_headers(lua_State *L, mli_http *h, const char *name) {
  check_type(L, name, LUA_TTABLE);
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

typedef struct text {
  const char *s;
  size_t size;
} text;

static int by_text(const void *a, const void *b) {
  const text *x = a, *y = b;
  int r = memcmp(x->s, y->s, x->size < y->size ? x->size : y->size);
  return r ? r : (x->size > y->size) - (x->size < y->size);
}

static size_t encode(char *out, const char *s, size_t size) {
  static const char digits[] = "0123456789ABCDEF";
  char *p = out;
  for (size_t i = 0; i < size; i++) {
    unsigned char c = (unsigned char)s[i];
    bool letter = (c | 32) >= 'a' && (c | 32) <= 'z';
    if (letter || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~') {
      *p++ = (char)c;
    } else {
      *p++ = '%';
      *p++ = digits[c >> 4];
      *p++ = digits[c & 15];
    }
  }
  return (size_t)(p - out);
}

/* "key=value&" for the value on top of the stack. With `out` NULL, an upper bound
** of its size. */
static size_t add_pair(lua_State *L, char *out, const text *key) {
  int type = lua_type(L, -1);
  if (type != LUA_TSTRING && type != LUA_TNUMBER && type != LUA_TBOOLEAN)
    lml_misuse(L,
               "option 'query': '%s' must be a string, a number, a boolean or a list of them, "
               "got %s",
               key->s, luaL_typename(L, -1));
  size_t size;
  const char *value = luaL_tolstring(L, -1, &size);
  size_t at = 3 * (key->size + size) + 2;
  if (out) {
    at = encode(out, key->s, key->size);
    out[at++] = '=';
    at += encode(out + at, value, size);
    out[at++] = '&';
  }
  lua_pop(L, 1);
  return at;
}

/* The whole query of the table on top of the stack; sizes as in add_pair. */
static size_t add_pairs(lua_State *L, char *out, const text *keys, size_t n) {
  size_t at = 0;
  for (size_t k = 0; k < n; k++) {
    lua_pushlstring(L, keys[k].s, keys[k].size);
    if (lua_rawget(L, -2) == LUA_TTABLE) {
      for (lua_Integer i = 1; lua_rawgeti(L, -1, i) != LUA_TNIL; i++, lua_pop(L, 1))
        at += add_pair(L, out ? out + at : NULL, &keys[k]);
      lua_pop(L, 1);
    } else {
      at += add_pair(L, out ? out + at : NULL, &keys[k]);
    }
    lua_pop(L, 1);
  }
  return at;
}

/* Puts the query of the table on top of the stack into the URL, keys in order,
** so that the same table always gives the same URL. */
static void append_query(lua_State *L, mli_http *h) {
  size_t n = 0, i = 0;
  luaL_checkstack(L, 8, NULL);
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1), n++)
    if (lua_type(L, -2) != LUA_TSTRING)
      lml_misuse(L, "option 'query': a name must be a string, got %s", luaL_typename(L, -2));
  if (n == 0) return;
  text *keys = checked(L, mli_http_alloc(h, n * sizeof *keys));
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1), i++)
    keys[i].s = lua_tolstring(L, -2, &keys[i].size);
  qsort(keys, n, sizeof *keys, by_text);
  const char *fragment = strchrnul(h->url, '#');
  size_t base = (size_t)(fragment - h->url);
  char *url = checked(L, mli_http_alloc(h, base + 2 + add_pairs(L, NULL, keys, n)));
  memcpy(url, h->url, base);
  size_t start = base;
  if (!memchr(h->url, '?', base))
    url[start++] = '?';
  else if (h->url[base - 1] != '?' && h->url[base - 1] != '&')
    url[start++] = '&';
  size_t end = start + add_pairs(L, url + start, keys, n);
  url[end > start ? end - 1 : base] = 0; /* without the last '&' */
  h->url = url;
}

static void read_query(lua_State *L, mli_http *h, const char *name) {
  (void)h;
  check_type(L, name, LUA_TTABLE); /* the URL may come later: see lml_http_fill */
}

/* ---- all together ---- */

static const option options_of_request[] = {
  { "body", read_body },
  { "compressed", read_compressed },
  { "connect_timeout", read_connect_timeout },
  { "follow", read_follow },
  { "headers", read_headers },
  { "http_version", read_http_version },
  { "json", read_json },
  { "length", read_length },
  { "max_body", read_max_body },
  { "max_redirects", read_max_redirects },
  { "method", read_method },
  { "on_progress", read_on_progress },
  { "query", read_query },
  { "retries", read_retries },
  { "session", read_session },
  { "stream", read_stream },
  { "timeout", read_timeout },
  { "tls", read_tls },
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
    read_options(L, h, options_of_request, sizeof options_of_request / sizeof *options_of_request,
                 "");
    lua_pop(L, 1);
  }
  if (!lua_isnil(L, url)) {
    if (h->url) lml_misuse(L, "option 'url' is given besides the argument");
    set_url(L, h, url, "argument #1");
  }
  if (!h->url) lml_misuse(L, "option 'url' is missing");
  if (h->json && !mli_http_header(h, "Content-Type") &&
      !mli_http_add_header(h, "Content-Type", 12, "application/json", 16))
    no_memory(L);
  if (lua_isnil(L, options)) return;
  if (lua_getfield(L, options, "query") == LUA_TTABLE) append_query(L, h);
  lua_pop(L, 1);
}
