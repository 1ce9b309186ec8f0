/*
** lock.c: locks and conditions for jobs and threads.
**
**   local lock = ml.Lock()
**   lock:acquire([timeout])           -- true, or nil, err
**   lock:try_acquire()                -- true, or nil, err: "busy"
**   lock:release()                    -- its owner only
**   local _ <close> = lock:hold([timeout])
**   lock:locked()
**
**   local cond = ml.Condition([lock]) -- the same functions, of its lock, and
**   cond:wait([timeout])              -- holding it, before and after: in lua/moonloop/sync.lua
**   cond:notify([n])                  -- holding it
**   cond:notify_all()
**
** A lock is a semaphore of one permit with an owner: a job, or the thread of a sync
** state. Only the owner's thread says who owns it: after it was granted, and before
** it is given back.
**
** K1  Whoever ends gives back what it owns, and that is reported: a job as it ends, a
**     thread as its state closes.
*/
#include <stdlib.h>
#include "sync.h"

typedef struct lml_lock lml_lock;
struct lml_lock { /* [A] atomic  [O] the owner's thread */
  mli_object object;
  mli_sem sem;
  _Atomic(lml_state *) state;    /* [A] the owner's; NULL: nobody's, or just granted */
  _Atomic(uint64_t) owner;       /* [A] its job, or 0: the thread */
  lml_place place;               /* [O] where a job acquired it */
  struct lml_lock *next, **link; /* [O] in its owner's list, with a reference */
};

typedef struct condition {
  mli_object object;
  mli_waiters waiters;
  lml_lock *lock; /* [I] holds a reference */
} condition;

static void lock_destroy(mli_object *object) { free(mli_container(object, lml_lock, object)); }

static void condition_destroy(mli_object *object) {
  condition *c = mli_container(object, condition, object);
  mli_release(c->lock);
  free(c);
}

static const mli_type lock_type = { "lock", lock_destroy, NULL };
static const mli_type condition_type = { "condition", condition_destroy, NULL };

static condition *check_condition(lua_State *L, lml_state *S) {
  return mli_container(lml_sync_check(L, S, 1, &condition_type), condition, object);
}

/* The lock at 1, or that of the condition there. */
static lml_lock *check(lua_State *L, lml_state *S) {
  mli_object *object = lml_handle_test_in(L, S, 1, &lock_type);
  if (mli_likely(object != NULL)) return mli_container(object, lml_lock, object);
  object = lml_handle_test_in(L, S, 1, &condition_type);
  if (!object) lml_typeerror(L, 1, "lock");
  return mli_container(object, condition, object)->lock;
}

static lml_lock *lock_new(void) {
  lml_lock *lock = calloc(1, sizeof *lock);
  if (!lock) return NULL;
  mli_object_init(&lock->object, &lock_type);
  mli_sem_init(&lock->sem, 1);
  return lock;
}

/* ml.Lock() */
static int l_lock(lua_State *L) {
  lml_handle *h = lml_handle_new(L, &lock_type);
  lml_lock *lock = lock_new();
  if (!lock) return luaL_error(L, "not enough memory");
  h->object = &lock->object;
  return 1;
}

/* ---- owning ---- */

static uint64_t caller(const lml_state *S) { return S->current ? S->current->id : 0; }

static bool owned_by(const lml_lock *lock, const lml_state *S, uint64_t owner) {
  return atomic_load_explicit(&lock->state, memory_order_relaxed) == S &&
         atomic_load_explicit(&lock->owner, memory_order_relaxed) == owner;
}

static bool is_mine(const lml_lock *lock, const lml_state *S) {
  return owned_by(lock, S, caller(S));
}

/* It was granted to the caller. */
static void own(lml_state *S, lml_lock *lock) {
  lml_lock **list = S->current ? &S->current->locks : &S->locks;
  atomic_store_explicit(&lock->owner, caller(S), memory_order_relaxed);
  atomic_store_explicit(&lock->state, S, memory_order_relaxed);
  mli_object_retain(&lock->object);
  lock->place.line = 0;
  lock->next = *list;
  lock->link = list;
  if (lock->next) lock->next->link = &lock->next;
  *list = lock;
}

