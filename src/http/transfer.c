/*
** transfer.c: a request into a libcurl handle, and a response out of it.
**
** A handle keeps what all requests have in common. What a request changed
** beyond its URL and headers is undone by a reset before the next.
*/
#define CURL_DISABLE_DEPRECATION
#include "engine.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "exchange.h"
#include "extra.h"
#include "trust.h"

#define MAX_HEAD (256 * 1024)
#define MAX_RESERVE ((curl_off_t)64 << 20)
#define H2_UPLOAD (64 * 1024)
#define STREAM_BUFFER 131072L /* what libcurl receives at once of a body that streams */

/* ---- libcurl's callbacks: see N1 ---- */

static bool append(mli_http *h, const char *data, size_t size) {
  if (mli_buffer_append(&h->in, data, size)) return true;
  h->broken = MLI_HTTP_NO_MEMORY;
  return false;
}

/* The status of the head that comes, as libcurl understands it: that is what it acts on. */
static long status_of(const mli_http_easy *easy) {
  long status = 0;
  curl_easy_getinfo(easy->curl, CURLINFO_RESPONSE_CODE, &status);
  return status;
}

/* A redirect to a GET: libcurl itself would go on with a method it does not
** know. Only "303 See Other" says so for those. */
static void check_see_other(mli_http_easy *easy) {
  if (status_of(easy) == 303 && strcmp(easy->request->method, "HEAD") != 0)
    curl_easy_setopt(easy->curl, CURLOPT_CUSTOMREQUEST, NULL);
}

/* Whether libcurl goes on by itself after this head: to the response after an
** interim one, to where a redirect leads, or to try credentials. */
static bool leads_on(const mli_http *h, long status) {
  size_t at = 0;
  mli_http_field field;
  if (status < 200) return status != 101;
  if (status / 100 == 3)
    return h->follow && mli_http_next_field(h->in.bytes, h->head, &at, "Location", 8, &field);
  return h->negotiates && (status == 401 || status == 407);
}

/* The head is the last: its owner may look at it. */
static void show_head(mli_http_easy *easy) {
  mli_http *h = easy->request;
  if (!h->streams || h->collected) return;
  mli_http_collect(easy);
  h->collected = true;
  mli_exchange_on_head(h->exchange);
}

/* Remembers a response that points elsewhere; the last may not be followed. */
static bool note_hop(mli_http_easy *easy) {
  mli_http *h = easy->request;
  char *url = NULL;
  mli_http_hop *hop = mli_http_alloc(h, sizeof *hop);
  /* Before the first redirect libcurl may still have the URL of the handle's last use. */
  if (h->hops)
    curl_easy_getinfo(easy->curl, CURLINFO_EFFECTIVE_URL, &url);
  else
    url = (char *)h->url;
  if (hop && url && (url = mli_http_text(h, url, strlen(url)))) {
    *hop = (mli_http_hop){ .url = url };
    curl_easy_getinfo(easy->curl, CURLINFO_RESPONSE_CODE, &hop->status);
    *h->last_hop = hop;
    h->last_hop = &hop->next;
    return true;
  }
  h->broken = MLI_HTTP_NO_MEMORY;
  return false;
}

/* A status line of HTTP/2 on a connection without TLS, which only "2-prior-knowledge" and "2"
** ask for. libcurl would believe it, and let requests share a connection that cannot be shared. */
static bool poses(mli_http_easy *easy, const char *line, size_t size) {
  char *scheme = NULL;
  mli_http_version version = easy->request->version;
  if (size < 6 || line[5] != '2' || version == MLI_HTTP_2 || version == MLI_HTTP_2_PRIOR)
    return false;
  curl_easy_getinfo(easy->curl, CURLINFO_SCHEME, &scheme);
  return scheme && strcasecmp(scheme, "http") == 0;
}

/* Keeps the head of the latest response: what a redirect or an interim response
** said goes, and so do trailers. A folded line is put behind the one it continues. */
static size_t on_header(char *line, size_t one, size_t size, void *user) {
  mli_http_easy *easy = user;
  mli_http *h = easy->request;
  (void)one;
  if (h->broken) return 0;
  if (easy->unsure) mli_http_after_line(easy, line, size);
  if (size > 5 && strncasecmp(line, "HTTP/", 5) == 0 && (h->head_done || h->in.size == 0)) {
    if (poses(easy, line, size)) {
      h->broken = MLI_HTTP_POSING;
      return 0;
    }
    h->in.size = h->head = 0;
    h->head_done = h->leads_on = false;
    if (!easy->plain) check_see_other(easy);
  }
  if (h->head_done) return size;
  if (h->in.size + size > MAX_HEAD) {
    h->broken = MLI_HTTP_BIG_HEAD;
    return 0;
  }
  if (*line == ' ' || *line == '\t')
    while (h->in.size && strchr("\r\n", h->in.bytes[h->in.size - 1])) h->in.size--;
  if (!append(h, line, size)) return 0;
  h->head = h->in.size;
  h->head_done = *line == '\r' || *line == '\n';
  if (h->head_done) {
    long status = status_of(easy);
    h->leads_on = leads_on(h, status);
    if (!h->leads_on) show_head(easy);
    if (h->leads_on && status / 100 == 3 && !note_hop(easy)) return 0;
  }
  return size;
}

