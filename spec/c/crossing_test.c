/*
** crossing_test.c: values between two Lua states. Each case is two texts: one
** runs in the sending state and returns what to send, the other in the receiving
** one, gets it as `...`, and returns true if it is right. The functions of lml.h
** that crossing needs are stand-ins here.
*/
#include <lualib.h>
#include <malloc.h>
#include <stdarg.h>
#include <string.h>
#include "check.h"
#include "lua/bytecode.h"
#include "lua/crossing.h"
#include "lua/names.h"

/* ---- stand-ins ---- */

void lml_error_push(lua_State *L, const char *code, const char *format, ...) {
  va_list args;
  lua_createtable(L, 0, 2);
  lua_pushstring(L, code);
  lua_setfield(L, -2, "code");
  va_start(args, format);
  lua_pushvfstring(L, format, args);
  va_end(args);
  lua_setfield(L, -2, "message");
  luaL_setmetatable(L, LML_ERROR);
}

int lml_raise(lua_State *L, const char *code, const char *format, ...) {
  va_list args;
  va_start(args, format);
  const char *message = lua_pushvfstring(L, format, args);
  va_end(args);
  lml_error_push(L, code, "%s", message);
  return lua_error(L);
}

typedef struct thing {
  mli_object object;
  int value;
} thing;

static atomic_int things;

static void thing_destroy(mli_object *object) {
  atomic_fetch_sub(&things, 1);
  free(mli_container(object, thing, object));
}

static const mli_type thing_type = { .name = "thing", .destroy = thing_destroy };

void lml_handle_push(lua_State *L, mli_object *object) {
  lml_handle *h = lua_newuserdatauv(L, sizeof *h, 0);
  h->object = NULL;
  luaL_setmetatable(L, "thing");
  mli_object_retain(object);
  h->object = object;
}

mli_object *lml_handle_export(lua_State *L, int index) {
  lml_handle *h = luaL_testudata(L, index, "thing");
  if (!h || !h->object) return NULL;
  mli_object_retain(h->object);
  return h->object;
}

static int l_thing(lua_State *L) {
  lml_handle *h = lua_newuserdatauv(L, sizeof *h, 0);
  h->object = NULL;
  luaL_setmetatable(L, "thing");
  thing *t = malloc(sizeof *t);
  if (!t) return luaL_error(L, "out of memory");
  mli_object_init(&t->object, &thing_type);
  t->value = (int)luaL_checkinteger(L, 1);
  atomic_fetch_add(&things, 1);
  h->object = &t->object;
  return 1;
}

static int l_thing_gc(lua_State *L) {
  lml_handle *h = luaL_checkudata(L, 1, "thing");
  if (h->object) mli_object_release(h->object);
  h->object = NULL;
  return 0;
}

static int l_thing_value(lua_State *L) {
  lml_handle *h = luaL_checkudata(L, 1, "thing");
  lua_pushinteger(L, mli_container(h->object, thing, object)->value);
  return 1;
}

/* ---- two states ---- */

/* blob(meta[, contents]): a full userdata with that metatable. */
static int l_blob(lua_State *L) {
  lua_newuserdatauv(L, 8, 1);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, -2, 1);
  if (lua_istable(L, 1)) {
    lua_pushvalue(L, 1);
    lua_setmetatable(L, -2);
  }
  return 1;
}

/* contents(blob) */
static int l_contents(lua_State *L) {
  lua_getiuservalue(L, 1, 1);
  return 1;
}

/* light(n): a light userdata. */
static int l_light(lua_State *L) {
  lua_pushlightuserdata(L, (void *)(uintptr_t)luaL_checkinteger(L, 1));
  return 1;
}

/* sends(...): encodes its arguments; true, or nil and the error. */
static int l_sends(lua_State *L) {
  mli_message_free(lml_encode(L, 1, lua_gettop(L), LML_ARGUMENTS));
  lua_pushboolean(L, 1);
  return 1;
}

/* oddly(k): a C closure with an upvalue, which no module holds. */
static int l_oddly(lua_State *L) {
  lua_pushvalue(L, 1);
  lua_pushcclosure(L, l_contents, 1);
  return 1;
}

static int l_errmeta(lua_State *L) {
  luaL_getmetatable(L, LML_ERROR);
  return 1;
}

static int l_hidden(lua_State *L) { /* a function of a module that is only in the registry */
  lua_pushliteral(L, "hidden");
  return 1;
}

static const char prelude[] =
  "package.preload.mymod = function()\n"
  "  loads = (loads or 0) + 1\n"
  "  local M = { config = { 1, 2 }, Class = {}, stdout2 = io.stdout }\n"
  "  M.Class.__index = M.Class\n"
  "  function M.Class:name() return 'class ' .. self.n end\n"
  "  function M.hello() return 'hello' end\n"
  "  M.insert = table.insert\n"
  "  M.deep = { f = function() return 'deep' end }\n"
  "  function M.unpack(t, extra) return setmetatable({ made = t, extra = extra }, M.Class) end\n"
  "  function M.same(v) return v end\n"
  "  function M.nothing() end\n"
  "  return M\n"
  "end\n"
  "package.preload.callable = function() return function() return 'called' end end\n"
  "package.preload.broken = function() error('broken on purpose', 0) end\n"
  "function same(a, b)\n"
  "  if type(a) ~= type(b) then return false end\n"
  "  if type(a) ~= 'table' then return a == b and math.type(a) == math.type(b) end\n"
  "  for k, v in pairs(a) do if not same(v, b[k]) then return false end end\n"
  "  for k in pairs(b) do if a[k] == nil then return false end end\n"
  "  return true\n"
  "end\n";

static void run(lua_State *L, const char *text, int args, int results) {
  if (luaL_loadstring(L, text) != LUA_OK) {
    printf("%s\n", lua_tostring(L, -1));
    abort();
  }
  lua_insert(L, -1 - args);
  if (lua_pcall(L, args, results, 0) != LUA_OK) {
    printf("%s\nin: %s\n", luaL_tolstring(L, -1, NULL), text);
    abort();
  }
}