/* The same where nothing but a release gives it back: a job that forgets that is told
** where it was. */
static int acquired(lua_State *L, lml_state *S, lml_lock *lock) {
  own(S, lock);
  if (S->current) lock->place = lml_place_of(L, S);
  lua_pushboolean(L, 1);
  return 1;
}

static void give_back(lml_lock *lock) {
  *lock->link = lock->next;
  if (lock->next) lock->next->link = lock->link;
  atomic_store_explicit(&lock->state, NULL, memory_order_relaxed);
  mli_sem_release(&lock->sem);
  mli_release(lock);
}

static void check_mine(lua_State *L, const lml_state *S, lml_lock *lock, const char *what) {
  if (mli_likely(is_mine(lock, S))) return;
  lml_misuse(L, "%s: %s", what,
             mli_sem_value(&lock->sem) == 0 ? "the lock is held by another job or thread"
                                            : "the lock is not held");
}

static void check_not_mine(lua_State *L, const lml_state *S, const lml_lock *lock,
                           const char *what) {
  if (mli_unlikely(is_mine(lock, S)))
    lml_misuse(L, "%s: this %s holds the lock already and would wait for itself", what,
               S->current ? "job" : "thread");
}

/* ---- acquire, release ---- */

#define ACQUIRE "lock acquire"

/* A lock that this state holds has one more reference, its owner's; a condition's is had
** by whoever has the condition. Who holds it elsewhere may end. */
static void check_hope(lua_State *L, lml_state *S, uint64_t deadline, const lml_lock *lock) {
  const lml_handle *handle = lua_touserdata(L, 1);
  if (atomic_load(&lock->state) != S) return;
  if (handle->object == &lock->object)
    lml_check_hope(L, S, deadline, &lock->object, 2, ACQUIRE);
  else if (atomic_load(&lock->object.refs) == 2)
    lml_check_hope(L, S, deadline, handle->object, 1, ACQUIRE);
}

/* As in semaphore.c; k ends the wait and owns the lock. */
static int acquire(lua_State *L, lml_state *S, lml_lock *lock, uint64_t deadline, lua_KFunction k) {
  lml_queued *q = lml_queued_push(L, &lock->sem.waiters);
  lml_await *a = lml_queued_begin(L, S, ACQUIRE, q);
  if (mli_sem_acquire(&lock->sem, &q->waiter)) atomic_store(&a->woken, true);
  return lml_await_park(L, S, a, deadline, k, 0);
}

static int acquire_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_state *S = lml_upstate(L);
  if (lml_await_end(L, S) == ML_TIMEOUT) return lml_timed_out(L, ACQUIRE);
  return acquired(L, S, check(L, S));
}

static int k_acquire(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lml_lock *lock = check(L, S);
  uint64_t deadline = lml_check_deadline(L, 2);
  check_not_mine(L, S, lock, "acquire");
  if (mli_likely(!lml_may_be_cancelled(S))) {
    if (mli_likely(mli_sem_try(&lock->sem))) return acquired(L, S, lock);
    if (deadline == 0) return lml_timed_out(L, ACQUIRE);
    check_hope(L, S, deadline, lock);
  }
  return acquire(L, S, lock, deadline, acquire_k);
}

static int k_try_acquire(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lml_lock *lock = check(L, S);
  if (!mli_sem_try(&lock->sem)) return lml_fail(L, "busy", "the lock is held");
  return acquired(L, S, lock);
}

static int k_release(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lml_lock *lock = check(L, S);
  check_mine(L, S, lock, "release");
  give_back(lock);
  return 0;
}

static int k_locked(lua_State *L) {
  lua_pushboolean(L, mli_sem_value(&check(L, lml_upstate(L))->sem) == 0);
  return 1;
}

/* ---- hold ---- */

/* The block may have released it by hand. */
static void hold_release(lml_state *S, lml_hold *hold) {
  lml_lock *lock = mli_container(hold->object, lml_lock, object);
  if (owned_by(lock, S, hold->owner)) give_back(lock);
}

/* The hold is at 3. */
static int held(lua_State *L, lml_state *S, lml_lock *lock) {
  lml_hold *hold = lua_touserdata(L, 3);
  own(S, lock);
  hold->object = &mli_retain(lock)->object;
  hold->owner = caller(S);
  lua_settop(L, 3);
  return 1;
}

