/* engine.c: libcurl's multi handles on a loop: beginning, driving and ending transfers. */
#include "engine.h"

#include <limits.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include "quiet.h"
#include "trust.h"

#define KEPT_HANDLES 1024

#define LOOP_ENDED "the loop has ended"
#define SESSION_CLOSED "the session was closed"

/* ---- what libcurl can do ---- */

static mli_http_features features;
static bool initialized;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool has_env_proxy(void) {
  static const char *const names[] = { "http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy",
                                       "ALL_PROXY" };
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const char *value = getenv(names[i]);
    if (value && *value) return true;
  }
  return false;
}

/* libcurl stays initialized until the process ends: other code may use it too. */
static void initialize(void) {
  /* The process may exit while loops run: OpenSSL must not clean up under them. */
  OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, NULL);
  if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) return;
  const curl_version_info_data *curl = curl_version_info(CURLVERSION_NOW);
  features.version = curl->version_num;
  features.own_trust = mli_trust_usable();
  features.env_proxy = has_env_proxy();
  features.reuses = curl->version_num >= 0x080101;
  const char *debug = getenv("MOONLOOP_HTTP_DEBUG");
  features.debug = debug && *debug && strcmp(debug, "0") != 0;
  snprintf(features.encodings, sizeof features.encodings, "deflate, gzip%s%s",
           curl->features & CURL_VERSION_BROTLI ? ", br" : "",
           curl->features & CURL_VERSION_ZSTD ? ", zstd" : "");
  initialized = true;
}

const mli_http_features *mli_http_features_get(void) {
  pthread_once(&once, initialize);
  return initialized ? &features : NULL;
}

/* ---- one transfer ---- */

static void free_easy(mli_http_easy *easy) {
  curl_easy_cleanup(easy->curl);
  free(easy);
}

/* What stays with a handle for good, resets or not. A cookie jar that is shared is used
** only where a file of cookies was named before: "" is none. Its name must go again, as a
** reset would leak it. */
static bool join_session(CURL *curl, const mli_http_session *session) {
  if (session->cookies && (curl_easy_setopt(curl, CURLOPT_COOKIEFILE, "") ||
                           curl_easy_setopt(curl, CURLOPT_COOKIELIST, "RELOAD") ||
                           curl_easy_setopt(curl, CURLOPT_COOKIEFILE, NULL)))
    return false;
  return !curl_easy_setopt(curl, CURLOPT_SHARE, session->share);
}

static mli_http_easy *take_easy(mli_http_engine *e, const mli_http *h) {
  mli_http_easy *easy = e->idle;
  if (easy && mli_http_reusable(h)) {
    e->idle = easy->next;
    e->idle_count--;
    return easy;
  }
  easy = calloc(1, sizeof *easy);
  if (!easy) return NULL;
  easy->engine = e;
  easy->curl = mli_http_easy_new();
  if (easy->curl && join_session(easy->curl, e->session)) return easy;
  free_easy(easy);
  return NULL;
}

/* Takes the handle from its request, for the next. */
static void put_easy(mli_http_engine *e, mli_http *h) {
  mli_http_easy *easy = h->easy;
  mli_http_unwatch_stall(easy);
  mli_http_end_debug(easy);
  easy->request = NULL;
  h->easy = NULL;
  if (!mli_http_reusable(h) || e->idle_count >= KEPT_HANDLES) {
    free_easy(easy);
    return;
  }
  easy->next = e->idle;
  e->idle = easy;
  e->idle_count++;
}

/* Takes the request out of flight, or from where it waits, before it ends. */
static void detach(mli_http *h) {
  mli_http_engine *e = h->engine;
  mli_loop_timer_stop(e->loop, &h->timer);
  atomic_fetch_sub_explicit(&e->session->active, 1, memory_order_relaxed);
  if (!h->connected) atomic_fetch_sub_explicit(&e->session->queued, 1, memory_order_relaxed);
  if (h->lane) {
    *h->link = h->next;
    if (h->next) h->next->link = h->link;
    mli_http_lane_leave(h);
  } else {
    mli_http_lanes_forget(e, h);
  }
  if (h->easy) put_easy(e, h);
  mli_http_address_release(h->address);
  h->address = NULL;
  h->site = NULL;
}

/* Ends a request that libcurl has not got. */
static void fail_early(mli_http *h, CURLcode code) {
  bool tls = h->address->tls;
  h->took = (double)(mli_time() - h->started) / 1e9;
  detach(h);
  mli_http_fail(h, code, NULL, 0, tls);
  mli_release(&h->op);
}

