/*
** parcel.c: a Lua value as an item of a queue or channel: a copy that any state can
** read; and, where values have an identity, the value itself for the state that sent
** it. A copy is made when it is sent, so what cannot cross is refused there and then.
**
** The value itself is kept in its state's registry. When the item goes elsewhere, or
** is dropped, it becomes a letter to its state, which lets the value go.
*/
#include <stdlib.h>
#include "crossing.h"
#include "sync.h"

typedef struct parcel {
  mli_item item;
  mli_message *message; /* owned */
  lml_inbox *origin;    /* of the state that keeps the value; NULL: none does */
  int ref;              /* there */
  lml_letter letter;    /* to there */
} parcel;

static void let_go(lua_State *L, lml_state *S, lml_letter *letter) {
  (void)S;
  luaL_unref(L, LUA_REGISTRYINDEX, mli_container(letter, parcel, letter)->ref);
}

static void letter_drop(lml_letter *letter) { free(mli_container(letter, parcel, letter)); }

static void parcel_drop(mli_item *item) {
  parcel *p = mli_container(item, parcel, item);
  mli_message *message = p->message;
  lml_inbox *origin = p->origin;
  if (origin) {
    lml_inbox_post(origin, &p->letter);
    lml_inbox_release(origin);
  } else {
    free(p);
  }
  mli_message_free(message);
}

static int keep(lua_State *L) {
  int *ref = lua_touserdata(L, 2);
  lua_settop(L, 1);
  *ref = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

mli_item *lml_parcel_new(lua_State *L, lml_state *S, int index) {
  int type = lua_type(L, index), ref = LUA_NOREF;
  luaL_checkstack(L, 4, NULL);
  index = lua_absindex(L, index);
  mli_message *message = lml_encode(L, index, 1, LML_ARGUMENTS);
  parcel *p = malloc(sizeof *p);
  if (!p) {
    mli_message_free(message);
    luaL_error(L, "not enough memory");
  }
  *p = (parcel){ .item.drop = parcel_drop, .message = message };
  if (type == LUA_TTABLE || type == LUA_TFUNCTION || type == LUA_TUSERDATA) {
    lua_pushcfunction(L, keep);
    lua_pushvalue(L, index);
    lua_pushlightuserdata(L, &ref);
    if (lua_pcall(L, 2, 0, 0) != LUA_OK) {
      parcel_drop(&p->item);
      lua_error(L);
    }
    p->ref = ref;
    p->origin = lml_inbox_retain(S->inbox);
    p->letter.deliver = let_go;
    p->letter.drop = letter_drop;
    p->letter.tidying = true;
  }
  return &p->item;
}

static int rebuild(lua_State *L) {
  const mli_message *message = lua_touserdata(L, 1);
  return lml_decode(L, message);
}

void lml_parcel_push(lua_State *L, lml_state *S, mli_item *item) {
  parcel *p = mli_container(item, parcel, item);
  int status = LUA_OK;
  if (p->origin && p->origin == S->inbox) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, p->ref);
    luaL_unref(L, LUA_REGISTRYINDEX, p->ref);
    lml_inbox_release(p->origin);
    p->origin = NULL;
  } else {
    lua_pushcfunction(L, rebuild);
    lua_pushlightuserdata(L, p->message);
    status = lua_pcall(L, 1, 1, 0);
  }
  parcel_drop(item);
  if (status != LUA_OK) lua_error(L);
}
