/*
** generator.c: async generators: a job on a loop whose yields are items for
** whoever holds the generator, in any state.
**
**   local g <close> = ml.generator{ f, ..., prefetch = n }
**   g:next([timeout])   -- true, values... | false: the end | nil, err: a timeout
**   g:send(...)         -- like next; the values are what the yield returns
**   g:throw(e)          -- like next; e is raised at the yield
**   g:close([timeout])  -- ends the body and waits for its clean-up
**   for a, b in g do ... end
**
** Two objects. A generator is what handles refer to; with the last of them the
** body is told to end. Its feed is what it shares with the body's job: a ring of
** encoded items with credit. A pull is a grant of credit, a yield is a put and
** then a wait for credit, so without prefetch the two sides alternate.
**
**                 [grant]                  [put]
**   IDLE at a yield ----> RUNNING or waiting ----> IDLE at a yield ...
**     |                      |_ returns, fails __
**     |__ cancelled _________|___________________\__> ENDED: its future settles
**
** G1  What ends the body, ends the ring: a watcher on the job's future.
** G2  `pulling` is held by the one consumer that takes, grants, or waits.
** G3  A pull that gave up leaves its credit: the next one takes its item.
** G4  The error that ended the body is raised once, by a pull or by close.
** G5  A body that was told to end and yields is stopped, and that is its error.
*/
#include "generator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "crossing.h"

#define MOST_PREFETCH (1 << 20)

void lml_generator_abandon(mli_object *object) {
  lml_generator *g = mli_container(object, lml_generator, object);
  if (!g->future) return;
  atomic_store(&g->feed->closed, true);
  mli_future_cancel(g->future, NULL);
}

static void generator_destroy(mli_object *object) {
  lml_generator *g = mli_container(object, lml_generator, object);
  lml_generator_abandon(object);
  if (g->future) mli_release(g->future);
  mli_release(g->feed);
  free(g);
}

const mli_type lml_generator_type = { "generator", generator_destroy, NULL };

/* ---- the consumer ---- */

static lml_generator *check_generator(lua_State *L, lml_state *S) {
  lml_generator *g = mli_container(lml_handle_check(L, 1, &lml_generator_type), lml_generator,
                                   object);
  if (S->current && lml_is_generator(S->current) && S->current->info->feed == g->feed)
    lml_misuse(L, "a generator cannot pull from itself, nor close itself");
  return g;
}

/* What owns a message while it is read: kept in the user value of the handle at 1. */
#define CARRIER "moonloop.carrier"

static int carrier_gc(lua_State *L) {
  mli_message **carrier = lua_touserdata(L, 1);
  mli_message_free(*carrier);
  *carrier = NULL;
  return 0;
}

