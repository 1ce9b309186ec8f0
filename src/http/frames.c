/* frames.c: what frames mean together: messages, pings, the end. */
#include "frames.h"

#include <openssl/rand.h>
#include <string.h>

/* ---- wslay's callbacks ---- */

static ssize_t on_recv(uint8_t *to, size_t size, int flags, void *user) {
  mli_frames *f = user;
  (void)flags;
  if (size > f->input_size) size = f->input_size;
  if (size == 0) return -1;
  memcpy(to, f->input, size);
  f->input += size;
  f->input_size -= size;
  return (ssize_t)size;
}

static ssize_t on_send(const uint8_t *data, size_t size, int flags, void *user) {
  mli_frames *f = user;
  (void)flags;
  return mli_buffer_append(f->output, (const char *)data, size) ? (ssize_t)size : -1;
}

static int on_mask(uint8_t *mask, size_t size, void *user) {
  (void)user;
  return RAND_bytes(mask, (int)size) == 1 ? 0 : -1;
}

bool mli_frames_init(mli_frames *f, uint64_t max_message) {
  static const struct wslay_frame_callbacks callbacks = { on_send, on_recv, on_mask };
  memset(f, 0, sizeof *f);
  f->max_message = max_message;
  return wslay_frame_context_init(&f->wslay, &callbacks, f) == 0;
}

void mli_frames_fini(mli_frames *f) {
  if (f->wslay) wslay_frame_context_free(f->wslay);
  mli_buffer_free(&f->message);
  f->wslay = NULL;
}

/* ---- reading ---- */

static mli_ws_event broken(mli_frames *f, int status, const char *why) {
  f->status = status;
  f->why = why;
  return MLI_WS_BROKEN;
}

static bool is_control(uint8_t opcode) { return wslay_is_ctrl_frame(opcode); }

bool mli_ws_is_status(int status) {
  return (status >= 1000 && status <= 1014 && status != 1004 && status != 1005 && status != 1006) ||
         (status >= 3000 && status <= 4999);
}

/* A new frame; NULL, or what is wrong with it. */
static const char *begin_frame(mli_frames *f, const struct wslay_frame_iocb *io) {
  if (io->rsv) return "a frame has reserved bits set";
  if (io->mask) return "a frame is masked";
  switch (io->opcode) {
  case WSLAY_CONTINUATION_FRAME:
    if (!f->kind) return "a frame continues no message";
    break;
  case WSLAY_TEXT_FRAME:
  case WSLAY_BINARY_FRAME:
    if (f->kind) return "a message begins inside another";
    f->kind = io->opcode;
    f->message.size = 0;
    f->text = (mli_utf8){ 0, 0, 0 };
    break;
  case WSLAY_CONNECTION_CLOSE:
  case WSLAY_PING:
  case WSLAY_PONG: f->control_size = 0; break;
  default: return "a frame has an unknown opcode";
  }
  f->in_frame = true;
  f->opcode = io->opcode;
  f->fin = io->fin;
  f->left = io->payload_length;
  return NULL;
}

static mli_ws_event end_of_close(mli_frames *f) {
  f->status = MLI_WS_NO_STATUS;
  if (f->control_size == 0) return MLI_WS_CLOSE;
  if (f->control_size == 1) return broken(f, MLI_WS_PROTOCOL, "a closing frame has half a status");
  int status = (unsigned char)f->control[0] << 8 | (unsigned char)f->control[1];
  f->control_size -= 2;
  memmove(f->control, f->control + 2, f->control_size);
  if (!mli_ws_is_status(status))
    return broken(f, MLI_WS_PROTOCOL, "a closing frame has a status that none may send");
  if (!mli_utf8_valid(f->control, f->control_size))
    return broken(f, MLI_WS_BAD_TEXT, "the reason of a closing frame is not UTF-8");
  f->status = status;
  return MLI_WS_CLOSE;
}

