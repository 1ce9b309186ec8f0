/*
** wire.h: a connection that libcurl makes (name, proxy, TLS) and then leaves to
** us: bytes both ways. It has a multi handle of its own, because libcurl looks
** for idle connections to drop among all of a multi handle, and bounds those to
** one host: a connection that others use for hours is neither its to drop nor
** to count.
**
**   closed --[mli_wire_open]--> dialling --[connected(CURLE_OK)]--> connected
**      ^____________[mli_wire_close]____________/______________________/
**
** W1  `connected` is called once, from the loop, never from within open.
** W2  libcurl is never called from its own callbacks. `connected` and `ready`
**     may close the wire.
** W3  A descriptor is never closed while a poll watches it.
** Thread: the loop's.
*/
#ifndef MLI_HTTP_WIRE_H
#define MLI_HTTP_WIRE_H

#include "engine.h"

typedef struct mli_wire mli_wire;
struct mli_wire {
  mli_loop *loop; /* borrowed */
  void (*connected)(mli_wire *wire, CURLcode code);
  void (*ready)(mli_wire *wire, int events); /* UV_READABLE, UV_WRITABLE */
  CURLM *multi;                              /* NULL: closed */
  mli_http_easy easy;
  mli_timer timer;
  struct mli_wire_poll *polls, *own; /* all; the one of the connection */
};

/* Begins to connect, as the request says, which is borrowed until the wire is
** connected or closed. The memory is zeroed but for loop and callbacks. Not
** CURLE_OK: nothing was begun. */
CURLcode mli_wire_open(mli_wire *wire, mli_http *request);
/* Closes it; again: nothing. Calls nobody. */
void mli_wire_close(mli_wire *wire);

/* Once connected: calls `ready` whenever it is. 0: for nothing; not CURLE_OK:
** it cannot be watched. */
CURLcode mli_wire_watch(mli_wire *wire, int events);
/* Moves what can be moved now. CURLE_AGAIN: nothing. A receive of 0 bytes is
** the end of the input. After CURLE_AGAIN a send is to be repeated with the same
** bytes, at the same place. */
CURLcode mli_wire_send(mli_wire *wire, const char *data, size_t size, size_t *sent);
CURLcode mli_wire_receive(mli_wire *wire, char *to, size_t size, size_t *received);

#endif
