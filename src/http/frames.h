/*
** frames.h: WebSocket messages out of bytes, and frames into bytes (RFC 6455,
** the client's side). wslay cuts and masks the frames; what they mean together
** is judged here. No input or output, no loop.
** Thread: one at a time.
**
** M1  Bytes may be cut anywhere: the same events come of them.
** M2  After MLI_WS_BROKEN nothing more is to be had of the input.
*/
#ifndef MLI_HTTP_FRAMES_H
#define MLI_HTTP_FRAMES_H

#include <wslay/wslay.h>
#include "buffer.h"
#include "utf8.h"

#define MLI_WS_CONTROL_MAX 125 /* the most that a ping, pong or close carries */
#define MLI_WS_REASON_MAX (MLI_WS_CONTROL_MAX - 2)

/* Codes of closing that have a meaning here. */
enum {
  MLI_WS_NORMAL = 1000,
  MLI_WS_GOING_AWAY = 1001,
  MLI_WS_PROTOCOL = 1002,
  MLI_WS_NO_STATUS = 1005, /* the peer gave none; never sent */
  MLI_WS_ABNORMAL = 1006,  /* the connection just ended; never sent */
  MLI_WS_BAD_TEXT = 1007,
  MLI_WS_TOO_BIG = 1009,
  MLI_WS_INTERNAL = 1011
};

typedef enum mli_ws_kind {
  MLI_WS_TEXT = WSLAY_TEXT_FRAME,
  MLI_WS_BINARY = WSLAY_BINARY_FRAME
} mli_ws_kind;

typedef enum mli_ws_event {
  MLI_WS_NOTHING, /* all of the input is used up */
  MLI_WS_MESSAGE, /* `message` and `kind` */
  MLI_WS_PING,    /* `control` */
  MLI_WS_PONG,    /* likewise */
  MLI_WS_CLOSE,   /* `status`, and `control` is the reason */
  MLI_WS_BROKEN   /* the peer broke the rules: `status` for it, and `why` */
} mli_ws_event;

typedef struct mli_frames {
  wslay_frame_context_ptr wslay;
  uint64_t max_message;
  const char *input; /* borrowed */
  size_t input_size;
  mli_buffer *output; /* during a write; borrowed */
  /* The frame that is coming in. */
  bool in_frame;
  uint8_t opcode, fin;
  uint64_t left;
  /* The message that is coming in: its kind, or 0. */
  uint8_t kind;
  bool whole; /* it was given away by the last call */
  mli_buffer message;
  mli_utf8 text;
  char control[MLI_WS_CONTROL_MAX];
  size_t control_size;
  int status;
  const char *why; /* static */
} mli_frames;

/* False: out of memory. */
bool mli_frames_init(mli_frames *f, uint64_t max_message);
void mli_frames_fini(mli_frames *f);

/* Bytes for mli_frames_next, which must have used up the last ones. Borrowed
** until then. */
void mli_frames_feed(mli_frames *f, const char *bytes, size_t size);
/* The next event. What it points to stays until the call after; a message's
** buffer may be taken over: zero it then. */
mli_ws_event mli_frames_next(mli_frames *f);

/* Appends a frame to `out`, masked with fresh random bits. `opcode` is wslay's.
** False: out of memory, or no random bits. */
bool mli_frames_write(mli_frames *f, mli_buffer *out, uint8_t opcode, bool fin, const char *data,
                      size_t size);
/* A closing frame; status 0: an empty one. */
bool mli_frames_write_close(mli_frames *f, mli_buffer *out, int status, const char *reason,
                            size_t size);

/* Whether a peer may send this status. */
bool mli_ws_is_status(int status);

#endif
