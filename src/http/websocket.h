/*
** websocket.h: a WebSocket, the client's side, as any thread and any job may hold
** it. It lives on a loop, where its connection is read all the time: messages
** wait in a queue, pings are answered at once. Whoever receives takes from the
** queue on the own thread; a receive operation only waits until there is
** something, so one that times out or is cancelled loses nothing.
**
**   OPENING --[websocket_open.c]--> OPEN --> CLOSING --> CLOSED
**      \________________________________\__________\______^
**   OPEN -> CLOSING   a closing frame went out: begin_close, answer_close, fail
**   ... -> CLOSED     close_now: both sides are done, the connection ended, time
**                     is up, the last handle went, the loop ended
**
** B1  At most one receive waits at a time.
** B2  A message that began to go out goes out whole, whoever gives up waiting.
** B3  Reading stops while the queue holds max_queue bytes or more.
** B4  `end` is set once, when the queue is given its last message; who has
**     emptied the queue is told it.
** B5  While a message goes out in pieces, other messages wait.
*/
#ifndef MLI_HTTP_WEBSOCKET_H
#define MLI_HTTP_WEBSOCKET_H

#include "core/park.h"
#include "frames.h"
#include "handshake.h"
#include "wire.h"

extern const mli_type mli_websocket_type;

typedef struct mli_websocket mli_websocket;
typedef struct mli_ws_op mli_ws_op;

typedef struct mli_ws_options {
  char *protocols;        /* to offer, with commas; or NULL */
  uint64_t max_message;   /* bytes */
  size_t max_queue;       /* bytes */
  uint64_t ping_interval; /* ns; 0: no pings of its own */
  uint64_t ping_timeout;  /* ns */
} mli_ws_options;

typedef struct mli_ws_message {
  struct mli_ws_message *next;
  mli_ws_kind kind;
  const char *bytes;
  size_t size;
  mli_buffer large; /* owns the bytes of a large one */
  char small[];
} mli_ws_message;

/* How it ended. */
typedef struct mli_ws_end {
  const char *code; /* NULL: it has not; static: "closed", "protocol", "too_large" */
  int status;
  const char *why; /* static, or NULL */
  size_t reason_size;
  char reason[MLI_WS_REASON_MAX]; /* as the peer gave it */
} mli_ws_end;

typedef struct mli_ws_ops {
  mli_ws_op *first, **last;
} mli_ws_ops;

typedef enum mli_ws_state {
  MLI_WS_OPENING,
  MLI_WS_OPEN,
  MLI_WS_CLOSING,
  MLI_WS_CLOSED
} mli_ws_state;

struct mli_websocket {
  mli_object object;
  mli_loop *loop;         /* [I] holds a reference */
  mli_ws_options options; /* [I] owns `protocols` */
  /* [I] once it is open */
  char *url, *head; /* head: of the answer */
  size_t head_size;
  const char *protocol; /* in the head; NULL: none */
  size_t protocol_size;
  mli_node destroy_node, resume_node, drop_node;
  atomic_bool dropped; /* [A] drop_node was used */
  mli_lock lock;       /* a leaf: the next five */
  mli_ws_message *first, *last;
  size_t queued; /* bytes, with what goes along */
  mli_ws_end end;
  bool receiving; /* an operation has the slot */
  bool resuming;  /* resume_node is under way */
  bool paused;    /* see B3 */
  /* [L] from here on */
  mli_ws_state state;
  mli_wire wire;
  mli_frames frames;
  mli_buffer rest;         /* of the input, kept while paused */
  mli_buffer going, after; /* the output: `going` stays in place until it is gone */
  size_t gone;             /* of `going` */
  uint64_t written, sent;  /* bytes of output, ever */
  bool in_pieces;          /* see B5 */
  bool deaf;               /* the input cannot be understood any more */
  bool answered;           /* the peer's closing frame came: end when the output is gone */
  bool pong_owed;
  char pong[MLI_WS_CONTROL_MAX];
  size_t pong_size;
  unsigned immediate; /* sends on the loop since it last had a turn */
  int watched;        /* the events that are asked for */
  uint64_t heard;     /* when bytes came last */
  uint64_t pinged;    /* when a ping of its own went out that is not answered; 0: none */
  mli_timer again;    /* soon: there is more to do */
  mli_timer timer;    /* OPEN: the next ping or its end; CLOSING: the end of patience */
  mli_op *reader;
  mli_ws_ops waiting, leaving, pings, closers;
  mli_ws_op *piece; /* the next piece of a message, which does not wait for others */
  mli_http *opening;
  size_t scanned;                 /* of the answer */
  char accept[MLI_WS_ACCEPT + 1]; /* what the server must answer */
  mli_websocket *next, **link;    /* of the loop */
};

/* ---- opening (websocket_open.c) ---- */

