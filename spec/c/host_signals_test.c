/*
** Tests of what a host has to do with signals: its handlers and masks stay as they are, also
** those of the signal that a poke uses. Each runs in a process of its own.
*/
#include <lauxlib.h>
#include <lualib.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include "check.h"
#include "lua/state.h"

static atomic_int came;

static void on_host_signal(int number) {
  (void)number;
  atomic_fetch_add(&came, 1);
}

static void handle(int number) {
  struct sigaction action = { .sa_handler = on_host_signal };
  CHECK(sigaction(number, &action, NULL) == 0);
}

static bool is_handled(int number) {
  struct sigaction action;
  return sigaction(number, NULL, &action) == 0 && action.sa_handler == on_host_signal;
}

static void block(int number, bool all) {
  sigset_t set;
  sigemptyset(&set);
  if (all)
    sigfillset(&set);
  else
    sigaddset(&set, number);
  CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
}

static sigset_t mask(void) {
  sigset_t set;
  CHECK(pthread_sigmask(SIG_BLOCK, NULL, &set) == 0);
  return set;
}

static bool is_masked_as(const sigset_t *before) {
  sigset_t now = mask();
  for (int n = 1; n <= SIGRTMAX; n++)
    if (sigismember(&now, n) != sigismember(before, n)) return false;
  return true;
}

static lua_State *new_state(void) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  luaL_requiref(L, "moonloop", luaopen_moonloop, 0);
  lua_settop(L, 0);
  return L;
}

/* A loop is held up until that was reported. `where` gives what the report has. */
static const char script[] =
  "local ml, where = require 'moonloop', ...\n"
  "local held = ml.promise()\n"
  "ml.on_blocked(function(info) pcall(held.set_result, held, info) end)\n"
  "local function spin()\n"
  "  local enough = os.clock() + 0.1\n" /* of CPU time: other time may not count */
  "  while os.clock() < enough do ml.now() end\n"
  "end\n"
  "local function repeat_until_told(step)\n"
  "  local n = 0\n"
  "  repeat step() n = n + 1 until held.future:done() or n > 300\n"
  "end\n"
  "if where == 'run' then\n"
  "  ml.run(function() repeat_until_told(function() spin() ml.checkpoint() end) end)\n"
  "else\n"
  "  local ex = ml.AsyncExecutor{ blocked_ms = 20 }\n"
  "  repeat_until_told(function() ex:submit(spin):result() end)\n"
  "  ex:shutdown()\n"
  "end\n"
  "ml.on_blocked(nil)\n"
  "return held.future:result(0).traceback ~= nil\n";

/* Whether the report had a traceback: a poke came through. */
static bool hold_up(lua_State *L, const char *where) {
  lua_settop(L, 0);
  if (!CHECK(luaL_loadstring(L, script) == LUA_OK)) return false;
  lua_pushstring(L, where);
  if (!CHECK(lua_pcall(L, 1, 1, 0) == LUA_OK)) {
    printf("  %s\n", luaL_tolstring(L, -1, NULL));
    return false;
  }
  return lua_toboolean(L, -1);
}

/* All but one handler are as before, and that one was nobody's. */
static void test_handlers(void) {
  struct sigaction before[65], now;
  handle(SIGRTMAX - 1);
  handle(SIGUSR1);
  handle(SIGCHLD);
  handle(SIGPIPE);
  signal(SIGRTMAX - 3, SIG_IGN);
  for (int n = 1; n <= SIGRTMAX; n++) sigaction(n, NULL, &before[n]);
  sigset_t masked = mask();
  lua_State *L = new_state();
  CHECK(hold_up(L, "loop"));
  lua_close(L);
  int changed = 0;
  for (int n = 1; n <= SIGRTMAX; n++) {
    if (n == 32 || n == 33) continue; /* the C library's own */
    CHECK_EQ(0, sigaction(n, NULL, &now));
    if (now.sa_handler == before[n].sa_handler && now.sa_flags == before[n].sa_flags) continue;
    changed++;
    CHECK(n > SIGRTMIN && n < SIGRTMAX && before[n].sa_handler == SIG_DFL);
  }
  CHECK_EQ(1, changed);
  CHECK_EQ(0, atomic_load(&came));
  CHECK(is_masked_as(&masked));
}

/* One that the host blocks it may wait for. */
static void test_waited_for(void) {
  block(SIGRTMAX - 1, false);
  sigset_t masked = mask();
  lua_State *L = new_state();
  CHECK_EQ(SIGRTMAX - 2, lml_poke_choose());
  CHECK(hold_up(L, "loop"));
  lua_close(L);
  CHECK(is_masked_as(&masked));
}

/* It takes the signal before us: then reports do without. */
static void test_taken_before(void) {
  lua_State *L = new_state();
  int number = lml_poke_choose();
  handle(number);
  CHECK(!hold_up(L, "loop"));
  lua_close(L);
  CHECK(is_handled(number));
  CHECK_EQ(0, atomic_load(&came));
}

/* It takes it away from us. */
static void test_taken_after(void) {
  lua_State *L = new_state();
  CHECK(hold_up(L, "loop"));
  int number = lml_poke_choose();
  handle(number);
  CHECK(!hold_up(L, "loop"));
  lua_close(L);
  CHECK(is_handled(number));
  CHECK_EQ(0, atomic_load(&came));
}

/* A loop on a thread of the host that blocks all signals. */
static void test_blocked(void) {
  setenv("MOONLOOP_BLOCKED_MS", "20", 1);
  block(0, true);
  sigset_t masked = mask();
  lua_State *L = new_state();
  CHECK(!hold_up(L, "run"));
  CHECK(hold_up(L, "loop")); /* our own thread lets it through */
  lua_close(L);
  CHECK(is_masked_as(&masked));
}

static void in_child(void (*test)(void)) {
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    atomic_store(&check_failed, 0);
    test();
    fflush(stdout);
    _exit(atomic_load(&check_failed) ? EXIT_FAILURE : EXIT_SUCCESS);
  }
  int status = -1;
  CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
  CHECK_EQ(0, status);
}

int main(void) {
  in_child(test_handlers);
  in_child(test_waited_for);
  in_child(test_taken_before);
  in_child(test_taken_after);
  in_child(test_blocked);
  return check_report();
}
