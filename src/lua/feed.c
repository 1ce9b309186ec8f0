/*
** feed.c: the body of a generator: a job that waits for pulls and whose yields are
** items. See generator.c for the whole.
*/
#include <stdlib.h>
#include "crossing.h"
#include "generator.h"

#define SWEEP_AGAIN (5 * MLI_MILLISECOND)

static void feed_destroy(mli_object *object) {
  lml_feed *feed = mli_container(object, lml_feed, object);
  mli_ring_fini(&feed->ring);
  mli_message_free(feed->sent);
  mli_message_free(feed->read);
  free(feed);
}

const mli_type lml_feed_type = { "generator feed", feed_destroy, NULL };

void lml_feed_drop(lml_feed *feed) {
  if (feed) mli_release(feed);
}

/* ---- waiting for a pull ---- */

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
  if (mli_ring_await_credit(&feed->ring, &a->waker)) {
    if (++feed->given % LML_ITEMS_PER_TURN == 0) return lml_yield_turn(L, S, k, 0);
    atomic_store(&a->woken, true);
  } else {
    feed->given = 0;
    set_idle(S, feed, true);
  }
  return lml_await_park(L, S, a, MLI_FOREVER, k, 0);
}

static void end_idle(lua_State *L, lml_state *S) {
  set_idle(S, S->current->info->feed, false);
  lml_await_end(L, S);
}

/* ---- yields ---- */

/* What came with the credit: raises it if it was thrown, else pushes it. */
static int receive(lua_State *L, lml_feed *feed) {
  if (!feed->sent) return 0;
  mli_message_free(feed->read); /* it could not be read */
  feed->read = feed->sent;
  feed->sent = NULL;
  int n = lml_decode(L, feed->read);
  mli_message_free(feed->read);
  feed->read = NULL;
  return feed->thrown ? lua_error(L) : n;
}

/* The same where no yield returns. */
static void receive_late(lua_State *L, lml_feed *feed) {
  if (mli_likely(!feed->sent)) return;
  int top = lua_gettop(L);
  receive(L, feed);
  lua_settop(L, top);
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

/* There is credit: the item on the stack goes out. What came with the credit was for
** the yield before, if that was left by an error of a scope before anyone pulled. */
static int put(lua_State *L, lml_state *S, lml_await *a) {
  lml_feed *feed = S->current->info->feed;
  receive_late(L, feed);
  mli_ring_put(&feed->ring, lml_encode(L, 1, lua_gettop(L), LML_RESULTS));
  return await_credit(L, S, a, yield_k);
}

static int late_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_state *S = lml_upstate(L);
  end_idle(L, S);
  return put(L, S, lml_await_begin(L, S, "pull"));
}

int lml_generator_yield(lua_State *L, lml_state *S) {
  lml_job *job = S->current;
  if (mli_unlikely(job->root.deliveries > 0)) return ignore_close(L, S);
  lml_await *a = lml_await_begin(L, S, "pull");
  if (mli_unlikely(!mli_ring_may_put(&job->info->feed->ring))) return await_credit(L, S, a, late_k);
  return put(L, S, a);
}

/* ---- the beginning ---- */

static int returned_k(lua_State *L, int status, lua_KContext ctx) {
  (void)L, (void)status, (void)ctx;
  return 0; /* what the body returns goes nowhere */
}

static int pulled_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_state *S = lml_state_of(L);
  end_idle(L, S);
  receive_late(L, S->current->info->feed);
  lua_callk(L, lua_gettop(L) - 1, 0, 0, returned_k);
  return 0;
}

/* Stack: the body and its arguments. */
int lml_generator_body(lua_State *L) {
  lml_state *S = lml_state_of(L);
  return await_credit(L, S, lml_await_begin(L, S, "pull"), pulled_k);
}

void lml_generator_begin(lua_State *L, lml_state *S, int first) {
  mli_object *object = lml_handle_test(L, -1, &lml_feed_type);
  if (!object) return;
  lua_pop(L, 1);
  lml_info *info = lml_job_info(S->current);
  if (!info) luaL_error(L, "not enough memory");
  info->feed = mli_retain(mli_container(object, lml_feed, object));
  lua_pushcfunction(L, lml_generator_body);
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
