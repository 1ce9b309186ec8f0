/*
** job.c: jobs and their coroutines: starting, resuming, ending, cancelling.
**
** A job's coroutine runs a C function, the base, which calls the job's function
** protected: so `__close` variables may wait however the job ends, and the
** traceback is taken where the error happens. Coroutines are recycled.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "core/observe.h"
#include "crossing.h"
#include "generator.h"
#include "state.h"

#define JOBS_PER_TURN 1024
#define TURN_LENGTH (2 * MLI_MILLISECOND)
#define COROUTINES_PER_TABLE 256
#define IDLE_COROUTINES 16384 /* 16 MB; to make one costs more than all the rest of a job */
#define FIRST_CHUNK (16u << 10)
#define LARGE_PAGE (2u << 20)

/* ---- memory ---- */

typedef struct job_chunk {
  struct job_chunk *next;
  lml_job jobs[];
} job_chunk;

/* The first chunk is small, each is as large as all before it, and from some thousand
** jobs on it is a large page: records that are visited in any order then cost fewer
** page faults, and less time to find. */
static bool add_chunk(lml_state *S) {
  size_t size = sizeof(job_chunk) + S->job_room * sizeof(lml_job);
  if (size < FIRST_CHUNK) size = FIRST_CHUNK;
  bool large = size >= LARGE_PAGE / 2;
  job_chunk *chunk = large ? aligned_alloc(LARGE_PAGE, size = LARGE_PAGE) : malloc(size);
  if (!chunk) return false;
#ifdef MADV_HUGEPAGE
  if (large) madvise(chunk, size, MADV_HUGEPAGE); /* a wish */
#endif
  chunk->next = S->job_chunks;
  S->job_chunks = chunk;
  S->fresh_jobs = chunk->jobs;
  S->fresh_job_count = (size - sizeof *chunk) / sizeof(lml_job);
  S->job_room += S->fresh_job_count;
  return true;
}

static lml_job *job_new(lml_state *S) {
  lml_job *job = S->free_jobs;
  if (job) {
    S->free_jobs = job->ready_next;
  } else {
    if (S->fresh_job_count == 0 && !add_chunk(S)) return NULL;
    S->fresh_job_count--;
    job = S->fresh_jobs++;
  }
  memset(job, 0, sizeof *job);
  job->S = S;
  job->id = ++S->next_id;
  job->parent = S->current ? S->current->id : 0;
  job->home = S->current ? S->current->home : 0;
  job->origin = S->task ? S->task : S->current ? S->current->origin : NULL;
  job->slice = S->slice;
  job->scope = &job->root;
  job->root.error = LUA_NOREF;
  job->context = LUA_NOREF;
  job->next = S->jobs;
  job->link = &S->jobs;
  if (job->next) job->next->link = &job->next;
  S->jobs = job;
  S->job_count++;
  if (mli_unlikely(mli_observing())) job->await.since = mli_now(); /* until its first wait */
  return job;
}

static void info_free(lml_info *info) {
  if (!info) return;
  free(info->name);
  free(info->traceback);
  free(info->joined);
  lml_feed_drop(info->feed);
  free(info);
}

static void job_free(lml_job *job) {
  lml_state *S = job->S;
  lml_left_drop(&job->root.open); /* of one that was stopped */
  if (mli_unlikely(job->locks != NULL)) lml_locks_end(S->from, job);
  if (job->info && S->loop) mli_loop_timer_stop(S->loop, &job->info->deadline);
  if (job->info) {
    luaL_unref(S->L, LUA_REGISTRYINDEX, job->info->traced);
    luaL_unref(S->L, LUA_REGISTRYINDEX, job->info->joined_error);
  }
  info_free(job->info);
  luaL_unref(S->L, LUA_REGISTRYINDEX, job->root.error);
  luaL_unref(S->L, LUA_REGISTRYINDEX, job->context);
  *job->link = job->next;
  if (job->next) job->next->link = job->link;
  S->job_count--;
  job->ready_next = S->free_jobs;
  S->free_jobs = job;
}

void lml_jobs_forget(lml_state *S) {
  for (lml_job *job = S->jobs; job; job = job->next) {
    lml_left_join(&job->root.open, NULL);
    if (job->fut && lml_future_is_local(job->fut)) mli_future_fail(&job->fut->local, ML_CLOSED);
    info_free(job->info);
  }
  S->jobs = NULL;
}

lml_info *lml_job_info(lml_job *job) {
  if (!job->info && (job->info = calloc(1, sizeof *job->info))) {
    job->info->job = job;
    job->info->traced = job->info->joined_error = LUA_NOREF;
  }
  return job->info;
}

