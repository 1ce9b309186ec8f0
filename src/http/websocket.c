/* websocket.c: the life of a WebSocket, and what comes in. */
#include "websocket.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define RECEIVES_PER_TURN 4 /* of one WebSocket, then the others have their turn */
#define SMALL 4096          /* messages up to here are copied, larger ones moved */
#define LINGER (2 * MLI_SECOND)
#define PATIENCE (10 * MLI_SECOND) /* for the end of the other side */

/* ---- the loop's share ---- */

typedef struct hub {
  mli_service service;
  mli_websocket *list;
  char scratch[64 * 1024]; /* where a receive goes first */
} hub;

static const char hub_key;

static void on_loop_end(mli_service *service, mli_loop *loop) {
  hub *h = mli_container(service, hub, service);
  (void)loop;
  while (h->list) mli_websocket_leave(h->list, "the loop has ended");
  free(h);
}

/* The loop's thread; NULL: out of memory. */
static hub *hub_of(mli_loop *loop) {
  mli_service *known = mli_loop_service(loop, &hub_key);
  if (known) return mli_container(known, hub, service);
  hub *h = malloc(sizeof *h);
  if (!h) return NULL;
  h->service = (mli_service){ .key = &hub_key, .close = on_loop_end };
  h->list = NULL;
  mli_loop_add_service(loop, &h->service);
  return h;
}

bool mli_websocket_enlist(mli_websocket *ws) {
  hub *h = hub_of(ws->loop);
  if (!h) return false;
  ws->next = h->list;
  ws->link = &h->list;
  if (ws->next) ws->next->link = &ws->next;
  h->list = ws;
  return true;
}

/* ---- the end ---- */

/* Sets how it ended, unless it has. */
static void set_end(mli_websocket *ws, const char *code, int status, const char *why,
                    const char *reason, size_t size) {
  mli_lock_acquire(&ws->lock);
  if (!ws->end.code) {
    ws->end.code = code;
    ws->end.status = status;
    ws->end.why = why;
    ws->end.reason_size = size;
    if (size) memcpy(ws->end.reason, reason, size);
  }
  ws->paused = false;
  mli_lock_release(&ws->lock);
}

mli_ws_end mli_websocket_end(mli_websocket *ws) {
  mli_lock_acquire(&ws->lock);
  mli_ws_end end = ws->end;
  mli_lock_release(&ws->lock);
  return end;
}

static void end_receive(mli_websocket *ws, ml_status status) {
  if (!ws->reader) return;
  mli_ws_receive *r = mli_container(ws->reader, mli_ws_receive, op);
  ws->reader = NULL;
  mli_lock_acquire(&ws->lock);
  r->slot = ws->receiving = false;
  mli_lock_release(&ws->lock);
  mli_op_end(&r->op, status, NULL, NULL);
}

/* Nothing more goes out; who waits to send is told so. */
static void end_senders(mli_websocket *ws) {
  mli_ws_op *piece = ws->piece;
  ws->piece = NULL;
  if (piece) mli_op_end(&piece->op, ML_CLOSED, NULL, NULL);
  mli_websocket_end_ops(&ws->waiting, ML_CLOSED);
  mli_websocket_end_ops(&ws->pings, ML_CLOSED);
}

void mli_websocket_close_now(mli_websocket *ws) {
  if (ws->state == MLI_WS_CLOSED) return;
  ws->state = MLI_WS_CLOSED;
  mli_loop_timer_stop(ws->loop, &ws->timer);
  mli_loop_timer_stop(ws->loop, &ws->again);
  mli_wire_close(&ws->wire);
  if (ws->link) {
    *ws->link = ws->next;
    if (ws->next) ws->next->link = ws->link;
    ws->link = NULL;
  }
  set_end(ws, "closed", MLI_WS_ABNORMAL, "the connection was dropped", NULL, 0);
  mli_frames_fini(&ws->frames);
  mli_buffer_free(&ws->rest);
  mli_buffer_free(&ws->going);
  mli_buffer_free(&ws->after);
  ws->gone = 0;
  end_receive(ws, ML_OK);
  end_senders(ws);
  mli_websocket_end_ops(&ws->leaving, ML_CLOSED);
  mli_websocket_end_ops(&ws->closers, ML_OK);
}

