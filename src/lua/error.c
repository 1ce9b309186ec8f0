/*
** error.c: error values and the arguments of times.
**
** An error value is a table { code, message, ... } whose tostring is its
** message, so `assert` raises it whole and `error` shows it.
*/
#include <math.h>
#include <string.h>
#include "state.h"

static void push_metatable(lua_State *L) {
  if (luaL_getmetatable(L, LML_ERROR) == LUA_TNIL)
    luaL_error(L, "moonloop is not open in this state");
}

void lml_error_push(lua_State *L, const char *code, const char *format, ...) {
  va_list args;
  luaL_checkstack(L, 4, NULL);
  lua_createtable(L, 0, 2);
  lua_pushstring(L, code);
  lua_setfield(L, -2, "code");
  va_start(args, format);
  lua_pushvfstring(L, format, args);
  va_end(args);
  lua_setfield(L, -2, "message");
  push_metatable(L);
  lua_setmetatable(L, -2);
}

int lml_fail(lua_State *L, const char *code, const char *format, ...) {
  va_list args;
  lua_pushnil(L);
  va_start(args, format);
  const char *message = lua_pushvfstring(L, format, args);
  va_end(args);
  lml_error_push(L, code, "%s", message);
  lua_remove(L, -2);
  return 2;
}

int lml_raise(lua_State *L, const char *code, const char *format, ...) {
  va_list args;
  va_start(args, format);
  const char *message = lua_pushvfstring(L, format, args);
  va_end(args);
  lml_error_push(L, code, "%s", message);
  return lua_error(L);
}

int lml_fail_op(lua_State *L, const mli_op *op) {
  if (op->message) return lml_fail(L, op->code, "%s", op->message);
  return lml_fail(L, op->code, "%s: %s", op->class->name, op->code);
}

int lml_misuse(lua_State *L, const char *format, ...) {
  va_list args;
  char chunk[MLI_WHERE_MAX];
  uint32_t line;
  lml_where(L, 1, chunk, sizeof chunk, &line);
  if (line)
    lua_pushfstring(L, "%s:%d: ", chunk, (int)line);
  else
    lua_pushliteral(L, "");
  va_start(args, format);
  lua_pushvfstring(L, format, args);
  va_end(args);
  lua_concat(L, 2);
  return lua_error(L);
}

/* Whether the argument was passed on by a function of lua/moonloop. */
static bool called_through(lua_State *L) {
  lua_Debug ar;
  for (int level = 1; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline > 0) return strncmp(ar.source, "@moonloop/", 10) == 0;
  }
  return false;
}

int lml_argerror(lua_State *L, int arg, const char *what) {
  if (called_through(L)) return lml_misuse(L, "bad argument: %s", what);
  return luaL_argerror(L, arg, what);
}

int lml_typeerror(lua_State *L, int arg, const char *expected) {
  const char *name = luaL_typename(L, arg);
  if (luaL_getmetafield(L, arg, "__name") == LUA_TSTRING) name = lua_tostring(L, -1);
  return lml_argerror(L, arg, lua_pushfstring(L, "%s expected, got %s", expected, name));
}

const char *lml_show(lua_State *L, int arg) {
  if (lua_isnone(L, arg)) return "no value";
  if (lua_type(L, arg) == LUA_TNUMBER && isnan(lua_tonumber(L, arg))) return "NaN";
  return luaL_tolstring(L, arg, NULL);
}

uint64_t lml_check_whole(lua_State *L, int arg, lua_Integer least, const char *what) {
  int whole = 0;
  lua_Integer n = lua_type(L, arg) == LUA_TNUMBER ? lua_tointegerx(L, arg, &whole) : 0;
  if (!whole || n < least)
    lml_misuse(L, "%s: whole number, %d or more, expected, got %s", what, (int)least,
               lml_show(L, arg));
  return (uint64_t)n;
}

/* ---- times ---- */

#define LONGEST 3e9 /* a century; what is longer is for ever */

