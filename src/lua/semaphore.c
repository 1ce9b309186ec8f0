/*
** semaphore.c: permits for jobs and threads.
**
**   local sem = ml.Semaphore(3)
**   sem:acquire([timeout])            -- true, or nil, err
**   sem:try_acquire()                 -- true, or nil, err: "busy"
**   sem:release([n])
**   local _ <close> = sem:hold([timeout])
**   sem:value()                       -- free permits now
*/
#include <stdlib.h>
#include "sync.h"

typedef struct semaphore {
  mli_object object;
  mli_sem sem;
} semaphore;

static void semaphore_destroy(mli_object *object) {
  free(mli_container(object, semaphore, object));
}

static const mli_type semaphore_type = { "semaphore", semaphore_destroy, NULL };

static semaphore *check(lua_State *L, lml_state *S) {
  return mli_container(lml_sync_check(L, S, 1, &semaphore_type), semaphore, object);
}

/* ml.Semaphore(n) */
static int l_semaphore(lua_State *L) {
  uint64_t permits = lml_check_whole(L, 1, 0, "Semaphore: number of permits");
  lml_handle *h = lml_handle_new(L, &semaphore_type);
  semaphore *s = malloc(sizeof *s);
  if (!s) return luaL_error(L, "not enough memory");
  mli_object_init(&s->object, &semaphore_type);
  mli_sem_init(&s->sem, permits);
  h->object = &s->object;
  return 1;
}

#define ACQUIRE "semaphore acquire"

/* Takes a permit; then k runs with the wait's memory on top of the stack. The caller
** has tried before without waiting. */
static int acquire(lua_State *L, lml_state *S, semaphore *s, uint64_t deadline, lua_KFunction k) {
  lml_queued *q = lml_queued_push(L, &s->sem.waiters);
  lml_await *a = lml_queued_begin(L, S, ACQUIRE, q);
  if (mli_sem_acquire(&s->sem, &q->waiter)) atomic_store(&a->woken, true);
  return lml_await_park(L, S, a, deadline, k, 0);
}

static int acquire_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  if (lml_await_end(L, lml_upstate(L)) == ML_TIMEOUT) return lml_timed_out(L, ACQUIRE);
  lua_pushboolean(L, 1);
  return 1;
}

static int s_acquire(lua_State *L) {
  lml_state *S = lml_upstate(L);
  semaphore *s = check(L, S);
  uint64_t deadline = lml_check_deadline(L, 2);
  if (mli_likely(!lml_may_be_cancelled(S))) {
    if (mli_likely(mli_sem_try(&s->sem))) {
      lua_pushboolean(L, 1);
      return 1;
    }
    if (deadline == 0) return lml_timed_out(L, ACQUIRE);
    lml_check_hope(L, S, deadline, &s->object, 1, ACQUIRE);
  }
  return acquire(L, S, s, deadline, acquire_k);
}

static int s_try_acquire(lua_State *L) {
  semaphore *s = check(L, lml_upstate(L));
  if (!mli_sem_try(&s->sem)) return lml_fail(L, "busy", "the semaphore has no free permit");
  lua_pushboolean(L, 1);
  return 1;
}

static int s_release(lua_State *L) {
  semaphore *s = check(L, lml_upstate(L));
  uint64_t n = lua_isnoneornil(L, 2) ? 1 : lml_check_whole(L, 2, 1, "release: number of permits");
  if (!mli_sem_release_many(&s->sem, n)) lml_misuse(L, "release: too many permits");
  return 0;
}

/* ---- hold ---- */

static void hold_release(lml_state *S, lml_hold *hold) {
  (void)S;
  mli_sem_release(&mli_container(hold->object, semaphore, object)->sem);
}

/* The hold is at 3. */
static int held(lua_State *L, semaphore *s) {
  lml_hold *hold = lua_touserdata(L, 3);
  hold->object = &mli_retain(s)->object;
  lua_settop(L, 3);
  return 1;
}

static int hold_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_state *S = lml_upstate(L);
  if (lml_await_end(L, S) == ML_TIMEOUT) return lml_raise(L, "timeout", ACQUIRE ": timeout");
  return held(L, check(L, S));
}

static int s_hold(lua_State *L) {
  lml_state *S = lml_upstate(L);
  semaphore *s = check(L, S);
  uint64_t deadline = lml_check_deadline(L, 2);
  lua_settop(L, 2);
  lml_hold_push(L, hold_release);
  if (mli_likely(!lml_may_be_cancelled(S))) {
    if (mli_likely(mli_sem_try(&s->sem))) return held(L, s);
    if (deadline == 0) return lml_raise(L, "timeout", ACQUIRE ": timeout");
    lml_check_hope(L, S, deadline, &s->object, 1, ACQUIRE);
  }
  return acquire(L, S, s, deadline, hold_k);
}

static int s_value(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)mli_sem_value(&check(L, lml_upstate(L))->sem));
  return 1;
}

static int s_tostring(lua_State *L) {
  semaphore *s = check(L, lml_upstate(L));
  lua_pushfstring(L, "semaphore: %p (%I free)", (void *)s, (LUAI_UACINT)mli_sem_value(&s->sem));
  return 1;
}

void lml_semaphore_open(lua_State *L) {
  static const luaL_Reg functions[] = { { "Semaphore", l_semaphore }, { NULL, NULL } };
  static const luaL_Reg methods[] = {
    { "acquire", s_acquire }, { "try_acquire", s_try_acquire },
    { "release", s_release }, { "hold", s_hold },
    { "value", s_value },     { NULL, NULL },
  };
  static const luaL_Reg metamethods[] = { { "__tostring", s_tostring }, { NULL, NULL } };
  lml_setfuncs(L, functions);
  lml_sync_declare(L, &semaphore_type, methods, metamethods);
  lua_pop(L, 1);
}
