/*
** http.h: what the binding files of HTTP share: http_options.c reads a request
** out of Lua, http.c performs it and shows the response, exchange.c gives it to
** whoever takes part in it, http_session.c has the sessions.
*/
#ifndef LML_HTTP_H
#define LML_HTTP_H

#include "http/request.h"
#include "http/session.h"
#include "lml.h"

/* Fills the request from the URL at `url` and the table of options at `options`
** (either may be nil). `method` NULL: the options may name URL and method.
** Raises misuse at the caller's line. */
void lml_http_fill(lua_State *L, mli_http *h, const char *method, int url, int options);

/* Pushes the response, or nil and an error value with what is known besides code and
** message; returns how many. */
int lml_http_push_response(lua_State *L, const mli_http *h);
int lml_http_push_failure(lua_State *L, const mli_http *h);
void lml_http_push_times(lua_State *L, const mli_http_times *times);
/* Pushes a head as the headers that Lua sees. */
void lml_http_push_headers(lua_State *L, const char *head, size_t size);

/* Hands the request in the box to the Lua function that attends to it, with the
** options at that index: returns what that returns. `return` what this returns. */
int lml_exchange_attend(lua_State *L, mli_op **box, int options);
/* Adds to the module on top of the stack what exchange.c has for Lua. */
void lml_exchange_open(lua_State *L);

int lml_http_is_option(lua_State *L);

/* Pushes a function of the module cjson, or raises and says that it is missing. */
void lml_http_push_json(lua_State *L, const char *name, const char *what);

/* The session of the handle at `index`, borrowed, or NULL: it is none. */
mli_http_session *lml_http_session_test(lua_State *L, int index);
/* Adds the functions of sessions to the table on top. */
void lml_http_session_open(lua_State *L);
/* Adds to the module on top of the stack what http_describe.c has for Lua. */
void lml_http_describe_open(lua_State *L);

/* Pushes the table of the cookies that a head sets: see http_set_cookie.c. */
void lml_http_push_cookies(lua_State *L, const char *head, size_t size);

#endif
