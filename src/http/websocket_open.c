/*
** websocket_open.c: from a request to an open WebSocket, as the request's own
** operation.
**
**   start --> libcurl connects --[on_connected]--> the request goes out, the head
**   comes in --[go_on]--> open, or refused;   abort, time and the loop's end any time
**
** While it is under way the request holds the WebSocket, and a reference to
** itself.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "websocket.h"

#define MAX_HEAD (64 * 1024)
#define NEVER INT64_MAX

static mli_websocket *websocket_of(const mli_http *h) {
  return mli_container(h->upgraded, mli_websocket, object);
}

/* ---- the end of the opening ---- */

/* Takes the request out of flight, before its operation ends. */
static mli_http *detach(mli_websocket *ws) {
  mli_http *h = ws->opening;
  ws->opening = NULL;
  mli_loop_timer_stop(ws->loop, &h->timer);
  if (h->address) mli_http_address_release(h->address);
  h->address = NULL;
  h->easy = NULL;
  return h;
}

static void measure(mli_http *h) {
  h->times.total = h->took = (double)(mli_time() - h->started) / 1e9;
}

/* libcurl, or time, ended it. */
static void fail(mli_websocket *ws, CURLcode code) {
  mli_http *h = ws->opening;
  long os_errno = 0;
  if (ws->wire.easy.curl) {
    mli_http_collect(&ws->wire.easy);
    curl_easy_getinfo(ws->wire.easy.curl, CURLINFO_OS_ERRNO, &os_errno);
  }
  measure(h);
  h->ready = h->sent = ws->written > 0;
  char *detail = mli_http_text(h, ws->wire.easy.error, strlen(ws->wire.easy.error));
  bool tls = h->address->tls;
  mli_websocket_close_now(ws);
  detach(ws);
  mli_http_fail(h, code, detail, os_errno, tls);
  mli_release(&h->op);
}

/* The answer was none that makes a WebSocket. */
static void refuse(mli_websocket *ws, ml_status status, const char *code, const char *why) {
  mli_http *h = ws->opening;
  measure(h);
  h->phase = h->in.size ? "headers" : "wait";
  mli_websocket_close_now(ws);
  detach(ws);
  mli_http_refuse(h, status, code, why);
  mli_release(&h->op);
}

void mli_websocket_open_end(mli_websocket *ws) {
  refuse(ws, ML_CLOSED, "closed", "the loop has ended");
}

static void on_deadline(mli_timer *timer) {
  fail(websocket_of(mli_container(timer, mli_http, timer)), CURLE_OPERATION_TIMEDOUT);
}

/* ---- the answer ---- */

static bool keep_answer(mli_websocket *ws, const mli_http *h, const char *protocol, size_t size) {
  ws->url = strdup(h->url);
  ws->head = malloc(h->head);
  if (!ws->url || !ws->head) return false;
  memcpy(ws->head, h->in.bytes, h->head);
  ws->head_size = h->head;
  if (protocol) ws->protocol = ws->head + (protocol - h->in.bytes);
  ws->protocol_size = size;
  return true;
}

static void succeed(mli_websocket *ws) {
  mli_http *h = detach(ws);
  mli_websocket_begin(ws, h->in.bytes + h->head, h->in.size - h->head);
  mli_op_end(&h->op, ML_OK, NULL, NULL);
  mli_release(&h->op);
}

/* The whole head is there. */
static void judge(mli_websocket *ws) {
  mli_http *h = ws->opening;
  const char *protocol, *why = NULL;
  size_t size, reason_size;
  h->status = mli_ws_status_of(h->in.bytes, h->head);
  if (h->status == 0) {
    refuse(ws, ML_SYSTEM, "protocol", "what answers does not speak HTTP/1.1");
    return;
  }
  if (h->status != 101) {
    char text[160];
    const char *reason = mli_http_reason(h, &reason_size);
    snprintf(text, sizeof text, "the server refused the WebSocket: %ld %.*s", h->status,
             (int)(reason_size < 100 ? reason_size : 100), reason);
    refuse(ws, ML_SYSTEM, "handshake", text);
    return;
  }
  why = mli_ws_check(h->in.bytes, h->head, ws->accept, ws->options.protocols, &protocol, &size);
  if (why)
    refuse(ws, ML_SYSTEM, "handshake", why);
  else if (!keep_answer(ws, h, protocol, size))
    refuse(ws, ML_MEMORY, "memory", "out of memory");
  else
    succeed(ws);
}

/* Whether the head is there; interim answers (100, 103) are passed over. */
static bool find_head(mli_http *h, size_t *scanned) {
  for (;;) {
    h->head = mli_ws_find_head(h->in.bytes, h->in.size, scanned);
    if (h->head == 0) return false;
    long status = mli_ws_status_of(h->in.bytes, h->head);
    if (status < 100 || status == 101 || status >= 200) return true;
    h->in.size -= h->head;
    memmove(h->in.bytes, h->in.bytes + h->head, h->in.size);
    *scanned = 0;
  }
}

