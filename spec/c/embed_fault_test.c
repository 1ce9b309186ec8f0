/* Tests of moonloop.h with bad plugins and bad hosts: what holds a loop up, what never ends,
** what is freed, closed or on another thread, callbacks that call back in. */
#include <lauxlib.h>
#include <limits.h>
#include <lua.h>
#include <lualib.h>
#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>
#include "embed.h"

/* ---- plugins that do as they are told ---- */

static atomic_bool released; /* what a plugin spins for */
static atomic_bool blocking; /* a plugin is inside a C function, and blocks */
static sem_t gate;           /* for this */

static int l_is_released(lua_State *L) {
#ifdef __SANITIZE_THREAD__
  usleep(1); /* its signals come to a thread that calls into libc, and not before */
#endif
  lua_pushboolean(L, atomic_load(&released));
  return 1;
}

static int l_block(lua_State *L) {
  (void)L;
  atomic_store(&blocking, true);
  while (sem_wait(&gate) != 0) continue;
  atomic_store(&blocking, false);
  return 0;
}

static _Atomic(lua_State *) last_state; /* of the executor that was made last */

static int load_faults(lua_State *L) {
  static const char source[] =
    "local is_released, block = ...\n"
    "local M = { block = block, echo = function(...) return ... end }\n"
    "function M.spin() while not is_released() do end return 'over' end\n"
    "function M.forever() while true do end end\n"
    "function M.wait() require 'moonloop'.sleep(0.01) end\n"
    "function M.fail() error('a fault', 0) end\n"
    "return M";
  if (luaL_loadstring(L, source) != LUA_OK) return lua_error(L);
  lua_pushcfunction(L, l_is_released);
  lua_pushcfunction(L, l_block);
  lua_call(L, 2, 1);
  return 1;
}

static lua_State *new_state(void *user) {
  (void)user;
  lua_State *L = embed_state("faults", load_faults);
  if (!L) return NULL;
  atomic_store(&last_state, L);
  return L;
}

static atomic_int closed_states;

static void close_state(lua_State *L, void *user) {
  (void)user;
  lua_close(L);
  atomic_fetch_add(&closed_states, 1);
}

static ml_executor *make(const ml_executor_options *options) {
  ml_executor_options o = *options;
  o.new_state = new_state;
  o.close_state = close_state;
  ml_executor *ex = NULL;
  if (!CHECK_EQ(ml_executor_new(&ex, &o), ML_OK)) exit(check_report());
  return ex;
}

static void end(ml_executor *ex) {
  if (!CHECK_EQ(ml_executor_shutdown(ex, true, PATIENCE), ML_OK)) printf("  %s\n", ml_last_error());
  ml_executor_release(ex);
}

static ml_future *call(ml_executor *ex, const char *function, const char *name) {
  ml_future *f = NULL;
  ml_job_options o = ML_JOB_OPTIONS;
  o.name = name;
  if (!CHECK_EQ(ml_submit_call(ex, function, NULL, &o, &f), ML_OK))
    printf("  %s\n", ml_last_error());
  return f;
}

static void expect(ml_future *f, ml_status status) {
  if (!CHECK_EQ(ml_future_wait(f, PATIENCE), status)) printf("  %s\n", ml_last_error());
  ml_future_release(f);
}

static int first_threads; /* the program's own, and a sanitizer's */

/* Threads besides. */
static int count_threads(void) {
  int n = -2 - first_threads; /* . and .. */
  DIR *dir = opendir("/proc/self/task");
  if (!dir) return -1;
  while (readdir(dir)) n++;
  closedir(dir);
  return n;
}

/* Threads that are left. One that was joined is still listed for a moment. */
static int left_threads(void) {
  int n = count_threads();
  for (int i = 0; i < 20000 && n > 0; i++) {
    usleep(1000);
    n = count_threads();
  }
  return n;
}

/* ---- a loop that is held up ---- */

static ml_executor *watched;
static atomic_int told, told_inside;
static pthread_t loop_thread;

static ml_status note_thread(struct uv_loop_s *loop, ml_values *results, void *user) {
  (void)loop, (void)results, (void)user;
  loop_thread = pthread_self();
  return ML_OK;
}

