/*
** main.c: the moonloop program. It takes a script as `lua` does, but the main
** chunk is a job on the main thread's loop: top-level waits just work.
*/
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lua/state.h"

#define EXIT_INTERRUPTED 130

static const char *program = "moonloop";
static lua_State *main_state; /* for the signal handler */
static lml_state *main_record;

/* ---- options ---- */

typedef struct options {
  bool interactive, version, no_environment, run_stdin, help;
  int script; /* its index in argv; argc: none */
  bool ran;   /* something was executed by -e or -l */
} options;

static const char usage[] =
  "usage: %s [options] [script [args]]\n"
  "Runs a Lua script whose main chunk is a job: waits at the top level just work.\n"
  "\n"
  "  -e stat   execute string 'stat'\n"
  "  -i        enter interactive mode after executing 'script'\n"
  "  -l mod    require library 'mod' into global 'mod'\n"
  "  -l g=mod  require library 'mod' into global 'g'\n"
  "  -v        show version information\n"
  "  -E        ignore environment variables\n"
  "  -W        turn warnings on\n"
  "  --help    show this help\n"
  "  --        stop handling options\n"
  "  -         stop handling options and execute stdin\n";

static int bad_option(const char *option) {
  if (option[1] == 'e' || option[1] == 'l')
    fprintf(stderr, "%s: '%s' needs argument\n", program, option);
  else
    fprintf(stderr, "%s: unrecognized option '%s'\n", program, option);
  fprintf(stderr, usage, program);
  return -1;
}

/* Reads the options; 0, or -1 after saying what is wrong. */
static int read_options(int argc, char **argv, options *o) {
  int i = 1;
  for (; i < argc && argv[i][0] == '-'; i++) {
    const char *option = argv[i];
    switch (option[1]) {
    case '\0':
      o->run_stdin = true;
      o->script = i;
      return 0;
    case '-':
      if (strcmp(option, "--help") == 0) {
        o->help = true;
        return 0;
      }
      if (option[2] != '\0') return bad_option(option);
      o->script = i + 1;
      return 0;
    case 'E': o->no_environment = true; break;
    case 'i': o->interactive = o->version = true; break;
    case 'v': o->version = true; break;
    case 'W': break;
    case 'e':
    case 'l':
      if (option[2] == '\0' && (++i >= argc || argv[i][0] == '-')) return bad_option(option);
      o->ran = true;
      continue;
    default: return bad_option(option);
    }
    if (option[2] != '\0') return bad_option(option);
  }
  o->script = i;
  return 0;
}

/* ---- running pieces of Lua, in the main job ---- */

static void print_version(void) {
  printf("moonloop %s  (%s)\n", ml_version(), LUA_RELEASE);
  fflush(stdout);
}

/* The `arg` table: the script is 0, what comes before it negative. */
static void make_arg(lua_State *L, int argc, char **argv, int script) {
  if (script == argc) script = 0;
  lua_createtable(L, argc - script - 1 > 0 ? argc - script - 1 : 0, script + 1);
  for (int i = 0; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i - script);
  }
  lua_setglobal(L, "arg");
}

static int done_k(lua_State *L, int status, lua_KContext keep) {
  (void)L, (void)status;
  return (int)keep;
}

/* Each step below is a function of the main job that may wait: it is called from
** Lua, by the driver at the end of this file. */

/* execute(text, name): loads and runs a string. */
static int step_execute(lua_State *L) {
  size_t size;
  const char *text = luaL_checklstring(L, 1, &size), *name = luaL_checkstring(L, 2);
  if (luaL_loadbuffer(L, text, size, name) != LUA_OK) return lua_error(L);
  lua_callk(L, 0, 0, 0, done_k);
  return 0;
}

/* load_file(name or nil): a file's chunk, or that of stdin. */
static int step_load_file(lua_State *L) {
  if (luaL_loadfile(L, luaL_optstring(L, 1, NULL)) != LUA_OK) return lua_error(L);
  return 1;
}

/* read_line(prompt): a line of stdin without its newline, or nil. */
static int step_read_line(lua_State *L) {
  fputs(luaL_checkstring(L, 1), stdout);
  fflush(stdout);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  bool some = false;
  for (int c; (c = getchar()) != EOF;) {
    some = true;
    if (c == '\n') break;
    luaL_addchar(&b, (char)c);
  }
  if (!some) return 0;
  luaL_pushresult(&b);
  return 1;
}