static int error_tostring(lua_State *L) {
  lua_getfield(L, 1, "message");
  return 1;
}

static lua_State *open_state(lua_State *L) {
  static const luaL_Reg functions[] = { { "thing", l_thing }, { "thing_value", l_thing_value },
                                        { "blob", l_blob },   { "contents", l_contents },
                                        { "light", l_light }, { "sends", l_sends },
                                        { "oddly", l_oddly }, { "errmeta", l_errmeta },
                                        { NULL, NULL } };
  if (!L) abort();
  luaL_openlibs(L);
  luaL_newmetatable(L, LML_ERROR);
  lua_pushcfunction(L, error_tostring);
  lua_setfield(L, -2, "__tostring");
  luaL_newmetatable(L, "thing");
  lua_pushcfunction(L, l_thing_gc);
  lua_setfield(L, -2, "__gc");
  lua_newtable(L);
  lua_newtable(L);
  lua_pushcfunction(L, l_hidden);
  lua_setfield(L, -2, "f");
  lua_pushvalue(L, -1);
  lua_setglobal(L, "hidden");
  lua_setfield(L, -2, "moonloop.hidden");
  lua_setfield(L, LUA_REGISTRYINDEX, LML_MODULES);
  for (const luaL_Reg *f = functions; f->name; f++) {
    lua_pushcfunction(L, f->func);
    lua_setglobal(L, f->name);
  }
  lua_settop(L, 0);
  lml_crossing_open(L);
  lml_crossing_open(L);
  CHECK_EQ(lua_gettop(L), 0);
  run(L, prelude, 0, 0);
  return L;
}

static lua_State *new_state(void) { return open_state(luaL_newstate()); }

static lua_State *A, *B;

static int do_encode(lua_State *L) {
  mli_message **out = lua_touserdata(L, 1);
  lml_cargo cargo = (lml_cargo)lua_tointeger(L, 2);
  int top = lua_gettop(L);
  *out = lml_encode(L, 3, top - 2, cargo);
  CHECK_EQ(lua_gettop(L), top);
  return 0;
}

static int do_decode(lua_State *L) {
  const mli_message *m = lua_touserdata(L, 1);
  int n = lml_decode(L, m);
  CHECK_EQ(lua_gettop(L), n + 1);
  return n;
}

/* Encodes what `text` returns. NULL: refused, and the error is on top. */
static mli_message *encode(lua_State *L, lml_cargo cargo, const char *text) {
  mli_message *m = NULL;
  int top = lua_gettop(L);
  lua_pushcfunction(L, do_encode);
  lua_pushlightuserdata(L, &m);
  lua_pushinteger(L, (lua_Integer)cargo);
  run(L, text, 0, LUA_MULTRET);
  if (lua_pcall(L, lua_gettop(L) - top - 1, 0, 0) == LUA_OK) return m;
  return NULL;
}

/* Whether decoding raises; its values or the error are on the stack. */
static bool decode(lua_State *L, const mli_message *m) {
  lua_pushcfunction(L, do_decode);
  lua_pushlightuserdata(L, (void *)m);
  return lua_pcall(L, 1, LUA_MULTRET, 0) == LUA_OK;
}

static void crosses_between(lua_State *from, lua_State *to, const char *make, const char *check,
                            int line) {
  mli_message *m = encode(from, LML_ARGUMENTS, make);
  if (!m) {
    check_that(false, luaL_tolstring(from, -1, NULL), __FILE__, line);
    lua_settop(from, 0);
    return;
  }
  for (int time = 0; time < 2; time++) { /* a message may be read again */
    int top = lua_gettop(to);
    if (!decode(to, m)) {
      check_that(false, luaL_tolstring(to, -1, NULL), __FILE__, line);
    } else {
      run(to, check, lua_gettop(to) - top, 1);
      if (!check_that(lua_toboolean(to, -1), "crosses", __FILE__, line))
        printf("  %s\n  %s\n", make, check);
    }
    lua_settop(to, top);
  }
  mli_message_free(m);
  CHECK_EQ(lua_gettop(from), 0);
}

#define CROSSES(make, check) crosses_between(A, B, make, check, __LINE__)

static void refused(lml_cargo cargo, const char *make, const char *text, int line) {
  mli_message *m = encode(A, cargo, make);
  if (!check_that(m == NULL, "refused", __FILE__, line)) {
    mli_message_free(m);
    return;
  }
  const char *message = luaL_tolstring(A, -1, NULL);
  if (!check_that(strcmp(message, text) == 0, "refusal text", __FILE__, line))
    printf("  got  %s\n  want %s\n", message, text);
  lua_pop(A, 1);
  if (lua_istable(A, -1)) {
    lua_getfield(A, -1, "code");
    check_that(strcmp(lua_tostring(A, -1), "crossing") == 0, "code", __FILE__, line);
  }
  lua_settop(A, 0);
}

#define REFUSED(make, text) refused(LML_ARGUMENTS, make, text " cannot cross states", __LINE__)

/* A message of A that B cannot rebuild. */
static void not_rebuilt(const char *make, const char *text, int line) {
  mli_message *m = encode(A, LML_ARGUMENTS, make);
  if (!check_that(m != NULL, "encodes", __FILE__, line)) {
    printf("  %s\n", luaL_tolstring(A, -1, NULL));
    lua_settop(A, 0);
    return;
  }
  check_that(!decode(B, m), "not rebuilt", __FILE__, line);
  const char *message = luaL_tolstring(B, -1, NULL);
  if (!check_that(strstr(message, text) != NULL, "text", __FILE__, line))
    printf("  got  %s\n  want %s\n", message, text);
  lua_settop(B, 0);
  mli_message_free(m);
}

