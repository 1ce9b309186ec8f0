/*
** job_memory.c: the records of jobs and their coroutines, both recycled.
*/
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "core/observe.h"
#include "generator.h"
#include "state.h"

#define COROUTINES_PER_TABLE 256
#define IDLE_COROUTINES 16384 /* 16 MB; to make one costs more than all the rest of a job */
#define FIRST_CHUNK (16u << 10)
#define LARGE_PAGE (2u << 20)

/* ---- records ---- */

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

lml_job *lml_job_new(lml_state *S) {
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

void lml_job_free(lml_job *job) {
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
    job->info->timeout = MLI_FOREVER;
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

bool lml_grow(void **array, size_t *room, size_t count, size_t size) {
  if (count < *room) return true;
  size_t more = *room ? *room * 2 : 64;
  void *grown = realloc(*array, more * size);
  if (!grown) return false;
  *array = grown;
  *room = more;
  return true;
}

lml_coroutine lml_coroutine_get(lua_State *L, lml_state *S) {
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

void lml_coroutine_put(lml_state *S, lua_State *co, unsigned slot) {
  lua_State *L = S->from ? S->from : S->L;
  if (S->idle_count < IDLE_COROUTINES &&
      lml_grow((void **)&S->idle, &S->idle_room, S->idle_count, sizeof *S->idle)) {
    lua_settop(co, 0);
    S->idle[S->idle_count++] = (lml_coroutine){ co, slot };
    return;
  }
  if (!lml_grow((void **)&S->free_slots, &S->free_slot_room, S->free_slot_count,
                sizeof *S->free_slots))
    return; /* the slot is lost to later use, not leaked */
  push_anchors(L, slot);
  lua_pushboolean(L, 0);
  lua_rawseti(L, -2, slot % COROUTINES_PER_TABLE + 1);
  lua_pop(L, 1);
  S->free_slots[S->free_slot_count++] = slot;
}
