/*
** bytecode.h: the code of Lua functions on its way between states. A function is
** dumped once in the state that sends it and loaded once in each that gets it;
** after that a closure of it costs a table look-up, or a call.
*/
#ifndef LML_BYTECODE_H
#define LML_BYTECODE_H

#include <lua.h>
#include "core/object.h"

/* The dump of a Lua function. Never changes; any state on any thread. */
typedef struct lml_code {
  mli_object object;
  uint64_t id;   /* never used again in this process */
  uint64_t hash; /* of the bytes */
  size_t size;
  uint8_t upvalues;
  bool shared;  /* one closure serves all: no upvalue but an _ENV that nothing assigns */
  bool spliced; /* its closures come from a factory */
  unsigned char bytes[];
} lml_code;

extern const mli_type lml_code_type;

/* A cache from integers to values in two generations: what was not used while
** the young one filled up is let go. */
typedef struct lml_cache {
  int young, old; /* registry references */
  unsigned count; /* in the young one */
  size_t bytes;   /* likewise, of dumps */
} lml_cache;

/* What a state knows of code. Boxes are userdata that own a reference. */
typedef struct lml_codes {
  int closures;     /* registry reference: closure -> box; weak keys */
  lml_cache boxes;  /* hash -> box: for fresh closures of code that crossed before */
  lml_cache loaded; /* id -> the shared closure, the factory, or false: load each time */
} lml_codes;

/* Makes the caches, to be called once for each state. May raise for memory. */
void lml_codes_open(lua_State *L, lml_codes *codes);

/* The code of the Lua function at `index` if that closure crossed before, else
** NULL. Never raises. All code returned here is borrowed: the closure keeps it. */
lml_code *lml_code_known(lua_State *L, lml_codes *codes, int index);
/* The same for a closure that is new, with its dump: NULL if no closure of that
** code crossed lately. */
lml_code *lml_code_seen(lua_State *L, lml_codes *codes, int index, const void *bytes, size_t size);
/* Makes code of a dump and remembers it for the closure. Raises for memory. */
lml_code *lml_code_new(lua_State *L, lml_codes *codes, int index, const void *bytes, size_t size);

/* Code that came from another process of ours, as bytes. NULL: out of memory. */
lml_code *lml_code_import(const void *bytes, size_t size, uint8_t upvalues, bool shared);

/* Pushes a closure. If the code is not shared, its upvalues are fresh and hold
** anything: set them. Raises if Lua does not load the code. */
void lml_code_push(lua_State *L, lml_codes *codes, const lml_code *code);

#endif
