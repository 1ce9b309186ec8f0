/*
** extra.h: what few requests ask for: who we are, the way to the server, TLS
** beyond the usual, parts of a form, a watch on the speed. A request that asks
** for any of it has one of these, in its own memory; the others pay nothing.
** Fixed once the request began, but for what is marked.
*/
#ifndef MLI_HTTP_EXTRA_H
#define MLI_HTTP_EXTRA_H

#include "request.h"

typedef enum mli_http_auth {
  MLI_HTTP_NO_AUTH,
  MLI_HTTP_BASIC,
  MLI_HTTP_DIGEST,
  MLI_HTTP_BEARER
} mli_http_auth;

typedef enum mli_http_tls_version {
  MLI_TLS_DEFAULT,
  MLI_TLS_1_0,
  MLI_TLS_1_1,
  MLI_TLS_1_2,
  MLI_TLS_1_3
} mli_http_tls_version;

/* Whom to trust on a TLS connection. */
typedef struct mli_http_trust {
  const char *ca; /* a file, or a directory of them, instead of the default; or NULL */
  bool any;       /* take any certificate */
} mli_http_trust;

#define MLI_HTTP_STALL_SAMPLES 8

typedef struct mli_http_extra {
  mli_http_auth auth;
  const char *user, *password; /* Basic and Digest */
  const char *token;           /* Bearer */
  bool netrc;
  const char *netrc_file; /* NULL: ~/.netrc */

  const char *proxy; /* a URL; "": none; NULL: as the environment says */
  const char *proxy_user, *proxy_password, *no_proxy;
  mli_http_trust proxy_trust; /* of a proxy that is spoken to with TLS */
  struct curl_slist *connect_to;
  const char *interface, *unix_socket;

  const char *cert, *key, *key_password, *pinned;
  mli_http_tls_version tls_version; /* the least */
  mli_http_trust trust;

  int64_t expect; /* ms that a body waits for "100 Continue"; 0: libcurl's default */

  /* Fewer bytes than this within the time: the transfer has stalled. */
  uint64_t stall_bytes;
  int64_t stall_time;    /* ms; 0: no watch */
  mli_timer stall_timer; /* [L] from here on */
  struct mli_http_easy *stall_easy;
  uint64_t stall_samples[MLI_HTTP_STALL_SAMPLES]; /* of bytes; the oldest at stall_at */
  unsigned stall_at;

  bool debug;                 /* the owner of the exchange is told what goes on: see debug.c */
  struct mli_http_debug *log; /* [L] */

  /* A file that could not be read [L]: which, and why. */
  const char *bad_file, *bad_option;
  int bad_errno;
} mli_http_extra;

/* What is told of a request that goes on, to its owner or on the standard error. */
typedef enum mli_debug_kind {
  MLI_DEBUG_INFO,     /* a remark of libcurl */
  MLI_DEBUG_REQUEST,  /* the head of a request */
  MLI_DEBUG_RESPONSE, /* the head of a response */
  MLI_DEBUG_SENT,     /* how much of a body went; */
  MLI_DEBUG_RECEIVED  /* or came */
} mli_debug_kind;

/* The request's, made now if it has none. NULL: out of memory. */
mli_http_extra *mli_http_extra_get(mli_http *h);

#endif