static const char driver[] =
  "local step, options, argv, script = ...\n"
  "local function library(spec)\n"
  "  local global, module = spec:match('^([^=]*)=(.*)$')\n"
  "  if not module then global, module = spec:gsub('%-.*$', ''), spec end\n"
  "  _G[global] = require(module)\n"
  "end\n"
  "if options.init then\n"
  "  if options.init:sub(1, 1) == '@' then step.load_file(options.init:sub(2))()\n"
  "  else step.execute(options.init, '=' .. options.init_name) end\n"
  "end\n"
  "local i = 1\n"
  "while i < options.script do\n"
  "  local option = argv[i]\n"
  "  local kind, value = option:sub(2, 2), option:sub(3)\n"
  "  if kind == 'e' or kind == 'l' then\n"
  "    if value == '' then i = i + 1; value = argv[i] end\n"
  "    if kind == 'e' then step.execute(value, '=(command line)') else library(value) end\n"
  "  elseif kind == 'W' then warn('@on') end\n"
  "  i = i + 1\n"
  "end\n"
  "if script then return step.load_file(script ~= '-' and script or nil)(table.unpack(arg)) end\n";

static const char repl[] =
  "local step, show = ...\n"
  "local function compile(line)\n"
  "  return load('return ' .. line, '=stdin') or load(line, '=stdin')\n"
  "end\n"
  "local function incomplete(line)\n"
  "  local _, err = load(line, '=stdin')\n"
  "  return err and err:find('<eof>$') ~= nil\n"
  "end\n"
  "while true do\n"
  "  local line = step.read_line(_PROMPT and tostring(_PROMPT) or '> ')\n"
  "  if not line then print() return end\n"
  "  line = line:gsub('^=', 'return ', 1)\n"
  "  local f = compile(line)\n"
  "  while not f and incomplete(line) do\n"
  "    local more = step.read_line(_PROMPT2 and tostring(_PROMPT2) or '>> ')\n"
  "    if not more then break end\n"
  "    line = line .. '\\n' .. more\n"
  "    f = load(line, '=stdin')\n"
  "  end\n"
  "  local err\n"
  "  if not f then f, err = load(line, '=stdin') end\n"
  "  local r\n"
  "  if f then r = table.pack(xpcall(f, show)) else r = { false, err, n = 2 } end\n"
  "  if not r[1] then io.stderr:write(tostring(r[2]), '\\n')\n"
  "  elseif r.n > 1 then print(table.unpack(r, 2, r.n)) end\n"
  "end\n";

static const luaL_Reg steps[] = {
  { "execute", step_execute },
  { "load_file", step_load_file },
  { "read_line", step_read_line },
  { NULL, NULL },
};

/* The text of an error value, as `lua` would print it. */
static const char *error_text(lua_State *L, int index) {
  if (lua_isstring(L, index) || luaL_getmetafield(L, index, "__tostring") != LUA_TNIL)
    return luaL_tolstring(L, index, NULL);
  return lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, index));
}

/* show(err): the REPL's message handler. */
static int show_error(lua_State *L) {
  luaL_traceback(L, L, error_text(L, 1), 1);
  return 1;
}

static void report(lua_State *L, int index, const char *traceback) {
  fprintf(stderr, "%s: %s\n", program, error_text(L, index));
  if (traceback) fprintf(stderr, "%s\n", traceback);
  fflush(stderr);
}

/* ---- Ctrl-C ---- */

static void stop_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(L, NULL, 0, 0);
  luaL_error(L, "interrupted!");
}

static volatile sig_atomic_t got_sigint;

/* The first Ctrl-C cancels the main job, and breaks what computes right now; a
** second one is the system's to handle. */
static void on_sigint(int sig) {
  got_sigint = 1;
  signal(sig, SIG_DFL);
  int mask = LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT;
  lua_sethook(main_state, stop_hook, mask, 1);
  lua_State *running = main_record->running;
  if (running) lua_sethook(running, stop_hook, mask, 1);
  mli_loop *loop = main_record->loop;
  if (loop) {
    static const uint64_t one = 1;
    ssize_t r = write(loop->wake_fd, &one, sizeof one);
    (void)r;
  }
}

/* ---- main ---- */

