/*
** format.h: how a message is written, for who makes and reads them: crossing_encode.c and
** crossing_decode.c, with a Lua state, and src/embed, without.
**
** A message is a header (flags: 1 byte, how many values: 4) and the values one after the
** other, each a tag and what the tag says. Numbers are the machine's own. Values that may be
** met again in the same message are numbered from 1 in the order in which both sides make
** them: tables and closures before their contents, everything else after.
*/
#ifndef LML_FORMAT_H
#define LML_FORMAT_H

#define MOST_LEVELS 10000 /* of nesting */
#define HEADER_SIZE 5
#define TABLE_SIZE 8 /* two counts */

enum { NEEDS_NUMBERS = 1, NEEDS_METATABLES = 2 }; /* flags */

enum tag {
  NIL,
  FALSE,
  TRUE,
  INTEGER,  /* 8 bytes */
  FLOAT,    /* 8 bytes */
  POINTER,  /* light userdata: 8 bytes */
  STRING,   /* length: 1 byte; bytes */
  LONG,     /* numbered; length: 8; bytes */
  TABLE,    /* numbered; items: 4, pairs: 4; items; keys and values */
  INSTANCE, /* like TABLE, then its metatable */
  KNOWN,    /* number: 4 */
  MODULE,   /* numbered; name: STRING or LONG without number */
  FIELD,    /* numbered; name; name of the field */
  GLOBALS,
  SHARED,  /* a closure that all messages share; object: 4 */
  CLOSURE, /* numbered; object: 4, upvalues: 1; each a value or a CELL */
  CELL,    /* an upvalue that another closure has; its number: 4, which upvalue: 1 */
  HANDLE,  /* object: 4 */
  MADE,    /* numbered; "module:function": name; arguments: 4; those */
  ERRORS   /* the metatable of error values */
};

#endif