/* ---- coroutines ---- */

static const char coroutines_key; /* registry: tables of coroutines, by slot */

/* Pushes the table that anchors `slot`. Few coroutines to a table, for the
** collector takes a table in one step. */
static void push_anchors(lua_State *L, unsigned slot) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &coroutines_key) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &coroutines_key);
  }
  unsigned n = slot / COROUTINES_PER_TABLE + 1;
  if (lua_rawgeti(L, -1, n) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_createtable(L, COROUTINES_PER_TABLE, 0);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, n);
  }
  lua_remove(L, -2);
}

static bool grow(void **array, size_t *room, size_t count, size_t size) {
  if (count < *room) return true;
  size_t more = *room ? *room * 2 : 64;
  void *grown = realloc(*array, more * size);
  if (!grown) return false;
  *array = grown;
  *room = more;
  return true;
}

/* An empty coroutine, anchored. Raises on lack of memory. */
static lml_coroutine coroutine_get(lua_State *L, lml_state *S) {
  if (S->idle_count) return S->idle[--S->idle_count];
  lml_coroutine c = { NULL, 0 };
  bool reuse = S->free_slot_count > 0;
  c.slot = reuse ? S->free_slots[S->free_slot_count - 1] : S->slots;
  luaL_checkstack(L, 4, NULL);
  push_anchors(L, c.slot);
  c.co = lua_newthread(L);
  lua_rawseti(L, -2, c.slot % COROUTINES_PER_TABLE + 1);
  lua_pop(L, 1);
  if (reuse)
    S->free_slot_count--;
  else
    S->slots++;
  return c;
}

static void coroutine_put(lml_state *S, lua_State *co, unsigned slot) {
  lua_State *L = S->from ? S->from : S->L;
  if (S->idle_count < IDLE_COROUTINES &&
      grow((void **)&S->idle, &S->idle_room, S->idle_count, sizeof *S->idle)) {
    lua_settop(co, 0);
    S->idle[S->idle_count++] = (lml_coroutine){ co, slot };
    return;
  }
  if (!grow((void **)&S->free_slots, &S->free_slot_room, S->free_slot_count, sizeof *S->free_slots))
    return; /* the slot is lost to later use, not leaked */
  push_anchors(L, slot);
  lua_pushboolean(L, 0);
  lua_rawseti(L, -2, slot % COROUTINES_PER_TABLE + 1);
  lua_pop(L, 1);
  S->free_slots[S->free_slot_count++] = slot;
}

/* ---- names and places ---- */

void lml_where(lua_State *L, int level, char *chunk, size_t size, uint32_t *line) {
  lua_Debug ar;
  *line = 0;
  chunk[0] = '\0';
  for (; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline <= 0 || strncmp(ar.source, "@moonloop/", 10) == 0) continue;
    snprintf(chunk, size, "%s", ar.short_src);
    *line = (uint32_t)ar.currentline;
    return;
  }
}

/* Keeps the name of a chunk; its number in the state's list, or 0. */
static uint32_t keep_chunk(lml_state *S, const lua_Debug *ar) {
  if (S->chunk_count >= 1024) lml_chunks_free(S); /* names only: start over */
  size_t room = S->chunk_room;
  S->naming = true;
  bool grown = grow((void **)&S->chunks, &room, S->chunk_count, sizeof *S->chunks);
  S->naming = false;
  if (!grown) return 0;
  S->chunk_room = (uint32_t)room;
  mli_text *name = mli_text_new(ar->short_src);
  if (!name) return 0;
  S->chunks[S->chunk_count].source = ar->source;
  S->chunks[S->chunk_count].name = name;
  return ++S->chunk_count;
}

static const char place_key; /* registry: the function of S->place_function, kept alive */

/* The chunk of the function that submits is looked up once in a row: to ask Lua for a
** name costs more than all the rest. */
lml_place lml_place_of(lua_State *L, lml_state *S) {
  lua_Debug ar;
  for (int level = 1; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "lf", &ar);
    const void *function = lua_topointer(L, -1);
    if (function == S->place_function) {
      lua_pop(L, 1);
      return (lml_place){ S->place_chunk, (uint32_t)ar.currentline };
    }
    lua_getinfo(L, "S", &ar);
    if (ar.currentline <= 0 || strncmp(ar.source, "@moonloop/", 10) == 0) {
      lua_pop(L, 1);
      continue;
    }
    lua_rawsetp(L, LUA_REGISTRYINDEX, &place_key);
    uint32_t chunk = 0;
    for (uint32_t i = S->chunk_count; i > 0 && !chunk; i--)
      if (S->chunks[i - 1].source == ar.source &&
          strcmp(S->chunks[i - 1].name->text, ar.short_src) == 0)
        chunk = i;
    if (!chunk) chunk = keep_chunk(S, &ar);
    S->place_function = function;
    S->place_chunk = chunk;
    return (lml_place){ chunk, (uint32_t)ar.currentline };
  }
  return (lml_place){ 0, 0 };
}

