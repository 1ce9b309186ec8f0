/* A host that brings its own Lua, linked statically and exported (-Wl,-E), and runs a script
** that requires moonloop as any other module. With WITH_LIBRARY it opens libmoonloop in the
** state instead, which then uses the host's Lua. */
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#ifdef WITH_LIBRARY
#include <moonloop.h>
#endif

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
#ifdef WITH_LIBRARY
  ml_executor *ex;
  if (ml_executor_new(&ex, NULL) != ML_OK || ml_open(L, ex) != ML_OK)
    return fprintf(stderr, "%s\n", ml_last_error()), 1;
#endif
  int status = luaL_dostring(L, argv[1]);
  if (status != LUA_OK) fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
  lua_close(L);
#ifdef WITH_LIBRARY
  if (ml_executor_shutdown(ex, true, ml_after_ms(20000)) != ML_OK) return 1;
  ml_executor_release(ex);
#endif
  return status == LUA_OK ? 0 : 1;
}
