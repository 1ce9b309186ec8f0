/* exchange.c: what goes between a transfer and its owner. */
#include "exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "engine.h"

/* ---- events ---- */

/* Under the lock. */
static size_t to_send(const mli_exchange *x) { return x->out.size - x->out_start; }

unsigned mli_exchange_ready(mli_exchange *x) {
  unsigned ready = 0;
  mli_lock_acquire(&x->lock);
  if (x->done) ready |= MLI_EXCHANGE_HEAD | MLI_EXCHANGE_INPUT | MLI_EXCHANGE_DONE;
  if (x->head) ready |= MLI_EXCHANGE_HEAD;
  if (x->in.size > 0) ready |= MLI_EXCHANGE_INPUT;
  if (x->told.size > 0) ready |= MLI_EXCHANGE_DEBUG;
  if (!x->done && !x->out_ended && to_send(x) < MLI_EXCHANGE_HIGH / 2) ready |= MLI_EXCHANGE_ROOM;
  mli_lock_release(&x->lock);
  return ready;
}

static void end_wait(mli_exchange *x, ml_status status) {
  mli_exchange_wait *wait = x->waiter;
  x->waiter = NULL;
  mli_lock_acquire(&x->lock);
  wait->slot = x->waiting = false;
  mli_lock_release(&x->lock);
  mli_op_end(&wait->op, status, NULL, NULL);
}

/* On the loop, after a change. */
static void tell(mli_exchange *x) {
  mli_exchange_wait *wait = x->waiter;
  if (!wait) return;
  wait->got = mli_exchange_ready(x) & wait->events;
  if (wait->got) end_wait(x, ML_OK);
}

/* ---- pausing ---- */

/* On the loop: lets libcurl go on with what it need not pause for any more. */
static void go_on(mli_exchange *x) {
  mli_lock_acquire(&x->lock);
  bool recv = x->paused && x->in.size < MLI_EXCHANGE_HIGH;
  bool send = x->starved && (to_send(x) > 0 || x->out_ended);
  if (recv) x->paused = false;
  if (send) x->starved = false;
  int pauses = (x->paused ? CURLPAUSE_RECV : 0) | (x->starved ? CURLPAUSE_SEND : 0);
  mli_lock_release(&x->lock);
  if (recv || send) mli_http_unpause(x->request, pauses);
}

bool mli_exchange_is_paused(mli_exchange *x) {
  mli_lock_acquire(&x->lock);
  bool paused = x->paused || x->starved;
  mli_lock_release(&x->lock);
  return paused;
}

static void on_kick(mli_node *node, mli_loop *loop) {
  mli_exchange *x = mli_container(node, mli_exchange, kick);
  (void)loop;
  mli_lock_acquire(&x->lock);
  x->kicked = false;
  mli_lock_release(&x->lock);
  go_on(x);
  mli_release(x);
}

/* The owner has made room or has put bytes: goes on, from whatever thread. */
static void kick(mli_exchange *x) {
  mli_loop *loop = x->request->op.loop;
  if (mli_loop_self() == loop) {
    go_on(x);
    return;
  }
  mli_lock_acquire(&x->lock);
  bool post = !x->kicked && !x->done;
  if (post) x->kicked = true;
  mli_lock_release(&x->lock);
  if (!post) return;
  x->kick.run = on_kick;
  mli_object_retain(&x->object);
  if (!mli_loop_post(loop, &x->kick)) mli_release(x);
}

/* ---- the response ---- */

void mli_exchange_on_head(mli_exchange *x) {
  mli_lock_acquire(&x->lock);
  x->head = true;
  mli_lock_release(&x->lock);
  tell(x);
}

size_t mli_exchange_on_body(mli_exchange *x, const char *data, size_t size) {
  mli_lock_acquire(&x->lock);
  bool full = x->in.size >= MLI_EXCHANGE_HIGH;
  if (full) x->paused = true;
  bool kept = !full && mli_buffer_append(&x->in, data, size);
  mli_lock_release(&x->lock);
  if (full) return CURL_WRITEFUNC_PAUSE;
  if (!kept) return 0;
  tell(x);
  return size;
}

