/* Tests of operations: C functions that wait, in jobs and in plain states alike. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <moonloop.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>
#include "embed.h"

/* ---- a library with operations of every kind ---- */

typedef enum how {
  AT_ONCE,      /* completed in `begin` */
  BY_THREAD,    /* by a thread of its own */
  BY_TIMER,     /* by a libuv timer on the loop */
  BY_TWO,       /* by two threads at once */
  NEVER,        /* and it has no cancel hook */
  UNTIL_CANCEL, /* its hook completes it */
  FAILS,
  TWICE,
  BROKEN, /* with a list that is not whole */
  PUSHES,
  PUSH_RAISES
} how;

typedef struct request {
  how how;
  double number;
  uv_timer_t timer;
  ml_op *op;
} request;

static atomic_int made, freed, cancelled, first;
static atomic_uintptr_t held; /* an operation that somebody has a reference of */

static void request_free(void *user) {
  atomic_fetch_add(&freed, 1);
  free(user);
}

static ml_values *one_number(double number) {
  ml_values *v = ml_values_new();
  ml_values_add_number(v, number);
  ml_values_open_table(v);
  ml_values_add_text(v, "item");
  ml_values_key(v, "key");
  ml_values_add_boolean(v, true);
  ml_values_close_table(v);
  return v;
}

static void *complete_later(void *argument) {
  ml_op *op = argument;
  usleep(2000);
  CHECK_EQ(ml_op_complete(op, one_number(2)), ML_OK);
  ml_op_release(op);
  return NULL;
}

static void *complete_first(void *argument) {
  ml_op *op = argument;
  ml_status status = ml_op_complete(op, one_number(4));
  if (status == ML_OK) atomic_fetch_add(&first, 1);
  CHECK(status == ML_OK || status == ML_MISUSE);
  ml_op_release(op);
  return NULL;
}

static void timer_closed(uv_handle_t *handle) {
  request *r = handle->data;
  ml_op *op = r->op;
  CHECK_EQ(ml_op_complete(op, one_number(3)), ML_OK);
  ml_op_release(op);
}

static void on_timer(uv_timer_t *timer) { uv_close((uv_handle_t *)timer, timer_closed); }

static void begin(ml_op *op, struct uv_loop_s *loop, void *user) {
  request *r = user;
  pthread_t thread;
  switch (r->how) {
  case AT_ONCE: CHECK_EQ(ml_op_complete(op, one_number(1)), ML_OK); break;
  case BY_THREAD:
    thread = check_thread(complete_later, ml_op_retain(op));
    pthread_detach(thread);
    break;
  case BY_TWO:
    for (int i = 0; i < 2; i++) {
      thread = check_thread(complete_first, ml_op_retain(op));
      pthread_detach(thread);
    }
    break;
  case BY_TIMER:
    r->op = ml_op_retain(op);
    CHECK_EQ(uv_timer_init(loop, &r->timer), 0);
    r->timer.data = r;
    uv_timer_start(&r->timer, on_timer, 2, 0);
    break;
  case NEVER:
  case UNTIL_CANCEL: atomic_store(&held, (uintptr_t)ml_op_retain(op)); break;
  case FAILS: CHECK_EQ(ml_op_fail(op, "ENODEV", "there is no such device"), ML_OK); break;
  case TWICE:
    CHECK_EQ(ml_op_complete(op, one_number(1)), ML_OK);
    CHECK_EQ(ml_op_complete(op, one_number(2)), ML_MISUSE);
    CHECK_EQ(ml_op_fail(op, NULL, NULL), ML_MISUSE);
    break;
  case BROKEN: {
    ml_values *v = one_number(1);
    ml_values_open_table(v);
    CHECK_EQ(ml_op_complete(op, v), ML_MISUSE);
    CHECK_EQ(ml_op_complete(op, NULL), ML_MISUSE);
    break;
  }
  case PUSHES:
  case PUSH_RAISES: CHECK_EQ(ml_op_complete(op, NULL), ML_OK); break;
  }
}

static void cancel(ml_op *op, void *user) {
  (void)user;
  atomic_fetch_add(&cancelled, 1);
  CHECK_EQ(ml_op_fail(op, "cancelled", NULL), ML_OK);
  ml_op_release(op);
}

static int push(ml_op *op, lua_State *L, void *user) {
  request *r = user;
  (void)op;
  if (r->how == PUSH_RAISES) return luaL_error(L, "cannot push");
  lua_pushliteral(L, "pushed");
  lua_pushnumber(L, r->number);
  return 2;
}