#define NOT_REBUILT(make, text) not_rebuilt(make, text, __LINE__)

/* ---- cases ---- */

static void test_scalars(void) {
  CROSSES("return", "return select('#', ...) == 0");
  CROSSES("return nil, nil", "return select('#', ...) == 2 and (...) == nil");
  CROSSES("return true, false", "local a, b = ... return a == true and b == false");
  CROSSES("return 1, -1, math.maxinteger, math.mininteger",
          "return same({ ... }, { 1, -1, math.maxinteger, math.mininteger })");
  CROSSES("return 1.0, 0.1, 1/0, -1/0", "return same({ ... }, { 1.0, 0.1, 1/0, -1/0 })");
  CROSSES("return 0/0, -0.0",
          "local n, z = ... return n ~= n and math.type(n) == 'float' and 1/z == -1/0");
  CROSSES("return '', 'a\\0b', ('x'):rep(255), ('y'):rep(256), ('z'):rep(100000)",
          "local a, b, c, d, e = ... return a == '' and b == 'a\\0b' and c == ('x'):rep(255) and"
          " d == ('y'):rep(256) and e == ('z'):rep(100000)");
  CROSSES("return light(0), light(77)", "local a, b = ... return a == light(0) and b == light(77)");
}

static void test_tables(void) {
  CROSSES("return {}, { 1, 2, 3 }, { a = 1, b = { c = 'd' } }, { 1, 'x', k = true, [7] = 7.0 }",
          "local a, b, c, d = ... return same(a, {}) and same(b, { 1, 2, 3 }) and"
          " same(c, { a = 1, b = { c = 'd' } }) and same(d, { 1, 'x', k = true, [7] = 7.0 })");
  CROSSES("return { [1.5] = 'a', [true] = 'b', [-1] = 'c', [math.maxinteger] = 'd', [0] = 'e' }",
          "return same(..., { [1.5] = 'a', [true] = 'b', [-1] = 'c', [math.maxinteger] = 'd',"
          " [0] = 'e' })");
  CROSSES("local k = {} return { [k] = k, k = k }",
          "local t = ... return t[t.k] == t.k and type(t.k) == 'table'");
  CROSSES("local t = {} t.self = t t[t] = t return t, t",
          "local t, u = ... return t == u and t.self == t and t[t] == t");
  CROSSES("local s = { n = 0 } return { s, s, { s } }, s",
          "local t, s = ... return t[1] == s and t[2] == s and t[3][1] == s");
  CROSSES("local s = ('long'):rep(100) return { s, s, [s] = s }",
          "local t = ... local s = ('long'):rep(100) return t[1] == s and t[2] == s and t[s] == s");
  /* Lists with holes keep their length; sparse tables are no lists. */
  CROSSES(
    "return { 1, nil, 3 }, { nil, nil, 3 }, table.pack(1, nil, nil)",
    "local a, b, c = ... return #a == 3 and a[3] == 3 and #b == 3 and b[1] == nil and c.n == 3"
    " and #c == 1");
  CROSSES("local t = {} for i = 0, 40 do t[1 << i] = i end return t",
          "local t = ... for i = 0, 40 do if t[1 << i] ~= i then return false end end return true");
  CROSSES("local t = {} for i = 100, 1, -1 do t[i] = i end t.x = 1 return t",
          "local t = ... for i = 1, 100 do if t[i] ~= i then return false end end"
          " return #t == 100 and t.x == 1");
  CROSSES("local t = {} for i = 1, 1000 do t[i] = { id = i, tags = { 'a', 'b' } } end return t",
          "local t = ... for i = 1, 1000 do if not same(t[i], { id = i, tags = { 'a', 'b' } }) then"
          " return false end end return #t == 1000");
  /* No metamethod runs in a copy. */
  CROSSES("return setmetatable({ 1 }, { __pairs = error, __index = error, __len = error })",
          "return rawget(..., 1) == 1");
  mli_message *m = encode(A, LML_ARGUMENTS, "return 1, { 2 }, 'three'");
  CHECK_EQ(lml_decode(B, m), 3);
  CHECK_EQ(lua_gettop(B), 3);
  lua_settop(B, 0);
  mli_message_free(m);
}

static void test_metatables(void) {
  CROSSES("local mt = { __index = function(t, k) return k .. '!' end } mt.mt = mt"
          " return setmetatable({}, mt), setmetatable({}, mt)",
          "local a, b = ... local mt = getmetatable(a)"
          " return a.x == 'x!' and mt == getmetatable(b) and mt.mt == mt");
  CROSSES("local C = {} C.__index = C function C:get() return self.v, C end"
          " return setmetatable({ v = 5 }, C)",
          "local o = ... local v, C = o:get() return v == 5 and C == getmetatable(o)");
  CROSSES("local t = {} return setmetatable(t, t)", "local t = ... return getmetatable(t) == t");
  CROSSES("return setmetatable({}, { __metatable = 'locked', __index = { a = 1 } })",
          "return (...).a == 1 and getmetatable(...) == 'locked'");
  CROSSES("return setmetatable({}, { __index = _G })", "return (...).print == print");
  CROSSES(
    "return setmetatable({ n = 3 }, require 'mymod'.Class)",
    "local o = ... return getmetatable(o) == require 'mymod'.Class and o:name() == 'class 3'");
  /* __gc and __close are there when the metatable is set. */
  CROSSES(
    "local log = {} return setmetatable({ log = log }, { __gc = function(t) t.log.gc = true end,"
    " __close = function(t) t.log.close = true end }), log",
    "local o, log = ... do local c <close> = o end if not log.close then return false end"
    " o = nil return (function(...) return true end)()");
  CROSSES("collected = 0 return function() local o <const> = setmetatable({}, { __gc = function()"
          " collected = (collected or 0) + 1 end }) return o end, setmetatable({}, { __gc ="
          " function() collected = (collected or 0) + 1 end })",
          "return true");
  lua_gc(B, LUA_GCCOLLECT);
  lua_gc(B, LUA_GCCOLLECT);
  lua_getglobal(B, "collected");
  CHECK_EQ(lua_tointeger(B, -1), 2); /* each of the two readings made one */
  lua_settop(B, 0);
  CROSSES(
    "return setmetatable({ code = 'x', message = 'm' }, errmeta())",
    "local e = ... return getmetatable(e) == errmeta() and tostring(e) == 'm' and e.code == 'x'");
  CROSSES("return { errmeta() }", "return (...)[1] == errmeta()");
  /* A weak table stays weak. */
  CROSSES("return setmetatable({ {} }, { __mode = 'v' })",
          "local t = ... collectgarbage() return t[1] == nil");
}

