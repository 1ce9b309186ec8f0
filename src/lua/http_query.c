/* http_query.c: tables as "key=value&...", for the query of a URL and for forms. */
#include <stdlib.h>
#include <string.h>
#include "http_options.h"

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
static size_t add_pair(lua_State *L, char *out, const char *name, const text *key) {
  int type = lua_type(L, -1);
  if (type != LUA_TSTRING && type != LUA_TNUMBER && type != LUA_TBOOLEAN)
    lml_misuse(L,
               "option '%s': '%s' must be a string, a number, a boolean or a list of them, "
               "got %s",
               name, key->s, luaL_typename(L, -1));
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

/* All pairs of the table on top of the stack; sizes as in add_pair. */
static size_t add_pairs(lua_State *L, char *out, const char *name, const text *keys, size_t n) {
  size_t at = 0;
  for (size_t k = 0; k < n; k++) {
    lua_pushlstring(L, keys[k].s, keys[k].size);
    if (lua_rawget(L, -2) == LUA_TTABLE) {
      for (lua_Integer i = 1; lua_rawgeti(L, -1, i) != LUA_TNIL; i++, lua_pop(L, 1))
        at += add_pair(L, out ? out + at : NULL, name, &keys[k]);
      lua_pop(L, 1);
    } else {
      at += add_pair(L, out ? out + at : NULL, name, &keys[k]);
    }
    lua_pop(L, 1);
  }
  return at;
}

/* Keys come in order, so that the same table always gives the same text. */
char *lml_http_encode(lua_State *L, mli_http *h, const char *name, size_t room, size_t *size) {
  size_t n = 0, i = 0;
  lml_http_check_type(L, name, LUA_TTABLE);
  luaL_checkstack(L, 8, NULL);
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1), n++)
    if (lua_type(L, -2) != LUA_TSTRING)
      lml_misuse(L, "option '%s': a name must be a string, got %s", name, luaL_typename(L, -2));
  text *keys = lml_http_checked(L, mli_http_alloc(h, n * sizeof *keys));
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1), i++)
    keys[i].s = lua_tolstring(L, -2, &keys[i].size);
  qsort(keys, n, sizeof *keys, by_text);
  size_t bound = add_pairs(L, NULL, name, keys, n);
  char *out = lml_http_checked(L, mli_http_alloc(h, room + bound + 1));
  *size = add_pairs(L, out + room, name, keys, n);
  if (*size) --*size; /* the last '&' */
  out[room + *size] = 0;
  return out;
}
