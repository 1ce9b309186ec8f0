/*
** embed.h: what the files of moonloop.h share. An ml_executor and an ml_future are the C
** program's references to the core's, which Lua states may hold as well.
*/
#ifndef MLE_EMBED_H
#define MLE_EMBED_H

#include "handle.h"
#include "lua/crossing.h"
#include "lua/worker.h"
#include "values.h"

struct ml_executor {
  mle_handle handle;
  mli_executor *core; /* [I] a reference, and a use that keeps it open */
};

struct ml_future {
  mle_handle handle;
  mli_future *core; /* [I] a reference */
  mli_lock lock;    /* a leaf: what follows */
  ml_values *error; /* [M] the error value, once asked for; then it stays */
  const char *text, *code;
};

/* A new ml_future that takes over a reference of `core`. NULL: no memory, and the
** reference was released. */
ml_future *mle_future_wrap(mli_future *core);
/* ML_BUSY, or how the settled future ended. */
ml_status mle_future_status(const mli_future *core);

/* The record of L, where moonloop is opened if need be. ML_MEMORY; ML_MISUSE: Lua's own
** libraries are not all there. The stack is left as it was. */
ml_status mle_state(lua_State *L, lml_state **out);
/* The error value on top of L, as the words of a failure; pops it. */
ml_status mle_fail_lua(lua_State *L, ml_status status, const char *function);

#endif
