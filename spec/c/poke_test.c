/* Tests of pokes: code that never ends is reached from another thread. */
#include <lauxlib.h>
#include <lualib.h>
#include <signal.h>
#include <string.h>
#include "check.h"
#include "lua/state.h"

#define PATIENCE (10 * MLI_SECOND)

static atomic_int looks;
static atomic_bool spinning, give_up;

static void look(lua_State *L, lml_state *S) {
  (void)L, (void)S;
  atomic_fetch_add(&looks, 1);
}

static void cancel(lua_State *L, lml_state *S) {
  (void)S;
  luaL_error(L, "broken");
}

/* Where the thread is. It calls into C, or ThreadSanitizer would never let a signal in. */
static int l_spin(lua_State *L) {
  atomic_store(&spinning, true);
  if (atomic_load(&give_up)) return luaL_error(L, "nobody came");
  return 0;
}

static int run_script(lua_State *L, const char *script) {
  lml_state *S = lml_state_of(L);
  S->running = L;
  lml_poke_enter(S);
  int status = luaL_dostring(L, script);
  lml_poke_leave(S);
  S->running = NULL;
  return status;
}

static lua_State *new_state(void) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  lml_open(L);
  lua_settop(L, 0);
  lua_register(L, "spin", l_spin);
  return L;
}

/* Pokes until it was served, as one has to. */
static bool poke_until(lml_state *S, lml_poke_reason reason, bool (*served)(void)) {
  uint64_t end = mli_now() + PATIENCE;
  struct timespec moment = { .tv_nsec = 2000000 };
  while (!atomic_load(&spinning) && mli_now() < end) nanosleep(&moment, NULL);
  while (!served() && mli_now() < end) {
    if (!lml_poke(S, reason)) return false;
    nanosleep(&moment, NULL);
  }
  return served();
}

static lua_State *state;
static atomic_bool ended;

static bool was_looked_at(void) { return atomic_load(&looks) > 0; }
static bool has_ended(void) { return atomic_load(&ended); }

typedef struct script {
  const char *text;
  int status;
} script;

static void *run_thread(void *argument) {
  script *s = argument;
  s->status = run_script(state, s->text);
  atomic_store(&ended, true);
  return NULL;
}

/* Runs the script, has it looked at, then breaks it. */
static void break_script(const char *text) {
  script s = { text, LUA_OK };
  pthread_t thread;
  state = new_state();
  lml_state *S = lml_state_of(state);
  atomic_store(&looks, 0);
  atomic_store(&spinning, false);
  atomic_store(&ended, false);
  atomic_store(&give_up, false);
  CHECK(pthread_create(&thread, NULL, run_thread, &s) == 0);
  CHECK(poke_until(S, LML_POKE_LOOK, was_looked_at));
  CHECK(!has_ended());
  CHECK(poke_until(S, LML_POKE_CANCEL, has_ended));
  atomic_store(&give_up, true);
  pthread_join(thread, NULL);
  CHECK_EQ(luaL_dostring(state, "return"), LUA_OK); /* serves what came after the end */
  CHECK(s.status != LUA_OK);
  CHECK(lua_isstring(state, -1) && strstr(lua_tostring(state, -1), "broken") != NULL);
}

static void test_loop(void) {
  break_script("while true do spin() end");
  CHECK(lua_gethook(state) == NULL);
  lua_close(state);
}

static void test_inside_sort(void) {
  break_script("while true do table.sort({ 3, 2, 1 }, function(a, b) spin() return a < b end) end");
  lua_close(state);
}

static void test_keeps_the_programs_hook(void) {
  break_script("count = 0\n"
               "debug.sethook(function() count = count + 1 end, 'l')\n"
               "while true do\n"
               "spin()\n"
               "end\n");
  CHECK(lua_gethook(state) != NULL && !lml_poke_is_hook(lua_gethook(state)));
  CHECK_EQ(LUA_MASKLINE, lua_gethookmask(state));
  lua_getglobal(state, "count");
  CHECK(lua_tointeger(state, -1) > 0);
  lua_close(state);
}

/* What a signal's handler may meet: nothing runs any more. */
static void test_late(void) {
  state = new_state();
  lml_state *S = lml_state_of(state);
  atomic_store(&looks, 0);
  lml_poke_enter(S);
  CHECK(lml_poke(S, LML_POKE_LOOK));
  lml_poke_leave(S);
  CHECK(luaL_dostring(state, "return 1 + 1") == LUA_OK);
  CHECK_EQ(0, atomic_load(&looks));
  lml_poke_enter(S);
  lml_poke_forget(S, LML_POKE_LOOK);
  lml_poke_leave(S);
  CHECK_EQ(0, atomic_load(&S->poked.reasons));
  lua_close(state);
}

/* The signal is one that was nobody's, and the host's stay as they are. */
static void test_host(void) {
  struct sigaction action;
  int ours = 0;
  for (int n = SIGRTMIN; n <= SIGRTMAX; n++) {
    CHECK(sigaction(n, NULL, &action) == 0);
    if ((action.sa_flags & SA_SIGINFO) || action.sa_handler != SIG_DFL) ours++;
  }
  CHECK_EQ(2, ours); /* the host's, and one of ours */
  CHECK(sigaction(SIGRTMAX - 1, NULL, &action) == 0);
  CHECK(action.sa_handler == SIG_IGN);
}

int main(void) {
  signal(SIGRTMAX - 1, SIG_IGN);
  lua_close(new_state()); /* moonloop's own are set with the first */
  lml_poke_serves(LML_POKE_LOOK, look, NULL);
  lml_poke_serves(LML_POKE_CANCEL, cancel, NULL);
  test_loop();
  test_inside_sort();
  test_keeps_the_programs_hook();
  test_late();
  test_host();
  return check_report();
}
