/*
** place.c: where jobs were made, and what they are called.
*/
#include <stdio.h>
#include <string.h>
#include "state.h"

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
  bool grown = lml_grow((void **)&S->chunks, &room, S->chunk_count, sizeof *S->chunks);
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

const mli_task *lml_own_task(const lml_state *S) {
  return S->current || S->delivering ? NULL : S->task;
}

const char *lml_title(lml_state *S, char *buffer, size_t size) {
  if (S->current) return lml_job_title(S->current, buffer, size);
  const mli_task *task = lml_own_task(S);
  if (task && task->name[0])
    snprintf(buffer, size, "job '%s'", task->name);
  else
    snprintf(buffer, size, "%s", task ? "a job" : "the calling thread");
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
