/*
** report.c: errors that nobody asked for. They go to one handler per process,
** which runs in the state where it happened; the default prints a block.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "crossing.h"
#include "state.h"

static lml_handler handler = { .slot = LML_ON_ERROR };

_Thread_local lml_state *lml_thread_state;

int lml_on_error(lua_State *L) { return lml_handler_set(L, &handler); }

static void to_stderr(const char *text, size_t size) { fwrite(text, 1, size, stderr); }

_Atomic(lml_report_writer) lml_report_write = to_stderr;

/* The host of the executor that the state belongs or is bound to, or NULL. */
static const lml_host *host_of(const lml_state *S) {
  if (!S) return NULL;
  const mli_executor *ex = S->bound ? S->bound : S->worker ? S->worker->executor : NULL;
  return ex ? lml_host_of(ex) : NULL;
}

void lml_log(const mli_executor *ex, const char *text) {
  const lml_host *host = ex ? lml_host_of(ex) : NULL;
  if (host && host->on_log) {
    host->on_log(text, host->user);
    return;
  }
  size_t size = strlen(text) + 16;
  char *line = malloc(size);
  if (!line) return;
  int n = snprintf(line, size, "moonloop: %s\n", text);
  if (n > 0) atomic_load (&lml_report_write)(line, (size_t)n);
  free(line);
}

/* To the host, or one clear block, in one write so that threads do not mix. */
static void print(const lml_state *S, const char *kind, const char *name, const char *error,
                  const char *traceback, const char *where) {
  const lml_host *host = host_of(S);
  if (host && host->on_error) {
    const ml_report r = { sizeof r, kind, name, error, traceback, where };
    host->on_error(&r, host->user);
    return;
  }
  const char *rest = traceback ? traceback : "";
  size_t size = strlen(error) + strlen(rest) + 512;
  char *text = malloc(size);
  if (!text) return;
  int n = snprintf(text, size, "moonloop: error in %s%s%s, and nobody asked for it:\n%s%s%s\n",
                   kind, name ? " " : "", name ? name : "", error, *rest ? "\n" : "", rest);
  if (n > 0) atomic_load (&lml_report_write)(text, (size_t)n < size ? (size_t)n : size - 1);
  free(text);
}

/* Stack: error, info. Calls the handler if there is one. */
static int call_handler(lua_State *L) {
  lml_handler_push(L, lml_state_of(L), &handler);
  if (lua_isnil(L, -1)) {
    lua_pushboolean(L, 0);
    return 1;
  }
  lua_insert(L, 1);
  lua_call(L, 2, 0);
  lua_pushboolean(L, 1);
  return 1;
}

static void set_string(lua_State *L, const char *key, const char *value) {
  if (!value) return;
  lua_pushstring(L, value);
  lua_setfield(L, -2, key);
}

/* Stack: error, then light strings: kind, name, traceback, where. */
static int report(lua_State *L) {
  const char *kind = lua_touserdata(L, 2), *name = lua_touserdata(L, 3);
  const char *traceback = lua_touserdata(L, 4), *where = lua_touserdata(L, 5);
  const lml_state *S = lml_state_of(L);
  lua_settop(L, 1);
  lua_pushcfunction(L, call_handler);
  lua_pushvalue(L, 1);
  lua_createtable(L, 0, 4);
  set_string(L, "kind", kind);
  set_string(L, "name", name);
  set_string(L, "traceback", traceback);
  set_string(L, "submitted_at", where);
  int status = lua_pcall(L, 2, 1, 0);
  if (status == LUA_OK && lua_toboolean(L, -1)) return 0;
  if (status != LUA_OK)
    print(S, "the on_error handler", NULL, luaL_tolstring(L, -1, NULL), NULL, NULL);
  print(S, kind, name, luaL_tolstring(L, 1, NULL), traceback, where);
  return 0;
}

void lml_report(lua_State *L, lml_state *S, const char *kind, const char *name,
                const char *traceback, const char *where) {
  lml_job *job = S->current; /* a report is in no job: its handler must not wait */
  lua_State *running = S->running;
  S->current = NULL;
  if (!lua_checkstack(L, LUA_MINSTACK)) {
    lua_pop(L, 1);
    return;
  }
  lua_pushcfunction(L, report);
  lua_insert(L, -2);
  lua_pushlightuserdata(L, (void *)kind);
  lua_pushlightuserdata(L, (void *)name);
  lua_pushlightuserdata(L, (void *)traceback);
  lua_pushlightuserdata(L, (void *)where);
  if (lua_pcall(L, 5, 0, 0) != LUA_OK) {
    const char *text = lua_tostring(L, -1);
    print(S, kind, name, text ? text : "(an error that cannot be shown)", traceback, NULL);
    lua_pop(L, 1);
  }
  S->current = job;
  S->running = running;
}

/* ---- failures of shared futures, as their last holder lets go ---- */

static int push_failure(lua_State *L) {
  const mli_future *f = lua_touserdata(L, 1);
  lua_settop(L, 0);
  if (!f->outcome)
    lua_pushstring(L, ml_status_name(f->status));
  else if (lml_decode(L, f->outcome) < 1)
    lua_pushnil(L);
  return 1;
}

static void unobserved(mli_future *f) {
  const char *name = NULL;
  char where[MLI_WHERE_MAX + 16] = "";
  if (f->object.type == &mli_task_type) {
    mli_task *task = mli_container(f, mli_task, future);
    if (task->name[0]) name = task->name;
    if (task->line) snprintf(where, sizeof where, "%s:%u", mli_task_chunk(task), task->line);
  }
  lml_state *S = lml_thread_state;
  lua_State *L = S ? S->gc ? S->gc : S->from ? S->from : S->L : NULL;
  if (!L || !lua_checkstack(L, LUA_MINSTACK)) {
    print(S, "a job", name, "(no Lua state on this thread can show the error)", f->traceback, NULL);
    return;
  }
  lua_pushcfunction(L, push_failure);
  lua_pushlightuserdata(L, f);
  lua_pcall(L, 1, 1, 0); /* its failure is as good as the error */
  lml_report(L, S, "job", name, f->traceback, where[0] ? where : NULL);
}

void lml_report_open(void) { mli_future_unobserved = unobserved; }