/* Begins the transfer. */
static void launch(mli_http *h, mli_http_lane *lane) {
  mli_http_engine *e = h->engine;
  CURLcode code = CURLE_OUT_OF_MEMORY;
  h->easy = take_easy(e, h);
  if (h->easy) h->easy->request = h;
  h->next = e->active;
  h->link = &e->active;
  if (h->next) h->next->link = &h->next;
  e->active = h;
  bool open = mli_http_lane_join(lane, h);
  if (open && h->easy) code = mli_http_prepare(h->easy);
  if (code == CURLE_OK && curl_multi_add_handle(lane->multi, h->easy->curl) != CURLM_OK)
    code = CURLE_OUT_OF_MEMORY;
  if (code == CURLE_OK) {
    mli_http_watch_stall(h->easy);
    return;
  }
  if (h->easy) h->easy->plain = false;
  fail_early(h, code);
}

/* Those that waited, and have room now, begin. */
static void serve(mli_http_engine *e) {
  mli_http_lane *lane;
  if (mli_likely(!e->lanes.hungry) || e->held) return;
  e->held = true;
  for (mli_http *h; (h = mli_http_lanes_next(e, &lane));) launch(h, lane);
  e->held = false;
}

void mli_http_finish(mli_http_easy *easy, CURLcode code) {
  mli_http *h = easy->request;
  long os_errno = 0;
  char *detail = NULL;
  if (!h->collected) mli_http_collect(easy);
  h->took = (double)(mli_time() - h->started) / 1e9;
  /* libcurl may be content with a part of a head, or with an interim one. */
  if (code == CURLE_OK && (!h->head_done || (h->leads_on && h->status < 200)))
    code = CURLE_PARTIAL_FILE;
  if (mli_unlikely(mli_observing()))
    mli_http_observe(h, code == CURLE_OK ? NULL : curl_easy_strerror(code));
  if (code != CURLE_OK) {
    mli_http_collect_progress(easy);
    curl_easy_getinfo(easy->curl, CURLINFO_OS_ERRNO, &os_errno);
    detail = mli_http_text(h, easy->error, strlen(easy->error));
  }
  curl_multi_remove_handle(h->lane->multi, easy->curl);
  bool tls = h->address->tls;
  detach(h);
  serve(h->engine);
  if (code == CURLE_OK)
    mli_op_end(&h->op, ML_OK, NULL, NULL);
  else
    mli_http_fail(h, code, detail, os_errno, tls);
  mli_release(&h->op);
}

/* The time for the whole request is kept here: libcurl's own clock does not run
** while a transfer waits for a connection. */
static void on_deadline(mli_timer *timer) {
  mli_http *h = mli_container(timer, mli_http, timer);
  if (h->lane) {
    mli_http_finish(h->easy, CURLE_OPERATION_TIMEDOUT);
    return;
  }
  if (mli_unlikely(mli_observing()))
    mli_http_observe(h, curl_easy_strerror(CURLE_OPERATION_TIMEDOUT));
  fail_early(h, CURLE_OPERATION_TIMEDOUT);
}

static void drain(mli_http_lane *lane) {
  int left;
  for (CURLMsg *m; (m = curl_multi_info_read(lane->multi, &left));) {
    if (m->msg != CURLMSG_DONE) continue;
    CURLcode code = m->data.result;
    mli_http_easy *easy = NULL;
    curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &easy);
    mli_http_finish(easy, code);
  }
}

void mli_http_act(mli_http_lane *lane, curl_socket_t fd, int events) {
  int running;
  curl_multi_socket_action(lane->multi, fd, events, &running);
  drain(lane);
}

void mli_http_unpause(mli_http *h, int pauses) {
  if (!h->easy) return;
  mli_http_lane *lane = h->lane;
  bool reads = !(pauses & CURLPAUSE_RECV);
  mli_http_socket *held = reads ? mli_http_release_socket(h->easy) : NULL;
  curl_easy_pause(h->easy->curl, pauses);
  if (held) mli_http_rearm_socket(held);
  drain(lane); /* libcurl may have ended it in there */
}

/* ---- the engine ---- */

/* What it holds besides polls, which are gone or were never there. */
void mli_http_engine_free(mli_http_engine *e) {
  free(e->sockets);
  free(e);
}

/* Closes all of libcurl's: no request is in flight, and none waits. */
static void close_curl(mli_http_engine *e) {
  for (mli_http_easy *easy; (easy = e->idle);) {
    e->idle = easy->next;
    free_easy(easy);
  }
  mli_http_lanes_close(e);
  mli_http_addresses_clear(&e->addresses);
}

static mli_http *any_request(mli_http_engine *e) {
  return e->active ? e->active : e->lanes.hungry ? e->lanes.hungry->first : NULL;
}

