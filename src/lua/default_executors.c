/*
** default_executors.c: who keeps executors alive and who ends them: those that a state made,
** and the process's defaults.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "holdouts.h"
#include "worker.h"

#define CLOSE_GRACE (5 * MLI_SECOND)
#define ANSWER_MS 200 /* for its threads to say where they are, at most */

/* ---- what a state made ---- */

typedef struct owned { /* what this state made, to shut down as it closes */
  mli_executor *executor;
  struct owned *next;
} owned;

void lml_executors_disown(lml_state *S) {
  for (owned **at = &S->owned; *at;) {
    owned *o = *at;
    if (!mli_future_settled(o->executor->ended)) {
      at = &o->next;
      continue;
    }
    *at = o->next;
    mli_executor_join(o->executor);
    mli_release(o->executor);
    free(o);
  }
}

void lml_executor_own(lua_State *L, lml_state *S, mli_executor *ex) {
  lml_executors_disown(S);
  owned *o = malloc(sizeof *o);
  if (!o) luaL_error(L, "not enough memory");
  o->executor = mli_retain(ex);
  o->next = S->owned;
  S->owned = o;
}

/* ---- the defaults ---- */

static struct {
  mli_lock lock;                   /* a leaf */
  mli_executor *loop, *pool, *cpu; /* [M] each holds a reference and a use */
  atomic_bool loop_ours;           /* [A] made by us, not set */
  unsigned hosts;                  /* [M] states of the host that are open */
} defaults;

bool lml_executor_is_default(const mli_executor *ex) {
  mli_lock_acquire(&defaults.lock);
  bool is = ex == defaults.loop || ex == defaults.pool || ex == defaults.cpu;
  mli_lock_release(&defaults.lock);
  return is;
}

/* The default in `slot`, kept alive by this state until it asks again; NULL: none. */
static mli_executor *get_default(lml_state *S, mli_executor **slot) {
  mli_executor **kept = slot == &defaults.loop   ? &S->default_loop
                        : slot == &defaults.pool ? &S->default_pool
                                                 : &S->default_cpu;
  mli_lock_acquire(&defaults.lock);
  mli_executor *ex = *slot, *old = *kept;
  if (ex && ex != old) mli_object_retain(&ex->object);
  *kept = ex;
  mli_lock_release(&defaults.lock);
  if (old && old != ex) mli_release(old);
  return ex;
}

/* Installs `ex` unless another thread was first; returns the one that counts. */
static mli_executor *install_default(lml_state *S, mli_executor **slot, mli_executor *ex) {
  mli_executor_use(ex);
  mli_object_retain(&ex->object);
  mli_lock_acquire(&defaults.lock);
  mli_executor *now = *slot;
  if (!now) {
    *slot = ex;
    if (slot == &defaults.loop) defaults.loop_ours = true;
  }
  mli_lock_release(&defaults.lock);
  if (now) {
    mli_executor_leave(ex);
    mli_release(ex);
  }
  return get_default(S, slot);
}

static void leave_default(mli_executor *ex) {
  mli_executor_leave(ex);
  mli_release(ex);
}

/* A default of ours that was shut down makes place for a new one. */
static void drop_default(mli_executor **slot, mli_executor *ex) {
  mli_lock_acquire(&defaults.lock);
  bool same = *slot == ex;
  if (same) *slot = NULL;
  mli_lock_release(&defaults.lock);
  if (same) leave_default(ex);
}

mli_executor *lml_default_executor(lua_State *L) {
  lml_state *S = lml_state_of(L);
  if (S->bound) return S->bound;
  if (S->worker && S->loop && lml_host_of(S->worker->executor)) return S->worker->executor;
  mli_executor *ex = get_default(S, &defaults.loop);
  if (ex && !(atomic_load(&ex->closing) && defaults.loop_ours)) return ex;
  if (ex) drop_default(&defaults.loop, ex);
  const char *init = getenv("MOONLOOP_INIT");
  if (init && strcmp(init, "0") == 0)
    lml_misuse(L, "no event loop is set and MOONLOOP_INIT=0 forbids making one: call "
                  "moonloop.set_event_loop(moonloop.AsyncExecutor{})");
  ex = lml_executor_make(L, "moonloop", &(lml_making){ .loops = true, .size = 1 }, 0, 0);
  ex = install_default(S, &defaults.loop, ex);
  lua_pop(L, 1);
  return ex;
}

unsigned lml_default_workers(void) {
  unsigned n = uv_available_parallelism() + 4;
  return n < 32 ? n : 32;
}

static mli_executor *default_pool(lua_State *L, mli_executor **slot, const char *name,
                                  unsigned size) {
  lml_state *S = lml_state_of(L);
  mli_executor *ex = get_default(S, slot);
  if (ex && !atomic_load(&ex->closing)) return ex;
  if (ex) drop_default(slot, ex);
  lml_making making = { .size = size, .idle_life = LML_IDLE_LIFE };
  ex = lml_executor_make(L, name, &making, 0, 0);
  ex = install_default(S, slot, ex);
  lua_pop(L, 1);
  return ex;
}