static void test_functions(void) {
  CROSSES("return function(a, b) return a + b end", "return (...)(2, 3) == 5");
  CROSSES("local x, y = 10, { 5 } return function(n) x = x + n return x, y[1] end",
          "local x, y = (...)(1) return x == 11 and y == 5 and (...)(1) == 12");
  CROSSES("local function fact(n) return n < 2 and 1 or n * fact(n - 1) end return fact",
          "return (...)(10) == 3628800");
  CROSSES(
    "local odd local function even(n) if n == 0 then return true end return odd(n - 1) end"
    " function odd(n) if n == 0 then return false end return even(n - 1) end return even, odd",
    "local even, odd = ... return even(10) and odd(7) and not even(3)");
  CROSSES("local n = 0 return function() n = n + 1 return n end, function() return n end",
          "local inc, get = ... inc() inc() return get() == 2");
  CROSSES("local n = 0 local inc = function() n = n + 1 end"
          " return { inc = inc, again = inc, get = function() return n end }",
          "local o = ... o.inc() o.again() return o.inc == o.again and o.get() == 2");
  CROSSES("local t = {} t.f = function() return t end return t", "local t = ... return t.f() == t");
  CROSSES("local f f = function() return f end return f", "local f = ... return f() == f");
  CROSSES("return function(...) return select('#', ...), ... end",
          "local n, a, b = (...)(nil, 7) return n == 2 and a == nil and b == 7");
  CROSSES("local fs = {} for i = 1, 3 do fs[i] = function() return i end end return fs",
          "local fs = ... return fs[1]() == 1 and fs[2]() == 2 and fs[3]() == 3");
  /* Many upvalues: with a factory, at its limit, and beyond it. */
  CROSSES("local names, values = {}, {} local fs = {}"
          " for _, n in ipairs { 1, 60, 190, 191, 199 } do local l, s = {}, {} for i = 1, n do"
          " l[i] = 'v' .. i s[i] = 'v' .. i end"
          " fs[#fs + 1] = load('local ' .. table.concat(l, ',', 1, n) .. ' = ... return function()"
          " return {' .. table.concat(s, ',') .. '} end')(1, 2, 3, 4, 5) end return fs",
          "for _, f in ipairs(...) do local t = f() if t[1] ~= 1 then return false end end"
          " return #(...)[3]() == 5");
  /* Debug information comes along. */
  CROSSES("return load('\\n\\nlocal x = 1 return function() error(\\'here\\' .. x) end',"
          " '=some.lua')()",
          "local _, err = pcall((...)) return err == 'some.lua:3: here1'");
  CROSSES("return load('return function() error(\\'here\\') end', '=other.lua')()",
          "local _, err = pcall((...)) return err == 'other.lua:1: here'");
  CROSSES("local n = 4 return load(string.dump(function(x) return x + 1 end, true)),"
          " (function() local up = 6 local g = function() return up end return g end)()",
          "local f, g = ... return f(1) == 2 and g() == 6");
  /* The same code in fresh closures: one dump. */
  mli_message *m[2];
  for (int i = 0; i < 2; i++)
    m[i] = encode(A, LML_JOB,
                  "maker = maker or function(k) return function() return k end end"
                  " return maker(1), maker(2), maker('x')");
  CHECK_EQ(m[0]->count, 1);
  CHECK(m[0]->objects[0] == m[1]->objects[0]);
  mli_message_free(m[0]);
  mli_message_free(m[1]);
  /* The state may run a shared closure at the same time in two jobs. */
  CROSSES("f = f or function(a) b = a return b end return f, f",
          "local f, g = ... first = first or f return f == g and f == first and f(3) == 3");
}

static void test_environments(void) {
  CROSSES("return _G, { _ENV }", "local g, t = ... return g == _G and t[1] == _G");
  CROSSES("x = 'of A' return function() return x, print end",
          "x = 'of B' local x, p = (...)() return x == 'of B' and p == print");
  CROSSES("local _ENV = { y = 1 } return function() return y end", "y = 'B' return (...)() == 'B'");
  CROSSES("local g = _G return function() return g end", "return (...)() == _G");
  CROSSES("local f = load(string.dump(function() return z end, true)) debug.setupvalue(f, 1, _G)"
          " return f",
          "z = 3 return (...)() == 3");
  /* One that assigns to _ENV is not shared between messages. */
  CROSSES("assigner = assigner or function() _ENV = { w = 'changed' } return w end return assigner",
          "local f = ... was = was ~= f and f return was == f and f() == 'changed'");
  CROSSES("return assigner, function() return w end",
          "w = 'global' local f, g = ... return f() == 'changed' and g() == 'global'");
  CROSSES("nested = nested or function() local function in1() local function in2() _ENV = {} end"
          " in2() end in1() return w end return nested",
          "local f = ... return f() == nil and (...)() == nil");
}

