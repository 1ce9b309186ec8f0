/*
** websocket_out.c: what goes out: messages and their pieces, pings and their
** pongs, the closing frame.
**
** Frames are written whole into the output buffer, from which the system takes
** what it will. A message waits outside until little lies in the buffer.
*/
#include <stdlib.h>
#include <string.h>
#include "websocket.h"

#define HIGH_WATER ((size_t)64 * 1024) /* of output that nobody has taken yet */
#define IMMEDIATE_SENDS 64             /* a job that always can send still lets others run */

#define ws_op_of(o) mli_container(o, mli_ws_op, op)

/* ---- lists of operations ---- */

static void unlink_op(mli_ws_op *o) {
  if (!o->link) return;
  *o->link = o->next;
  if (o->next)
    o->next->link = o->link;
  else
    o->in->last = o->link;
  o->link = NULL;
}

static void add_op(mli_ws_ops *list, mli_ws_op *o) {
  o->in = list;
  o->next = NULL;
  o->link = list->last;
  *list->last = o;
  list->last = &o->next;
}

static void end_op(mli_ws_op *o, ml_status status) {
  unlink_op(o);
  mli_op_end(&o->op, status, NULL, NULL);
}

void mli_websocket_end_ops(mli_ws_ops *list, ml_status status) {
  while (list->first) end_op(list->first, status);
}

/* ---- the output ---- */

static size_t left(const mli_websocket *ws) { return ws->going.size - ws->gone + ws->after.size; }

CURLcode mli_websocket_flush(mli_websocket *ws) {
  for (;;) {
    if (ws->gone == ws->going.size) {
      mli_buffer empty = ws->going;
      empty.size = ws->gone = 0;
      ws->going = ws->after;
      ws->after = empty;
      if (ws->going.size == 0) break;
    }
    size_t n;
    CURLcode code = mli_wire_send(&ws->wire, ws->going.bytes + ws->gone, ws->going.size - ws->gone,
                                  &n);
    ws->gone += n;
    ws->sent += n;
    if (code == CURLE_AGAIN) return CURLE_OK;
    if (code != CURLE_OK) return code;
  }
  /* Nothing is left: what a large message needed is given back. */
  if (ws->going.room > HIGH_WATER) mli_buffer_free(&ws->going);
  if (ws->after.room > HIGH_WATER) mli_buffer_free(&ws->after);
  return CURLE_OK;
}

/* Writes a frame behind the others. False: out of memory. */
static bool write_frame(mli_websocket *ws, uint8_t opcode, bool fin, const char *data,
                        size_t size) {
  size_t before = ws->after.size;
  if (!mli_frames_write(&ws->frames, &ws->after, opcode, fin, data, size)) return false;
  ws->written += ws->after.size - before;
  return true;
}

static mli_ws_op *next_to_write(const mli_websocket *ws) {
  return ws->in_pieces ? ws->piece : ws->waiting.first;
}

static void write_message(mli_websocket *ws, mli_ws_op *o) {
  if (ws->piece == o)
    ws->piece = NULL;
  else
    unlink_op(o);
  if (!write_frame(ws, o->opcode, o->fin, o->data, o->size)) {
    mli_op_end(&o->op, ML_MEMORY, NULL, NULL);
    return;
  }
  ws->in_pieces = !o->fin;
  o->on_its_way = true;
  o->end = ws->written;
  free(o->data);
  o->data = NULL;
  add_op(&ws->leaving, o);
}

static void pay_pong(mli_websocket *ws) {
  if (!ws->pong_owed || left(ws) >= HIGH_WATER || ws->state != MLI_WS_OPEN) return;
  ws->pong_owed = false;
  write_frame(ws, WSLAY_PONG, true, ws->pong, ws->pong_size); /* without memory: no pong */
}

void mli_websocket_pump(mli_websocket *ws) {
  for (;;) {
    bool more = false;
    pay_pong(ws);
    for (mli_ws_op *o; left(ws) < HIGH_WATER && (o = next_to_write(ws)); more = true)
      write_message(ws, o);
    if (mli_websocket_flush(ws) != CURLE_OK) {
      mli_websocket_lost(ws);
      return;
    }
    while (ws->leaving.first && ws->leaving.first->end <= ws->sent)
      end_op(ws->leaving.first, ML_OK);
    if (left(ws) > 0 || !(more || ws->pong_owed)) break;
  }
  if (ws->answered && left(ws) == 0)
    mli_websocket_close_now(ws);
  else
    mli_websocket_rearm(ws);
}

bool mli_websocket_output_left(const mli_websocket *ws) { return left(ws) > 0; }

void mli_websocket_write_close(mli_websocket *ws, int status, const char *reason, size_t size) {
  size_t before = ws->after.size;
  if (mli_frames_write_close(&ws->frames, &ws->after, status, reason, size))
    ws->written += ws->after.size - before;
}

/* ---- pings ---- */

