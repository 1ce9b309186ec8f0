/*
** submit.c: handing a job to an executor.
*/
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "core/pool.h"
#include "crossing.h"
#include "worker.h"

/* Stack: executor, name or nil, timeout or nil, job, arguments. */
enum { SUBMIT_EXECUTOR = 1, SUBMIT_NAME, SUBMIT_TIMEOUT, SUBMIT_JOB };

static int closed_error(lua_State *L, mli_executor *ex) {
  return lml_raise(L, "closed", "executor '%s' is shut down", ex->name);
}

/* What a job is handed to: an executor, or one of its workers. */
typedef struct target {
  mli_executor *executor;
  mli_worker *pin; /* NULL: any */
  mli_seat *seat;  /* likewise, of a child process */
} target;

static target check_target(lua_State *L, lml_state *S) {
  mli_object *object = lml_handle_test_in(L, S, 1, &mli_executor_type);
  if (object) return (target){ mli_container(object, mli_executor, object), NULL, NULL };
  const lml_pin *pin = lml_pin_test(L, 1);
  if (!pin) lml_misuse(L, "submit: executor expected, got %s", luaL_typename(L, 1));
  if (atomic_load(&pin->released)) lml_misuse(L, "submit: this worker was released");
  return (target){ pin->executor, pin->worker, pin->seat };
}

/* The task of a pool's worker that what runs now comes from, or NULL. */
static const mli_task *origin_of(const lml_state *S) {
  if (S->task) return S->task;
  return S->current ? S->current->origin : NULL;
}

/* `slot`: the caller holds one, if the executor is bounded. */
static int submit_now(lua_State *L, lml_state *S, target to, bool slot) {
  mli_executor *ex = to.executor;
  int n = lua_gettop(L) - SUBMIT_JOB + 1;
  lml_future_wrap(L, S, NULL);
  lml_future *u = lua_touserdata(L, -1);
  mli_task *task = mli_task_new(ex, NULL);
  if (!task) return luaL_error(L, "not enough memory");
  u->handle.object = &task->future.object; /* it owns the task while the encoding may raise */
  task->context = lml_context_encode(L, S, ex->class->far);
  task->payload = lml_encode(L, SUBMIT_JOB, n, ex->class->far ? LML_JOB | LML_FAR : LML_JOB);
  task->timeout = lml_option_span(L, SUBMIT_TIMEOUT);
  task->pin = to.pin;
  if (to.seat) {
    task->seat = mli_seat_object(to.seat);
    mli_object_retain(task->seat);
  }
  task->origin = origin_of(S);
  task->over = !slot;
  lml_place place = lml_place_of(L, S);
  task->line = place.line;
  if (place.chunk) task->chunk = mli_retain(S->chunks[place.chunk - 1].name);
  const char *name = lua_type(L, SUBMIT_NAME) == LUA_TSTRING  ? lua_tostring(L, SUBMIT_NAME)
                     : lua_type(L, SUBMIT_JOB) == LUA_TSTRING ? lua_tostring(L, SUBMIT_JOB)
                                                              : NULL;
  if (name) snprintf(task->name, sizeof task->name, "%s", name);
  ml_status status = mli_executor_submit(ex, task);
  if (status != ML_OK) {
    mli_future_observe(&task->future);
    if (status == ML_CLOSED) return closed_error(L, ex);
    const char *code = status == ML_SYSTEM ? uv_err_name(-errno) : ml_status_name(status);
    return lml_raise(L, code, "cannot start a thread for the job: %s", strerror(errno));
  }
  return 1;
}

/* A submit that waits for a slot. */
typedef struct slot_wait {
  mli_waiter waiter;
  mli_sem *sem;
} slot_wait;

static void slot_abort(lml_await *a) {
  slot_wait *w = a->source;
  if (mli_sem_remove(w->sem, &w->waiter)) lml_await_wake(a, true);
}

/* The slot is given back if the encoding refuses. */
static int submit_protected(lua_State *L) {
  lml_state *S = lml_upstate(L);
  return submit_now(L, S, check_target(L, S), true);
}