/* Makes of a request, which is filled but not begun, the opening of a WebSocket:
** its operation ends with ML_OK when that is open. Takes over the options' text,
** also on failure. False: out of memory. */
bool mli_websocket_prepare(mli_http *request, const mli_ws_options *options);
/* After the end with ML_OK: the WebSocket, with its reference. Once. */
mli_websocket *mli_websocket_take(mli_http *request);

/* ---- receiving ---- */

typedef struct mli_ws_receive {
  mli_op op;
  mli_websocket *ws;
  bool slot;               /* [M] of the WebSocket */
  mli_ws_message *message; /* owned: see mli_websocket_next */
} mli_ws_receive;

/* A wait until mli_websocket_next says something else than ML_BUSY. ML_OK,
** ML_MEMORY, or ML_MISUSE: another receive waits. */
ml_status mli_ws_receive_new(mli_websocket *ws, mli_ws_receive **out);
/* Moves the next message into the operation. ML_OK; ML_BUSY: none yet; ML_CLOSED:
** none will come, see mli_websocket_end. Thread: any. Blocks: no. */
ml_status mli_websocket_next(mli_ws_receive *receive);
/* How it ended; code NULL: it is open. Thread: any. */
mli_ws_end mli_websocket_end(mli_websocket *ws);

/* ---- sending, pings, closing ---- */

struct mli_ws_op {
  mli_op op;
  mli_websocket *ws;
  mli_ws_op *next, **link; /* [L] link is NULL when in no list */
  mli_ws_ops *in;          /* [L] */
  uint8_t opcode;
  bool fin;
  bool on_its_way; /* a part of the message went out, or will: see B2 */
  int status;
  uint64_t end;   /* of its bytes in the output; of a ping: when it went out */
  double seconds; /* that the answer to a ping took */
  size_t size;
  char *data;
};

/* Sends a message, or a piece of one: `kind` 0 continues the message that was
** begun with `fin` false. Ends when the system has all of it. Copies the data.
** NULL: out of memory. */
mli_ws_op *mli_ws_send_new(mli_websocket *ws, int kind, bool fin, const char *data, size_t size);
/* Sends a ping and waits for its pong; `size` at most MLI_WS_CONTROL_MAX. */
mli_ws_op *mli_ws_ping_new(mli_websocket *ws, const char *data, size_t size);
/* Sends a closing frame and waits until the WebSocket is CLOSED; discards what
** was not received. When it is cancelled or times out, the connection is
** dropped. `size` at most MLI_WS_REASON_MAX. */
mli_ws_op *mli_ws_close_new(mli_websocket *ws, int status, const char *reason, size_t size);
/* Drops the connection, after a last closing frame if that can be sent at once.
** Thread: any. Blocks: no. */
void mli_websocket_drop(mli_websocket *ws);

/* ---- between the files of a WebSocket, on its loop ---- */

/* websocket.c */
mli_websocket *mli_websocket_new(mli_loop *loop, const mli_ws_options *options);
/* Puts it on its loop's list. False: out of memory. */
bool mli_websocket_enlist(mli_websocket *ws);
/* It is open: takes the bytes that came after the head. */
void mli_websocket_begin(mli_websocket *ws, const char *rest, size_t size);
/* Has a turn soon, even if nothing comes. */
void mli_websocket_again(mli_websocket *ws);
/* Asks for the events that are wanted. */
void mli_websocket_rearm(mli_websocket *ws);
CURLcode mli_websocket_watch(mli_websocket *ws, int events);
/* The closing frame of this side: from OPEN to CLOSING. */
void mli_websocket_begin_close(mli_websocket *ws, int status, const char *reason, size_t size);
/* To CLOSED, with a last closing frame if that can be sent at once. */
void mli_websocket_leave(mli_websocket *ws, const char *why);
/* To CLOSED because the connection is gone. */
void mli_websocket_lost(mli_websocket *ws);
/* To CLOSED. Ends all operations but the opening. */
void mli_websocket_close_now(mli_websocket *ws);
void mli_ws_message_free(mli_ws_message *message);

/* websocket_open.c */
void mli_websocket_go_on_opening(mli_websocket *ws);
void mli_websocket_open_end(mli_websocket *ws); /* the loop ends */

/* websocket_out.c */
/* Sends what lies in the output, as much as goes. Not CURLE_OK: an error. */
CURLcode mli_websocket_flush(mli_websocket *ws);
/* The same, and what waits to be written; ends what is done with. May close it. */
void mli_websocket_pump(mli_websocket *ws);
bool mli_websocket_output_left(const mli_websocket *ws);
void mli_websocket_write_close(mli_websocket *ws, int status, const char *reason, size_t size);
bool mli_websocket_ping(mli_websocket *ws);
/* A ping or a pong came: it is in `frames`. */
void mli_websocket_owe_pong(mli_websocket *ws);
void mli_websocket_on_pong(mli_websocket *ws);
void mli_websocket_end_ops(mli_ws_ops *list, ml_status status);

#endif