void lml_chunks_free(lml_state *S) {
  S->naming = true;
  for (uint32_t i = 0; i < S->chunk_count; i++) mli_release(S->chunks[i].name);
  S->chunk_count = 0;
  S->naming = false;
  S->place_function = NULL;
}

const char *lml_chunk_name(lml_state *S, uint32_t chunk) {
  return chunk && chunk <= S->chunk_count ? S->chunks[chunk - 1].name->text : "?";
}

const char *lml_job_name(lml_job *job, char *buffer, size_t size) {
  if (job->info && job->info->name) return job->info->name;
  if (job->task && job->task->name[0]) return job->task->name;
  snprintf(buffer, size, "job %u", job->id);
  return buffer;
}

const char *lml_job_title(lml_job *job, char *buffer, size_t size) {
  char name[64];
  const char *given = lml_job_name(job, name, sizeof name);
  if (given == name)
    snprintf(buffer, size, "%s", name);
  else
    snprintf(buffer, size, "job '%s'", given);
  return buffer;
}

/* ---- failure ---- */

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
static bool raised_again(lua_State *L, const lml_info *info) {
  lua_Debug ar;
  if (!info || !info->traceback || !is_noted(L, info->traced, 1)) return false;
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
  if (job) {
    append(&b, "\nin ", lml_job_title(job, name, sizeof name));
    uint32_t at = job->task ? job->task->line : job->place.line;
    if (at) {
      append(&b, job->task ? ", submitted at " : ", spawned at ",
             job->task ? mli_task_chunk(job->task) : lml_chunk_name(S, job->place.chunk));
      snprintf(line, sizeof line, ":%u", at);
      luaL_addstring(&b, line);
    }
  }
  luaL_pushresult(&b);
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
}

static bool is_own_cancel(lua_State *L, const lml_job *job, int error) {
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
  if (job && is_own_cancel(L, job, 1)) return 1;   /* no failure */
  if (job && raised_again(L, job->info)) return 1; /* what was noted then says more */
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
  }
  lua_settop(L, 1);
  return 1;
}

/* ---- the base ---- */

void lml_resolve(lua_State *L, int index) {
  if (lua_type(L, index) != LUA_TSTRING) return;
  index = lua_absindex(L, index);
  const char *name = lua_tostring(L, index);
  const char *colon = strchr(name, ':');
  if (!colon || colon == name || !colon[1])
    luaL_error(L, "a job's name is \"module:function\", got \"%s\"", name);
  lua_getglobal(L, "require");
  lua_pushlstring(L, name, (size_t)(colon - name));
  lua_call(L, 1, 1);
  for (const char *field = colon + 1; field;) {
    const char *dot = strchr(field, '.');
    size_t n = dot ? (size_t)(dot - field) : strlen(field);
    if (!lua_istable(L, -1) && luaL_getmetafield(L, -1, "__index") == LUA_TNIL)
      luaL_error(L, "job \"%s\": cannot look up '%s' in a %s value", name, field,
                 luaL_typename(L, -1));
    else if (!lua_istable(L, -1))
      lua_pop(L, 1);
    lua_pushlstring(L, field, n);
    lua_gettable(L, -2);
    lua_remove(L, -2);
    field = dot ? dot + 1 : NULL;
  }
  if (lua_type(L, -1) != LUA_TFUNCTION && luaL_getmetafield(L, -1, "__call") == LUA_TNIL) {
    lua_pushfstring(L, "job \"%s\": function expected, got %s", name, luaL_typename(L, -1));
    luaL_error(L, "%s", lua_tostring(L, -1));
  } else if (lua_gettop(L) > 0 && lua_type(L, -1) != LUA_TFUNCTION) {
    lua_pop(L, 1); /* the __call */
  }
  lua_replace(L, index);
}

/* The base's frame, and what it leaves when the job ends:
**   1 the future of a spawned job, nil for a submitted one
**   2 the message handler
**   3 the function and its arguments; then the results, or the error */
#define FIRST 3

