/* values.c: lists of values: building and looking. */
#include "values.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "handle.h"

#define CHUNK 1024
#define ALIGN 16

struct mle_chunk {
  mle_chunk *next;
  size_t used, size;
};
#define CHUNK_HEAD ((sizeof(mle_chunk) + ALIGN - 1) / ALIGN * ALIGN)

/* ---- memory ---- */

static void fail(ml_values *v, ml_status status) {
  if (v->status == ML_OK) v->status = status;
}

void *mle_values_alloc(ml_values *v, size_t size) {
  if (size > SIZE_MAX / 2) {
    fail(v, ML_MEMORY);
    return NULL;
  }
  size = (size + ALIGN - 1) / ALIGN * ALIGN;
  mle_chunk *c = v->chunks;
  if (!c || c->size - c->used < size) {
    size_t room = CHUNK_HEAD + (size > CHUNK ? size : CHUNK);
    c = malloc(room);
    if (!c) {
      fail(v, ML_MEMORY);
      return NULL;
    }
    c->used = CHUNK_HEAD;
    c->size = room;
    c->next = v->chunks;
    v->chunks = c;
  }
  void *p = (char *)c + c->used;
  c->used += size;
  return p;
}

/* Room for `more` values behind `count`. */
static bool grow(ml_values *v, ml_value **array, size_t *room, size_t count, size_t more) {
  if (count + more <= *room) return true;
  size_t wanted = *room ? *room * 2 : 4;
  if (wanted > SIZE_MAX / 4 / sizeof **array) {
    fail(v, ML_MEMORY);
    return false;
  }
  ml_value *grown = mle_values_alloc(v, wanted * sizeof *grown);
  if (!grown) return false;
  if (count) memcpy(grown, *array, count * sizeof *grown);
  *array = grown;
  *room = wanted;
  return true;
}

bool mle_table_item(ml_values *v, mle_table *t, ml_value value) {
  if (!grow(v, &t->items, &t->room, t->count, 1)) return false;
  t->items[t->count++] = value;
  return true;
}

bool mle_table_pair(ml_values *v, mle_table *t, ml_value key, ml_value value) {
  if (!grow(v, &t->pairs, &t->pair_room, t->pair_count * 2, 2)) return false;
  t->pairs[t->pair_count * 2] = key;
  t->pairs[t->pair_count++ * 2 + 1] = value;
  return true;
}

ml_values *ml_values_new(void) {
  ml_values *v = calloc(1, sizeof *v);
  if (v) v->open = &v->root;
  return v;
}

void ml_values_free(ml_values *v) {
  if (!v) return;
  while (v->chunks) {
    mle_chunk *c = v->chunks;
    v->chunks = c->next;
    free(c);
  }
  free(v);
}

/* ---- building ---- */

static void add(ml_values *v, ml_value value) {
  if (!v || v->status != ML_OK) return;
  if (v->key.type == ML_NONE) {
    mle_table_item(v, v->open, value);
  } else {
    mle_table_pair(v, v->open, v->key, value);
    v->key.type = ML_NONE;
  }
}

/* A copy, with a NUL behind it. */
static ml_value string(ml_values *v, const char *bytes, size_t size) {
  ml_value value = { .type = ML_NIL };
  char *copy = v->status == ML_OK ? mle_values_alloc(v, size + 1) : NULL;
  if (!copy) return value;
  if (size) memcpy(copy, bytes, size);
  copy[size] = '\0';
  value.type = ML_STRING;
  value.string.bytes = copy;
  value.string.size = size;
  return value;
}

void ml_values_add_nil(ml_values *v) { add(v, (ml_value){ .type = ML_NIL }); }

void ml_values_add_boolean(ml_values *v, bool boolean) {
  add(v, (ml_value){ .type = ML_BOOLEAN, .boolean = boolean });
}

void ml_values_add_integer(ml_values *v, int64_t integer) {
  add(v, (ml_value){ .type = ML_INTEGER, .integer = integer });
}

void ml_values_add_number(ml_values *v, double number) {
  add(v, (ml_value){ .type = ML_NUMBER, .number = number });
}

void ml_values_add_string(ml_values *v, const char *bytes, size_t size) {
  if (!v) return;
  if (!bytes && size > 0)
    fail(v, ML_MISUSE);
  else
    add(v, string(v, bytes, size));
}

void ml_values_add_text(ml_values *v, const char *text) {
  if (!v) return;
  if (!text)
    fail(v, ML_MISUSE);
  else
    add(v, string(v, text, strlen(text)));
}

void ml_values_add_pointer(ml_values *v, void *pointer) {
  add(v, (ml_value){ .type = ML_POINTER, .pointer = pointer });
}

