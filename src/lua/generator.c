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

#include <stdlib.h>
#include <string.h>
#include "core/ring.h"
#include "crossing.h"

#define MOST_PREFETCH (1 << 20)
#define SWEEP_AGAIN (5 * MLI_MILLISECOND)

/* [C] the consumer, while it holds `pulling`  [L] the body's loop */
struct lml_feed {
  mli_object object;
  mli_ring ring;
  unsigned prefetch;   /* [I] items to keep ready; 0: none before they are asked for */
  mli_watcher end;     /* on the job's future: holds a reference until it fires */
  atomic_bool pulling; /* [A] */
  atomic_bool closed;  /* [A] whoever pulled wants no more */
  atomic_bool raised;  /* [A] the body's error */
  mli_message *sent;   /* [C] until the grant, [L] until the next put: for the yield */
  bool thrown;         /* likewise: `sent` is an error to raise there */
  bool idle;           /* [L] waits for credit */
  bool ignored;        /* [L] yielded after it was told to end */
};

typedef struct generator {
  mli_object object;
  lml_feed *feed;     /* [I] holds a reference */
  mli_future *future; /* [I] of the body's job, once submitted; holds a reference */
} generator;

static void feed_destroy(mli_object *object) {
  lml_feed *feed = mli_container(object, lml_feed, object);
  mli_ring_fini(&feed->ring);
  mli_message_free(feed->sent);
  free(feed);
}

static const mli_type feed_type = { "generator feed", feed_destroy, NULL };

void lml_feed_drop(lml_feed *feed) {
  if (feed) mli_release(feed);
}

void lml_generator_abandon(mli_object *object) {
  generator *g = mli_container(object, generator, object);
  if (!g->future) return;
  atomic_store(&g->feed->closed, true);
  mli_future_cancel(g->future, NULL);
}

static void generator_destroy(mli_object *object) {
  generator *g = mli_container(object, generator, object);
  lml_generator_abandon(object);
  if (g->future) mli_release(g->future);
  mli_release(g->feed);
  free(g);
}

const mli_type lml_generator_type = { "generator", generator_destroy, NULL };

/* ---- the body ---- */

/* An idle body is no load: new jobs need not keep away from it. */
static void set_idle(lml_state *S, lml_feed *feed, bool idle) {
  if (feed->idle == idle) return;
  feed->idle = idle;
  if (idle) {
    S->idle_generators++;
    atomic_fetch_sub_explicit(&S->worker->load, 1, memory_order_relaxed);
  } else {
    S->idle_generators--;
    atomic_fetch_add_explicit(&S->worker->load, 1, memory_order_relaxed);
  }
}

static void credit_abort(lml_await *a) {
  lml_feed *feed = a->source;
  if (mli_ring_withdraw_writer(&feed->ring)) lml_await_wake(a, true);
}

/* Waits for credit; k must call end_idle first. */
static int await_credit(lua_State *L, lml_state *S, lml_await *a, lua_KFunction k) {
  lml_feed *feed = S->current->info->feed;
  a->source = feed;
  a->abort = credit_abort;
  a->waker.wake = lml_await_woken;
  if (mli_ring_await_credit(&feed->ring, &a->waker))
    atomic_store(&a->woken, true);
  else
    set_idle(S, feed, true);
  return lml_await_park(L, S, a, MLI_FOREVER, k, 0);
}

static void end_idle(lua_State *L, lml_state *S) {
  set_idle(S, S->current->info->feed, false);
  lml_await_end(L, S);
}

/* What came with the credit: raises it if it was thrown, else pushes it. */
static int receive(lua_State *L, lml_feed *feed) {
  if (!feed->sent) return 0;
  int n = lml_decode(L, feed->sent);
  mli_message_free(feed->sent);
  feed->sent = NULL;
  return feed->thrown ? lua_error(L) : n;
}

static int yield_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_state *S = lml_upstate(L);
  end_idle(L, S);
  lua_settop(L, 0);
  return receive(L, S->current->info->feed);
}

static int stopped_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  return luaL_error(L, "stopped"); /* not reached: the job never goes on */
}

const char *lml_generator_verdict(const lml_job *job) {
  return lml_is_generator(job) && job->info->feed->ignored
           ? "generator ignored close: it yielded while being closed"
           : NULL;
}

static int ignore_close(lua_State *L, lml_state *S) {
  S->current->info->feed->ignored = true;
  S->current->kill = true;
  return lml_yield_turn(L, S, stopped_k, 0);
}

