/*
** embedded.h: the Lua modules that travel inside the library. The build makes
** the table from lua/moonloop (cmake/embed.cmake).
*/
#ifndef LML_EMBEDDED_H
#define LML_EMBEDDED_H

#include <lua.h>
#include <stdatomic.h>
#include <stddef.h>

/* `source` is Lua text of `size` bytes, with a NUL after it. */
struct lml_embedded {
  const char *name; /* as `require` takes it: "moonloop.http" */
  const char *source;
  size_t size;
  _Atomic(struct lml_dump *) dump; /* once a state has compiled it */
};

/* Ends with a NULL name. Any thread. */
extern struct lml_embedded lml_embedded[];

/* Pushes the module's chunk, to be called with its arguments. */
void lml_embedded_load(lua_State *L, struct lml_embedded *e);

#endif
