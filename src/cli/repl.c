/*
** repl.c: the prompt, a step of the main job. Each chunk that is typed is a job of its
** own, so that Ctrl-C ends the chunk and not the program; jobs that it leaves run on
** while the prompt waits.
*/
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "cli/cli.h"

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
  lua_getglobal(L, "print");
  lua_insert(L, 2);
  return printed_k(L, lua_pcallk(L, n, 0, 0, 0, printed_k), 0);
}

static int evaluate(lua_State *L) {
  lua_pushcfunction(L, cli_message_handler);
  lua_insert(L, 1);
  return evaluated_k(L, lua_pcallk(L, 0, LUA_MULTRET, 1, 0, evaluated_k), 0);
}

/* ---- reading one ---- */

/* The lines of a chunk that needs more of them; then its function. */
#define LINES (CLI_FIXED + 1)

static void print_prompt(lua_State *L, const char *global, const char *otherwise) {
  if (lua_getglobal(L, global) != LUA_TNIL) otherwise = luaL_tolstring(L, -1, NULL);
  fputs(otherwise, stdout);
  fflush(stdout);
}

/* Pushes a line of stdin without its end; false: there is none. */
static bool read_line(lua_State *L) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  int c, n = 0;
  for (; (c = getchar()) != EOF && c != '\n'; n++) luaL_addchar(&b, (char)c);
  luaL_pushresult(&b);
  return c != EOF || n > 0;
}

static bool load(lua_State *L) {
  size_t size;
  const char *text = lua_tolstring(L, -1, &size);
  return luaL_loadbuffer(L, text, size, "=stdin") == LUA_OK;
}

/* Does the message at the top say that the chunk only lacks its end? */
static bool is_incomplete(lua_State *L) {
  size_t size;
  const char *message = lua_tolstring(L, -1, &size);
  return size >= 5 && strcmp(message + size - 5, "<eof>") == 0;
}

/* Takes the line at the top; `more`: there may be others. True: LINES is now the
** function of a chunk. */
static bool take_line(lua_State *L, bool more) {
  bool first = lua_gettop(L) == LINES;
  const char *line = lua_tostring(L, -1);
  if (!first) {
    lua_pushliteral(L, "\n");
    lua_insert(L, -2);
    lua_concat(L, 3);
  } else {
    if (*line == '=') {
      lua_pushstring(L, line + 1);
      lua_replace(L, LINES);
    }
    lua_pushfstring(L, "return %s", lua_tostring(L, LINES));
    if (load(L)) {
      lua_replace(L, LINES);
      lua_settop(L, LINES);
      return true;
    }
    lua_settop(L, LINES);
    if (line[0] == '=') ;
  }
  if (load(L)) {
    lua_replace(L, LINES);
    return true;
  }
  if (more && is_incomplete(L)) {
    lua_settop(L, LINES);
    return false;
  }
  cli_report(L);
  lua_settop(L, CLI_FIXED);
  return false;
}
