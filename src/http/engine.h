/*
** engine.h: libcurl on a loop. One engine per loop and session, made with the
** first request of the session there and closed with either; everything of it, and
** of libcurl's handles, belongs to the loop's thread. Internal to src/http.
**
**   start --> waiting --> in flight --[libcurl is done, abort, the engine's end]--> ended
**
** N1  libcurl is called from start, abort, a poll or a timer: never from one of
**     its own callbacks, which only copy bytes and note what is wanted.
** N2  A request that has begun holds a reference to itself; in flight it has its easy handle
**     and its lane. Few have to wait: see lanes.h.
** N3  What libcurl reported done is drained after every call that can make it so.
*/
#ifndef MLI_HTTP_ENGINE_H
#define MLI_HTTP_ENGINE_H

#include <curl/curl.h>
#include "address.h"
#include "core/trace.h"
#include "lanes.h"
#include "request.h"
#include "session.h"

typedef struct mli_http_socket mli_http_socket;

/* A handle for one transfer at a time; the idle ones wait for the next. */
typedef struct mli_http_easy {
  CURL *curl;
  mli_http *request; /* NULL while idle */
  mli_http_engine *engine;
  struct mli_http_easy *next; /* idle */
  mli_http_socket *socket;    /* which libcurl has watched for its transfer, to read; or NULL */
  bool plain;                 /* as it was set up: no need to reset it */
  bool used;                  /* it had a transfer */
  bool unsure;                /* ... and this one no header yet: see fold.c */
  char error[CURL_ERROR_SIZE];
} mli_http_easy;

struct mli_http_engine {
  mli_service service; /* its key is the session */
  mli_loop *loop;
  mli_http_session *session; /* it outlives the engine's membership: see session.h */
  mli_http_engine *next_of_session;
  mli_node end; /* the session's message */
  bool asked;   /* ... was sent */
  unsigned limits_version;
  bool held; /* nobody who waits begins now */
  mli_http_lanes lanes;
  mli_http *active; /* in flight */
  mli_http_easy *idle;
  unsigned idle_count;
  mli_http_addresses addresses;
  mli_http_socket **sockets; /* by descriptor */
  size_t sockets_room;
  unsigned closing; /* handles that libuv has not closed yet */
};

/* What this process's libcurl can do: read once. */
typedef struct mli_http_features {
  unsigned version;
  bool own_trust;     /* it takes our store of certificates */
  bool env_proxy;     /* the environment names a proxy */
  bool reuses;        /* any handle may be used again: see fold.c */
  bool debug;         /* MOONLOOP_HTTP_DEBUG is set: all requests are told on stderr */
  char encodings[64]; /* for Accept-Encoding */
} mli_http_features;
/* NULL: libcurl could not be initialized. Thread: any. */
const mli_http_features *mli_http_features_get(void);

/* ---- engine.c ---- */

/* Calls libcurl for a descriptor, or for CURL_SOCKET_TIMEOUT, and ends what is done. */
void mli_http_act(mli_http_lane *lane, curl_socket_t fd, int events);
/* Lets a transfer go on, but for what `pauses` (CURLPAUSE_RECV, CURLPAUSE_SEND) says.
** Not from one of libcurl's callbacks. */
void mli_http_unpause(mli_http *h, int pauses);

/* Takes the request out of flight and ends it with what libcurl says. */
void mli_http_finish(mli_http_easy *easy, CURLcode code);

/* ---- socket.c ---- */

/* libcurl's callbacks. */
int mli_http_on_socket(CURL *easy, curl_socket_t fd, int what, void *lane, void *socket);
curl_socket_t mli_http_open_socket(void *engine, curlsocktype purpose,
                                   struct curl_sockaddr *address);
int mli_http_close_socket(void *engine, curl_socket_t fd);
/* The transfer is paused, may be called from libcurl: nothing is read from its connection, if
** that is its own. */
void mli_http_hold_socket(mli_http_easy *easy);
/* Undoes that before the transfer goes on, and gives the socket, or NULL; it is watched again
** by the second, when libcurl was told. */
mli_http_socket *mli_http_release_socket(mli_http_easy *easy);
void mli_http_rearm_socket(mli_http_socket *s);
/* Closes all polls; the engine is freed with the last. */
void mli_http_close_polls(mli_http_engine *engine);
void mli_http_engine_free(mli_http_engine *engine);

/* ---- transfer.c ---- */

/* Sets the handle up for its request. CURLE_OK, or what failed. */
CURLcode mli_http_prepare(mli_http_easy *easy);
/* Reads the outcome out of the handle into its request. */
void mli_http_collect(mli_http_easy *easy);
/* Likewise how far it came, of one that failed. */
void mli_http_collect_progress(mli_http_easy *easy);

/* ---- setup.c ---- */

/* Sets what the request's extra asks for. CURLE_OK, or what failed. */
CURLcode mli_http_set_extra(mli_http_easy *easy);

/* ---- fold.c ---- */

/* Whether its transfer may have a handle that was used, and leave it to another. */
bool mli_http_reusable(const mli_http *h);
/* Before each transfer of a handle. CURLE_OK, or what failed. */
CURLcode mli_http_watch_folds(mli_http_easy *easy);
/* For each line of a head while the handle is unsure. */
void mli_http_after_line(mli_http_easy *easy, const char *line, size_t size);

/* ---- stall.c ---- */

/* Begins to watch the transfer if the request asks for it; ends that. */
void mli_http_watch_stall(mli_http_easy *easy);
void mli_http_unwatch_stall(mli_http_easy *easy);

/* ---- debug.c ---- */

/* Begins to tell what the request does; ends that. */
CURLcode mli_http_set_debug(mli_http_easy *easy);
void mli_http_end_debug(mli_http_easy *easy);

/* ---- observe.c ---- */

/* Somebody looks (mli_observing): the request got a connection; it ends, while its handle still
** has its times, if it got one. `failure` is what ended it, or NULL. */
void mli_http_observe_connection(bool reused);
void mli_http_observe(mli_http *h, const char *failure);

/* ---- failure.c ---- */

/* Ends a request that libcurl ended with `code`. `detail` is its text in the
** request's memory, or NULL; `os_errno` is CURLINFO_OS_ERRNO; `tls` says whether
** the URL is https. */
void mli_http_fail(mli_http *h, CURLcode code, char *detail, long os_errno, bool tls);
/* Ends a request that could not begin: `code` as in Lua, `why` for the message. */
void mli_http_refuse(mli_http *h, ml_status status, const char *code, const char *why);

#endif
