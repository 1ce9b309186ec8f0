/*
** gather.c: what `gather` does for each of its jobs, in one call for all of them.
**
**   check_gather(list)      -- raises for a name in it that is no option
**   start_all(list)         -- a new list: its futures, and those of its jobs, which start now
**   first_values(futures)   -- a new list: the first value of each; all have finished
**
** The last two take lists without metatables, so that nothing here can wait.
*/
#include <limits.h>
#include <string.h>
#include "state.h"

static int list_room(lua_State *L, int index) {
  size_t n = lua_rawlen(L, index);
  return n > INT_MAX ? INT_MAX : (int)n;
}

/* Refuses the names that are no options, as keys of the list. */
static int l_check_options(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
    if (lua_type(L, 2) == LUA_TNUMBER) continue;
    if (lua_type(L, 2) != LUA_TSTRING || strcmp(lua_tostring(L, 2), "return_errors") != 0)
      lml_misuse(L, "gather: unknown option '%s'", lml_show(L, 2));
  }
  return 0;
}

static int l_start_all(lua_State *L) {
  lml_state *S = lml_upstate(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  int n = list_room(L, 1);
  lml_place place = lml_place_of(L, S); /* of all of them */
  lua_settop(L, 1);
  lua_createtable(L, n, 0);
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, 1, i);
    if (mli_likely(S->loop && lua_isfunction(L, 3)))
      lml_job_spawn_at(L, S, 0, place);
    else if (!lml_future_test(L, S, 3))
      lml_spawn_other(L, 1);
    lua_rawseti(L, 2, i);
  }
  return 1;
}

static int l_first_values(lua_State *L) {
  lml_state *S = lml_upstate(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  int n = list_room(L, 1);
  lua_settop(L, 1);
  lua_createtable(L, n, 0);
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, 1, i);
    if (lml_future_push(L, S, 3) > 0) {
      lua_settop(L, 4);
      lua_rawseti(L, 2, i);
    }
    lua_settop(L, 2);
  }
  return 1;
}

void lml_gather_open(lua_State *L) {
  static const luaL_Reg functions[] = { { "check_gather", l_check_options },
                                        { "start_all", l_start_all },
                                        { "first_values", l_first_values },
                                        { NULL, NULL } };
  lml_setfuncs(L, functions);
}