static int submit_with_slot(lua_State *L, lml_state *S, target to) {
  mli_executor *ex = to.executor;
  if (!ex->bounded) return submit_now(L, S, to, true);
  lua_pushlightuserdata(L, S);
  lua_pushcclosure(L, submit_protected, 1);
  lua_insert(L, 1);
  if (lua_pcall(L, lua_gettop(L) - 1, 1, 0) == LUA_OK) return 1;
  mli_sem_release(&ex->slots);
  return lua_error(L);
}

static int slot_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_state *S = lml_upstate(L);
  target to = check_target(L, S);
  lml_await_end(L, S);
  lua_pop(L, 1); /* the wait's memory */
  if (atomic_load(&to.executor->closing)) return closed_error(L, to.executor);
  return submit_with_slot(L, S, to);
}

/* submit_opened(executor, name, timeout, function or "module:function", ...) */
static int l_submit_opened(lua_State *L) {
  lml_state *S = lml_upstate(L);
  target to = check_target(L, S);
  mli_executor *ex = to.executor;
  if (atomic_load(&ex->closing)) return closed_error(L, ex);
  if (!ex->bounded || mli_sem_try(&ex->slots)) return submit_with_slot(L, S, to);
  if (S->task && S->worker->executor == ex) /* it would wait for itself: over the bound */
    return submit_now(L, S, to, false);
  slot_wait *w = lua_newuserdatauv(L, sizeof *w, 0);
  lml_await *a = lml_await_begin(L, S, "max_pending");
  w->sem = &ex->slots;
  w->waiter.waker = &a->waker;
  a->waker.wake = lml_await_woken;
  a->abort = slot_abort;
  a->source = w;
  if (mli_sem_acquire(&ex->slots, &w->waiter)) atomic_store(&a->woken, true);
  return lml_await_park(L, S, a, MLI_FOREVER, slot_k, 0);
}

/* try_submit_opened(...): the same, or nil and an error with code "busy" */
static int l_try_submit_opened(lua_State *L) {
  lml_state *S = lml_upstate(L);
  target to = check_target(L, S);
  mli_executor *ex = to.executor;
  if (atomic_load(&ex->closing))
    return lml_fail(L, "closed", "executor '%s' is shut down", ex->name);
  if (ex->bounded && !mli_sem_try(&ex->slots))
    return lml_fail(L, "busy", "executor '%s' has as many jobs as max_pending allows", ex->name);
  return submit_with_slot(L, S, to);
}

static const char open_job_key; /* registry: the front door's submit for other jobs */

static int return_all_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  return lua_gettop(L);
}

/* Functions go straight on; the front door takes anything else apart. */
static int submit_any(lua_State *L, lua_CFunction opened) {
  if (mli_likely(lua_isfunction(L, 2))) {
    lua_pushnil(L);
    lua_pushnil(L);
    lua_rotate(L, 2, 2);
    return opened(L);
  }
  lua_rawgetp(L, LUA_REGISTRYINDEX, &open_job_key);
  lua_pushboolean(L, opened == l_try_submit_opened);
  lua_rotate(L, 1, 2);
  lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, return_all_k);
  return lua_gettop(L);
}

/* executor:submit(job, ...) -> future */
static int l_submit(lua_State *L) { return submit_any(L, l_submit_opened); }

/* executor:try_submit(job, ...) -> future, or nil, err */
static int l_try_submit(lua_State *L) { return submit_any(L, l_try_submit_opened); }

/* submit_other(f): f(try, executor, ...) submits what is no plain function. */
static int l_submit_other(lua_State *L) {
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &open_job_key);
  return 0;
}

void lml_submit_open(lua_State *L) {
  static const luaL_Reg functions[] = {
    { "submit", l_submit },
    { "try_submit", l_try_submit },
    { "submit_opened", l_submit_opened },
    { "try_submit_opened", l_try_submit_opened },
    { "submit_other", l_submit_other },
    { NULL, NULL },
  };
  lml_setfuncs(L, functions);
}
