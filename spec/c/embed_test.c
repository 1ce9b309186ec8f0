/* Tests of moonloop.h as a C program uses it: executors, jobs, futures, values, states. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <moonloop.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>
#include "embed.h"

/* ---- modules for the states of the executors: package.preload of a factory ---- */

static const char plugin_source[] =
  "local ml = require 'moonloop'\n"
  "local M = {}\n"
  "function M.echo(...) return ... end\n"
  "function M.sum(t) local s = 0; for _, v in ipairs(t.list) do s = s + v end\n"
  "  return { sum = s, label = t.label, [10] = true } end\n"
  "function M.fail(e) error(e, 0) end\n"
  "function M.fail_code() error(select(2, ml.scope(function() ml.sleep(5) end, {timeout=0}))) end\n"
  "function M.sleep(s) ml.sleep(s) return 'slept' end\n"
  "function M.hog() local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end end\n"
  "function M.queue_up() return ml.get_event_loop() == ml.get_event_loop() end\n"
  "function M.spawn_fail() ml.spawn(error, 'lost') ml.sleep(0.01) collectgarbage() end\n"
  "function M.init() M.ready = 'ready' end\n"
  "function M.bad_init() error('no plugin today', 0) end\n"
  "function M.is_ready() return M.ready end\n"
  "function M.again() return ml.run_async_job('plugin:echo', 'again'):result() end\n"
  "function M.spin(s) local enough = os.clock() + s while os.clock() < enough do ml.now() end end\n"
  "function M.others() return function() return 1 end, io.stdout, string.format, "
  "ml.promise().future, _G, ('y'):rep(300), ('y'):rep(300), 'end' end\n"
  "return M\n";

static int load_plugin(lua_State *L) {
  if (luaL_loadstring(L, plugin_source) != LUA_OK) return lua_error(L);
  lua_call(L, 0, 1);
  return 1;
}

static atomic_int states_made, states_closed;

static lua_State *new_state(void *user) {
  (void)user;
  lua_State *L = embed_state("plugin", load_plugin);
  if (!L) return NULL;
  atomic_fetch_add(&states_made, 1);
  return L;
}

static void close_state(lua_State *L, void *user) {
  (void)user;
  lua_close(L);
  atomic_fetch_add(&states_closed, 1);
}

static ml_executor *make(ml_executor_options *options) {
  ml_executor_options fresh = ML_EXECUTOR_OPTIONS;
  if (!options) options = &fresh;
  if (!options->new_state) {
    options->new_state = new_state;
    options->close_state = close_state;
  }
  ml_executor *ex = NULL;
  if (!CHECK_EQ(ml_executor_new(&ex, options), ML_OK)) {
    printf("  %s\n", ml_last_error());
    exit(check_report());
  }
  return ex;
}

static void end(ml_executor *ex) {
  if (!CHECK_EQ(ml_executor_shutdown(ex, true, PATIENCE), ML_OK)) printf("  %s\n", ml_last_error());
  ml_executor_release(ex);
}

static ml_values *one_text(const char *text) {
  ml_values *v = ml_values_new();
  ml_values_add_text(v, text);
  return v;
}

static ml_future *call(ml_executor *ex, const char *function, ml_values *arguments) {
  ml_future *f = NULL;
  if (!CHECK_EQ(ml_submit_call(ex, function, arguments, NULL, &f), ML_OK))
    printf("  %s\n", ml_last_error());
  return f;
}

/* ---- values ---- */

