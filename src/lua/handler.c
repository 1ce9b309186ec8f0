/*
** handler.c: handlers that the process has one of each: a function that was set in one
** state and runs in any. Each state keeps a copy of it, made when it is first needed.
*/
#include "crossing.h"
#include "state.h"

void lml_handler_push(lua_State *L, lml_state *S, lml_handler *handler) {
  unsigned version = atomic_load(&handler->version), *kept = &S->handler_versions[handler->slot];
  if (S->closed && *kept != version) {
    lua_pushnil(L); /* what is made in a closing state is never finalized */
    return;
  }
  if (*kept == version) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, handler);
    return;
  }
  mli_lock_acquire(&handler->lock);
  mli_message *message = handler->message ? mli_message_copy(handler->message) : NULL;
  version = atomic_load(&handler->version);
  mli_lock_release(&handler->lock);
  mli_message **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = message;
  if (!message || lml_decode(L, message) < 1) lua_pushnil(L);
  mli_message_free(message);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, handler);
  lua_remove(L, -2);
  *kept = version;
}

int lml_handler_set(lua_State *L, lml_handler *handler) {
  lml_state *S = lml_upstate(L);
  if (!lua_isnoneornil(L, 1)) lml_check_callable(L, 1);
  lua_settop(L, 1);
  lml_handler_push(L, S, handler); /* the one before, returned */
  mli_message *message = lua_isnil(L, 1) ? NULL : lml_encode(L, 1, 1, LML_ARGUMENTS);
  mli_lock_acquire(&handler->lock);
  mli_message *old = handler->message;
  handler->message = message;
  S->handler_versions[handler->slot] = atomic_fetch_add(&handler->version, 1) + 1;
  mli_lock_release(&handler->lock);
  mli_message_free(old);
  lua_pushvalue(L, 1); /* here it is the function itself, not a copy */
  lua_rawsetp(L, LUA_REGISTRYINDEX, handler);
  return 1;
}

bool lml_handler_is_set(lml_handler *handler) {
  mli_lock_acquire(&handler->lock);
  bool set = handler->message != NULL;
  mli_lock_release(&handler->lock);
  return set;
}