/* The outcome of a submitted job is encoded here, where an error of the encoding
** becomes the error of the job. */
static int leave_outcome(lua_State *L, lml_job *job) {
  if (job->task)
    job->S->outcome = lml_encode(L, FIRST, lua_gettop(L) - FIRST + 1,
                                 job->failed ? LML_ERROR_VALUE : LML_RESULTS);
  return lua_gettop(L);
}

/* An error of the clean-up is the job's. */
static int closed_k(lua_State *L, int status, lua_KContext ctx) {
  lml_job *job = (lml_job *)ctx;
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_insert(L, FIRST);
    lua_settop(L, FIRST);
    job->failed = true;
  }
  return leave_outcome(L, job);
}

/* The generators that the job left open are closed before it ends. What an init made is
** the state's. */
static int close_left(lua_State *L, lml_job *job) {
  if (job->S->starting && !job->task && job->parent == 0) lml_left_join(&job->root.open, NULL);
  if (!lml_left_take(L, job->S, FIRST, &job->root.open, NULL)) return leave_outcome(L, job);
  lml_left_push_close(L, job->failed && !is_own_cancel(L, job, FIRST));
  return closed_k(L, lua_pcallk(L, 2, 0, 2, (lua_KContext)job, closed_k), (lua_KContext)job);
}

static int base_k(lua_State *L, int status, lua_KContext ctx) {
  lml_job *job = (lml_job *)ctx;
  job->failed = status != LUA_OK && status != LUA_YIELD;
  lml_scopes_leave(job);
  return mli_likely(!job->root.open) ? leave_outcome(L, job) : close_left(L, job);
}

static int base(lua_State *L) {
  lml_job *job = lml_upstate(L)->current;
  lua_pushcfunction(L, lml_message_handler);
  lua_insert(L, 2);
  int status = lua_pcallk(L, lua_gettop(L) - FIRST, LUA_MULTRET, 2, (lua_KContext)job, base_k);
  return base_k(L, status, (lua_KContext)job);
}

/* A submitted job's: the function and its arguments come out of the message. */
static int task_base(lua_State *L) {
  lml_job *job = lml_upstate(L)->current;
  lua_pushcfunction(L, lml_message_handler);
  if (job->task->context) job->context = lml_context_decode(L, job->task->context);
  lml_decode(L, job->task->payload);
  mli_message_free(job->task->payload);
  job->task->payload = NULL;
  lml_resolve(L, FIRST);
  if (mli_unlikely(lua_isuserdata(L, -1))) lml_generator_begin(L, lml_upstate(L), FIRST);
  int status = lua_pcallk(L, lua_gettop(L) - FIRST, LUA_MULTRET, 2, (lua_KContext)job, base_k);
  return base_k(L, status, (lua_KContext)job);
}

void lml_job_push_future(lua_State *L, lml_job *job) {
  lua_Debug ar;
  luaL_checkstack(L, 1, NULL);
  if (!job->started) { /* base, future, f, ... */
    lua_pushvalue(job->co, 2);
    lua_xmove(job->co, L, 1);
    return;
  }
  int low = 0, high = 1;
  while (lua_getstack(job->co, high, &ar)) low = high, high *= 2;
  while (low + 1 < high) { /* the base is the outermost frame */
    int middle = (low + high) / 2;
    if (lua_getstack(job->co, middle, &ar))
      low = middle;
    else
      high = middle;
  }
  luaL_checkstack(job->co, 1, NULL);
  if (lua_getstack(job->co, low, &ar) && lua_getlocal(job->co, &ar, 1))
    lua_xmove(job->co, L, 1);
  else
    lua_pushnil(L);
}

static const char base_key, task_base_key;

/* ---- making jobs ---- */

lml_job *lml_job_spawn_at(lua_State *L, lml_state *S, int nargs, lml_place place) {
  lml_coroutine c = coroutine_get(L, S);
  lml_future *u = lua_newuserdatauv(L, sizeof *u, 1);
  mli_future_init(&u->local, &mli_future_type, false);
  u->local.on_cancel = lml_local_cancel;
  u->handle.object = &u->local.object;
  u->values = -1;
  u->job = NULL;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->local_future_ref);
  lua_setmetatable(L, -2);
  lml_job *job = lua_checkstack(c.co, nargs + LUA_MINSTACK) ? job_new(S) : NULL;
  if (!job) {
    coroutine_put(S, c.co, c.slot);
    luaL_error(L, "not enough memory");
  }
  u->job = job;
  job->fut = u;
  job->co = c.co;
  job->slot = c.slot;
  job->place = place;
  job->context = lml_context_share(L, S);
  /* L: f, args..., future. The coroutine: base, future, f, args... */
  lua_rawgetp(L, LUA_REGISTRYINDEX, &base_key);
  lua_pushvalue(L, -2);
  lua_xmove(L, c.co, 2);
  lua_insert(L, -nargs - 2);
  lua_xmove(L, c.co, nargs + 1);
  mli_count(&S->count->submitted, 1);
  lml_job_ready(job);
  return job;
}