void mli_websocket_lost(mli_websocket *ws) {
  set_end(ws, "closed", MLI_WS_ABNORMAL, "the connection was lost", NULL, 0);
  mli_websocket_close_now(ws);
}

/* From OPEN to CLOSING: for at most `patience` longer. */
static void start_closing(mli_websocket *ws, uint64_t patience) {
  ws->state = MLI_WS_CLOSING;
  ws->pong_owed = false;
  mli_loop_timer_start(ws->loop, &ws->timer, mli_now() + patience);
  end_receive(ws, ML_OK);
  end_senders(ws);
  mli_websocket_pump(ws);
}

static void free_messages(mli_ws_message *m) {
  while (m) {
    mli_ws_message *next = m->next;
    mli_ws_message_free(m);
    m = next;
  }
}

void mli_websocket_begin_close(mli_websocket *ws, int status, const char *reason, size_t size) {
  mli_lock_acquire(&ws->lock);
  mli_ws_message *unread = ws->first;
  ws->first = ws->last = NULL;
  ws->queued = 0;
  mli_lock_release(&ws->lock);
  free_messages(unread);
  set_end(ws, "closed", status, "it was closed on this side", NULL, 0);
  mli_websocket_write_close(ws, status, reason, size);
  mli_websocket_again(ws); /* what was left unread */
  start_closing(ws, PATIENCE);
}

/* The peer's closing frame: answered, unless it is the answer. */
static void on_close_frame(mli_websocket *ws) {
  const mli_frames *f = &ws->frames;
  set_end(ws, "closed", f->status, NULL, f->control, f->control_size);
  ws->answered = true;
  if (ws->state == MLI_WS_OPEN) {
    mli_websocket_write_close(ws, f->status == MLI_WS_NO_STATUS ? 0 : f->status, NULL, 0);
    start_closing(ws, LINGER);
  } else {
    mli_websocket_pump(ws);
  }
}

/* The peer broke the rules. It is told why, and has a moment to read it. */
static void fail(mli_websocket *ws) {
  int status = ws->frames.status;
  const char *why = ws->frames.why;
  const char *code = status == MLI_WS_TOO_BIG    ? "too_large"
                     : status == MLI_WS_INTERNAL ? "memory"
                                                 : "protocol";
  ws->deaf = true;
  if (ws->state != MLI_WS_OPEN) { /* the rest of a WebSocket that closes does not matter */
    mli_websocket_close_now(ws);
    return;
  }
  set_end(ws, code, status, why, NULL, 0);
  mli_websocket_write_close(ws, status, why, strlen(why));
  start_closing(ws, LINGER);
}

/* Ends it with a last word, if that can be said at once. */
void mli_websocket_leave(mli_websocket *ws, const char *why) {
  if (ws->opening) {
    mli_websocket_open_end(ws);
    return;
  }
  set_end(ws, "closed", MLI_WS_GOING_AWAY, why, NULL, 0);
  if (ws->state == MLI_WS_OPEN) {
    mli_websocket_write_close(ws, MLI_WS_GOING_AWAY, NULL, 0);
    mli_websocket_flush(ws); /* it is dropped in any case */
  }
  mli_websocket_close_now(ws);
}

/* ---- the queue ---- */

void mli_ws_message_free(mli_ws_message *m) {
  mli_buffer_free(&m->large);
  free(m);
}

static size_t weight(const mli_ws_message *m) {
  return sizeof *m + (m->large.room ? m->large.room : m->size);
}

/* The message of the frames; NULL: out of memory. */
static mli_ws_message *make_message(mli_frames *f) {
  bool small = f->message.size <= SMALL;
  size_t size = f->message.size;
  mli_ws_message *m = malloc(sizeof *m + (small ? size : 0));
  if (!m) return NULL;
  *m = (mli_ws_message){ .kind = f->kind, .size = size };
  if (small) {
    if (size) memcpy(m->small, f->message.bytes, size);
    m->bytes = m->small;
  } else {
    m->large = f->message;
    m->bytes = m->large.bytes;
    f->message = (mli_buffer){ NULL, 0, 0 };
  }
  return m;
}

