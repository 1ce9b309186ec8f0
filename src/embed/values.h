/*
** values.h: values in C, and their way into messages and back. Their memory is a list's
** own: freed with it.
*/
#ifndef MLE_VALUES_H
#define MLE_VALUES_H

#include "core/message.h"

#define MLE_DEPTH 1000 /* of nested tables that C builds */

typedef struct mle_table mle_table;

struct ml_value {
  ml_type type;
  union {
    bool boolean;
    int64_t integer;
    double number;
    void *pointer;
    struct {
      const char *bytes;
      size_t size;
    } string;
    mle_table *table;
  };
};

struct mle_table {
  ml_value *items; /* of its list */
  size_t count, room;
  ml_value *pairs;              /* key, value, key, value, ... */
  size_t pair_count, pair_room; /* of pairs */
  mle_table *outer;             /* while it is open */
};

typedef struct mle_chunk mle_chunk;

struct ml_values {
  mle_chunk *chunks; /* memory, newest first */
  mle_table root;    /* its items are the list */
  mle_table *open;   /* the innermost */
  unsigned depth;
  ml_value key; /* of what is added next; ML_NONE: it is an item */
  ml_status status;
  bool partial; /* read from a message; there is more to it than C can write */
};

void *mle_values_alloc(ml_values *v, size_t size); /* NULL: the list has failed */
/* Adds to a table. False: no memory, and the list has failed. */
bool mle_table_item(ml_values *v, mle_table *t, ml_value value);
bool mle_table_pair(ml_values *v, mle_table *t, ml_value key, ml_value value);

/* ---- messages (codec.c) ---- */

/* What crosses for the list, after `function` if that is not NULL: the arguments of a job,
** or results. NULL: no memory. */
mli_message *mle_encode(const ml_values *v, const char *function);
/* An error value with this code and message. NULL: no memory. */
mli_message *mle_encode_error(const char *code, const char *text);
/* The values of a message; NULL: no memory. */
ml_values *mle_decode(const mli_message *message);

#endif
