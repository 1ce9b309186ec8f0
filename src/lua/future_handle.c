/*
** future_handle.c: the handles of futures. A job of this loop keeps its future inside its
** handle, unshared, until the handle crosses to another state.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "crossing.h"
#include "state.h"

lml_future *lml_future_test(lua_State *L, lml_state *S, int index) {
  lml_future *u = lua_touserdata(L, index);
  if (!u || lua_islightuserdata(L, index) || !lua_getmetatable(L, index)) return NULL;
  const void *metatable = lua_topointer(L, -1);
  lua_pop(L, 1);
  return metatable == S->local_future || metatable == S->types[0].metatable ? u : NULL;
}

lml_future *lml_future_check(lua_State *L, lml_state *S, int arg) {
  lml_future *u = lml_future_test(L, S, arg);
  if (!u) lml_typeerror(L, arg, "future");
  if (!u->handle.object) lml_argerror(L, arg, "a future that was never made");
  return u;
}

void lml_future_wrap(lua_State *L, lml_state *S, mli_future *f) {
  lml_future *u = lua_newuserdatauv(L, LML_SHARED_FUTURE_SIZE, 1);
  u->handle.object = f ? &f->object : NULL;
  u->job = NULL;
  u->values = -1;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->types[0].ref);
  lua_setmetatable(L, -2);
}

void lml_future_track(lua_State *co, lml_state *S) {
  lua_rawgeti(co, LUA_REGISTRYINDEX, S->types[0].ref);
  lua_setmetatable(co, 1);
}

void lml_local_cancel(mli_future *f) {
  lml_future *u = mli_container(f, lml_future, local);
  if (u->job) lml_job_cancel(u->job);
}

/* ---- a local future that crosses ---- */

/* The shared face of a job of this loop. */
typedef struct shared_future {
  mli_future future;
  mli_loop *loop;     /* [I] holds a reference; NULL: it was settled before */
  lml_future *handle; /* [L] the local handle, while its job lives */
  mli_node cancel_node;
} shared_future;

static void shared_destroy(mli_object *object) {
  shared_future *s = mli_container(object, shared_future, future.object);
  if (s->loop) mli_release(s->loop);
  mli_future_fini(&s->future);
  free(s);
}

static void on_shared_cancel(mli_node *node, mli_loop *loop) {
  shared_future *s = mli_container(node, shared_future, cancel_node);
  (void)loop;
  if (!mli_future_settled(&s->future) && s->handle->job) lml_job_cancel(s->handle->job);
  mli_release(&s->future);
}

static void shared_cancel(mli_future *f) {
  shared_future *s = mli_container(f, shared_future, future);
  mli_object_retain(&f->object);
  s->cancel_node.run = on_shared_cancel;
  if (!mli_loop_post(s->loop, &s->cancel_node)) mli_release(f);
}

static const mli_type shared_type = { "future", shared_destroy, &mli_future_type };

mli_future *lml_future_share(lua_State *L, lml_state *S, int index) {
  index = lua_absindex(L, index);
  lml_future *u = lua_touserdata(L, index);
  if (!lml_future_is_local(u)) return lml_future_core(u);
  mli_message *outcome = NULL;
  mli_state state = mli_future_state(&u->local);
  bool failed = state == MLI_FAILED;
  if (state == MLI_FINISHED || state == MLI_FAILED) {
    /* A refusal is what others see. */
    outcome = lml_encode_outcome(L, lml_future_push_values(L, index, u->values), &failed);
    if (failed && state == MLI_FINISHED) state = MLI_FAILED;
  }
  shared_future *s = malloc(sizeof *s);
  if (!s) {
    mli_message_free(outcome);
    luaL_error(L, "not enough memory");
  }
  mli_future_init(&s->future, &shared_type, true);
  mli_future_promote(&s->future, &u->local);
  if (outcome) {
    s->future.outcome = outcome;
    atomic_store(&s->future.state, state);
  }
  s->future.on_cancel = shared_cancel;
  s->loop = S->loop ? mli_retain(S->loop) : NULL; /* settled: nothing to cancel */
  s->handle = u;
  u->handle.object = &s->future.object;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->types[0].ref);
  lua_setmetatable(L, index);
  return &s->future;
}

/* ---- the end of a handle ---- */

/* What the handle of a finalized future refers to: a future that is over. */
static mli_future finalized = { .object = { .type = &mli_future_type, .refs = 1 },
                                .state = MLI_STOPPED,
                                .observed = true };

/* Reports the error on top of the stack. The job is gone: its name and place are at the
** end of its traceback, as traceback.c wrote them. */
static void report_local(lua_State *L, lml_state *S, mli_future *f) {
  char name[MLI_NAME_MAX] = "", where[MLI_WHERE_MAX + 16] = "";
  const char *text = f->traceback, *last = NULL;
  for (const char *at = text; at && (at = strstr(at, "\nin job ")); at++) last = at;
  if (last) {
    sscanf(last, "\nin job '%63[^']'", name);
    const char *place = strstr(last, ", spawned at ");
    if (place) sscanf(place, ", spawned at %111[^\n]", where);
  }
  lml_report(L, S, "job", name[0] ? name : NULL, f->traceback, where[0] ? where : NULL);
}

int lml_future_gc(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lml_future *u = lua_touserdata(L, 1);
  mli_object *object = u->handle.object;
  if (!object || object == &finalized.object) return 0;
  lml_state *outer = lml_thread_state;
  lua_State *gc = S->gc;
  lml_thread_state = S;
  S->gc = L;
  if (lml_future_is_local(u)) {
    mli_future *f = &u->local;
    if (mli_future_state(f) == MLI_FAILED && !atomic_load(&f->observed)) {
      lml_future_push_error(L, S, 1);
      report_local(L, S, f);
      mli_future_observe(f);
    }
    mli_future_fini(f);
  } else {
    mli_object_release(object);
  }
  u->handle.object = &finalized.object; /* a later finalizer may still ask */
  u->values = 0;
  lml_thread_state = outer;
  S->gc = gc;
  return 0;
}
