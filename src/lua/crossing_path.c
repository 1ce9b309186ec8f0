/*
** crossing_path.c: refusing what cannot cross, with the whole path to it.
*/
#include <stdio.h>
#include "encoder.h"

static void add_string_key(luaL_Buffer *b, const char *s, size_t length) {
  bool plain = length > 0 && !(s[0] >= '0' && s[0] <= '9');
  for (size_t i = 0; i < length && plain; i++)
    plain = s[i] == '_' || (s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'z') ||
            (s[i] >= 'A' && s[i] <= 'Z');
  if (plain && length <= 100) {
    luaL_addchar(b, '.');
    luaL_addlstring(b, s, length);
    return;
  }
  luaL_addstring(b, "[\"");
  for (size_t i = 0; i < length && i < 100; i++) {
    unsigned char byte = (unsigned char)s[i];
    char escaped[8];
    if (byte < 32 || byte == 127) {
      snprintf(escaped, sizeof escaped, "\\%03u", byte);
      luaL_addstring(b, escaped);
    } else {
      if (byte == '"' || byte == '\\') luaL_addchar(b, '\\');
      luaL_addchar(b, (char)byte);
    }
  }
  luaL_addstring(b, length > 100 ? "...\"]" : "\"]");
}

static void add_key(luaL_Buffer *b, lua_State *L, int key) {
  char text[64];
  size_t length;
  switch (lua_type(L, key)) {
  case LUA_TSTRING: {
    const char *s = lua_tolstring(L, key, &length);
    add_string_key(b, s, length);
    return;
  }
  case LUA_TNUMBER:
    if (lua_isinteger(L, key))
      snprintf(text, sizeof text, "[" LUA_INTEGER_FMT "]", lua_tointeger(L, key));
    else
      snprintf(text, sizeof text, "[" LUA_NUMBER_FMT "]", lua_tonumber(L, key));
    break;
  case LUA_TBOOLEAN:
    snprintf(text, sizeof text, "[%s]", lua_toboolean(L, key) ? "true" : "false");
    break;
  default: snprintf(text, sizeof text, "[%s]", luaL_typename(L, key));
  }
  luaL_addstring(b, text);
}

/* The path to a context variable's value: the context, the variable's id, its entry. */
#define CONTEXT_STEPS 3

static void add_root(luaL_Buffer *b, lml_cargo cargo, int index) {
  char text[32];
  switch (cargo) {
  case LML_ERROR_VALUE: luaL_addstring(b, "error"); return;
  case LML_CONTEXT: luaL_addstring(b, "context variable"); return;
  case LML_JOB:
    if (index == 0) {
      luaL_addstring(b, "job");
      return;
    }
    index--;
    break;
  default: break;
  }
  snprintf(text, sizeof text, "%s %d", cargo == LML_RESULTS ? "result" : "argument", index + 1);
  luaL_addstring(b, text);
}

static void add_step(luaL_Buffer *b, encoder *e, const lml_step *step) {
  char text[80];
  switch (step->kind) {
  case ROOT: add_root(b, e->cargo, step->index); break;
  case KEY: add_key(b, e->L, step->index); break;
  case IN_KEY: luaL_addstring(b, " (a key)"); break;
  case METATABLE: luaL_addstring(b, " (metatable)"); break;
  case ARGUMENT:
    snprintf(text, sizeof text, " (__moonloop argument %d)", step->index);
    luaL_addstring(b, text);
    break;
  case UPVALUE:
    if (step->name[0] != '(') {
      luaL_addstring(b, " (upvalue '");
      luaL_addstring(b, step->name);
      luaL_addstring(b, "')");
    } else { /* the function was stripped of names */
      snprintf(text, sizeof text, " (upvalue %d)", step->index);
      luaL_addstring(b, text);
    }
  }
}

/* Pushes what the context variable is called whose id is at `index`. */
static void push_variable(lua_State *L, int index) {
  int top = lua_gettop(L) + 1;
  lua_getfield(L, LUA_REGISTRYINDEX, LML_VARIABLES);
  lua_pushvalue(L, index);
  if (lua_rawget(L, top) == LUA_TTABLE && lua_getfield(L, -1, "made_at") == LUA_TSTRING)
    lua_pushfstring(L, "context variable (made at %s)", lua_tostring(L, -1));
  else
    lua_pushliteral(L, "context variable");
  lua_replace(L, top);
  lua_settop(L, top);
}

/* Pushes the path to the value that is being encoded. The middle of one that
** nobody would read is left out. */
static void push_path(encoder *e) {
  luaL_Buffer b;
  uint32_t first = 0;
  if (e->cargo == LML_CONTEXT && e->depth >= CONTEXT_STEPS) {
    first = CONTEXT_STEPS;
    push_variable(e->L, e->s->path[1].index);
  } else {
    lua_pushliteral(e->L, "");
  }
  int name = lua_gettop(e->L);
  luaL_buffinit(e->L, &b);
  luaL_addstring(&b, lua_tostring(e->L, name));
  for (uint32_t i = first; i < e->depth; i++) {
    if (i == 100 && e->depth > 200) {
      luaL_addstring(&b, " ... ");
      i = e->depth - 20;
    }
    add_step(&b, e, &e->s->path[i]);
  }
  luaL_pushresult(&b);
  lua_remove(e->L, name);
}
void lml_refuse(encoder *e, const char *what, const char *name) {
  lua_State *L = e->L;
  luaL_checkstack(L, LUA_MINSTACK, NULL);
  push_path(e);
  const char *path = lua_tostring(L, -1);
  const char *text = lua_pushfstring(L, what, name);
  lml_raise(L, "crossing",
            e->s->far ? "%s: %s cannot cross to another process" : "%s: %s cannot cross states",
            path, text);
}