/* On a busy machine there are reports of other steps too. */
static void on_blocked(const ml_blocked *b, void *user) {
  CHECK(user == &told);
  CHECK_EQ(b->size, sizeof *b);
  CHECK(b->time >= 5000000);
  CHECK(b->submitted == NULL); /* it came from C */
  CHECK_EQ(ml_executor_shutdown(NULL, false, 0), ML_MISUSE);
  if (!pthread_equal(pthread_self(), loop_thread)) {
    CHECK(b->traceback == NULL);
    if (!atomic_load(&blocking)) return;
    if (b->name && says(b->name, "the blocking plugin")) atomic_fetch_add(&told_inside, 1);
    sem_post(&gate);
  } else if (b->name && b->traceback && strcmp(b->name, "the spinning plugin") == 0) {
    CHECK(says(b->traceback, "spin"));
    atomic_fetch_add(&told, 1);
    atomic_store(&released, true);
  }
}

static void test_blocked(void) {
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  o.blocked_after = 5000000;
  o.on_blocked = on_blocked;
  o.user = &told;
  for (int driven = 0; driven < 2; driven++) {
    atomic_store(&released, false);
    atomic_store(&told, 0);
    o.driven = driven;
    watched = make(&o);
    ml_future *f = NULL;
    CHECK_EQ(ml_submit_c(watched, note_thread, NULL, &f), ML_OK);
    expect(f, ML_OK);
    expect(call(watched, "faults:spin", "the spinning plugin"), ML_OK);
    CHECK_EQ(atomic_load(&told), 1);
    ml_stats stats = { .size = sizeof stats };
    CHECK_EQ(ml_executor_stats(watched, &stats), ML_OK);
    CHECK(stats.blocked >= 1);
    /* Inside a C function: told while it is there. */
    atomic_store(&told_inside, 0);
    for (int i = 0; i < 100 && atomic_load(&told_inside) == 0; i++)
      expect(call(watched, "faults:block", "the blocking plugin"), ML_OK);
    CHECK(atomic_load(&told_inside) > 0);
    end(watched);
    CHECK_EQ(left_threads(), 0);
  }
}

/* ---- on the thread that looks ---- */

static atomic_int refused;

static void wait_there(const ml_blocked *b, void *user) {
  ml_executor *other = user;
  (void)b;
  if (!atomic_load(&blocking) || pthread_equal(pthread_self(), loop_thread)) return;
  CHECK_EQ(ml_executor_shutdown(other, false, ML_FOREVER), ML_BUSY); /* others wait for us */
  ml_future *f = call(watched, "faults:echo", NULL);
  CHECK_EQ(ml_future_wait(f, ML_FOREVER), ML_BUSY);
  ml_future_release(f);
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  CHECK_EQ(ml_open(L, watched), ML_OK);
  lua_close(L);
  atomic_fetch_add(&refused, 1);
  sem_post(&gate);
}

static void test_blocked_waits(void) {
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  ml_executor *other = make(&o);
  o.blocked_after = 5000000;
  o.on_blocked = wait_there;
  o.user = other;
  atomic_store(&released, false);
  ml_future *f = NULL, *busy_one = call(other, "faults:spin", NULL);
  watched = make(&o);
  CHECK_EQ(ml_submit_c(watched, note_thread, NULL, &f), ML_OK);
  expect(f, ML_OK);
  expect(call(watched, "faults:block", NULL), ML_OK);
  CHECK(atomic_load(&refused) > 0);
  end(watched);
  atomic_store(&released, true);
  expect(busy_one, ML_OK);
  end(other);
}

/* Nobody looks unless asked to: there is no thread for it. */
static void test_unwatched(void) {
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  ml_executor *ex = make(&o);
  expect(call(ex, "faults:echo", NULL), ML_OK);
  CHECK_EQ(count_threads(), 1);
  end(ex);
  o.slice = UINT64_MAX;
  CHECK_EQ(ml_executor_new(&ex, &o), ML_MISUSE);
}

