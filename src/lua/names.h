/*
** names.h: which values cross by name. A loaded module and its raw fields, one
** level deep, are known by (module, field) in every state; of "_G" only what
** the base library put there.
**
** Each state keeps a reverse map from such values to their names. It is rebuilt
** when the top level of package.loaded has changed, and when the caller asks; a
** hit is checked against the module as it is now.
*/
#ifndef LML_NAMES_H
#define LML_NAMES_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* moonloop's own modules, name -> value, in the registry: here they are found
** even where something restored package.loaded. */
#define LML_MODULES "moonloop.modules"

typedef struct lml_names {
  int values;         /* registry reference: value -> its entry, or false; weak keys */
  int list;           /* registry reference: module at 2i-1, field or false at 2i */
  uint64_t signature; /* of the loaded modules when the map was made */
} lml_names;

typedef enum lml_named {
  LML_NAMED,   /* pushed: the module's name, and the field's or nil */
  LML_UNNAMED, /* not in the map, which may be older than the value */
  LML_DENIED,  /* `lml_names_deny` was called for it on this map */
  LML_MISNAMED /* the map is out of date: rebuild it */
} lml_named;

/* Makes an empty map, to be called once for each state. May raise for memory. */
void lml_names_open(lua_State *L, lml_names *names);
/* Rebuilds the map if a module came or went since; true if it did. */
bool lml_names_refresh(lua_State *L, lml_names *names);
void lml_names_rebuild(lua_State *L, lml_names *names);
/* Looks up the value at `index`: a table, a function or a full userdata. */
lml_named lml_names_find(lua_State *L, lml_names *names, int index);
/* Remembers until the next rebuild that the value at `index` has no name. */
void lml_names_deny(lua_State *L, lml_names *names, int index);

/* Pushes the value with that name in this state; requires the module if it is not
** loaded. `field` NULL: the module itself. Raises what `require` raised, or an
** error value with code "crossing" that says what is missing. */
void lml_names_push(lua_State *L, const char *module, size_t module_length, const char *field,
                    size_t field_length);

#endif
