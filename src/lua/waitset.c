/*
** waitset.c: waiting for many futures: what `wait`, `gather`, `as_completed`,
** `map` and `each` are made of.
**
**   local set = waitset()
**   set:add(future)             -- its index: 1, 2, ...
**   set:next([timeout])         -- index and future, in the order of completion;
**                                  nil: timeout; false: nothing is left
**   set:wait(n, stop, timeout)  -- until n more have settled, or, with `stop`,
**                                  one has failed; true, or false on a timeout
**   set:failures()              -- how many of the settled have failed
**
** An entry belongs to the set and hangs on its future until it fires or the set
** is collected.
*/
#include <sched.h>
#include <stdlib.h>
#include "state.h"

#define WAITSET "moonloop.waitset"

typedef struct waitset waitset;

typedef struct entry {
  mli_watcher watcher;
  waitset *set;
  struct entry *next, **link; /* [O] in the list of entries that hang */
  struct entry *next_ready;   /* [M] */
  lml_future *future;         /* [O] its handle, anchored by the set */
  int index;
  bool fired, failed; /* [M] */
} entry;

/* [M] under the lock  [O] the owner's thread */
struct waitset {
  mli_lock lock;
  entry *ready, **last;      /* [M] settled and not taken */
  int ready_count, failures; /* [M] */
  lml_await *waiter;         /* [M] who waits; NULL: nobody */
  int need;                  /* [M] how many ready ones wake it */
  bool stop;                 /* [M] a failure wakes it too */
  entry *hanging;            /* [O] */
  int count, left;           /* [O] added; added and not taken */
};

static waitset *check_set(lua_State *L) { return luaL_checkudata(L, 1, WAITSET); }

static bool enough(const waitset *set) {
  return set->ready_count >= set->need || (set->stop && set->failures > 0);
}

static void entry_ready(entry *e, bool failed) {
  waitset *set = e->set;
  mli_lock_acquire(&set->lock);
  e->fired = true;
  e->failed = failed;
  e->next_ready = NULL;
  *set->last = e;
  set->last = &e->next_ready;
  set->ready_count++;
  set->failures += failed;
  lml_await *waiter = NULL;
  if (set->waiter && enough(set)) {
    waiter = set->waiter;
    set->waiter = NULL;
  }
  mli_lock_release(&set->lock);
  if (waiter) lml_await_wake(waiter, false);
}

static void entry_fired(mli_watcher *watcher) {
  entry *e = mli_container(watcher, entry, watcher);
  entry_ready(e, mli_future_state(lml_future_core(e->future)) != MLI_FINISHED);
}

static void entry_free(entry *e) {
  *e->link = e->next;
  if (e->next) e->next->link = e->link;
  free(e);
}

static int l_new(lua_State *L) {
  waitset *set = lua_newuserdatauv(L, sizeof *set, 1);
  *set = (waitset){ .count = 0 };
  set->last = &set->ready;
  luaL_setmetatable(L, WAITSET);
  lua_newtable(L);
  lua_setiuservalue(L, -2, 1);
  return 1;
}

static int w_add(lua_State *L) {
  lml_state *S = lml_upstate(L);
  waitset *set = check_set(L);
  lml_future *u = lml_future_check(L, S, 2);
  lua_getiuservalue(L, 1, 1);
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, set->count + 1);
  entry *e = malloc(sizeof *e);
  if (!e) return luaL_error(L, "not enough memory");
  *e = (entry){ .watcher.fired = entry_fired, .set = set, .future = u };
  e->index = ++set->count;
  set->left++;
  e->next = set->hanging;
  e->link = &set->hanging;
  if (e->next) e->next->link = &e->next;
  set->hanging = e;
  mli_future *f = lml_future_core(u);
  mli_future_observe(f);
  if (!mli_future_watch(f, &e->watcher)) entry_ready(e, mli_future_state(f) != MLI_FINISHED);
  lua_pushinteger(L, e->index);
  return 1;
}

