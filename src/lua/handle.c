/*
** handle.c: userdata that refer to counted objects, and their identity: once an
** object has crossed, a state knows it by one handle.
*/
#include "generator.h"
#include "state.h"

static const char handles_key; /* registry: object address -> handle, weak */

/* Pushes the table of the handles that have crossed. */
static void push_handles(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &handles_key) == LUA_TTABLE) return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &handles_key);
}

static struct lml_type *find(lml_state *S, const mli_type *type) {
  if (type->as) type = type->as;
  for (unsigned i = 0; i < S->type_count; i++)
    if (S->types[i].type == type) return &S->types[i];
  return NULL;
}

void lml_handle_declare(lua_State *L, const mli_type *type) {
  lml_state *S = lml_state_of(L);
  struct lml_type *t = find(S, type);
  if (!t) {
    if (S->type_count == LML_MAX_TYPES) luaL_error(L, "too many handle types");
    t = &S->types[S->type_count++];
  } else {
    luaL_unref(L, LUA_REGISTRYINDEX, t->ref);
  }
  lua_pushvalue(L, -1);
  t->ref = luaL_ref(L, LUA_REGISTRYINDEX);
  t->type = type;
  t->metatable = lua_topointer(L, -1);
}

static struct lml_type *need(lua_State *L, lml_state *S, const mli_type *type) {
  struct lml_type *t = find(S, type);
  if (!t) { /* its module is not loaded here yet: its type is named after it */
    lua_getglobal(L, "require");
    lua_pushfstring(L, "moonloop.%s", type->name);
    lua_call(L, 1, 0);
    t = find(S, type);
    if (!t) luaL_error(L, "no module declares handles of type '%s'", type->name);
  }
  return t;
}

static lml_handle *make(lua_State *L, const mli_type *type) {
  lml_state *S = lml_state_of(L);
  struct lml_type *t = need(L, S, type);
  lml_handle *h;
  if (t->type == &mli_future_type) {
    lml_future *u = lua_newuserdatauv(L, LML_SHARED_FUTURE_SIZE, 1);
    u->job = NULL;
    u->values = -1;
    h = &u->handle;
  } else {
    h = lua_newuserdatauv(L, sizeof *h, 1);
  }
  h->object = NULL;
  lua_rawgeti(L, LUA_REGISTRYINDEX, t->ref);
  lua_setmetatable(L, -2);
  return h;
}

lml_handle *lml_handle_new(lua_State *L, const mli_type *type) {
  lml_handle *h = make(L, type);
  lml_opened_note(L);
  return h;
}

void lml_handle_push(lua_State *L, mli_object *object) {
  luaL_checkstack(L, 6, NULL);
  push_handles(L);
  if (lua_rawgetp(L, -1, object) == LUA_TUSERDATA) {
    lua_remove(L, -2);
    return;
  }
  lua_pop(L, 1);
  lml_handle *h = make(L, object->type);
  mli_object_retain(object);
  h->object = object;
  if (object->type == &mli_executor_type)
    mli_executor_use(mli_container(object, mli_executor, object));
  lua_pushvalue(L, -1);
  lua_rawsetp(L, -3, object);
  lua_remove(L, -2);
}

mli_object *lml_handle_test_in(lua_State *L, lml_state *S, int index, const mli_type *type) {
  lml_handle *h = lua_touserdata(L, index);
  if (!h || lua_islightuserdata(L, index) || !lua_getmetatable(L, index)) return NULL;
  const void *metatable = lua_topointer(L, -1);
  lua_pop(L, 1);
  struct lml_type *t = find(S, type);
  if (t && t->metatable == metatable) return h->object;
  if (type == &mli_future_type && metatable == S->local_future) return h->object;
  return NULL;
}

mli_object *lml_handle_test(lua_State *L, int index, const mli_type *type) {
  return lml_handle_test_in(L, lml_state_of(L), index, type);
}

mli_object *lml_handle_check(lua_State *L, int arg, const mli_type *type) {
  mli_object *object = lml_handle_test(L, arg, type);
  if (!object) lml_typeerror(L, arg, type->name);
  return object;
}

int lml_handle_gc(lua_State *L) {
  lml_handle *h = lua_touserdata(L, 1);
  mli_object *object = h->object;
  h->object = NULL;
  if (object) mli_object_release(object);
  return 0;
}

int lml_handle_eq(lua_State *L) {
  const lml_handle *a = lua_touserdata(L, 1), *b = lua_touserdata(L, 2);
  bool alike = lua_type(L, 1) == LUA_TUSERDATA && lua_type(L, 2) == LUA_TUSERDATA &&
               lua_getmetatable(L, 1) && lua_getmetatable(L, 2) && lua_rawequal(L, -1, -2);
  lua_pushboolean(L, alike && a->object && a->object == b->object);
  return 1;
}

mli_object *lml_handle_export(lua_State *L, int index) {
  index = lua_absindex(L, index);
  lml_handle *h = lua_touserdata(L, index);
  if (!h || lua_islightuserdata(L, index) || !lua_getmetatable(L, index)) return NULL;
  const void *metatable = lua_topointer(L, -1);
  lua_pop(L, 1);
  lml_state *S = lml_state_of(L);
  if (metatable == S->local_future) {
    lml_future_share(L, S, index);
  } else {
    bool known = false;
    for (unsigned i = 0; i < S->type_count; i++)
      if (S->types[i].metatable == metatable) known = true;
    if (!known || !h->object) return NULL;
    if (lml_future_test(L, S, index) && lml_future_is_local((lml_future *)h))
      lml_future_share(L, S, index);
    if (h->object->type == &lml_generator_type)
      lml_left_remove(mli_container(h->object, lml_generator, object));
  }
  push_handles(L);
  lua_pushvalue(L, index);
  lua_rawsetp(L, -2, h->object);
  lua_pop(L, 1);
  mli_object_retain(h->object);
  return h->object;
}