static void test_names(void) {
  CROSSES("return print, string, string.format, math.floor, require",
          "local a, b, c, d, e = ... return a == print and b == string and c == string.format and"
          " d == math.floor and e == require");
  CROSSES("return io.stdout, io.stderr, io.stdin, io",
          "local o, e, i, l = ... return o == io.stdout and e == io.stderr and i == io.stdin and l "
          "== io");
  CROSSES("return package, package.loaded, package.preload, coroutine.wrap, debug.traceback",
          "local p, l, r, w, t = ... return p == package and l == package.loaded and"
          " r == package.preload and w == coroutine.wrap and t == debug.traceback");
  CROSSES("local M = require 'mymod' return M, M.hello, M.config, M.Class, M.deep",
          "local m, h, c, k, d = ... local M = require 'mymod' return m == M and h == M.hello and"
          " c == M.config and k == M.Class and d == M.deep and loads == 1");
  CROSSES("return require 'callable'", "return ... == require 'callable' and (...)() == 'called'");
  CROSSES("return require 'mymod'.insert", "return ... == table.insert");
  CROSSES("return require 'mymod'.deep.f",
          "return (...)() == 'deep' and ... ~= require 'mymod'.deep.f");
  CROSSES("local t, g = table.concat, string.gmatch return function() return t, g end",
          "local t, g = (...)() return t == table.concat and g == string.gmatch");
  CROSSES("return { [print] = 1, [string] = 2 }",
          "local t = ... return t[print] == 1 and t[string] == 2");
  CROSSES("return hidden, hidden.f", "return ... == hidden and select(2, ...) == hidden.f");
  /* Other globals are data or code. */
  CROSSES("function helper() return 'A' end settings = { a = 1 } return helper, settings",
          "local h, s = ... return h() == 'A' and s.a == 1 and helper == nil and settings == nil");
}

/* What came after the index was made is found: a module, a function, a metatable. */
static void test_fresh_names(void) {
  run(B,
      "package.preload.fresh = function() return { t = { 'B' }, f = 'fB', mt = { __index = { who = "
      "'B' } },"
      " g = print } end",
      0, 0);
  CROSSES("package.loaded.fresh = { t = { 'A' } } return package.loaded.fresh.t",
          "return ... == require 'fresh'.t");
  CROSSES("function package.loaded.fresh.f() return 'A' end return package.loaded.fresh.f",
          "return ... == 'fB'");
  CROSSES(
    "package.loaded.fresh.mt = { __index = {} } return setmetatable({}, package.loaded.fresh.mt)",
    "return (...).who == 'B'");
  CROSSES("package.loaded.fresh.g = oddly(1) return package.loaded.fresh.g", "return ... == print");
  /* A field that changed hands, a module that went. */
  CROSSES("old = package.loaded.fresh.t package.loaded.fresh.t = { 'new' } return old",
          "return ... ~= require 'fresh'.t and (...)[1] == 'A'");
  CROSSES("package.loaded.fresh = nil return old", "return (...)[1] == 'A'");
  CROSSES("saved = require 'mymod' package.loaded.mymod = nil return saved.Class",
          "return ... ~= require 'mymod'.Class and (...).name");
  run(A, "package.loaded.mymod = saved", 0, 0);
  CROSSES("return require 'mymod'.Class", "return ... == require 'mymod'.Class");
  /* As busted does it: another package.loaded content, the registered modules stay. */
  CROSSES("return hidden.f", "return ... == hidden.f");
  NOT_REBUILT("package.loaded.only_a = { f = print, g = {} } return package.loaded.only_a",
              "module 'only_a' not found");
  NOT_REBUILT(
    "package.loaded.mymod.extra = {} package.loaded.zz = {} return package.loaded.mymod.extra",
    "module 'mymod' has no field 'extra' here");
  NOT_REBUILT("package.loaded.broken = { f = {} } return 1, { x = package.loaded.broken.f }",
              "broken on purpose");
  run(A, "package.loaded.only_a = nil package.loaded.broken = nil", 0, 0);
}

static void test_userdata(void) {
  CROSSES("return thing(42)", "return thing_value(...) == 42");
  CROSSES("local t = thing(7) return { t, t }, function() return t end",
          "local l, f = ... return thing_value(l[1]) == 7 and thing_value(f()) == 7");
  CROSSES("local u = blob({ __moonloop = function(u) return 'mymod:unpack', contents(u), 'x' end "
          "}, { 5 })"
          " return u, { u }",
          "local a, b = ... return a == b[1] and a.made[1] == 5 and a.extra == 'x' and"
          " getmetatable(a) == require 'mymod'.Class");
  CROSSES("return blob { __moonloop = function() return 'mymod:deep.f' end }",
          "return ... == 'deep'");
  /* Arguments have their metatables before the function is called. */
  CROSSES(
    "local C = { __index = function(_, k) return k end }"
    " return { setmetatable({}, C), blob { __moonloop = function() return 'mymod:same',"
    " setmetatable({}, C) end } }",
    "local t = ... return t[2].hello == 'hello' and getmetatable(t[1]) == getmetatable(t[2])");
  /* A __moonloop that sends by itself. */
  CROSSES("return { 1, blob { __moonloop = function() assert(sends({ 1, {} }, print))"
          " return 'mymod:same', { sends(2) } end }, { 3 } }",
          "local t = ... return t[1] == 1 and t[2][1] == true and t[3][1] == 3");
  CROSSES(
    "return { 1, blob { __moonloop = function() local ok, err = pcall(sends, { {}, io.tmpfile })"
    " local ok2, err2 = pcall(sends, { x = coroutine.create(print) })"
    " return 'mymod:same', tostring(err2) end } }",
    "return (...)[2] == 'argument 1.x: a coroutine cannot cross states'");
  mli_message *m = encode(A, LML_ARGUMENTS,
                          "return { thing(1), blob { __moonloop = function()"
                          " error('my own', 0) end } }");
  CHECK(!m && strcmp(lua_tostring(A, -1), "my own") == 0);
  lua_settop(A, 0);
  NOT_REBUILT("return blob { __moonloop = function() return 'mymod:gone.f' end }",
              "there is no 'mymod:gone.f' here");
  NOT_REBUILT("return blob { __moonloop = function() return 'mymod:nothing' end }",
              "'mymod:nothing' did not return a value");
  REFUSED("return blob { __moonloop = function() return 5 end }",
          "argument 1: a userdata whose __moonloop does not return \"module:function\"");
  REFUSED(
    "local u u = blob { __moonloop = function() return 'mymod:same', { u } end } return { u }",
    "argument 1[1] (__moonloop argument 1)[1]: a userdata whose __moonloop leads back to itself");
  REFUSED("return blob { __moonloop = function() return 'mymod:same', 1, print, { a = "
          "coroutine.create(print) }"
          " end }",
          "argument 1 (__moonloop argument 3).a: a coroutine");
}

