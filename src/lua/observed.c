/*
** observed.c: what a trace and a summary tell of a state's jobs and of its collector, and
** the functions behind ml.trace:
**
**   trace_start(bytes)   -- true; false: it had begun before
**   trace_stop()         -- whether it was on
**   trace_begun()        -- whether there was ever a start
**   trace_write(path)    -- events, dropped; or nil and an error
**
** Lua does not tell when its collector works. What can be seen from outside is the end of
** a cycle, by an object that nobody refers to: the collector then calls its finalizer, which
** makes the next one.
*/
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "core/observe.h"
#include "state.h"

/* ---- jobs ---- */

static mli_observed_job describe(lml_job *job) {
  mli_observed_job o = { 0 };
  if (job->task) {
    o = mli_observe_task(job->task);
  } else {
    o.line = job->place.line;
    o.chunk = job->place.chunk ? lml_chunk_name(job->S, job->place.chunk) : NULL;
  }
  if (job->info && job->info->name) o.name = job->info->name;
  if (!o.lane && mli_tracing()) o.lane = mli_trace_lane(job->id);
  o.number = job->id;
  o.parent = job->parent;
  return o;
}

/* Whether the trace that goes on has the job's begin. */
static bool is_traced(const lml_job *job) { return job->traced == (uint8_t)mli_trace_starts(); }

uint64_t lml_observe_run(lua_State *L, lml_state *S, lml_job *job, bool first) {
  if (!S->tells_cycles) lml_observe_cycles(L, S);
  uint64_t now = mli_now(), since = first ? job->await.since : now;
  if (first && job->task) since = job->task->submitted_at;
  if (since == 0 || since > now) since = now;
  bool untold = mli_tracing() && !is_traced(job);
  if (first || untold) {
    mli_observed_job o = describe(job);
    if (!first) o.arrow = false; /* it began before the trace did */
    if (!first) mli_observe_again(&o, now);
    if (first) mli_observe_start(&o, since, now);
    if (untold) job->traced = (uint8_t)mli_trace_starts();
  }
  return now;
}

void lml_observe_ran(lml_state *S, lml_job *job, uint64_t began) {
  mli_observed_job o = describe(job);
  mli_observe_run(&o, began, atomic_load_explicit(&S->loop->watch.limit, memory_order_relaxed));
}

void lml_observe_woken(lml_job *job) {
  if (!mli_tracing() || !is_traced(job)) return;
  mli_observed_job o = describe(job);
  mli_observe_park(&o, job->await.what, job->await.since);
}

void lml_observe_end(lml_job *job, mli_state state) {
  mli_observed_job o = describe(job);
  mli_observe_end(&o, state, is_traced(job));
}

/* ---- the collector's cycles ---- */

#define CYCLE "moonloop.cycle" /* metatable, in the registry */

static int cycle_ends(lua_State *L) {
  lml_state *S = lml_state_of(L);
  S->tells_cycles = false;
  if (S->closed || !mli_observing()) return 0;
  mli_observe_gc_cycle();
  lml_observe_cycles(L, S);
  return 0;
}

void lml_observe_cycles(lua_State *L, lml_state *S) {
  luaL_checkstack(L, 4, NULL);
  lua_newuserdatauv(L, 0, 0);
  if (luaL_newmetatable(L, CYCLE)) {
    lua_pushcfunction(L, cycle_ends);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  lua_pop(L, 1);
  S->tells_cycles = true;
}

/* ---- Lua ---- */

static int l_trace_start(lua_State *L) {
  lml_state *S = lml_upstate(L);
  bool began = mli_trace_start((size_t)luaL_checkinteger(L, 1));
  if (!S->tells_cycles) lml_observe_cycles(L, S);
  lua_pushboolean(L, began);
  return 1;
}

static int l_trace_stop(lua_State *L) {
  lua_pushboolean(L, mli_trace_stop());
  return 1;
}

static int l_trace_begun(lua_State *L) {
  lua_pushboolean(L, mli_trace_starts() > 0);
  return 1;
}

static int l_trace_write(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  mli_trace_written written;
  FILE *to = fopen(path, "we");
  int err = to ? mli_trace_write(to, &written) : errno;
  if (to && fclose(to) != 0 && !err) err = errno;
  if (err) return lml_fail(L, uv_err_name(-err), "cannot write %s: %s", path, strerror(err));
  lua_pushinteger(L, (lua_Integer)written.events);
  lua_pushinteger(L, (lua_Integer)written.dropped);
  return 2;
}

void lml_observed_open(lua_State *L) {
  static const luaL_Reg functions[] = {
    { "trace_start", l_trace_start },
    { "trace_stop", l_trace_stop },
    { "trace_begun", l_trace_begun },
    { "trace_write", l_trace_write },
    { NULL, NULL },
  };
  lml_setfuncs(L, functions);
}
