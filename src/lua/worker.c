/*
** worker.c: the Lua state of an executor's thread: its making and its end.
*/
#include "worker.h"
#include <lualib.h>
#include <stdio.h>

const char lml_init_key;

/* Prepares a worker's state: libraries, paths, moonloop, init. */
static int prepare(lua_State *L) {
  mli_worker *w = lua_touserdata(L, 1);
  const lml_outset *c = w->executor->user;
  const lml_host *host = lml_host_of(w->executor);
  if (!host || !host->new_state) {
    luaL_openlibs(L);
    lua_getglobal(L, "package");
    lua_pushstring(L, c->path);
    if (c->path) lua_setfield(L, 2, "path");
    lua_settop(L, 2);
    lua_pushstring(L, c->cpath);
    if (c->cpath) lua_setfield(L, 2, "cpath");
    lua_settop(L, 1);
  }
  lml_open(L);
  lua_setfield(L, LUA_REGISTRYINDEX, "moonloop.opened");
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, LUA_REGISTRYINDEX, "moonloop.opened");
  lua_setfield(L, -2, "moonloop");
  lml_state *S = lml_state_of(L);
  w->user = S;
  S->worker = w;
  S->count = &w->counts;
  lua_settop(L, 0);
  lua_pushcfunction(L, lml_outset_install_preload);
  lua_pushlightuserdata(L, (void *)c);
  lua_call(L, 1, 0);
  if (w->loop) {
    S->loop = w->loop;
    S->from = L;
    lml_inbox_attach(S->inbox, w->loop);
  }
  return 0;
}

/* The state is there, or w->user is NULL and every task fails for memory. */
void lml_worker_open(mli_worker *w) {
  const lml_host *host = lml_host_of(w->executor);
  lml_state *before = lml_thread_state;
  lua_State *L = lml_state_new(host);
  if (!L) {
    lml_log(w->executor, "a state of the executor could not be made");
    return;
  }
  lua_gc(L, LUA_GCSTOP); /* what is loaded now stays */
  lua_pushcfunction(L, prepare);
  lua_pushlightuserdata(L, w);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
    char text[512];
    snprintf(text, sizeof text, "a worker of '%s' cannot start: %s", w->executor->name,
             lua_tostring(L, -1));
    lml_log(w->executor, text);
    w->user = NULL;
    lml_state_free(L, host);
    return;
  }
  lua_gc(L, LUA_GCRESTART);
  lml_state *S = w->user;
  S->visited = before;
  lml_thread_state = S;
  if (w->loop)
    lml_blocked_enter(S);
  else
    lml_poke_enter(S);
}

void lml_worker_close(mli_worker *w) {
  lml_state *S = w->user;
  if (!S) return;
  lml_state *before = S->visited;
  if (S->loop) {
    lml_blocked_leave(S);
    lml_tidy_end(S);
  } else {
    lml_poke_leave(S);
  }
  S->loop = NULL;
  S->from = NULL;
  lml_state_free(S->L, lml_host_of(w->executor));
  lml_thread_state = before;
}

void lml_worker_visit(mli_worker *w, bool in) {
  lml_state *S = w->user;
  if (!S) return;
  if (in) {
    S->visited = lml_thread_state;
    lml_thread_state = S;
    lml_poke_enter(S);
  } else {
    lml_poke_leave(S);
    lml_thread_state = S->visited;
  }
}
