/* poke.c: the signal and the hook behind lml_poke. */
#include "poke.h"

#include <errno.h>
#include <signal.h>
#include "core/system.h"
#include "state.h"

/* So long Lua has executed no instruction, and waits in a system call: no function of its
** own core does that. */
#define AT_REST (10 * MLI_MILLISECOND)

#ifndef SIGRTMIN /* there are no real-time signals: the two for users must do */
#define SIGRTMIN (SIGUSR1 - 1)
#define SIGRTMAX (SIGUSR2 + 1)
#endif

static struct {
  lml_poke_function serve;
  void (*note)(lml_state *S);
} functions[LML_POKE_REASONS];

/* The state of this thread. Written before any signal can come, so that the handler
** finds the thread's own memory made. */
static _Thread_local lml_state *volatile here;

void lml_poke_serves(lml_poke_reason reason, lml_poke_function function,
                     void (*note)(lml_state *S)) {
  functions[reason].serve = function;
  functions[reason].note = note;
}

/* ---- the hook ---- */

static void hook(lua_State *L, lua_Debug *ar);

bool lml_poke_is_hook(lua_Hook other) { return other == hook; }

/* One hook of the program can be kept for all coroutines of the state: a second one is
** left alone, and the poke with it, until the first is back. */
static void arm(lml_state *S, lua_State *L) {
  lml_poked *p = &S->poked;
  lua_Hook set = lua_gethook(L);
  if (set && set != hook) {
    if (p->kept_in && p->kept_in != L) return;
    p->kept_in = L;
    p->kept = set;
    p->kept_mask = lua_gethookmask(L);
    p->kept_count = lua_gethookcount(L);
  }
  lua_sethook(L, hook, LUA_MASKCOUNT, 1);
}

static void disarm(lml_state *S, lua_State *L) {
  lml_poked *p = &S->poked;
  if (p->kept_in == L) {
    p->kept_in = NULL;
    lua_sethook(L, p->kept, p->kept_mask, p->kept_count);
  } else {
    lua_sethook(L, NULL, 0, 0);
  }
}

/* A function that raises or yields does not come back: its reason is taken first. */
static void hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lml_state *S = lml_state_of(L);
  disarm(S, L);
  S->poked.armed = 0;
  if (S != here) return; /* it came too late */
  for (unsigned i = 0; i < LML_POKE_REASONS; i++) {
    unsigned bit = 1u << i;
    if ((atomic_fetch_and(&S->poked.reasons, ~bit) & bit) && functions[i].serve)
      functions[i].serve(L, S);
  }
}

void lml_poke_later(lml_state *S, lml_poke_reason reason) {
  if (!S->current || !S->current->co) return;
  atomic_fetch_or(&S->poked.reasons, 1u << reason);
  arm(S, S->current->co);
}

/* ---- the signal ---- */

lua_State *lml_poke_runs(const lml_state *S) {
  if (S->running) return S->running;
  if (S->delivering) return S->callbacks;
  if (S->from) return S->from;
  return S->task ? S->L : NULL;
}

static uintptr_t step_of(const lml_state *S) {
  return S->loop ? atomic_load_explicit(&S->loop->watch.beat, memory_order_relaxed)
                 : (uintptr_t)S->task;
}

/* The hook has waited in this step for long. */
static bool is_at_rest(const lml_state *S) {
  const lml_poked *p = &S->poked;
  return p->armed && p->armed_in == step_of(S) && mli_now() >= p->armed + AT_REST;
}