void mli_websocket_owe_pong(mli_websocket *ws) {
  if (ws->state != MLI_WS_OPEN) return;
  ws->pong_owed = true; /* of those that were not answered yet only the latest has to be */
  ws->pong_size = ws->frames.control_size;
  memcpy(ws->pong, ws->frames.control, ws->pong_size);
  pay_pong(ws);
}

/* The pong answers its ping and those before it. */
void mli_websocket_on_pong(mli_websocket *ws) {
  mli_ws_op *o = ws->pings.first;
  uint64_t now = mli_now();
  while (o && (o->size != ws->frames.control_size ||
               (o->size && memcmp(o->data, ws->frames.control, o->size) != 0)))
    o = o->next;
  if (!o) return;
  for (mli_ws_op *first, *next = NULL; next != o;) {
    first = ws->pings.first;
    next = first;
    first->seconds = (double)(now - first->end) / 1e9;
    end_op(first, ML_OK);
  }
}

bool mli_websocket_ping(mli_websocket *ws) {
  return write_frame(ws, WSLAY_PING, true, "keep-alive", 10);
}

/* ---- the operations ---- */

static void destroy_op(mli_object *object) {
  mli_ws_op *o = mli_container(object, mli_ws_op, op.object);
  mli_websocket *ws = o->ws;
  free(o->data);
  mli_op_fini(&o->op);
  free(o);
  mli_release(ws);
}

static const mli_type op_type = { .name = "websocket operation", .destroy = destroy_op };

static void start_send(mli_op *op) {
  mli_ws_op *o = ws_op_of(op);
  mli_websocket *ws = o->ws;
  if (ws->state != MLI_WS_OPEN) {
    mli_op_end(op, ML_CLOSED, NULL, NULL);
    return;
  }
  if (o->opcode == WSLAY_CONTINUATION_FRAME)
    ws->piece = o;
  else
    add_op(&ws->waiting, o);
  if (++ws->immediate <= IMMEDIATE_SENDS)
    mli_websocket_pump(ws);
  else
    mli_websocket_again(ws);
}

static void abort_send(mli_op *op) {
  mli_ws_op *o = ws_op_of(op);
  if (o->ws->piece == o) o->ws->piece = NULL;
  end_op(o, ML_CANCELLED);
}

static void start_ping(mli_op *op) {
  mli_ws_op *o = ws_op_of(op);
  mli_websocket *ws = o->ws;
  if (ws->state != MLI_WS_OPEN) {
    mli_op_end(op, ML_CLOSED, NULL, NULL);
    return;
  }
  if (!write_frame(ws, WSLAY_PING, true, o->data, o->size)) {
    mli_op_end(op, ML_MEMORY, NULL, NULL);
    return;
  }
  o->end = mli_now();
  add_op(&ws->pings, o);
  mli_websocket_pump(ws);
}

static void abort_ping(mli_op *op) { end_op(ws_op_of(op), ML_CANCELLED); }

static void start_close(mli_op *op) {
  mli_ws_op *o = ws_op_of(op);
  mli_websocket *ws = o->ws;
  if (ws->state == MLI_WS_CLOSED) {
    mli_op_end(op, ML_OK, NULL, NULL);
    return;
  }
  add_op(&ws->closers, o);
  if (ws->state == MLI_WS_OPEN) mli_websocket_begin_close(ws, o->status, o->data, o->size);
}

static void abort_close(mli_op *op) {
  mli_ws_op *o = ws_op_of(op);
  mli_websocket *ws = o->ws;
  end_op(o, ML_CANCELLED);
  mli_websocket_close_now(ws);
}

static const mli_op_class send_class = { "websocket send", start_send, abort_send };
static const mli_op_class ping_class = { "websocket ping", start_ping, abort_ping };
static const mli_op_class close_class = { "websocket close", start_close, abort_close };

static mli_ws_op *op_new(mli_websocket *ws, const mli_op_class *class, const char *data,
                         size_t size) {
  mli_ws_op *o = calloc(1, sizeof *o);
  if (!o) return NULL;
  if (size && !(o->data = malloc(size))) {
    free(o);
    return NULL;
  }
  mli_op_init(&o->op, &op_type, class, ws->loop);
  o->ws = mli_retain(ws);
  o->size = size;
  if (size) memcpy(o->data, data, size);
  return o;
}

mli_ws_op *mli_ws_send_new(mli_websocket *ws, int kind, bool fin, const char *data, size_t size) {
  mli_ws_op *o = op_new(ws, &send_class, data, size);
  if (!o) return NULL;
  o->opcode = (uint8_t)kind;
  o->fin = fin;
  return o;
}

mli_ws_op *mli_ws_ping_new(mli_websocket *ws, const char *data, size_t size) {
  return op_new(ws, &ping_class, data, size);
}

mli_ws_op *mli_ws_close_new(mli_websocket *ws, int status, const char *reason, size_t size) {
  mli_ws_op *o = op_new(ws, &close_class, reason, size);
  if (o) o->status = status;
  return o;
}