static void test_refusals(void) {
  REFUSED("return 1, coroutine.create(print)", "argument 2: a coroutine");
  REFUSED("local log = coroutine.create(print) local function h() return log end"
          " return 1, { conf = { handlers = { 1, 2, h } } }",
          "argument 2.conf.handlers[3] (upvalue 'log'): a coroutine");
  REFUSED("return io.tmpfile()", "argument 1: an open file (a userdata)");
  REFUSED("return { f = blob() }", "argument 1.f: a userdata");
  REFUSED("return { ['odd key'] = { [1.5] = { [true] = blob() } } }",
          "argument 1[\"odd key\"][1.5][true]: a userdata");
  REFUSED("return { ['a\"b\\n\\\\'] = blob() }", "argument 1[\"a\\\"b\\010\\\\\"]: a userdata");
  REFUSED("return { [''] = { ['9'] = blob() } }", "argument 1[\"\"][\"9\"]: a userdata");
  REFUSED("return { [-5] = { _x9 = blob() } }", "argument 1[-5]._x9: a userdata");
  REFUSED("return { x = { [coroutine.create(print)] = 1 } }", "argument 1.x (a key): a coroutine");
  REFUSED("return { x = { [{ y = blob() }] = 1 } }", "argument 1.x (a key).y: a userdata");
  REFUSED("return { [{}] = blob() }", "argument 1[table]: a userdata");
  REFUSED("return { o = setmetatable({}, { __index = { m = oddly(1) } }) }",
          "argument 1.o (metatable).__index.m: a C function that no loaded module holds");
  REFUSED(
    "local a = { b = oddly(1) } local function f() return a end return function() return f end",
    "argument 1 (upvalue 'f') (upvalue 'a').b: a C function that no loaded module holds");
  REFUSED(
    "local a = coroutine.create(print) return load(string.dump(function() return a end, true)),"
    " (function() local f = load(string.dump(function() return a end, true))"
    " debug.setupvalue(f, 1, a) return f end)()",
    "argument 2 (upvalue 1): a coroutine");
  const char *co = "return function() end, 1, { coroutine.create(print) }";
  refused(LML_JOB, co, "argument 2[1]: a coroutine cannot cross states", __LINE__);
  refused(LML_RESULTS, co, "result 3[1]: a coroutine cannot cross states", __LINE__);
  refused(LML_JOB, "local c = coroutine.create(print) return function() return c end",
          "job (upvalue 'c'): a coroutine cannot cross states", __LINE__);
  refused(LML_ERROR_VALUE, "return { cause = coroutine.create(print) }",
          "error.cause: a coroutine cannot cross states", __LINE__);
  /* Nothing is left behind: the next message is right, and holds no object of the last. */
  refused(LML_ARGUMENTS, "return thing(1), { thing(2), { ('x'):rep(1000) }, blob() }",
          "argument 2[3]: a userdata cannot cross states", __LINE__);
  mli_message *m = encode(A, LML_ARGUMENTS, "return { 1 }");
  CHECK_EQ(m->count, 0);
  mli_message_free(m);
}

static const char nest[] =
  "local t = {} local u = t for i = 1, %d do u.a = {} u = u.a end u.a = 1 return t";

static void test_depth(void) {
  char text[256];
  CROSSES(
    "local t = 0 for i = 1, 9999 do t = { t } end return t",
    "local t, n = ..., 0 while type(t) == 'table' do t = t[1] n = n + 1 end return n == 9999");
  snprintf(text, sizeof text, nest, 9998);
  CROSSES(text, "local t, n = ..., 1 while t.a ~= 1 do t = t.a n = n + 1 end return n == 9999");
  CROSSES("local t = {} for i = 1, 4900 do t = setmetatable({}, { __index = t }) end return t",
          "return type(...) == 'table'");
  CROSSES("local f = print for i = 1, 9000 do local g = f f = function() return g end end return f",
          "local f, n = ..., 0 while f ~= print do f = f() n = n + 1 end return n == 9000");
  mli_message *m = encode(A, LML_ARGUMENTS,
                          "local t = {} for i = 1, 10001 do t = { t } end return t");
  CHECK(!m);
  CHECK(
    strstr(luaL_tolstring(A, -1, NULL), ": a value nested deeper than 10000 levels cannot cross"));
  CHECK(strlen(lua_tostring(A, -1)) < 1000);
  lua_settop(A, 0);
}

/* The caches are bounded, and let go of code that is not used. */
static void test_caches(void) {
  CROSSES("local fs = {} for i = 1, 3000 do fs[i] = load('local k = ' .. i .. ' return function()"
          " return k + ' .. i .. ' end')() end return fs",
          "for i, f in ipairs(...) do if f() ~= 2 * i then return false end end return true");
  CROSSES("local fs = {} for i = 1, 3000 do fs[i] = load('return ' .. i) end return fs",
          "for i, f in ipairs(...) do if f() ~= i then return false end end return true");
  mli_message *m = encode(A, LML_JOB, "return load('return \"here for a moment\"')");
  lml_code *code = mli_container(m->objects[0], lml_code, object);
  mli_object_retain(&code->object);
  mli_message_free(m);
  CROSSES("local fs = {} for i = 1, 3000 do fs[i] = load('return 0 + ' .. i) end return fs",
          "return #(...) == 3000");
  lua_gc(A, LUA_GCCOLLECT);
  lua_gc(A, LUA_GCCOLLECT);
  CHECK_EQ(atomic_load(&code->object.refs), 1);
  mli_object_release(&code->object);
}

