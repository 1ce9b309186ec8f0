/*
** main.c: the moonloop program. It takes a script as `lua` does, but what runs is a
** job on the main thread's loop: waits at the top level just work.
*/
#include <lualib.h>
#include <stdlib.h>
#include "cli/cli.h"

cli_program cli;

/* The `arg` table: the script is 0, what comes before it negative. */
static void make_arg(lua_State *L) {
  int script = cli.options.script == cli.argc ? 0 : cli.options.script;
  lua_createtable(L, cli.argc - script, script + 1);
  for (int i = 0; i < cli.argc; i++) {
    lua_pushstring(L, cli.argv[i]);
    lua_rawseti(L, -2, i - script);
  }
  lua_setglobal(L, "arg");
}

/* os.exit([code[, close]]): closing the state closes the variables of the main thread,
** under `lua` those of the main chunk; here these are the main job's. Nothing returns
** to it afterwards. */
static int l_exit(lua_State *L) {
  int code = lua_toboolean(L, 1) ? EXIT_SUCCESS : EXIT_FAILURE;
  if (!lua_isboolean(L, 1)) code = (int)luaL_optinteger(L, 1, EXIT_SUCCESS);
  if (lua_toboolean(L, 2)) {
    cli_interrupt_ends_all();
    cli_quit_shows_jobs(NULL);
    if (cli.main && cli.main->job) {
      lml_state_of(L)->closing++; /* they cannot wait */
      lua_resetthread(cli.main->job->co);
    }
    lua_close(L);
  }
  exit(code);
}

static void open_libraries(lua_State *L) {
  luaL_checkversion(L);
  if (cli.options.no_environment) {
    lua_pushboolean(L, 1);
    lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
  }
  luaL_openlibs(L);
  lua_getglobal(L, "os");
  lua_pushcfunction(L, l_exit);
  lua_setfield(L, -2, "exit");
  lml_open(L); /* its coroutine functions are in place before any script keeps the old */
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, luaopen_moonloop); /* not one that is found on the path */
  lua_setfield(L, -2, "moonloop");
  lua_settop(L, 0);
}

static int protected_main(lua_State *L) {
  open_libraries(L);
  make_arg(L);
  lua_gc(L, LUA_GCGEN, 0, 0); /* as `lua` does */
  if (cli.options.version) cli_print_version();
  lua_pushcfunction(L, cli_main_job);
  cli_quit_shows_jobs(lml_state_of(L));
  lml_run(L, 0);
  cli_quit_shows_jobs(NULL);
  cli.main = NULL;
  cli_interrupt_ends_all();
  int index = lua_gettop(L);
  mli_future *f = lml_future_core(lua_touserdata(L, index));
  mli_future_observe(f);
  if (cli_interrupted()) {
    cli_message("interrupted!");
    cli.code = CLI_INTERRUPTED;
  } else if (mli_future_state(f) != MLI_FINISHED) { /* no chunk, but the main job itself */
    lml_future_push_error(L, lml_state_of(L), index);
    luaL_tolstring(L, -1, NULL);
    return lua_error(L);
  }
  return 0;
}

/* libuv 1.45 to 1.48 have a thread of the kernel's for each loop, which spins when there is
** I/O, for files that no loop of ours reads. They ask the environment, with the first loop.
** There is no other thread yet. */
static void have_no_io_uring(void) {
  static const char name[] = "UV_USE_IO_URING";
  uv_loop_t loop;
  unsigned version = uv_version() >> 8; /* without the patch level */
  if (version < 0x012d || version > 0x0130 || getenv(name)) return;
  if (setenv(name, "0", 1) == 0 && uv_loop_init(&loop) == 0) uv_loop_close(&loop);
  unsetenv(name); /* children are not concerned */
}

int main(int argc, char **argv) {
  have_no_io_uring();
  if (cli_is_worker(argc, argv)) return cli_worker();
  cli.argc = argc;
  cli.argv = argv;
  cli.name = argc > 0 && argv[0][0] ? argv[0] : "moonloop";
  if (!cli_read_options()) return EXIT_FAILURE;
  if (cli.options.help) {
    cli_print_usage(stdout);
    return EXIT_SUCCESS;
  }
  if (!cli_observe()) return EXIT_FAILURE;
  lua_State *L = luaL_newstate();
  if (!L) {
    cli_message("cannot create state: not enough memory");
    return EXIT_FAILURE;
  }
  lua_pushcfunction(L, protected_main);
  if (lua_pcall(L, 0, 0, 0) != LUA_OK) {
    const char *text = lua_tostring(L, -1);
    cli_message(text ? text : "(error object is not a string)");
    cli.code = EXIT_FAILURE;
  }
  lua_close(L);
  return cli.code;
}