lml_job *lml_job_spawn(lua_State *L, lml_state *S, int nargs) {
  return lml_job_spawn_at(L, S, nargs, lml_place_of(L, S));
}

static void on_timeout(mli_timer *timer) {
  lml_job *job = mli_container(timer, lml_info, deadline)->job;
  job->root.timed_out = true;
  lml_job_cancel(job);
}

/* Takes over a reference of the task. Called outside of the turn: no Lua here. */
void lml_task_start(lml_state *S, mli_task *task) {
  lml_job *job = job_new(S);
  if (job && task->timeout != MLI_FOREVER && !lml_job_info(job)) {
    job_free(job);
    job = NULL;
  }
  if (!job) {
    mli_task_settle(S->worker, task, MLI_FAILED, NULL, NULL, ML_MEMORY);
    return;
  }
  job->parent = 0;
  job->home = 0;
  job->task = task;
  job->origin = task->origin;
  task->runner = job;
  lml_job_ready(job);
}

void lml_task_drop(lml_state *S, mli_task *task) {
  mli_task_settle(S->worker, task, MLI_STOPPED, NULL, NULL, ML_OK);
}

void lml_job_ready(lml_job *job) {
  lml_state *S = job->S;
  if (job->ready) return;
  job->ready = true;
  job->ready_next = NULL;
  *S->ready_last = job;
  S->ready_last = &job->ready_next;
  if (!S->in_turn) mli_loop_again(S->loop);
}

/* ---- cancelling ---- */

lml_scope *lml_job_cancelled(const lml_job *job) { return lml_scope_cancelled(job->scope); }

void lml_push_cancel_error(lua_State *L, const mli_future *f, const char *who) {
  int top = lua_gettop(L);
  luaL_checkstack(L, 8, NULL);
  if (!f->reason || lml_decode(L, f->reason) == 0) lua_pushnil(L);
  lua_settop(L, top + 1);
  if (!*who) who = "the job";
  if (lua_isnil(L, -1))
    lml_error_push(L, "cancelled", "%s was cancelled", who);
  else
    lml_error_push(L, "cancelled", "%s was cancelled: %s", who, luaL_tolstring(L, -1, NULL));
  lua_pushvalue(L, top + 1);
  lua_setfield(L, -2, "reason");
  lua_replace(L, top + 1);
  lua_settop(L, top + 1);
}

int lml_raise_cancelled(lua_State *L, lml_state *S, lml_scope *scope) {
  lml_job *job = S->current;
  if (scope->deliveries < UINT8_MAX) scope->deliveries++;
  if (scope->error == LUA_NOREF) {
    char name[96];
    if (job && scope == &job->root)
      lml_push_cancel_error(L, job->task ? &job->task->future : lml_future_core(job->fut),
                            lml_job_title(job, name, sizeof name));
    else
      lml_scope_push_error(L, scope);
    scope->error = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, scope->error);
  return lua_error(L);
}

/* A job that has not started never will; a parked one is woken as soon as what
** it waits for is given up; any other is told at its next wait. */
void lml_job_cancel(lml_job *job) {
  if (!job->root.since) job->root.since = mli_now();
  if (job->started && lml_job_cancelled(job)) lml_job_interrupt(job);
}

void lml_job_interrupt(lml_job *job) {
  lml_await *a = &job->await;
  if (!a->parked || a->why) return;
  a->why = LML_CANCEL;
  a->abort(a);
}

/* ---- the end of a job ---- */

/* Keeps the n values on top of `co` in the future's handle, at 1. */
static void keep_values(lua_State *L, lua_State *co, lml_future *u, int n) {
  if (n > 1) {
    luaL_checkstack(L, n + 2, "too many results");
    lua_createtable(L, n, 0);
    lua_xmove(co, L, n);
    for (int i = n; i > 0; i--) lua_rawseti(L, -i - 1, i);
    lua_xmove(L, co, 1);
  }
  if (n > 0) lua_setiuservalue(co, 1, 1);
  u->values = n;
}

