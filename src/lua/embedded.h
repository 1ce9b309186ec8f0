/*
** embedded.h: the Lua modules that travel inside the library. The build makes
** the table from lua/moonloop (cmake/embed.cmake).
*/
#ifndef LML_EMBEDDED_H
#define LML_EMBEDDED_H

#include <stddef.h>

/* `source` is Lua text of `size` bytes, with a NUL after it. */
struct lml_embedded {
  const char *name; /* as `require` takes it: "moonloop.http" */
  const char *source;
  size_t size;
};

/* Ends with a NULL name. Read-only; any thread. */
extern const struct lml_embedded lml_embedded[];

#endif
