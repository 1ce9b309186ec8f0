/* report.c: what is said of an error that ends a chunk. */
#include <stdio.h>
#include <string.h>
#include "cli/cli.h"

void cli_message(const char *message) {
  if (cli.name) fprintf(stderr, "%s: ", cli.name);
  fprintf(stderr, "%s\n", message);
  fflush(stderr);
}

void cli_report(lua_State *L) {
  if (lua_isstring(L, -1))
    cli_message(lua_tostring(L, -1));
  else if (!cli_interrupted())
    cli_message(luaL_tolstring(L, -1, NULL)); /* the job cancelled itself */
}

/* Is the error at 1 the job's own cancel? */
static bool is_own_cancel(lua_State *L, const lml_job *job) {
  if (!job || job->root.error == LUA_NOREF) return false;
  lua_rawgeti(L, LUA_REGISTRYINDEX, job->root.error);
  bool own = lua_rawequal(L, 1, -1);
  lua_pop(L, 1);
  return own;
}

static bool is_ours(lua_State *L) {
  if (!lua_getmetatable(L, 1)) return false;
  luaL_getmetatable(L, LML_ERROR);
  bool ours = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return ours;
}

/* Pushes what the job noted of the error, ended as the traceback of a main chunk is
** and not by the job's name. */
static void push_traceback(lua_State *L, const char *text) {
  const char *last = strrchr(text, '\n');
  if (last && strncmp(last, "\nin ", 4) == 0)
    lua_pushlstring(L, text, (size_t)(last - text));
  else
    lua_pushstring(L, text);
  lua_pushliteral(L, "\n\t[C]: in ?");
  lua_concat(L, 2);
}

/* Under `lua` an error object that has a __tostring speaks for itself. It does here
** too, unless more is known: it came from another job, or is moonloop's own. */
int cli_message_handler(lua_State *L) {
  lml_job *job = lml_state_of(L)->current;
  bool is_nil = lua_isnil(L, 1), speaks = false;
  if (is_own_cancel(L, job)) return 1;
  lml_message_handler(L); /* notes the traceback */
  if (is_nil) {
    lua_pushliteral(L, "(error object is a nil value)");
  } else if (lua_isstring(L, 1)) {
    lua_pushstring(L, lua_tostring(L, 1)); /* up to its first NUL */
  } else if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING) {
    speaks = !is_ours(L);
  } else {
    lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  }
  const char *traceback = job && job->info ? job->info->traceback : NULL;
  if (!traceback || (speaks && !strstr(traceback, "\nstack traceback:"))) return 1;
  lua_pushliteral(L, "\n");
  push_traceback(L, traceback);
  lua_concat(L, 3);
  return 1;
}
