/*
** coroutine.c: the `coroutine` functions that let a wait through.
**
** A wait inside a coroutine of the user's yields from it; the `resume` or `wrap`
** that runs it must not take that for an item, but hand it on outwards to the
** loop, and resume inwards when the wait is over. What the user sees is a
** coroutine that is still running: its status is "normal".
**
** The record of a resume lives on the C stack. A coroutine that is suspended in a
** wait, a job's own too, is known by the function that it stands in.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "generator.h"
#include "state.h"

static int l_yield(lua_State *L);

/* Is the coroutine suspended inside a wait, not in a yield of its own? Then what it
** stands in is a function of ours (they all have the state's record as their first
** upvalue) other than our yield. */
static bool is_waiting(lml_state *S, lua_State *co) {
  lua_Debug ar;
  if (lua_status(co) != LUA_YIELD || !lua_checkstack(co, 2) || !lua_getstack(co, 0, &ar))
    return false;
  lua_getinfo(co, "f", &ar);
  lua_CFunction f = lua_tocfunction(co, -1);
  bool waiting = !f; /* a Lua function does not yield by itself: its slice was over */
  if (f && f != l_yield && lua_getupvalue(co, -1, 1)) {
    waiting = lua_touserdata(co, -1) == S;
    lua_pop(co, 1);
  }
  lua_pop(co, 1);
  return waiting;
}

static lua_State *check_coroutine(lua_State *L, int arg) {
  lua_State *co = lua_tothread(L, arg);
  if (!co) luaL_typeerror(L, arg, "coroutine");
  return co;
}

/* Resumes `co` with the nargs values on its stack. Returns the status; a wait
** leaves S->in_wait set. */
static int resume_inner(lua_State *L, lml_state *S, lua_State *co, int nargs, int *count) {
  lml_resume record = { S->frames, L };
  lua_State *running = S->running;
  S->frames = &record;
  S->running = co;
  int status = lua_resume(co, L, nargs, count);
  S->frames = record.outer;
  S->running = running;
  return status;
}

/* A coroutine that runs in a job must be resumed by what we track; elsewhere
** waits block and nothing is forwarded. */
static bool forwards(lml_state *S, int status) {
  return status == LUA_YIELD && S->in_wait && S->current;
}

static const char *refusal(lua_State *L, lml_state *S, lua_State *co) {
  if (co == L || is_waiting(S, co)) return "cannot resume non-suspended coroutine";
  int status = lua_status(co);
  if (status == LUA_YIELD) return NULL;
  if (status != LUA_OK) return "cannot resume dead coroutine";
  lua_Debug ar;
  if (lua_getstack(co, 0, &ar)) return "cannot resume non-suspended coroutine";
  return lua_gettop(co) == 0 ? "cannot resume dead coroutine" : NULL;
}

/* Moves what the coroutine gave to L. Returns the number, or -1 with an error. */
static int collect(lua_State *L, lua_State *co, int status, int count) {
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_xmove(co, L, 1);
    return -1;
  }
  if (!lua_checkstack(L, count + 2)) {
    lua_pop(co, count);
    lua_pushliteral(L, "too many results to resume");
    return -1;
  }
  lua_xmove(co, L, count);
  return count;
}

/* ---- resume ---- */

static int resume_end(lua_State *L, lua_State *co, int status, int count) {
  int n = collect(L, co, status, count);
  if (n < 0) {
    lua_pushboolean(L, 0);
    lua_insert(L, -2);
    return 2;
  }
  lua_pushboolean(L, 1);
  lua_insert(L, -n - 1);
  return n + 1;
}

static int resume_k(lua_State *L, int status, lua_KContext ctx) {
  lml_state *S = lml_upstate(L);
  lua_State *co = (lua_State *)ctx;
  int count;
  (void)status;
  status = resume_inner(L, S, co, 0, &count);
  if (forwards(S, status)) return lua_yieldk(L, 0, ctx, resume_k);
  return resume_end(L, co, status, count);
}

static int l_resume(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lua_State *co = check_coroutine(L, 1);
  int nargs = lua_gettop(L) - 1, count;
  const char *no = refusal(L, S, co);
  if (!no && !lua_checkstack(co, nargs)) no = "too many arguments to resume";
  if (no) {
    lua_pushboolean(L, 0);
    lua_pushstring(L, no);
    return 2;
  }
  lua_xmove(L, co, nargs);
  int status = resume_inner(L, S, co, nargs, &count);
  if (forwards(S, status)) return lua_yieldk(L, 0, (lua_KContext)co, resume_k);
  return resume_end(L, co, status, count);
}

/* ---- wrap ---- */

/* Closes what a coroutine left open; an error stays on its stack. */
static int close_coroutine(lml_state *S, lua_State *co) {
  S->closing++;
  int status = lua_resetthread(co);
  S->closing--;
  return status;
}

