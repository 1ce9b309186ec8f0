/*
** scope.c: scopes of cancellation: the part below `scope`, `timeout`, `shield`
** and `group`, which are in lua/moonloop.
**
**   local s = scope_push(shielded, timeout, owns, real)  -- the caller's innermost scope now
**   s:cancel([reason])   s.cancelled   s:set_deadline(time or nil)
**                         -- `real`: its time passes whatever a test's clock does
**   scope_pop(s)          -- whether it `owns` generators that may be open
**   scope_left(s, ...)    -- a list of those to wait for, but for those among the values; nil
**   scope_absorbs(s, err) -- was it this scope's own cancel?
**
** A scope belongs to a job, or to the thread of a sync state, and is left in the
** reverse order of entering. What its cancel raises is one error value.
*/
#include <math.h>
#include <string.h>
#include "generator.h"
#include "state.h"

#define SCOPE "moonloop.scope"
#define SWALLOW_MAX 100
#define SWALLOW_LIFE (10 * MLI_SECOND)

typedef struct block {
  lml_scope scope;
  lml_state *S;
  lml_job *job; /* NULL: a sync state's, or left */
  bool entered;
  bool real;         /* of whoever runs tests: its deadline is a time of mli_now() */
  bool owns;         /* its generators end with it; else they are those of the scope around it */
  int reason;        /* registry reference */
  uint64_t deadline; /* ns; MLI_FOREVER: none */
  mli_timer timer;   /* a job's */
} block;

static block *check_block(lua_State *L) { return luaL_checkudata(L, 1, SCOPE); }

static lml_scope **slot_of(lml_state *S) { return S->current ? &S->current->scope : &S->scope; }

static void cancel(block *b) {
  if (b->scope.since || !b->entered) return;
  b->scope.since = mli_now();
  if (b->job && lml_job_cancelled(b->job)) lml_job_interrupt(b->job);
}

static void on_deadline(mli_timer *timer) {
  block *b = mli_container(timer, block, timer);
  b->scope.timed_out = true;
  cancel(b);
}

static void set_deadline(block *b, uint64_t deadline) {
  if (b->scope.since) return; /* too late */
  b->deadline = deadline;
  if (b->job) mli_loop_timer_stop(b->S->loop, &b->timer);
  if (deadline == 0) {
    on_deadline(&b->timer);
  } else if (b->job && deadline != MLI_FOREVER) {
    b->timer.fire = on_deadline;
    if (b->real)
      mli_loop_timer_start(b->S->loop, &b->timer, deadline);
    else
      mli_loop_deadline_start(b->S->loop, &b->timer, deadline);
  }
}

static int l_push(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lua_settop(L, 4);
  uint64_t deadline = lml_option_deadline(L, 2, "timeout");
  block *b = lua_newuserdatauv(L, sizeof *b, 0);
  memset(b, 0, sizeof *b);
  b->S = S;
  b->scope.error = b->reason = LUA_NOREF;
  b->deadline = MLI_FOREVER;
  b->scope.shielded = lua_toboolean(L, 1);
  b->owns = lua_toboolean(L, 3);
  b->real = lua_toboolean(L, 4);
  if (b->real && deadline != 0 && deadline != MLI_FOREVER) deadline -= mli_time() - mli_now();
  luaL_setmetatable(L, SCOPE);
  lml_scope **slot = slot_of(S);
  b->scope.parent = *slot;
  b->job = S->current;
  b->entered = true;
  *slot = &b->scope;
  set_deadline(b, deadline);
  return 1;
}

static void leave(block *b) {
  if (!b->entered) return;
  b->entered = false;
  if (b->job && b->S->loop) mli_loop_timer_stop(b->S->loop, &b->timer);
  b->job = NULL;
}

/* Where what a scope of the running job or thread does not own any more goes. */
static lml_generator **list_around(const block *b, lml_state *S) {
  return b->scope.parent ? &b->scope.parent->open : S->task ? &S->open : NULL;
}