/* An endless loop: with slices the others go on, and the end names who does not. */
static void test_endless(void) {
  atomic_store(&released, false);
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  o.slice = 1000000;
  ml_executor *ex = make(&o);
  ml_future *f = call(ex, "faults:spin", "an endless plugin");
  for (int i = 0; i < 5; i++) expect(call(ex, "faults:echo", NULL), ML_OK);
  CHECK_EQ(ml_future_cancel(f, "too long"), ML_OK);
  CHECK_EQ(ml_executor_shutdown(ex, true, ml_after_ms(5)), ML_TIMEOUT);
  atomic_store(&released, true);
  expect(f, ML_OK); /* it never waited, so it did not see the cancel */
  end(ex);

  /* Without: it holds the loop, and is named all the same. */
  atomic_store(&released, false);
  o.slice = 0;
  ex = make(&o);
  f = call(ex, "faults:spin", "an endless plugin");
  ml_stats stats = { .size = sizeof stats };
  while (ml_executor_stats(ex, &stats) == ML_OK && stats.running == 0) usleep(1000);
  CHECK_EQ(ml_executor_shutdown(ex, true, ml_after_ms(5)), ML_TIMEOUT);
  CHECK(says(ml_last_error(), "'an endless plugin'"));
  atomic_store(&released, true);
  expect(f, ML_OK);
  end(ex);
}

/* ---- a plugin that does not compile, or is not there ---- */

static void test_syntax_error(void) {
  char folder[] = "/tmp/moonloop-XXXXXX", path[64], file[64];
  if (!CHECK(mkdtemp(folder) != NULL)) return;
  snprintf(file, sizeof file, "%s/broken.lua", folder);
  snprintf(path, sizeof path, "%s/?.lua", folder);
  FILE *out = fopen(file, "w");
  if (!CHECK(out != NULL)) return;
  fputs("return { run = function() end,,, }\n", out);
  fclose(out);
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  o.path = path;
  ml_executor *ex = NULL;
  CHECK_EQ(ml_executor_new(&ex, &o), ML_OK);
  ml_future *f = call(ex, "broken:run", "the broken plugin");
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_FAILED);
  CHECK(says(ml_last_error(), "the broken plugin"));
  CHECK(says(ml_future_error(f), "broken.lua:1:"));
  ml_future_release(f);
  f = call(ex, "missing:run", "the missing plugin");
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_FAILED);
  CHECK(says(ml_last_error(), "'missing'"));
  ml_future_release(f);
  end(ex);
  remove(file);
  rmdir(folder);
}

/* ---- callbacks that call back in ---- */

static atomic_int calls;
static ml_executor *busy;

static void on_done(ml_future *f, void *user) {
  ml_future *next = NULL;
  ml_values *v = NULL;
  atomic_fetch_add(&calls, 1);
  CHECK_EQ(ml_future_values(f, &v), ML_OK);
  ml_values_free(v);
  CHECK_EQ(ml_future_cancel(f, "it is over"), ML_CLOSED);
  ml_future_release(ml_future_retain(f));
  ml_executor *ex = user;
  if (atomic_load(&calls) < 50) {
    CHECK_EQ(ml_submit_call(ex, "faults:echo", NULL, NULL, &next), ML_OK);
    CHECK_EQ(ml_future_on_done(next, on_done, ex), ML_OK);
    CHECK(ml_future_wait(next, ML_FOREVER) == ML_BUSY); /* a loop's thread */
    ml_future_release(next);
  } else {
    CHECK_EQ(ml_executor_shutdown(ex, false, ML_FOREVER), ML_BUSY);
    CHECK_EQ(ml_submit_call(ex, "faults:echo", NULL, NULL, &next), ML_CLOSED);
    ml_executor_release(ex); /* the last but one */
  }
}

static void on_error(const ml_report *report, void *user) {
  (void)user;
  CHECK(says(report->error, "a fault"));
  CHECK_EQ(report->size, sizeof *report);
  ml_future *f = NULL;
  CHECK_EQ(ml_submit_call(busy, "faults:echo", NULL, NULL, &f), ML_OK);
  ml_future_release(f);
  atomic_fetch_add(&calls, 1);
}