void ml_values_open_table(ml_values *v) {
  if (!v || v->status != ML_OK) return;
  if (v->depth == MLE_DEPTH) {
    fail(v, ML_MISUSE);
    return;
  }
  mle_table *t = mle_values_alloc(v, sizeof *t);
  if (!t) return;
  memset(t, 0, sizeof *t);
  t->outer = v->open;
  add(v, (ml_value){ .type = ML_TABLE, .table = t });
  v->open = t;
  v->depth++;
}

void ml_values_close_table(ml_values *v) {
  if (!v || v->status != ML_OK) return;
  if (v->depth == 0 || v->key.type != ML_NONE) {
    fail(v, ML_MISUSE);
    return;
  }
  v->open = v->open->outer;
  v->depth--;
}

static void set_key(ml_values *v, ml_value key) {
  if (v->depth == 0 || v->key.type != ML_NONE)
    fail(v, ML_MISUSE);
  else
    v->key = key;
}

void ml_values_key(ml_values *v, const char *text) {
  if (!v) return;
  if (!text)
    fail(v, ML_MISUSE);
  else
    set_key(v, string(v, text, strlen(text)));
}

void ml_values_key_integer(ml_values *v, int64_t key) {
  if (v) set_key(v, (ml_value){ .type = ML_INTEGER, .integer = key });
}

ml_status ml_values_status(const ml_values *v) {
  if (!v) return mle_fail(ML_MISUSE, "ml_values: a list expected, got NULL");
  if (v->status == ML_MEMORY) return mle_fail(ML_MEMORY, "ml_values: out of memory");
  if (v->status != ML_OK)
    return mle_fail(v->status,
                    "ml_values: NULL, a key that has no place, or tables that do not "
                    "close as they open (or are deeper than %d)",
                    MLE_DEPTH);
  if (v->partial)
    return mle_fail(ML_CROSSING, "ml_values: a value that C cannot write, or tables in a circle");
  if (v->depth > 0) return mle_fail(ML_MISUSE, "ml_values: a table is open");
  return ML_OK;
}

/* ---- looking ---- */

size_t ml_values_count(const ml_values *v) { return v ? v->root.count : 0; }

const ml_value *ml_values_at(const ml_values *v, size_t index) {
  return v && index < v->root.count ? &v->root.items[index] : NULL;
}

ml_type ml_value_type(const ml_value *value) { return value ? value->type : ML_NONE; }

bool ml_value_boolean(const ml_value *value) {
  if (!value || value->type == ML_NIL) return false;
  return value->type != ML_BOOLEAN || value->boolean;
}

int64_t ml_value_integer(const ml_value *value) {
  if (!value) return 0;
  if (value->type == ML_INTEGER) return value->integer;
  double n = value->type == ML_NUMBER ? value->number : 0;
  return n >= -0x1p63 && n < 0x1p63 && floor(n) == n ? (int64_t)n : 0;
}

double ml_value_number(const ml_value *value) {
  if (!value) return 0;
  if (value->type == ML_INTEGER) return (double)value->integer;
  return value->type == ML_NUMBER ? value->number : 0;
}

const char *ml_value_string(const ml_value *value, size_t *size) {
  bool is = value && value->type == ML_STRING;
  if (size) *size = is ? value->string.size : 0;
  return is ? value->string.bytes : NULL;
}

void *ml_value_pointer(const ml_value *value) {
  return value && value->type == ML_POINTER ? value->pointer : NULL;
}

static const mle_table *table_of(const ml_value *value) {
  return value && value->type == ML_TABLE ? value->table : NULL;
}

size_t ml_value_length(const ml_value *value) {
  const mle_table *t = table_of(value);
  return t ? t->count : 0;
}

const ml_value *ml_value_item(const ml_value *value, size_t index) {
  const mle_table *t = table_of(value);
  return t && index < t->count ? &t->items[index] : NULL;
}

size_t ml_value_pairs(const ml_value *value) {
  const mle_table *t = table_of(value);
  return t ? t->pair_count : 0;
}

const ml_value *ml_value_pair(const ml_value *value, size_t index, const ml_value **key) {
  const mle_table *t = table_of(value);
  if (!t || index >= t->pair_count) return NULL;
  if (key) *key = &t->pairs[index * 2];
  return &t->pairs[index * 2 + 1];
}

const ml_value *ml_value_field(const ml_value *value, const char *name) {
  const ml_value *key, *found;
  size_t size = name ? strlen(name) : 0;
  for (size_t i = 0; name && (found = ml_value_pair(value, i, &key)); i++)
    if (key->type == ML_STRING && key->string.size == size &&
        memcmp(key->string.bytes, name, size) == 0)
      return found;
  return NULL;
}
