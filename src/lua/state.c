/*
** state.c: the record of a Lua state: made when moonloop is opened in it, gone
** with lua_close. Its memory is a userdata's, so that finalizers that run later
** still find it, closed.
*/
#include "state.h"

#include <lualib.h>
#include <stdlib.h>
#include <string.h>
#include "crossing.h"
#include "embedded.h"
#include "slab.h"

static const char state_key;                          /* registry: the record */
static const char callbacks_key;                      /* registry: the coroutine of callbacks */
static const char sentinel_key;                       /* registry: what is finalized first */
static const char modules_key[] = "moonloop.modules"; /* registry: name -> module */

lml_state *lml_state_of(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
  lml_state *S = lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (mli_unlikely(!S))
    luaL_error(L, "moonloop is not open in this Lua state: require \"moonloop\"");
  return S;
}

void lml_setfuncs(lua_State *L, const luaL_Reg *functions) {
  lua_pushlightuserdata(L, lml_state_of(L));
  luaL_setfuncs(L, functions, 1);
}

static void free_memory(lml_state *S) {
  lml_jobs_forget(S);
  while (S->job_chunks) {
    void *chunk = S->job_chunks;
    S->job_chunks = *(void **)chunk;
    free(chunk);
  }
  free(S->idle);
  free(S->free_slots);
  lml_chunks_free(S);
  free(S->chunks);
  free(S->joined);
  S->idle = NULL;
  S->free_slots = NULL;
  S->chunks = NULL;
  S->joined = NULL;
  S->idle_count = S->idle_room = S->free_slot_count = S->free_slot_room = 0;
  S->chunk_count = S->chunk_room = 0;
  S->free_jobs = NULL;
  S->fresh_job_count = S->job_room = 0;
}

/* What the state made ends, and it counts no more as one of the host's. */
static void close_record(lml_state *S) {
  if (S->closed) return;
  if (S->loop && S->loop->watch.listed) lml_blocked_leave(S); /* closed from inside, by os.exit */
  lml_executors_close(S);
  if (!S->worker) lml_host_leave();
  S->closed = true;
}

/* lua_close has come to our oldest object: nothing of ours is used after it. */
static int state_gc(lua_State *L) {
  lml_state *S = lua_touserdata(L, 1);
  close_record(S); /* unless the sentinel did; it does not if it was made while closing */
  if (S->inbox) {
    lml_inbox_close(S->inbox);
    lml_inbox_release(S->inbox);
    S->inbox = NULL;
  }
  free_memory(S);
  if (lml_thread_state == S) lml_thread_state = NULL;
  return 0;
}

/* The state closes: this runs before the finalizers of the executors that were
** made in it, since it is younger than they are. */
static int sentinel_gc(lua_State *L) {
  bool *live = lua_touserdata(L, 1);
  if (!*live) return 0;
  close_record(lml_state_of(L));
  return 0;
}

void lml_state_renew_sentinel(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &sentinel_key) == LUA_TUSERDATA)
    *(bool *)lua_touserdata(L, -1) = false;
  lua_pop(L, 1);
  bool *live = lua_newuserdatauv(L, sizeof *live, 0);
  *live = true;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, sentinel_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &sentinel_key);
}

static lua_CFunction base_function(lua_State *L, const char *name) {
  lua_getglobal(L, name);
  lua_CFunction f = lua_tocfunction(L, -1);
  lua_pop(L, 1);
  return f;
}

lml_state *lml_state_open(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
  lml_state *S = lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (S) return S;
  if (lua_getfield(L, LUA_REGISTRYINDEX, modules_key) != LUA_TNIL)
    luaL_error(L, "another copy of moonloop is open in this Lua state (the module moonloop.so, or "
                  "a library): open the one that is to be used before the first require");
  lua_pop(L, 1);
  luaL_checkversion(L);
  S = lua_newuserdatauv(L, sizeof *S, 0);
  memset(S, 0, sizeof *S);
  S->ready_last = &S->ready;
  S->deferred_last = &S->deferred;
  S->count = &S->counts;
  S->task_error = S->joined_error = S->traced = LUA_NOREF;
  S->context = LUA_NOREF;
  S->closed = true; /* until it is open: what follows may raise for lack of memory */
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, state_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  S->L = lua_tothread(L, -1);
  lua_pop(L, 1);
  S->inbox = lml_inbox_new();
  if (!S->inbox) luaL_error(L, "not enough memory");
  lml_inbox_own(S->inbox, S);
  S->callbacks = lua_newthread(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &callbacks_key);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &state_key);
  lml_state_renew_sentinel(L);
  S->yieldable[0] = base_function(L, "pcall");
  S->yieldable[1] = base_function(L, "xpcall");
  S->yieldable[4] = base_function(L,
                                  "error"); /* it calls message handlers, which are named instead */
  lml_crossing_open(L);
  lml_coroutine_open(L, S);
  if (mli_worker_self())
    S->worker = mli_worker_self();
  else
    lml_host_enter();
  S->closed = false;
  lml_poke_choose();
  if (!lml_thread_state) lml_thread_state = S;
  return S;
}

/* ---- the module ---- */

/* Runs an embedded Lua file with the values on top of the stack as arguments;
** pushes what it returns. */
static void run_embedded(lua_State *L, struct lml_embedded *e, int nargs) {
  lml_embedded_load(L, e);
  lua_insert(L, -nargs - 1);
  lua_call(L, nargs, 1);
}

/* The loader of a module's C part, and of an embedded module. Each makes one instance per state,
** even if package.loaded forgets it. Stack: the module's name. */
static int load_once(lua_State *L, lua_CFunction open, struct lml_embedded *e) {
  lua_settop(L, 1);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, modules_key);
  lua_pushvalue(L, 1);
  if (lua_rawget(L, 2) != LUA_TNIL) return 1;
  if (e)
    lml_embedded_load(L, e);
  else
    lua_pushcfunction(L, open);
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  lua_pushvalue(L, 1);
  lua_pushvalue(L, -2);
  lua_rawset(L, 2);
  return 1;
}

