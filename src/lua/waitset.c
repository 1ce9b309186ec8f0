/*
** waitset.c: waiting for many futures: what `wait`, `gather`, `as_completed`,
** `map` and `each` are made of.
**
**   local set = waitset([futures]) -- of a list: the set keeps it, and takes no more
**   set:add(future, asks)       -- its index: 1, 2, ...; `asks`: its error will be looked at
**   set:next([timeout])         -- index and future, in the order of completion;
**                                  nil: timeout; false: nothing is left
**   set:wait(n, stop, timeout)  -- until n more have settled, or, with `stop`,
**                                  one has failed; true, or false on a timeout
**   set:failures()              -- how many of the settled have failed
**   set:close()                 -- lets go of its futures; the collector does it too
**
** An entry belongs to the set and hangs on its future until it fires or the set
** is closed.
*/
#include <sched.h>
#include <stdlib.h>
#include "state.h"

#define WAITSET "moonloop.waitset"

#define BLOCK 16 /* entries that are allocated at once, or as many as the list has */

typedef struct waitset waitset;

typedef struct entry {
  mli_watcher watcher;
  waitset *set;
  struct entry *next, **link; /* [O] in the list of entries that hang, or are free */
  struct entry *next_ready;   /* [M] */
  lml_future *future;         /* [O] its handle, anchored by the set */
  int index;
  bool fired, failed; /* [M] */
} entry;

typedef struct block {
  struct block *next;
  entry entries[];
} block;

/* [M] under the lock  [O] the owner's thread */
struct waitset {
  mli_lock lock;
  entry *ready, **last;      /* [M] settled and not taken */
  int ready_count, failures; /* [M] */
  lml_await *waiter;         /* [M] who waits; NULL: nobody */
  int need;                  /* [M] how many ready ones wake it */
  bool stop;                 /* [M] a failure wakes it too */
  entry *hanging, *free;     /* [O] */
  block *blocks;             /* [O] where the entries are */
  int count, left;           /* [O] added; added and not taken */
  bool of_list;              /* [O] its futures are in a list that is not its own */
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

static bool entries_make(waitset *set, int n) {
  block *b = malloc(sizeof *b + (size_t)n * sizeof(entry));
  if (!b) return false;
  b->next = set->blocks;
  set->blocks = b;
  for (int i = n - 1; i >= 0; i--) {
    b->entries[i].next = set->free;
    set->free = &b->entries[i];
  }
  return true;
}

static void entry_unhang(entry *e) {
  *e->link = e->next;
  if (e->next) e->next->link = e->link;
}

static void entry_free(entry *e) {
  entry_unhang(e);
  e->next = e->set->free;
  e->set->free = e;
}

/* Hangs an entry on a future that the set anchors. `asks`: its error will be looked at. */
static int add(lua_State *L, waitset *set, lml_future *u, bool asks) {
  if (!set->free && !entries_make(set, BLOCK)) luaL_error(L, "not enough memory");
  entry *e = set->free;
  set->free = e->next;
  *e = (entry){ .watcher.fired = entry_fired, .set = set, .future = u };
  e->index = ++set->count;
  set->left++;
  e->next = set->hanging;
  e->link = &set->hanging;
  if (e->next) e->next->link = &e->next;
  set->hanging = e;
  mli_future *f = lml_future_core(u);
  if (asks) mli_future_observe(f);
  if (!mli_future_watch(f, &e->watcher)) entry_ready(e, mli_future_state(f) != MLI_FINISHED);
  return e->index;
}

static void add_list(lua_State *L, waitset *set, int list) {
  int n = (int)lua_rawlen(L, list);
  if (n == 0) return;
  if (!entries_make(set, n)) luaL_error(L, "not enough memory");
  lml_state *S = lml_upstate(L);
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, list, i);
    add(L, set, lml_future_check(L, S, -1), true);
    lua_pop(L, 1);
  }
}

static int l_new(lua_State *L) {
  lua_settop(L, 1);
  waitset *set = lua_newuserdatauv(L, sizeof *set, 1);
  *set = (waitset){ .of_list = lua_istable(L, 1) };
  set->last = &set->ready;
  luaL_setmetatable(L, WAITSET);
  if (set->of_list)
    lua_pushvalue(L, 1);
  else
    lua_newtable(L);
  lua_setiuservalue(L, 2, 1);
  if (set->of_list) add_list(L, set, 1);
  return 1;
}

static int w_add(lua_State *L) {
  waitset *set = check_set(L);
  lml_future *u = lml_future_check(L, lml_upstate(L), 2);
  bool asks = lua_toboolean(L, 3);
  lua_getiuservalue(L, 1, 1);
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, set->count + 1);
  lua_pushinteger(L, add(L, set, u, asks));
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
  for (entry *e = S->task ? set->hanging : NULL; e; e = e->next)
    lml_pool_serve(L, S, lml_future_core(e->future));
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
  if (!set->of_list) {
    lua_pushnil(L);
    lua_rawseti(L, -3, index);
  }
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

/* Entries that have fired need no more than to be counted out. */
static void unhang_ready(waitset *set) {
  mli_lock_acquire(&set->lock);
  entry *e = set->ready;
  set->ready = NULL;
  set->last = &set->ready;
  set->ready_count = set->failures = 0;
  mli_lock_release(&set->lock);
  for (; e; e = e->next_ready) entry_unhang(e);
}

static int w_close(lua_State *L) {
  waitset *set = check_set(L);
  unhang_ready(set);
  for (entry *e = set->hanging; e; e = e->next) {
    if (mli_future_unwatch(lml_future_core(e->future), &e->watcher)) continue;
    /* It has fired, or another thread is about to say so. */
    for (bool fired = false; !fired;) {
      mli_lock_acquire(&set->lock);
      fired = e->fired;
      mli_lock_release(&set->lock);
      if (!fired) sched_yield();
    }
  }
  while (set->blocks) {
    block *b = set->blocks;
    set->blocks = b->next;
    free(b);
  }
  set->hanging = set->free = set->ready = NULL;
  set->last = &set->ready;
  set->ready_count = set->failures = set->left = 0;
  return 0;
}

void lml_waitset_open(lua_State *L) {
  static const luaL_Reg functions[] = { { "waitset", l_new }, { NULL, NULL } };
  static const luaL_Reg methods[] = {
    { "add", w_add },     { "next", w_next },  { "wait", w_wait }, { "failures", w_failures },
    { "close", w_close }, { "__gc", w_close }, { NULL, NULL },
  };
  lml_setfuncs(L, functions);
  if (luaL_newmetatable(L, WAITSET)) {
    lml_setfuncs(L, methods);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
  }
  lua_pop(L, 1);
}
