/*
** http.h: what the two binding files of HTTP share: http_options.c reads a
** request out of Lua, http.c performs it and shows the response.
*/
#ifndef LML_HTTP_H
#define LML_HTTP_H

#include "http/request.h"
#include "lml.h"

/* Fills the request from the URL at `url` and the table of options at `options`
** (either may be nil). `method` NULL: the options may name URL and method.
** Raises misuse at the caller's line. */
void lml_http_fill(lua_State *L, mli_http *h, const char *method, int url, int options);

/* Pushes a function of the module cjson, or raises and says that it is missing. */
void lml_http_push_json(lua_State *L, const char *name, const char *what);

#endif
