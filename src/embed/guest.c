/*
** guest.c: an executor on a libuv loop of the host's. The executor keeps a libuv loop of its
** own, whose descriptor the host's loop watches: nothing of either is visible in the other.
** It keeps the host's uv_run going until it is shut down.
*/
#include <stdlib.h>
#include <uv.h>
#include "embed.h"

struct mle_guest {
  atomic_uint refs;   /* the ml_executor's, and one for each open handle */
  mli_executor *core; /* a reference; NULL: it has left */
  uv_poll_t poll;     /* its descriptor */
  uv_timer_t timer;   /* its timeout */
  uv_idle_t idle;     /* while that is 0 */
  uv_prepare_t prepare;
};

void mle_guest_release(mle_guest *g) {
  if (atomic_fetch_sub(&g->refs, 1) == 1) free(g);
}

static void on_closed(uv_handle_t *handle) { mle_guest_release(handle->data); }

void mle_guest_leave(mle_guest *g) {
  if (!g->core) return;
  uv_close((uv_handle_t *)&g->poll, on_closed);
  uv_close((uv_handle_t *)&g->timer, on_closed);
  uv_close((uv_handle_t *)&g->idle, on_closed);
  uv_close((uv_handle_t *)&g->prepare, on_closed);
  mli_release(g->core);
  g->core = NULL;
}

/* ---- what the host's loop calls ---- */

static void step(mle_guest *g) {
  mli_executor *core = mli_retain(g->core); /* what runs may shut it down */
  if (!mli_driven_step(core)) mle_guest_leave(g);
  mli_release(core);
}

static void on_poll(uv_poll_t *poll, int status, int events) {
  (void)status, (void)events;
  step(poll->data);
}

static void on_timer(uv_timer_t *timer) { step(timer->data); }

static void on_idle(uv_idle_t *idle) { step(idle->data); }

/* Before the host's loop sleeps. */
static void on_prepare(uv_prepare_t *prepare) {
  mle_guest *g = prepare->data;
  int timeout = mli_loop_timeout(g->core->workers[0]->loop);
  if (timeout == 0)
    uv_idle_start(&g->idle, on_idle);
  else
    uv_idle_stop(&g->idle);
  if (timeout > 0)
    uv_timer_start(&g->timer, on_timer, (uint64_t)timeout, 0);
  else
    uv_timer_stop(&g->timer);
}

ml_status mle_guest_new(mle_guest **out, mli_executor *core, struct uv_loop_s *host) {
  mle_guest *g = calloc(1, sizeof *g);
  if (!g) return ML_MEMORY;
  if (uv_poll_init(host, &g->poll, mli_loop_fd(core->workers[0]->loop)) != 0) {
    free(g);
    return ML_SYSTEM;
  }
  atomic_init(&g->refs, 5);
  g->core = mli_retain(core);
  uv_timer_init(host, &g->timer); /* these cannot fail */
  uv_idle_init(host, &g->idle);
  uv_prepare_init(host, &g->prepare);
  g->poll.data = g->timer.data = g->idle.data = g->prepare.data = g;
  uv_unref((uv_handle_t *)&g->timer);
  uv_unref((uv_handle_t *)&g->idle);
  uv_unref((uv_handle_t *)&g->prepare);
  uv_prepare_start(&g->prepare, on_prepare);
  if (uv_poll_start(&g->poll, UV_READABLE, on_poll) != 0) {
    mle_guest_leave(g);
    mle_guest_release(g);
    return ML_SYSTEM;
  }
  *out = g;
  return ML_OK;
}