static void test_values(void) {
  ml_values *v = ml_values_new();
  ml_values_add_nil(v);
  ml_values_add_boolean(v, true);
  ml_values_add_integer(v, -5);
  ml_values_add_number(v, 2.5);
  ml_values_add_string(v, "a\0b", 3);
  ml_values_add_pointer(v, v);
  ml_values_open_table(v);
  ml_values_add_text(v, "first");
  ml_values_key(v, "inner");
  ml_values_open_table(v);
  ml_values_key_integer(v, 7);
  ml_values_add_text(v, "seven");
  ml_values_close_table(v);
  ml_values_close_table(v);
  CHECK_EQ(ml_values_status(v), ML_OK);
  CHECK_EQ(ml_values_count(v), 7);
  size_t size;
  CHECK(memcmp(ml_value_string(ml_values_at(v, 4), &size), "a\0b", 4) == 0 && size == 3);
  CHECK(ml_value_pointer(ml_values_at(v, 5)) == v);
  const ml_value *t = ml_values_at(v, 6), *key;
  CHECK_EQ(ml_value_type(t), ML_TABLE);
  CHECK_EQ(ml_value_length(t), 1);
  CHECK(strcmp(ml_value_string(ml_value_item(t, 0), NULL), "first") == 0);
  const ml_value *inner = ml_value_field(t, "inner");
  CHECK_EQ(ml_value_pairs(inner), 1);
  CHECK(strcmp(ml_value_string(ml_value_pair(inner, 0, &key), NULL), "seven") == 0);
  CHECK_EQ(ml_value_integer(key), 7);
  /* What is not there. */
  CHECK(ml_values_at(v, 7) == NULL);
  CHECK_EQ(ml_value_type(NULL), ML_NONE);
  CHECK(ml_value_string(t, NULL) == NULL && ml_value_field(t, "none") == NULL);
  CHECK(ml_value_item(t, 1) == NULL && ml_value_pair(t, 9, NULL) == NULL);
  CHECK_EQ(ml_value_integer(ml_values_at(v, 3)), 0);
  CHECK(!ml_value_boolean(ml_values_at(v, 0)) && ml_value_boolean(ml_values_at(v, 2)));
  ml_values_free(v);
}

static void test_values_misuse(void) {
  ml_values_add_nil(NULL);
  ml_values_add_text(NULL, "x");
  ml_values_open_table(NULL);
  ml_values_close_table(NULL);
  ml_values_key(NULL, "x");
  ml_values_free(NULL);
  CHECK_EQ(ml_values_count(NULL), 0);
  CHECK_EQ(ml_values_status(NULL), ML_MISUSE);
  struct {
    void (*wrong)(ml_values *v, const char *text);
  } cases[] = { { ml_values_key }, { ml_values_add_text } };
  for (size_t i = 0; i < 2; i++) {
    ml_values *v = ml_values_new();
    cases[i].wrong(v, i == 0 ? "a key outside of a table" : NULL);
    CHECK_EQ(ml_values_status(v), ML_MISUSE);
    ml_values_add_integer(v, 1);
    CHECK_EQ(ml_values_status(v), ML_MISUSE);
    ml_values_free(v);
  }
  ml_values *v = ml_values_new();
  ml_values_close_table(v);
  CHECK_EQ(ml_values_status(v), ML_MISUSE);
  ml_values_free(v);
  v = ml_values_new();
  ml_values_open_table(v);
  CHECK_EQ(ml_values_status(v), ML_MISUSE);
  CHECK(says(ml_last_error(), "open"));
  for (int i = 0; i < 2000; i++) ml_values_open_table(v);
  CHECK_EQ(ml_values_status(v), ML_MISUSE);
  ml_values_free(v);
}

/* ---- jobs by name ---- */

static void test_call(void) {
  ml_executor *ex = make(NULL);
  ml_values *v = ml_values_new();
  ml_values_open_table(v);
  ml_values_key(v, "label");
  ml_values_add_text(v, "numbers");
  ml_values_key(v, "list");
  ml_values_open_table(v);
  for (int i = 1; i <= 100; i++) ml_values_add_integer(v, i);
  ml_values_close_table(v);
  ml_values_close_table(v);
  ml_future *f = call(ex, "plugin:sum", v);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK);
  CHECK_EQ(ml_future_peek(f), ML_OK);
  CHECK(ml_future_error(f) == NULL && ml_future_code(f) == NULL);
  CHECK(says(ml_future_name(f), "plugin:sum"));
  ml_values *results;
  CHECK_EQ(ml_future_values(f, &results), ML_OK);
  const ml_value *t = ml_values_at(results, 0);
  CHECK_EQ(ml_value_integer(ml_value_field(t, "sum")), 5050);
  CHECK(says(ml_value_string(ml_value_field(t, "label"), NULL), "numbers"));
  ml_values_free(results);
  ml_future_release(f);

  f = call(ex, "plugin:echo", NULL);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK);
  CHECK_EQ(ml_future_values(f, &results), ML_OK);
  CHECK_EQ(ml_values_count(results), 0);
  ml_values_free(results);
  ml_future_release(f);

  /* What C cannot read is passed over; the rest is there. */
  f = call(ex, "plugin:others", NULL);
  if (!CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK)) printf("  %s\n", ml_last_error());
  CHECK_EQ(ml_future_values(f, &results), ML_OK);
  CHECK_EQ(ml_values_count(results), 8);
  for (size_t i = 0; i < 5; i++) CHECK_EQ(ml_value_type(ml_values_at(results, i)), ML_OTHER);
  size_t size;
  CHECK(ml_value_string(ml_values_at(results, 5), &size) && size == 300);
  CHECK(ml_value_string(ml_values_at(results, 6), &size) && size == 300);
  CHECK(says(ml_value_string(ml_values_at(results, 7), NULL), "end"));
  ml_values_free(results);
  ml_future_release(f);

  /* A job on this executor submits to this executor. */
  f = call(ex, "plugin:again", NULL);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK);
  ml_future_release(f);
  end(ex);
}