static mli_message **get_carrier(lua_State *L) {
  luaL_checkstack(L, 4, NULL);
  lua_getiuservalue(L, 1, 1);
  mli_message **carrier = lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (mli_likely(carrier && !*carrier)) return carrier;
  carrier = lua_newuserdatauv(L, sizeof *carrier, 0);
  *carrier = NULL;
  if (luaL_newmetatable(L, CARRIER)) {
    lua_pushcfunction(L, carrier_gc);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  lua_setiuservalue(L, 1, 1);
  return carrier;
}

enum shape { FOR_NEXT, FOR_LOOP }; /* of what a pull returns */

static int push_end(lua_State *L, lml_state *S, lml_generator *g, enum shape shape) {
  lml_feed *feed = g->feed;
  if (!atomic_load(&feed->closed) && mli_future_state(g->future) != MLI_FINISHED &&
      !atomic_exchange(&feed->raised, true)) {
    lml_handle_push(L, &g->future->object);
    return lml_future_push(L, S, -1); /* raises the body's error */
  }
  if (shape == FOR_LOOP)
    lua_pushnil(L);
  else
    lua_pushboolean(L, 0);
  return 1;
}

/* What there is now: an item, or the end. Holds `pulling`, which it gives up. */
static int collect(lua_State *L, lml_state *S, lml_generator *g, mli_message **carrier, bool ended,
                   enum shape shape) {
  lml_feed *feed = g->feed;
  mli_message *m = *carrier = mli_ring_take(&feed->ring);
  if (m && feed->prefetch && mli_ring_open(&feed->ring) <= feed->prefetch / 2)
    mli_ring_grant(&feed->ring, feed->prefetch);
  atomic_store(&feed->pulling, false);
  if (!m && !ended) lml_misuse(L, "another consumer took the item that this pull waited for");
  if (!m || atomic_load(&feed->closed)) {
    mli_message_free(m);
    *carrier = NULL;
    return push_end(L, S, g, shape);
  }
  if (shape == FOR_NEXT) lua_pushboolean(L, 1);
  int n = lml_decode(L, m);
  mli_message_free(m);
  *carrier = NULL;
  return n + (shape == FOR_NEXT);
}

/* `pulling` is held: by a close that drops what is ready, or by another consumer. */
static int second_consumer(lua_State *L, lml_state *S, lml_generator *g, enum shape shape) {
  if (atomic_load(&g->feed->closed)) return push_end(L, S, g, shape);
  return lml_misuse(L, "another consumer waits for this generator's next item: one at a time");
}

static int pull_k(lua_State *L, int status, lua_KContext shape) {
  (void)status;
  lml_state *S = lml_upstate(L);
  lml_generator *g = check_generator(L, S);
  atomic_store(&g->feed->pulling, false); /* the wait's end may raise */
  if (lml_await_end(L, S) == ML_TIMEOUT)
    return lml_fail(L, "timeout", "timeout waiting for the generator's next item");
  mli_message **carrier = get_carrier(L);
  if (atomic_exchange(&g->feed->pulling, true)) return second_consumer(L, S, g, (enum shape)shape);
  return collect(L, S, g, carrier, mli_ring_ended(&g->feed->ring), (enum shape)shape);
}

static void pull_abort(lml_await *a) {
  lml_feed *feed = a->source;
  if (mli_ring_withdraw_reader(&feed->ring)) lml_await_wake(a, true);
}

/* A pull that finds nothing: asks for the item and waits for it. */
static int await_item(lua_State *L, lml_state *S, lml_await *a, lml_feed *feed, uint64_t deadline,
                      enum shape shape) {
  a->source = feed;
  a->abort = pull_abort;
  a->waker.wake = lml_await_woken;
  feed->taken = 0;
  mli_ring_grant(&feed->ring, feed->prefetch ? feed->prefetch : 1);
  if (mli_ring_await_message(&feed->ring, &a->waker)) atomic_store(&a->woken, true);
  return lml_await_park(L, S, a, deadline, pull_k, shape);
}

/* Begins a pull: afterwards `pulling` is held, and the wait is begun. NULL: another holds it. */
static lml_await *begin_pull(lua_State *L, lml_state *S, lml_feed *feed) {
  lml_await *a = lml_await_begin(L, S, "generator");
  if (mli_likely(!atomic_exchange(&feed->pulling, true))) return a;
  lml_await_end(L, S);
  return NULL;
}

static int pull(lua_State *L, lml_state *S, uint64_t deadline, enum shape shape) {
  lml_generator *g = check_generator(L, S);
  lml_feed *feed = g->feed;
  mli_message **carrier = get_carrier(L);
  lml_await *a = begin_pull(L, S, feed);
  if (!a) return second_consumer(L, S, g, shape);
  bool ended = mli_ring_ended(&feed->ring);
  if (ended || mli_ring_ready(&feed->ring)) {
    if (S->current && ++feed->taken % LML_ITEMS_PER_TURN == 0)
      return lml_yield_turn(L, S, pull_k, shape);
    lml_await_end(L, S);
    return collect(L, S, g, carrier, ended, shape);
  }
  if (mli_ring_open(&feed->ring) == 0) { /* a plain pull sends nothing */
    mli_message_free(feed->sent);
    feed->sent = NULL;
  }
  return await_item(L, S, a, feed, deadline, shape);
}

static int g_next(lua_State *L) {
  uint64_t deadline = lml_check_deadline(L, 2);
  return pull(L, lml_upstate(L), deadline, FOR_NEXT);
}

static int g_call(lua_State *L) {
  lua_settop(L, 1);
  return pull(L, lml_upstate(L), MLI_FOREVER, FOR_LOOP);
}

/* A pull that brings something along: the values from 2 up. */
static int pull_with(lua_State *L, const char *what, bool thrown) {
  lml_state *S = lml_upstate(L);
  lml_generator *g = check_generator(L, S);
  lml_feed *feed = g->feed;
  if (feed->prefetch)
    return lml_misuse(L, "%s: the generator runs ahead (prefetch = %d): its next item is no answer",
                      what, (int)feed->prefetch);
  int n = lua_gettop(L) - 1;
  mli_message **carrier = get_carrier(L);
  *carrier = lml_encode(L, 2, n, thrown ? LML_ERROR_VALUE : LML_ARGUMENTS);
  lml_await *a = begin_pull(L, S, feed);
  if (!a) return second_consumer(L, S, g, FOR_NEXT); /* the carrier's message goes with it */
  if (mli_ring_ended(&feed->ring) && !mli_ring_ready(&feed->ring)) {
    lml_await_end(L, S);
    mli_message_free(*carrier);
    if (thrown && (atomic_load(&feed->raised) || mli_future_state(g->future) == MLI_FINISHED)) {
      *carrier = NULL;
      atomic_store(&feed->pulling, false);
      lua_settop(L, 2);
      return lua_error(L); /* there is no yield left to raise it */
    }
    return collect(L, S, g, carrier, true, FOR_NEXT);
  }
  const char *wrong = NULL;
  if (mli_ring_open(&feed->ring) > 0)
    wrong = "an earlier pull is still to be answered: take its item with next() first";
  else if (!thrown && n > 0 && !lua_isnil(L, 2) && feed->ring.limit == 0)
    wrong = "the generator has not come to a yield yet: begin with next()";
  if (wrong) {
    lml_await_end(L, S);
    atomic_store(&feed->pulling, false);
    return lml_misuse(L, "%s: %s", what, wrong);
  }
  mli_message_free(feed->sent);
  feed->sent = *carrier;
  feed->thrown = thrown;
  *carrier = NULL;
  return await_item(L, S, a, feed, MLI_FOREVER, FOR_NEXT);
}

static int g_send(lua_State *L) { return pull_with(L, "send", false); }

static int g_throw(lua_State *L) {
  lua_settop(L, 2);
  if (lua_isnil(L, 2)) {
    lml_error_push(L, "nil_error", "throw(nil) was called");
    lua_replace(L, 2);
  }
  return pull_with(L, "throw", true);
}

/* ---- closing ---- */

static void closed_fired(mli_watcher *watcher) {
  lml_await_wake(mli_container(watcher, lml_await, watcher), false);
}

static void close_abort(lml_await *a) {
  if (mli_future_unwatch(a->source, &a->watcher)) lml_await_wake(a, true);
}

/* The body has ended: what it left is dropped, but for its error. */
static int push_closed(lua_State *L, lml_state *S, lml_generator *g) {
  lml_feed *feed = g->feed;
  atomic_store(&feed->closed, true);
  if (!atomic_exchange(&feed->pulling, true)) {
    for (mli_message *m; (m = mli_ring_take(&feed->ring));) mli_message_free(m);
    atomic_store(&feed->pulling, false);
  }
  if (mli_future_state(g->future) == MLI_FAILED && !atomic_exchange(&feed->raised, true)) {
    lml_handle_push(L, &g->future->object);
    return lml_future_push(L, S, -1);
  }
  lua_pushboolean(L, 1);
  return 1;
}

static int close_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_state *S = lml_upstate(L);
  if (lml_await_end(L, S) == ML_TIMEOUT)
    return lml_fail(L, "timeout", "timeout waiting for the generator's clean-up");
  return push_closed(L, S, check_generator(L, S));
}