static void on_signal(int number, siginfo_t *info, void *context) {
  (void)number, (void)info;
  int error = errno;
  lml_state *S = here;
  if (S) {
    atomic_store(&S->poked.sent, false);
    mli_interrupted was = mli_interrupted_at(context);
    atomic_store(&S->poked.place, was.place);
    S->poked.at_rest = was.at_rest && is_at_rest(S);
    unsigned reasons = atomic_load(&S->poked.reasons);
    for (unsigned i = 0; i < LML_POKE_REASONS; i++)
      if ((reasons & 1u << i) && functions[i].note) functions[i].note(S);
    lua_State *L = reasons ? lml_poke_runs(S) : NULL;
    if (L) arm(S, L);
    if (L && !(S->poked.armed && S->poked.armed_in == step_of(S))) {
      S->poked.armed = mli_now();
      S->poked.armed_in = step_of(S);
    }
    S->poked.at_rest = false;
  }
  errno = error;
}

/* The signal's number: chosen as the first state opens, for our threads to let it through;
** taken with the first poke. */
static struct {
  mli_lock lock;
  int number; /* [M] 0: not chosen yet; -1: none is free */
  bool taken; /* [M] our handler was set */
} sig;

static bool is_free(int number) {
  struct sigaction action;
  return sigaction(number, NULL, &action) == 0 && !(action.sa_flags & SA_SIGINFO) &&
         action.sa_handler == SIG_DFL;
}

static bool is_ours(int number) {
  struct sigaction action;
  return sigaction(number, NULL, &action) == 0 && (action.sa_flags & SA_SIGINFO) &&
         action.sa_sigaction == on_signal;
}

/* A free one, from the upper end, the ends left to others. One that the host blocks may be
** one that it waits for: second choice. */
static int find_signal(void) {
  sigset_t blocked;
  if (pthread_sigmask(SIG_BLOCK, NULL, &blocked)) return -1;
  int second = -1;
  for (int n = SIGRTMAX - 1; n > SIGRTMIN; n--) {
    if (!is_free(n)) continue;
    if (!sigismember(&blocked, n)) return n;
    if (second < 0) second = n;
  }
  return second;
}

int lml_poke_choose(void) {
  mli_lock_acquire(&sig.lock);
  if (sig.number == 0) sig.number = find_signal();
  int number = sig.number;
  mli_lock_release(&sig.lock);
  return number;
}

/* The signal's number with our handler in place, or -1: somebody else has it by now. The
** handler stays for good: one more may always be on its way. */
static int take_signal(void) {
  int number = lml_poke_choose();
  if (number < 0) return -1;
  mli_lock_acquire(&sig.lock);
  if (!sig.taken && is_free(number)) {
    struct sigaction action = { .sa_sigaction = on_signal,
                                .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK };
    sigemptyset(&action.sa_mask);
    sig.taken = sigaction(number, &action, NULL) == 0;
  }
  if (!sig.taken || !is_ours(number)) number = -1;
  mli_lock_release(&sig.lock);
  return number;
}

bool lml_poke(lml_state *S, lml_poke_reason reason) {
  atomic_fetch_or(&S->poked.reasons, 1u << reason);
  int number = take_signal();
  if (number < 0) return false;
  if (atomic_exchange(&S->poked.sent, true)) return true;
  if (pthread_kill(S->poked.thread, number) == 0) return true;
  atomic_store(&S->poked.sent, false);
  return false;
}

void lml_poke_forget(lml_state *S, lml_poke_reason reason) {
  atomic_fetch_and(&S->poked.reasons, ~(1u << reason));
}

bool lml_poke_is_due(const lml_state *S, lml_poke_reason reason) {
  return atomic_load(&S->poked.reasons) & 1u << reason;
}

void lml_poke_enter(lml_state *S) {
  /* On each visit of a driven loop it is the same: others may read it. */
  if (!pthread_equal(S->poked.thread, pthread_self())) S->poked.thread = pthread_self();
  S->poked.outer = here;
  here = S;
  atomic_store(&S->poked.sent, false); /* one that came while we were away was for nobody */
  int number = lml_poke_choose();
  bool ours = S->worker && !S->worker->joined; /* else the thread is the host's */
  if (!ours || number < 0) return;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  pthread_sigmask(SIG_UNBLOCK, &set, NULL); /* cannot fail for a valid set */
}

void lml_poke_leave(lml_state *S) { here = S->poked.outer; }