static void read_answer(mli_websocket *ws) {
  mli_http *h = ws->opening;
  char piece[4096];
  for (;;) {
    size_t n;
    CURLcode code = mli_wire_receive(&ws->wire, piece, sizeof piece, &n);
    if (code == CURLE_AGAIN) return;
    if (code != CURLE_OK || n == 0) {
      h->detail = "it ended before the answer did";
      refuse(ws, ML_SYSTEM, "closed", "the connection was closed while waiting for the response");
      return;
    }
    if (!mli_buffer_append(&h->in, piece, n)) {
      refuse(ws, ML_MEMORY, "memory", "out of memory");
      return;
    }
    if (find_head(h, &ws->scanned)) {
      judge(ws);
      return;
    }
    if (h->in.size > MAX_HEAD) {
      refuse(ws, ML_SYSTEM, "too_large", "the headers of the response are too large");
      return;
    }
  }
}

void mli_websocket_go_on_opening(mli_websocket *ws) {
  CURLcode code = mli_websocket_flush(ws);
  if (code == CURLE_OK)
    code = mli_websocket_watch(ws, UV_READABLE | (mli_websocket_output_left(ws) ? UV_WRITABLE : 0));
  if (code == CURLE_OK)
    read_answer(ws);
  else
    fail(ws, code);
}

static void on_connected(mli_wire *wire, CURLcode code) {
  mli_websocket *ws = mli_container(wire, mli_websocket, wire);
  mli_http *h = ws->opening;
  char key[MLI_WS_KEY + 1];
  if (code == CURLE_OK) {
    mli_http_collect(&wire->easy);
    if (!mli_ws_make_key(key) || !mli_ws_accept_of(key, ws->accept) ||
        !mli_ws_write_request(h, key, ws->options.protocols, &ws->after))
      code = CURLE_OUT_OF_MEMORY;
    ws->written = ws->after.size;
  }
  if (code == CURLE_OK)
    mli_websocket_go_on_opening(ws);
  else
    fail(ws, code);
}

/* ---- the operation ---- */

static int64_t bound(int64_t timeout) { return timeout == MLI_HTTP_NO_TIMEOUT ? NEVER : timeout; }

/* Parses the address: http:// for ws://. False: refused. */
static bool find_address(mli_http *h) {
  const char *why = NULL;
  mli_http_addresses none = { { NULL } };
  const char *url = mli_ws_http_url(h, &why);
  if (url) h->address = mli_http_address_get(&none, url, &why);
  mli_http_addresses_clear(&none);
  if (h->address) return true;
  if (why)
    mli_http_refuse(h, ML_SYSTEM, "url", why);
  else
    mli_http_refuse(h, ML_MEMORY, "memory", "out of memory");
  return false;
}

static void start(mli_op *op) {
  mli_http *h = mli_container(op, mli_http, op);
  mli_websocket *ws = websocket_of(h);
  int64_t limit = bound(h->timeout), connect = bound(h->connect_timeout);
  if (connect < limit) limit = connect;
  h->final = h->url;
  h->started = mli_time();
  if (op->loop->stopping) {
    mli_http_refuse(h, ML_CLOSED, "closed", "the loop has ended");
    return;
  }
  if (limit == 0) {
    mli_http_refuse(h, ML_TIMEOUT, "timeout", "a timeout of 0 leaves no time for a connection");
    return;
  }
  if (!find_address(h)) return;
  mli_object_retain(&op->object);
  h->easy = &ws->wire.easy;
  ws->opening = h;
  ws->wire.connected = on_connected;
  h->timer.fire = on_deadline;
  if (limit != NEVER)
    mli_loop_deadline_start(ws->loop, &h->timer, h->started + (uint64_t)limit * MLI_MILLISECOND);
  CURLcode code = CURLE_OUT_OF_MEMORY;
  if (mli_http_features_get() && mli_websocket_enlist(ws) &&
      mli_frames_init(&ws->frames, ws->options.max_message))
    code = mli_wire_open(&ws->wire, h);
  if (code != CURLE_OK) fail(ws, code);
}

static void abort_opening(mli_op *op) {
  mli_websocket *ws = websocket_of(mli_container(op, mli_http, op));
  mli_websocket_close_now(ws);
  detach(ws);
  mli_op_end(op, ML_CANCELLED, NULL, NULL);
  mli_release(op);
}

static const mli_op_class open_class = { "websocket open", start, abort_opening };

bool mli_websocket_prepare(mli_http *h, const mli_ws_options *options) {
  mli_websocket *ws = mli_websocket_new(h->op.loop, options);
  if (!ws) {
    free(options->protocols);
    return false;
  }
  h->upgraded = &ws->object;
  h->op.class = &open_class;
  return true;
}

mli_websocket *mli_websocket_take(mli_http *h) {
  mli_websocket *ws = websocket_of(h);
  h->upgraded = NULL;
  return ws;
}
