/*
** left.c: generators that are left open: who answers for them, and their end.
**
** A generator belongs to what made it: the innermost block (scope, timeout, group) of
** the job, else the job itself; on a worker's thread its task. When that ends, what it
** left open is closed, but for
**   - what is among its values, however deep: that goes on to the block around it, or
**     from a job to whoever has it;
**   - what has crossed to another state: it belongs to whoever has it there.
** Nobody answers for what a thread makes outside of blocks and tasks, nor for what an
** init makes: these last as long as their handle or their executor.
**
** L1  A generator is in at most one list, that of its owner, and only while its maker's
**     first handle is the only one; lists are touched by the maker's thread alone.
*/
#include "generator.h"

/* ---- lists ---- */

lml_generator **lml_left_list(lml_state *S) {
  const lml_job *job = S->current;
  lml_scope *scope = job ? job->scope : S->scope;
  return scope ? &scope->open : S->task ? &S->open : NULL;
}

void lml_left_remove(lml_generator *g) {
  if (!g->list) return;
  *g->link = g->next;
  if (g->next) g->next->link = g->link;
  g->list = NULL;
}

/* To another owner, or to nobody. */
static void move(lml_generator *g, lml_generator **list) {
  lml_left_remove(g);
  if (!list) return;
  g->list = list;
  g->next = *list;
  g->link = list;
  if (g->next) g->next->link = &g->next;
  *list = g;
}

void lml_left_add(lml_state *S, lml_generator *g) { move(g, lml_left_list(S)); }

void lml_left_join(lml_generator **from, lml_generator **to) {
  while (*from) move(*from, to);
}

void lml_left_drop(lml_generator **list) {
  while (*list) {
    lml_generator_abandon(&(*list)->object);
    lml_left_remove(*list);
  }
}

/* ---- what is among the values ---- */

/* Stack: `seen`, a set, and `found`, a list of what is to be looked into. */
typedef struct search {
  lua_State *L;
  lml_state *S;
  int seen, found;
  lua_Integer count;
  lml_generator **from, **to;
} search;

/* Pops a value; notes it if it may lead anywhere. */
static void note(search *s) {
  lua_State *L = s->L;
  int type = lua_type(L, -1);
  bool leads = type == LUA_TTABLE || type == LUA_TFUNCTION || type == LUA_TUSERDATA;
  if (leads) {
    lua_pushvalue(L, -1);
    leads = lua_rawget(L, s->seen) == LUA_TNIL;
    lua_pop(L, 1);
  }
  if (!leads) {
    lua_pop(L, 1);
    return;
  }
  lua_pushvalue(L, -1);
  lua_pushboolean(L, 1);
  lua_rawset(L, s->seen);
  lua_rawseti(L, s->found, ++s->count);
}

/* Globals and modules are no part of a value: they cross by name too. */
static void begin(search *s) {
  lua_State *L = s->L;
  lua_newtable(L);
  s->seen = lua_gettop(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  lua_pushboolean(L, 1);
  lua_rawset(L, s->seen);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  int loaded = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, loaded); lua_pop(L, 1)) {
    if (!lua_istable(L, -1)) continue;
    lua_pushvalue(L, -1);
    lua_pushboolean(L, 1);
    lua_rawset(L, s->seen);
  }
  lua_pushboolean(L, 1);
  lua_rawset(L, s->seen);
  lua_newtable(L);
  s->found = lua_gettop(L);
}

/* Looks into the value on top. */
static void look_into(search *s) {
  lua_State *L = s->L;
  int value = lua_gettop(L);
  switch (lua_type(L, value)) {
  case LUA_TTABLE:
    if (lua_getmetatable(L, value)) note(s);
    for (lua_pushnil(L); lua_next(L, value);) {
      lua_pushvalue(L, -2);
      note(s);
      note(s);
    }
    break;
  case LUA_TFUNCTION:
    for (int i = 1; lua_getupvalue(L, value, i); i++) note(s);
    break;
  default: {
    mli_object *object = lml_handle_test_in(L, s->S, value, &lml_generator_type);
    if (object) {
      lml_generator *g = mli_container(object, lml_generator, object);
      if (g->list == s->from) move(g, s->to);
      break;
    }
    for (int i = 1; lua_getiuservalue(L, value, i) != LUA_TNONE; i++) note(s);
    lua_pop(L, 1);
  }
  }
}

/* Moves what is reachable from the values from `first` up from one list to the other. */
static void spare(lua_State *L, lml_state *S, int first, lml_generator **list, lml_generator **to) {
  int top = lua_gettop(L);
  search s = { .L = L, .S = S, .from = list, .to = to };
  luaL_checkstack(L, 12, NULL);
  begin(&s);
  for (int i = first; i <= top; i++) {
    lua_pushvalue(L, i);
    note(&s);
  }
  for (lua_Integer i = 1; i <= s.count && *list; i++) {
    lua_rawgeti(L, s.found, i);
    look_into(&s);
    lua_pop(L, 1);
  }
  lua_settop(L, top);
}

/* ---- closing ---- */

static const char close_key; /* registry: close_left of lua/moonloop/generator.lua */

bool lml_left_take(lua_State *L, lml_state *S, int first, lml_generator **list,
                   lml_generator **to) {
  for (lml_generator *g = *list, *next; g; g = next) {
    next = g->next;
    if (mli_future_settled(g->future)) lml_left_remove(g);
  }
  if (!*list) return false;
  spare(L, S, first, list, to);
  if (!*list) return false;
  luaL_checkstack(L, 8, NULL);
  lua_newtable(L);
  for (lua_Integer n = 1; *list; n++) {
    lml_generator *g = *list;
    lml_handle_push(L, &g->object);
    lua_rawseti(L, -2, n);
    lml_generator_abandon(&g->object); /* all are told; then each is waited for */
    lml_left_remove(g);
  }
  return true;
}

void lml_left_push_close(lua_State *L, bool failed) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &close_key);
  lua_insert(L, -2);
  lua_pushboolean(L, failed);
}

/* on_left(f): f(list, failed) closes the generators of the list. */
static int l_on_left(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &close_key);
  return 0;
}

void lml_left_open(lua_State *L) {
  static const luaL_Reg functions[] = { { "on_left", l_on_left }, { NULL, NULL } };
  lml_setfuncs(L, functions);
}
