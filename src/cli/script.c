/*
** script.c: the main job. It calls one chunk after the other, as `lua` does: those of
** LUA_INIT, of -e and -l, the script, and the prompt at last. The first that fails is
** reported and ends it.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/cli.h"

static struct {
  enum { INIT, OPTIONS, SCRIPT, INPUT, PROMPT, END } stage;
  int option;         /* the next one, in argv */
  const char *global; /* of -l: what takes the module */
  bool unasked;       /* stdin is the script because there was nothing else to do */
} next;

/* ---- the chunks; each function pushes one and its arguments ---- */

/* What is being pushed: how many arguments it has, or one of these. */
enum { NONE = -1, FAILED = -2 };

/* Under `lua` a chunk that came through a pipe, unasked, may fail and leave 0. */
static int fail(lua_State *L) {
  cli_report(L);
  if (!next.unasked) cli.code = EXIT_FAILURE;
  return FAILED;
}

static int loaded(lua_State *L, int status) { return status == LUA_OK ? 0 : fail(L); }

static int load_text(lua_State *L, const char *text, const char *name) {
  return loaded(L, luaL_loadbuffer(L, text, strlen(text), name));
}

static int load_init(lua_State *L) {
  if (cli.options.no_environment) return NONE;
  const char *name = "=LUA_INIT_5_4", *init = getenv(name + 1);
  if (!init) init = getenv((name = "=LUA_INIT") + 1);
  if (!init) return NONE;
  return *init == '@' ? loaded(L, luaL_loadfile(L, init + 1)) : load_text(L, init, name);
}

/* `name` is "module" or "global=module". Since Lua 5.4.7 the global of "module-version" is
** "module". */
static int load_library(lua_State *L, const char *name) {
  const char *equals = strchr(name, '='), *end = equals;
  if (!end && LUA_VERSION_RELEASE_NUM >= 50407) end = strchr(name, '-');
  lua_getglobal(L, "require");
  lua_pushstring(L, equals ? equals + 1 : name);
  next.global = end ? lua_pushlstring(L, name, (size_t)(end - name)) : name;
  if (end) lua_insert(L, CLI_FIXED + 1); /* the name stays below the call */
  return 1;
}

static int load_option(lua_State *L) {
  while (next.option < cli.options.script) {
    const char *option = cli.argv[next.option++];
    char kind = option[1];
    if (kind == 'W') lua_warning(L, "@on", 0);
    if (strcmp(option, CLI_TRACE) == 0) next.option++; /* over the file */
    if (kind != 'e' && kind != 'l') continue;
    const char *value = option[2] ? option + 2 : cli.argv[next.option++];
    return kind == 'e' ? load_text(L, value, "=(command line)") : load_library(L, value);
  }
  return NONE;
}

static int load_script(lua_State *L) {
  int script = cli.options.script;
  const char *name = cli.argv[script];
  if (strcmp(name, "-") == 0 && strcmp(cli.argv[script - 1], "--") != 0) name = NULL; /* stdin */
  int status = loaded(L, luaL_loadfile(L, name));
  if (status != 0) return status;
  if (lua_getglobal(L, "arg") != LUA_TTABLE) luaL_error(L, "'arg' is not a table");
  int table = lua_gettop(L), n = (int)luaL_len(L, table);
  luaL_checkstack(L, n + 3, "too many arguments to script");
  for (int i = 1; i <= n; i++) lua_rawgeti(L, table, i);
  lua_remove(L, table);
  return n;
}

static int load_next(lua_State *L) {
  bool has_script = cli.options.script < cli.argc;
  int n = NONE;
  if (next.stage == INIT) {
    n = load_init(L);
    next.stage = OPTIONS;
    next.option = 1;
  }
  if (n == NONE && next.stage == OPTIONS && (n = load_option(L)) == NONE) next.stage = SCRIPT;
  if (n == NONE && next.stage == SCRIPT) {
    next.stage = INPUT;
    if (has_script) n = load_script(L);
  }
  if (n == NONE && next.stage == INPUT) {
    next.stage = END;
    if (cli.options.interactive) {
      next.stage = PROMPT;
    } else if (!has_script && !cli.options.executes && !cli.options.version) {
      next.unasked = !isatty(STDIN_FILENO);
      if (next.unasked) return loaded(L, luaL_loadfile(L, NULL));
      cli_print_version();
      next.stage = PROMPT;
    }
  }
  return n;
}

/* ---- the job ---- */

static int chunk_k(lua_State *L, int status, lua_KContext ctx);

/* A chunk has ended: the next one, unless it failed. */
static int go_on(lua_State *L, int status) {
  for (;;) {
    if (status != LUA_OK && status != LUA_YIELD) {
      fail(L);
      return 0;
    }
    if (cli_interrupted()) return 0;
    if (next.global) lua_setglobal(L, next.global);
    next.global = NULL;
    lua_settop(L, CLI_FIXED);
    int nargs = load_next(L);
    if (next.stage == PROMPT) return cli_repl(L);
    if (nargs < 0) return 0;
    status = lua_pcallk(L, nargs, next.global ? 1 : 0, CLI_HANDLER, 0, chunk_k);
  }
}

static int chunk_k(lua_State *L, int status, lua_KContext ctx) {
  (void)ctx;
  return go_on(L, status);
}

int cli_main_job(lua_State *L) {
  lml_state *S = lml_state_of(L);
  lua_settop(L, 0);
  lua_pushcfunction(L, cli_message_handler);
  lml_job_push_future(L, S->current);
  cli.main = lua_touserdata(L, CLI_FUTURE);
  cli_interrupt_goes_to(S, cli.main);
  return go_on(L, LUA_OK);
}