static int l_default_executor(lua_State *L) {
  lml_handle_push(L, &lml_default_executor(L)->object);
  return 1;
}

static int l_default_pool(lua_State *L) {
  lml_handle_push(L,
                  &default_pool(L, &defaults.pool, "moonloop-pool", lml_default_workers())->object);
  return 1;
}

/* The pool for what computes: a worker for each core. */
static int l_default_cpu(lua_State *L) {
  unsigned cores = uv_available_parallelism();
  lml_handle_push(L, &default_pool(L, &defaults.cpu, "moonloop-cpu", cores)->object);
  return 1;
}

/* set_default(executor or nil): returns the one before, or nil. */
static int l_set_default(lua_State *L) {
  mli_executor *ex = NULL;
  if (!lua_isnoneornil(L, 1)) {
    ex = lml_executor_check(L, 1);
    if (ex->class != &lml_loop_class)
      return lml_misuse(L, "set_event_loop: only an AsyncExecutor can be the event loop");
  }
  lml_state *S = lml_state_of(L);
  if (S->bound) { /* the host's choice for this state: others keep theirs */
    lml_handle_push(L, &S->bound->object);
    lml_bind(S, ex);
    return 1;
  }
  if (ex) {
    mli_executor_use(ex);
    mli_object_retain(&ex->object);
  }
  mli_lock_acquire(&defaults.lock);
  mli_executor *old = defaults.loop;
  defaults.loop = ex;
  defaults.loop_ours = false;
  mli_lock_release(&defaults.lock);
  if (!old) return 0;
  lml_handle_push(L, &old->object);
  leave_default(old);
  return 1;
}

void lml_host_enter(void) {
  mli_lock_acquire(&defaults.lock);
  defaults.hosts++;
  mli_lock_release(&defaults.lock);
}

/* Says what keeps an executor from ending, and at which line. */
static void complain(mli_executor *ex) {
  char text[2048];
  int n = snprintf(text, sizeof text,
                   "executor '%s' did not stop within %d s of its state's closing:", ex->name,
                   (int)(CLOSE_GRACE / MLI_SECOND));
  lml_holdouts(ex, "\n  ", ANSWER_MS, text + n, sizeof text - (size_t)n);
  lml_log(ex, text);
}

/* Ends an executor for good, but waits no longer than the grace. */
static void end_executor(mli_executor *ex) {
  mli_executor_shutdown(ex, true);
  if (mli_future_wait(ex->ended, mli_now() + CLOSE_GRACE) == ML_OK)
    mli_executor_join(ex);
  else
    complain(ex);
}

void lml_host_leave(void) {
  mli_lock_acquire(&defaults.lock);
  bool last = --defaults.hosts == 0;
  mli_executor *all[3] = { NULL };
  if (last) {
    all[0] = defaults.pool, all[1] = defaults.cpu, all[2] = defaults.loop;
    defaults.loop = defaults.pool = defaults.cpu = NULL;
  }
  mli_lock_release(&defaults.lock);
  for (int i = 0; i < 3; i++) {
    if (!all[i]) continue;
    end_executor(all[i]);
    leave_default(all[i]);
  }
  if (last) mli_watch_end();
}

void lml_executors_each(lml_state *S, void (*f)(mli_executor *ex)) {
  mli_executor *others[3] = { get_default(S, &defaults.loop), get_default(S, &defaults.pool),
                              get_default(S, &defaults.cpu) };
  for (owned *o = S->owned; o; o = o->next) {
    f(o->executor);
    for (int i = 0; i < 3; i++)
      if (others[i] == o->executor) others[i] = NULL;
  }
  for (int i = 0; i < 3; i++)
    if (others[i]) f(others[i]);
}

void lml_bind(lml_state *S, mli_executor *ex) {
  mli_executor *old = S->bound;
  if (ex) mli_executor_use(mli_retain(ex));
  S->bound = ex;
  if (old) leave_default(old);
}

void lml_executors_close(lml_state *S) {
  lml_bind(S, NULL);
  if (S->default_loop) mli_release(S->default_loop);
  if (S->default_pool) mli_release(S->default_pool);
  if (S->default_cpu) mli_release(S->default_cpu);
  S->default_loop = S->default_pool = S->default_cpu = NULL;
  while (S->owned) {
    owned *o = S->owned;
    S->owned = o->next;
    end_executor(o->executor);
    mli_release(o->executor);
    free(o);
  }
}

void lml_default_executors_open(lua_State *L) {
  static const luaL_Reg functions[] = {
    { "default_executor", l_default_executor },
    { "set_default", l_set_default },
    { "default_pool", l_default_pool },
    { "default_cpu", l_default_cpu },
    { NULL, NULL },
  };
  lml_setfuncs(L, functions);
  lua_pushinteger(L, (lua_Integer)lml_default_workers());
  lua_setfield(L, -2, "default_workers");
}