/* Upvalue: its lml_embedded. */
static int load_embedded(lua_State *L) {
  return load_once(L, NULL, lua_touserdata(L, lua_upvalueindex(1)));
}

/* Upvalue: its function. */
static int load_part(lua_State *L) {
  return load_once(L, lua_tocfunction(L, lua_upvalueindex(1)), NULL);
}

static void open_core(lua_State *L) {
  lua_newtable(L);
  lml_error_open(L);
  lml_future_open(L);
  lml_job_open(L);
  lml_await_open(L);
  lml_waitset_open(L);
  lml_gather_open(L);
  lml_executor_open(L);
  lml_pin_open(L);
  lml_blocked_open(L);
  lml_run_open(L);
  lml_promise_open(L);
  lml_generator_open(L);
  lml_left_open(L);
  lml_opened_open(L);
  lml_clock_open(L);
  lml_scope_open(L);
  lml_sync_open(L);
  lml_ref_open(L);
  lml_context_open(L);
  lml_observed_open(L);
}

static int load_core(lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, modules_key);
  lua_getfield(L, -1, "moonloop.core");
  return 1;
}

/* C parts of other modules, found by `require`. */
int luaopen_moonloop_http_core(lua_State *L);
int luaopen_moonloop_http_websocket_core(lua_State *L);
int luaopen_moonloop_tcp_core(lua_State *L);
static const luaL_Reg parts[] = {
  { "moonloop.http.core", luaopen_moonloop_http_core },
  { "moonloop.http.websocket.core", luaopen_moonloop_http_websocket_core },
  { "moonloop.tcp.core", luaopen_moonloop_tcp_core },
  { NULL, NULL },
};

/* What `require` finds without a file. */
static void add_preloads(lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  for (struct lml_embedded *e = lml_embedded; e->name; e++) {
    if (strcmp(e->name, "moonloop") == 0) continue;
    lua_pushlightuserdata(L, e);
    lua_pushcclosure(L, load_embedded, 1);
    lua_setfield(L, -2, e->name);
  }
  lua_pushcfunction(L, luaopen_moonloop);
  lua_setfield(L, -2, "moonloop");
  lua_pushcfunction(L, load_core);
  lua_setfield(L, -2, "moonloop.core");
  for (const luaL_Reg *part = parts; part->name; part++) {
    lua_pushcfunction(L, part->func);
    lua_pushcclosure(L, load_part, 1);
    lua_setfield(L, -2, part->name);
  }
  lua_pop(L, 1);
}

void lml_open(lua_State *L) {
  lml_state_open(L);
  luaL_checkstack(L, 12, NULL);
  add_preloads(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, modules_key);
  if (lua_getfield(L, -1, "moonloop") == LUA_TNIL) {
    lua_pop(L, 1);
    open_core(L);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "moonloop.core");
    for (struct lml_embedded *e = lml_embedded; e->name; e++)
      if (strcmp(e->name, "moonloop") == 0) run_embedded(L, e, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "moonloop");
  }
  lua_remove(L, -2);
}

ML_API int luaopen_moonloop(lua_State *L) {
  lml_open(L);
  return 1;
}

/* With nothing but the library on package.cpath, `require "moonloop.http"` may come
** first: Lua then looks for these in it. */
static int open_part(lua_State *L, const char *name) {
  lml_open(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_getfield(L, -1, name);
  lua_pushstring(L, name);
  lua_call(L, 1, 1);
  return 1;
}

ML_API int luaopen_moonloop_http(lua_State *L);
int luaopen_moonloop_http(lua_State *L) { return open_part(L, "moonloop.http"); }

ML_API int luaopen_moonloop_tcp(lua_State *L);
int luaopen_moonloop_tcp(lua_State *L) { return open_part(L, "moonloop.tcp"); }

ML_API int luaopen_moonloop_busted(lua_State *L);
int luaopen_moonloop_busted(lua_State *L) { return open_part(L, "moonloop.busted"); }

ML_API int luaopen_moonloop_testing(lua_State *L);
int luaopen_moonloop_testing(lua_State *L) { return open_part(L, "moonloop.testing"); }

/* ---- states of our own ---- */

static int panic(lua_State *L) {
  (void)L;
  return 0; /* every call is protected: not reached but by a fault of ours */
}

static lua_State *slab_state(void) {
  lml_slab *slab = lml_slab_new();
  if (!slab) return NULL;
  lua_State *L = lua_newstate(lml_slab_alloc, slab);
  if (!L) lml_slab_free(slab);
  return L;
}

lua_State *lml_state_new(const lml_host *host) {
  if (host && host->new_state) return host->new_state(host->user);
  lua_State *L = host && (host->alloc || host->memory_limit) ? lml_budget_state(host)
                                                             : slab_state();
  if (!L) return NULL;
  lua_atpanic(L, panic);
  lua_gc(L, LUA_GCINC, 200, 40, 8); /* short steps: a loop must not stop for long */
#ifdef LML_GC_STRESS
  lua_gc(L, LUA_GCINC, 100, 1000, 5);
#endif
  return L;
}

void lml_state_free(lua_State *L, const lml_host *host) {
  void *slab;
  lml_locks_leave(L);
  if (host && host->new_state) {
    if (host->close_state)
      host->close_state(L, host->user);
    else
      lua_close(L);
    return;
  }
  if (lml_budget_close(L)) return;
  lua_getallocf(L, &slab);
  lua_close(L);
  lml_slab_free(slab);
}