static lua_State *refuse_state(void *user) {
  (void)user;
  return NULL;
}

static void on_log(const char *text, void *user) {
  ml_executor **ex = user;
  CHECK(says(text, "could not be made"));
  ml_stats stats = { .size = sizeof stats };
  if (*ex) CHECK_EQ(ml_executor_stats(*ex, &stats), ML_OK);
  CHECK_EQ(ml_executor_shutdown(NULL, true, 0), ML_MISUSE);
  atomic_fetch_add(&calls, 1);
}

static void test_callbacks(void) {
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  busy = make(&o);
  ml_future *f = call(busy, "faults:echo", NULL);
  CHECK_EQ(ml_future_on_done(f, on_done, ml_executor_retain(busy)), ML_OK);
  ml_future_release(f);
  while (atomic_load(&calls) < 50) usleep(1000);
  end(busy);

  atomic_store(&calls, 0);
  o.on_error = on_error;
  busy = make(&o);
  ml_future_release(call(busy, "faults:fail", NULL)); /* nobody asks */
  while (atomic_load(&calls) == 0) usleep(1000);
  end(busy);

  atomic_store(&calls, 0);
  ml_executor *ex = NULL;
  o = (ml_executor_options)ML_EXECUTOR_OPTIONS;
  o.new_state = refuse_state;
  o.on_log = on_log;
  o.user = &ex;
  o.driven = true; /* its state is made here and now */
  CHECK_EQ(ml_executor_new(&ex, &o), ML_OK);
  CHECK_EQ(atomic_load(&calls), 1);
  expect(call(ex, "faults:echo", NULL), ML_MEMORY);
  end(ex);
}

/* Lets go of the executor, on its own thread. */
static void release_there(ml_future *f, void *user) {
  (void)f;
  ml_executor_release(user);
}

static ml_executor *abandon(bool driven) {
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  o.driven = driven;
  ml_executor *ex = make(&o);
  ml_future_release(call(ex, "faults:wait", NULL)); /* a job that goes on */
  ml_future *f = call(ex, "faults:echo", NULL);
  CHECK_EQ(ml_future_on_done(f, release_there, ex), ML_OK);
  if (driven)
    ml_future_release(f);
  else
    expect(f, ML_OK);
  return ex;
}

static void test_released_there(void) {
  int files = check_open_files();
  atomic_store(&closed_states, 0);
  abandon(false); /* it ends after its job */
  while (atomic_load(&closed_states) == 0) usleep(1000);
  CHECK_EQ(left_threads(), 0);

  atomic_store(&closed_states, 0);
  /* A driven one ends, with its jobs cancelled, before the call returns. */
  ml_executor *ex = abandon(true);
  ml_status status;
  do status = ml_executor_step(ex);
  while (status == ML_OK && atomic_load(&closed_states) == 0);
  CHECK_EQ(atomic_load(&closed_states), 1);

  atomic_store(&closed_states, 0);
  ex = abandon(true);
  ml_future *f = call(ex, "faults:wait", NULL);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_JOB_CANCELLED);
  ml_future_release(f);
  CHECK_EQ(atomic_load(&closed_states), 1);

  atomic_store(&closed_states, 0);
  ex = abandon(true);
  CHECK_EQ(ml_executor_shutdown(ex, true, PATIENCE), ML_OK);
  CHECK_EQ(atomic_load(&closed_states), 1);
  CHECK_EQ(check_open_files(), files);
}

/* ---- the wrong thread ---- */

/* The state sleeps when it is touched here, but that is no order that a sanitizer sees. */
static void test_wrong_thread(void) {
#ifndef __SANITIZE_THREAD__
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  ml_executor *ex = make(&o);
  expect(call(ex, "faults:echo", NULL), ML_OK);
  lua_State *L = atomic_load(&last_state); /* it sleeps now */
  ml_future *f = call(ex, "faults:echo", NULL);
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK);
  int n;
  CHECK_EQ(ml_open(L, ex), ML_MISUSE);
  CHECK(says(ml_last_error(), "belongs to a thread of executor 'host'"));
  CHECK_EQ(ml_future_push(f, L, &n), ML_MISUSE);
  CHECK_EQ(ml_future_push_handle(f, L), ML_MISUSE);
  ml_future_release(f);
  end(ex);
