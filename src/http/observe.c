/*
** observe.c: what a trace and a summary tell of requests. libcurl says afterwards when each
** phase was over. Its clock runs from when it has, or begins to make, a connection: what went
** before was the waiting for one.
*/
#include "core/stats.h"
#include "engine.h"

#include <stdio.h>

/* Less than that is the turn of the loop in which it was begun. */
#define LEAST_QUEUED MLI_MILLISECOND

void mli_http_observe_connection(bool reused) {
  if (!(mli_observing() & MLI_OBSERVE_STATS)) return;
  mli_stats_count(reused ? &mli_stats_all.reused : &mli_stats_all.connections);
}

static uint64_t time_of(CURL *curl, CURLINFO info) {
  curl_off_t us = 0;
  curl_easy_getinfo(curl, info, &us);
  return us > 0 ? (uint64_t)us * 1000 : 0;
}

/* Tells of the phase that lasts until then, and goes on from there. */
static void phase(uint64_t lane, const char *name, uint64_t *at, uint64_t until) {
  if (until <= *at) return;
  mli_trace_event event = {
    .shape = MLI_TRACE_SPAN, .topic = MLI_TRACE_PHASE, .at = *at, .took = until - *at, .lane = lane
  };
  mli_trace_add(&event, name, NULL);
  *at = until;
}

/* What the request was in when it ended. */
static const char *last_phase(uint64_t resolved, uint64_t connected, uint64_t ready,
                              uint64_t answered) {
  if (answered) return "receive";
  if (ready) return "first byte";
  return connected ? "tls" : resolved ? "connect" : "resolve";
}

/* What libcurl followed is one phase: of the times of each hop it keeps the sums only. How
** long a request that failed had waited for a connection is not known. */
static void tell_phases(CURL *curl, uint64_t lane, uint64_t started, uint64_t now, bool whole) {
  uint64_t total = time_of(curl, CURLINFO_TOTAL_TIME_T), at = started, zero = started;
  uint64_t hops = time_of(curl, CURLINFO_REDIRECT_TIME_T);
  uint64_t resolved = time_of(curl, CURLINFO_NAMELOOKUP_TIME_T);
  uint64_t connected = time_of(curl, CURLINFO_CONNECT_TIME_T);
  uint64_t ready = time_of(curl, CURLINFO_PRETRANSFER_TIME_T);
  uint64_t answered = time_of(curl, CURLINFO_STARTTRANSFER_TIME_T);
  if (whole && started + total + LEAST_QUEUED < now) zero = now - total;
  phase(lane, "queued", &at, zero);
  if (hops) {
    phase(lane, "redirects", &at, zero + hops);
  } else {
    phase(lane, "resolve", &at, zero + resolved);
    phase(lane, "connect", &at, zero + connected);
    phase(lane, "tls", &at, zero + time_of(curl, CURLINFO_APPCONNECT_TIME_T));
    phase(lane, "first byte", &at, zero + answered);
  }
  phase(lane, last_phase(resolved, connected, ready, answered), &at, now);
}

static void tell(mli_http *h, const char *failure) {
  char url[160], name[sizeof url + 32];
  snprintf(name, sizeof name, "%.16s %s", h->method, mli_http_masked(h->url, url, sizeof url));
  uint64_t now = mli_now(), started = now - (mli_time() - h->started); /* see core/clock.h */
  long status = 0;
  mli_trace_event event = {
    .shape = MLI_TRACE_BEGIN, .topic = MLI_TRACE_HTTP, .at = started, .lane = mli_trace_new_lane()
  };
  mli_trace_add(&event, name, NULL);
  if (h->easy) {
    tell_phases(h->easy->curl, event.lane, started, now, !failure);
    curl_easy_getinfo(h->easy->curl, CURLINFO_RESPONSE_CODE, &status);
  } else {
    phase(event.lane, "queued", &started, now);
  }
  event.shape = MLI_TRACE_END;
  event.at = now;
  event.number = status > 0 ? (uint32_t)status : 0;
  mli_trace_add(&event, name, failure);
}

void mli_http_observe(mli_http *h, const char *failure) {
  if (mli_observing() & MLI_OBSERVE_STATS) mli_stats_count(&mli_stats_all.requests);
  if (mli_tracing()) tell(h, failure);
}
