/*
** crossing.h: values to messages and back. What crosses, and how, is in
** docs/crossing.md; a message is made in one state and read in others.
*/
#ifndef LML_CROSSING_H
#define LML_CROSSING_H

#include "core/message.h"
#include "lml.h"

/* Registry: a weak table of context variables by their id, for messages. */
#define LML_VARIABLES "moonloop.variables"

/* What is sent, for the path in a refusal. LML_JOB: the first value is the
** job's function ("job"), the rest are "argument 1", "argument 2", ... */
typedef enum lml_cargo {
  LML_JOB,
  LML_ARGUMENTS,
  LML_RESULTS,
  LML_ERROR_VALUE,
  LML_CONTEXT, /* "context variables" */
  LML_FAR = 16 /* with one of the above: it goes to another process, where handles, and
               ** addresses, mean nothing: they are refused */
} lml_cargo;

/* The caches of crossing for this state: made by lml_open, freed with it. */
typedef struct lml_crossing lml_crossing;
lml_crossing *lml_crossing_of(lua_State *L);
/* Makes the caches in L's registry. Idempotent. */
void lml_crossing_open(lua_State *L);

/* Encodes the `n` values from `first` up. The stack is left as it was. Raises an
** error value with code "crossing" that names the path, or whatever a
** `__moonloop` metamethod raised. The message is the caller's, who must store
** it before calling anything that can raise. */
mli_message *lml_encode(lua_State *L, int first, int n, lml_cargo cargo);

/* The same for outcomes: encodes the n values on top of L, which it pops, as results or,
** with `*failed`, as an error value; raises nothing. A refusal takes their place: it is
** encoded instead and `*failed` is set. NULL: out of memory. */
mli_message *lml_encode_outcome(lua_State *L, int n, bool *failed);
mli_message *lml_encode_far_outcome(lua_State *L, int n, bool *failed);

/* Pushes the values of the message and returns how many. Raises what `require`
** of a module raised, or an error value with code "crossing" that names what
** could not be rebuilt. The message is borrowed and may be read again. */
int lml_decode(lua_State *L, const mli_message *message);

#endif
