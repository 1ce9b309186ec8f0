/*
** context.c: the context that a job hands to the jobs it starts: a table from the ids
** of variables to their values, never changed once made (see lua/moonloop/vars.lua).
*/
#include "crossing.h"
#include "state.h"

static int *current(lml_state *S) { return S->current ? &S->current->context : &S->context; }

int lml_context_share(lua_State *L, lml_state *S) {
  int ref = *current(S);
  if (mli_likely(ref == LUA_NOREF)) return LUA_NOREF;
  lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
  return luaL_ref(L, LUA_REGISTRYINDEX);
}

mli_message *lml_context_encode(lua_State *L, lml_state *S, bool far) {
  int ref = *current(S);
  if (mli_likely(ref == LUA_NOREF)) return NULL;
  luaL_checkstack(L, 2, NULL);
  lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
  mli_message *m = lml_encode(L, lua_gettop(L), 1, far ? LML_CONTEXT | LML_FAR : LML_CONTEXT);
  lua_pop(L, 1);
  return m;
}

int lml_context_decode(lua_State *L, const mli_message *message) {
  lml_decode(L, message);
  return luaL_ref(L, LUA_REGISTRYINDEX);
}

/* context(): the table, or nil. */
static int l_context(lua_State *L) {
  int ref = *current(lml_upstate(L));
  if (ref == LUA_NOREF) return 0;
  lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
  return 1;
}

/* set_context(table or nil) */
static int l_set_context(lua_State *L) {
  lua_settop(L, 1);
  int ref = lua_isnil(L, 1) ? LUA_NOREF : luaL_ref(L, LUA_REGISTRYINDEX);
  int *slot = current(lml_upstate(L));
  luaL_unref(L, LUA_REGISTRYINDEX, *slot);
  *slot = ref;
  return 0;
}

static atomic_ullong last_id;

void lml_context_number_from(unsigned long long id) { atomic_store(&last_id, id); }

/* new_id(): a number that no other call gives, in the whole process. */
static int l_new_id(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)atomic_fetch_add(&last_id, 1) + 1);
  return 1;
}

/* here(): the line outside of moonloop that called, "file.lua:12". */
static int l_here(lua_State *L) {
  char chunk[LUA_IDSIZE];
  uint32_t line;
  lml_where(L, 1, chunk, sizeof chunk, &line);
  if (line == 0) return 0;
  lua_pushfstring(L, "%s:%d", chunk, (int)line);
  return 1;
}

void lml_context_open(lua_State *L) {
  static const luaL_Reg functions[] = { { "context", l_context },
                                        { "set_context", l_set_context },
                                        { "new_id", l_new_id },
                                        { "here", l_here },
                                        { NULL, NULL } };
  lml_setfuncs(L, functions);
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_setfield(L, LUA_REGISTRYINDEX, LML_VARIABLES);
  lua_setfield(L, -2, "variables");
}