/* The loop fills one buffer while the owner reads the other. */
void mli_exchange_take(mli_exchange *x) {
  x->taken.size = 0;
  mli_lock_acquire(&x->lock);
  mli_buffer full = x->in;
  x->in = x->taken;
  x->taken = full;
  bool paused = x->paused;
  mli_lock_release(&x->lock);
  if (paused) kick(x);
}

/* ---- the request's body ---- */

/* Under the lock: makes room at the end out of room at the start. */
static void compact(mli_exchange *x) {
  if (x->out_start == 0 || x->out_start < to_send(x)) return;
  memcpy(x->out.bytes, x->out.bytes + x->out_start, to_send(x));
  x->out.size -= x->out_start;
  x->out_start = 0;
}

ml_status mli_exchange_put(mli_exchange *x, const char *data, size_t size, unsigned rewinds,
                           size_t *took) {
  ml_status status = ML_OK;
  *took = 0;
  mli_lock_acquire(&x->lock);
  size_t room = to_send(x) < MLI_EXCHANGE_HIGH ? MLI_EXCHANGE_HIGH - to_send(x) : 0;
  if (size > room) size = room;
  compact(x);
  if (x->rewinds != rewinds)
    status = ML_ABANDONED;
  else if (size > 0 && !mli_buffer_append(&x->out, data, size))
    status = ML_MEMORY;
  else
    *took = size;
  bool starved = x->starved;
  mli_lock_release(&x->lock);
  if (starved) kick(x);
  return status;
}

void mli_exchange_finish(mli_exchange *x, unsigned rewinds) {
  mli_lock_acquire(&x->lock);
  if (x->rewinds == rewinds) x->out_ended = true;
  bool starved = x->starved;
  mli_lock_release(&x->lock);
  if (starved) kick(x);
}

unsigned mli_exchange_rewinds(mli_exchange *x) {
  mli_lock_acquire(&x->lock);
  unsigned n = x->rewinds;
  mli_lock_release(&x->lock);
  return n;
}

size_t mli_exchange_on_read(char *to, size_t one, size_t size, void *user) {
  mli_exchange *x = user;
  (void)one;
  mli_lock_acquire(&x->lock);
  size_t n = to_send(x);
  if (n > size) n = size;
  if (n > 0) memcpy(to, x->out.bytes + x->out_start, n);
  x->out_start += n;
  if (x->out_start == x->out.size) x->out_start = x->out.size = 0;
  if (n == 0 && !x->out_ended) {
    x->starved = true;
    n = CURL_READFUNC_PAUSE;
  }
  mli_lock_release(&x->lock);
  tell(x);
  return n;
}

/* libcurl sends the body once more: after a redirect, or with credentials. */
int mli_exchange_on_seek(void *user, int64_t offset, int origin) {
  mli_exchange *x = user;
  if (!x->rewindable || offset != 0 || origin != SEEK_SET) return CURL_SEEKFUNC_FAIL;
  mli_lock_acquire(&x->lock);
  x->out.size = x->out_start = 0;
  x->out_ended = false;
  x->rewinds++;
  mli_lock_release(&x->lock);
  tell(x);
  return CURL_SEEKFUNC_OK;
}

/* ---- progress ---- */

int mli_exchange_on_progress(void *user, int64_t to_receive, int64_t received, int64_t to_send_,
                             int64_t sent) {
  mli_exchange *x = user;
  mli_exchange_progress p = { sent, to_send_ > 0 ? to_send_ : -1, received,
                              to_receive > 0 ? to_receive : -1 };
  mli_lock_acquire(&x->lock);
  x->progress = p;
  mli_lock_release(&x->lock);
  return 0;
}

mli_exchange_progress mli_exchange_progress_get(mli_exchange *x) {
  mli_lock_acquire(&x->lock);
  mli_exchange_progress p = x->progress;
  mli_lock_release(&x->lock);
  return p;
}

/* ---- what is told ---- */

