/*
** quit.c: SIGQUIT (Ctrl-\ on a terminal) shows what all jobs do, on stderr, and the
** program goes on. The main thread's loop shows its own at its next turn, or right in
** the Lua code that keeps it from one, and asks the executors' loops for theirs.
**
** The handler only sets a hook and posts a message, which are safe in a handler.
*/
#include <errno.h>
#include <signal.h>
#include "cli/cli.h"

static lml_state *state;
static mli_node node;
static atomic_bool posted; /* `node` is on its way */
static atomic_bool wanted; /* and nothing was shown since */

static void show(void) {
  if (!atomic_exchange(&wanted, false)) return;
  lml_tree_show(state, "main");
  lml_executors_each(state, lml_tree_show_executor);
}

/* On the loop, outside of Lua. */
static void on_turn(mli_node *n, mli_loop *loop) {
  (void)n, (void)loop;
  atomic_store(&posted, false);
  show();
}

/* In whatever ran when the signal came. */
static void show_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(L, NULL, 0, 0);
  show();
}

static void on_sigquit(int sig) {
  (void)sig;
  int error = errno;
  lua_State *running = state->running;
  atomic_store(&wanted, true);
  if (running && !lua_gethook(running)) /* another's hook stays */
    lua_sethook(running, show_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
  if (state->loop && !atomic_exchange(&posted, true)) {
    node.run = on_turn;
    if (!mli_loop_post(state->loop, &node)) atomic_store(&posted, false);
  }
  errno = error;
}

void cli_quit_shows_jobs(lml_state *S) {
  if (S) state = S;
  struct sigaction action = { .sa_handler = S ? on_sigquit : SIG_DFL, .sa_flags = SA_RESTART };
  sigemptyset(&action.sa_mask);
  sigaction(SIGQUIT, &action, NULL);
}
