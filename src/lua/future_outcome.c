/*
** future_outcome.c: what became of a future, for Lua: its values, or its error.
*/
#include <stdio.h>
#include "crossing.h"
#include "state.h"

int lml_future_push_values(lua_State *L, int index, int n) {
  luaL_checkstack(L, n + 4, "too many results");
  if (n == 0) return 0;
  lua_getiuservalue(L, index, 1);
  if (n == 1) return 1;
  int table = lua_gettop(L);
  for (int i = 1; i <= n; i++) lua_rawgeti(L, table, i);
  lua_remove(L, table);
  return n;
}

void lml_future_read(lua_State *L, int index, lml_future *u) {
  mli_future *f = lml_future_core(u);
  if (u->values >= 0) return;
  int n = f->outcome ? lml_decode(L, f->outcome) : 0; /* a future of the core has no values */
  if (n > 1) {
    int first = lua_gettop(L) - n + 1;
    luaL_checkstack(L, 2, NULL);
    lua_createtable(L, n, 0);
    lua_insert(L, first);
    for (int i = n; i > 0; i--) lua_rawseti(L, first, i);
  }
  if (n > 0) lua_setiuservalue(L, index, 1);
  u->values = n;
}

static int read_protected(lua_State *L) {
  lml_future_read(L, 1, lua_touserdata(L, 1));
  return 0;
}

bool lml_future_try_read(lua_State *L, int index, lml_future *u) {
  if (u->values >= 0) return true;
  lua_pushcfunction(L, read_protected);
  lua_pushvalue(L, index);
  return lua_pcall(L, 1, 0, 0) == LUA_OK;
}

static const char *status_text(ml_status status) {
  switch (status) {
  case ML_CLOSED: return "the executor was shut down before the job could run";
  case ML_MEMORY: return "not enough memory";
  case ML_ABANDONED: return "the promise was dropped unsettled";
  case ML_SYSTEM: return "no thread could be started for the job";
  default: return ml_status_name(status);
  }
}

const char *lml_future_name(lml_future *u, char *buffer, size_t size) {
  mli_future *f = lml_future_core(u);
  if (u->job) return lml_job_name(u->job, buffer, size);
  if (f->object.type == &mli_task_type) {
    mli_task *task = mli_container(f, mli_task, future);
    if (task->name[0]) return task->name;
  }
  return NULL;
}

void lml_future_push_error(lua_State *L, lml_state *S, int index) {
  index = lua_absindex(L, index);
  lml_future *u = lua_touserdata(L, index);
  mli_future *f = lml_future_core(u);
  (void)S;
  if (mli_future_state(f) == MLI_STOPPED) {
    char name[64];
    const char *who = lml_future_name(u, name, sizeof name);
    lml_push_cancel_error(L, f, "job_cancelled", who ? who : "the job");
  } else if (u->values < 0 && !f->outcome) {
    lml_error_push(L, ml_status_name(f->status), "%s", status_text(f->status));
  } else if (lml_future_try_read(L, index, u)) {
    lua_getiuservalue(L, index, 1);
  }
}

/* Remembers whose error is raised here, for the joined traceback. */
static void join_traceback(lua_State *L, lml_state *S, mli_future *f) {
  char name[MLI_NAME_MAX + 32];
  const char *who = lml_title(S, name, sizeof name);
  char *text = NULL;
  if (f->traceback && asprintf(&text, "%s\nawaited by %s", f->traceback, who) < 0) text = NULL;
  lml_join(L, S, text);
}

int lml_future_push(lua_State *L, lml_state *S, int index) {
  index = lua_absindex(L, index);
  lml_future *u = lua_touserdata(L, index);
  mli_future *f = lml_future_core(u);
  mli_future_observe(f);
  if (mli_likely(mli_future_state(f) == MLI_FINISHED)) {
    lml_future_read(L, index, u);
    return lml_future_push_values(L, index, u->values);
  }
  lml_future_push_error(L, S, index);
  join_traceback(L, S, f);
  return lua_error(L);
}
