/*
** future.h: the handles of futures: future.c, future_handle.c, future_outcome.c.
*/
#ifndef LML_FUTURE_H
#define LML_FUTURE_H

#include "core/executor.h"
#include "lml.h"

typedef struct lml_state lml_state;
typedef struct lml_job lml_job;
typedef struct lml_future lml_future;

/* A future's handle. A job that was spawned on this loop keeps its future right
** here, unshared, until the handle crosses to another state. */
struct lml_future {
  lml_handle handle; /* &local.object, or a shared future's object */
  lml_job *job;      /* the local job that will settle it; NULL after that */
  int values;        /* results kept in the user value; -1: not read here yet */
  mli_future local;
};

/* The size of a handle that has no local future. */
#define LML_SHARED_FUTURE_SIZE offsetof(lml_future, local)

static inline mli_future *lml_future_core(const lml_future *u) {
  return mli_container(u->handle.object, mli_future, object);
}
/* A handle without room for a local future ends where one would begin: what lies there
** is somebody else's, maybe the very future that it refers to, which then is shared. */
static inline bool lml_future_is_local(const lml_future *u) {
  return u->handle.object == &u->local.object && !lml_future_core(u)->shared;
}

/* Pushes the values or raises the error of a settled future. */
int lml_future_push(lua_State *L, lml_state *S, int index);
/* Pushes the error value of a settled future that did not finish. */
void lml_future_push_error(lua_State *L, lml_state *S, int index);
/* Turns a local future into a shared one. Raises on lack of memory. */
mli_future *lml_future_share(lua_State *L, lml_state *S, int index);
/* How a local future asks its job to stop. */
void lml_local_cancel(mli_future *f);
/* Gives the local future at index 1 of `co` a finalizer: it has failed. */
void lml_future_track(lua_State *co, lml_state *S);
lml_future *lml_future_check(lua_State *L, lml_state *S, int arg);
lml_future *lml_future_test(lua_State *L, lml_state *S, int index);
/* Pushes a new handle of a shared future, whose reference it takes over. */
void lml_future_wrap(lua_State *L, lml_state *S, mli_future *f);

/* What a future is called in messages: its job's name; NULL: it has none. */
const char *lml_future_name(lml_future *u, char *buffer, size_t size);
/* Reads the outcome into the handle's user value, once. Raises what the message
** cannot be rebuilt for. */
void lml_future_read(lua_State *L, int index, lml_future *u);
/* The same for whoever takes errors as values: false, with the error pushed. */
bool lml_future_try_read(lua_State *L, int index, lml_future *u);
/* Pushes the `n` values that were read. */
int lml_future_push_values(lua_State *L, int index, int n);
/* The finalizer of a handle. */
int lml_future_gc(lua_State *L);

#endif