/* There is credit: the item on the stack goes out. */
static int put(lua_State *L, lml_state *S, lml_await *a) {
  mli_ring_put(&S->current->info->feed->ring, lml_encode(L, 1, lua_gettop(L), LML_RESULTS));
  return await_credit(L, S, a, yield_k);
}

/* The yield before this one was left by an error of a scope within the body, before
** anyone pulled: this one waited for that pull. */
static int late_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_state *S = lml_upstate(L);
  int top = lua_gettop(L);
  end_idle(L, S);
  receive(L, S->current->info->feed);
  lua_settop(L, top);
  return put(L, S, lml_await_begin(L, S, "pull"));
}

int lml_generator_yield(lua_State *L, lml_state *S) {
  lml_job *job = S->current;
  if (mli_unlikely(job->root.deliveries > 0)) return ignore_close(L, S);
  lml_await *a = lml_await_begin(L, S, "pull");
  if (mli_unlikely(!mli_ring_may_put(&job->info->feed->ring))) return await_credit(L, S, a, late_k);
  return put(L, S, a);
}

static int returned_k(lua_State *L, int status, lua_KContext ctx) {
  (void)L, (void)status, (void)ctx;
  return 0; /* what the body returns goes nowhere */
}

static int pulled_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_state *S = lml_state_of(L);
  end_idle(L, S);
  receive(L, S->current->info->feed);
  lua_callk(L, lua_gettop(L) - 1, 0, 0, returned_k);
  return 0;
}

/* Stack: the body and its arguments. */
static int body_main(lua_State *L) {
  lml_state *S = lml_state_of(L);
  return await_credit(L, S, lml_await_begin(L, S, "pull"), pulled_k);
}

void lml_generator_begin(lua_State *L, lml_state *S, int first) {
  mli_object *object = lml_handle_test(L, -1, &feed_type);
  if (!object) return;
  lua_pop(L, 1);
  lml_info *info = lml_job_info(S->current);
  if (!info) luaL_error(L, "not enough memory");
  info->feed = mli_retain(mli_container(object, lml_feed, object));
  lua_pushcfunction(L, body_main);
  lua_insert(L, first);
}

/* ---- the end of an executor ---- */

static void sweep_again(mli_timer *timer) {
  lml_generators_sweep(mli_container(timer, lml_state, sweep));
}

/* A job on another loop of the executor may be the one that pulls. */
static bool others_busy(const mli_worker *self) {
  const mli_executor *ex = self->executor;
  for (unsigned i = 0; i < ex->size; i++)
    if (ex->workers[i] != self && atomic_load_explicit(&ex->workers[i]->load, memory_order_relaxed))
      return true;
  return false;
}

void lml_generators_sweep(lml_state *S) {
  if (S->idle_generators == 0 || S->job_count != S->idle_generators) return;
  if (others_busy(S->worker)) {
    S->sweep.fire = sweep_again;
    mli_loop_timer_start(S->loop, &S->sweep, mli_now() + SWEEP_AGAIN);
  } else {
    lml_cancel_jobs(S, 0);
  }
}

/* ---- the consumer ---- */

