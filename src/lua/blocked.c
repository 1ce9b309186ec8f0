/*
** blocked.c: a loop that is held up by a job that does not wait. The watching thread
** (core/watch.h) sees it; the loop's own thread says where: a poke has it take its
** traceback. Inside one C call there is no next instruction: then the watching thread
** says what the signal found, and the traceback follows when the call is over.
**
**   quiet --[late]--> poked --the hook--> reported
**                       \--[late again]--> told: inside a C call --hook, or end of the
**                                          step--> reported
**
** B1  Each incident is reported once to the handler, by the loop's thread, in its state.
** B2  A slice ends in the job's own coroutine only, and only where Lua can yield.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/observe.h"
#include "state.h"

#define LIMIT (100 * MLI_MILLISECOND)
#define PATIENCE 10 /* limits, until a loop that sees no signal is named without */

static lml_handler handler = { .slot = LML_ON_BLOCKED };

static int l_on_blocked(lua_State *L) { return lml_handler_set(L, &handler); }

/* To the host, if it wants to know. `spot`: NULL if it is not known. */
static bool tell_host(const lml_state *S, const lml_spot *spot, uint64_t time, const char *inside,
                      const char *traceback) {
  const lml_host *host = S->held.host;
  if (!host || !host->on_blocked) return false;
  char where[LUA_IDSIZE + 16] = "";
  if (spot && spot->line) snprintf(where, sizeof where, "%s:%u", spot->chunk, spot->line);
  const ml_blocked b = { .size = sizeof b,
                         .name = spot && spot->name[0] ? spot->name : NULL,
                         .submitted = where[0] ? where : NULL,
                         .time = time,
                         .inside = inside[0] ? inside : NULL,
                         .traceback = traceback };
  host->on_blocked(&b, host->user);
  return true;
}

static void say(const char *text) { atomic_load (&lml_report_write)(text, strlen(text)); }

/* ---- the report, on the loop's thread ---- */

typedef struct incident {
  lml_state *S;
  bool inside; /* the hook interrupted Lua code: it has a traceback */
  uint64_t time;
  lml_spot spot;
  char who[MLI_NAME_MAX + LUA_IDSIZE + 64], call[LML_SPOT_CALL];
} incident;

/* Pushes the frames of the running coroutine, then of those that resumed it. */
static void push_frames(lua_State *L, lml_state *S) {
  luaL_checkstack(L, 12, NULL);
  luaL_traceback(L, L, NULL, 1); /* 0 is the report */
  for (lml_resume *r = S->frames; r; r = r->outer) {
    lua_pushliteral(L, "\nin a coroutine that was resumed at\n");
    luaL_traceback(L, r->from, NULL, 0);
    lua_pushstring(L, luaL_gsub(L, lua_tostring(L, -1), "stack traceback:\n", ""));
    lua_replace(L, -3);
    lua_pop(L, 1);
    lua_concat(L, 3);
  }
}

static void set_field(lua_State *L, const char *key, const char *value) {
  if (!*value) return;
  lua_pushstring(L, value);
  lua_setfield(L, -2, key);
}

/* Stack: incident, traceback or nil. Pushes the info. */
static void push_info(lua_State *L, const incident *i) {
  const lml_spot *h = &i->spot;
  char name[32], where[LUA_IDSIZE + 16] = "";
  snprintf(name, sizeof name, "job %u", h->id);
  if (h->line) snprintf(where, sizeof where, "%s:%u", h->chunk, h->line);
  lua_createtable(L, 0, 6);
  set_field(L, "kind", h->id ? "job" : "callback");
  if (h->id) set_field(L, "name", h->name[0] ? h->name : name);
  set_field(L, "submitted_at", where);
  set_field(L, "inside", i->call);
  lua_pushvalue(L, 2);
  lua_setfield(L, -2, "traceback");
  lua_pushnumber(L, (lua_Number)i->time / 1e6);
  lua_setfield(L, -2, "ms");
}

/* Stack: incident. */
static int report(lua_State *L) {
  const incident *i = lua_touserdata(L, 1);
  if (i->inside)
    push_frames(L, i->S);
  else
    lua_pushnil(L);
  lml_handler_push(L, i->S, &handler);
  if (!lua_isnil(L, -1)) {
    push_info(L, i);
    lua_call(L, 1, 0);
    return 0;
  }
  if (tell_host(i->S, &i->spot, i->time, i->call, lua_tostring(L, 2))) return 0;
  lua_pushfstring(L, "moonloop: %s %s its loop for %d ms%s%s%s\n", i->who,
                  i->call[0] ? "held" : "holds", (int)(i->time / MLI_MILLISECOND),
                  i->call[0] ? ", inside one C call: " : "", i->call, i->inside ? ":" : "");
  if (i->inside) {
    lua_pushvalue(L, 2);
    lua_pushliteral(L, "\n");
    lua_concat(L, 3);
  }
  say(lua_tostring(L, -1));
  return 0;
}