#endif
}

/* ---- the module of the same name ---- */

static void test_two_copies(void) {
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  ml_executor *ex = make(&o);
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  if (!CHECK(luaL_dostring(L, "require 'moonloop'.now()") == LUA_OK)) /* moonloop.so */
    printf("  %s\n", lua_tostring(L, -1));
  CHECK_EQ(ml_open(L, ex), ML_MISUSE);
  CHECK(says(ml_last_error(), "another copy of moonloop is open"));
  CHECK_EQ(lua_gettop(L), 0);
  lua_close(L);
  L = luaL_newstate();
  luaL_openlibs(L);
  CHECK_EQ(ml_open(L, ex), ML_OK); /* first: then it is the one that is required */
  CHECK(luaL_dostring(L, "package.loaded.moonloop = nil\n"
                         "assert(require 'moonloop'.get_event_loop().name == 'host')") == LUA_OK);
  lua_close(L);
  end(ex);
}

/* ---- a C function whose turn does not come ---- */

static atomic_int ran;

static ml_status count_run(struct uv_loop_s *loop, ml_values *results, void *user) {
  (void)loop, (void)results, (void)user;
  atomic_fetch_add(&ran, 1);
  return ML_OK;
}

static void test_cancelled_call(void) {
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  ml_executor *ex = make(&o);
  atomic_store(&released, false);
  ml_future *spin = call(ex, "faults:spin", NULL), *f = NULL, *g = NULL;
  ml_stats stats = { .size = sizeof stats };
  while (ml_executor_stats(ex, &stats) == ML_OK && stats.running == 0) usleep(1000);
  CHECK_EQ(ml_submit_c(ex, count_run, NULL, &f), ML_OK);
  CHECK_EQ(ml_submit_c(ex, count_run, NULL, &g), ML_OK);
  CHECK_EQ(ml_future_cancel(f, NULL), ML_OK);
  expect(f, ML_JOB_CANCELLED);
  atomic_store(&released, true);
  expect(g, ML_OK);
  CHECK_EQ(atomic_load(&ran), 1);
  expect(spin, ML_OK);
  end(ex);
}

/* ---- what is over ---- */

static void test_closed(void) {
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  ml_executor *ex = make(&o);
  lua_State *L = new_state(NULL);
  CHECK_EQ(ml_open(L, ex), ML_OK);
  CHECK_EQ(ml_executor_shutdown(ex, false, PATIENCE), ML_OK);
  static const char script[] =
    "local ml = require 'moonloop'\n"
    "local ok, err = pcall(ml.run_async_job, function() end)\n"
    "assert(not ok and err.code == 'closed', err)\n"
    "assert(ml.run(function() ml.sleep(0) return 1 end) == 1)"; /* a loop of its own */
  if (!CHECK(luaL_dostring(L, script) == LUA_OK)) printf("  %s\n", lua_tostring(L, -1));
  CHECK_EQ(ml_open(L, ex), ML_OK); /* it may be opened: its waits say what is wrong */
  ml_stats stats = { .size = sizeof stats };
  CHECK_EQ(ml_executor_stats(ex, &stats), ML_OK);
  CHECK_EQ(stats.threads, 0);
  lua_close(L);
  ml_executor_release(ex);
}

#ifndef NDEBUG
static ml_status nothing(struct uv_loop_s *loop, ml_values *results, void *user) {
  (void)loop, (void)results, (void)user;
  return ML_OK;
}

static void no_callback(ml_future *f, void *user) { (void)f, (void)user; }

/* Each function finds out, and says so on stderr too, which is silenced. */
static void test_released(void) {
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  ml_executor *ex = make(&o), *other = make(&o);
  ml_future *f = call(ex, "faults:echo", NULL), *g = NULL;
  lua_State *L = new_state(NULL);
  ml_values *v;
  int n;
  ml_stats stats = { .size = sizeof stats };
  CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK);
  ml_future_release(f);
  end(ex);
  fflush(stderr);
  int kept = dup(STDERR_FILENO);
  if (!freopen("/dev/null", "w", stderr)) return;
