/*
** executor_jobs.c: the jobs that an executor has now. A loop's are asked for on its thread.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "crossing.h"
#include "processes.h"
#include "worker.h"

static void push_seconds(lua_State *L, uint64_t ns) { lua_pushnumber(L, (lua_Number)ns / 1e9); }

/* `names` is where the table of names is, by id. */
static void push_job(lua_State *L, lml_state *S, lml_job *job, int names) {
  char name[64];
  lua_createtable(L, 0, 8);
  lua_pushstring(L, lml_job_name(job, name, sizeof name));
  lua_setfield(L, -2, "name");
  lua_pushstring(L, lml_job_state(job));
  lua_setfield(L, -2, "state");
  if (job->await.parked) {
    lua_pushstring(L, job->await.what);
    lua_setfield(L, -2, "waits_for");
    push_seconds(L, job->await.since);
    lua_setfield(L, -2, "since");
  }
  if (job->parent) {
    lua_rawgeti(L, names, job->parent); /* nil: it has ended */
    lua_setfield(L, -2, "parent");
  }
  uint32_t line = job->task ? job->task->line : job->place.line;
  if (line) {
    lua_pushfstring(L, "%s:%d",
                    job->task ? mli_task_chunk(job->task) : lml_chunk_name(S, job->place.chunk),
                    (int)line);
    lua_setfield(L, -2, "submitted_at");
  }
  if (job->co && job->started) {
    luaL_checkstack(job->co, 12, NULL);
    luaL_traceback(L, job->co, NULL, 0);
    lua_setfield(L, -2, "traceback");
  }
}

/* Pushes the list of the state's jobs. */
static int push_jobs(lua_State *L, lml_state *S) {
  char name[64];
  lua_newtable(L);
  int names = lua_gettop(L);
  for (lml_job *job = S->jobs; job; job = job->next) {
    lua_pushstring(L, lml_job_name(job, name, sizeof name));
    lua_rawseti(L, names, job->id);
  }
  lua_newtable(L);
  lua_Integer n = 0;
  for (lml_job *job = S->jobs; job; job = job->next) {
    push_job(L, S, job, names);
    lua_rawseti(L, -2, ++n);
  }
  for (mli_node *node = S->deferred; node; node = node->next) {
    mli_task *task = mli_container(node, mli_task, node);
    lua_createtable(L, 0, 2);
    lua_pushstring(L, task->name[0] ? task->name : "job");
    lua_setfield(L, -2, "name");
    lua_pushliteral(L, "queued");
    lua_setfield(L, -2, "state");
    lua_rawseti(L, -2, ++n);
  }
  if (S->processes) lml_processes_push_jobs(L, S->processes);
  return 1;
}

/* A question to a loop's state, answered through a future. */
typedef struct question {
  mli_node node;
  mli_future *answer;
} question;

static int answer_jobs(lua_State *L) {
  mli_message **out = lua_touserdata(L, 1);
  push_jobs(L, lml_state_of(L));
  *out = lml_encode(L, lua_gettop(L), 1, LML_RESULTS);
  return 0;
}

static void on_question(mli_node *node, mli_loop *loop) {
  question *q = mli_container(node, question, node);
  mli_worker *w = loop->user;
  lml_state *S = w->user;
  mli_message *out = NULL;
  if (S && S->from && !loop->stopping) {
    lua_pushcfunction(S->from, answer_jobs);
    lua_pushlightuserdata(S->from, &out);
    if (lua_pcall(S->from, 1, 0, 0) != LUA_OK) lua_pop(S->from, 1);
  }
  if (out)
    mli_future_settle(q->answer, MLI_FINISHED, out, NULL);
  else
    mli_future_fail(q->answer, ML_CLOSED);
  mli_release(q->answer);
  free(q);
}

/* ask_jobs(executor) -> a list of futures, one a loop; a pool's jobs at once. */
static int l_ask_jobs(lua_State *L) {
  lml_state *S = lml_upstate(L);
  mli_executor *ex = lml_executor_check(L, 1);
  lua_newtable(L);
  if (!ex->loops) {
    struct {
      char name[MLI_NAME_MAX];
      bool running;
    } list[256];
    int n = 0;
    mli_lock_acquire(&ex->lock);
    for (unsigned i = 0; i < ex->count && n < 256; i++)
      if (ex->workers[i]->task) {
        snprintf(list[n].name, MLI_NAME_MAX, "%s", ex->workers[i]->task->name);
        list[n++].running = true;
      }
    for (mli_node *node = ex->queue; node && n < 256; node = node->next) {
      snprintf(list[n].name, MLI_NAME_MAX, "%s", mli_container(node, mli_task, node)->name);
      list[n++].running = false;
    }
    mli_lock_release(&ex->lock);
    for (int i = 0; i < n; i++) {
      lua_createtable(L, 0, 2);
      lua_pushstring(L, list[i].name[0] ? list[i].name : "job");
      lua_setfield(L, -2, "name");
      lua_pushstring(L, list[i].running ? "running" : "queued");
      lua_setfield(L, -2, "state");
      lua_rawseti(L, -2, i + 1);
    }
    return 1;
  }
  for (unsigned i = 0; i < ex->size; i++) {
    mli_future *answer = mli_future_new();
    if (!answer) return luaL_error(L, "not enough memory");
    lml_future_wrap(L, S, answer);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
    mli_future_observe(answer);
    question *q = malloc(sizeof *q);
    if (!q) return luaL_error(L, "not enough memory");
    q->answer = mli_retain(answer);
    q->node.run = on_question;
    if (!mli_loop_post(ex->workers[i]->loop, &q->node)) {
      mli_future_fail(answer, ML_CLOSED);
      mli_release(answer);
      free(q);
    }
  }
  return 1;
}

/* own_jobs() -> the jobs of the loop that runs in this state. */
static int l_own_jobs(lua_State *L) { return push_jobs(L, lml_upstate(L)); }

void lml_executor_jobs_open(lua_State *L) {
  static const luaL_Reg functions[] = {
    { "ask_jobs", l_ask_jobs },
    { "own_jobs", l_own_jobs },
    { NULL, NULL },
  };
  lml_setfuncs(L, functions);
}
