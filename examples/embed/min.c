/* The least that a C program needs: a loop, jobs on it from C, and a plugin's state that
** waits through it.
**
**   cc min.c -o min $(pkg-config --cflags --libs moonloop lua5.4) && ./min
*/
#include <lauxlib.h>
#include <lualib.h>
#include <moonloop.h>
#include <stdio.h>

static const char plugin[] =
  "local ml = require 'moonloop'\n"
  "local slow = ml.async_to_sync(function(n) ml.sleep(0.02) return n * n end)\n"
  "print('the plugin waited for ' .. slow(7))\n"
  "return function(name) ml.sleep(0.01) return 'hello, ' .. name end\n";

static int fail(void) {
  fprintf(stderr, "min: %s\n", ml_last_error());
  return 1;
}

int main(void) {
  ml_executor *ex;
  ml_future *f;
  if (ml_executor_new(&ex, NULL) != ML_OK) return fail();

  lua_State *L = luaL_newstate(); /* one for each thread; they share the loop */
  luaL_openlibs(L);
  if (ml_open(L, ex) != ML_OK) return fail();
  if (luaL_dostring(L, plugin) != LUA_OK) return fprintf(stderr, "%s\n", lua_tostring(L, -1)), 1;
  lua_pushliteral(L, "world"); /* the function that the plugin returned, as a job */
  if (ml_submit(ex, L, 1, NULL, &f) != ML_OK) return fail();
  if (ml_future_wait(f, ml_after_ms(1000)) != ML_OK) return fail();
  int n;
  if (ml_future_push(f, L, &n) == ML_OK) puts(lua_tostring(L, -1));
  ml_future_release(f);
  lua_close(L);
  ml_status status = ml_executor_shutdown(ex, true, ml_after_ms(5000));
  ml_executor_release(ex);
  return status == ML_OK ? 0 : fail();
}