static void on_message(mli_websocket *ws) {
  if (ws->state != MLI_WS_OPEN) return; /* nobody will receive it */
  mli_ws_message *m = make_message(&ws->frames);
  if (!m) {
    ws->frames.status = MLI_WS_INTERNAL;
    ws->frames.why = "out of memory for a message";
    fail(ws);
    return;
  }
  mli_lock_acquire(&ws->lock);
  if (ws->last)
    ws->last->next = m;
  else
    ws->first = m;
  ws->last = m;
  ws->queued += weight(m);
  ws->paused = ws->queued >= ws->options.max_queue;
  mli_lock_release(&ws->lock);
  end_receive(ws, ML_OK);
}

/* ---- the input ---- */

static bool is_paused(mli_websocket *ws) {
  mli_lock_acquire(&ws->lock);
  bool paused = ws->paused;
  mli_lock_release(&ws->lock);
  return paused;
}

/* Takes what the frames have to say, until the input is used up or the queue is
** full. False: it is closed. */
static bool digest(mli_websocket *ws) {
  while (!ws->deaf && ws->state != MLI_WS_CLOSED && !is_paused(ws)) {
    switch (mli_frames_next(&ws->frames)) {
    case MLI_WS_NOTHING: return true;
    case MLI_WS_MESSAGE: on_message(ws); break;
    case MLI_WS_PING: mli_websocket_owe_pong(ws); break;
    case MLI_WS_PONG: mli_websocket_on_pong(ws); break;
    case MLI_WS_CLOSE:
      ws->deaf = true;
      on_close_frame(ws);
      break;
    case MLI_WS_BROKEN: fail(ws); break;
    }
  }
  return ws->state != MLI_WS_CLOSED;
}

/* Keeps what the frames did not look at yet. */
static bool keep_rest(mli_websocket *ws) {
  const char *bytes = ws->frames.input;
  size_t size = ws->deaf ? 0 : ws->frames.input_size;
  if (size && ws->rest.size && bytes >= ws->rest.bytes && bytes < ws->rest.bytes + ws->rest.size) {
    memmove(ws->rest.bytes, bytes, size);
    ws->rest.size = size;
  } else {
    ws->rest.size = 0;
    if (size && !mli_buffer_append(&ws->rest, bytes, size)) return false;
  }
  if (ws->rest.size == 0) mli_buffer_free(&ws->rest);
  mli_frames_feed(&ws->frames, ws->rest.bytes, ws->rest.size);
  return true;
}

/* Feeds bytes and listens. False: it is closed. */
static bool hear(mli_websocket *ws, const char *bytes, size_t size) {
  mli_frames_feed(&ws->frames, bytes, size);
  if (!digest(ws)) return false;
  if (keep_rest(ws)) return true;
  mli_websocket_lost(ws);
  return false;
}

static void read_input(mli_websocket *ws) {
  hub *h = hub_of(ws->loop);
  if (!hear(ws, ws->rest.bytes, ws->rest.size)) return;
  /* The queue may be emptied at any time, by another thread: what is kept goes first. */
  for (int i = 0; ws->rest.size == 0 && !is_paused(ws); i++) {
    size_t n;
    if (i == RECEIVES_PER_TURN) {
      mli_websocket_again(ws);
      break;
    }
    CURLcode code = mli_wire_receive(&ws->wire, h->scratch, sizeof h->scratch, &n);
    if (code == CURLE_AGAIN) break;
    if (code != CURLE_OK || n == 0) {
      mli_websocket_lost(ws);
      return;
    }
    ws->heard = mli_now();
    if (!ws->deaf && !hear(ws, h->scratch, n)) return;
  }
  mli_websocket_pump(ws);
}

void mli_websocket_rearm(mli_websocket *ws) {
  int events = (is_paused(ws) ? 0 : UV_READABLE) |
               (mli_websocket_output_left(ws) ? UV_WRITABLE : 0);
  if (ws->state == MLI_WS_CLOSED || mli_websocket_watch(ws, events) == CURLE_OK) return;
  mli_websocket_lost(ws);
}

CURLcode mli_websocket_watch(mli_websocket *ws, int events) {
  if (ws->watched == events) return CURLE_OK;
  ws->watched = events;
  return mli_wire_watch(&ws->wire, events);
}

