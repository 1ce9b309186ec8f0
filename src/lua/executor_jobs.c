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

/* ---- a pool's ---- */

typedef struct pool_job {
  char name[MLI_NAME_MAX];
  mli_text *chunk; /* a reference, or NULL */
  uint32_t line;
  mli_worker *worker;   /* NULL: it is queued */
  const mli_task *task; /* only to compare */
} pool_job;

typedef struct pool_list {
  size_t count, room;
  pool_job jobs[];
} pool_list;

/* Under the executor's lock: nothing may raise. Counts also what finds no room. A settled task is
** no job any more, though its worker or the queue may not have let go of it. */
static void note(pool_list *list, const mli_task *task, mli_worker *w) {
  if (mli_future_settled(&task->future)) return;
  if (list->count++ >= list->room) return;
  pool_job *job = &list->jobs[list->count - 1];
  memcpy(job->name, task->name, sizeof job->name);
  job->chunk = task->chunk ? mli_retain(task->chunk) : NULL;
  job->line = task->line;
  job->worker = w;
  job->task = task;
}

static void note_queue(pool_list *list, mli_node *node) {
  for (; node; node = node->next) note(list, mli_container(node, mli_task, node), NULL);
}

static void note_all(pool_list *list, mli_executor *ex) {
  list->count = 0;
  mli_lock_acquire(&ex->lock);
  for (unsigned i = 0; i < ex->count; i++)
    if (ex->workers[i]->task) note(list, ex->workers[i]->task, ex->workers[i]);
  for (unsigned i = 0; i < ex->count; i++) note_queue(list, ex->workers[i]->own);
  note_queue(list, ex->queue);
  mli_lock_release(&ex->lock);
  if (list->count > list->room) { /* what was noted is let go: once more with more room */
    for (size_t i = 0; i < list->room; i++)
      if (list->jobs[i].chunk) mli_release(list->jobs[i].chunk);
  }
}

/* Stack: a job's table. Where it is. */
static void set_spot(lua_State *L, const lml_spot *spot) {
  char call[LML_SPOT_CALL];
  if (spot->waits_for[0]) {
    lua_pushstring(L, spot->waits_for);
    lua_setfield(L, -2, "waits_for");
  }
  if (spot->in_call) {
    lml_spot_call(spot, call, sizeof call);
    lua_pushstring(L, call);
    lua_setfield(L, -2, "inside");
  }
  if (spot->at[0]) {
    lua_pushstring(L, spot->at);
    lua_setfield(L, -2, "runs_at");
  }
}

static void push_pool_job(lua_State *L, pool_job *job) {
  char where[MLI_WHERE_MAX + 16];
  snprintf(where, sizeof where, "%s:%u", job->chunk ? job->chunk->text : "?", job->line);
  if (job->chunk) mli_release(job->chunk);
  job->chunk = NULL;
  lua_createtable(L, 0, 3);
  lua_pushstring(L, job->name[0] ? job->name : "job");
  lua_setfield(L, -2, "name");
  lua_pushstring(L, job->worker ? "running" : "queued");
  lua_setfield(L, -2, "state");
  lml_spot spot;
  if (job->worker && lml_spot_read(job->worker, &spot) && spot.task == job->task)
    set_spot(L, &spot);
  if (!job->line) return;
  lua_pushstring(L, where);
  lua_setfield(L, -2, "submitted_at");
}