static void test_failures(void) {
  ml_executor *ex = make(NULL);
  ml_future *f = call(ex, "plugin:fail", one_text("broken plugin"));
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_FAILED);
  CHECK(says(ml_last_error(), "broken plugin"));
  CHECK(strcmp(ml_future_error(f), "broken plugin") == 0);
  CHECK(strcmp(ml_future_code(f), "failed") == 0);
  CHECK(says(ml_future_traceback(f), "plugin:fail"));
  ml_future_release(f);

  f = call(ex, "plugin:fail_code", NULL);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_FAILED);
  CHECK(says(ml_future_code(f), "timeout"));
  ml_future_release(f);

  f = call(ex, "nowhere:nothing", NULL);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_FAILED);
  CHECK(says(ml_future_error(f), "nowhere"));
  ml_future_release(f);

  f = call(ex, "plugin:nothing", NULL);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_FAILED);
  CHECK(says(ml_future_error(f), "nothing"));
  ml_future_release(f);
  end(ex);
}

static void test_cancel_and_time(void) {
  ml_executor *ex = make(NULL);
  ml_values *v = ml_values_new();
  ml_values_add_integer(v, 1000);
  ml_future *f = call(ex, "plugin:sleep", v);
  CHECK_EQ(ml_future_wait(f, 0), ML_TIMEOUT);
  CHECK_EQ(ml_future_peek(f), ML_BUSY);
  CHECK_EQ(ml_future_wait(f, ml_after_ms(5)), ML_TIMEOUT);
  ml_values *results;
  CHECK_EQ(ml_future_values(f, &results), ML_BUSY);
  CHECK_EQ(ml_future_cancel(f, "no longer needed"), ML_OK);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_JOB_CANCELLED);
  CHECK(says(ml_future_code(f), "job_cancelled"));
  CHECK(says(ml_future_error(f), "the job was cancelled: no longer needed"));
  CHECK_EQ(ml_future_cancel(f, NULL), ML_CLOSED);
  ml_future_release(f);

  ml_job_options o = ML_JOB_OPTIONS;
  o.name = "slow plugin";
  o.timeout = 10000000;
  v = ml_values_new();
  ml_values_add_integer(v, 1000);
  CHECK_EQ(ml_submit_call(ex, "plugin:sleep", v, &o, &f), ML_OK);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_FAILED);
  CHECK(says(ml_future_name(f), "slow plugin"));
  CHECK(says(ml_future_code(f), "timeout"));
  ml_future_release(f);
  end(ex);
}

/* ---- callbacks ---- */

static atomic_int called;

static void on_done(ml_future *f, void *user) {
  CHECK_EQ(ml_future_peek(f), ML_OK);
  CHECK_EQ(ml_future_wait(f, ML_FOREVER), ML_OK); /* it is settled */
  ml_future *other = user;
  if (other) {
    ml_status status = ml_future_wait(other, ML_FOREVER);
    CHECK_EQ(status, ML_BUSY);
    CHECK_EQ(ml_future_cancel(other, NULL), ML_OK);
  }
  atomic_fetch_add(&called, 1);
}

