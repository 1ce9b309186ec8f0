/*
** http_options.h: what the files that read a request's options share. A reader
** finds the value of its option on top of the stack and leaves it there; `name`
** is the option's full name ("tls.ca"), for messages. All raise misuse at the
** caller's line.
*/
#ifndef LML_HTTP_OPTIONS_H
#define LML_HTTP_OPTIONS_H

#include "http.h"
#include "http/extra.h"

typedef struct lml_http_option {
  const char *name; /* full */
  void (*read)(lua_State *L, mli_http *h, const char *name);
} lml_http_option;

/* Reads each option of the table on top of the stack. `options` is in the order
** of names, each of which begins with `prefix`: "" or "tls.". */
void lml_http_read_options(lua_State *L, mli_http *h, const lml_http_option *options, size_t n,
                           const char *prefix);

/* Raises unless the value on top of the stack has this type. */
void lml_http_check_type(lua_State *L, const char *name, int type);
_Noreturn void lml_http_wrong_type(lua_State *L, const char *name, const char *wanted);
/* `p`, or raises: out of memory. */
void *lml_http_checked(lua_State *L, void *p);
mli_http_extra *lml_http_extra(lua_State *L, mli_http *h);

/* The value on top of the stack. Seconds become milliseconds, at least 1 unless
** they are 0, or MLI_HTTP_NO_TIMEOUT. */
bool lml_http_boolean(lua_State *L, const char *name);
int64_t lml_http_seconds(lua_State *L, const char *name);
lua_Integer lml_http_count(lua_State *L, const char *name);
/* A copy in the request's memory of a string without a NUL byte. */
const char *lml_http_string(lua_State *L, mli_http *h, const char *name);
/* The same for the field of a table on top of the stack, which may be missing
** (NULL); `name` is the field's full name. */
const char *lml_http_field(lua_State *L, mli_http *h, const char *field, const char *name);

/* The table on top of the stack, encoded as "key=value&...", into memory of the
** request behind `room` bytes left free. The size is that of the text alone. */
char *lml_http_encode(lua_State *L, mli_http *h, const char *name, size_t room, size_t *size);

/* ---- readers ---- */

void lml_http_read_auth(lua_State *L, mli_http *h, const char *name);      /* http_auth.c */
void lml_http_read_tls(lua_State *L, mli_http *h, const char *name);       /* http_tls.c */
void lml_http_read_proxy(lua_State *L, mli_http *h, const char *name);     /* http_way.c */
void lml_http_read_resolve(lua_State *L, mli_http *h, const char *name);   /* http_way.c */
void lml_http_read_interface(lua_State *L, mli_http *h, const char *name); /* http_way.c */
void lml_http_read_unix_socket(lua_State *L, mli_http *h, const char *name);

#endif