/* Leaves the scope, and any that was left open within it. */
static int l_pop(lua_State *L) {
  lml_state *S = lml_upstate(L);
  block *b = check_block(L);
  if (!b->entered) return luaL_error(L, "the scope was left before");
  lml_scope **slot = slot_of(S);
  if (b->job != S->current) return luaL_error(L, "a scope is left by the job that entered it");
  while (*slot) {
    lml_scope *s = *slot;
    if (S->current && s == &S->current->root) break;
    *slot = s->parent;
    block *open = mli_container(s, block, scope);
    leave(open);
    if (open != b || !b->owns) lml_left_join(&s->open, list_around(open, S));
    if (open == b) break;
  }
  lua_pushboolean(L, b->scope.open != NULL);
  return 1;
}

static int l_left(lua_State *L) {
  lml_state *S = lml_upstate(L);
  block *b = check_block(L);
  return lml_left_take(L, S, 2, &b->scope.open, lml_left_list(S));
}

static void leave_all(lml_scope **slot, const lml_scope *end) {
  while (*slot != end) {
    block *b = mli_container(*slot, block, scope);
    *slot = b->scope.parent;
    lml_left_join(&b->scope.open, list_around(b, b->S));
    leave(b);
  }
}

void lml_scopes_leave(lml_job *job) { leave_all(&job->scope, &job->root); }

void lml_thread_scopes_leave(lml_state *S) { leave_all(&S->scope, NULL); }

static int l_absorbs(lua_State *L) {
  block *b = check_block(L);
  bool own = false;
  if (b->scope.since && b->scope.error != LUA_NOREF) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, b->scope.error);
    own = lua_rawequal(L, 2, -1);
  }
  lua_pushboolean(L, own);
  lua_pushboolean(L, b->scope.timed_out);
  return 2;
}

static int s_cancel(lua_State *L) {
  block *b = check_block(L);
  if (!b->scope.since && b->entered) {
    lua_settop(L, 2);
    b->reason = luaL_ref(L, LUA_REGISTRYINDEX);
    cancel(b);
    lua_pushboolean(L, 1);
  } else {
    lua_pushboolean(L, 0);
  }
  return 1;
}

static int s_set_deadline(lua_State *L) {
  block *b = check_block(L);
  if (lua_isnoneornil(L, 2)) {
    set_deadline(b, MLI_FOREVER);
    return 0;
  }
  lua_Number at = luaL_checknumber(L, 2);
  if (isnan(at)) return luaL_argerror(L, 2, "a time of ml.now() expected, got NaN");
  uint64_t deadline = at <= 0 ? 0 : at > 9e9 ? MLI_FOREVER : (uint64_t)(at * 1e9);
  if (deadline != 0 && deadline != MLI_FOREVER && !b->real) deadline = mli_clock_seen(deadline);
  set_deadline(b, deadline <= (b->real ? mli_now() : mli_time()) ? 0 : deadline);
  return 0;
}

static int s_index(lua_State *L) {
  block *b = check_block(L);
  const char *key = luaL_checkstring(L, 2);
  if (strcmp(key, "cancelled") == 0) {
    lua_pushboolean(L, b->scope.since != 0);
    return 1;
  }
  lua_pushvalue(L, 2);
  lua_rawget(L, lua_upvalueindex(2));
  return 1;
}

/* A scope that was dropped without being left. */
static int s_gc(lua_State *L) {
  block *b = check_block(L);
  if (b->entered) {
    lml_scope **at = b->job ? &b->job->scope : &b->S->scope;
    while (*at && *at != &b->scope) at = &(*at)->parent;
    if (*at) *at = b->scope.parent;
    lml_left_join(&b->scope.open, list_around(b, b->S));
    leave(b);
  }
  lml_left_drop(&b->scope.open);
  luaL_unref(L, LUA_REGISTRYINDEX, b->scope.error);
  luaL_unref(L, LUA_REGISTRYINDEX, b->reason);
  b->scope.error = b->reason = LUA_NOREF;
  return 0;
}

