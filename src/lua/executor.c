/*
** executor.c: executors in Lua: making, closing and looking at them. The rest of their
** methods is in submit.c, executor_jobs.c and lua/moonloop.
*/
#include <errno.h>
#include <string.h>
#include "processes.h"
#include "worker.h"

/* ---- making ---- */

mli_executor *lml_executor_check(lua_State *L, int arg) {
  return mli_container(lml_handle_check(L, arg, &mli_executor_type), mli_executor, object);
}

mli_executor *lml_executor_make(lua_State *L, const char *name, const lml_making *making, int init,
                                int n) {
  if (!making->loops) lml_pool_class_open();
  mli_executor_options options = {
    .class = making->loops ? &lml_loop_class : &lml_pool_class,
    .name = name,
    .loops = making->loops,
    .size = making->size,
    .max_pending = making->max_pending,
    .idle_life = making->idle_life,
  };
  lml_outset *outset = lml_outset_push(L, init, n, false);
  outset->max_jobs = making->max_jobs;
  outset->max_memory = making->max_memory;
  return lml_executor_start(L, &options);
}

mli_executor *lml_executor_start(lua_State *L, mli_executor_options *options) {
  const char *name = options->name;
  if (lml_state_of(L)->closed) lml_misuse(L, "cannot make an executor: this Lua state is closing");
  lml_handle *h = lml_handle_new(L, &mli_executor_type);
  lml_state_renew_sentinel(L);
  options->user = lml_outset_take(L, -2);
  options->free_user = lml_outset_free;
  mli_executor *ex;
  ml_status status = mli_executor_new(&ex, options);
  if (status == ML_MEMORY) luaL_error(L, "not enough memory");
  if (status != ML_OK)
    lml_raise(L, uv_err_name(-errno), "cannot start the threads of executor '%s': %s", name,
              strerror(errno));
  mli_executor_use(ex);
  h->object = &ex->object;
  lua_remove(L, -2);
  return ex;
}

static uint64_t count_field(lua_State *L, int index, const char *key) {
  lua_getfield(L, index, key);
  lua_Integer n = luaL_optinteger(L, -1, 0);
  lua_pop(L, 1);
  return (uint64_t)n;
}

/* executor(kind, name, options, init...): kind "async" or "thread"; the options are checked. */
static int l_executor(lua_State *L) {
  lml_state *S = lml_upstate(L);
  const char *kind = luaL_checkstring(L, 1), *name = luaL_checkstring(L, 2);
  luaL_checktype(L, 3, LUA_TTABLE);
  lml_making making = {
    .loops = strcmp(kind, "async") == 0,
    .size = (unsigned)count_field(L, 3, "size"),
    .max_pending = count_field(L, 3, "max_pending"),
    .idle_life = LML_IDLE_LIFE,
    .max_jobs = count_field(L, 3, "max_jobs"),
    .max_memory = count_field(L, 3, "max_memory"),
  };
  if (lua_getfield(L, 3, "idle_timeout") == LUA_TNUMBER) making.idle_life = lml_option_span(L, -1);
  lua_pop(L, 1);
  mli_executor *ex = lml_executor_make(L, name, &making, 4, lua_gettop(L) - 3);
  lml_executor_own(L, S, ex);
  return 1;
}

/* ---- closing, looking ---- */

/* shutdown(executor, cancel) -> the future of its end */
static int l_shutdown(lua_State *L) {
  mli_executor *ex = lml_executor_check(L, 1);
  mli_executor_shutdown(ex, lua_toboolean(L, 2));
  lml_handle_push(L, &ex->ended->object);
  return 1;
}

static int l_join(lua_State *L) {
  mli_executor_join(lml_executor_check(L, 1));
  lml_executors_disown(lml_upstate(L));
  return 0;
}

/* Whether the caller is one of the executor's own jobs. */
static int l_is_own(lua_State *L) {
  mli_executor *ex = lml_executor_check(L, 1);
  lml_state *S = lml_upstate(L);
  lua_pushboolean(L, S->worker && S->worker->executor == ex);
  return 1;
}

static void set_count(lua_State *L, const char *key, unsigned long long n) {
  lua_pushinteger(L, (lua_Integer)n);
  lua_setfield(L, -2, key);
}