static void test_callbacks(void) {
  ml_executor *ex = make(NULL);
  ml_values *v = ml_values_new(), *w = ml_values_new();
  ml_values_add_number(v, 0.02);
  ml_values_add_number(w, 1000);
  ml_future *f = call(ex, "plugin:sleep", v), *other = call(ex, "plugin:sleep", w);
  CHECK_EQ(ml_future_on_done(f, on_done, other), ML_OK);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK);
  CHECK_EQ(ml_future_wait(other, PATIENCE), ML_JOB_CANCELLED);
  CHECK_EQ(atomic_load(&called), 1);
  CHECK_EQ(ml_future_on_done(f, on_done, NULL), ML_OK);
  CHECK_EQ(atomic_load(&called), 2);
  ml_future_release(f);
  ml_future_release(other);
  end(ex);
}

/* ---- a C function on a loop ---- */

static ml_status on_loop(struct uv_loop_s *loop, ml_values *results, void *user) {
  ml_executor *ex = user;
  CHECK(loop != NULL);
  CHECK_EQ(ml_executor_shutdown(ex, false, 0), ML_BUSY);
  ml_values_add_text(results, "from the loop");
  return ML_OK;
}

static ml_status fails(struct uv_loop_s *loop, ml_values *results, void *user) {
  (void)loop, (void)user;
  ml_values_add_text(results, "no such device");
  return ML_SYSTEM;
}

static void test_c_functions(void) {
  ml_executor *ex = make(NULL);
  ml_future *f;
  CHECK_EQ(ml_submit_c(ex, fails, NULL, &f), ML_OK);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_FAILED);
  CHECK(says(ml_future_error(f), "no such device"));
  CHECK(says(ml_future_code(f), "system"));
  ml_future_release(f);
  CHECK_EQ(ml_submit_c(ex, on_loop, ex, &f), ML_OK);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK);
  ml_values *results;
  CHECK_EQ(ml_future_values(f, &results), ML_OK);
  CHECK(says(ml_value_string(ml_values_at(results, 0), NULL), "from the loop"));
  ml_values_free(results);
  ml_future_release(f);
  end(ex);
}

/* ---- states of the host ---- */

static void run(lua_State *L, const char *script) {
  if (!CHECK(luaL_dostring(L, script) == LUA_OK)) printf("  %s\n", lua_tostring(L, -1));
  lua_settop(L, 0);
}

static void *plugin_thread(void *user) {
  ml_executor *ex = user;
  lua_State *L = new_state(NULL);
  CHECK_EQ(ml_open(L, ex), ML_OK);
  CHECK(lua_istable(L, -1));
  lua_pop(L, 1);
  run(L, "local ml = require 'moonloop'\n"
         "assert(ml.get_event_loop().name == 'plugins')\n"
         "local f = ml.run_async_job(function(x) ml.sleep(0.001) return x * 2 end, 21)\n"
         "assert(f:result(20) == 42)\n"
         "local t = ml.gather { ml.run_async_job(ml.sleep, 0.01), ml.run_async_job(ml.sleep, 0) }\n"
         "assert(#t == 0)");
  lua_close(L);
  return NULL;
}

