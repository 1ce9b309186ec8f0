/*
** traceback.c: the traceback of a failure, taken where it happens, and joined with that of
** the job whose error it is.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "state.h"

static void append(luaL_Buffer *b, const char *label, const char *text) {
  luaL_addstring(b, label);
  luaL_addstring(b, text);
}

/* Keeps an error value, to know it again: its address alone might be another's by then. */
static void note(lua_State *L, int *ref, int index) {
  lua_pushvalue(L, index);
  luaL_unref(L, LUA_REGISTRYINDEX, *ref);
  *ref = LUA_NOREF;
  *ref = luaL_ref(L, LUA_REGISTRYINDEX);
}

static bool is_noted(lua_State *L, int ref, int index) {
  if (ref == LUA_NOREF) return false;
  index = lua_absindex(L, index);
  lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
  bool same = lua_rawequal(L, -1, index);
  lua_pop(L, 1);
  return same;
}

/* Is the error at 1 the one whose traceback was noted, on its way out? The same text may
** be raised anew: of it only what a function of ours passes on is the same error. */
static bool raised_again(lua_State *L, int traced) {
  lua_Debug ar;
  if (!is_noted(L, traced, 1)) return false;
  if (lua_type(L, 1) == LUA_TTABLE || lua_type(L, 1) == LUA_TUSERDATA) return true;
  for (int level = 1; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "S", &ar);
    if (*ar.what != 'C') return strncmp(ar.source, "@moonloop/", 10) == 0;
  }
  return false;
}

/* Pushes the traceback of a failure in L: its own frames, then the line that
** submitted the job; before them the traceback of the job whose error this is. */
static void push_traceback(lua_State *L, lml_state *S, lml_job *job) {
  char name[MLI_NAME_MAX + 32], line[32];
  int value = lua_gettop(L);
  luaL_checkstack(L, 12, NULL);
  luaL_traceback(L, L, NULL, 1);
  lua_pushstring(L, luaL_gsub(L, lua_tostring(L, -1), "\n\t[C]: in ?", ""));
  int frames = lua_gettop(L);
  const char *joined = job ? job->info ? job->info->joined : NULL : S->joined;
  int joined_error = !joined ? LUA_NOREF : job ? job->info->joined_error : S->joined_error;
  bool same = is_noted(L, joined_error, value);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  if (same) {
    luaL_addstring(&b, joined);
    luaL_addstring(&b, "\n");
  }
  luaL_addstring(&b, lua_tostring(L, frames));
  const mli_task *task = job ? job->task : lml_own_task(S);
  if (job || task) append(&b, "\nin ", lml_title(S, name, sizeof name));
  uint32_t at = task ? task->line : job ? job->place.line : 0;
  if (at) {
    append(&b, task ? ", submitted at " : ", spawned at ",
           task ? mli_task_chunk(task) : lml_chunk_name(S, job->place.chunk));
    snprintf(line, sizeof line, ":%u", at);
    luaL_addstring(&b, line);
  }
  luaL_pushresult(&b);
}

void lml_traced_forget(lua_State *L, lml_state *S) {
  luaL_unref(L, LUA_REGISTRYINDEX, S->traced);
  S->traced = LUA_NOREF;
}

void lml_join(lua_State *L, lml_state *S, char *text) {
  char **joined = &S->joined;
  int *error = &S->joined_error;
  if (S->current) {
    lml_info *info = lml_job_info(S->current);
    if (!info) {
      free(text);
      return;
    }
    joined = &info->joined;
    error = &info->joined_error;
  }
  free(*joined);
  *joined = text;
  note(L, error, -1);
  if (!S->current) lml_traced_forget(L, S); /* its text has gone */
}

bool lml_is_own_cancel(lua_State *L, const lml_job *job, int error) {
  if (job->root.error == LUA_NOREF) return false;
  lua_rawgeti(L, LUA_REGISTRYINDEX, job->root.error);
  bool own = lua_rawequal(L, -1, error);
  lua_pop(L, 1);
  return own;
}

int lml_message_handler(lua_State *L) {
  lml_state *S = lml_state_of(L);
  lml_job *job = S->current;
  lua_settop(L, 1);
  if (lua_isnil(L, 1)) {
    lua_settop(L, 0);
    luaL_where(L, 1);
    lml_error_push(L, "nil_error", "%serror(nil) was called", lua_tostring(L, 1));
    lua_remove(L, 1);
  }
  if (job && lml_is_own_cancel(L, job, 1)) return 1; /* no failure */
  int *traced = job ? job->info ? &job->info->traced : NULL : lml_own_task(S) ? &S->traced : NULL;
  if (traced && raised_again(L, *traced)) return 1; /* what was noted then says more */
  push_traceback(L, S, job);
  const char *text = lua_tostring(L, -1);
  if (job) {
    lml_info *info = lml_job_info(job);
    if (info) {
      free(info->traceback);
      info->traceback = strdup(text);
      note(L, &info->traced, 1);
    }
  } else {
    free(S->joined);
    S->joined = strdup(text); /* of the task that this worker ran */
    if (traced) note(L, traced, 1);
  }
  lua_settop(L, 1);
  return 1;
}