/* Was it the job's own cancel that ended it? Its timeout is a failure. */
static mli_state failure_state(lua_State *L, lml_job *job) {
  lua_State *co = job->co;
  bool own = job->kill && !lml_generator_verdict(job);
  if (!own) own = is_own_cancel(co, job, lua_gettop(co));
  if (!own) return MLI_FAILED;
  mli_message_free(job->S->outcome);
  job->S->outcome = NULL;
  if (!job->root.timed_out) return MLI_STOPPED;
  char name[96];
  lml_error_push(L, "timeout", "%s ran longer than its timeout",
                 lml_job_title(job, name, sizeof name));
  lua_xmove(L, co, 1);
  lua_replace(co, FIRST);
  return MLI_FAILED;
}

static void settle_task(lua_State *L, lml_state *S, lml_job *job, mli_state state,
                        char *traceback) {
  mli_task *task = job->task;
  mli_message *outcome = job->S->outcome;
  job->S->outcome = NULL;
  if (state != MLI_STOPPED && !outcome) {
    bool failed = true;
    lua_pushvalue(job->co, FIRST);
    lua_xmove(job->co, L, 1);
    outcome = lml_encode_outcome(L, 1, &failed);
  }
  bool lost = state != MLI_STOPPED && !outcome;
  job->task = NULL;
  task->runner = NULL;
  if (lost) free(traceback), traceback = NULL;
  mli_task_settle(S->worker, task, state, outcome, traceback, lost ? ML_MEMORY : ML_OK);
}

static void settle_spawned(lua_State *L, lml_state *S, lml_job *job, mli_state state,
                           char *traceback) {
  lua_State *co = job->co;
  lml_future *u = job->fut;
  mli_future *f = lml_future_core(u);
  mli_message *outcome = NULL;
  int n = lua_gettop(co) - FIRST + 1;
  if (state != MLI_STOPPED && !lml_future_is_local(u)) {
    bool failed = state == MLI_FAILED;
    luaL_checkstack(L, n + 4, "too many results");
    for (int i = 0; i < n; i++) {
      lua_pushvalue(co, FIRST + i);
      lua_xmove(co, L, 1);
    }
    outcome = lml_encode_outcome(L, n, &failed);
    if (failed && state != MLI_FAILED) { /* the results do not cross: others see that */
      state = MLI_FAILED;
      n = -1;
    }
  }
  if (n >= 0 && state != MLI_STOPPED) keep_values(L, co, u, n);
  u->job = NULL;
  lua_settop(co, 1);
  /* A failure is to be reported if nobody asks: now the handle needs a finalizer. */
  if (state == MLI_FAILED) lml_future_track(co, S);
  mli_count(state == MLI_FINISHED ? &S->count->finished
            : state == MLI_FAILED ? &S->count->failed
                                  : &S->count->cancelled,
            1);
  if (state == MLI_STOPPED) free(traceback), traceback = NULL;
  mli_future_settle(f, state, outcome, traceback);
}

/* Settles the job's future and lets the job go. `co` is as the base leaves it. */
static void finish(lua_State *L, lml_job *job) {
  lml_state *S = job->S;
  lml_scopes_leave(job);
  if (mli_unlikely(job->locks != NULL)) lml_locks_end(L, job);
  mli_count(&S->count->running, -1);
  char *traceback = NULL;
  mli_state state = job->failed ? failure_state(L, job) : MLI_FINISHED;
  if (mli_unlikely(mli_observing())) lml_observe_end(job, state);
  if (state == MLI_FAILED && job->info) {
    traceback = job->info->traceback;
    job->info->traceback = NULL;
  }
  if (job->task)
    settle_task(L, S, job, state, traceback);
  else
    settle_spawned(L, S, job, state, traceback);
  coroutine_put(S, job->co, job->slot);
  job_free(job);
}

/* Ends a job from outside: its coroutine is closed where it stands. The error
** value on top of L is popped and becomes the job's. */
static void stop(lua_State *L, lml_state *S, lml_job *job) {
  luaL_checkstack(L, 4, NULL);
  lml_job_push_future(L, job);
  lml_scopes_leave(job);
  S->closing++;
  lua_resetthread(job->co);
  S->closing--;
  lua_settop(job->co, 0);
  lua_xmove(L, job->co, 1); /* the future */
  lua_pushnil(job->co);
  lua_xmove(L, job->co, 1);
  job->failed = true;
}

/* ---- the turn ---- */

/* It was cancelled before it began: it never does. */
static void drop(lml_state *S, lml_job *job) {
  if (mli_unlikely(mli_observing())) lml_observe_end(job, MLI_STOPPED);
  if (job->task) {
    mli_task *task = job->task;
    job->task = NULL;
    lml_task_drop(S, task);
  } else {
    job->fut->job = NULL;
    mli_count(&S->count->cancelled, 1);
    coroutine_put(S, job->co, job->slot);
  }
  job_free(job);
}