/* wait(how, number[, milliseconds]) */
static int l_wait(lua_State *L) {
  how h = (how)luaL_checkinteger(L, 1);
  const ml_op_class class = { ML_OP_CLASS,
                              .name = "test wait",
                              .begin = begin,
                              .cancel = h == UNTIL_CANCEL ? cancel : NULL,
                              .push = h >= PUSHES ? push : NULL,
                              .free = request_free };
  uint64_t deadline = lua_isnoneornil(L, 3) ? ML_FOREVER
                                            : ml_after_ms((uint64_t)lua_tointeger(L, 3));
  request *r = calloc(1, sizeof *r);
  if (!r) return luaL_error(L, "out of memory");
  r->how = h;
  r->number = lua_tonumber(L, 2);
  atomic_fetch_add(&made, 1);
  ml_op *op = ml_op_new(L, &class, r);
  return ml_await(L, op, deadline);
}

/* Wrong uses, each an error. */
static int l_wrong(lua_State *L) {
  const char *kind = luaL_checkstring(L, 1);
  const ml_op_class class = { ML_OP_CLASS, .begin = begin, .free = request_free };
  if (strcmp(kind, "null") == 0) return ml_await(L, NULL, ML_FOREVER);
  request *r = calloc(1, sizeof *r);
  atomic_fetch_add(&made, 1);
  if (strcmp(kind, "class") == 0) {
    const ml_op_class empty = { ML_OP_CLASS, .free = request_free };
    ml_op_new(L, &empty, r);
  }
  ml_op *op = ml_op_new(L, &class, r);
  if (strcmp(kind, "unused") == 0) return 0; /* never waited for: the collector frees it */
  if (strcmp(kind, "early") == 0) {          /* completed before it begins */
    CHECK_EQ(ml_op_complete(op, one_number(7)), ML_OK);
    return ml_await(L, op, ML_FOREVER);
  }
  int top = lua_gettop(L);
  CHECK_EQ(ml_await(L, op, ML_FOREVER), 2); /* in a plain state it comes back */
  lua_settop(L, top);
  return ml_await(L, op, ML_FOREVER);
}

static int load_library(lua_State *L) {
  lua_newtable(L);
  lua_pushcfunction(L, l_wait);
  lua_setfield(L, -2, "wait");
  lua_pushcfunction(L, l_wrong);
  lua_setfield(L, -2, "wrong");
  return 1;
}

static lua_State *new_state(void *user) {
  (void)user;
  return embed_state("library", load_library);
}

static ml_executor *make(void) {
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  o.new_state = new_state;
  ml_executor *ex = NULL;
  if (!CHECK_EQ(ml_executor_new(&ex, &o), ML_OK)) exit(check_report());
  return ex;
}

static void end(ml_executor *ex) {
  if (!CHECK_EQ(ml_executor_shutdown(ex, true, PATIENCE), ML_OK)) printf("  %s\n", ml_last_error());
  ml_executor_release(ex);
}

/* Lets go of the operation that a test left with us; completing it comes too late. */
static void drop_held(void) {
  ml_op *op = (ml_op *)atomic_exchange(&held, 0);
  if (!CHECK(op != NULL)) return;
  CHECK_EQ(ml_op_complete(op, one_number(9)), ML_CLOSED);
  CHECK(says(ml_last_error(), "nobody waits"));
  ml_op_release(op);
}

static const char script[] =
  "local wait = require 'library'.wait\n"
  "for how = 0, 3 do\n"
  "  local n, t = wait(how)\n"
  "  assert(n == how + 1 and t[1] == 'item' and t.key == true, n)\n"
  "end\n"
  "local ok, err = wait(6)\n"
  "assert(ok == nil and err.code == 'ENODEV' and tostring(err) == 'there is no such device')\n"
  "assert(wait(7) == 1)\n"
  "local ok, err = wait(8)\n"
  "assert(ok == nil and err.code == 'misuse', err)\n"
  "local a, b = wait(9, 12.5)\n"
  "assert(a == 'pushed' and b == 12.5)\n"
  "local ok, err = pcall(wait, 10)\n"
  "assert(not ok and err:find 'cannot push')\n"
  "local ok, err = wait(5, 0, 5)\n"
  "assert(ok == nil and err.code == 'timeout', err)\n"
  "local ok, err = wait(5, 0, 0)\n"
  "assert(ok == nil and err.code == 'timeout', err)\n";

/* The same in a job and in a plain state. */
static void test_everywhere(void) {
  ml_executor *ex = make();
  lua_State *L = new_state(NULL);
  CHECK_EQ(ml_open(L, ex), ML_OK);
  for (int i = 0; i < 5; i++) {
    if (!CHECK(luaL_dostring(L, script) == LUA_OK)) printf("  %s\n", lua_tostring(L, -1));
    ml_future *f;
    CHECK(luaL_loadstring(L, script) == LUA_OK);
    CHECK_EQ(ml_submit(ex, L, 0, NULL, &f), ML_OK);
    if (!CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK)) printf("  %s\n", ml_last_error());
    ml_future_release(f);
  }
  CHECK_EQ(atomic_load(&cancelled), 20);
  CHECK_EQ(atomic_load(&first), 10);
  lua_close(L);
  end(ex);
}