static int g_close(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lml_generator *g = check_generator(L, S);
  uint64_t deadline = lml_check_deadline(L, 2);
  if (mli_future_settled(g->future)) return push_closed(L, S, g);
  lml_await *a = lml_await_begin(L, S, "generator's end");
  lml_generator_abandon(&g->object);
  a->source = g->future;
  a->abort = close_abort;
  a->watcher.fired = closed_fired;
  if (!mli_future_watch(g->future, &a->watcher)) atomic_store(&a->woken, true);
  return lml_await_park(L, S, a, deadline, close_k, 0);
}

/* disown(generator): it is closed here and now; what made it need not. */
static int l_disown(lua_State *L) {
  lml_left_remove(check_generator(L, lml_upstate(L)));
  return 0;
}

/* report_clean_up(generator, error): its clean-up failed, and something else is raised. */
static int l_report_clean_up(lua_State *L) {
  lml_state *S = lml_upstate(L);
  const mli_future *f = check_generator(L, S)->future;
  const mli_task *task = mli_container(f, mli_task, future);
  char where[MLI_WHERE_MAX + 16] = "";
  if (task->line) snprintf(where, sizeof where, "%s:%u", mli_task_chunk(task), task->line);
  lua_settop(L, 2);
  lml_report(L, S, "generator", task->name[0] ? task->name : NULL,
             mli_future_settled(f) ? f->traceback : NULL, where[0] ? where : NULL);
  return 0;
}

/* ---- making one ---- */