/* 64 MiB strings: exact, and not more copies than needed. */
static void test_large(void) {
  const size_t size = (size_t)64 << 20;
  run(A, "big = ('0123456789abcdef'):rep(4 * 1024 * 1024)", 0, 0);
  mli_message *m = encode(A, LML_RESULTS, "return big, { big }");
  CHECK(m->adopted);
  CHECK(m->size < size + 200);
  CHECK(malloc_usable_size((void *)m->bytes) < size + 65536);
  CHECK(decode(B, m));
  mli_message_free(m);
  size_t length;
  const char *s = lua_tolstring(B, -2, &length);
  CHECK_EQ(length, size);
  CHECK(memcmp(s, "0123456789abcdef", 16) == 0 &&
        memcmp(s + size - 16, "0123456789abcdef", 16) == 0);
  run(B, "local s, t = ... return s == t[1]", 2, 1);
  CHECK(lua_toboolean(B, -1));
  lua_settop(B, 0);
  run(A, "big = nil collectgarbage()", 0, 0);
  CROSSES("local t = {} for i = 1, 100 do t[i] = ('x'):rep(70000) .. i end return t",
          "for i, s in ipairs(...) do if s ~= ('x'):rep(70000) .. i then return false end end "
          "return true");
}

/* Every prefix of a message, and every byte changed to a few others, raises or
** gives something; it never reads past the end. Code is left alone: see the docs. */
static void test_damage(void) {
  mli_message *m = encode(
    A, LML_ARGUMENTS,
    "local s = {} return 1, 'two', { 3.0, x = s, y = { s } }, require 'mymod'.Class,"
    " setmetatable({ s }, { __index = s }), thing(1), ('l'):rep(300)");
  unsigned decoded = 0, raised = 0;
  for (size_t n = 0; n < m->size; n++) {
    unsigned char *bytes = malloc(n ? n : 1);
    memcpy(bytes, m->bytes, n);
    mli_message cut = { n, bytes, m->objects, m->count, false };
    if (decode(B, &cut)) decoded++;
    lua_settop(B, 0);
    free(bytes);
  }
  CHECK_EQ(decoded, 0);
  unsigned char *bytes = malloc(m->size);
  static const unsigned char values[] = { 0,  1,  5,  8,  9,  10, 11,  12, 14,
                                          15, 16, 17, 18, 19, 20, 127, 255 };
  for (size_t i = 0; i < m->size; i++) {
    for (size_t v = 0; v < sizeof values; v++) {
      memcpy(bytes, m->bytes, m->size);
      bytes[i] = values[v];
      mli_message changed = { m->size, bytes, m->objects, m->count, false };
      if (!decode(B, &changed)) raised++;
      lua_settop(B, 0);
    }
  }
  CHECK(raised > 0);
  free(bytes);
  mli_message_free(m);
}

/* ---- out of memory ---- */

typedef struct budget {
  size_t left;
  bool on;    /* no more than `left` allocations */
  bool flaky; /* each fails at first: Lua collects all garbage and tries again */
  bool failed;
} budget;

static void *poor_alloc(void *ud, void *p, size_t old, size_t new) {
  budget *b = ud;
  if (new == 0) {
    free(p);
    return NULL;
  }
  if (b->on && (!p || new > old)) {
    if (b->left == 0) return NULL;
    b->left--;
  }
  if (b->flaky && (!p || new > old) && (b->failed = !b->failed)) return NULL;
  return realloc(p, new);
}

static int open_poor(lua_State *L) {
  luaL_newmetatable(L, LML_ERROR);
  luaL_newmetatable(L, "thing");
  lua_pushcfunction(L, l_thing_gc);
  lua_setfield(L, -2, "__gc");
  lua_settop(L, 0);
  luaL_openlibs(L);
  lml_crossing_open(L);
  return 0;
}

/* Decoding and encoding in a state that runs out at each point in turn. */
static void test_memory(void) {
  mli_message *m = encode(
    A, LML_ARGUMENTS,
    "local n, t = 0, {} return { function() n = n + 1 return t end, t, n = thing(3),"
    " m = setmetatable({}, { __index = t }) }, ('s'):rep(500), print,"
    " function() return t end");
  unsigned failures = 0;
  for (size_t left = 0; left < 400; left++) {
    budget b = { 0 };
    lua_State *L = lua_newstate(poor_alloc, &b);
    lua_pushcfunction(L, open_poor);
    if (!CHECK(lua_pcall(L, 0, 0, 0) == LUA_OK)) break;
    b = (budget){ .left = left, .on = true };
    bool ok = decode(L, m);
    b.on = false;
    if (!ok) failures++;
    if (!ok) CHECK(decode(L, m)); /* it works once there is memory */
    int n = lua_gettop(L);
    mli_message *back = NULL;
    if (ok && n == 4) {
      b = (budget){ .left = left / 8, .on = true };
      lua_pushcfunction(L, do_encode);
      lua_insert(L, 1);
      lua_pushlightuserdata(L, &back);
      lua_insert(L, 2);
      lua_pushinteger(L, LML_ARGUMENTS);
      lua_insert(L, 3);
      ok = lua_pcall(L, n + 2, 0, 0) == LUA_OK;
      b.on = false;
      if (!ok) failures++;
      CHECK(ok == (back != NULL));
      mli_message_free(back);
    }
    lua_close(L);
  }
  CHECK(failures > 10);
  mli_message_free(m);
}

