/* submit.c: jobs of a C program: from a Lua state, by name, or a C function. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "embed.h"

/* ---- what all have in common ---- */

static ml_status read_options(ml_job_options *o, const ml_job_options *given,
                              const char *function) {
  *o = (ml_job_options)ML_JOB_OPTIONS;
  if (!given) return ML_OK;
  if (given->size < MLE_SIZE_TO(ml_job_options, timeout) || given->size > sizeof *o)
    return mle_fail(ML_MISUSE, "%s: options of %zu bytes: start with ML_JOB_OPTIONS", function,
                    given->size);
  memcpy(o, given, given->size);
  return ML_OK;
}

/* Takes one of max_pending. */
static ml_status take_slot(mli_executor *ex, const char *function) {
  if (atomic_load(&ex->closing))
    return mle_fail(ML_CLOSED, "%s: executor '%s' is shut down", function, ex->name);
  if (ex->bounded && !mli_sem_try(&ex->slots))
    return mle_fail(ML_BUSY, "%s: executor '%s' has as many jobs as max_pending allows", function,
                    ex->name);
  return ML_OK;
}

static void drop(mli_executor *ex, mli_task *task) {
  if (ex->bounded) mli_sem_release(&ex->slots);
  if (task) mli_release(&task->future);
}

/* Hands over a task with its payload; takes over the caller's slot and reference. */
static ml_status hand_over(mli_executor *ex, mli_task *task, const ml_job_options *o,
                           const char *name, ml_future **out, const char *function) {
  if (o->name) name = o->name;
  snprintf(task->name, sizeof task->name, "%s", name);
  if (o->timeout) task->timeout = o->timeout;
  ml_future *future = NULL;
  if (out) {
    mli_object_retain(&task->future.object);
    if (!(future = mle_future_wrap(&task->future, ex))) {
      drop(ex, task);
      return mle_fail(ML_MEMORY, "%s: out of memory", function);
    }
  }
  ml_status status = mli_executor_submit(ex, task);
  int err = errno;
  if (status != ML_OK) mli_future_observe(&task->future);
  mli_release(&task->future);
  if (status == ML_OK) {
    if (out) *out = future;
    return ML_OK;
  }
  ml_future_release(future);
  if (status == ML_CLOSED)
    return mle_fail(status, "%s: executor '%s' is shut down", function, ex->name);
  return mle_fail(status, "%s: cannot start a thread for the job: %s", function, strerror(err));
}

/* ---- from a Lua state ---- */

typedef struct parcel {
  mli_task *task;
  char name[MLI_NAME_MAX];
} parcel;

/* Stack: the parcel, the job, its arguments. */
static int pack(lua_State *L) {
  parcel *p = lua_touserdata(L, 1);
  lml_state *S = lml_state_of(L);
  if (!lua_isfunction(L, 2) && lua_type(L, 2) != LUA_TSTRING)
    return luaL_error(L, "a function or \"module:function\" expected, got %s", luaL_typename(L, 2));
  if (lua_type(L, 2) == LUA_TSTRING && !strchr(lua_tostring(L, 2), ':'))
    return luaL_error(L, "\"module:function\" expected, got \"%s\"", lua_tostring(L, 2));
  if (lua_type(L, 2) == LUA_TSTRING) snprintf(p->name, sizeof p->name, "%s", lua_tostring(L, 2));
  p->task->context = lml_context_encode(L, S, false);
  p->task->payload = lml_encode(L, 2, lua_gettop(L) - 1, LML_JOB);
  lml_place place = lml_place_of(L, S);
  p->task->line = place.line;
  if (place.chunk) p->task->chunk = mli_retain(S->chunks[place.chunk - 1].name);
  return 0;
}

/* Whether the error value on top is one of crossing. */
static bool is_crossing(lua_State *L) {
  if (!lua_istable(L, -1)) return false;
  lua_pushliteral(L, "code");
  lua_rawget(L, -2);
  const char *code = lua_tostring(L, -1);
  bool is = code && strcmp(code, "crossing") == 0;
  lua_pop(L, 1);
  return is;
}

static ml_status submit_lua(mli_executor *ex, lua_State *L, int nargs, const ml_job_options *o,
                            ml_future **out) {
  ml_status status = take_slot(ex, "ml_submit");
  if (status != ML_OK) return status;
  parcel p = { .task = mli_task_new(ex, NULL) };
  if (!p.task || !lua_checkstack(L, 3)) {
    drop(ex, p.task);
    return mle_fail(ML_MEMORY, "ml_submit: out of memory");
  }
  lua_pushcfunction(L, pack);
  lua_pushlightuserdata(L, &p);
  lua_rotate(L, -nargs - 3, 2);
  int failed = lua_pcall(L, nargs + 2, 0, 0);
  if (failed) {
    drop(ex, p.task);
    status = failed == LUA_ERRMEM ? ML_MEMORY : is_crossing(L) ? ML_CROSSING : ML_MISUSE;
    mle_fail_lua(L, status, "ml_submit");
    lua_pushnil(L); /* for the caller to pop */
    return status;
  }
  lua_pushnil(L);
  return hand_over(ex, p.task, o, p.name, out, "ml_submit");
}