/* Runs the chunk `source` with the values on top as the main job. True: it is done;
** else its error was reported and `*code` set. */
static bool run_main(lua_State *L, const char *source, const char *name, int nargs, int *code) {
  if (luaL_loadbuffer(L, source, strlen(source), name) != LUA_OK) {
    report(L, -1, NULL);
    *code = EXIT_FAILURE;
    return false;
  }
  lua_insert(L, -nargs - 1);
  signal(SIGINT, on_sigint);
  bool finished = lml_run(L, nargs);
  signal(SIGINT, SIG_DFL);
  int future = lua_gettop(L);
  lml_future *u = lua_touserdata(L, future);
  mli_future *f = lml_future_core(u);
  mli_future_observe(f);
  if (!finished) {
    fprintf(stderr, "%s: interrupted!\n", program);
    *code = EXIT_INTERRUPTED;
    return false;
  }
  if (mli_future_state(f) == MLI_FINISHED) return true;
  lml_future_push_error(L, main_record, future);
  report(L, -1, f->traceback);
  *code = got_sigint ? EXIT_INTERRUPTED : EXIT_FAILURE;
  return false;
}

static void set_field(lua_State *L, const char *key, const char *value) {
  if (!value) return;
  lua_pushstring(L, value);
  lua_setfield(L, -2, key);
}

typedef struct invocation {
  int argc;
  char **argv;
  options options;
  int code;
} invocation;

static int protected_main(lua_State *L) {
  invocation *v = lua_touserdata(L, 1);
  options *o = &v->options;
  bool has_script = o->script < v->argc;
  bool terminal = isatty(STDIN_FILENO);
  luaL_checkversion(L);
  if (o->no_environment) {
    lua_pushboolean(L, 1);
    lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
  }
  luaL_openlibs(L);
  make_arg(L, v->argc, v->argv, o->script);
  luaL_requiref(L, "moonloop", luaopen_moonloop, 0);
  lua_settop(L, 0);
  main_state = L;
  main_record = lml_state_of(L);
  if (o->version) print_version();
  bool interactive = o->interactive || (!has_script && !o->ran && !o->version && terminal);
  if (!has_script && !o->ran && !o->version && terminal) print_version();
  const char *script = NULL;
  if (has_script)
    script = o->run_stdin ? "-" : v->argv[o->script];
  else if (!interactive && !o->ran && !o->version)
    script = "-";

  lua_newtable(L);
  luaL_setfuncs(L, steps, 0);
  lua_newtable(L);
  const char *init_name = "LUA_INIT_5_4", *init = NULL;
  if (!o->no_environment) {
    init = getenv(init_name);
    if (!init) init = getenv(init_name = "LUA_INIT");
  }
  set_field(L, "init", init);
  set_field(L, "init_name", init_name);
  lua_pushinteger(L, o->script);
  lua_setfield(L, -2, "script");
  lua_createtable(L, v->argc, 0);
  for (int i = 1; i < v->argc; i++) {
    lua_pushstring(L, v->argv[i]);
    lua_rawseti(L, -2, i);
  }
  if (script)
    lua_pushstring(L, script);
  else
    lua_pushnil(L);
  bool ok = run_main(L, driver, "=moonloop", 4, &v->code);
  if (interactive && (ok || v->code != EXIT_INTERRUPTED)) {
    v->code = EXIT_SUCCESS;
    lua_settop(L, 0);
    lua_newtable(L);
    luaL_setfuncs(L, steps, 0);
    lua_pushcfunction(L, show_error);
    run_main(L, repl, "=moonloop", 2, &v->code);
  }
  return 0;
}

int main(int argc, char **argv) {
  invocation v = { .argc = argc, .argv = argv, .code = EXIT_SUCCESS };
  if (argv[0] && argv[0][0]) program = argv[0];
  if (read_options(argc, argv, &v.options) != 0) return EXIT_FAILURE;
  if (v.options.help) {
    printf(usage, program);
    return EXIT_SUCCESS;
  }
  lua_State *L = luaL_newstate();
  if (!L) {
    fprintf(stderr, "%s: not enough memory\n", program);
    return EXIT_FAILURE;
  }
  lua_gc(L, LUA_GCINC, 200, 40, 8);
  lua_pushcfunction(L, protected_main);
  lua_pushlightuserdata(L, &v);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
    report(L, -1, NULL);
    v.code = EXIT_FAILURE;
  }
  lua_close(L);
  return v.code;
}