static void test_plugin_states(void) {
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  o.name = "plugins";
  o.loops = 2;
  ml_executor *ex = make(&o);
  pthread_t threads[8];
  for (int i = 0; i < 8; i++) threads[i] = check_thread(plugin_thread, ex);
  for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);

  /* Two executors, two states on one thread: each has its own. */
  ml_executor_options p = ML_EXECUTOR_OPTIONS;
  p.name = "second";
  ml_executor *second = make(&p);
  lua_State *L = new_state(NULL), *M = new_state(NULL);
  CHECK_EQ(ml_open(L, ex), ML_OK);
  CHECK_EQ(ml_open(M, second), ML_OK);
  run(L, "assert(require'moonloop'.get_event_loop().name == 'plugins')");
  run(M, "assert(require'moonloop'.get_event_loop().name == 'second')");
  CHECK_EQ(ml_open(M, ex), ML_OK);
  run(M, "local ml = require 'moonloop'\n"
         "assert(ml.get_event_loop().name == 'plugins')\n"
         "local own = ml.AsyncExecutor{ name = 'own' }\n"
         "assert(ml.set_event_loop(own).name == 'plugins')\n"
         "assert(ml.get_event_loop() == own)");
  run(L, "assert(require'moonloop'.get_event_loop().name == 'plugins')");

  /* A function and values on the stack. */
  ml_future *f;
  lua_settop(L, 0);
  lua_pushliteral(L, "below");
  lua_pushliteral(L, "plugin.echo");
  CHECK_EQ(ml_submit(ex, L, 0, NULL, &f), ML_MISUSE);
  CHECK(says(ml_last_error(), "\"module:function\" expected, got \"plugin.echo\""));
  CHECK(luaL_loadstring(L, "local a, b = ... return b, a, { a = a }") == LUA_OK);
  lua_pushinteger(L, 1);
  lua_pushliteral(L, "two");
  CHECK_EQ(ml_submit(ex, L, 2, NULL, &f), ML_OK);
  CHECK_EQ(lua_gettop(L), 1);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK);
  int n = 0;
  CHECK_EQ(ml_future_push(f, M, &n), ML_OK);
  CHECK_EQ(n, 3);
  CHECK(lua_tointeger(M, -2) == 1 && says(lua_tostring(M, -3), "two"));
  CHECK_EQ(ml_future_push_handle(f, M), ML_OK);
  lua_setglobal(M, "f");
  run(M, "assert(select('#', f:result()) == 3)");
  lua_getglobal(M, "f");
  ml_future *same = NULL;
  CHECK_EQ(ml_future_from(M, -1, &same), ML_OK);
  CHECK_EQ(ml_future_peek(same), ML_OK);
  ml_future_release(same);
  lua_pushinteger(M, 1);
  CHECK_EQ(ml_future_from(M, -1, &same), ML_MISUSE);
  ml_future_release(f);

  /* What does not cross, and what is no job. */
  CHECK(luaL_loadstring(L, "return ...") == LUA_OK);
  lua_newthread(L);
  CHECK_EQ(ml_submit(ex, L, 1, NULL, &f), ML_CROSSING);
  CHECK(says(ml_last_error(), "argument 1: a coroutine cannot cross states"));
  lua_pushboolean(L, 1);
  CHECK_EQ(ml_submit(ex, L, 0, NULL, &f), ML_MISUSE);
  CHECK_EQ(lua_gettop(L), 1);

  /* An error goes into a state as it is. */
  f = call(ex, "plugin:fail", one_text("as it was"));
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_FAILED);
  CHECK_EQ(ml_future_push(f, L, &n), ML_FAILED);
  CHECK_EQ(n, 1);
  CHECK(strcmp(lua_tostring(L, -1), "as it was") == 0);
  ml_future_release(f);
  lua_close(L);
  lua_close(M);
  end(second);
  end(ex);
}

/* ---- options ---- */

static char logged[512];
static pthread_mutex_t logged_mutex = PTHREAD_MUTEX_INITIALIZER;
static atomic_int reports;

static void on_error(const ml_report *report, void *user) {
  (void)user;
  pthread_mutex_lock(&logged_mutex);
  snprintf(logged, sizeof logged, "%s %s %s", report->kind, report->name ? report->name : "-",
           report->error);
  pthread_mutex_unlock(&logged_mutex);
  atomic_fetch_add(&reports, 1);
}

static void on_log(const char *text, void *user) {
  (void)user;
  pthread_mutex_lock(&logged_mutex);
  snprintf(logged, sizeof logged, "%s", text);
  pthread_mutex_unlock(&logged_mutex);
}

static bool log_says(const char *part) {
  pthread_mutex_lock(&logged_mutex);
  bool found = says(logged, part);
  pthread_mutex_unlock(&logged_mutex);
  return found;
}

static lua_State *no_state(void *user) {
  (void)user;
  return NULL;
}

