/*
** stall.c: ends transfers that hardly move. Every eighth of the time the bytes
** so far are looked at, and compared with those of a whole time ago. libcurl
** has such a watch too, but in whole seconds and of a speed that is averaged
** over five.
**
** The time begins when the request begins to go out. Before, connect_timeout
** and timeout are there.
*/
#include "engine.h"
#include "exchange.h"
#include "extra.h"

/* All that went over the connection for this request, both ways. */
static uint64_t bytes_of(CURL *curl) {
  curl_off_t in = 0, out = 0;
  long head = 0;
  curl_easy_getinfo(curl, CURLINFO_SIZE_DOWNLOAD_T, &in);
  curl_easy_getinfo(curl, CURLINFO_SIZE_UPLOAD_T, &out);
  curl_easy_getinfo(curl, CURLINFO_HEADER_SIZE, &head);
  return (uint64_t)in + (uint64_t)out + (uint64_t)head;
}

/* Whether it is for the server to move: not before the request goes out, nor
** while the owner takes nothing, or gives nothing to send. */
static bool should_move(mli_http_easy *easy) {
  mli_exchange *x = easy->request->exchange;
  curl_off_t us = 0;
  curl_easy_getinfo(easy->curl, CURLINFO_PRETRANSFER_TIME_T, &us);
  return us > 0 && !(x && mli_exchange_is_paused(x));
}

static void next_sample(mli_http *h) {
  uint64_t whole = (uint64_t)h->extra->stall_time * MLI_MILLISECOND;
  mli_loop_timer_start(h->op.loop, &h->extra->stall_timer,
                       mli_now() + whole / MLI_HTTP_STALL_SAMPLES);
}

static void start_over(mli_http_extra *x) {
  for (unsigned i = 0; i < MLI_HTTP_STALL_SAMPLES; i++) x->stall_samples[i] = UINT64_MAX;
  x->stall_at = 0;
}

static void on_sample(mli_timer *timer) {
  mli_http_extra *x = mli_container(timer, mli_http_extra, stall_timer);
  mli_http_easy *easy = x->stall_easy;
  mli_http *h = easy->request;
  if (!should_move(easy)) {
    start_over(x);
    next_sample(h);
    return;
  }
  uint64_t now = bytes_of(easy->curl), *oldest = &x->stall_samples[x->stall_at];
  if (*oldest != UINT64_MAX && now - *oldest < x->stall_bytes) {
    h->broken = MLI_HTTP_STALLED;
    mli_http_finish(easy, CURLE_OPERATION_TIMEDOUT);
    return;
  }
  *oldest = now;
  x->stall_at = (x->stall_at + 1) % MLI_HTTP_STALL_SAMPLES;
  next_sample(h);
}

void mli_http_watch_stall(mli_http_easy *easy) {
  mli_http_extra *x = easy->request->extra;
  if (!x || !x->stall_time) return;
  x->stall_timer.fire = on_sample;
  x->stall_easy = easy;
  start_over(x);
  next_sample(easy->request);
}

void mli_http_unwatch_stall(mli_http_easy *easy) {
  mli_http_extra *x = easy->request->extra;
  if (x && x->stall_time) mli_loop_timer_stop(easy->engine->loop, &x->stall_timer);
}
