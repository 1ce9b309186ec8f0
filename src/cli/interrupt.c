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
static lml_future *target; /* NULL at the prompt */
static volatile sig_atomic_t came;
static mli_node node;
static atomic_bool posted; /* `node` is on its way */

static void cancel(lml_future *u) { mli_future_cancel(lml_future_core(u), NULL); }

static void give_up(void) {
  if (target)
    cancel(target);
  else
    cli_stop_input();
}

/* In whatever ran when the signal came: its job is cancelled right here, after the one
** that may wait for it. */
static void break_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(L, NULL, 0, 0);
  lml_job *job = state->current;
  if (!came || !job || lml_job_cancelled(job)) return;
  give_up();
  if (!target && job == cli.main->job) return; /* it is the prompt */
  cancel(job->fut);
  lml_scope *scope = lml_job_cancelled(job); /* none inside a shield */
  if (scope) lml_raise_cancelled(L, state, scope);
}

/* On the loop, outside of Lua. */
static void cancel_target(mli_node *n, mli_loop *loop) {
  (void)n, (void)loop;
  atomic_store(&posted, false);
  if (came) give_up();
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

static void handle(lml_state *S, lml_future *u) {
  signal(SIGINT, SIG_DFL);
  target = u;
  state = S;
  came = 0;
  signal(SIGINT, on_sigint);
}

void cli_interrupt_goes_to(lml_state *S, lml_future *u) { handle(S, u); }
void cli_interrupt_stops_input(lml_state *S) { handle(S, NULL); }
void cli_interrupt_ends_all(void) { signal(SIGINT, SIG_DFL); }

bool cli_interrupted(void) { return came; }
