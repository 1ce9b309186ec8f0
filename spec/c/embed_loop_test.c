/* Tests of executors without threads: driven in steps, and as guests of a libuv loop. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <moonloop.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>
#include "embed.h"

/* Jobs come from a state of ours, as code. */
static ml_future *submit(ml_executor *ex, const char *code) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  CHECK(luaL_loadstring(L, code) == LUA_OK);
  ml_future *f = NULL;
  if (!CHECK_EQ(ml_submit(ex, L, 0, NULL, &f), ML_OK)) printf("  %s\n", ml_last_error());
  lua_close(L);
  return f;
}

/* Timers, sockets, files' threads and other jobs, all on the loop. */
static const char busy[] =
  "local ml, tcp = require 'moonloop', require 'moonloop.tcp'\n"
  "local function read(peer)\n"
  "  local all = ''\n"
  "  while #all < 1000 do all = all .. assert(peer:read(1000 - #all, 20)) end\n"
  "  return all\n"
  "end\n"
  "local server = assert(tcp.listen('127.0.0.1', 0))\n"
  "local _, port = server:address()\n"
  "ml.spawn(function()\n"
  "  local peer = assert(server:accept(20))\n"
  "  for i = 1, 20 do assert(peer:write(assert(read(peer)))) end\n"
  "  peer:close()\n"
  "end)\n"
  "local peer = assert(tcp.connect('127.0.0.1', port))\n"
  "for i = 1, 20 do\n"
  "  assert(peer:write(('x'):rep(1000)))\n"
  "  assert(#assert(read(peer)) == 1000)\n"
  "  if i % 5 == 0 then ml.sleep(0.003) end\n"
  "end\n"
  "peer:close() server:close()\n"
  "assert(ml.get_event_loop().name == 'driven')\n"
  "return 'done'";

static const ml_executor_options base = { .size = sizeof base, .name = "driven" };

static ml_executor *make(bool driven, uv_loop_t *loop) {
  ml_executor_options o = base;
  o.driven = driven;
  o.uv_loop = loop;
  ml_executor *ex = NULL;
  if (!CHECK_EQ(ml_executor_new(&ex, &o), ML_OK)) {
    printf("  %s\n", ml_last_error());
    exit(check_report());
  }
  return ex;
}

/* ---- in steps ---- */

static void test_poll(void) {
  ml_executor *ex = make(true, NULL);
  ml_future *f = submit(ex, busy), *g = submit(ex, busy);
  int steps = 0;
  while (ml_future_peek(f) == ML_BUSY || ml_future_peek(g) == ML_BUSY) {
    struct pollfd fd = { .fd = ml_executor_fd(ex), .events = POLLIN };
    CHECK(fd.fd >= 0);
    int timeout = ml_executor_timeout(ex);
    if (!CHECK(poll(&fd, 1, timeout < 0 ? 20000 : timeout) > 0 || timeout >= 0)) break;
    CHECK_EQ(ml_executor_step(ex), ML_OK);
    if (!CHECK(++steps < 100000)) break;
  }
  if (!CHECK_EQ(ml_future_peek(f), ML_OK)) printf("  %s\n", ml_last_error());
  CHECK_EQ(ml_future_peek(g), ML_OK);
  ml_future_release(f);
  ml_future_release(g);

  /* The thread that drives it steps it while it waits. */
  f = submit(ex, busy);
  if (!CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK)) printf("  %s\n", ml_last_error());
  ml_future_release(f);
  f = submit(ex, "require 'moonloop'.sleep(1000)");
  CHECK_EQ(ml_future_wait(f, ml_after_ms(5)), ML_TIMEOUT);
  CHECK_EQ(ml_executor_shutdown(ex, false, ml_after_ms(5)), ML_TIMEOUT);
  CHECK_EQ(ml_executor_shutdown(ex, true, PATIENCE), ML_OK);
  CHECK_EQ(ml_future_peek(f), ML_JOB_CANCELLED);
  ml_future_release(f);
  CHECK_EQ(ml_executor_step(ex), ML_CLOSED);
  CHECK_EQ(ml_executor_fd(ex), -1);
  ml_executor_release(ex);
}

static void *elsewhere(void *user) {
  ml_executor *ex = user;
  CHECK_EQ(ml_executor_step(ex), ML_MISUSE);
  CHECK(says(ml_last_error(), "driven"));
  ml_future *f = submit(ex, busy);
  if (!CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK)) printf("  %s\n", ml_last_error());
  ml_future_release(f);
  /* A plugin state there waits for what this loop does. */
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  CHECK_EQ(ml_open(L, ex), ML_OK);
  if (!CHECK(luaL_dostring(L, "local ml = require 'moonloop'\n"
                              "assert(ml.run_async_job(function() ml.sleep(0.002) return 7 end)"
                              ":result(20) == 7)") == LUA_OK))
    printf("  %s\n", lua_tostring(L, -1));
  lua_close(L);
  CHECK_EQ(ml_executor_shutdown(ex, true, PATIENCE), ML_OK);
  return NULL;
}

