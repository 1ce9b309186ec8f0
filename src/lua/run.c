/*
** run.c: `ml.run`: a loop on the calling thread, in the calling state, for as
** long as its main job and what that leaves behind take.
*/
#include <errno.h>
#include <string.h>
#include "state.h"

#define SIGNAL_SLICE (100 * MLI_MILLISECOND)

typedef struct run {
  lml_state *S;
  lua_State *L;
  lml_future *main;
  lua_Hook hooks[2]; /* of L and of the main thread, before: a signal changes them */
  mli_timer look;    /* looks for that change */
  mli_timer bound;   /* the deadline of the thread's scopes */
  bool interrupted, ending;
} run;

/* A signal's handler leaves a hook in the state, as lua.c's does on Ctrl-C: the
** main job is cancelled for it. */
static void check_interrupt(run *r) {
  lua_State *states[2] = { r->L, r->S->L };
  for (int i = 0; i < 2 && !r->interrupted; i++) {
    lua_Hook hook = lua_gethook(states[i]);
    if (!hook || hook == r->hooks[i] || lml_poke_is_hook(hook)) continue;
    lua_sethook(states[0], NULL, 0, 0);
    lua_sethook(states[1], NULL, 0, 0);
    r->interrupted = true;
    mli_future_cancel(lml_future_core(r->main), NULL);
  }
}

/* To the thread the run is one wait: its scopes bound it, and a worker's task may be
** cancelled. */
static void check_cancel(run *r) {
  if (lml_task_cancelled(r->S) || (r->S->scope && lml_scope_expire(r->S->scope)))
    mli_future_cancel(lml_future_core(r->main), NULL);
}

static void look(mli_timer *timer) {
  run *r = mli_container(timer, run, look);
  check_interrupt(r);
  check_cancel(r);
  uint64_t real, bound = lml_scope_deadline(r->S->scope, &real);
  uint64_t next = mli_now() + SIGNAL_SLICE;
  mli_loop_timer_start(r->S->loop, timer, real < next ? real : next);
  if (bound != MLI_FOREVER) mli_loop_deadline_start(r->S->loop, &r->bound, bound);
}

static void on_bound(mli_timer *timer) { check_cancel(mli_container(timer, run, bound)); }

static bool run_turn(mli_loop *loop) {
  run *r = loop->user;
  lml_state *S = r->S;
  bool more = lml_turn(S);
  check_interrupt(r);
  check_cancel(r);
  if (!r->ending && mli_future_settled(lml_future_core(r->main))) {
    r->ending = true;
    lml_cancel_jobs(S, 0);
    more = true;
  }
  if (r->ending && S->job_count == 0 && !more) mli_loop_stop(loop);
  return more;
}

static const mli_loop_hooks run_hooks = { run_turn };

/* The main job. */
static int begin(lua_State *L) {
  lml_state *S = lml_state_of(L);
  lml_job *job = lml_job_spawn(L, S, lua_gettop(L) - 1);
  job->home = job->id;
  lml_info *info = lml_job_info(job);
  if (info) info->name = strdup("main");
  return 1;
}

bool lml_run(lua_State *L, int nargs) {
  lml_state *S = lml_state_of(L);
  if (S->loop || mli_loop_self())
    luaL_error(L, "run: a loop runs on this thread already, and its callbacks cannot wait");
  run r = { .S = S,
            .L = L,
            .hooks = { lua_gethook(L), lua_gethook(S->L) },
            .look.fire = look,
            .bound.fire = on_bound };
  /* Nothing is called in L meanwhile: a signal's hook would break the turn. */
  luaL_checkstack(L, 3, NULL);
  lua_State *from = lua_newthread(L);
  lua_insert(L, -nargs - 2);
  mli_loop *loop;
  ml_status status = mli_loop_new(&loop, &run_hooks, &r);
  if (status != ML_OK)
    luaL_error(L, "cannot make a loop: %s",
               status == ML_MEMORY ? "not enough memory" : strerror(errno));
  lml_state *outer = lml_thread_state;
  lml_thread_state = S;
  S->loop = loop;
  S->from = from;
  lua_pushcfunction(L, begin);
  lua_insert(L, -nargs - 2);
  bool begun = lua_pcall(L, nargs + 1, 1, 0) == LUA_OK;
  if (begun) {
    r.main = lua_touserdata(L, -1);
    lml_inbox_attach(S->inbox, loop);
    look(&r.look);
    lml_blocked_enter(S);
    mli_loop_run(loop);
    lml_blocked_leave(S);
    lml_inbox_attach(S->inbox, NULL);
    lml_tidy_end(S);
  }
  S->loop = NULL;
  S->from = NULL;
  lml_thread_state = outer;
  mli_release(loop);
  lua_remove(L, -2); /* `from` */
  if (!begun) lua_error(L);
  if (r.interrupted) mli_future_observe(lml_future_core(r.main));
  return !r.interrupted;
}

/* run_loop(f, ...): runs f as the main job of a loop on this thread. */
static int l_run_loop(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  if (!lml_run(L, lua_gettop(L) - 1)) return luaL_error(L, "interrupted!");
  lml_state *S = lml_upstate(L);
  if (mli_future_state(lml_future_core(lua_touserdata(L, 1))) == MLI_STOPPED) {
    lml_scope *scope = lml_scope_cancelled(S->scope);
    if (scope) lml_raise_cancelled(L, S, scope);
    if (lml_task_cancelled(S)) lml_raise_task_cancelled(L, S);
  }
  return lml_future_push(L, S, 1);
}

/* ---- a run inside a job: its jobs are those that it and they spawn ---- */

/* spawn_main(f, ...): a job that others can belong to; its future. */
static int l_spawn_main(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lml_job *job = lml_job_spawn(L, S, lua_gettop(L) - 1);
  job->home = job->id;
  lua_pushinteger(L, (lua_Integer)job->id);
  return 2;
}

/* jobs_of(id): the futures of the jobs that belong to the main job `id`. */
static int l_jobs_of(lua_State *L) {
  lml_state *S = lml_upstate(L);
  uint32_t home = (uint32_t)luaL_checkinteger(L, 1);
  lua_Integer n = 0;
  lua_newtable(L);
  for (lml_job *job = S->jobs; job; job = job->next) {
    if (job->home != home || job->task) continue;
    lml_job_push_future(L, job);
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

/* has_loop(): whether jobs can be spawned in this state now. */
static int l_has_loop(lua_State *L) {
  lua_pushboolean(L, lml_upstate(L)->loop != NULL);
  return 1;
}

void lml_run_open(lua_State *L) {
  static const luaL_Reg functions[] = {
    { "run_loop", l_run_loop },
    { "spawn_main", l_spawn_main },
    { "jobs_of", l_jobs_of },
    { "has_loop", l_has_loop },
    { NULL, NULL },
  };
  lml_setfuncs(L, functions);
}
