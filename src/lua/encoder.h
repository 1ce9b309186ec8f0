/*
** encoder.h: what the files of crossing share: the caches of a state, and an encoder at work,
** whose path a refusal names.
*/
#ifndef LML_ENCODER_H
#define LML_ENCODER_H

#include "bytecode.h"
#include "crossing.h"
#include "format.h"
#include "names.h"
#include "scratch.h"

struct lml_crossing {
  lml_names names;
  lml_codes codes;
  lml_scratch *idle;
  bool closed; /* its state is closing */
};

/* The kinds of steps of a path. */
enum kind {
  ROOT,    /* value `index` of the cargo, from 0 */
  KEY,     /* the value under the key at stack index `index` */
  IN_KEY,  /* a key itself */
  UPVALUE, /* `name`, number `index` */
  METATABLE,
  ARGUMENT /* number `index` of what `__moonloop` returned */
};

typedef struct encoder {
  lua_State *L;
  lml_crossing *c;
  lml_scratch *s;
  lml_cargo cargo;
  int done; /* values that are in the message already */
  uint32_t numbered;
  uint32_t depth; /* steps of the path */
  uint8_t flags;
  bool refreshed; /* the names, for this message */
  bool rebuilt;
  int anchors; /* stack index of a table, or nil: what must outlive the message */
  const void *globals;
  const void *errors; /* the metatable */
} encoder;

/* Raises that what the path leads to cannot cross; `what`, a format with one string or none,
** says what it is. */
void lml_refuse(encoder *e, const char *what, const char *name);

#endif
