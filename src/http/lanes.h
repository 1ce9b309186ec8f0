/*
** lanes.h: which of libcurl's multi handles has a request, and who waits for one.
**
** For each request libcurl walks the connections that a multi handle has to its host, to find
** a free one: with a thousand of them that costs as much as the request itself. So plain HTTP,
** where each request needs a connection, has further lanes, each used once those before it are
** busy.
**
**   a lane:     closed --first request--> open --none for a while--> closed
**   a request:  [enter] --> in a lane --[leave]-->
**                  \--> waiting --[next]--> in a lane
**                           \--[forget]-->
**
** L1  The limits hold for all lanes together, wherever redirects lead to: each has a share of
**     its own, which libcurl keeps to.
** L2  A request goes to a lane where its host has room. If that is none it waits, in the order
**     of its host, and has no handle of libcurl's yet.
** L3  The first lane has all requests that may share a connection, and stays open. While limits
**     leave no room for another, waiting is libcurl's.
**
** Thread: the loop's only.
*/
#ifndef MLI_HTTP_LANES_H
#define MLI_HTTP_LANES_H

#include <curl/curl.h>
#include "core/timer.h"
#include "session.h"

struct mli_http;

#define MLI_HTTP_PLAIN_LANES 16

typedef struct mli_http_lane {
  CURLM *multi; /* NULL: closed */
  mli_http_engine *engine;
  mli_timer timer;            /* libcurl's */
  mli_timer idle;             /* closes it */
  unsigned active;            /* requests in flight */
  long connections, per_host; /* its share of the limits */
} mli_http_lane;

/* A host of plain HTTP that addresses name: its requests. */
typedef struct mli_http_site {
  struct mli_http_site *next, **link; /* in its bucket */
  unsigned refs;                      /* addresses */
  unsigned active[MLI_HTTP_PLAIN_LANES];
  struct mli_http *first, **last;                   /* that wait */
  struct mli_http_site *next_hungry, **hungry_link; /* while there are any */
  char name[];
} mli_http_site;

#define MLI_HTTP_SITES 64

/* An engine's. TLS has a lane of its own, as it wants other limits: it
** has HTTP/2, and its handshakes are dear. */
typedef struct mli_http_lanes {
  mli_http_lane tls, plain[MLI_HTTP_PLAIN_LANES];
  unsigned count;   /* of plain ones that there may be */
  long active;      /* requests in flight in them */
  long connections; /* the limit of all of them */
  long streams;     /* at a time on a connection of HTTP/2 */
  mli_http_site *sites[MLI_HTTP_SITES];
  mli_http_site *hungry, **last_hungry; /* somebody waits for them */
} mli_http_lanes;

/* For an engine that is zeroed otherwise. */
void mli_http_lanes_init(mli_http_engine *e);
/* No request is in flight any more, and none waits. */
void mli_http_lanes_close(mli_http_engine *e);
/* Goes by these limits from now on: 0 is the default. */
void mli_http_lanes_limit(mli_http_engine *e, const mli_http_limits *limits);

/* The lane for a request that begins. NULL: it waits from now on. */
mli_http_lane *mli_http_lanes_enter(mli_http_engine *e, struct mli_http *h);
/* Takes one of those that wait and need not any more, with its lane; or NULL. */
struct mli_http *mli_http_lanes_next(mli_http_engine *e, mli_http_lane **lane);
/* The request waits no more. */
void mli_http_lanes_forget(mli_http_engine *e, struct mli_http *h);

/* The request is in the lane from here on, which is open then, or false: out of memory. It is
** not any more. */
bool mli_http_lane_join(mli_http_lane *lane, struct mli_http *h);
void mli_http_lane_leave(struct mli_http *h);

/* An address goes that named it; NULL: it did not. */
void mli_http_site_release(mli_http_site *site);

#endif
