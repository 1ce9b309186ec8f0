/* embed.h: what the tests of moonloop.h share. */
#ifndef EMBED_H
#define EMBED_H

#include <lauxlib.h>
#include <lualib.h>
#include <moonloop.h>
#include <string.h>
#include "check.h"

#define PATIENCE ml_after_ms(20000)

static inline bool says(const char *text, const char *part) {
  bool found = text && strstr(text, part);
  if (!found) printf("  \"%s\" does not say \"%s\"\n", text ? text : "(NULL)", part);
  return found;
}

/* A Lua state with its libraries in which `require` finds what `open` makes; NULL: no memory. */
static inline lua_State *embed_state(const char *module, lua_CFunction open) {
  lua_State *L = luaL_newstate();
  if (!L) return NULL;
  luaL_openlibs(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, open);
  lua_setfield(L, -2, module);
  lua_settop(L, 0);
  return L;
}

#endif