static size_t pass_on(mli_http_easy *easy, const char *data, size_t size) {
  mli_http *h = easy->request;
  h->leads_on = false; /* libcurl keeps to itself what it does not end with */
  show_head(easy);
  size_t took = mli_exchange_on_body(h->exchange, data, size);
  if (took == size) h->body_count += size;
  if (took == CURL_WRITEFUNC_PAUSE) mli_http_hold_socket(easy);
  if (took == 0 && size > 0) h->broken = MLI_HTTP_NO_MEMORY;
  return took;
}

static size_t on_body(char *data, size_t one, size_t size, void *user) {
  mli_http_easy *easy = user;
  mli_http *h = easy->request;
  (void)one;
  if (size > h->max_body - h->body_count) {
    h->broken = MLI_HTTP_BIG_BODY;
    return 0;
  }
  if (h->streams) return pass_on(easy, data, size);
  h->body_count += size;
  if (h->in.size == h->head) {
    curl_off_t length = 0;
    curl_easy_getinfo(easy->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (length > MAX_RESERVE) length = MAX_RESERVE;
    if (length > (curl_off_t)size) mli_buffer_reserve(&h->in, (size_t)length); /* a hint */
  }
  return append(h, data, size) ? size : 0;
}

/* The request has a connection: again after a redirect. */
static int on_connection(void *user, char *peer, char *local, int peer_port, int local_port) {
  mli_http_easy *easy = user;
  mli_http *h = easy->request;
  mli_http_session *session = easy->engine->session;
  long connects = 0;
  (void)peer, (void)local, (void)peer_port, (void)local_port;
  curl_easy_getinfo(easy->curl, CURLINFO_NUM_CONNECTS, &connects);
  if (!h->connected) atomic_fetch_sub_explicit(&session->queued, 1, memory_order_relaxed);
  if (connects == h->connects)
    atomic_fetch_add_explicit(&session->reused, 1, memory_order_relaxed);
  else
    atomic_fetch_add_explicit(&session->made, 1, memory_order_relaxed);
  if (mli_unlikely(mli_observing())) mli_http_observe_connection(connects == h->connects);
  h->connects = connects;
  h->connected = true;
  return CURL_PREREQFUNC_OK;
}

/* ---- setting up ---- */

#define SET(option, value)                                                                         \
  do {                                                                                             \
    CURLcode code_ = curl_easy_setopt(easy->curl, (option), (value));                              \
    if (code_ != CURLE_OK) return code_;                                                           \
  } while (0)

/* What all requests have in common, on a handle that is new or reset. */
static CURLcode set_base(mli_http_easy *easy) {
  const mli_http_features *has = mli_http_features_get();
  SET(CURLOPT_NOSIGNAL, 1L); /* see quiet.h */
  SET(CURLOPT_PRIVATE, easy);
  SET(CURLOPT_ERRORBUFFER, easy->error);
  SET(CURLOPT_HEADERFUNCTION, on_header);
  SET(CURLOPT_HEADERDATA, easy);
  SET(CURLOPT_WRITEFUNCTION, on_body);
  SET(CURLOPT_WRITEDATA, easy);
  SET(CURLOPT_OPENSOCKETFUNCTION, mli_http_open_socket);
  SET(CURLOPT_OPENSOCKETDATA, easy->engine);
  SET(CURLOPT_CLOSESOCKETFUNCTION, mli_http_close_socket);
  SET(CURLOPT_CLOSESOCKETDATA, easy->engine);
  SET(CURLOPT_PREREQFUNCTION, on_connection);
  SET(CURLOPT_PREREQDATA, easy);
#if LIBCURL_VERSION_NUM >= 0x075700
  if (has->version >= 0x075700) SET(CURLOPT_QUICK_EXIT, 1L); /* else a cancel joins the resolver */
#endif
  SET(CURLOPT_DNS_CACHE_TIMEOUT, 300L);
  SET(CURLOPT_TCP_KEEPALIVE, 1L);
  SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  SET(CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
  SET(CURLOPT_REDIR_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
  SET(CURLOPT_FOLLOWLOCATION, 1L);
  SET(CURLOPT_MAXREDIRS, 10L);
  SET(CURLOPT_CONNECTTIMEOUT_MS, 30000L);
  SET(CURLOPT_USERAGENT, "moonloop/" ML_VERSION);
  SET(CURLOPT_ACCEPT_ENCODING, has->encodings);
  /* For large bodies. A handle that has its buffer already keeps it, and says so. */
  curl_easy_setopt(easy->curl, CURLOPT_BUFFERSIZE, 65536L);
  if (!has->env_proxy) SET(CURLOPT_PROXY, "");
  if (has->own_trust) {
    SET(CURLOPT_CAINFO, NULL);
    SET(CURLOPT_CAPATH, NULL);
    SET(CURLOPT_SSL_CTX_FUNCTION, mli_trust_apply);
  }
  easy->plain = true;
  return CURLE_OK;
}

/* A body of unknown length goes in chunks; HTTP/2 needs no word for that, and
** libcurl leaves the header out there. */
static CURLcode set_upload(mli_http_easy *easy, mli_exchange *x, bool post) {
  mli_http *h = easy->request;
  SET(CURLOPT_POST, 1L);
  SET(CURLOPT_POSTFIELDS, NULL);
  SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)x->length);
  SET(CURLOPT_READFUNCTION, mli_exchange_on_read);
  SET(CURLOPT_READDATA, x);
  SET(CURLOPT_SEEKFUNCTION, mli_exchange_on_seek);
  SET(CURLOPT_SEEKDATA, x);
  if (!post) {
    SET(CURLOPT_CUSTOMREQUEST, h->method);
    SET(CURLOPT_POSTREDIR, (long)(CURL_REDIR_POST_301 | CURL_REDIR_POST_302));
  }
  return CURLE_OK;
}

/* libcurl knows what redirects do to GET, HEAD and POST. For other methods 301
** and 302 keep method and body, and check_see_other does the rest. */
static CURLcode set_method(mli_http_easy *easy, const mli_http *h) {
  bool post = strcmp(h->method, "POST") == 0;
  if (h->uploads) return set_upload(easy, h->exchange, post);
  bool upload = h->body || post || strcmp(h->method, "PUT") == 0 || strcmp(h->method, "PATCH") == 0;
  if (upload) {
    SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)(h->body ? h->body_size : 0));
    SET(CURLOPT_POSTFIELDS, h->body ? h->body : "");
    if (!post) SET(CURLOPT_POSTREDIR, (long)(CURL_REDIR_POST_301 | CURL_REDIR_POST_302));
  }
  if (strcmp(h->method, "HEAD") == 0 && !h->body)
    SET(CURLOPT_NOBODY, 1L);
  else if (!post)
    SET(CURLOPT_CUSTOMREQUEST, h->method);
  return CURLE_OK;
}

