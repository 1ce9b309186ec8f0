/*
** tcp.h: what the two binding files of sockets share: tcp.c makes, names and
** closes them, tcp_io.c reads and writes.
*/
#ifndef LML_TCP_H
#define LML_TCP_H

#include "core/listener.h"
#include "state.h"

/* Where the continuations of socket methods find things on their stack. */
enum { LML_TCP_HANDLE = 1, LML_TCP_DEADLINE, LML_TCP_MODE, LML_TCP_DATA, LML_TCP_BOX };

/* Argument 1, or raises. */
mli_stream *lml_tcp_check(lua_State *L);
/* Lays the stack out as above, with the value that is on top as data. */
void lml_tcp_lay_out(lua_State *L, uint64_t deadline, int mode);
uint64_t lml_tcp_deadline(lua_State *L);
/* Whether what needs no wait may be done without one: not in a job that was
** cancelled, where the wait raises. */
bool lml_tcp_at_once(lua_State *L);
/* nil and an error value: the socket is closed on this side; libuv's error. */
int lml_tcp_fail_closed(lua_State *L);
int lml_tcp_fail(lua_State *L, const char *what, int err);

/* The methods of sockets that read and write, and the function read_until. */
extern const luaL_Reg lml_tcp_io_methods[];

#endif