static generator *check_generator(lua_State *L, lml_state *S) {
  generator *g = mli_container(lml_handle_check(L, 1, &lml_generator_type), generator, object);
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

static int push_end(lua_State *L, lml_state *S, generator *g, enum shape shape) {
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
static int collect(lua_State *L, lml_state *S, generator *g, mli_message **carrier, bool ended,
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

static int second_consumer(lua_State *L) {
  return lml_misuse(L, "another consumer waits for this generator's next item: one at a time");
}

static int pull_k(lua_State *L, int status, lua_KContext shape) {
  (void)status;
  lml_state *S = lml_upstate(L);
  generator *g = check_generator(L, S);
  atomic_store(&g->feed->pulling, false); /* the wait's end may raise */
  if (lml_await_end(L, S) == ML_TIMEOUT)
    return lml_fail(L, "timeout", "timeout waiting for the generator's next item");
  mli_message **carrier = get_carrier(L);
  if (atomic_exchange(&g->feed->pulling, true)) return second_consumer(L);
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
  mli_ring_grant(&feed->ring, feed->prefetch ? feed->prefetch : 1);
  if (mli_ring_await_message(&feed->ring, &a->waker)) atomic_store(&a->woken, true);
  return lml_await_park(L, S, a, deadline, pull_k, shape);
}

/* Begins a pull: afterwards `pulling` is held, and the wait is begun. */
static lml_await *begin_pull(lua_State *L, lml_state *S, lml_feed *feed) {
  lml_await *a = lml_await_begin(L, S, "generator");
  if (mli_likely(!atomic_exchange(&feed->pulling, true))) return a;
  lml_await_end(L, S);
  second_consumer(L);
  return NULL;
}

static int pull(lua_State *L, lml_state *S, uint64_t deadline, enum shape shape) {
  generator *g = check_generator(L, S);
  lml_feed *feed = g->feed;
  mli_message **carrier = get_carrier(L);
  lml_await *a = begin_pull(L, S, feed);
  bool ended = mli_ring_ended(&feed->ring);
  if (ended || mli_ring_ready(&feed->ring)) {
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
  generator *g = check_generator(L, S);
  lml_feed *feed = g->feed;
  if (feed->prefetch)
    return lml_misuse(L, "%s: the generator runs ahead (prefetch = %d): its next item is no answer", what,
                      (int)feed->prefetch);
  int n = lua_gettop(L) - 1;
  mli_message **carrier = get_carrier(L);
  *carrier = lml_encode(L, 2, n, thrown ? LML_ERROR_VALUE : LML_ARGUMENTS);
  lml_await *a = begin_pull(L, S, feed);
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
static int push_closed(lua_State *L, lml_state *S, generator *g) {
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
  generator *g = check_generator(L, S);
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

/* ---- making one ---- */

/* generator(prefetch) -> a generator without a body, and its feed: the last argument
** of the body's submit. */
static int l_generator(lua_State *L) {
  lua_Integer prefetch = luaL_checkinteger(L, 1);
  if (prefetch > MOST_PREFETCH)
    return lml_misuse(L, "generator: option 'prefetch': at most %d", MOST_PREFETCH);
  lml_handle *handle = lml_handle_new(L, &lml_generator_type);
  generator *g = malloc(sizeof *g);
  lml_feed *feed = aligned_alloc(_Alignof(lml_feed), sizeof *feed);
  if (feed) memset(feed, 0, sizeof *feed);
  if (!g || !feed || !mli_ring_init(&feed->ring, prefetch ? (unsigned)prefetch : 1)) {
    free(g);
    free(feed);
    return luaL_error(L, "not enough memory");
  }
  mli_object_init(&feed->object, &feed_type);
  feed->prefetch = (unsigned)prefetch;
  mli_object_init(&g->object, &lml_generator_type);
  g->feed = feed;
  g->future = NULL;
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
  generator *g = check_generator(L, S);
  lml_future *u = lml_future_check(L, S, 2);
  g->future = mli_retain(lml_future_core(u));
  mli_object_retain(&g->feed->object);
  g->feed->end.fired = body_ended;
  if (!mli_future_watch(g->future, &g->feed->end)) body_ended(&g->feed->end);
  return 0;
}

/* ---- metatables ---- */

static int g_gc(lua_State *L) {
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
  generator *g = mli_container(lml_handle_check(L, 1, &lml_generator_type), generator, object);
  lua_pushfstring(L, "generator: %p (%s)", (void *)g,
                  mli_future_settled(g->future)   ? "ended"
                  : atomic_load(&g->feed->closed) ? "closing"
                                                  : "open");
  return 1;
}

void lml_generator_open(lua_State *L) {
  static const luaL_Reg functions[] = {
    { "generator", l_generator }, { "attach", l_attach }, { NULL, NULL }
  };
  static const luaL_Reg methods[] = {
    { "next", g_next }, { "send", g_send }, { "throw", g_throw }, { "close", g_close }, { NULL, NULL }
  };
  static const luaL_Reg metamethods[] = {
    { "__gc", g_gc }, { "__eq", g_eq }, { "__tostring", g_tostring }, { "__call", g_call }, { NULL, NULL }
  };
  lml_state_of(L)->yieldable[7] = body_main;
  lml_setfuncs(L, functions);
  lua_newtable(L);
  lua_pushliteral(L, "generator");
  lua_setfield(L, -2, "__name");
  lml_setfuncs(L, metamethods);
  lua_newtable(L);
  lml_setfuncs(L, methods);
  lua_setfield(L, -2, "__index");
  lml_handle_declare(L, &lml_generator_type);
  lua_setfield(L, -2, "generator_metatable"); /* the front door adds __close */
  lua_newtable(L);
  lua_pushcfunction(L, g_gc);
  lua_setfield(L, -2, "__gc");
  lml_handle_declare(L, &feed_type);
  lua_pop(L, 1);
}
