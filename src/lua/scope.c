/*
** scope.c: scopes of cancellation within a job. So far: the shield.
*/
#include "state.h"

static int shield_k(lua_State *L, int status, lua_KContext ctx) {
  lml_scope *scope = (lml_scope *)ctx;
  lml_upstate(L)->current->scope = scope->parent;
  if (status != LUA_OK && status != LUA_YIELD) return lua_error(L);
  return lua_gettop(L) - 1;
}

/* shield(f, ...): runs f where a cancel of the job does not reach. */
static int l_shield(lua_State *L) {
  lml_state *S = lml_upstate(L);
  luaL_checkany(L, 1);
  if (!S->current) {
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
  }
  lml_scope *scope = lua_newuserdatauv(L, sizeof *scope, 0);
  *scope = (lml_scope){ .parent = S->current->scope, .error = LUA_NOREF, .shielded = true };
  lua_insert(L, 1);
  S->current->scope = scope;
  int status = lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, (lua_KContext)scope, shield_k);
  return shield_k(L, status, (lua_KContext)scope);
}

void lml_scope_open(lua_State *L) {
  static const luaL_Reg functions[] = { { "shield", l_shield }, { NULL, NULL } };
  lml_setfuncs(L, functions);
}