static void test_handlers(void) {
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  o.on_error = on_error;
  o.on_log = on_log;
  ml_executor *ex = make(&o);
  ml_future *f = call(ex, "plugin:fail", one_text("nobody asks"));
  while (atomic_load(&reports) == 0) { /* dropped before it fails, or after */
    ml_future_release(f);
    f = NULL;
    usleep(1000);
  }
  CHECK(log_says("nobody asks"));
  CHECK(log_says("plugin:fail"));
  f = call(ex, "plugin:spawn_fail", NULL);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK);
  ml_future_release(f);
  end(ex);
  CHECK_EQ(atomic_load(&reports), 2);
  CHECK(log_says("lost"));

  o.new_state = no_state;
  ex = make(&o);
  f = call(ex, "plugin:echo", NULL);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_MEMORY);
  CHECK(log_says("could not be made"));
  ml_future_release(f);
  end(ex);
}

/* A job in the way of a shutdown is named with its line. */
static void test_in_the_way(void) {
  ml_executor *ex = make(NULL);
  ml_values *seconds = ml_values_new();
  ml_values_add_number(seconds, 1);
  ml_future *f = call(ex, "plugin:spin", seconds);
  bool named = false;
  while (!named && ml_executor_shutdown(ex, false, ml_after_ms(20)) == ML_TIMEOUT)
    named = strstr(ml_last_error(), "job 'plugin:spin' runs at [string") != NULL;
  CHECK(named);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK);
  ml_future_release(f);
  end(ex);
}

static void test_init(void) {
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  o.init = "plugin:init";
  ml_executor *ex = make(&o);
  ml_future *f = call(ex, "plugin:is_ready", NULL);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK);
  ml_values *v;
  CHECK_EQ(ml_future_values(f, &v), ML_OK);
  CHECK(says(ml_value_string(ml_values_at(v, 0), NULL), "ready"));
  ml_values_free(v);
  ml_future_release(f);
  end(ex);
  o.init = "plugin:bad_init";
  ex = make(&o);
  f = call(ex, "plugin:is_ready", NULL);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_FAILED);
  CHECK(says(ml_future_error(f), "no plugin today"));
  ml_future_release(f);
  end(ex);
}

static void test_workers_and_bounds(void) {
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  o.workers = 2;
  o.max_pending = 1;
  ml_executor *ex = make(&o);
  ml_values *v = ml_values_new();
  ml_values_add_number(v, 0.05);
  ml_future *f = call(ex, "plugin:sleep", v), *g;
  CHECK_EQ(ml_submit_call(ex, "plugin:echo", NULL, NULL, &g), ML_BUSY);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK);
  ml_future_release(f);
  CHECK_EQ(ml_submit_c(ex, fails, NULL, &g), ML_MISUSE);
  lua_State *L = new_state(NULL);
  CHECK_EQ(ml_open(L, ex), ML_MISUSE);
  lua_close(L);
  ml_stats stats = { .size = sizeof stats };
  CHECK_EQ(ml_executor_stats(ex, &stats), ML_OK);
  CHECK_EQ(stats.submitted, 1);
  CHECK_EQ(stats.finished, 1);
  CHECK_EQ(stats.threads, 1);
  end(ex);
}

static void *counting_alloc(void *user, void *block, size_t old_size, size_t size) {
  atomic_llong *used = user;
  atomic_fetch_add(used, (long long)size - (long long)old_size);
  if (size > 0) return realloc(block, size);
  free(block);
  return NULL;
}

/* The states are our own here, so the module comes as code. */
static void test_memory(void) {
  static const char hog[] = "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end";
  atomic_llong used = 0;
  for (int allocator = 0; allocator < 2; allocator++) {
    ml_executor_options o = ML_EXECUTOR_OPTIONS;
    o.memory_limit = 8 << 20;
    if (allocator) {
      o.alloc = counting_alloc;
      o.user = &used;
    }
    ml_executor *ex = NULL;
    CHECK_EQ(ml_executor_new(&ex, &o), ML_OK);
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    ml_job_options job = ML_JOB_OPTIONS;
    job.name = "greedy plugin";
    ml_future *f;
    for (int i = 0; i < 3; i++) { /* the state goes on */
      CHECK(luaL_loadstring(L, hog) == LUA_OK);
      CHECK_EQ(ml_submit(ex, L, 0, &job, &f), ML_OK);
      CHECK_EQ(ml_future_wait(f, PATIENCE), ML_FAILED);
      CHECK(says(ml_last_error(), "greedy plugin"));
      CHECK(says(ml_future_error(f), "not enough memory"));
      ml_future_release(f);
      CHECK(luaL_loadstring(L, "return 1") == LUA_OK);
      CHECK_EQ(ml_submit(ex, L, 0, NULL, &f), ML_OK);
      CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK);
      ml_future_release(f);
    }
    if (allocator) CHECK(atomic_load(&used) > 0 && atomic_load(&used) <= 8 << 20);
    lua_close(L);
    end(ex);
  }
  CHECK_EQ(atomic_load(&used), 0);
}

