/*
** repl.c: the prompt, a step of the main job. Each chunk that is typed is a job of its
** own, so that Ctrl-C ends the chunk and not the program; jobs that it leaves run on
** while the prompt waits. On a terminal Ctrl-C at the prompt gives up what was typed.
*/
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "cli/cli.h"

static bool on_terminal;

/* ---- a chunk's job ---- */

static int printed_k(lua_State *L, int status, lua_KContext ctx) {
  (void)ctx;
  if (status != LUA_OK && status != LUA_YIELD) {
    luaL_tolstring(L, -1, NULL);
    cli_message(lua_pushfstring(L, "error calling 'print' (%s)", lua_tostring(L, -1)));
  }
  return 0;
}

/* Stack: the handler; then the results, or the report. */
static int evaluated_k(lua_State *L, int status, lua_KContext ctx) {
  (void)ctx;
  if (status != LUA_OK && status != LUA_YIELD) {
    cli_report(L);
    return 0;
  }
  int n = lua_gettop(L) - 1;
  if (n == 0) return 0;
  luaL_checkstack(L, LUA_MINSTACK, "too many results to print");
  if (on_terminal) {
    lua_getfield(L, LUA_REGISTRYINDEX, CLI_REPL);
    lua_getfield(L, -1, "show");
    lua_remove(L, -2);
  } else {
    lua_getglobal(L, "print");
  }
  lua_insert(L, 2);
  return printed_k(L, lua_pcallk(L, n, 0, 0, 0, printed_k), 0);
}

static int evaluate(lua_State *L) {
  lua_pushcfunction(L, cli_message_handler);
  lua_insert(L, 1);
  return evaluated_k(L, lua_pcallk(L, 0, LUA_MULTRET, 1, 0, evaluated_k), 0);
}

/* ---- reading one ---- */

#define CHUNK (CLI_FIXED + 1) /* what there is of a chunk: its lines, then its function */

typedef enum { LACKS_LINES, COMPLETE, NO_MORE } progress;

/* Pushes the prompt: _PROMPT, or _PROMPT2 if a chunk goes on. */
static const char *push_prompt(lua_State *L) {
  bool first = lua_gettop(L) < CHUNK;
  if (lua_getglobal(L, first ? "_PROMPT" : "_PROMPT2") == LUA_TNIL)
    return lua_pushstring(L, first ? "> " : ">> ");
  return luaL_tolstring(L, -1, NULL);
}

/* Pushes the function of the text at the top, or the error message. */
static bool load(lua_State *L) {
  size_t size;
  const char *text = lua_tolstring(L, -1, &size);
  return luaL_loadbuffer(L, text, size, "=stdin") == LUA_OK;
}

/* The text at CHUNK becomes a function if it is an expression, or `=` and one. */
static bool load_expression(lua_State *L) {
  const char *line = lua_tostring(L, CHUNK);
  lua_pushfstring(L, "return %s", *line == '=' ? line + 1 : line);
  if (!load(L)) {
    if (*line == '=') lua_copy(L, CHUNK + 1, CHUNK);
    lua_settop(L, CHUNK);
    return false;
  }
  lua_copy(L, -1, CHUNK);
  lua_settop(L, CHUNK);
  return true;
}

/* Does the message at the top say that the chunk only lacks its end? */
static bool is_incomplete(lua_State *L) {
  size_t size;
  const char *message = lua_tolstring(L, -1, &size);
  return size >= 5 && strcmp(message + size - 5, "<eof>") == 0;
}

void cli_read_line(lua_State *L) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  int c, n = 0;
  for (; (c = getchar()) != EOF && c != '\n'; n++) luaL_addchar(&b, (char)c);
  luaL_pushresult(&b);
  if (c != EOF || n > 0) return;
  lua_pop(L, 1);
  lua_pushnil(L);
}

/* Stack: what there is of the chunk; the next line, or nil at the end. */
static progress take_line(lua_State *L) {
  bool come = !lua_isnil(L, -1);
  if (!come) lua_pop(L, 1);
  bool first = lua_gettop(L) < CHUNK + (come ? 1 : 0);
  if (!come && first) return NO_MORE;
  if (first && load_expression(L)) return COMPLETE;
  if (!first && come) {
    lua_pushliteral(L, "\n");
    lua_insert(L, -2);
    lua_concat(L, 3);
  }
  if (load(L)) {
    lua_replace(L, CHUNK);
    return COMPLETE;
  }
  if (come && is_incomplete(L)) {
    lua_settop(L, CHUNK);
    return LACKS_LINES;
  }
  cli_report(L);
  lua_settop(L, CLI_FIXED);
  return LACKS_LINES;
}

/* ---- the step ---- */

static int prompt(lua_State *L);

static int chunk_ended(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_state *S = lml_state_of(L);
  lml_await_end(L, S);
  mli_future_observe(lml_future_core(lua_touserdata(L, CHUNK)));
  if (cli_interrupted()) cli_message("interrupted!");
  lua_settop(L, CLI_FIXED);
  return prompt(L);
}

static int go_on(lua_State *L, progress p) {
  if (p == LACKS_LINES) return prompt(L);
  if (p == NO_MORE) {
    printf("\n");
    return 0;
  }
  lml_state *S = lml_state_of(L);
  lua_pushcfunction(L, evaluate);
  lua_insert(L, CHUNK);
  lml_job_spawn(L, S, 1);
  cli_interrupt_goes_to(S, lua_touserdata(L, CHUNK));
  return lml_await_future(L, S, CHUNK, MLI_FOREVER, chunk_ended, 0);
}

/* Of a terminal: a line has begun, and here is more of it. */
static int input_come(lua_State *L, int stopped, lua_KContext ctx) {
  (void)ctx;
  if (stopped) {
    cli_line_drop();
    lua_settop(L, CLI_FIXED);
    return prompt(L);
  }
  if (!cli_line_read(L)) return cli_await_input(L, input_come);
  return go_on(L, take_line(L));
}

static int prompt(lua_State *L) {
  lml_state *S = lml_state_of(L);
  progress p;
  if (on_terminal) {
    cli_interrupt_stops_input(S);
    int top = lua_gettop(L);
    cli_line_begin(L, push_prompt(L));
    lua_settop(L, top);
    return cli_await_input(L, input_come);
  }
  cli_interrupt_goes_to(S, cli.main);
  do {
    int top = lua_gettop(L);
    fputs(push_prompt(L), stdout);
    fflush(stdout);
    lua_settop(L, top);
    cli_read_line(L);
    p = take_line(L);
  } while (p == LACKS_LINES);
  return go_on(L, p);
}

int cli_repl(lua_State *L) {
  cli.name = NULL;
  on_terminal = isatty(STDIN_FILENO);
  if (on_terminal) {
    lua_getglobal(L, "require");
    lua_pushliteral(L, CLI_REPL);
    lua_call(L, 1, 1);
    lua_setfield(L, LUA_REGISTRYINDEX, CLI_REPL);
  }
  return prompt(L);
}
