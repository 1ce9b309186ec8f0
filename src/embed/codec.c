/* codec.c: lists of values to messages and back, without a Lua state: see lua/format.h. */
#include <stdlib.h>
#include <string.h>
#include "lua/format.h"
#include "values.h"

/* ---- writing ---- */

typedef struct writer {
  unsigned char *bytes;
  size_t size, room;
  bool failed;
} writer;

static unsigned char *take(writer *w, size_t n) {
  if (w->failed) return NULL;
  if (n > w->room - w->size) {
    size_t room = w->room ? w->room * 2 : 256;
    while (room < w->size + n) room *= 2;
    unsigned char *grown = realloc(w->bytes, room);
    if (!grown) {
      w->failed = true;
      return NULL;
    }
    w->bytes = grown;
    w->room = room;
  }
  w->size += n;
  return w->bytes + w->size - n;
}

static void put(writer *w, const void *bytes, size_t n) {
  unsigned char *p = take(w, n);
  if (p && n) memcpy(p, bytes, n);
}

static void put_tag(writer *w, enum tag tag) {
  unsigned char *p = take(w, 1);
  if (p) *p = (unsigned char)tag;
}

static void put_string(writer *w, const char *bytes, size_t size) {
  if (size <= 255) {
    unsigned char length = (unsigned char)size;
    put_tag(w, STRING);
    put(w, &length, 1);
  } else {
    uint64_t length = size;
    put_tag(w, LONG);
    put(w, &length, 8);
  }
  put(w, bytes, size);
}

static void put_value(writer *w, const ml_value *value);

static void put_table(writer *w, const mle_table *t) {
  uint32_t counts[2] = { (uint32_t)t->count, (uint32_t)t->pair_count };
  if (t->count > INT32_MAX || t->pair_count > INT32_MAX) w->failed = true;
  put_tag(w, TABLE);
  put(w, counts, TABLE_SIZE);
  for (size_t i = 0; i < t->count; i++) put_value(w, &t->items[i]);
  for (size_t i = 0; i < 2 * t->pair_count; i++) put_value(w, &t->pairs[i]);
}

static void put_value(writer *w, const ml_value *value) {
  switch (value->type) {
  case ML_BOOLEAN: put_tag(w, value->boolean ? TRUE : FALSE); break;
  case ML_INTEGER:
    put_tag(w, INTEGER);
    put(w, &value->integer, 8);
    break;
  case ML_NUMBER:
    put_tag(w, FLOAT);
    put(w, &value->number, 8);
    break;
  case ML_POINTER: {
    uint64_t p = (uintptr_t)value->pointer;
    put_tag(w, POINTER);
    put(w, &p, 8);
    break;
  }
  case ML_STRING: put_string(w, value->string.bytes, value->string.size); break;
  case ML_TABLE: put_table(w, value->table); break;
  default: put_tag(w, NIL); break;
  }
}

static void put_header(writer *w, unsigned char flags, size_t count) {
  uint32_t n = (uint32_t)count;
  put(w, &flags, 1);
  put(w, &n, 4);
}

static mli_message *finish(writer *w) {
  if (!w->failed) return mli_message_adopt(w->bytes, w->size, NULL, 0);
  free(w->bytes);
  return NULL;
}

mli_message *mle_encode(const ml_values *v, const char *function) {
  writer w = { 0 };
  size_t count = v ? v->root.count : 0;
  put_header(&w, 0, count + (function ? 1 : 0));
  if (function) put_string(&w, function, strlen(function));
  for (size_t i = 0; i < count; i++) put_value(&w, &v->root.items[i]);
  return finish(&w);
}

mli_message *mle_encode_error(const char *code, const char *text) {
  writer w = { 0 };
  static const uint32_t counts[2] = { 0, 2 };
  put_header(&w, NEEDS_METATABLES, 1);
  put_tag(&w, INSTANCE);
  put(&w, counts, TABLE_SIZE);
  put_string(&w, "code", 4);
  put_string(&w, code, strlen(code));
  put_string(&w, "message", 7);
  put_string(&w, text, strlen(text));
  put_tag(&w, ERRORS);
  return finish(&w);
}

/* ---- reading ---- */

typedef struct reader {
  ml_values *v;
  const unsigned char *p, *end;
  ml_value *numbered; /* from 1 */
  size_t count, room;
  unsigned depth;
  bool failed; /* no memory; a message of our own is never damaged */
} reader;

static const unsigned char *get(reader *r, size_t n) {
  static const unsigned char nothing[8];
  if (n > (size_t)(r->end - r->p)) r->failed = true;
  if (r->failed) return nothing;
  r->p += n;
  return r->p - n;
}

static uint32_t get_count(reader *r) {
  uint32_t n;
  memcpy(&n, get(r, 4), 4);
  return n;
}

static uint64_t get_word(reader *r) {
  uint64_t n;
  memcpy(&n, get(r, 8), 8);
  return n;
}