/* ---- misuse ---- */

/* Of one thread or of none; its job only waits. */
static void test_shutdown_names_what_is_left(bool driven) {
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  o.driven = driven;
  ml_executor *ex = make(&o);
  ml_job_options job = ML_JOB_OPTIONS;
  job.name = "sleeper";
  ml_values *v = ml_values_new();
  ml_values_add_integer(v, 1000);
  ml_future *f;
  CHECK_EQ(ml_submit_call(ex, "plugin:sleep", v, &job, &f), ML_OK);
  CHECK_EQ(ml_future_wait(f, ml_after_ms(1)), ML_TIMEOUT);
  CHECK_EQ(ml_executor_shutdown(ex, false, ml_after_ms(1)), ML_TIMEOUT);
  CHECK(says(ml_last_error(), "did not stop: job 'sleeper' "));
  CHECK_EQ(ml_submit_c(ex, fails, NULL, NULL), ML_CLOSED);
  end(ex);
  CHECK_EQ(ml_future_peek(f), ML_JOB_CANCELLED);
  ml_future_release(f);
}

static void test_misuse(void) {
  ml_executor *ex = NULL;
  ml_future *f = NULL;
  ml_values *v;
  int n;
  lua_State *L = luaL_newstate();
  CHECK_EQ(ml_executor_new(NULL, NULL), ML_MISUSE);
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  o.size = 3;
  CHECK_EQ(ml_executor_new(&ex, &o), ML_MISUSE);
  CHECK(says(ml_last_error(), "ML_EXECUTOR_OPTIONS"));
  o.size = sizeof o + 8;
  CHECK_EQ(ml_executor_new(&ex, &o), ML_MISUSE);
  o = (ml_executor_options)ML_EXECUTOR_OPTIONS;
  o.loops = o.workers = 1;
  CHECK_EQ(ml_executor_new(&ex, &o), ML_MISUSE);
  o.workers = 0;
  o.loops = 1000000;
  CHECK_EQ(ml_executor_new(&ex, &o), ML_MISUSE);
  o.loops = 1;
  o.init = "no function";
  CHECK_EQ(ml_executor_new(&ex, &o), ML_MISUSE);
  CHECK(ex == NULL);

  CHECK_EQ(ml_executor_shutdown(NULL, true, 0), ML_MISUSE);
  CHECK_EQ(ml_executor_stats(NULL, NULL), ML_MISUSE);
  CHECK(ml_executor_retain(NULL) == NULL);
  ml_executor_release(NULL);
  CHECK_EQ(ml_submit(NULL, NULL, 0, NULL, &f), ML_MISUSE);
  CHECK_EQ(ml_submit(NULL, L, 0, NULL, &f), ML_MISUSE);
  CHECK_EQ(ml_submit_call(NULL, "a:b", ml_values_new(), NULL, &f), ML_MISUSE);
  CHECK_EQ(ml_submit_c(NULL, fails, NULL, &f), ML_MISUSE);
  CHECK_EQ(ml_open(NULL, NULL), ML_MISUSE);
  CHECK(ml_future_retain(NULL) == NULL);
  ml_future_release(NULL);
  CHECK_EQ(ml_future_peek(NULL), ML_MISUSE);
  CHECK(says(ml_last_error(), "ml_future_peek: a future expected, got NULL"));
  CHECK_EQ(ml_future_wait(NULL, 0), ML_MISUSE);
  CHECK_EQ(ml_future_cancel(NULL, NULL), ML_MISUSE);
  CHECK_EQ(ml_future_on_done(NULL, on_done, NULL), ML_MISUSE);
  CHECK_EQ(ml_future_values(NULL, &v), ML_MISUSE);
  CHECK_EQ(ml_future_push(NULL, L, &n), ML_MISUSE);
  CHECK_EQ(ml_future_push_handle(NULL, L), ML_MISUSE);
  CHECK_EQ(ml_future_from(NULL, 1, &f), ML_MISUSE);
  CHECK_EQ(ml_open(L, NULL), ML_MISUSE); /* it has no libraries */
  CHECK(says(ml_last_error(), "cannot be opened in this Lua state"));
  CHECK_EQ(lua_gettop(L), 0);
  CHECK(ml_future_error(NULL) == NULL && ml_future_code(NULL) == NULL);
  CHECK(ml_future_traceback(NULL) == NULL && ml_future_name(NULL)[0] == '\0');

  ex = make(NULL);
  CHECK_EQ(ml_submit_call(ex, "no colon", NULL, NULL, &f), ML_MISUSE);
  CHECK_EQ(ml_submit_call(ex, NULL, NULL, NULL, &f), ML_MISUSE);
  CHECK_EQ(ml_submit_c(ex, NULL, NULL, &f), ML_MISUSE);
  CHECK_EQ(ml_submit(ex, L, 5, NULL, &f), ML_MISUSE);
  CHECK_EQ(ml_executor_stats(ex, NULL), ML_MISUSE);
  ml_values *open = ml_values_new();
  ml_values_open_table(open);
  CHECK_EQ(ml_submit_call(ex, "plugin:echo", open, NULL, &f), ML_MISUSE);
  ml_job_options job = { 1, NULL, 0 };
  CHECK_EQ(ml_submit_call(ex, "plugin:echo", NULL, &job, &f), ML_MISUSE);
  CHECK_EQ(ml_future_peek((ml_future *)(void *)ex), ML_MISUSE);
  CHECK(says(ml_last_error(), "something else"));

  f = call(ex, "plugin:echo", NULL);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK);
  CHECK_EQ(ml_future_values(f, NULL), ML_MISUSE);
  CHECK_EQ(ml_future_push(f, NULL, NULL), ML_MISUSE);
  CHECK_EQ(ml_future_on_done(f, NULL, NULL), ML_MISUSE);
  ml_future_release(f);