ml_status ml_submit(ml_executor *ex, lua_State *L, int nargs, const ml_job_options *options,
                    ml_future **out) {
  ml_job_options o;
  if (!L) return mle_fail(ML_MISUSE, "ml_submit: a Lua state expected, got NULL");
  if (nargs < 0 || nargs >= lua_gettop(L))
    return mle_fail(ML_MISUSE, "ml_submit: %d arguments and a function are not on the stack",
                    nargs);
  int bottom = lua_gettop(L) - nargs - 1;
  ml_status status = ML_MISUSE;
  if (mle_check(ex, MLE_EXECUTOR, "ml_submit")) status = read_options(&o, options, "ml_submit");
  if (status == ML_OK && atomic_load(&ex->core->closing))
    status = mle_fail(ML_CLOSED, "ml_submit: executor '%s' is shut down", ex->core->name);
  lml_state *S;
  if (status == ML_OK && (status = mle_state(L, &S)) == ML_OK)
    status = submit_lua(ex->core, L, nargs, &o, out);
  lua_settop(L, bottom);
  return status;
}

/* ---- by name ---- */

ml_status ml_submit_call(ml_executor *ex, const char *function, ml_values *arguments,
                         const ml_job_options *options, ml_future **out) {
  ml_job_options o;
  ml_status status = ML_MISUSE;
  mli_task *task = NULL;
  mli_message *payload = NULL;
  if (!mle_check(ex, MLE_EXECUTOR, "ml_submit_call")) goto done;
  if (!function || !strchr(function, ':')) {
    mle_fail(status, "ml_submit_call: \"module:function\" expected, got %s",
             function ? function : "NULL");
    goto done;
  }
  if ((status = read_options(&o, options, "ml_submit_call")) != ML_OK) goto done;
  if (arguments && (status = ml_values_status(arguments)) != ML_OK) goto done;
  if ((status = take_slot(ex->core, "ml_submit_call")) != ML_OK) goto done;
  payload = mle_encode(arguments, function);
  task = payload ? mli_task_new(ex->core, payload) : NULL;
  if (task) {
    status = hand_over(ex->core, task, &o, function, out, "ml_submit_call");
  } else {
    mli_message_free(payload);
    drop(ex->core, NULL);
    status = mle_fail(ML_MEMORY, "ml_submit_call: out of memory");
  }
done:
  ml_values_free(arguments);
  return status;
}

/* ---- a C function ---- */

typedef struct call {
  mli_node node;
  ml_loop_function function;
  void *user;
  mli_future *future; /* a reference */
} call;

/* Settles the future of a call that ended with `status`. */
static void settle(mli_future *f, ml_status status, const ml_values *results) {
  mli_message *outcome;
  if (status == ML_OK && (status = ml_values_status(results)) == ML_OK) {
    outcome = mle_encode(results, NULL);
  } else {
    const char *text = ml_value_string(ml_values_at(results, 0), NULL);
    outcome = mle_encode_error(ml_status_name(status), text ? text : ml_status_name(status));
  }
  if (outcome)
    mli_future_settle(f, status == ML_OK ? MLI_FINISHED : MLI_FAILED, outcome, NULL);
  else
    mli_future_fail(f, ML_MEMORY);
}

static void on_call(mli_node *node, mli_loop *loop) {
  call *c = mli_container(node, call, node);
  mli_future *f = c->future;
  if (loop->stopping) {
    mli_future_fail(f, ML_CLOSED);
  } else if (mli_future_start(f)) {
    ml_values *results = ml_values_new();
    if (results)
      settle(f, c->function(&loop->uv, results, c->user), results);
    else
      mli_future_fail(f, ML_MEMORY);
    ml_values_free(results);
  }
  mli_release(f);
  free(c);
}

ml_status ml_submit_c(ml_executor *ex, ml_loop_function function, void *user, ml_future **out) {
  if (!mle_check(ex, MLE_EXECUTOR, "ml_submit_c")) return ML_MISUSE;
  if (!function) return mle_fail(ML_MISUSE, "ml_submit_c: a function expected, got NULL");
  if (atomic_load(&ex->core->closing))
    return mle_fail(ML_CLOSED, "ml_submit_c: executor '%s' is shut down", ex->core->name);
  mli_worker *w = mli_executor_place(ex->core);
  if (!w) return mle_fail(ML_MISUSE, "ml_submit_c: executor '%s' has no loops", ex->core->name);
  call *c = calloc(1, sizeof *c);
  mli_future *f = mli_future_new();
  ml_future *future = NULL;
  if (f) future = mle_future_wrap(mli_retain(f), ex->core);
  if (!c || !future) goto no_memory;
  c->node.run = on_call;
  c->function = function;
  c->user = user;
  c->future = f;
  if (!mli_loop_post(w->loop, &c->node)) {
    ml_future_release(future);
    mli_release(f);
    free(c);
    return mle_fail(ML_CLOSED, "ml_submit_c: executor '%s' is shut down", ex->core->name);
  }
  if (out)
    *out = future;
  else
    ml_future_release(future);
  return ML_OK;
no_memory:
  ml_future_release(future);
  if (f) mli_release(f);
  free(c);
  return mle_fail(ML_MEMORY, "ml_submit_c: out of memory");
}
