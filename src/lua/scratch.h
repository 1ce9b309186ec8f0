/*
** scratch.h: the memory in which one message is put together: its bytes, the
** objects they refer to, what was met already, and the path to where we are. The
** caches of a state own it, so nothing of it is lost when Lua raises. Of these
** functions none raises; those that allocate say false or NULL when they cannot.
*/
#ifndef LML_SCRATCH_H
#define LML_SCRATCH_H

#include <stdlib.h>
#include <string.h>
#include "core/object.h"

/* Something that was met: a value or an upvalue of this message, by its address. */
typedef struct lml_met {
  const void *key;
  uint32_t stamp;  /* of the message it belongs to */
  uint32_t number; /* of the value; of the closure, for an upvalue; of the object */
  uint32_t part;   /* which upvalue of the closure */
} lml_met;

/* One step of the path from a root to a value. */
typedef struct lml_step {
  uint8_t kind;
  int index;        /* a stack index or a number, by kind */
  const char *name; /* of an upvalue */
} lml_step;

typedef struct lml_scratch lml_scratch;
struct lml_scratch {
  lml_scratch *next; /* in the list of idle ones */
  unsigned char *bytes;
  size_t size, room;
  bool far;             /* the message is for another process */
  mli_object **objects; /* each holds a reference */
  uint32_t count, objects_room;
  lml_met *met; /* open addressing; a power of two */
  uint32_t met_count, met_room, stamp;
  lml_step *path;
  uint32_t path_room;
};

/* What is kept for the next message; more than that is given back. */
#define LML_KEEP_BYTES ((size_t)256 << 10)
#define LML_KEEP_ENTRIES 4096

static inline void lml_scratch_free(lml_scratch *s) {
  free(s->bytes);
  free(s->objects);
  free(s->met);
  free(s->path);
  free(s);
}

/* Drops what is left of a message and keeps modest memory for the next one. */
static inline void lml_scratch_reset(lml_scratch *s) {
  for (uint32_t i = 0; i < s->count; i++) mli_object_release(s->objects[i]);
  s->count = 0;
  s->size = 0;
  s->far = false;
  if (mli_unlikely(s->room > LML_KEEP_BYTES)) {
    free(s->bytes);
    s->bytes = NULL;
    s->room = 0;
  }
  if (mli_unlikely(s->met_room > LML_KEEP_ENTRIES)) {
    free(s->met);
    s->met = NULL;
    s->met_room = 0;
  }
  if (mli_unlikely(s->path_room > LML_KEEP_ENTRIES)) {
    free(s->path);
    s->path = NULL;
    s->path_room = 0;
  }
  if (s->met && s->met_count && ++s->stamp == 0) { /* it went round: old entries would look new */
    memset(s->met, 0, s->met_room * sizeof *s->met);
    s->stamp = 1;
  }
  s->met_count = 0;
}

static inline bool lml_scratch_grow(lml_scratch *s, size_t n) {
  if (n > SIZE_MAX / 2 - s->size) return false;
  size_t room = s->room + s->room / 2;
  if (room < s->size + n) room = s->size + n; /* exactly, for one long string */
  if (room < 512) room = 512;
  unsigned char *bytes = realloc(s->bytes, room);
  if (!bytes) return false;
  s->bytes = bytes;
  s->room = room;
  return true;
}

/* Space for `n` more bytes, to be written at once. */
static inline unsigned char *lml_scratch_take(lml_scratch *s, size_t n) {
  if (mli_unlikely(n > s->room - s->size) && !lml_scratch_grow(s, n)) return NULL;
  s->size += n;
  return s->bytes + (s->size - n);
}

/* Makes sure that one more object can be stored. */
static inline bool lml_scratch_expect_object(lml_scratch *s) {
  if (mli_likely(s->count < s->objects_room)) return true;
  uint32_t room = s->objects_room ? s->objects_room * 2 : 8;
  mli_object **objects = room > s->objects_room ? realloc(s->objects, room * sizeof *objects)
                                                : NULL;
  if (!objects) return false;
  s->objects = objects;
  s->objects_room = room;
  return true;
}

static inline lml_met *lml_scratch_slot(const lml_scratch *s, const void *key) {
  uint64_t hash = (uintptr_t)key * UINT64_C(0x9E3779B97F4A7C15);
  uint32_t mask = s->met_room - 1;
  for (uint32_t i = (uint32_t)(hash >> 32) & mask;; i = (i + 1) & mask) {
    lml_met *m = &s->met[i];
    if (m->stamp != s->stamp || m->key == key) return m;
  }
}

/* What is known of the address in this message, or NULL. */
static inline lml_met *lml_scratch_find(const lml_scratch *s, const void *key) {
  if (s->met_count == 0) return NULL;
  lml_met *m = lml_scratch_slot(s, key);
  return m->stamp == s->stamp ? m : NULL;
}

static inline bool lml_scratch_grow_met(lml_scratch *s) {
  lml_scratch grown = { .stamp = 1, .met_room = s->met_room ? s->met_room * 2 : 64 };
  if (grown.met_room < s->met_room) return false;
  grown.met = calloc(grown.met_room, sizeof *grown.met);
  if (!grown.met) return false;
  for (uint32_t i = 0; i < s->met_room; i++) {
    if (s->met[i].stamp != s->stamp) continue;
    lml_met *m = lml_scratch_slot(&grown, s->met[i].key);
    *m = s->met[i];
    m->stamp = grown.stamp;
  }
  free(s->met);
  s->met = grown.met;
  s->met_room = grown.met_room;
  s->stamp = grown.stamp;
  return true;
}

/* Adds an address that is not known yet. The pointer is good until the next. */
static inline lml_met *lml_scratch_add(lml_scratch *s, const void *key, uint32_t number) {
  if (s->met_count >= s->met_room / 2 && !lml_scratch_grow_met(s)) return NULL;
  lml_met *m = lml_scratch_slot(s, key);
  *m = (lml_met){ key, s->stamp, number, 0 };
  s->met_count++;
  return m;
}

/* Makes sure that the path can have this many steps. */
static inline bool lml_scratch_expect_steps(lml_scratch *s, uint32_t steps) {
  if (mli_likely(steps <= s->path_room)) return true;
  uint32_t room = s->path_room ? s->path_room * 2 : 32;
  lml_step *path = realloc(s->path, room * sizeof *path);
  if (!path) return false;
  s->path = path;
  s->path_room = room;
  return true;
}

#endif
