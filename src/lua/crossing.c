/*
** crossing.c: what a state keeps for crossing: names, code, memory for messages.
*/
#include "encoder.h"

static const char registry_key; /* its address is the key */

/* What this thread asked for last: a state is known by its registry as long as no
** state has closed since. */
static _Thread_local struct {
  const void *registry;
  lml_crossing *crossing;
  unsigned closings;
} recent;
static atomic_uint closings; /* of states, in this process */

static int crossing_gc(lua_State *L) {
  lml_crossing *c = lua_touserdata(L, 1);
  c->closed = true;
  atomic_fetch_add(&closings, 1);
  while (c->idle) {
    lml_scratch *s = c->idle;
    c->idle = s->next;
    lml_scratch_free(s);
  }
  return 0;
}

void lml_crossing_open(lua_State *L) {
  luaL_checkstack(L, LUA_MINSTACK, NULL);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &registry_key) == LUA_TNIL) {
    lml_crossing *c = lua_newuserdatauv(L, sizeof *c, 0); /* nil ud */
    memset(c, 0, sizeof *c);
    lml_names_open(L, &c->names);
    lml_codes_open(L, &c->codes);
    lua_createtable(L, 0, 1); /* nil ud mt */
    lua_pushcfunction(L, crossing_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2); /* nil ud */
    lua_rawsetp(L, LUA_REGISTRYINDEX, &registry_key);
  }
  lua_pop(L, 1);
}

lml_crossing *lml_crossing_of(lua_State *L) {
  const void *registry = lua_topointer(L, LUA_REGISTRYINDEX);
  unsigned now = atomic_load_explicit(&closings, memory_order_acquire);
  if (mli_likely(recent.registry == registry && recent.closings == now)) return recent.crossing;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &registry_key);
  lml_crossing *c = lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (mli_unlikely(!c)) luaL_error(L, "moonloop is not open in this Lua state");
  if (c->closed) return c; /* finalizers still run in it */
  recent.registry = registry;
  recent.crossing = c;
  recent.closings = now;
  return c;
}