/* False: it does not run. Raises on lack of memory. */
static bool start(lua_State *L, lml_state *S, lml_job *job) {
  mli_future *f = job->task ? &job->task->future : lml_future_core(job->fut);
  if (job->task && !job->co) {
    lml_coroutine c = coroutine_get(L, S);
    job->co = c.co;
    job->slot = c.slot;
    lua_rawgetp(c.co, LUA_REGISTRYINDEX, &task_base_key);
    lua_pushnil(c.co);
  }
  if (!mli_future_start(f)) return false;
  job->started = true;
  mli_count(&S->count->running, 1);
  if (job->task && job->task->timeout != MLI_FOREVER) {
    job->info->deadline.fire = on_timeout;
    mli_loop_deadline_start(S->loop, &job->info->deadline, mli_time() + job->task->timeout);
  }
  return true;
}

static void run(lua_State *L, lml_state *S, lml_job *job) {
  int nargs = 0, count;
  bool first = !job->started;
  if (first) {
    if (!start(L, S, job)) {
      drop(S, job);
      return;
    }
    nargs = lua_gettop(job->co) - 1;
  }
  if (mli_unlikely(job->kill)) {
    const char *verdict = lml_generator_verdict(job);
    lua_pushstring(L, verdict ? verdict : "stopped");
    stop(L, S, job);
    finish(L, job);
    return;
  }
  uint64_t began = mli_unlikely(mli_observing()) ? lml_observe_run(L, S, job, first) : 0;
  S->current = job;
  S->running = job->co;
  S->in_wait = false;
  mli_task *task = job->task;
  if (task) mli_worker_runs(S->worker, task);
  mli_watch *watch = &S->loop->watch;
  mli_watch_step(watch);
  if (mli_unlikely(job->slice != atomic_load_explicit(&watch->slice, memory_order_relaxed)))
    mli_watch_slice(watch, job->slice);
  int status = lua_resume(job->co, L, nargs, &count);
  if (mli_unlikely(atomic_load_explicit(&S->poked.reasons, memory_order_relaxed)))
    lml_blocked_over(S);
  if (mli_unlikely(began != 0)) lml_observe_ran(S, job, began);
  if (task) mli_worker_runs(S->worker, NULL);
  S->running = NULL;
  S->frames = NULL;
  S->current = NULL;
  if (status == LUA_YIELD) {
    if (mli_likely(S->in_wait)) return;
    if (S->preempted) { /* it goes on after the others, and after a look at I/O */
      const lml_scope *scope = lml_job_cancelled(job);
      if (mli_unlikely(scope != NULL)) job->kill = lml_scope_is_swallowed(scope);
      S->preempted = false;
      S->starved = true;
      lml_job_ready(job);
      return;
    }
    lua_pushliteral(L, "a job called a copy of coroutine.yield from before require \"moonloop\"; "
                       "nothing would resume it");
    stop(L, S, job);
  } else if (mli_unlikely(status != LUA_OK)) {
    /* Raised by the base itself: what comes in or goes out cannot cross. */
    job->failed = true;
    bool lost = !job->task; /* only for lack of memory: its handle is out of reach */
    if (lost) {             /* settled while the stack still holds it */
      job->fut->job = NULL;
      mli_count(&S->count->running, -1);
      mli_count(&S->count->failed, 1);
      mli_future_fail(lml_future_core(job->fut), ML_MEMORY);
    }
    lua_xmove(job->co, L, 1);
    lua_resetthread(job->co);
    lua_settop(job->co, 0);
    lua_pushnil(job->co);
    lua_pushnil(job->co);
    lua_xmove(L, job->co, 1);
    if (lost) {
      coroutine_put(S, job->co, job->slot);
      job_free(job);
      S->starved = true;
      return;
    }
  }
  finish(L, job);
}

static int turn(lua_State *L) {
  lml_state *S = lua_touserdata(L, 1);
  uint64_t end = 0;
  for (unsigned n = 0; S->ready && n < JOBS_PER_TURN; n++) {
    lml_job *job = S->ready;
    S->ready = job->ready_next;
    if (!S->ready) S->ready_last = &S->ready;
    job->ready = false;
    S->turning = job;
    run(L, S, job);
    S->turning = NULL;
    if (mli_unlikely(S->starved)) { /* a job takes long: the loop looks around after each */
      S->starved = false;
      break;
    }
    if (n % 32 == 31) {
      uint64_t now = mli_now();
      if (end == 0)
        end = now + TURN_LENGTH;
      else if (now > end)
        break;
    }
  }
  return 0;
}

