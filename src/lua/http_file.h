/*
** http_file.h: files and checksums for requests: see http_file.c.
*/
#ifndef LML_HTTP_FILE_H
#define LML_HTTP_FILE_H

#include "core/file.h"
#include "http/digest.h"
#include "lml.h"

/* The file or checksum at `arg`; raises for anything else. Borrowed. */
mli_file *lml_http_check_file(lua_State *L, int arg);
mli_digest *lml_http_check_digest(lua_State *L, int arg);

/* Adds to the module on top of the stack what http_file.c has for Lua. */
void lml_http_file_open(lua_State *L);

#endif
