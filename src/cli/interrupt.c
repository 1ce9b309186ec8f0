/*
** interrupt.c: Ctrl-C. The first one cancels a job: what it waits for is given up,
** and what computes right now, in that job or another, is broken. The next one is
** the system's to handle: it ends the program.
**
** The handler only sets a hook and posts a message, which are safe in a handler.
*/
#include <errno.h>
#include <signal.h>
#include "cli/cli.h"

static lml_state *state;
static lml_future *target;
static volatile sig_atomic_t came;
static mli_node node;
static atomic_bool posted; /* `node` is on its way */

static void cancel(lml_future *u) {
  if (u) mli_future_cancel(lml_future_core(u), NULL);
}

/* In whatever ran when the signal came: its job is cancelled right here, after the one
** that may wait for it. */
static void break_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(L, NULL, 0, 0);
  lml_job *job = state->current;
  if (!came || !job || lml_job_cancelled(job)) return;
  cancel(target);
  cancel(job->fut);
  lml_scope *scope = lml_job_cancelled(job); /* none inside a shield */
  if (scope) lml_raise_cancelled(L, state, scope);
}

/* On the loop, outside of Lua. */
static void cancel_target(mli_node *n, mli_loop *loop) {
  (void)n, (void)loop;
  atomic_store(&posted, false);
  if (came) cancel(target);
}

static void on_sigint(int sig) {
  int error = errno;
  signal(sig, SIG_DFL);
  came = 1;
  lua_State *running = state->running;
  if (running)
    lua_sethook(running, break_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
  if (state->loop && !atomic_exchange(&posted, true)) {
    node.run = cancel_target;
    mli_loop_post(state->loop, &node);
  }
  errno = error;
}

void cli_interrupt_goes_to(lml_state *S, lml_future *u) {
  signal(SIGINT, SIG_DFL);
  target = u;
  if (!u) return;
  state = S;
  came = 0;
  signal(SIGINT, on_sigint);
}

bool cli_interrupted(void) { return came; }