static void on_ready(mli_wire *wire, int events) {
  mli_websocket *ws = mli_container(wire, mli_websocket, wire);
  ws->immediate = 0;
  if (ws->state == MLI_WS_OPENING)
    mli_websocket_go_on_opening(ws);
  else if (events & UV_READABLE)
    read_input(ws);
  else
    mli_websocket_pump(ws);
}

void mli_websocket_again(mli_websocket *ws) {
  mli_loop_timer_start(ws->loop, &ws->again, mli_now());
}

static void on_again(mli_timer *timer) {
  mli_websocket *ws = mli_container(timer, mli_websocket, again);
  ws->immediate = 0;
  read_input(ws);
}

/* ---- keeping it alive ---- */

static void ping_later(mli_websocket *ws) {
  if (ws->options.ping_interval)
    mli_loop_timer_start(ws->loop, &ws->timer, mli_now() + ws->options.ping_interval);
}

/* The answer to a ping may lie behind messages that nobody takes, or behind one
** that is long: whatever came since shows that the peer is there. */
static void on_timer(mli_timer *timer) {
  mli_websocket *ws = mli_container(timer, mli_websocket, timer);
  if (ws->state != MLI_WS_OPEN) {
    mli_websocket_close_now(ws);
    return;
  }
  if (!ws->pinged) {
    ws->pinged = mli_now();
    mli_websocket_ping(ws); /* without memory: no ping, and the time passes */
    mli_loop_timer_start(ws->loop, &ws->timer, ws->pinged + ws->options.ping_timeout);
    mli_websocket_pump(ws);
    return;
  }
  if (ws->heard >= ws->pinged || is_paused(ws)) {
    ws->pinged = 0;
    ping_later(ws);
    return;
  }
  set_end(ws, "closed", MLI_WS_ABNORMAL, "a ping was not answered in time", NULL, 0);
  mli_websocket_close_now(ws);
}

void mli_websocket_begin(mli_websocket *ws, const char *rest, size_t size) {
  ws->state = MLI_WS_OPEN;
  ws->heard = mli_now();
  ping_later(ws);
  if (!hear(ws, rest, size)) return;
  mli_websocket_again(ws); /* TLS may have more of it already */
  mli_websocket_pump(ws);
}

/* ---- receive operations ---- */

/* Under the lock. */
static ml_status look(const mli_websocket *ws) {
  return ws->first ? ML_OK : ws->end.code ? ML_CLOSED : ML_BUSY;
}

static void on_resume(mli_node *node, mli_loop *loop) {
  mli_websocket *ws = mli_container(node, mli_websocket, resume_node);
  (void)loop;
  mli_lock_acquire(&ws->lock);
  ws->resuming = false;
  mli_lock_release(&ws->lock);
  if (ws->state != MLI_WS_CLOSED) mli_websocket_again(ws);
  mli_release(ws);
}

static void resume(mli_websocket *ws) {
  if (mli_loop_self() == ws->loop) {
    if (ws->state != MLI_WS_CLOSED) mli_websocket_again(ws);
    return;
  }
  mli_lock_acquire(&ws->lock);
  bool under_way = ws->resuming;
  ws->resuming = true;
  mli_lock_release(&ws->lock);
  if (under_way) return;
  mli_object_retain(&ws->object);
  ws->resume_node.run = on_resume;
  if (!mli_loop_post(ws->loop, &ws->resume_node)) mli_release(ws); /* it ended with its loop */
}

ml_status mli_websocket_next(mli_ws_receive *r) {
  mli_websocket *ws = r->ws;
  bool go_on = false;
  mli_lock_acquire(&ws->lock);
  ml_status status = look(ws);
  mli_ws_message *m = ws->first;
  if (m) {
    ws->first = m->next;
    if (!m->next) ws->last = NULL;
    ws->queued -= weight(m);
    go_on = ws->paused && ws->queued <= ws->options.max_queue / 2;
    if (go_on) ws->paused = false;
  }
  mli_lock_release(&ws->lock);
  r->message = m;
  if (go_on) resume(ws);
  return status;
}

