/* poke.c: the signal and the hook behind lml_poke. */
#include "poke.h"

#include <errno.h>
#include <signal.h>
#include "state.h"

#if defined(__x86_64__)
#define PLACE_OF(context) ((uintptr_t)((ucontext_t *)(context))->uc_mcontext.gregs[REG_RIP])
#elif defined(__i386__)
#define PLACE_OF(context) ((uintptr_t)((ucontext_t *)(context))->uc_mcontext.gregs[REG_EIP])
#elif defined(__aarch64__)
#define PLACE_OF(context) ((uintptr_t)((ucontext_t *)(context))->uc_mcontext.pc)
#else
#define PLACE_OF(context) ((void)(context), (uintptr_t)0)
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

/* What runs, as far as it was we who called it; NULL: nothing that a hook could stop. */
static lua_State *runs(const lml_state *S) {
  if (S->running) return S->running;
  if (S->delivering) return S->callbacks;
  if (S->from) return S->from;
  return S->task ? S->L : NULL;
}

static void on_signal(int number, siginfo_t *info, void *context) {
  (void)number, (void)info;
  int error = errno;
  lml_state *S = here;
  if (S) {
    atomic_store(&S->poked.sent, false);
    atomic_store(&S->poked.place, PLACE_OF(context));
    unsigned reasons = atomic_load(&S->poked.reasons);
    for (unsigned i = 0; i < LML_POKE_REASONS; i++)
      if ((reasons & 1u << i) && functions[i].note) functions[i].note(S);
    lua_State *L = reasons ? runs(S) : NULL;
    if (L) arm(S, L);
  }
  errno = error;
}

/* The signal's number: chosen at first use, for threads to let it through; taken with
** the first poke. */
static struct {
  mli_lock lock;
  int number;             /* [M] 0: not chosen yet; -1: none is free */
  enum { NO, YES } taken; /* [M] */
} sig;

static bool is_free(int number) {
  struct sigaction action;
  return sigaction(number, NULL, &action) == 0 && !(action.sa_flags & SA_SIGINFO) &&
         action.sa_handler == SIG_DFL;
}

static int choose_signal(void) {
  mli_lock_acquire(&sig.lock);
  if (sig.number == 0) {
    sig.number = -1;
    for (int n = SIGRTMAX - 1; n > SIGRTMIN && sig.number < 0;
         n--) /* the ends are in use by others */
      if (is_free(n)) sig.number = n;
  }
  int number = sig.number;
  mli_lock_release(&sig.lock);
  return number;
}

/* The signal's number with our handler in place, or -1. It stays for good: one more may
** always be on its way. */
static int take_signal(void) {
  int number = choose_signal();
  mli_lock_acquire(&sig.lock);
  if (sig.taken == NO && number > 0) {
    struct sigaction action = { .sa_sigaction = on_signal,
                                .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK };
    sigemptyset(&action.sa_mask);
    if (is_free(number) && sigaction(number, &action, NULL) == 0)
      sig.taken = YES;
    else
      number = -1; /* somebody else has it by now */
  }
  mli_lock_release(&sig.lock);
  return number;
}

bool lml_poke(lml_state *S, lml_poke_reason reason) {
  int number = take_signal();
  if (number < 0) return false;
  atomic_fetch_or(&S->poked.reasons, 1u << reason);
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
  S->poked.thread = pthread_self();
  S->poked.outer = here;
  here = S;
  atomic_store(&S->poked.sent, false); /* one that came while we were away was for nobody */
  int number = S->worker && !S->worker->executor->driven ? choose_signal() : -1;
  if (number < 0) return;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  pthread_sigmask(SIG_UNBLOCK, &set, NULL); /* cannot fail for a valid set */
}

void lml_poke_leave(lml_state *S) { here = S->poked.outer; }
