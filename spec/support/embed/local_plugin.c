/* The plugin of local_host.c: two executors, a state of its own, jobs on each; and one that
** is still at work when the plugin is closed. */
#include <lauxlib.h>
#include <lualib.h>
#include <moonloop.h>
#include <stdio.h>

static const char script[] =
  "local ml, tcp = require 'moonloop', require 'moonloop.tcp'\n"
  "local double = ml.async_to_sync(function(n) ml.sleep(0.001) return n * 2 end)\n"
  "assert(double(21) == 42)\n"
  "assert(ml.to_thread(string.rep, 'x', 3) == 'xxx')\n"
  "assert(ml.run(function() return ml.spawn(tcp.listen, '127.0.0.1', 0):result() end)):close()";

static int fail(void) {
  fprintf(stderr, "plugin: %s\n", ml_last_error());
  return 1;
}

__attribute__((visibility("default"))) int plugin_run(void);

int plugin_run(void) {
  for (int i = 0; i < 2; i++) {
    ml_executor_options o = ML_EXECUTOR_OPTIONS;
    ml_executor *ex;
    ml_future *f;
    o.blocked_after = 1000000000;
    if (ml_executor_new(&ex, &o) != ML_OK) return fail();
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    if (ml_open(L, ex) != ML_OK) return fail();
    if (luaL_dostring(L, script) != LUA_OK) return fprintf(stderr, "%s\n", lua_tostring(L, -1)), 1;
    if (luaL_loadstring(L, script) != LUA_OK || ml_submit(ex, L, 0, NULL, &f) != ML_OK)
      return fail();
    if (ml_future_wait(f, ml_after_ms(20000)) != ML_OK) return fail();
    ml_future_release(f);
    lua_close(L);
    if (ml_executor_shutdown(ex, true, ml_after_ms(20000)) != ML_OK) return fail();
    ml_executor_release(ex);
  }
  ml_executor *left;
  if (ml_executor_new(&left, NULL) != ML_OK) return fail();
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  if (luaL_loadstring(L, "while true do require 'moonloop'.checkpoint() end") != LUA_OK ||
      ml_submit(left, L, 0, NULL, NULL) != ML_OK)
    return fail();
  lua_close(L);
  return 0;
}