/* Where a failed coroutine stood; its frames are gone once it is closed. */
static char *inner_traceback(lua_State *L, lua_State *co) {
  if (!lua_checkstack(co, 12) || !lua_checkstack(L, 12)) return NULL;
  luaL_traceback(L, co, NULL, 0);
  char *text = NULL;
  if (asprintf(&text, "%s\nin a coroutine wrapped at", lua_tostring(L, -1)) < 0) text = NULL;
  lua_pop(L, 1);
  return text;
}

/* Raises the error on top of L as `wrap` does, with the place of the call. */
static int wrap_error(lua_State *L, lml_state *S, int status, char *inner) {
  if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  if (inner) lml_join(L, S, inner);
  return lua_error(L);
}

static int wrap_end(lua_State *L, lml_state *S, lua_State *co, int status, int count) {
  if (status != LUA_OK && status != LUA_YIELD) {
    char *inner = S->current ? inner_traceback(L, co) : NULL;
    if (lua_checkstack(co, 1)) lua_pushvalue(co, -1);
    lua_xmove(co, L, 1);
    int closed = close_coroutine(S, co);
    if (closed != LUA_OK) { /* with the error, which it may replace; before Lua 5.4.3 only then */
      lua_pop(L, 1);
      lua_xmove(co, L, 1);
      status = closed;
    }
    return wrap_error(L, S, status, inner);
  }
  int n = collect(L, co, status, count);
  return n < 0 ? wrap_error(L, S, LUA_ERRRUN, NULL) : n;
}

static int wrap_k(lua_State *L, int status, lua_KContext ctx) {
  lml_state *S = lml_upstate(L);
  lua_State *co = (lua_State *)ctx;
  int count;
  (void)status;
  status = resume_inner(L, S, co, 0, &count);
  if (forwards(S, status)) return lua_yieldk(L, 0, ctx, wrap_k);
  return wrap_end(L, S, co, status, count);
}

static int wrapped(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lua_State *co = lua_tothread(L, lua_upvalueindex(2));
  int nargs = lua_gettop(L), count;
  const char *no = refusal(L, S, co);
  if (!no && !lua_checkstack(co, nargs)) no = "too many arguments to resume";
  if (no) return luaL_error(L, "%s", no);
  lua_xmove(L, co, nargs);
  int status = resume_inner(L, S, co, nargs, &count);
  if (forwards(S, status)) return lua_yieldk(L, 0, (lua_KContext)co, wrap_k);
  return wrap_end(L, S, co, status, count);
}

static int l_wrap(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_State *co = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  lua_pushlightuserdata(L, lml_upstate(L));
  lua_insert(L, -2);
  lua_pushcclosure(L, wrapped, 2);
  return 1;
}

/* ---- yield, status, close ---- */

static int l_yield(lua_State *L) {
  lml_state *S = lml_upstate(L);
  if (S->current && L == S->current->co) {
    if (lml_is_generator(S->current)) return lml_generator_yield(L, S);
    return luaL_error(L, "coroutine.yield in a job that is no generator: nothing would resume it");
  }
  return lua_yield(L, lua_gettop(L));
}

static const char *status_of(lua_State *L, lml_state *S, lua_State *co) {
  lua_Debug ar;
  if (L == co) return "running";
  if (is_waiting(S, co)) return "normal";
  switch (lua_status(co)) {
  case LUA_YIELD: return "suspended";
  case LUA_OK:
    if (lua_getstack(co, 0, &ar)) return "normal";
    return lua_gettop(co) == 0 ? "dead" : "suspended";
  default: return "dead";
  }
}

static int l_status(lua_State *L) {
  lua_State *co = check_coroutine(L, 1);
  lml_state *S = lml_upstate(L);
  if (S->current && co == S->current->co && L != co)
    lua_pushliteral(L, "normal");
  else
    lua_pushstring(L, status_of(L, S, co));
  return 1;
}

static int l_close(lua_State *L) {
  lml_state *S = lml_upstate(L);
  lua_State *co = check_coroutine(L, 1);
  const char *status = status_of(L, S, co);
  if (strcmp(status, "suspended") != 0 && strcmp(status, "dead") != 0)
    return luaL_error(L, "cannot close a %s coroutine", status);
  if (close_coroutine(S, co) == LUA_OK) {
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_pushboolean(L, 0);
  lua_xmove(co, L, 1);
  return 2;
}

void lml_coroutine_open(lua_State *L, lml_state *S) {
  static const luaL_Reg functions[] = {
    { "resume", l_resume }, { "wrap", l_wrap },   { "yield", l_yield },
    { "status", l_status }, { "close", l_close }, { NULL, NULL },
  };
  if (lua_getglobal(L, "coroutine") == LUA_TTABLE) lml_setfuncs(L, functions);
  lua_pop(L, 1);
  S->yieldable[2] = l_resume;
  S->yieldable[3] = wrapped;
}