static void start_receive(mli_op *op) {
  mli_ws_receive *r = mli_container(op, mli_ws_receive, op);
  mli_websocket *ws = r->ws;
  mli_lock_acquire(&ws->lock);
  bool wait = look(ws) == ML_BUSY;
  mli_lock_release(&ws->lock);
  ws->reader = op;
  if (!wait) end_receive(ws, ML_OK);
}

static void abort_receive(mli_op *op) {
  end_receive(mli_container(op, mli_ws_receive, op)->ws, ML_CANCELLED);
}

static void destroy_receive(mli_object *object) {
  mli_ws_receive *r = mli_container(object, mli_ws_receive, op.object);
  mli_websocket *ws = r->ws;
  if (r->slot) { /* it was never begun */
    mli_lock_acquire(&ws->lock);
    ws->receiving = false;
    mli_lock_release(&ws->lock);
  }
  if (r->message) mli_ws_message_free(r->message);
  mli_op_fini(&r->op);
  free(r);
  mli_release(ws);
}

static const mli_type receive_type = { .name = "websocket receive", .destroy = destroy_receive };
static const mli_op_class receive_class = { "websocket receive", start_receive, abort_receive };

ml_status mli_ws_receive_new(mli_websocket *ws, mli_ws_receive **out) {
  mli_ws_receive *r = calloc(1, sizeof *r);
  if (!r) return ML_MEMORY;
  mli_lock_acquire(&ws->lock);
  bool taken = ws->receiving;
  ws->receiving = true;
  mli_lock_release(&ws->lock);
  if (taken) {
    free(r);
    return ML_MISUSE;
  }
  mli_op_init(&r->op, &receive_type, &receive_class, ws->loop);
  r->ws = mli_retain(ws);
  r->slot = true;
  *out = r;
  return ML_OK;
}

/* ---- life ---- */

static void free_websocket(mli_websocket *ws) {
  mli_loop *loop = ws->loop;
  assert(!ws->link && !ws->wire.multi);
  free_messages(ws->first);
  free(ws->options.protocols);
  free(ws->url);
  free(ws->head);
  free(ws);
  mli_release(loop);
}

static void destroy_by_message(mli_node *node, mli_loop *loop) {
  mli_websocket *ws = mli_container(node, mli_websocket, destroy_node);
  (void)loop;
  mli_websocket_leave(ws, "nobody holds it any more");
  free_websocket(ws);
}

static void destroy(mli_object *object) {
  mli_websocket *ws = mli_container(object, mli_websocket, object);
  if (mli_loop_self() == ws->loop) {
    destroy_by_message(&ws->destroy_node, ws->loop);
    return;
  }
  ws->destroy_node.run = destroy_by_message;
  if (!mli_loop_post(ws->loop, &ws->destroy_node)) free_websocket(ws); /* its loop closed it */
}

const mli_type mli_websocket_type = { .name = "http.websocket", .destroy = destroy };

static void drop_by_message(mli_node *node, mli_loop *loop) {
  mli_websocket *ws = mli_container(node, mli_websocket, drop_node);
  (void)loop;
  if (ws->state == MLI_WS_OPEN || ws->state == MLI_WS_CLOSING)
    mli_websocket_leave(ws, "it was dropped on this side");
  mli_release(ws);
}

void mli_websocket_drop(mli_websocket *ws) {
  if (atomic_exchange(&ws->dropped, true)) return;
  mli_object_retain(&ws->object);
  ws->drop_node.run = drop_by_message;
  if (mli_loop_self() == ws->loop)
    drop_by_message(&ws->drop_node, ws->loop);
  else if (!mli_loop_post(ws->loop, &ws->drop_node))
    mli_release(ws);
}

mli_websocket *mli_websocket_new(mli_loop *loop, const mli_ws_options *options) {
  mli_websocket *ws = calloc(1, sizeof *ws);
  if (!ws) return NULL;
  mli_object_init(&ws->object, &mli_websocket_type);
  ws->loop = mli_retain(loop);
  ws->options = *options;
  ws->wire.loop = loop;
  ws->wire.ready = on_ready;
  ws->again.fire = on_again;
  ws->timer.fire = on_timer;
  mli_ws_ops *lists[] = { &ws->waiting, &ws->leaving, &ws->pings, &ws->closers };
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) lists[i]->last = &lists[i]->first;
  ws->watched = -1;
  return ws;
}