/* generator(prefetch) -> a generator without a body, and its feed: the last argument
** of the body's submit. */
static int l_generator(lua_State *L) {
  lua_Integer prefetch = luaL_checkinteger(L, 1);
  if (prefetch > MOST_PREFETCH)
    return lml_misuse(L, "generator: option 'prefetch': at most %d", MOST_PREFETCH);
  lml_handle *handle = lml_handle_new(L, &lml_generator_type);
  lml_generator *g = malloc(sizeof *g);
  lml_feed *feed = aligned_alloc(_Alignof(lml_feed), sizeof *feed);
  if (feed) memset(feed, 0, sizeof *feed);
  if (!g || !feed || !mli_ring_init(&feed->ring, prefetch ? (unsigned)prefetch : 1)) {
    free(g);
    free(feed);
    return luaL_error(L, "not enough memory");
  }
  mli_object_init(&feed->object, &lml_feed_type);
  feed->prefetch = (unsigned)prefetch;
  mli_object_init(&g->object, &lml_generator_type);
  g->feed = feed;
  g->future = NULL;
  g->list = NULL;
  handle->object = &g->object;
  if (prefetch) mli_ring_grant(&feed->ring, feed->prefetch);
  lml_handle_push(L, &feed->object);
  return 2;
}

static void body_ended(mli_watcher *watcher) {
  lml_feed *feed = mli_container(watcher, lml_feed, end);
  mli_ring_end(&feed->ring);
  mli_release(feed);
}

/* attach(generator, future): its body was submitted. */
static int l_attach(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lml_generator *g = check_generator(L, S);
  lml_future *u = lml_future_check(L, S, 2);
  g->future = mli_retain(lml_future_core(u));
  mli_object_retain(&g->feed->object);
  g->feed->end.fired = body_ended;
  if (!mli_future_watch(g->future, &g->feed->end)) body_ended(&g->feed->end);
  lml_left_add(S, g);
  return 0;
}

/* ---- metatables ---- */

static int g_gc(lua_State *L) {
  lml_handle *h = lua_touserdata(L, 1);
  mli_object *object = h->object;
  h->object = NULL;
  if (!object) return 0;
  lml_left_remove(mli_container(object, lml_generator, object));
  mli_object_release(object);
  return 0;
}

static int feed_gc(lua_State *L) {
  lml_handle *h = lua_touserdata(L, 1);
  if (h->object) mli_object_release(h->object);
  h->object = NULL;
  return 0;
}

static int g_eq(lua_State *L) {
  mli_object *a = lml_handle_test(L, 1, &lml_generator_type);
  lua_pushboolean(L, a && a == lml_handle_test(L, 2, &lml_generator_type));
  return 1;
}

static int g_tostring(lua_State *L) {
  lml_generator *g = mli_container(lml_handle_check(L, 1, &lml_generator_type), lml_generator,
                                   object);
  lua_pushfstring(L, "generator: %p (%s)", (void *)g,
                  mli_future_settled(g->future)   ? "ended"
                  : atomic_load(&g->feed->closed) ? "closing"
                                                  : "open");
  return 1;
}

void lml_generator_open(lua_State *L) {
  static const luaL_Reg functions[] = { { "generator", l_generator },
                                        { "attach", l_attach },
                                        { "generator_close", g_close },
                                        { "disown", l_disown },
                                        { "report_clean_up", l_report_clean_up },
                                        { NULL, NULL } };
  static const luaL_Reg methods[] = {
    { "next", g_next }, { "send", g_send }, { "throw", g_throw }, { NULL, NULL }
  };
  static const luaL_Reg metamethods[] = { { "__gc", g_gc },
                                          { "__eq", g_eq },
                                          { "__tostring", g_tostring },
                                          { "__call", g_call },
                                          { NULL, NULL } };
  lml_state_of(L)->yieldable[7] = lml_generator_body;
  lml_setfuncs(L, functions);
  lua_newtable(L);
  lua_pushliteral(L, "generator");
  lua_setfield(L, -2, "__name");
  lml_setfuncs(L, metamethods);
  lua_newtable(L);
  lml_setfuncs(L, methods);
  lua_setfield(L, -2, "__index");
  lml_handle_declare(L, &lml_generator_type);
  lua_setfield(L, -2, "generator_metatable"); /* the front door adds close and __close */
  lua_newtable(L);
  lua_pushcfunction(L, feed_gc);
  lua_setfield(L, -2, "__gc");
  lml_handle_declare(L, &lml_feed_type);
  lua_pop(L, 1);
}