#define GONE(call) CHECK_EQ(call, ML_MISUSE), CHECK(says(ml_last_error(), "one that was released"))
  GONE(ml_future_peek(f));
  GONE(ml_future_wait(f, 0));
  GONE(ml_future_cancel(f, NULL));
  GONE(ml_future_on_done(f, no_callback, NULL));
  GONE(ml_future_values(f, &v));
  GONE(ml_future_push(f, L, &n));
  GONE(ml_future_push_handle(f, L));
  CHECK(ml_future_error(f) == NULL && ml_future_code(f) == NULL);
  CHECK(ml_future_traceback(f) == NULL && ml_future_name(f)[0] == '\0');
  ml_future_retain(f);
  ml_future_release(f);
  ml_future_release(f);
  GONE(ml_executor_shutdown(ex, true, 0));
  GONE(ml_executor_stats(ex, &stats));
  GONE(ml_executor_step(ex));
  GONE(ml_submit_call(ex, "faults:echo", NULL, NULL, &g));
  GONE(ml_submit_c(ex, nothing, NULL, &g));
  CHECK(luaL_loadstring(L, "return 1") == LUA_OK);
  GONE(ml_submit(ex, L, 0, NULL, &g));
  GONE(ml_open(L, ex));
  CHECK_EQ(ml_executor_fd(ex), -1);
  CHECK_EQ(ml_executor_timeout(ex), -1);
  ml_executor_retain(ex);
  ml_executor_release(ex);
  ml_executor_release(ex);
#undef GONE
  fflush(stderr);
  dup2(kept, STDERR_FILENO);
  close(kept);
  CHECK_EQ(lua_gettop(L), 0);
  lua_close(L);
  expect(call(other, "faults:echo", NULL), ML_OK);
  end(other);
}
#else
static void test_released(void) {}
#endif

/* ---- an allocator that fails: once, or from then on ---- */

static struct {
  atomic_long left; /* how often it gives memory */
  atomic_bool for_good;
  atomic_llong used;
} memory;

static void *failing_alloc(void *user, void *block, size_t old_size, size_t size) {
  (void)user;
  if (size > old_size || (size > 0 && !block)) {
    long left = atomic_fetch_sub(&memory.left, 1);
    if (left == 0 || (left < 0 && atomic_load(&memory.for_good))) return NULL;
  }
  void *p = size > 0 ? realloc(block, size) : NULL;
  if (size == 0) free(block);
  if (p || size == 0)
    atomic_fetch_add(&memory.used, (long long)size - (long long)(block ? old_size : 0));
  return p;
}

static void be_silent(const char *text, void *user) { (void)text, (void)user; }

/* It is an error of the state or of a job, or nothing at all; the executor ends as always. */
static void run_with(long left, bool for_good) {
  static const char script[] =
    "local ml, t = require 'moonloop', {}\n"
    "for i = 1, 20 do t[i] = ml.spawn(function() ml.sleep(0) return { i } end) end\n"
    "ml.gather(t)\n"
    "return ('x'):rep(100)";
  atomic_store(&memory.left, left);
  atomic_store(&memory.for_good, for_good);
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  o.alloc = failing_alloc;
  o.on_log = be_silent;
  ml_executor *ex = NULL;
  if (!CHECK_EQ(ml_executor_new(&ex, &o), ML_OK)) return;
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  for (int i = 0; i < 2; i++) {
    ml_future *f = NULL;
    CHECK(luaL_loadstring(L, script) == LUA_OK);
    CHECK_EQ(ml_submit(ex, L, 0, NULL, &f), ML_OK);
    ml_status status = ml_future_wait(f, PATIENCE);
    CHECK(status == ML_OK || status == ML_MEMORY || status == ML_FAILED);
    if (status == ML_FAILED) CHECK(says(ml_future_error(f), "memory"));
    ml_future_release(f);
  }
  lua_close(L);
  end(ex);
  CHECK_EQ(atomic_load(&memory.used), 0);
}

