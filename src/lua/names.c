/* names.c: the reverse map of loaded modules, and the way back. */
#include "names.h"

#include <lauxlib.h>
#include <string.h>
#include "lml.h"

/* What the base library and `package` put into _G, as far as it can be passed. */
static const char *const base_functions[] = {
  "assert",   "collectgarbage", "dofile",  "error",  "getmetatable", "ipairs",   "load",
  "loadfile", "next",           "pairs",   "pcall",  "print",        "rawequal", "rawget",
  "rawlen",   "rawset",         "require", "select", "setmetatable", "tonumber", "tostring",
  "type",     "warn",           "xpcall",  NULL
};

/* Their fields are indexed first: a value that others hold too keeps the name
** that every state knows. */
static const char *const libraries[] = { "string", "table",     "math",  "io",      "os",
                                         "utf8",   "coroutine", "debug", "package", NULL };

/* Pushes an empty map. */
static void push_map(lua_State *L) {
  lua_newtable(L); /* values */
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "k"); /* values mt k */
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2); /* values */
}

void lml_names_open(lua_State *L, lml_names *names) {
  push_map(L);
  names->values = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_newtable(L);
  names->list = luaL_ref(L, LUA_REGISTRYINDEX);
  names->signature = 0;
}

/* Pushes the registry's table `key`, or nil. */
static bool push_registered(lua_State *L, const char *key) {
  return lua_getfield(L, LUA_REGISTRYINDEX, key) == LUA_TTABLE;
}

static uint64_t mix(uint64_t hash, const void *p) {
  hash = (hash ^ (uintptr_t)p) * UINT64_C(0x9E3779B97F4A7C15);
  return hash ^ hash >> 29;
}

/* The identities of the modules, in the order of the table. A name that changed
** is seen when it is used. */
static uint64_t sign(lua_State *L, const char *registered, uint64_t hash) {
  if (push_registered(L, registered))                    /* modules */
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) /* modules key value */
      hash = mix(hash, lua_topointer(L, -1));
  lua_pop(L, 1);
  return hash;
}

static uint64_t signature(lua_State *L) {
  return sign(L, LML_MODULES, sign(L, LUA_LOADED_TABLE, 1));
}

/* ---- building ---- */

typedef struct builder {
  lua_State *L;
  int values, list, globals; /* where they are on the stack */
  lua_Integer count;         /* of entries */
  lua_Integer pass;          /* the first entry of this pass */
} builder;

/* Whether (module, field) at `at` comes before the strings of entry `i`. Gives
** a value that several modules hold the same name each time. */
static bool comes_first(builder *b, lua_Integer i, int module, int field) {
  lua_State *L = b->L;
  lua_rawgeti(L, b->list, 2 * i - 1);
  lua_rawgeti(L, b->list, 2 * i);
  int order = strcmp(lua_tostring(L, module), lua_tostring(L, -2));
  if (order == 0 && field && lua_isstring(L, -1))
    order = strcmp(lua_tostring(L, field), lua_tostring(L, -1));
  lua_pop(L, 2);
  return order < 0;
}

/* Adds the value at `value` under the strings at `module` and `field` (0: none). */
static void add(builder *b, int value, int module, int field) {
  lua_State *L = b->L;
  switch (lua_type(L, value)) {
  case LUA_TTABLE:
  case LUA_TFUNCTION:
  case LUA_TUSERDATA: break;
  default: return;
  }
  if (lua_rawequal(L, value, b->globals)) return;
  lua_pushvalue(L, value);
  lua_rawget(L, b->values);
  lua_Integer i = lua_tointeger(L, -1); /* 0: it is new */
  lua_pop(L, 1);
  if (i) {
    if (i < b->pass || !comes_first(b, i, module, field)) return;
  } else {
    i = ++b->count;
    lua_pushvalue(L, value);
    lua_pushinteger(L, i);
    lua_rawset(L, b->values);
  }
  lua_pushvalue(L, module);
  lua_rawseti(L, b->list, 2 * i - 1);
  if (field)
    lua_pushvalue(L, field);
  else
    lua_pushboolean(L, 0);
  lua_rawseti(L, b->list, 2 * i);
}

/* Adds the fields of the module at `module + 1`, whose name is at `module`. */
static void add_fields(builder *b, int module) {
  lua_State *L = b->L;
  if (!lua_istable(L, module + 1) || lua_rawequal(L, module + 1, b->globals)) return;
  for (lua_pushnil(L); lua_next(L, module + 1); lua_pop(L, 1)) /* key value */
    if (lua_type(L, -2) == LUA_TSTRING) add(b, lua_gettop(L), module, lua_gettop(L) - 1);
}

/* Adds all modules of a registered table, or the fields of all. */
static void add_modules(builder *b, const char *registered, bool fields) {
  lua_State *L = b->L;
  b->pass = b->count + 1;
  if (push_registered(L, registered)) { /* modules */
    int modules = lua_gettop(L);
    for (lua_pushnil(L); lua_next(L, modules); lua_pop(L, 1)) { /* modules name value */
      if (lua_type(L, modules + 1) != LUA_TSTRING) continue;
      if (fields)
        add_fields(b, modules + 1);
      else
        add(b, modules + 2, modules + 1, 0);
    }
  }
  lua_pop(L, 1);
}