static mli_ws_event end_of_frame(mli_frames *f) {
  f->in_frame = false;
  switch (f->opcode) {
  case WSLAY_CONNECTION_CLOSE: return end_of_close(f);
  case WSLAY_PING: return MLI_WS_PING;
  case WSLAY_PONG: return MLI_WS_PONG;
  default: break;
  }
  if (!f->fin) return MLI_WS_NOTHING;
  if (f->kind == WSLAY_TEXT_FRAME && !mli_utf8_whole(&f->text))
    return broken(f, MLI_WS_BAD_TEXT, "a text message is not UTF-8");
  f->whole = true;
  return MLI_WS_MESSAGE;
}

/* A piece of the frame's payload; false: `*event` says why it cannot be had. */
static bool take_piece(mli_frames *f, const char *data, size_t size, mli_ws_event *event) {
  if (size == 0) return true;
  if (is_control(f->opcode)) {
    memcpy(f->control + f->control_size, data, size);
    f->control_size += size;
    return true;
  }
  if (f->kind == WSLAY_TEXT_FRAME && !mli_utf8_feed(&f->text, data, size)) {
    *event = broken(f, MLI_WS_BAD_TEXT, "a text message is not UTF-8");
    return false;
  }
  if (mli_buffer_append(&f->message, data, size)) return true;
  *event = broken(f, MLI_WS_INTERNAL, "out of memory for a message");
  return false;
}

mli_ws_event mli_frames_next(mli_frames *f) {
  if (f->whole) {
    f->kind = 0;
    f->whole = false;
  }
  for (;;) {
    struct wslay_frame_iocb io = { 0 };
    mli_ws_event event;
    ssize_t n = wslay_frame_recv(f->wslay, &io);
    if (n == WSLAY_ERR_WANT_READ && f->input_size == 0) return MLI_WS_NOTHING;
    if (n == WSLAY_ERR_WANT_READ) continue; /* it got a part of a header */
    if (n < 0) return broken(f, MLI_WS_PROTOCOL, "a frame has a header against the rules");
    const char *wrong = f->in_frame ? NULL : begin_frame(f, &io);
    if (wrong) return broken(f, MLI_WS_PROTOCOL, wrong);
    /* The length is judged before its bytes come. */
    if (!is_control(f->opcode) &&
        (f->message.size > f->max_message || f->left > f->max_message - f->message.size))
      return broken(f, MLI_WS_TOO_BIG, "a message is larger than max_message");
    if (!take_piece(f, (const char *)io.data, io.data_length, &event)) return event;
    f->left -= io.data_length;
    if (f->left > 0) continue;
    event = end_of_frame(f);
    if (event != MLI_WS_NOTHING) return event;
  }
}

void mli_frames_feed(mli_frames *f, const char *bytes, size_t size) {
  f->input = bytes;
  f->input_size = size;
}

/* ---- writing ---- */

bool mli_frames_write(mli_frames *f, mli_buffer *out, uint8_t opcode, bool fin, const char *data,
                      size_t size) {
  struct wslay_frame_iocb io = {
    .fin = fin,
    .opcode = opcode,
    .mask = 1,
    .payload_length = size,
    .data = (const uint8_t *)data,
    .data_length = size,
  };
  const size_t header = 14, before = out->size;
  if (size > SIZE_MAX - header || !mli_buffer_reserve(out, size + header)) return false;
  f->output = out;
  ssize_t n = wslay_frame_send(f->wslay, &io);
  f->output = NULL;
  if (n == (ssize_t)size) return true;
  out->size = before;
  return false;
}

bool mli_frames_write_close(mli_frames *f, mli_buffer *out, int status, const char *reason,
                            size_t size) {
  char payload[MLI_WS_CONTROL_MAX];
  if (status == 0) return mli_frames_write(f, out, WSLAY_CONNECTION_CLOSE, true, NULL, 0);
  payload[0] = (char)(status >> 8);
  payload[1] = (char)(status & 0xff);
  if (size) memcpy(payload + 2, reason, size);
  return mli_frames_write(f, out, WSLAY_CONNECTION_CLOSE, true, payload, size + 2);
}
