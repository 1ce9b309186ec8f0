/*
** session.h: what requests share over all loops: limits, cookies, looked-up names,
** TLS sessions, and counts. Connections belong to a loop: each loop has an engine
** of its own for each session, made with the first request there.
**
**   open --[mli_http_session_close, or nobody refers to it]--> closed
**
** P1  An engine ends on its loop's thread only. Closing a session asks each of them
**     by message; requests that begin later are refused at once.
** P2  A session's memory stays until nobody refers to it and its last engine is gone.
** P3  The plain requests' session is static, never closed and never freed.
*/
#ifndef MLI_HTTP_SESSION_H
#define MLI_HTTP_SESSION_H

#include <curl/curl.h>
#include <pthread.h>
#include "core/object.h"

typedef struct mli_http_engine mli_http_engine;

/* Of each loop, for http:// and https:// each; 0: the default of engine.c. */
typedef struct mli_http_limits {
  long connections;  /* in all */
  long per_host;     /* connections to one host */
  long host_streams; /* requests at a time on one connection of HTTP/2 */
} mli_http_limits;

typedef struct mli_http_counts {
  uint64_t requests;    /* begun so far */
  uint64_t made;        /* connections that stood */
  uint64_t reused;      /* requests and redirects that found one */
  uint64_t active;      /* requests in flight */
  uint64_t queued;      /* those of them that have no connection yet */
  uint64_t connections; /* open now, or being opened */
} mli_http_counts;

extern const mli_type mli_http_session_type;

typedef struct mli_http_session {
  mli_object object;
  CURLSH *share;                              /* [I] */
  bool cookies;                               /* [I] it keeps them */
  pthread_mutex_t locks[CURL_LOCK_DATA_LAST]; /* leaves: libcurl's, one for each kind of data */
  pthread_mutex_t mutex;                      /* a leaf: what is marked [M] */
  mli_http_limits limits;                     /* [M] */
  atomic_uint version;                        /* [A] of the limits */
  mli_http_engine *engines;                   /* [M] */
  atomic_bool closed;                         /* [A] written under the mutex */
  bool unused;                                /* [M] nobody refers to it */
  atomic_uint_least64_t requests, made, reused, active, queued, connections; /* [A] */
} mli_http_session;

/* A session with one reference. NULL: out of memory. Thread: any. */
mli_http_session *mli_http_session_new(bool cookies);
/* The session of plain requests; borrowed. NULL: libcurl could not be initialized. */
mli_http_session *mli_http_session_default(void);

/* Ends it for good: its connections are closed, and its requests in flight end with
** "closed", on each loop soon. True: it was open. Thread: any. Blocks: no. */
bool mli_http_session_close(mli_http_session *s);

/* Changes the limits, for requests that begin from now on. Thread: any. */
void mli_http_session_limit(mli_http_session *s, const mli_http_limits *limits);
mli_http_limits mli_http_session_limits(mli_http_session *s);

/* Thread: any. */
mli_http_counts mli_http_session_counts(mli_http_session *s);

/* ---- for engines, on their loop ---- */

/* Enters the engine into the session's list. False: the session is closed. */
bool mli_http_session_join(mli_http_session *s, mli_http_engine *e);
/* Takes it out. The session may be gone afterwards. */
void mli_http_session_leave(mli_http_session *s, mli_http_engine *e);

#endif