static void end_engine(mli_http_engine *e, const char *why) {
  e->held = true;
  for (mli_http *h; (h = any_request(e));) {
    if (mli_unlikely(mli_observing())) mli_http_observe(h, "closed");
    if (h->lane) curl_multi_remove_handle(h->lane->multi, h->easy->curl);
    detach(h);
    mli_http_refuse(h, ML_CLOSED, "closed", why);
    mli_release(&h->op);
  }
  close_curl(e);
  mli_http_session_leave(e->session, e);
  mli_http_close_polls(e);
}

static void on_loop_end(mli_service *service, mli_loop *loop) {
  (void)loop;
  end_engine(mli_container(service, mli_http_engine, service), LOOP_ENDED);
}

static void on_session_end(mli_node *node, mli_loop *loop) {
  mli_http_engine *e = mli_container(node, mli_http_engine, end);
  mli_loop_remove_service(loop, &e->service);
  end_engine(e, SESSION_CLOSED);
}

static mli_http_engine *engine_new(mli_loop *loop, mli_http_session *session) {
  mli_http_engine *e = calloc(1, sizeof *e);
  if (!e) return NULL;
  e->loop = loop;
  e->session = session;
  e->service.key = session;
  e->service.close = on_loop_end;
  e->end.run = on_session_end;
  mli_http_lanes_init(e);
  return e;
}

/* The session's engine on this loop, made now if need be. NULL: out of memory, or the
** session was closed. */
static mli_http_engine *engine_of(mli_loop *loop, mli_http_session *session) {
  mli_service *known = mli_loop_service(loop, session);
  mli_http_engine *e;
  if (known) {
    e = mli_container(known, mli_http_engine, service);
  } else {
    e = engine_new(loop, session);
    if (!e) return NULL;
    if (!mli_http_session_join(session, e)) {
      close_curl(e);
      mli_http_engine_free(e);
      return NULL;
    }
    mli_loop_add_service(loop, &e->service);
  }
  unsigned version = atomic_load_explicit(&session->version, memory_order_acquire);
  if (!known || e->limits_version != version) {
    mli_http_limits limits = mli_http_session_limits(session);
    mli_http_lanes_limit(e, &limits);
    e->limits_version = version;
  }
  return e;
}

/* ---- the operation ---- */

static void op_start(mli_op *op) {
  mli_http *h = mli_container(op, mli_http, op);
  const char *why = NULL;
  h->final = h->url;
  if (op->loop->stopping) {
    mli_http_refuse(h, ML_CLOSED, "closed", LOOP_ENDED);
    return;
  }
  if (h->timeout == 0) {
    mli_http_refuse(h, ML_TIMEOUT, "timeout", "a timeout of 0 leaves no time for a request");
    return;
  }
  mli_http_session *session = h->session ? h->session : mli_http_session_default();
  mli_http_engine *e = session ? engine_of(op->loop, session) : NULL;
  if (session && atomic_load(&session->closed)) { /* an engine that stands ends soon */
    mli_http_refuse(h, ML_CLOSED, "closed", SESSION_CLOSED);
    return;
  }
  mli_http_address *address = e ? mli_http_address_get(&e->addresses, h->url, &why) : NULL;
  if (why) {
    mli_http_refuse(h, ML_SYSTEM, "url", why);
    return;
  }
  if (!address) {
    mli_http_refuse(h, ML_MEMORY, "memory", "out of memory");
    return;
  }
  mli_object_retain(&op->object); /* N2 */
  h->engine = e;
  h->address = address;
  h->started = mli_time();
  h->timer.fire = on_deadline;
  atomic_fetch_add_explicit(&session->requests, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&session->active, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&session->queued, 1, memory_order_relaxed);
  if (h->timeout != MLI_HTTP_NO_TIMEOUT)
    mli_loop_deadline_start(e->loop, &h->timer,
                            h->started + (uint64_t)h->timeout * MLI_MILLISECOND);
  mli_http_lane *lane = mli_http_lanes_enter(e, h);
  if (lane)
    launch(h, lane);
  else
    serve(e); /* the limits may be higher by now */
}

static void op_abort(mli_op *op) {
  mli_http *h = mli_container(op, mli_http, op);
  if (mli_unlikely(mli_observing())) mli_http_observe(h, "cancelled");
  if (h->lane) curl_multi_remove_handle(h->lane->multi, h->easy->curl);
  detach(h);
  serve(h->engine);
  mli_op_end(op, ML_CANCELLED, NULL, NULL);
  mli_release(op);
}

const mli_op_class mli_http_op_class = { "http request", op_start, op_abort };