static int hold_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_state *S = lml_upstate(L);
  if (lml_await_end(L, S) == ML_TIMEOUT) return lml_raise(L, "timeout", ACQUIRE ": timeout");
  return held(L, S, check(L, S));
}

static int k_hold(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lml_lock *lock = check(L, S);
  uint64_t deadline = lml_check_deadline(L, 2);
  check_not_mine(L, S, lock, "hold");
  lua_settop(L, 2);
  lml_hold_push(L, hold_release);
  if (mli_likely(!lml_may_be_cancelled(S))) {
    if (mli_likely(mli_sem_try(&lock->sem))) return held(L, S, lock);
    if (deadline == 0) return lml_raise(L, "timeout", ACQUIRE ": timeout");
    check_hope(L, S, deadline, lock);
  }
  return acquire(L, S, lock, deadline, hold_k);
}

static int k_tostring(lua_State *L) {
  lml_lock *lock = check(L, lml_upstate(L));
  lua_pushfstring(L, "lock: %p (%s)", (void *)lock, mli_sem_value(&lock->sem) ? "free" : "held");
  return 1;
}

/* ---- conditions ---- */

/* ml.Condition([lock]) */
static int l_condition(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lml_lock *lock = NULL;
  if (!lua_isnoneornil(L, 1))
    lock = mli_container(lml_sync_check(L, S, 1, &lock_type), lml_lock, object);
  lml_handle *h = lml_handle_new(L, &condition_type);
  condition *c = malloc(sizeof *c);
  lock = !c ? NULL : lock ? mli_retain(lock) : lock_new();
  if (!lock) {
    free(c);
    return luaL_error(L, "not enough memory");
  }
  mli_object_init(&c->object, &condition_type);
  mli_waiters_init(&c->waiters);
  c->lock = lock;
  h->object = &c->object;
  return 1;
}

#define WAIT "condition wait"

static int sleep_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  if (lml_await_end(L, lml_upstate(L)) == ML_TIMEOUT) return lml_timed_out(L, WAIT);
  lua_pushboolean(L, 1);
  return 1;
}

/* condition_sleep(condition, timeout): lets the lock go and waits to be notified. */
static int l_condition_sleep(lua_State *L) {
  lml_state *S = lml_upstate(L);
  condition *c = check_condition(L, S);
  uint64_t deadline = lml_check_deadline(L, 2);
  if (!lml_may_be_cancelled(S)) lml_check_hope(L, S, deadline, &c->object, 1, WAIT);
  lml_queued *q = lml_queued_push(L, &c->waiters);
  lml_await *a = lml_queued_begin(L, S, WAIT, q);
  mli_lock_acquire(&c->waiters.lock);
  mli_waiters_add(&c->waiters, &q->waiter);
  mli_lock_release(&c->waiters.lock);
  give_back(c->lock);
  return lml_await_park(L, S, a, deadline, sleep_k, 0);
}

static int again_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_state *S = lml_upstate(L);
  lml_await_end(L, S);
  own(S, check(L, S));
  return 0;
}

/* lock_again(condition): acquires its lock, unless a refused wait never let it go. */
static int l_lock_again(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lml_lock *lock = check(L, S);
  if (is_mine(lock, S)) return 0;
  return acquire(L, S, lock, MLI_FOREVER, again_k);
}

/* check_held(condition) */
static int l_check_held(lua_State *L) {
  lml_state *S = lml_upstate(L);
  check_mine(L, S, check_condition(L, S)->lock, "wait");
  return 0;
}

static int notify(lua_State *L, uint64_t n, const char *what) {
  lml_state *S = lml_upstate(L);
  condition *c = check_condition(L, S);
  check_mine(L, S, c->lock, what);
  mli_lock_acquire(&c->waiters.lock);
  mli_waiter *chain = mli_waiters_take(&c->waiters, n);
  mli_lock_release(&c->waiters.lock);
  mli_waiters_wake(chain);
  return 0;
}

static int c_notify(lua_State *L) {
  return notify(
    L, lua_isnoneornil(L, 2) ? 1 : lml_check_whole(L, 2, 1, "notify: number of waiters"), "notify");
}