/* With a full collection at each allocation: what is not anchored goes at once. */
static void test_stress(void) {
  static const char make[] =
    "local n, t = 0, {} local u = blob { __moonloop = function() return 'mymod:same', { 'made' } "
    "end }"
    " return { function() n = n + 1 return t end, t, m = setmetatable({ t }, { __index = t }) }, { "
    "u, { u } },"
    " { setmetatable({ n = 1 }, require 'mymod'.Class), print, ('l'):rep(300) .. n }";
  static const char check[] = "local a, b, c = ... return a[1]() == a[2] and "
                              "getmetatable(a.m).__index == a[2] and a.m[1] == a[2] and"
                              " b[1][1] == 'made' and b[2][1] == b[1] and c[1]:name() == 'class 1' "
                              "and c[2] == print and #c[3] == 301";
  budget b = { 0 };
  lua_State *L = open_state(lua_newstate(poor_alloc, &b));
  b.flaky = true;
  for (int i = 0; i < 3; i++) {
    crosses_between(A, L, make, check, __LINE__);
    crosses_between(L, A, make, check, __LINE__);
  }
  b.flaky = false;
  lua_close(L);
}

/* ---- threads ---- */

typedef struct channel {
  pthread_mutex_t mutex;
  pthread_cond_t cond;
  mli_message *message;
  bool full;
} channel;

static void channel_put(channel *c, mli_message *m) {
  pthread_mutex_lock(&c->mutex);
  while (c->full) pthread_cond_wait(&c->cond, &c->mutex);
  c->message = m;
  c->full = true;
  pthread_cond_broadcast(&c->cond);
  pthread_mutex_unlock(&c->mutex);
}

static mli_message *channel_take(channel *c) {
  pthread_mutex_lock(&c->mutex);
  while (!c->full) pthread_cond_wait(&c->cond, &c->mutex);
  mli_message *m = c->message;
  c->full = false;
  pthread_cond_broadcast(&c->cond);
  pthread_mutex_unlock(&c->mutex);
  return m;
}

static channel jobs = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, false };
static channel results = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, false };

static void *worker(void *unused) {
  (void)unused;
  lua_State *L = new_state();
  for (mli_message *m; (m = channel_take(&jobs)) != NULL;) {
    int n = lml_decode(L, m);
    mli_message_free(m);
    lua_call(L, n - 1, LUA_MULTRET);
    channel_put(&results, lml_encode(L, 1, lua_gettop(L), LML_RESULTS));
    lua_settop(L, 0);
  }
  lua_close(L);
  return NULL;
}

static void test_threads(void) {
  pthread_t thread = check_thread(worker, NULL);
  int right = 0, rounds = CHECK_ROUNDS(20000);
  for (int i = 0; i < rounds; i++) {
    char text[160];
    snprintf(text, sizeof text,
             "base = base or function(k) return function(t) return t.x + k, { k } end end"
             " return base(%d), { x = %d }",
             i, i % 7);
    mli_message *m = encode(A, LML_JOB, text);
    channel_put(&jobs, m);
    m = channel_take(&results);
    lml_decode(A, m);
    mli_message_free(m);
    if (lua_gettop(A) == 2 && lua_tointeger(A, 1) == i % 7 + i) right++;
    lua_settop(A, 0);
  }
  channel_put(&jobs, NULL);
  pthread_join(thread, NULL);
  CHECK_EQ(right, rounds);
}

/* ---- speed ---- */

static void measure(const char *what, const char *make) {
  const int rounds = CHECK_ROUNDS(200000);
  run(A, make, 0, LUA_MULTRET);
  int n = lua_gettop(A);
  double best = 1e9;
  for (int time = 0; time < 5; time++) {
    uint64_t start = mli_now();
    for (int i = 0; i < rounds / 5; i++) {
      mli_message *m = lml_encode(A, 1, n, LML_JOB);
      lml_decode(B, m);
      lua_settop(B, 0);
      mli_message_free(m);
    }
    double ns = (double)(mli_now() - start) / (rounds / 5);
    if (ns < best) best = ns;
  }
  lua_settop(A, 0);
  printf("%-42s %8.0f ns\n", what, best);
}

static void speed(void) {
  measure("nothing", "return");
  measure("an integer", "return 1");
  measure("a function and 2 integers", "return function(a, b) return a + b end, 1, 2");
  measure("a function with an upvalue, 2 integers",
          "local k = 1 return function(a, b) return a + b + k end, 1, 2");
  measure("a module's function", "return string.format");
  measure("a 20-byte string", "return 'twenty bytes of text'");
  measure("a record of 8 fields", "return { id = 1, name = 'a name', email = 'a@example.org', age "
                                  "= 30, score = 1.5, active = true,"
                                  " city = 'Somewhere', zip = '12345' }");
  measure("100 integers", "local t = {} for i = 1, 100 do t[i] = i end return t");
  measure("an instance of a module's class",
          "return setmetatable({ n = 1 }, require 'mymod'.Class)");
  measure("an instance with its class", "return setmetatable({ n = 1 }, { __index = { a = 1 } })");
}

int main(int argc, char **argv) {
  if (argc > 1) { /* `many`: only the numbers */
    A = new_state();
    B = new_state();
    speed();
    (void)argv;
    return 0;
  }
  A = new_state();
  B = new_state();
  test_scalars();
  test_tables();
  test_metatables();
  test_functions();
  test_environments();
  test_names();
  test_fresh_names();
  test_userdata();
  test_refusals();
  test_depth();
  test_caches();
  test_large();
  test_damage();
  test_memory();
  test_stress();
  test_threads();
  speed();
  CHECK_EQ(lua_gettop(A), 0);
  lua_close(A);
  lua_close(B);
  CHECK_EQ(atomic_load(&things), 0);
  return check_report();
}