static int l_stats(lua_State *L) {
  mli_executor *ex = lml_executor_check(L, 1);
  mli_totals t;
  mli_executor_totals(ex, &t);
  lua_createtable(L, 0, 10);
  set_count(L, "submitted", t.submitted);
  set_count(L, "queued", t.queued);
  set_count(L, "running", t.running);
  set_count(L, "parked", t.parked);
  set_count(L, "finished", t.finished);
  set_count(L, "failed", t.failed);
  set_count(L, "cancelled", t.cancelled);
  set_count(L, "blocked", t.blocked);
  unsigned workers = ex->class->far ? lml_processes_count(ex) : t.threads;
  bool loops = ex->loops && !ex->class->far;
  set_count(L, "loops", loops ? ex->size : 0);
  set_count(L, "workers", loops ? 0 : workers);
  return 1;
}

/* ---- metatable ---- */

static int ex_gc(lua_State *L) {
  lml_handle *h = lua_touserdata(L, 1);
  if (!h->object) return 0;
  mli_executor *ex = mli_container(h->object, mli_executor, object);
  h->object = NULL;
  mli_executor_leave(ex);
  mli_release(ex);
  return 0;
}

static int ex_is_open(lua_State *L) {
  const lml_handle *h = lua_touserdata(L, 1);
  const mli_executor *ex = h->object ? mli_container(h->object, mli_executor, object) : NULL;
  lua_pushboolean(L, ex && !mli_future_settled(ex->ended) && !lml_executor_is_default(ex));
  return 1;
}

static int ex_eq(lua_State *L) {
  mli_object *a = lml_handle_test(L, 1, &mli_executor_type),
             *b = lml_handle_test(L, 2, &mli_executor_type);
  lua_pushboolean(L, a && a == b);
  return 1;
}

static int ex_tostring(lua_State *L) {
  mli_executor *ex = lml_executor_check(L, 1);
  lua_pushfstring(L, "executor: %p \"%s\" (%s)", (void *)ex, ex->name,
                  mli_future_settled(ex->ended) ? "ended"
                  : atomic_load(&ex->closing)   ? "closing"
                                                : "open");
  return 1;
}

static int ex_name(lua_State *L) {
  mli_executor *ex = lml_executor_check(L, 1);
  lua_pushstring(L, ex->name);
  return 1;
}

/* in_worker(): whether this state is an executor's. */
static int l_in_worker(lua_State *L) {
  lua_pushboolean(L, lml_upstate(L)->worker != NULL);
  return 1;
}

/* is_executor(v) */
static int l_is_executor(lua_State *L) {
  lua_pushboolean(L, lml_handle_test(L, 1, &mli_executor_type) != NULL);
  return 1;
}

/* executor_kind(executor or pin) */
static int ex_kind(lua_State *L) {
  const lml_pin *pin = lml_pin_test(L, 1);
  const mli_executor *ex = pin ? pin->executor : lml_executor_check(L, 1);
  lua_pushstring(L, ex->class->kind);
  return 1;
}

void lml_executor_open(lua_State *L) {
  static const luaL_Reg functions[] = {
    { "executor", l_executor },
    { "shutdown", l_shutdown },
    { "join", l_join },
    { "is_own", l_is_own },
    { "stats", l_stats },
    { "on_error", lml_on_error },
    { "executor_name", ex_name },
    { "executor_kind", ex_kind },
    { "in_worker", l_in_worker },
    { "is_executor", l_is_executor },
    { NULL, NULL },
  };
  static const luaL_Reg metamethods[] = { { "__gc", ex_gc },
                                          { "__eq", ex_eq },
                                          { "__is_open", ex_is_open },
                                          { "__tostring", ex_tostring },
                                          { NULL, NULL } };
  lml_setfuncs(L, functions);
  lml_processes_open(L);
  lml_submit_open(L);
  lml_executor_jobs_open(L);
  lml_default_executors_open(L);
  lua_newtable(L);
  lua_pushliteral(L, "executor");
  lua_setfield(L, -2, "__name");
  lml_setfuncs(L, metamethods);
  lml_handle_declare(L, &mli_executor_type);
  lua_setfield(L, -2, "executor_metatable"); /* the front door adds the methods */
  lml_report_open();
}