static CURLcode set_version(mli_http_easy *easy, const mli_http *h) {
  const mli_http_features *has = mli_http_features_get();
  switch (h->version) {
  case MLI_HTTP_ANY:
    /* In libcurl before 8.2 large uploads over HTTP/2 may stall, and a paused transfer
    ** keeps in memory what the others of its connection receive. */
    if ((h->streams || h->uploads || h->body_size > H2_UPLOAD) && has->version < 0x080200)
      SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    return CURLE_OK;
  case MLI_HTTP_1_1: SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1); return CURLE_OK;
  case MLI_HTTP_2: SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2_0); return CURLE_OK;
  case MLI_HTTP_2_PRIOR:
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
    return CURLE_OK;
  }
  return CURLE_OK;
}

static CURLcode set_exchange(mli_http_easy *easy, const mli_http *h) {
  SET(CURLOPT_XFERINFOFUNCTION, mli_exchange_on_progress);
  SET(CURLOPT_XFERINFODATA, h->exchange);
  SET(CURLOPT_NOPROGRESS, 0L);
  if (h->streams) curl_easy_setopt(easy->curl, CURLOPT_BUFFERSIZE, STREAM_BUFFER); /* a hint */
  return CURLE_OK;
}

/* Whether the base settings will do. */
static bool is_plain(const mli_http *h) {
  return !h->body && !h->attended && !h->extra && h->follow && h->max_redirects == 10 &&
         h->connect_timeout == 30000 && h->compressed && h->version == MLI_HTTP_ANY &&
         strcmp(h->method, "GET") == 0 && !strchr(h->address->text, '@');
}