/* Pushes the jobs of a pool. */
static int push_pool_jobs(lua_State *L, mli_executor *ex) {
  size_t room = 64;
  pool_list *list;
  do {
    list = lua_newuserdatauv(L, sizeof *list + room * sizeof *list->jobs, 0);
    list->room = room;
    note_all(list, ex);
    room = list->count * 2;
  } while (list->count > list->room);
  lua_createtable(L, (int)list->count, 0);
  for (size_t i = 0; i < list->count; i++) {
    push_pool_job(L, &list->jobs[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

/* ---- the same of a loop that is held up: asked inside the code that holds it ---- */

static void leave_question(mli_watch *w, void *argument) {
  lml_state *S = w->owner;
  lml_question *q = argument;
  q->next = atomic_load(&S->questions);
  while (!atomic_compare_exchange_weak(&S->questions, &q->next, q)) continue;
  lml_poke(S, LML_POKE_ASK);
}

void lml_questions_answer(lua_State *L, lml_state *S) {
  for (lml_question *q = atomic_exchange(&S->questions, NULL), *next; q; q = next) {
    next = q->next;
    mli_message *out = NULL;
    if (L && lua_checkstack(L, LUA_MINSTACK)) {
      lua_pushcfunction(L, answer_jobs);
      lua_pushlightuserdata(L, &out);
      if (lua_pcall(L, 1, 0, 0) != LUA_OK) lua_pop(L, 1);
    }
    if (out)
      mli_future_settle(q->answer, MLI_FINISHED, out, NULL);
    else
      mli_future_fail(q->answer, ML_CLOSED);
    mli_release(q->answer);
    free(q);
  }
}

/* ask_running(executor, i) -> a future of the jobs of its loop i, which does not answer:
** settles when it executes Lua code. */
static int l_ask_running(lua_State *L) {
  lml_state *S = lml_upstate(L);
  mli_executor *ex = lml_executor_check(L, 1);
  lua_Integer i = luaL_checkinteger(L, 2);
  luaL_argcheck(L, ex->loops && i >= 1 && i <= (lua_Integer)ex->size, 2, "no such loop");
  mli_future *answer = mli_future_new();
  if (!answer) return luaL_error(L, "not enough memory");
  lml_future_wrap(L, S, answer);
  mli_future_observe(answer);
  lml_question *q = malloc(sizeof *q);
  if (!q) return luaL_error(L, "not enough memory");
  q->answer = mli_retain(answer);
  if (!mli_watch_with(&ex->workers[i - 1]->loop->watch, leave_question, q)) {
    mli_future_fail(answer, ML_CLOSED);
    mli_release(answer);
    free(q);
  }
  return 1;
}

/* look(executor[, since]): has its threads note where they are, all or those that have not
** since that time, of real_now. Returns whether there is no more to be known. */
static int l_look(lua_State *L) {
  mli_executor *ex = lml_executor_check(L, 1);
  uint64_t since = lua_isnone(L, 2) ? MLI_FOREVER : (uint64_t)(luaL_checknumber(L, 2) * 1e9);
  lua_pushboolean(L, lml_spot_ask_all(ex, since));
  return 1;
}

/* spot(executor, i) -> what holds its loop i, as far as it was asked, or nil. */
static int l_spot(lua_State *L) {
  mli_executor *ex = lml_executor_check(L, 1);
  lua_Integer i = luaL_checkinteger(L, 2);
  luaL_argcheck(L, ex->loops && i >= 1 && i <= (lua_Integer)ex->size, 2, "no such loop");
  lml_spot spot;
  char name[32];
  if (!lml_spot_read(ex->workers[i - 1], &spot)) return 0;
  snprintf(name, sizeof name, spot.id ? "job %u" : "a callback", spot.id);
  lua_createtable(L, 0, 4);
  lua_pushstring(L, spot.name[0] ? spot.name : name);
  lua_setfield(L, -2, "name");
  lua_pushliteral(L, "running");
  lua_setfield(L, -2, "state");
  if (spot.line) {
    lua_pushfstring(L, "%s:%d", spot.chunk, (int)spot.line);
    lua_setfield(L, -2, "submitted_at");
  }
  set_spot(L, &spot);
  return 1;
}

/* ask_jobs(executor) -> a list of futures, one a loop; a pool's jobs at once. */
static int l_ask_jobs(lua_State *L) {
  lml_state *S = lml_upstate(L);
  mli_executor *ex = lml_executor_check(L, 1);
  if (!ex->loops) return push_pool_jobs(L, ex);
  lua_newtable(L);
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
    { "ask_jobs", l_ask_jobs }, { "ask_running", l_ask_running }, { "look", l_look },
    { "spot", l_spot },         { "own_jobs", l_own_jobs },       { NULL, NULL },
  };
  lml_setfuncs(L, functions);
}