void mli_exchange_tell(mli_exchange *x, unsigned kind, const char *text, size_t size) {
  mli_exchange_word word = { (uint32_t)size, kind };
  mli_lock_acquire(&x->lock);
  bool fits = size < MLI_EXCHANGE_HIGH && x->told.size < MLI_EXCHANGE_HIGH &&
              mli_buffer_reserve(&x->told, sizeof word + size);
  if (fits) {
    mli_buffer_append(&x->told, (const char *)&word, sizeof word);
    mli_buffer_append(&x->told, text, size);
  }
  mli_lock_release(&x->lock);
  if (fits) tell(x);
}

void mli_exchange_hear(mli_exchange *x) {
  x->heard.size = 0;
  mli_lock_acquire(&x->lock);
  mli_buffer told = x->told;
  x->told = x->heard;
  x->heard = told;
  mli_lock_release(&x->lock);
}

/* ---- waits ---- */

static void start_wait(mli_op *op) {
  mli_exchange_wait *wait = mli_container(op, mli_exchange_wait, op);
  mli_exchange *x = wait->exchange;
  x->waiter = wait;
  tell(x);
}

static void abort_wait(mli_op *op) {
  end_wait(mli_container(op, mli_exchange_wait, op)->exchange, ML_CANCELLED);
}

static void destroy_wait(mli_object *object) {
  mli_exchange_wait *wait = mli_container(object, mli_exchange_wait, op.object);
  mli_exchange *x = wait->exchange;
  mli_lock_acquire(&x->lock);
  if (wait->slot) x->waiting = false; /* it was never begun */
  mli_lock_release(&x->lock);
  mli_op_fini(&wait->op);
  free(wait);
  mli_release(x);
}

static const mli_type wait_type = { .name = "http wait", .destroy = destroy_wait };
static const mli_op_class wait_class = { "http request", start_wait, abort_wait };

ml_status mli_exchange_wait_new(mli_exchange *x, unsigned events, mli_exchange_wait **out) {
  mli_exchange_wait *wait = malloc(sizeof *wait);
  if (!wait) return ML_MEMORY;
  mli_lock_acquire(&x->lock);
  bool taken = x->waiting;
  x->waiting = true;
  mli_lock_release(&x->lock);
  if (taken) {
    free(wait);
    return ML_MISUSE;
  }
  mli_op_init(&wait->op, &wait_type, &wait_class, x->request->op.loop);
  wait->exchange = mli_retain(x);
  wait->events = events;
  wait->got = 0;
  wait->slot = true;
  *out = wait;
  return ML_OK;
}

/* ---- life ---- */

/* The request has ended, on the loop; or its loop had ended before it could begin. */
static void on_end(mli_waker *waker) {
  mli_exchange *x = mli_container(waker, mli_exchange, waker);
  mli_lock_acquire(&x->lock);
  x->done = true;
  x->paused = x->starved = false;
  mli_lock_release(&x->lock);
  tell(x);
  mli_release(x); /* X3 */
}

void mli_exchange_begin(mli_exchange *x) {
  x->begun = true;
  x->waker.wake = on_end;
  mli_object_retain(&x->object); /* X3 */
  mli_op_begin(&x->request->op, &x->waker);
}

void mli_exchange_close(mli_exchange *x) {
  if (x->begun && !(mli_exchange_ready(x) & MLI_EXCHANGE_DONE)) mli_op_cancel(&x->request->op);
}

static void destroy(mli_object *object) {
  mli_exchange *x = mli_container(object, mli_exchange, object);
  mli_buffer_free(&x->in);
  mli_buffer_free(&x->out);
  mli_buffer_free(&x->told);
  mli_buffer_free(&x->heard);
  mli_buffer_free(&x->taken);
  mli_release(&x->request->op);
  free(x);
}

static const mli_type exchange_type = { .name = "http exchange", .destroy = destroy };

mli_exchange *mli_exchange_new(mli_http *request) {
  mli_exchange *x = calloc(1, sizeof *x);
  if (!x) {
    mli_release(&request->op);
    return NULL;
  }
  mli_object_init(&x->object, &exchange_type);
  x->request = request;
  x->length = -1;
  x->progress = (mli_exchange_progress){ 0, -1, 0, -1 };
  request->exchange = x;
  return x;
}