/* Outside of any job the scheduler itself ran out of memory, over this job. */
static void out_of_memory(lml_state *S, lml_job *job) {
  S->current = NULL;
  S->running = NULL;
  if (!job) return;
  if (job->task) {
    mli_task *task = job->task;
    job->task = NULL;
    mli_task_settle(S->worker, task, MLI_FAILED, NULL, NULL, ML_MEMORY);
  } else {
    mli_future *f = lml_future_core(job->fut);
    job->fut->job = NULL;
    mli_count(&S->count->failed, 1);
    mli_future_fail(f, ML_MEMORY);
  }
  job_free(job); /* its coroutine is lost with it */
}

bool lml_turn(lml_state *S) {
  if (mli_unlikely(atomic_load_explicit(&S->poked.reasons, memory_order_relaxed)))
    lml_blocked_over(S);
  if (!S->ready) return false;
  lua_State *L = S->from;
  if (!lua_checkstack(L, LUA_MINSTACK)) return true;
  S->in_turn = true;
  lua_pushcfunction(L, turn);
  lua_pushlightuserdata(L, S);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
    lua_pop(L, 1);
    lml_job *job = S->turning;
    S->turning = NULL;
    out_of_memory(S, job);
  }
  S->in_turn = false;
  lml_tidy_later(S);
  return S->ready != NULL;
}

/* ---- Lua: spawn, current_job ---- */

static const char spawn_other_key; /* registry: what spawns all but functions */

void lml_spawn_other(lua_State *L, int n) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &spawn_other_key);
  lua_insert(L, -n - 1);
  lua_call(L, n, 1);
}

/* ml.spawn(job, ...): a job on this loop. */
static int l_spawn(lua_State *L) {
  lml_state *S = lml_upstate(L);
  if (mli_likely(S->loop && lua_isfunction(L, 1)))
    lml_job_spawn(L, S, lua_gettop(L) - 1);
  else
    lml_spawn_other(L, lua_gettop(L));
  return 1;
}

static int l_spawn_other(lua_State *L) {
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &spawn_other_key);
  return 0;
}

/* coroutine_function(co): the function of a coroutine that has not started; nil
** if it has. */
static int l_coroutine_function(lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  lua_Debug ar;
  if (co && lua_status(co) == LUA_OK && lua_gettop(co) == 1 && !lua_getstack(co, 0, &ar) &&
      lua_isfunction(co, 1) && lua_checkstack(co, 1)) {
    lua_pushvalue(co, 1);
    lua_xmove(co, L, 1);
    return 1;
  }
  return 0;
}

/* spawn_named(name, timeout or nil, f, ...): the same with options. */
static int l_spawn_named(lua_State *L) {
  lml_state *S = lml_upstate(L);
  const char *name = luaL_optstring(L, 1, NULL);
  uint64_t deadline = lml_check_deadline(L, 2);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  lml_job *job = lml_job_spawn(L, S, lua_gettop(L) - 3);
  lml_info *info = lml_job_info(job);
  if (!info) return luaL_error(L, "not enough memory");
  if (name) info->name = strdup(name);
  if (deadline != MLI_FOREVER) {
    info->deadline.fire = on_timeout;
    mli_loop_deadline_start(S->loop, &info->deadline, deadline);
  }
  return 1;
}

/* ml.current_job(): the future of the running job; nil outside of jobs. */
static int l_current_job(lua_State *L) {
  lml_state *S = lml_upstate(L);
  mli_task *task = S->current ? S->current->task : S->task;
  if (task)
    lml_handle_push(L, &task->future.object);
  else if (S->current)
    lml_job_push_future(L, S->current);
  else
    lua_pushnil(L);
  return 1;
}

void lml_job_open(lua_State *L) {
  static const luaL_Reg functions[] = {
    { "spawn", l_spawn },
    { "spawn_other", l_spawn_other },
    { "coroutine_function", l_coroutine_function },
    { "spawn_named", l_spawn_named },
    { "current_job", l_current_job },
    { "message_handler", lml_message_handler },
    { NULL, NULL },
  };
  lml_setfuncs(L, functions);
  lml_state *S = lml_state_of(L);
  S->yieldable[5] = base;
  S->yieldable[6] = task_base;
  lua_pushlightuserdata(L, S);
  lua_pushcclosure(L, base, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &base_key);
  lua_pushlightuserdata(L, S);
  lua_pushcclosure(L, task_base, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &task_base_key);
}
