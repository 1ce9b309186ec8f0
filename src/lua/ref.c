/*
** ref.c: functions that do not cross: calls come back to the state that owns them.
**
**   local progress = ml.ref(function(done, of) draw(done, of) end)
**   ml.run_async_job(work, progress):result()   -- draws here, while it waits
**
** A call from another state is a letter to the owner's inbox and a future for what the
** function returns. In the owner itself it is a plain call.
*/
#include <stdlib.h>
#include <string.h>
#include "crossing.h"
#include "state.h"

typedef struct ref {
  mli_object object;
  lml_inbox *inbox; /* [I] of the owner; holds a reference */
  int function;     /* [I] registry reference in the owner */
} ref;

/* The function is let go in its own state. */
typedef struct release_letter {
  lml_letter letter;
  int function;
} release_letter;

static void deliver_release(lua_State *L, lml_state *S, lml_letter *letter) {
  (void)S;
  luaL_unref(L, LUA_REGISTRYINDEX, mli_container(letter, release_letter, letter)->function);
}

static void drop_release(lml_letter *letter) {
  free(mli_container(letter, release_letter, letter));
}

static void ref_destroy(mli_object *object) {
  ref *r = mli_container(object, ref, object);
  release_letter *release = malloc(sizeof *release);
  if (release) { /* else the function stays until its state closes */
    release->letter.deliver = deliver_release;
    release->letter.drop = drop_release;
    release->letter.tidying = true;
    release->function = r->function;
    lml_inbox_post(r->inbox, &release->letter);
  }
  lml_inbox_release(r->inbox);
  free(r);
}

static const mli_type ref_type = { "ref", ref_destroy, NULL };

static ref *check_ref(lua_State *L) {
  return mli_container(lml_handle_check(L, 1, &ref_type), ref, object);
}

/* ---- a call from elsewhere ---- */

typedef struct call_letter {
  lml_letter letter;
  ref *ref; /* holds a reference */
  mli_message *args;
  mli_future *outcome; /* holds a reference */
} call_letter;

/* Stack: the letter, the box for the results. */
static int call_function(lua_State *L) {
  call_letter *c = lua_touserdata(L, 1);
  mli_message **out = lua_touserdata(L, 2);
  lua_settop(L, 0);
  lua_rawgeti(L, LUA_REGISTRYINDEX, c->ref->function);
  int n = lml_decode(L, c->args);
  lua_call(L, n, LUA_MULTRET);
  *out = lml_encode(L, 1, lua_gettop(L), LML_RESULTS);
  return 0;
}

static void deliver_call(lua_State *L, lml_state *S, lml_letter *letter) {
  call_letter *c = mli_container(letter, call_letter, letter);
  mli_message *out = NULL;
  if (!mli_future_start(c->outcome)) return; /* the caller waits no more */
  luaL_checkstack(L, 6, NULL);
  lua_pushcfunction(L, lml_message_handler);
  lua_pushcfunction(L, call_function);
  lua_pushlightuserdata(L, c);
  lua_pushlightuserdata(L, &out);
  if (lua_pcall(L, 2, 0, -4) == LUA_OK) {
    mli_future_settle(c->outcome, MLI_FINISHED, out, NULL);
    return;
  }
  char *traceback = S->joined ? strdup(S->joined) : NULL;
  bool failed = true;
  out = lml_encode_outcome(L, 1, &failed);
  if (out)
    mli_future_settle(c->outcome, MLI_FAILED, out, traceback);
  else
    free(traceback);
}

static void drop_call(lml_letter *letter) {
  call_letter *c = mli_container(letter, call_letter, letter);
  mli_future_fail(c->outcome, ML_ABANDONED); /* unless it was answered */
  mli_release(c->outcome);
  mli_release(c->ref);
  mli_message_free(c->args);
  free(c);
}

static int call_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_state *S = lml_upstate(L);
  const lml_await *a = S->current ? &S->current->await : &S->sync->await;
  mli_future *f = lml_future_core(lua_touserdata(L, -1));
  if (a->aborted && a->why) mli_future_cancel(f, NULL); /* if it has not begun, it never will */
  lml_await_end(L, S);
  if (mli_future_state(f) == MLI_FAILED && f->status == ML_ABANDONED) {
    mli_future_observe(f);
    return lml_raise(L, "abandoned", "the state that owns the function is gone");
  }
  return lml_future_push(L, S, lua_gettop(L));
}

static int direct_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  return lua_gettop(L);
}

static int r_call(lua_State *L) {
  lml_state *S = lml_upstate(L);
  ref *r = check_ref(L);
  if (r->inbox == S->inbox) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, r->function);
    lua_replace(L, 1);
    lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, direct_k);
    return lua_gettop(L);
  }
  lml_check_wait(L, S, "ref");
  int n = lua_gettop(L) - 1;
  mli_future *f = mli_future_new();
  if (!f) return luaL_error(L, "not enough memory");
  lml_future_wrap(L, S, f);
  mli_message *args = lml_encode(L, 2, n, LML_ARGUMENTS);
  call_letter *c = malloc(sizeof *c);
  if (!c) {
    mli_message_free(args);
    return luaL_error(L, "not enough memory");
  }
  c->letter.deliver = deliver_call;
  c->letter.drop = drop_call;
  c->letter.tidying = false;
  c->ref = mli_retain(r);
  c->outcome = mli_retain(f);
  c->args = args;
  lml_inbox_post(r->inbox, &c->letter);
  return lml_await_future(L, S, lua_gettop(L), MLI_FOREVER, call_k, 0);
}

static int l_ref(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lml_check_callable(L, 1);
  lua_settop(L, 1);
  lml_handle *h = lml_handle_new(L, &ref_type);
  lua_pushvalue(L, 1);
  int function = luaL_ref(L, LUA_REGISTRYINDEX);
  ref *r = malloc(sizeof *r);
  if (!r) {
    luaL_unref(L, LUA_REGISTRYINDEX, function);
    return luaL_error(L, "not enough memory");
  }
  mli_object_init(&r->object, &ref_type);
  r->inbox = lml_inbox_retain(S->inbox);
  r->function = function;
  h->object = &r->object;
  return 1;
}

void lml_ref_open(lua_State *L) {
  static const luaL_Reg functions[] = { { "ref", l_ref }, { NULL, NULL } };
  static const luaL_Reg metamethods[] = {
    { "__call", r_call }, { "__gc", lml_handle_gc }, { "__eq", lml_handle_eq }, { NULL, NULL }
  };
  lml_setfuncs(L, functions);
  lua_newtable(L);
  lua_pushliteral(L, "ref");
  lua_setfield(L, -2, "__name");
  lml_setfuncs(L, metamethods);
  lml_handle_declare(L, &ref_type);
  lua_pop(L, 1);
}