static int s_tostring(lua_State *L) {
  block *b = check_block(L);
  lua_pushfstring(L, "scope: %p (%s)", (void *)b,
                  b->scope.timed_out ? "timed out"
                  : b->scope.since   ? "cancelled"
                  : b->entered       ? "open"
                                     : "left");
  return 1;
}

void lml_scope_push_error(lua_State *L, lml_scope *scope) {
  block *b = mli_container(scope, block, scope);
  int top = lua_gettop(L) + 1;
  luaL_checkstack(L, 8, NULL);
  if (scope->timed_out)
    lua_pushliteral(L, "timeout");
  else
    lua_rawgeti(L, LUA_REGISTRYINDEX, b->reason);
  if (scope->timed_out)
    lml_error_push(L, "cancelled", "the scope was cancelled: its deadline passed");
  else if (lua_isnil(L, top))
    lml_error_push(L, "cancelled", "the scope was cancelled");
  else
    lml_error_push(L, "cancelled", "the scope was cancelled: %s", luaL_tolstring(L, top, NULL));
  lua_pushvalue(L, top);
  lua_setfield(L, -2, "reason");
  lua_replace(L, top);
  lua_settop(L, top);
}

/* ---- a sync state's scopes ---- */

lml_scope *lml_scope_cancelled(lml_scope *innermost) {
  lml_scope *found = NULL;
  for (lml_scope *s = innermost; s; s = s->parent) {
    if (s->since) found = s; /* the outermost decides: it ends the most */
    if (s->shielded) break;
  }
  return found;
}

bool lml_scope_is_swallowed(const lml_scope *scope) {
  return scope->deliveries >= SWALLOW_MAX || mli_now() - scope->since > SWALLOW_LIFE;
}

bool lml_job_is_bounded(const lml_job *job) {
  if (job->info && mli_timer_active(&job->info->deadline)) return true;
  for (lml_scope *s = job->scope; s != &job->root; s = s->parent) {
    const block *b = mli_container(s, block, scope);
    if (b->deadline != MLI_FOREVER && !b->real) return true;
  }
  return false;
}

bool lml_thread_is_scoped(const lml_state *S) {
  for (lml_scope *s = S->scope; s; s = s->parent)
    if (!mli_container(s, block, scope)->real) return true;
  return false;
}

uint64_t lml_scope_deadline(lml_scope *innermost, uint64_t *real) {
  uint64_t deadline = *real = MLI_FOREVER;
  for (lml_scope *s = innermost; s; s = s->parent) {
    block *b = mli_container(s, block, scope);
    uint64_t *first = b->real ? real : &deadline;
    if (b->deadline < *first) *first = b->deadline;
    if (s->shielded) break;
  }
  return deadline;
}

bool lml_scope_expire(lml_scope *innermost) {
  bool expired = false;
  for (lml_scope *s = innermost; s; s = s->parent) {
    block *b = mli_container(s, block, scope);
    if (!s->since && b->deadline != MLI_FOREVER &&
        b->deadline <= (b->real ? mli_now() : mli_time()))
      on_deadline(&b->timer);
    if (s->since) expired = true;
    if (s->shielded) break;
  }
  return expired;
}

void lml_scope_open(lua_State *L) {
  static const luaL_Reg functions[] = { { "scope_push", l_push },
                                        { "scope_pop", l_pop },
                                        { "scope_left", l_left },
                                        { "scope_absorbs", l_absorbs },
                                        { NULL, NULL } };
  static const luaL_Reg methods[] = { { "cancel", s_cancel },
                                      { "set_deadline", s_set_deadline },
                                      { NULL, NULL } };
  static const luaL_Reg metamethods[] = { { "__gc", s_gc },
                                          { "__tostring", s_tostring },
                                          { NULL, NULL } };
  lml_setfuncs(L, functions);
  if (luaL_newmetatable(L, SCOPE)) {
    lml_setfuncs(L, metamethods);
    lua_pushlightuserdata(L, lml_state_of(L));
    lua_newtable(L);
    lml_setfuncs(L, methods);
    lua_pushcclosure(L, s_index, 2);
    lua_setfield(L, -2, "__index");
  }
  lua_pop(L, 1);
}