/* Where it is, for the trace. */
static void trace_it(lua_State *L, const incident *i) {
  char chunk[LUA_IDSIZE], where[LUA_IDSIZE + 16];
  uint32_t line;
  lml_where(L, 0, chunk, sizeof chunk, &line);
  snprintf(where, sizeof where, "%s:%u", chunk, line);
  mli_observe_held(i->who, i->inside && line ? where : i->call);
}

/* A report is in no job: its handler must not wait. An incident whose step was over before
** the poke came is none. */
static void report_from(lua_State *L, lml_state *S, bool inside) {
  lml_held *h = &S->held;
  mli_watch *w = &S->loop->watch;
  unsigned beat = atomic_load(&h->beat);
  if (beat != atomic_load_explicit(&w->beat, memory_order_relaxed)) {
    atomic_fetch_sub_explicit(&w->incidents, 1, memory_order_relaxed);
    return;
  }
  uint64_t now = mli_now(), since = atomic_load(&h->since);
  incident i = { .S = S, .inside = inside, .time = now > since ? now - since : 0 };
  if (!lml_spot_of_step(S, beat, &i.spot)) { /* no signal came */
    lml_spot_note(S);
    lml_spot_of_step(S, beat, &i.spot);
  }
  lml_spot_describe(&i.spot, i.who, sizeof i.who);
  if (atomic_load(&h->told)) lml_spot_call(&i.spot, i.call, sizeof i.call);
  if (!lua_checkstack(L, LUA_MINSTACK)) return;
  if (mli_tracing()) trace_it(L, &i);
  lml_job *job = S->current;
  S->current = NULL;
  lua_pushcfunction(L, lml_message_handler);
  lua_pushcfunction(L, report);
  lua_pushlightuserdata(L, &i);
  if (lua_pcall(L, 1, 0, -3) != LUA_OK) lml_report(L, S, "on_blocked", NULL, S->joined, NULL);
  lua_pop(L, 1);
  S->current = job;
}

/* In the hook. */
static void serve_look(lua_State *L, lml_state *S) { report_from(L, S, true); }

static void serve_ask(lua_State *L, lml_state *S) {
  lml_spot_place(L, S);
  lml_questions_answer(L, S);
}

static void serve_slice(lua_State *L, lml_state *S) {
  lml_job *job = S->current;
  if (!job || !job->slice || S->closing) return;
  if (L != job->co) {
    lml_poke_later(S, LML_POKE_SLICE);
  } else if (lua_isyieldable(L)) {
    S->preempted = true;
    lua_yield(L, 0);
  }
}

void lml_blocked_over(lml_state *S) {
  unsigned look = 1u << LML_POKE_LOOK, ask = 1u << LML_POKE_ASK, slice = 1u << LML_POKE_SLICE;
  unsigned reasons = atomic_fetch_and(&S->poked.reasons, ~(look | ask | slice));
  if (reasons & look) report_from(S->from, S, false);
  if (reasons & ask) lml_questions_answer(S->from, S);
}

/* ---- on the watching thread ---- */

/* It was poked and serves no hook: it is inside a C call, if it has had the time to see the
** signal. True: there is no more to say. */
static bool tell_stuck(lml_state *S, mli_watch *w, uint64_t took) {
  lml_held *h = &S->held;
  if (!lml_poke_is_due(S, LML_POKE_LOOK)) return true;
  char who[MLI_NAME_MAX + LUA_IDSIZE + 64] = "a job", call[LML_SPOT_CALL] = "", text[512];
  uint64_t limit = atomic_load(&w->limit);
  lml_spot spot;
  bool noted = lml_spot_of_step(S, w->seen, &spot);
  if (!noted && w->counted < PATIENCE * limit) return false;
  if (noted && !h->again) { /* the line that called may be known at a second look */
    h->again = true;
    lml_poke(S, LML_POKE_ASK);
    return false;
  }
  if (noted) {
    lml_spot_describe(&spot, who, sizeof who);
    lml_spot_call(&spot, call, sizeof call);
  }
  atomic_store(&h->told, noted);
  if (lml_handler_is_set(&handler)) return true; /* it is told when the call is over */
  if (tell_host(S, noted ? &spot : NULL, took, call, NULL)) return true;
  snprintf(text, sizeof text, "moonloop: %s %s its loop for %d ms%s%s%s\n", who,
           noted ? "holds" : "that cannot be looked at holds", (int)(took / MLI_MILLISECOND),
           noted ? ", inside one C call" : "", *call ? ": " : "", call);
  say(text);
  return true;
}

static bool late(mli_watch *w, mli_late what, uint64_t took) {
  lml_state *S = w->owner;
  lml_held *h = &S->held;
  switch (what) {
  case MLI_LATE_STEP:
    atomic_store(&h->told, false);
    h->again = false;
    atomic_store(&h->since, atomic_load(&w->since));
    atomic_store(&h->beat, w->seen);
    lml_poke(S, LML_POKE_LOOK);
    return true;
  case MLI_LATE_STUCK: return tell_stuck(S, w, took);
  default: lml_poke(S, LML_POKE_SLICE); return true;
  }
}

/* ---- life ---- */