/* Milliseconds for libcurl, which takes 0 for "never". */
static long limit(int64_t ms) {
  if (ms == MLI_HTTP_NO_TIMEOUT) return 0;
  return ms < 1 ? 1 : ms > INT32_MAX ? INT32_MAX : (long)ms;
}

CURLcode mli_http_prepare(mli_http_easy *easy) {
  mli_http *h = easy->request;
  /* What libcurl would add by itself and here only the request may: any Accept,
  ** "Expect: 100-continue", a guessed type of the body. Headers of the request
  ** come first, and the first is what libcurl goes by. */
  static struct curl_slist type = { .data = (char *)"Content-Type:" };
  static struct curl_slist expect = { (char *)"Expect:", &type };
  static struct curl_slist accept = { .data = (char *)"Accept:" };
  static struct curl_slist accept_of_body = { (char *)"Accept:", &expect };
  easy->error[0] = 0;
  easy->socket = NULL;
  if (!easy->plain) {
    if (easy->used) curl_easy_reset(easy->curl);
    CURLcode code = set_base(easy);
    if (code != CURLE_OK) return code;
  }
  CURLcode folds = mli_http_watch_folds(easy);
  if (folds != CURLE_OK) return folds;
  SET(CURLOPT_CURLU, h->address->url);
  /* Where HTTP/2 may come of it, one connection is worth waiting for; plain HTTP would
  ** wait for a whole response. */
  SET(CURLOPT_PIPEWAIT, h->address->tls || h->version == MLI_HTTP_2_PRIOR ? 1L : 0L);
  if (mli_http_features_get()->debug && !mli_http_extra_get(h)) return CURLE_OUT_OF_MEMORY;
  easy->plain = is_plain(h);
  *h->last_header = easy->plain ? &accept : &accept_of_body;
  SET(CURLOPT_HTTPHEADER, h->headers);
  if (easy->plain) return CURLE_OK;
  SET(CURLOPT_FOLLOWLOCATION, h->follow ? 1L : 0L);
  SET(CURLOPT_MAXREDIRS, h->max_redirects);
  SET(CURLOPT_CONNECTTIMEOUT_MS,
      h->connect_timeout == MLI_HTTP_NO_TIMEOUT ? (long)INT32_MAX : limit(h->connect_timeout));
  if (!h->compressed) SET(CURLOPT_ACCEPT_ENCODING, NULL);
  CURLcode code = set_method(easy, h);
  if (code == CURLE_OK) code = set_version(easy, h);
  if (code == CURLE_OK && h->extra) code = mli_http_set_extra(easy);
  if (code == CURLE_OK && h->exchange) code = set_exchange(easy, h);
  return code;
}

/* ---- reading out ---- */

static double seconds(CURL *curl, CURLINFO info) {
  curl_off_t us = 0;
  curl_easy_getinfo(curl, info, &us);
  return (double)us / 1e6;
}

void mli_http_collect(mli_http_easy *easy) {
  mli_http *h = easy->request;
  CURL *curl = easy->curl;
  char *url = NULL;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &h->status);
  curl_easy_getinfo(curl, CURLINFO_HTTP_VERSION, &h->protocol);
  curl_easy_getinfo(curl, CURLINFO_REDIRECT_COUNT, &h->redirects);
  if (h->redirects > 0) curl_easy_getinfo(curl, CURLINFO_EFFECTIVE_URL, &url);
  if (url) url = mli_http_text(h, url, strlen(url));
  h->final = url ? url : h->url;
  h->times.resolve = seconds(curl, CURLINFO_NAMELOOKUP_TIME_T);
  h->times.connect = seconds(curl, CURLINFO_CONNECT_TIME_T);
  h->times.tls = seconds(curl, CURLINFO_APPCONNECT_TIME_T);
  h->times.first_byte = seconds(curl, CURLINFO_STARTTRANSFER_TIME_T);
  h->times.total = (double)(mli_time() - h->started) / 1e9;
}

void mli_http_collect_progress(mli_http_easy *easy) {
  mli_http *h = easy->request;
  CURL *curl = easy->curl;
  curl_off_t sent = 0, size = (curl_off_t)h->body_size;
  curl_easy_getinfo(curl, CURLINFO_HTTP_CONNECTCODE, &h->connect_code);
  curl_easy_getinfo(curl, CURLINFO_SIZE_UPLOAD_T, &sent);
  if (h->uploads) size = h->exchange->length < 0 ? INT64_MAX : h->exchange->length;
  h->dialed = easy->socket != NULL;
  h->ready = h->connected;
  h->sent = sent >= size;
}