/* Adds what the fixed lists name: base functions, then the libraries' fields. */
static void add_standard(builder *b) {
  lua_State *L = b->L;
  b->pass = b->count + 1;
  lua_pushliteral(L, LUA_GNAME); /* "_G" */
  int module = lua_gettop(L);
  for (const char *const *name = base_functions; *name; name++) {
    lua_pushstring(L, *name); /* "_G" name */
    lua_pushvalue(L, -1);
    lua_rawget(L, b->globals); /* "_G" name value */
    if (lua_iscfunction(L, -1)) add(b, module + 2, module, module + 1);
    lua_settop(L, module);
  }
  if (push_registered(L, LUA_LOADED_TABLE)) { /* "_G" loaded */
    for (const char *const *name = libraries; *name; name++) {
      lua_pushstring(L, *name); /* "_G" loaded name */
      lua_pushvalue(L, -1);
      lua_rawget(L, module + 1); /* "_G" loaded name library */
      add_fields(b, module + 2);
      lua_settop(L, module + 1);
    }
  }
  lua_settop(L, module - 1);
}

void lml_names_rebuild(lua_State *L, lml_names *names) {
  int top = lua_gettop(L);
  luaL_checkstack(L, LUA_MINSTACK, "no room to index the modules");
  builder b = { L, top + 1, top + 2, top + 3, 0, 1 };
  uint64_t signed_before = signature(L);
  push_map(L);                                         /* values */
  lua_newtable(L);                                     /* values list */
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS); /* values list globals */
  add_modules(&b, LUA_LOADED_TABLE, false);
  add_modules(&b, LML_MODULES, false);
  add_standard(&b);
  add_modules(&b, LML_MODULES, true);
  add_modules(&b, LUA_LOADED_TABLE, true);
  lua_settop(L, b.list); /* values list */
  lua_rawseti(L, LUA_REGISTRYINDEX, names->list);
  lua_rawseti(L, LUA_REGISTRYINDEX, names->values);
  names->signature = signed_before;
}

bool lml_names_refresh(lua_State *L, lml_names *names) {
  if (mli_likely(signature(L) == names->signature)) return false;
  lml_names_rebuild(L, names);
  return true;
}

/* ---- looking up ---- */

/* Replaces the module's name on top by the module as it is loaded here, or nil. */
static void loaded_module(lua_State *L) {
  int name = lua_gettop(L);
  if (strcmp(lua_tostring(L, name), LUA_GNAME) == 0) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  } else {
    static const char *const tables[] = { LUA_LOADED_TABLE, LML_MODULES };
    lua_pushnil(L); /* name module */
    for (int i = 0; i < 2 && !lua_toboolean(L, -1); i++) {
      if (!push_registered(L, tables[i])) lua_newtable(L); /* name module table */
      lua_pushvalue(L, name);
      lua_rawget(L, -2); /* name module table module */
      lua_replace(L, name + 1);
      lua_settop(L, name + 1);
    }
  }
  lua_replace(L, name);
}

/* Pushes the field of the module at `module` whose key is at `key`, nil if there is none. */
static void push_field(lua_State *L, int module, int key) {
  if (lua_istable(L, module)) {
    lua_pushvalue(L, key);
    lua_rawget(L, module);
  } else {
    lua_pushnil(L);
  }
}

lml_named lml_names_find(lua_State *L, lml_names *names, int index) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, names->values); /* values */
  lua_pushvalue(L, index);
  int type = lua_rawget(L, -2); /* values entry */
  lua_Integer i = lua_tointeger(L, -1);
  lua_pop(L, 2);
  if (mli_likely(type == LUA_TNIL)) return LML_UNNAMED;
  if (type == LUA_TBOOLEAN) return LML_DENIED;
  lua_rawgeti(L, LUA_REGISTRYINDEX, names->list);         /* list */
  lua_rawgeti(L, -1, 2 * i - 1);                          /* list module */
  bool whole = lua_rawgeti(L, -2, 2 * i) == LUA_TBOOLEAN; /* list module field */
  if (whole) {
    lua_pop(L, 1);
    lua_pushnil(L); /* list module nil */
  }
  lua_remove(L, -3); /* module field */
  lua_pushvalue(L, -2);
  loaded_module(L); /* module field value */
  if (!whole) {
    push_field(L, lua_gettop(L), lua_gettop(L) - 1);
    lua_replace(L, -2); /* module field value */
  }
  bool same = lua_rawequal(L, -1, index);
  lua_pop(L, same ? 1 : 3);
  return same ? LML_NAMED : LML_MISNAMED;
}

void lml_names_deny(lua_State *L, lml_names *names, int index) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, names->values);
  lua_pushvalue(L, index);
  lua_pushboolean(L, 0);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

/* ---- the far side ---- */

void lml_names_push(lua_State *L, const char *module, size_t module_length, const char *field,
                    size_t field_length) {
  luaL_checkstack(L, 6, "no room for a module");
  lua_pushlstring(L, module, module_length); /* name */
  int at = lua_gettop(L);
  lua_pushvalue(L, at);
  loaded_module(L); /* name module */
  if (!lua_toboolean(L, -1)) {
    lua_pop(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    lua_pushliteral(L, "require");
    lua_rawget(L, -2);
    lua_remove(L, -2); /* name require */
    if (lua_isnil(L, -1))
      lml_raise(L, "crossing", "module '%s' is not loaded here and there is no require",
                lua_tostring(L, at));
    lua_pushvalue(L, at);
    lua_call(L, 1, 1); /* name module */
  }
  if (field) {
    lua_pushlstring(L, field, field_length); /* name module key */
    push_field(L, at + 1, at + 2);           /* name module key value */
    if (lua_isnil(L, -1))
      lml_raise(L, "crossing", "module '%s' has no field '%s' here", lua_tostring(L, at),
                lua_tostring(L, -2));
  }
  lua_replace(L, at);
  lua_settop(L, at);
}
