/*
** tidy.c: the collector on a loop that is at rest. Lua collects as memory is taken,
** so a loop with nothing to do would keep what its last jobs dropped, and others may
** wait for that: a promise that nobody can settle any more, an error that nobody asked
** for, a socket. So when no job has run for a moment, a cycle is done, step by step;
** the loop serves everything else in between.
**
**   AT REST --[a job ran]--> STIRRED --[quiet]--> COLLECTING --[cycles done]--> AT REST
**                               ^______[a job ran]______/
**
** T1  At rest no timer runs: an idle loop sleeps.
** T2  What this costs is a small part of the time that passes: see REST.
** T3  A collector that the program stopped stays stopped.
*/
#include "core/observe.h"
#include "state.h"

#define QUIET (100 * MLI_MILLISECOND)
#define REST 20 /* after a collection: so many times what it took */
/* A cycle that was half done has passed by what was dropped since: another one follows. */
#define CYCLES 2

static void wait_for_quiet(lml_state *S) {
  uint64_t at = mli_now() + QUIET;
  S->stirred = false;
  S->tidy_cycles = CYCLES;
  S->tidy_took = 0;
  mli_loop_timer_start(S->loop, &S->tidy, at > S->tidy_from ? at : S->tidy_from);
}

/* A step of the cycle; false when there is no more to do. A generational collector
** has no steps. Protected, and with room for finalizers. */
static int step(lua_State *L) {
  lml_state *S = lua_touserdata(L, 1);
  if (lua_gc(L, LUA_GCINC, 0, 0, 0) == LUA_GCGEN) {
    lua_gc(L, LUA_GCGEN, 0, 0);
    lua_gc(L, LUA_GCCOLLECT);
    S->tidy_cycles = 0;
  } else if (lua_gc(L, LUA_GCSTEP, 0)) {
    S->tidy_cycles--;
  }
  return 0;
}

static void tidy(mli_timer *timer) {
  lml_state *S = mli_container(timer, lml_state, tidy);
  lua_State *L = S->from;
  if (S->stirred) {
    wait_for_quiet(S);
    return;
  }
  if (!lua_gc(L, LUA_GCISRUNNING) || !lua_checkstack(L, LUA_MINSTACK)) return;
  uint64_t began = mli_now();
  lua_pushcfunction(L, step);
  lua_pushlightuserdata(L, S);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
    lua_pop(L, 1);
    return;
  }
  if (mli_unlikely(mli_observing())) mli_observe_gc_step(began, (size_t)lua_gc(L, LUA_GCCOUNT));
  uint64_t now = mli_now();
  S->tidy_took += now - began;
  S->tidy_from = now + REST * S->tidy_took;
  if (S->tidy_cycles > 0) mli_loop_timer_start(S->loop, timer, now);
}

void lml_tidy_later(lml_state *S) {
  if (mli_timer_active(&S->tidy)) {
    S->stirred = true;
  } else {
    S->tidy.fire = tidy;
    wait_for_quiet(S);
  }
}

void lml_tidy_end(lml_state *S) { mli_loop_timer_stop(S->loop, &S->tidy); }