static void test_never(void) {
  ml_executor *ex = make();
  lua_State *L = new_state(NULL);
  CHECK_EQ(ml_open(L, ex), ML_OK);
  static const char never[] = "local ok, err = require 'library'.wait(4, 0, 5)\n"
                              "assert(ok == nil and err.code == 'timeout')";
  if (!CHECK(luaL_dostring(L, never) == LUA_OK)) printf("  %s\n", lua_tostring(L, -1));
  ml_op *gone = (ml_op *)atomic_load(&held);
  drop_held();
  ml_future *f;
  CHECK(luaL_loadstring(L, "require 'library'.wait(4)") == LUA_OK);
  CHECK_EQ(ml_submit(ex, L, 0, NULL, &f), ML_OK);
  while (!atomic_load(&held)) usleep(1000);
  CHECK_EQ(ml_future_cancel(f, NULL), ML_OK);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_JOB_CANCELLED);
  ml_future_release(f);
  drop_held();
  lua_close(L);
  end(ex);
#ifndef NDEBUG
  CHECK_EQ(ml_op_complete(gone, one_number(1)), ML_MISUSE); /* and it is said on stderr */
  CHECK(says(ml_last_error(), "an operation expected, got one that was released"));
  CHECK_EQ(ml_op_fail(gone, NULL, NULL), ML_MISUSE);
#else
  (void)gone;
#endif
}

/* ---- the loop ends under a plain state that waits ---- */

static void *waits(void *user) {
  lua_State *L = new_state(NULL);
  CHECK_EQ(ml_open(L, user), ML_OK);
  static const char text[] = "local ok, err = require 'library'.wait(4)\n"
                             "assert(ok == nil and err.code == 'closed', err)\n"
                             "local ok, err = require 'library'.wait(4)\n"
                             "assert(ok == nil and err.code == 'closed', err)";
  if (!CHECK(luaL_dostring(L, text) == LUA_OK)) printf("  %s\n", lua_tostring(L, -1));
  lua_close(L);
  return NULL;
}

static void test_loop_ends(void) {
  ml_executor *ex = make();
  pthread_t thread = check_thread(waits, ex);
  while (!atomic_load(&held)) usleep(1000);
  CHECK_EQ(ml_executor_shutdown(ex, true, PATIENCE), ML_OK);
  pthread_join(thread, NULL);
  drop_held();
  ml_executor_release(ex);
}

static void test_wrong(void) {
  ml_executor *ex = make();
  lua_State *L = new_state(NULL);
  CHECK_EQ(ml_op_complete(NULL, one_number(1)), ML_MISUSE);
  CHECK_EQ(ml_op_fail(NULL, NULL, NULL), ML_MISUSE);
  CHECK(ml_op_retain(NULL) == NULL);
  ml_op_release(NULL);
  /* A state without moonloop. */
  CHECK(luaL_dostring(L, "require 'library'.wait(0)") != LUA_OK);
  CHECK(says(lua_tostring(L, -1), "moonloop is not open"));
  CHECK_EQ(ml_open(L, ex), ML_OK);
  static const char *const cases[][2] = { { "null", "got NULL" },
                                          { "class", "`begin` expected" },
                                          { "again", "was waited for before" } };
  for (int i = 0; i < 3; i++) {
    lua_pushfstring(L, "require 'library'.wrong '%s'", cases[i][0]);
    CHECK(luaL_dostring(L, lua_tostring(L, -1)) != LUA_OK);
    CHECK(says(lua_tostring(L, -1), cases[i][1]));
  }
  CHECK(luaL_dostring(L, "require 'library'.wrong 'unused'") == LUA_OK);
  CHECK(luaL_dostring(L, "assert(require 'library'.wrong 'early' == 7)") == LUA_OK);
  /* Where nothing can wait, nothing begins. */
  CHECK(luaL_dostring(L, "local ml, wait = require 'moonloop', require 'library'.wait\n"
                         "ml.run_async_job(function()\n"
                         "  local ok, err = pcall(table.sort, {1, 2}, function() wait(0) end)\n"
                         "  assert(not ok and err:find 'table.sort', err)\n"
                         "end):result(20)") == LUA_OK);
  lua_close(L);
  end(ex);
}

int main(void) {
  test_everywhere();
  test_never();
  test_loop_ends();
  test_wrong();
  CHECK_EQ(atomic_load(&freed), atomic_load(&made));
  return check_report();
}