static void drive(ml_executor *ex) {
  ml_status status;
  do {
    struct pollfd fd = { .fd = ml_executor_fd(ex), .events = POLLIN };
    poll(&fd, 1, ml_executor_timeout(ex));
  } while ((status = ml_executor_step(ex)) == ML_OK);
  CHECK_EQ(status, ML_CLOSED);
}

static void test_other_threads(void) {
  ml_executor *ex = make(true, NULL);
  /* On the thread that drives it a plain state must not wait: nobody would step. */
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  CHECK_EQ(ml_open(L, ex), ML_OK);
  CHECK(luaL_dostring(L, "require 'moonloop'.run_async_job(function() end):result()") != LUA_OK);
  CHECK(says(lua_tostring(L, -1), "drives a loop"));
  lua_close(L);
  pthread_t thread = check_thread(elsewhere, ex);
  drive(ex);
  pthread_join(thread, NULL);
  ml_executor_release(ex);
}

/* ---- as a guest ---- */

/* The last of them ends the executor, so that uv_run comes to an end. */
static int wanted;

static void on_done(ml_future *f, void *user) {
  if (!CHECK_EQ(ml_future_peek(f), ML_OK)) printf("  %s\n", ml_last_error());
  if (--wanted == 0) CHECK_EQ(ml_executor_shutdown(user, false, ML_FOREVER), ML_BUSY);
}

static void test_guest(void) {
  uv_loop_t loop;
  CHECK_EQ(uv_loop_init(&loop), 0);
  ml_executor *ex = make(false, &loop), *second = make(false, &loop);
  CHECK_EQ(ml_executor_step(ex), ML_MISUSE);
  ml_future *f = submit(ex, busy), *g = submit(ex, busy);
  wanted = 2;
  CHECK_EQ(ml_future_on_done(f, on_done, ex), ML_OK);
  CHECK_EQ(ml_future_on_done(g, on_done, ex), ML_OK);
  ml_future_release(f);
  ml_future_release(g);
  f = submit(second, busy);
  ml_future_release(f);
  ml_executor_release(second); /* not shut down: it ends after its job */
  CHECK_EQ(uv_run(&loop, UV_RUN_DEFAULT), 0);
  CHECK_EQ(wanted, 0);
  CHECK_EQ(ml_executor_shutdown(ex, true, PATIENCE), ML_OK);
  ml_executor_release(ex);
  CHECK_EQ(uv_loop_close(&loop), 0);
}

static void test_guest_and_threads(void) {
  uv_loop_t loop;
  CHECK_EQ(uv_loop_init(&loop), 0);
  ml_executor *ex = make(false, &loop);
  pthread_t thread = check_thread(elsewhere, ex); /* and shuts it down */
  CHECK_EQ(uv_run(&loop, UV_RUN_DEFAULT), 0);
  pthread_join(thread, NULL);
  ml_executor_release(ex);
  CHECK_EQ(uv_loop_close(&loop), 0);
}

static void test_misuse(void) {
  ml_executor *ex = NULL;
  ml_executor_options o = base;
  o.driven = true;
  o.loops = 2;
  CHECK_EQ(ml_executor_new(&ex, &o), ML_MISUSE);
  CHECK_EQ(ml_executor_step(NULL), ML_MISUSE);
  CHECK_EQ(ml_executor_fd(NULL), -1);
  CHECK_EQ(ml_executor_timeout(NULL), -1);
}

static void test_many(void) {
  int files = 0;
  uv_loop_t loop;
  CHECK_EQ(uv_loop_init(&loop), 0);
  for (int i = 0; i < CHECK_ROUNDS(300); i++) {
    ml_executor *ex = make(i % 2, i % 2 ? NULL : &loop);
    ml_future *f = submit(ex, "return 1");
    if (i % 3) CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK);
    ml_future_release(f);
    if (i % 5) CHECK_EQ(ml_executor_shutdown(ex, true, PATIENCE), ML_OK);
    ml_executor_release(ex);
    CHECK_EQ(uv_run(&loop, UV_RUN_DEFAULT), 0);
    if (i == 10) files = check_open_files();
  }
  CHECK_EQ(check_open_files(), files);
  CHECK_EQ(uv_loop_close(&loop), 0);
}

int main(void) {
  test_poll();
  test_other_threads();
  test_guest();
  test_guest_and_threads();
  test_misuse();
  test_many();
  return check_report();
}
