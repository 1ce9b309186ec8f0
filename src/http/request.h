/*
** request.h: one HTTP request and its response, as an operation on a loop.
** Whoever makes it fills the request, begins the operation, and reads the
** response after its end, on any thread. Nothing here knows Lua.
**
** H1  The request is fixed once the operation began; the response is written
**     on the loop before it ends. No two threads touch it at once.
** H2  All text lives in the request's own memory and goes with it.
*/
#ifndef MLI_HTTP_REQUEST_H
#define MLI_HTTP_REQUEST_H

#include "buffer.h"
#include "core/op.h"

struct curl_slist;
struct mli_exchange;
struct mli_http_session;
typedef struct mli_http mli_http;

typedef enum mli_http_version {
  MLI_HTTP_ANY, /* HTTP/2 where TLS offers it, else 1.1 */
  MLI_HTTP_1_1,
  MLI_HTTP_2,
  MLI_HTTP_2_PRIOR /* HTTP/2 from the first byte, also without TLS */
} mli_http_version;

#define MLI_HTTP_UNLIMITED UINT64_MAX
#define MLI_HTTP_NO_TIMEOUT (-1)

/* When each phase was over, in seconds from the start; 0: not reached. */
typedef struct mli_http_times {
  double resolve, connect, tls, first_byte, total;
} mli_http_times;

/* A response that pointed elsewhere. */
typedef struct mli_http_hop {
  struct mli_http_hop *next;
  long status;
  const char *url; /* that answered with it */
} mli_http_hop;

struct mli_http {
  mli_op op; /* op.code of a failure: "resolve", "refused", ... see docs/http.md */

  /* The request [I]. `mli_http_new` sets the defaults. */
  struct mli_http_session *session; /* holds a reference; NULL: the plain requests' */
  const char *method;               /* "GET" */
  const char *url;                  /* with its query */
  struct curl_slist *headers, **last_header;
  const char *body; /* NULL: none */
  size_t body_size;
  int64_t timeout, connect_timeout; /* ms, or MLI_HTTP_NO_TIMEOUT */
  long max_redirects;
  uint64_t max_body; /* bytes after decoding */
  mli_http_version version;
  bool follow, compressed;
  bool negotiates;  /* a 401 or 407 may be answered with credentials, by libcurl */
  bool attended;    /* its owner takes part while it goes on: see exchange.h */
  bool streams;     /* attended: the body of the response goes to the owner as it comes */
  bool uploads;     /* attended: the owner puts the request's body, piece by piece */
  const char *type; /* of the body, unless a header says; or NULL */
  struct mli_http_extra *extra; /* NULL: nothing of extra.h is asked for */

  /* The response. */
  long status;
  long protocol;                  /* as libcurl counts: see mli_http_protocol */
  const char *final;              /* the URL that answered */
  const char *detail;             /* libcurl's own text for a failure, or NULL */
  const char *phase;              /* of a failure: see docs/http.md */
  mli_http_hop *hops, **last_hop; /* the first `redirects` of them were followed */
  long redirects;
  mli_http_times times;
  mli_buffer in; /* the head (status line, headers, empty line), then the body unless it streams */
  size_t head;
  double took; /* seconds until the end */

  /* The engine's [L]. */
  mli_http *next, **link; /* in flight, or waiting */
  struct mli_http_engine *engine;
  struct mli_http_lane *lane; /* NULL: waiting */
  struct mli_http_easy *easy; /* likewise */
  struct mli_http_site *site; /* the address's, or NULL */
  struct mli_http_address *address;
  mli_object *upgraded; /* the WebSocket that it opens, until it is taken; or NULL */
  uint64_t started;     /* as programs see time: clock.h */
  mli_timer timer;      /* the end of `timeout` */
  bool head_done;
  bool leads_on;       /* the head that is done is not the last: libcurl goes on by itself */
  bool collected;      /* what the head says was read out of the handle */
  bool connected;      /* it has had a connection */
  bool dialed;         /* of one that failed: a TCP connection stood */
  bool ready;          /* ... the request began to go out */
  bool sent;           /* ... and so did all of its body */
  long connects;       /* connections made for it so far */
  long connect_code;   /* a proxy's answer to CONNECT, or 0 */
  uint64_t body_count; /* bytes of the body so far */
  struct mli_exchange *exchange; /* its long form, or NULL */
  enum {
    MLI_HTTP_WHOLE,
    MLI_HTTP_NO_MEMORY,
    MLI_HTTP_BIG_HEAD,
    MLI_HTTP_FOLDED, /* it begins with a line that continues a header */
    MLI_HTTP_POSING, /* it says to be HTTP/2, and cannot be */
    MLI_HTTP_BIG_BODY,
    MLI_HTTP_STALLED
  } broken;

  struct mli_http_text *texts;
  size_t inline_used;
  _Alignas(void *) char inline_text[448];
};

/* A GET of nothing, with one reference. NULL: out of memory. */
mli_http *mli_http_new(mli_loop *loop);

/* Memory that goes with the request, aligned for pointers. NULL: out of memory. */
void *mli_http_alloc(mli_http *h, size_t size);
/* A copy of the text, with a NUL. NULL: out of memory. */
char *mli_http_text(mli_http *h, const char *text, size_t size);
/* Adds "name: value". The name is a token and the value has no line break: see
** below. False: out of memory. */
bool mli_http_add_header(mli_http *h, const char *name, size_t name_size, const char *value,
                         size_t value_size);
/* The value of the first header of this name, any case, that was added; "": it has
** none; NULL: there is no such header. */
const char *mli_http_header(const mli_http *h, const char *name);

/* Whether it can be a header's or method's name (RFC 9110's token), or a
** header's value: no CR, LF or NUL. */
bool mli_http_is_token(const char *text, size_t size);
bool mli_http_is_value(const char *text, size_t size);

/* The version of the libcurl that runs: "7.88.1". */
const char *mli_http_library(void);

/* "1.0", "1.1", "2", "3", or "". */
const char *mli_http_protocol(const mli_http *h);
/* The reason phrase of the status line: a part of the head; may be empty. */
const char *mli_http_reason(const mli_http *h, size_t *size);

/* Finds the next header called `name` (any case; NULL: whatever comes) in a head
** at or after *at, and moves *at behind it. The parts point into the head.
** Start with *at == 0. */
typedef struct mli_http_field {
  const char *name, *value;
  size_t name_size, value_size;
} mli_http_field;
bool mli_http_next_field(const char *head, size_t size, size_t *at, const char *name,
                         size_t name_size, mli_http_field *field);

/* The URL as messages may show it, written into `out` of `size` bytes: without
** user, password, query, fragment and control characters; "***" for what may hold a
** password that cannot be told from the rest. Returns `out`. */
char *mli_http_masked(const char *url, char *out, size_t size);

#endif
