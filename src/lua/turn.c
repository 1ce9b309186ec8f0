/*
** turn.c: the loop's share for Lua: ready jobs start, go on, end.
*/
#include "core/observe.h"
#include "generator.h"
#include "state.h"

#define JOBS_PER_TURN 1024
#define TURN_LENGTH (2 * MLI_MILLISECOND)

/* It was cancelled before it began: it never does. */
static void drop(lml_state *S, lml_job *job) {
  if (mli_unlikely(mli_observing())) lml_observe_end(job, MLI_STOPPED);
  if (job->task) {
    mli_task *task = job->task;
    job->task = NULL;
    lml_task_drop(S, task);
  } else {
    job->fut->job = NULL;
    mli_count(&S->count->cancelled, 1);
    lml_coroutine_put(S, job->co, job->slot);
  }
  lml_job_free(job);
}

/* False: it does not run. Raises on lack of memory. */
static bool start(lua_State *L, lml_state *S, lml_job *job) {
  mli_future *f = job->task ? &job->task->future : lml_future_core(job->fut);
  if (job->task && !job->co) {
    lml_coroutine c = lml_coroutine_get(L, S);
    job->co = c.co;
    job->slot = c.slot;
    lml_job_push_task_base(c.co);
  }
  if (!mli_future_start(f)) return false;
  job->started = true;
  mli_count(&S->count->running, 1);
  lml_job_start_timeout(job);
  return true;
}

static void run(lua_State *L, lml_state *S, lml_job *job) {
  int nargs = 0, count;
  bool first = !job->started;
  if (first) {
    if (!start(L, S, job)) {
      drop(S, job);
      return;
    }
    nargs = lua_gettop(job->co) - 1;
  }
  if (mli_unlikely(job->kill)) {
    const char *verdict = lml_generator_verdict(job);
    lua_pushstring(L, verdict ? verdict : "stopped");
    lml_job_stop(L, S, job);
    lml_job_finish(L, job);
    return;
  }
  uint64_t began = mli_unlikely(mli_observing()) ? lml_observe_run(L, S, job, first) : 0;
  S->current = job;
  S->running = job->co;
  S->in_wait = false;
  mli_task *task = job->task;
  if (task) mli_worker_runs(S->worker, task);
  mli_watch *watch = &S->loop->watch;
  mli_watch_step(watch);
  if (mli_unlikely(job->slice != atomic_load_explicit(&watch->slice, memory_order_relaxed)))
    mli_watch_slice(watch, job->slice);
  int status = lua_resume(job->co, L, nargs, &count);
  if (mli_unlikely(atomic_load_explicit(&S->poked.reasons, memory_order_relaxed)))
    lml_blocked_over(S);
  if (mli_unlikely(began != 0)) lml_observe_ran(S, job, began);
  if (task) mli_worker_runs(S->worker, NULL);
  S->running = NULL;
  S->frames = NULL;
  S->current = NULL;
  if (status == LUA_YIELD) {
    if (mli_likely(S->in_wait)) return;
    if (S->preempted) { /* it goes on after the others, and after a look at I/O */
      const lml_scope *scope = lml_job_cancelled(job);
      if (mli_unlikely(scope != NULL)) job->kill = lml_scope_is_swallowed(scope);
      S->preempted = false;
      S->starved = true;
      lml_job_ready(job);
      return;
    }
    lua_pushliteral(L, "a job called a copy of coroutine.yield from before require \"moonloop\"; "
                       "nothing would resume it");
    lml_job_stop(L, S, job);
  } else if (mli_unlikely(status != LUA_OK)) {
    /* Raised by the base itself: what comes in or goes out cannot cross. */
    job->failed = true;
    bool lost = !job->task; /* only for lack of memory: its handle is out of reach */
    if (lost) {             /* settled while the stack still holds it */
      job->fut->job = NULL;
      mli_count(&S->count->running, -1);
      mli_count(&S->count->failed, 1);
      mli_future_fail(lml_future_core(job->fut), ML_MEMORY);
    }
    lua_xmove(job->co, L, 1);
    lua_resetthread(job->co);
    lua_settop(job->co, 0);
    lua_pushnil(job->co);
    lua_pushnil(job->co);
    lua_xmove(L, job->co, 1);
    if (lost) {
      lml_coroutine_put(S, job->co, job->slot);
      lml_job_free(job);
      S->starved = true;
      return;
    }
  }
  lml_job_finish(L, job);
}

static int turn(lua_State *L) {
  lml_state *S = lua_touserdata(L, 1);
  uint64_t end = 0;
  for (unsigned n = 0; S->ready && n < JOBS_PER_TURN; n++) {
    lml_job *job = S->ready;
    S->ready = job->ready_next;
    if (!S->ready) S->ready_last = &S->ready;
    job->ready = false;
    S->turning = job;
    run(L, S, job);
    S->turning = NULL;
    if (mli_unlikely(S->starved)) { /* a job takes long: the loop looks around after each */
      S->starved = false;
      break;
    }
    if (n % 32 == 31) {
      uint64_t now = mli_now();
      if (end == 0)
        end = now + TURN_LENGTH;
      else if (now > end)
        break;
    }
  }
  return 0;
}

/* Outside of any job the scheduler itself ran out of memory, over this job. */
static void out_of_memory(lml_state *S, lml_job *job) {
  S->current = NULL;
  S->running = NULL;
  if (!job) return;
  if (job->task) {
    mli_task *task = job->task;
    job->task = NULL;
    mli_task_settle(S->worker, task, MLI_FAILED, NULL, NULL, ML_MEMORY);
  } else {
    mli_future *f = lml_future_core(job->fut);
    job->fut->job = NULL;
    mli_count(&S->count->failed, 1);
    mli_future_fail(f, ML_MEMORY);
  }
  lml_job_free(job); /* its coroutine is lost with it */
}

bool lml_turn(lml_state *S) {
  if (mli_unlikely(atomic_load_explicit(&S->poked.reasons, memory_order_relaxed)))
    lml_blocked_over(S);
  if (!S->ready) return false;
  lua_State *L = S->from;
  if (!lua_checkstack(L, LUA_MINSTACK)) return true;
  S->in_turn = true;
  lua_pushcfunction(L, turn);
  lua_pushlightuserdata(L, S);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
    lua_pop(L, 1);
    lml_job *job = S->turning;
    S->turning = NULL;
    out_of_memory(S, job);
  }
  S->in_turn = false;
  lml_tidy_later(S);
  return S->ready != NULL;
}