static _Atomic uint64_t given_limit = UINT64_MAX; /* UINT64_MAX: not asked for yet */

/* The process's limit: the environment's, or else the one of who asks first. */
static uint64_t process_limit(uint64_t otherwise) {
  uint64_t limit = atomic_load(&given_limit);
  if (limit != UINT64_MAX) return limit;
  const char *text = getenv("MOONLOOP_BLOCKED_MS");
  char *end;
  double ms = text && *text ? strtod(text, &end) : -1;
  limit = ms >= 0 && ms < 1e12 && *end == '\0' ? (uint64_t)(ms * 1e6) : otherwise;
  uint64_t nobody = UINT64_MAX;
  return atomic_compare_exchange_strong(&given_limit, &nobody, limit) ? limit : nobody;
}

void lml_blocked_host(void) { process_limit(0); }

void lml_blocked_enter(lml_state *S) {
  mli_watch *w = &S->loop->watch;
  const lml_host *host = S->worker ? lml_host_of(S->worker->executor) : NULL;
  uint64_t limit = host ? host->blocked_after : 0;
  if (!limit) limit = process_limit(LIMIT);
  S->held.host = host;
  S->slice = host ? host->slice : 0;
  w->late = late;
  w->owner = S;
  atomic_store(&w->limit, limit);
  lml_poke_enter(S);
  mli_watch_add(w);
}

/* A message to the loop: its limits. */
typedef struct limits {
  mli_node node;
  uint64_t limit;
  unsigned slice;
} limits;

static void set_limits(mli_node *node, mli_loop *loop) {
  limits *l = mli_container(node, limits, node);
  if (loop->watch.owner) ((lml_state *)loop->watch.owner)->slice = l->slice;
  mli_watch_limit(&loop->watch, l->limit);
  free(l);
}

static uint64_t check_ms(lua_State *L, int arg, const char *option, uint64_t otherwise) {
  if (lua_isnoneornil(L, arg)) return otherwise;
  lua_Number ms = lua_type(L, arg) == LUA_TNUMBER ? lua_tonumber(L, arg) : -1;
  if (!(ms >= 0 && ms <= 3600e3))
    lml_misuse(L, "option '%s': milliseconds from 0 to 3600000 expected, got %s", option,
               luaL_tolstring(L, arg, NULL));
  return (uint64_t)(ms * 1e6);
}

/* loop_limits(executor or nil, blocked_ms or nil, preempt_ms or nil): checks them and sets
** those of its loops, for jobs that are submitted from here on. */
static int l_loop_limits(lua_State *L) {
  uint64_t limit = check_ms(L, 2, "blocked_ms", process_limit(LIMIT));
  uint64_t slice = check_ms(L, 3, "preempt_ms", 0) / 1000;
  if (lua_isnil(L, 1) || (lua_isnil(L, 2) && lua_isnil(L, 3))) return 0;
  mli_executor *ex = lml_executor_check(L, 1);
  for (unsigned i = 0; i < ex->size; i++) {
    limits *l = malloc(sizeof *l);
    if (!l) return luaL_error(L, "not enough memory");
    l->node.run = set_limits;
    l->limit = limit;
    l->slice = (unsigned)slice;
    if (!mli_loop_post(ex->workers[i]->loop, &l->node)) free(l);
  }
  return 0;
}

/* may_block(): the running loop is not reported any more, unless the environment says when. */
static int l_may_block(lua_State *L) {
  lml_state *S = lml_upstate(L);
  const char *given = getenv("MOONLOOP_BLOCKED_MS");
  if (S->loop && !(given && *given)) mli_watch_limit(&S->loop->watch, 0);
  return 0;
}

/* preempt(ms): from its next step on the running job lets others have their turn so often;
** 0: when it waits. In no job it says nothing. */
static int l_preempt(lua_State *L) {
  unsigned slice = (unsigned)(check_ms(L, 1, "preempt_ms", 0) / 1000);
  lml_job *job = lml_upstate(L)->current;
  if (job) {
    job->slice = slice;
    mli_watch_slice(&job->S->loop->watch, slice);
  }
  return 0;
}

void lml_blocked_leave(lml_state *S) {
  mli_watch_remove(&S->loop->watch);
  lml_questions_answer(NULL, S);
  lml_poke_forget(S, LML_POKE_LOOK); /* the next loop of this state has other jobs */
  lml_poke_forget(S, LML_POKE_SLICE);
  lml_poke_leave(S);
  S->slice = 0;
}

static void serve(void) {
  lml_poke_serves(LML_POKE_LOOK, serve_look, lml_spot_note);
  lml_poke_serves(LML_POKE_ASK, serve_ask, lml_spot_note);
  lml_poke_serves(LML_POKE_SLICE, serve_slice, NULL);
}

void lml_blocked_open(lua_State *L) {
  static const luaL_Reg functions[] = {
    { "on_blocked", l_on_blocked },
    { "loop_limits", l_loop_limits },
    { "may_block", l_may_block },
    { "preempt", l_preempt },
    { NULL, NULL },
  };
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, serve);
  lml_setfuncs(L, functions);
}
