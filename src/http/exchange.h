/*
** exchange.h: the long form of a request: its owner takes part while it goes on.
** The body of the request comes from the owner piece by piece, or the body of
** the response goes there, or the owner wants to see how far things are.
**
** The owner may be a job of the loop or any other thread. It begins the
** exchange, and from then on waits for events, takes what came and puts what is
** to go. Memory stays bounded: when MLI_EXCHANGE_HIGH bytes wait for the owner
** the transfer pauses, and libcurl does not read on; when nothing waits to be
** sent it pauses too. A paused transfer costs nothing.
**
**   NEW --[mli_exchange_begin]--> GOING --[the request's end]--> DONE
**
** X1  `request` is the owner's until the exchange began, then the loop's. What
**     the head of the response says may be read once MLI_EXCHANGE_HEAD is
**     there, for it does not change any more; the rest once it is DONE.
** X2  At most one wait at a time: there is one owner.
** X3  While it goes on, the exchange holds a reference to itself.
** X4  Whoever clears `paused` or `starved` goes on with the transfer.
*/
#ifndef MLI_HTTP_EXCHANGE_H
#define MLI_HTTP_EXCHANGE_H

#include "core/park.h"
#include "request.h"

/* Several times what libcurl receives at once: then a reader that keeps up does not pause it. */
#define MLI_EXCHANGE_HIGH ((size_t)512 * 1024)

/* What an owner can wait for. */
enum {
  MLI_EXCHANGE_HEAD = 1,  /* the head of the response is there, or it is done */
  MLI_EXCHANGE_INPUT = 2, /* bytes of the body are there, or it is done */
  MLI_EXCHANGE_ROOM = 4,  /* more of the request's body is welcome */
  MLI_EXCHANGE_DONE = 8,  /* the request has ended: see request->op */
  MLI_EXCHANGE_DEBUG = 16 /* something is told of what goes on */
};

/* Bytes so far, and in all; -1: not known. As they are on the wire. */
typedef struct mli_exchange_progress {
  int64_t sent, to_send, received, to_receive;
} mli_exchange_progress;

typedef struct mli_exchange {
  mli_object object;
  mli_http *request; /* holds a reference; see X1 */
  bool rewindable;   /* [I] the request's body can be put once more from its beginning */
  int64_t length;    /* [I] of that body; -1: not known */
  mli_waker waker;   /* [L] of the request */
  struct mli_exchange_wait *waiter; /* [L] */
  mli_node kick;
  mli_lock lock; /* only the stock of buffers has a lock that is taken under it */
  /* [M] */
  mli_buffer in;   /* for the owner */
  mli_buffer told; /* for the owner: records of debug.c */
  mli_buffer out;  /* from the owner; what is before `out_start` has gone */
  size_t out_start;
  bool out_ended;
  bool head, done;
  bool paused;  /* libcurl holds more of the response's body back */
  bool starved; /* libcurl wants more of the request's body */
  bool kicked;  /* the message is on its way */
  bool waiting; /* there is a wait */
  unsigned rewinds;
  mli_exchange_progress progress;
  /* The owner's. */
  bool begun;
  mli_buffer taken, heard;
} mli_exchange;

/* Takes over the reference to the request, which has not begun. NULL: out of
** memory, the request is released. */
mli_exchange *mli_exchange_new(mli_http *request);

/* Begins it: once. Thread: any. Blocks: no. */
void mli_exchange_begin(mli_exchange *x);
/* Cancels it if it goes on. Thread: the owner's. Blocks: no. */
void mli_exchange_close(mli_exchange *x);

/* Which events are there now. Thread: any. Blocks: no. */
unsigned mli_exchange_ready(mli_exchange *x);

/* A wait for any of `events`, which stand in `got` when it ended with ML_OK. */
typedef struct mli_exchange_wait {
  mli_op op;
  mli_exchange *exchange; /* holds a reference */
  unsigned events, got;
  bool slot; /* [M] it is the one of X2 */
} mli_exchange_wait;
/* ML_OK, ML_MEMORY, or ML_MISUSE: see X2. Thread: the owner's. */
ml_status mli_exchange_wait_new(mli_exchange *x, unsigned events, mli_exchange_wait **out);

/* The owner: all bytes of the body that are there, in `x->taken`; the transfer
** goes on if it was paused. Valid until the next take. */
void mli_exchange_take(mli_exchange *x);

/* The owner: adds to the request's body as much as is welcome, in *took.
** `rewinds` is the number of rewinds that the owner knows of: false, and nothing
** added, if there were more, because it has to begin again. ML_MEMORY: so it is. */
ml_status mli_exchange_put(mli_exchange *x, const char *data, size_t size, unsigned rewinds,
                           size_t *took);
/* The owner: that was all of it. */
void mli_exchange_finish(mli_exchange *x, unsigned rewinds);
unsigned mli_exchange_rewinds(mli_exchange *x);

mli_exchange_progress mli_exchange_progress_get(mli_exchange *x);

/* What is told of an exchange that goes on: texts, each behind its size and kind. */
typedef struct mli_exchange_word {
  uint32_t size;
  uint32_t kind; /* a mli_debug_kind */
} mli_exchange_word;
/* The owner: all that was told, in `x->heard`. Valid until the next time. */
void mli_exchange_hear(mli_exchange *x);

/* ---- for transfer.c and engine.c: on the loop ---- */

/* The final head of the response is complete. */
void mli_exchange_on_head(mli_exchange *x);
/* Bytes of its body: how many it took, or CURL_WRITEFUNC_PAUSE, or 0 when out of memory. */
size_t mli_exchange_on_body(mli_exchange *x, const char *data, size_t size);
/* Something for the owner; what is too much is not told. */
void mli_exchange_tell(mli_exchange *x, unsigned kind, const char *text, size_t size);
/* Whether the transfer waits for its owner. */
bool mli_exchange_is_paused(mli_exchange *x);
/* libcurl's callbacks, with the exchange as their user. */
size_t mli_exchange_on_read(char *to, size_t one, size_t size, void *exchange);
int mli_exchange_on_seek(void *exchange, int64_t offset, int origin);
int mli_exchange_on_progress(void *exchange, int64_t to_receive, int64_t received, int64_t to_send,
                             int64_t sent);

#endif