/* A state of the host's is opened, or it is not: it can be closed, and others are as ever. */
static void open_with(ml_executor *ex, long left, bool for_good) {
  atomic_store(&memory.left, LONG_MAX);
  lua_State *L = lua_newstate(failing_alloc, NULL);
  luaL_openlibs(L);
  atomic_store(&memory.for_good, for_good);
  atomic_store(&memory.left, left);
  ml_status status = ml_open(L, left % 2 ? ex : NULL);
  atomic_store(&memory.left, LONG_MAX);
  CHECK(status == ML_OK || status == ML_MEMORY);
  CHECK_EQ(lua_gettop(L), status == ML_OK);
  static const char script[] =
    "assert(require 'moonloop'.run_async_job(type, 1):result(20) == 'number')";
  if (status == ML_OK && !CHECK(luaL_dostring(L, script) == LUA_OK))
    printf("  %s\n", lua_tostring(L, -1));
  lua_close(L);
  CHECK_EQ(atomic_load(&memory.used), 0);
}

static void test_failing_allocator(void) {
  long step = CHECK_ROUNDS(1000) == 1000 ? 29 : 197;
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  ml_executor *ex = make(&o);
  for (int for_good = 0; for_good < 2; for_good++) {
    for (long left = 0; left < 4000; left += step) run_with(left, for_good);
    for (long left = 0; left < 2500; left += step) open_with(ex, left, for_good);
  }
  end(ex);
}

/* ---- many: no thread, descriptor or byte is left ---- */

static void say_nothing(const ml_blocked *b, void *user) { (void)b, (void)user; }

static void round_trip(int i) {
  ml_executor_options o = ML_EXECUTOR_OPTIONS;
  if (i % 4 == 1) o.blocked_after = 1000000, o.on_blocked = say_nothing;
  if (i % 4 == 2) o.slice = 1000000;
  if (i % 4 == 3) o.workers = 2;
  ml_executor *ex = NULL;
  if (!CHECK_EQ(ml_executor_new(&ex, &o), ML_OK)) return;
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  if (!o.workers) CHECK_EQ(ml_open(L, ex), ML_OK);
  lua_settop(L, 0);
  ml_future *f = NULL;
  CHECK(luaL_loadstring(L, i % 5 ? "return 1" : "require 'moonloop'.sleep(1000)") == LUA_OK);
  CHECK_EQ(ml_submit(ex, L, 0, NULL, &f), ML_OK);
  if (i % 5) CHECK_EQ(ml_future_wait(f, PATIENCE), ML_OK);
  if (i % 2) ml_future_release(f);
  lua_close(L);
  CHECK_EQ(ml_executor_shutdown(ex, true, PATIENCE), ML_OK);
  ml_executor_release(ex);
  if (i % 2 == 0) ml_future_release(f); /* it outlives the executor */
}

static void test_many(void) {
  int rounds = CHECK_ROUNDS(1000), files = 0;
  size_t bytes = 0;
  for (int i = 0; i < rounds; i++) {
    round_trip(i);
    if (i != rounds / 2 - 1) continue; /* what is kept for good is there by now */
    files = check_open_files();
    bytes = mallinfo2().uordblks;
  }
  size_t now = mallinfo2().uordblks;
  if (!CHECK(now <= bytes + 20000)) printf("  %zu bytes, then %zu\n", bytes, now);
  CHECK_EQ(check_open_files(), files);
  CHECK_EQ(left_threads(), 0);
}

int main(void) {
  sem_init(&gate, 0, 0);
  first_threads = count_threads();
#ifdef __SANITIZE_THREAD__
  first_threads++; /* it starts one beside our first */
#endif
  test_blocked();
  test_blocked_waits();
  test_unwatched();
  test_endless();
  test_syntax_error();
  test_callbacks();
  test_released_there();
  test_wrong_thread();
  test_two_copies();
  test_cancelled_call();
  test_closed();
  test_released();
  test_failing_allocator();
  test_many();
  return check_report();
}