static void set_abort(lml_await *a) {
  waitset *set = a->source;
  mli_lock_acquire(&set->lock);
  bool ours = set->waiter == a;
  if (ours) set->waiter = NULL;
  mli_lock_release(&set->lock);
  if (ours) lml_await_wake(a, true);
}

static int park(lua_State *L, lml_state *S, waitset *set, int need, bool stop, uint64_t deadline,
                lua_KFunction k) {
  lml_await *a = lml_await_begin(L, S, "futures");
  a->source = set;
  a->abort = set_abort;
  mli_lock_acquire(&set->lock);
  set->need = need;
  set->stop = stop;
  bool now = enough(set);
  if (!now) set->waiter = a;
  mli_lock_release(&set->lock);
  if (now) atomic_store(&a->woken, true);
  return lml_await_park(L, S, a, deadline, k, 0);
}

/* Takes the oldest ready entry; 0 if there is none. */
static int take(waitset *set) {
  mli_lock_acquire(&set->lock);
  entry *e = set->ready;
  if (e) {
    set->ready = e->next_ready;
    if (!set->ready) set->last = &set->ready;
    set->ready_count--;
    set->failures -= e->failed;
  }
  mli_lock_release(&set->lock);
  if (!e) return 0;
  int index = e->index;
  entry_free(e);
  set->left--;
  return index;
}

static int push_next(lua_State *L, waitset *set) {
  int index = take(set);
  if (index == 0) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushinteger(L, index);
  lua_getiuservalue(L, 1, 1);
  lua_rawgeti(L, -1, index);
  lua_pushnil(L);
  lua_rawseti(L, -3, index);
  lua_remove(L, -2);
  return 2;
}

static int next_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_await_end(L, lml_upstate(L));
  return push_next(L, check_set(L));
}

static int w_next(lua_State *L) {
  waitset *set = check_set(L);
  uint64_t deadline = lml_check_deadline(L, 2);
  if (set->left == 0) {
    lua_pushboolean(L, 0);
    return 1;
  }
  return park(L, lml_upstate(L), set, 1, false, deadline, next_k);
}

static int wait_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lua_pushboolean(L, lml_await_end(L, lml_upstate(L)) == ML_OK);
  return 1;
}

static int w_wait(lua_State *L) {
  waitset *set = check_set(L);
  lua_Integer need = luaL_checkinteger(L, 2);
  uint64_t deadline = lml_check_deadline(L, 4);
  if (need > set->left) need = set->left;
  return park(L, lml_upstate(L), set, (int)need, lua_toboolean(L, 3), deadline, wait_k);
}

static int w_failures(lua_State *L) {
  waitset *set = check_set(L);
  mli_lock_acquire(&set->lock);
  lua_Integer n = set->failures;
  mli_lock_release(&set->lock);
  lua_pushinteger(L, n);
  return 1;
}

static int w_gc(lua_State *L) {
  waitset *set = check_set(L);
  while (set->hanging) {
    entry *e = set->hanging;
    if (!mli_future_unwatch(lml_future_core(e->future), &e->watcher)) {
      /* It has fired, or another thread is about to say so. */
      for (bool fired = false; !fired;) {
        mli_lock_acquire(&set->lock);
        fired = e->fired;
        mli_lock_release(&set->lock);
        if (!fired) sched_yield();
      }
    }
    entry_free(e);
  }
  return 0;
}

void lml_waitset_open(lua_State *L) {
  static const luaL_Reg functions[] = { { "waitset", l_new }, { NULL, NULL } };
  static const luaL_Reg methods[] = {
    { "add", w_add },           { "next", w_next }, { "wait", w_wait },
    { "failures", w_failures }, { "__gc", w_gc },   { NULL, NULL },
  };
  lml_setfuncs(L, functions);
  if (luaL_newmetatable(L, WAITSET)) {
    lml_setfuncs(L, methods);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
  }
  lua_pop(L, 1);
}