static uint64_t deadline(lua_State *L, int index, int arg, const char *option) {
  const char *wrong = NULL;
  index = lua_absindex(L, index);
  if (lua_isnoneornil(L, index)) return MLI_FOREVER;
  lua_Number s = 0;
  if (lua_type(L, index) != LUA_TNUMBER)
    wrong = lua_pushfstring(L, "number of seconds expected, got %s", luaL_typename(L, index));
  else if (isnan(s = lua_tonumber(L, index)))
    wrong = "a number of seconds expected, got NaN";
  else if (s < 0)
    wrong = lua_pushfstring(L, "a number of seconds must not be negative, got %f", s);
  if (wrong && option) lml_misuse(L, "option '%s': %s", option, wrong);
  if (wrong) lml_argerror(L, arg, wrong);
  if (s == 0) return 0;
  if (s > LONGEST) return MLI_FOREVER;
  uint64_t ns = (uint64_t)(s * 1e9);
  return mli_time() + (ns ? ns : 1);
}

uint64_t lml_check_deadline(lua_State *L, int arg) { return deadline(L, arg, arg, NULL); }

uint64_t lml_option_deadline(lua_State *L, int index, const char *option) {
  return deadline(L, index, 0, option);
}

uint64_t lml_option_span(lua_State *L, int index) {
  if (lua_isnoneornil(L, index)) return MLI_FOREVER;
  lua_Number s = lua_tonumber(L, index);
  return s > LONGEST ? MLI_FOREVER : (uint64_t)(s * 1e9);
}

/* ---- Lua ---- */

static int error_tostring(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_getfield(L, 1, "message");
  if (!lua_isstring(L, -1)) lua_getfield(L, 1, "code");
  luaL_tolstring(L, -1, NULL);
  return 1;
}

/* error_value(code, message[, fields]): makes an error value, for the Lua part. */
static int l_error_value(lua_State *L) {
  const char *code = luaL_checkstring(L, 1), *message = luaL_checkstring(L, 2);
  lml_error_push(L, code, "%s", message);
  if (lua_istable(L, 3)) {
    for (lua_pushnil(L); lua_next(L, 3);) {
      lua_pushvalue(L, -2);
      lua_insert(L, -2);
      lua_rawset(L, -4);
    }
  }
  return 1;
}

/* misuse(message): raises it at the line outside of moonloop that called. */
static int l_misuse(lua_State *L) { return lml_misuse(L, "%s", luaL_checkstring(L, 1)); }

static bool is_callable(lua_State *L, int index) {
  if (lua_isfunction(L, index)) return true;
  if (luaL_getmetafield(L, index, "__call") == LUA_TNIL) return false;
  lua_pop(L, 1);
  return true;
}

void lml_check_callable(lua_State *L, int arg) {
  if (!is_callable(L, arg)) lml_typeerror(L, arg, "function");
}

/* is_callable(v): a function, or anything with a metamethod `__call`. */
static int l_is_callable(lua_State *L) {
  luaL_checkany(L, 1);
  lua_pushboolean(L, is_callable(L, 1));
  return 1;
}

static int has_code(lua_State *L, const char *code) {
  bool is = false;
  if (lua_istable(L, 1) && lua_getmetatable(L, 1)) {
    push_metatable(L);
    if (lua_rawequal(L, -1, -2)) {
      lua_getfield(L, 1, "code");
      const char *s = lua_tostring(L, -1);
      is = s && strcmp(s, code) == 0;
    }
  }
  lua_pushboolean(L, is);
  return 1;
}

/* ml.is_cancelled(e): is it the cancel of the caller's own job or scope? */
static int l_is_cancelled(lua_State *L) { return has_code(L, "cancelled"); }

/* ml.is_timeout(e): is it an error with the code "timeout"? */
static int l_is_timeout(lua_State *L) { return has_code(L, "timeout"); }

/* deadline(seconds or nil, option): checks an option; gives ml.now() time or nil. */
static int l_check_timeout(lua_State *L) {
  const char *option = luaL_optstring(L, 2, "timeout");
  uint64_t at = lml_option_deadline(L, 1, option);
  if (at == MLI_FOREVER) return 0;
  lua_pushnumber(L, (lua_Number)at / 1e9);
  return 1;
}

void lml_error_open(lua_State *L) {
  static const luaL_Reg functions[] = {
    { "error_value", l_error_value },
    { "is_cancelled", l_is_cancelled },
    { "is_timeout", l_is_timeout },
    { "check_timeout", l_check_timeout },
    { "misuse", l_misuse },
    { "is_callable", l_is_callable },
    { NULL, NULL },
  };
  if (luaL_newmetatable(L, LML_ERROR)) {
    lua_pushcfunction(L, error_tostring);
    lua_setfield(L, -2, "__tostring");
  }
  lua_pop(L, 1);
  lml_setfuncs(L, functions);
}
