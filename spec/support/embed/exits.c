/* A host that exits while its loops, its pool and a plugin's thread are at work. The argument
** says how: "return" from main, "exit" from another thread, "loop": from a loop's thread,
** "callback": from the callback of a future, "quick": _exit, "released": after letting go of
** all without a shutdown. The exit code is 7. */
#include <lauxlib.h>
#include <lualib.h>
#include <moonloop.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char job[] =
  "local ml, http, tcp = require 'moonloop', require 'moonloop.http', require 'moonloop.tcp'\n"
  "local server = assert(tcp.listen('127.0.0.1', 0))\n"
  "local _, port = server:address()\n"
  "for i = 1, 5 do ml.spawn(http.get, 'http://127.0.0.1:' .. port) end\n" /* never answered */
  "ml.spawn(function() while true do ml.checkpoint() end end)\n"
  "ml.sleep(1000)";

static ml_executor *ex, *pool;

static void die(const char *what) {
  fprintf(stderr, "%s: %s\n", what, ml_last_error());
  _exit(1);
}

static lua_State *open_state(void) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  if (ml_open(L, ex) != ML_OK) die("ml_open");
  lua_settop(L, 0);
  return L;
}

static void *wait_in_lua(void *user) {
  lua_State *L = open_state();
  if (luaL_dostring(L, "require 'moonloop'.sleep(1000)") != LUA_OK) puts(lua_tostring(L, -1));
  return user;
}

static void *exit_here(void *user) {
  (void)user;
  exit(7);
}

static ml_status exit_on_loop(struct uv_loop_s *loop, ml_values *results, void *user) {
  (void)loop, (void)results, (void)user;
  exit(7);
}

static void exit_in_callback(ml_future *f, void *user) {
  (void)f, (void)user;
  exit(7);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  const char *how = argv[1];
  ml_executor_options o = ML_EXECUTOR_OPTIONS, p = ML_EXECUTOR_OPTIONS;
  o.loops = 2;
  o.slice = 1000000;
  o.blocked_after = 1000000000;
  p.workers = 2;
  if (ml_executor_new(&ex, &o) != ML_OK || ml_executor_new(&pool, &p) != ML_OK) die("new");
  pthread_t thread;
  pthread_create(&thread, NULL, wait_in_lua, NULL);
  lua_State *L = open_state();
  ml_future *f = NULL;
  for (int i = 0; i < 4; i++) {
    if (luaL_loadstring(L, job) != LUA_OK || ml_submit(ex, L, 0, NULL, NULL) != ML_OK) die("job");
    if (luaL_loadstring(L, "while true do end") != LUA_OK) die("load");
    if (ml_submit(pool, L, 0, NULL, NULL) != ML_OK) die("pool");
  }
  if (luaL_loadstring(L, "require 'moonloop'.sleep(0.005)") != LUA_OK) die("load");
  if (ml_submit(ex, L, 0, NULL, &f) != ML_OK) die("submit");
  if (strcmp(how, "callback") == 0) {
    ml_future_on_done(f, exit_in_callback, NULL);
  } else {
    if (ml_future_wait(f, ml_after_ms(20000)) != ML_OK) die("wait");
    ml_future_release(f);
    if (strcmp(how, "quick") == 0) _exit(7);
    if (strcmp(how, "exit") == 0) pthread_create(&thread, NULL, exit_here, NULL);
    if (strcmp(how, "loop") == 0) ml_submit_c(ex, exit_on_loop, NULL, NULL);
    if (strcmp(how, "released") == 0) {
      ml_executor_release(ex);
      ml_executor_release(pool);
    }
    if (strcmp(how, "return") == 0 || strcmp(how, "released") == 0) return 7;
  }
  for (;;) pause();
}
