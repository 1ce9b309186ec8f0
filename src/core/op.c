/* op.c: beginning, cancelling and ending operations. */
#include "op.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void mli_op_init(mli_op *op, const mli_type *type, const mli_op_class *class, mli_loop *loop) {
  memset(op, 0, sizeof *op);
  mli_object_init(&op->object, type);
  op->class = class;
  op->loop = loop ? mli_retain(loop) : NULL;
  op->status = ML_OK;
}

void mli_op_fini(mli_op *op) {
  free(op->message);
  if (op->loop) mli_release(op->loop);
}

static void start(mli_op *op) {
  op->begun = true;
  op->class->start(op);
}

static void on_begin(mli_node *node, mli_loop *loop) {
  mli_op *op = mli_container(node, mli_op, begin_node);
  if (loop->stopping)
    mli_op_end(op, ML_CLOSED, "closed", NULL);
  else
    start(op);
  mli_release(op);
}

void mli_op_begin(mli_op *op, mli_waker *waker) {
  op->waker = waker;
  if (mli_loop_self() == op->loop) {
    start(op);
    return;
  }
  mli_object_retain(&op->object);
  op->begin_node.run = on_begin;
  if (!mli_loop_post(op->loop, &op->begin_node)) {
    mli_op_end(op, ML_CLOSED, "closed", NULL);
    mli_release(op);
  }
}

static void on_cancel(mli_node *node, mli_loop *loop) {
  mli_op *op = mli_container(node, mli_op, cancel_node);
  (void)loop;
  if (!op->ended) op->class->abort(op);
  mli_release(op);
}

void mli_op_cancel(mli_op *op) {
  if (mli_loop_self() == op->loop) {
    if (op->begun && !op->ended) op->class->abort(op);
    return;
  }
  if (atomic_exchange_explicit(&op->cancel_asked, true, memory_order_acq_rel)) return;
  mli_object_retain(&op->object);
  op->cancel_node.run = on_cancel;
  if (!mli_loop_post(op->loop, &op->cancel_node)) mli_release(op); /* it has ended with its loop */
}

void mli_op_end(mli_op *op, ml_status status, const char *code, char *message) {
  assert(!op->ended);
  op->ended = true;
  op->status = status;
  op->code = status == ML_OK ? NULL : code ? code : ml_status_name(status);
  op->message = message;
  mli_waker *waker = op->waker;
  op->waker = NULL;
  if (waker) waker->wake(waker);
}

void mli_op_end_uv(mli_op *op, int err, const char *what) {
  if (err >= 0) {
    mli_op_end(op, ML_OK, NULL, NULL);
    return;
  }
  if (err == UV_ECANCELED) {
    mli_op_end(op, ML_CANCELLED, NULL, NULL);
    return;
  }
  const char *text = uv_strerror(err);
  size_t size = strlen(what) + strlen(text) + 3;
  char *message = malloc(size);
  if (message) snprintf(message, size, "%s: %s", what, text);
  mli_op_end(op, err == UV_ENOMEM ? ML_MEMORY : ML_SYSTEM, uv_err_name(err), message);
}
