/*
** future.h: what the files about futures share: future.c, future_handle.c, future_outcome.c.
*/
#ifndef LML_FUTURE_H
#define LML_FUTURE_H

#include "state.h"

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
