/*
** handshake.h: how an HTTP/1.1 connection becomes a WebSocket: the request, and
** whether the answer to it is right (RFC 6455, section 4). No input or output.
** Thread: any.
*/
#ifndef MLI_HTTP_HANDSHAKE_H
#define MLI_HTTP_HANDSHAKE_H

#include "request.h"

#define MLI_WS_KEY 24    /* letters */
#define MLI_WS_ACCEPT 28 /* letters */

/* The address as libcurl takes it: ws:// and wss:// as http:// and https://. The
** text is the request's memory. NULL with *why set: no URL of a WebSocket; or to
** NULL: out of memory. */
const char *mli_ws_http_url(mli_http *request, const char **why);

/* 16 random bytes in base64, with a NUL. False: there are none to be had. */
bool mli_ws_make_key(char key[MLI_WS_KEY + 1]);
/* What a server must answer to the key, with a NUL. False: out of memory. */
bool mli_ws_accept_of(const char *key, char accept[MLI_WS_ACCEPT + 1]);

/* The text of the request: its address must be parsed. `protocols`: a list with
** commas, or NULL. False: out of memory. */
bool mli_ws_write_request(const mli_http *request, const char *key, const char *protocols,
                          mli_buffer *out);

/* The size of the head of a response, with the empty line; 0: it is not there
** yet. Looks from *scanned on, and moves it. */
size_t mli_ws_find_head(const char *bytes, size_t size, size_t *scanned);
/* The status in a head; 0: it is none of HTTP/1.1. */
long mli_ws_status_of(const char *head, size_t size);
/* What is wrong with an answer of status 101, as a static text; NULL: nothing.
** `protocol` is then the one that the server chose, in the head; NULL: none. */
const char *mli_ws_check(const char *head, size_t size, const char *accept, const char *protocols,
                         const char **protocol, size_t *protocol_size);

#endif