#ifndef NDEBUG
  CHECK_EQ(ml_future_peek(f), ML_MISUSE);
  CHECK(says(ml_last_error(), "released"));
#endif
  CHECK_EQ(ml_executor_shutdown(ex, false, PATIENCE), ML_OK);
  CHECK_EQ(ml_submit_call(ex, "plugin:echo", NULL, NULL, &f), ML_CLOSED);
  CHECK_EQ(ml_submit_c(ex, fails, NULL, &f), ML_CLOSED);
  CHECK(luaL_loadstring(L, "return 1") == LUA_OK);
  CHECK_EQ(ml_submit(ex, L, 0, NULL, &f), ML_CLOSED);
  CHECK_EQ(lua_gettop(L), 0);
  CHECK_EQ(ml_executor_shutdown(ex, true, 0), ML_OK);
  lua_close(L);
  ml_executor_release(ex);
  CHECK_EQ(ml_abi(), ML_ABI);
  CHECK(strcmp(ml_version(), ML_VERSION) == 0);
}

/* ---- many of them ---- */

static void test_thousand(void) {
  int files = 0;
  for (int i = 0; i < CHECK_ROUNDS(1000); i++) {
    ml_executor *ex = make(NULL);
    ml_future *f = call(ex, "plugin:echo", i % 2 ? one_text("x") : NULL);
    if (i % 3 == 0) CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK);
    ml_future_release(f);
    end(ex);
    if (i == 10) files = check_open_files();
  }
  CHECK_EQ(check_open_files(), files);
  CHECK_EQ(atomic_load(&states_closed) <= atomic_load(&states_made), true);
}

int main(void) {
  test_values();
  test_values_misuse();
  test_call();
  test_failures();
  test_cancel_and_time();
  test_shutdown_names_what_is_left(false);
  test_shutdown_names_what_is_left(true);
  test_callbacks();
  test_c_functions();
  test_plugin_states();
  test_handlers();
  test_in_the_way();
  test_init();
  test_workers_and_bounds();
  test_memory();
  test_misuse();
  test_thousand();
  return check_report();
}