static int c_notify_all(lua_State *L) { return notify(L, UINT64_MAX, "notify_all"); }

static int c_tostring(lua_State *L) {
  condition *c = check_condition(L, lml_upstate(L));
  lua_pushfstring(L, "condition: %p (%s)", (void *)c,
                  mli_sem_value(&c->lock->sem) ? "free" : "held");
  return 1;
}

/* ---- the owner ends ---- */

typedef struct ended {
  lml_job *job;
  lml_place place; /* where it acquired the lock, which may be another's by now */
} ended;

static int report_end(lua_State *L) {
  const ended *e = lua_touserdata(L, 1);
  lml_state *S = e->job->S;
  char title[MLI_NAME_MAX + 8], name[64];
  if (e->place.line)
    lua_pushfstring(L, " acquired at %s:%d", lml_chunk_name(S, e->place.chunk), (int)e->place.line);
  else
    lua_pushliteral(L, "");
  lua_pushfstring(L, "%s ended holding a lock%s, which was released",
                  lml_job_title(e->job, title, sizeof title), lua_tostring(L, -1));
  lml_report(L, S, "job", lml_job_name(e->job, name, sizeof name), NULL, NULL);
  return 0;
}

void lml_locks_end(lua_State *L, lml_job *job) {
  while (job->locks) {
    ended e = { job, job->locks->place };
    give_back(job->locks);
    if (!lua_checkstack(L, 2)) continue;
    lua_pushcfunction(L, report_end);
    lua_pushlightuserdata(L, &e);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) lua_pop(L, 1); /* no memory for words */
  }
}

static void give_list_back(lua_State *L, lml_state *S, lml_lock **list, const char *whose) {
  while (*list) {
    lua_pushfstring(L, "a Lua state closed while %s held a lock, which was released", whose);
    give_back(*list);
    lml_report(L, S, "a closing state", NULL, NULL, NULL);
  }
}

static int give_all_back(lua_State *L) {
  lml_state *S = lml_state_of(L);
  for (lml_job *job = S->jobs; job; job = job->next)
    give_list_back(L, S, &job->locks, "one of its jobs");
  give_list_back(L, S, &S->locks, "its thread");
  return 0;
}

void lml_locks_leave(lua_State *L) {
  lua_pushcfunction(L, give_all_back);
  if (lua_pcall(L, 0, 0, 0) != LUA_OK) lua_pop(L, 1); /* no memory, or moonloop is not open */
}

/* A state of the host closes when the host says so: anchors what the collector finds then. */
static void watch_for_close(lua_State *L) {
  static const char key;
  static const luaL_Reg closing[] = { { "__gc", give_all_back }, { NULL, NULL } };
  lua_newtable(L);
  lua_newtable(L);
  lml_setfuncs(L, closing);
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &key);
}

void lml_lock_open(lua_State *L) {
  static const luaL_Reg functions[] = {
    { "Lock", l_lock },
    { "Condition", l_condition },
    { "condition_sleep", l_condition_sleep },
    { "lock_again", l_lock_again },
    { "check_held", l_check_held },
    { NULL, NULL },
  };
  static const luaL_Reg methods[] = {
    { "acquire", k_acquire }, { "try_acquire", k_try_acquire }, { "release", k_release },
    { "hold", k_hold },       { "locked", k_locked },           { NULL, NULL },
  };
  static const luaL_Reg condition_methods[] = { { "notify", c_notify },
                                                { "notify_all", c_notify_all },
                                                { NULL, NULL } };
  static const luaL_Reg lock_meta[] = { { "__tostring", k_tostring }, { NULL, NULL } };
  static const luaL_Reg condition_meta[] = { { "__tostring", c_tostring }, { NULL, NULL } };
  lml_setfuncs(L, functions);
  watch_for_close(L);
  lml_sync_declare(L, &lock_type, methods, lock_meta);
  lua_pop(L, 1);
  lml_sync_declare(L, &condition_type, methods, condition_meta);
  lml_setfuncs(L, condition_methods);
  lua_setfield(L, -2, "condition_methods"); /* the front door adds `wait` */
}
