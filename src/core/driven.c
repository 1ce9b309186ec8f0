/* driven.c: the steps of an executor without threads. */
#include "driven.h"

#include <poll.h>

void mli_driven_begin(mli_executor *ex) {
  mli_worker *w = ex->workers[0], *before = mli_worker_become(w);
  w->thread = pthread_self();
  ex->class->open(w);
  mli_loop_begin(w->loop);
  ex->class->visit(w, false);
  mli_worker_become(before);
}

bool mli_driven_step(mli_executor *ex) {
  mli_worker *w = ex->workers[0];
  if (w->loop->closed) return false;
  mli_worker *before = mli_worker_become(w);
  ex->class->visit(w, true);
  mli_loop_step(w->loop);
  bool ended = w->loop->stopping;
  if (ended) {
    mli_loop_end(w->loop);
    ex->class->close(w);
  } else {
    ex->class->visit(w, false);
  }
  mli_worker_become(before);
  if (ended) mli_worker_leave(w);
  return !ended;
}

void mli_driven_sleep(mli_executor *ex, uint64_t deadline) {
  const mli_loop *loop = ex->workers[0]->loop;
  int timeout = mli_loop_timeout(loop);
  uint64_t now = mli_now();
  uint64_t left = deadline <= now ? 0 : (deadline - now) / MLI_MILLISECOND + 1;
  if (timeout < 0 || left < (uint64_t)timeout) timeout = left < INT32_MAX ? (int)left : INT32_MAX;
  struct pollfd fd = { .fd = mli_loop_fd(loop), .events = POLLIN };
  poll(&fd, 1, timeout); /* a signal: the caller looks again anyhow */
}

ml_status mli_driven_wait(mli_executor *ex, mli_future *f, uint64_t deadline) {
  for (;;) {
    bool goes_on = mli_driven_step(ex);
    if (mli_future_settled(f)) return ML_OK;
    if (!goes_on) return mli_future_wait(f, deadline); /* somebody else's */
    if (deadline != MLI_FOREVER && mli_now() >= deadline) return ML_TIMEOUT;
    mli_driven_sleep(ex, deadline);
  }
}