static void note(reader *r, ml_value value) {
  if (r->count == r->room) {
    size_t room = r->room ? r->room * 2 : 16;
    ml_value *grown = realloc(r->numbered, room * sizeof *grown);
    if (!grown) {
      r->failed = true;
      return;
    }
    r->numbered = grown;
    r->room = room;
  }
  r->numbered[r->count++] = value;
}

static ml_value get_value(reader *r);

static ml_value get_string(reader *r, unsigned tag) {
  ml_value value = { .type = ML_NIL };
  uint64_t size = tag == STRING ? *get(r, 1) : get_word(r);
  if (r->failed || size > (size_t)(r->end - r->p)) {
    r->failed = true;
    return value;
  }
  char *copy = mle_values_alloc(r->v, (size_t)size + 1);
  if (!copy) {
    r->failed = true;
    return value;
  }
  memcpy(copy, get(r, (size_t)size), (size_t)size);
  copy[size] = '\0';
  value.type = ML_STRING;
  value.string.bytes = copy;
  value.string.size = (size_t)size;
  return value;
}

static ml_value get_table(reader *r, bool instance) {
  ml_value value = { .type = ML_NIL };
  uint32_t items = get_count(r), pairs = get_count(r);
  mle_table *t = mle_values_alloc(r->v, sizeof *t);
  if (!t) {
    r->failed = true;
    return value;
  }
  memset(t, 0, sizeof *t);
  value.type = ML_TABLE;
  value.table = t;
  note(r, value);
  for (uint32_t i = 0; i < items && !r->failed; i++)
    if (!mle_table_item(r->v, t, get_value(r))) r->failed = true;
  for (uint32_t i = 0; i < pairs && !r->failed; i++) {
    ml_value key = get_value(r), item = get_value(r);
    if (!mle_table_pair(r->v, t, key, item)) r->failed = true;
  }
  if (instance) get_value(r); /* the metatable */
  return value;
}

/* What C does not read is read over. */
static ml_value get_other(reader *r, unsigned tag) {
  ml_value other = { .type = ML_OTHER };
  r->v->partial = true;
  switch (tag) {
  case GLOBALS:
  case ERRORS: break;
  case SHARED:
  case HANDLE: get(r, 4); break;
  case CELL: get(r, 5); break;
  case MODULE:
  case FIELD: /* names: their strings are not numbered */
    get_string(r, *get(r, 1));
    if (tag == FIELD) get_string(r, *get(r, 1));
    note(r, other);
    break;
  case CLOSURE: {
    get(r, 4);
    note(r, other);
    for (unsigned n = *get(r, 1); n > 0 && !r->failed; n--) get_value(r);
    break;
  }
  case MADE: {
    get_string(r, *get(r, 1));
    for (uint32_t n = get_count(r); n > 0 && !r->failed; n--) get_value(r);
    note(r, other);
    break;
  }
  default: r->failed = true;
  }
  return other;
}

static ml_value get_tagged(reader *r, unsigned tag) {
  ml_value value = { .type = ML_NIL };
  switch (tag) {
  case NIL: break;
  case FALSE:
  case TRUE:
    value.type = ML_BOOLEAN;
    value.boolean = tag == TRUE;
    break;
  case INTEGER:
    value.type = ML_INTEGER;
    value.integer = (int64_t)get_word(r);
    break;
  case FLOAT:
    value.type = ML_NUMBER;
    memcpy(&value.number, get(r, 8), 8);
    break;
  case POINTER:
    value.type = ML_POINTER;
    value.pointer = (void *)(uintptr_t)get_word(r);
    break;
  case STRING: return get_string(r, tag);
  case LONG:
    value = get_string(r, tag);
    note(r, value);
    break;
  case TABLE: return get_table(r, false);
  case INSTANCE: return get_table(r, true);
  case KNOWN: {
    uint32_t n = get_count(r);
    if (n > 0 && n <= r->count)
      value = r->numbered[n - 1];
    else
      r->failed = true;
    if (value.type == ML_TABLE) r->v->partial = true;
    break;
  }
  default: return get_other(r, tag);
  }
  return value;
}

static ml_value get_value(reader *r) {
  ml_value value = { .type = ML_NIL };
  if (r->failed || r->depth > MOST_LEVELS + 2) {
    r->failed = true;
    return value;
  }
  r->depth++;
  value = get_tagged(r, *get(r, 1));
  r->depth--;
  return value;
}

ml_values *mle_decode(const mli_message *message) {
  ml_values *v = ml_values_new();
  if (!v || !message) return v;
  reader r = { .v = v, .p = message->bytes, .end = message->bytes + message->size };
  get(&r, 1);
  uint32_t count = get_count(&r);
  for (uint32_t i = 0; i < count && !r.failed; i++)
    if (!mle_table_item(v, &v->root, get_value(&r))) r.failed = true;
  free(r.numbered);
  if (!r.failed) return v;
  ml_values_free(v);
  return NULL;
}
