/*
** debug.c: tells what goes on: requests, responses and libcurl's own remarks,
** masked (mask.h), to the standard error if MOONLOOP_HTTP_DEBUG asks for it, and
** to the owner of the exchange if the request does. Bodies are told by their
** sizes. All on the loop, from libcurl's callback.
*/
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "engine.h"
#include "exchange.h"
#include "extra.h"
#include "mask.h"

typedef struct mli_http_debug {
  unsigned number;
  bool failed; /* out of memory: it is silent from then on */
  bool to_stderr;
  mli_buffer head;         /* of the response, masked, as far as it has come */
  mli_buffer text;         /* the text being masked */
  uint64_t sent, received; /* of a body; not told yet */
} mli_http_debug;

static atomic_uint last_number;

/* ---- to the standard error ---- */

/* One write, so that lines of several requests do not mix in the middle. */
static void print(mli_http_debug *d, mli_debug_kind kind, const char *text, size_t size) {
  static const char *const signs[] = { [MLI_DEBUG_INFO] = "*",
                                       [MLI_DEBUG_REQUEST] = ">",
                                       [MLI_DEBUG_RESPONSE] = "<",
                                       [MLI_DEBUG_SENT] = "}",
                                       [MLI_DEBUG_RECEIVED] = "{" };
  char *out = NULL;
  size_t length = 0;
  FILE *file = open_memstream(&out, &length);
  if (!file) return;
  while (size) {
    const char *end = memchr(text, '\n', size);
    size_t line = end ? (size_t)(end - text) : size, next = line + (end != NULL);
    while (line && text[line - 1] == '\r') line--;
    fprintf(file, "[http %u] %s %.*s\n", d->number, signs[kind], (int)line, text);
    text += next;
    size -= next;
  }
  bool complete = fclose(file) == 0;
  /* Nobody is told of a terminal that is gone. */
  if (complete && write(STDERR_FILENO, out, length) < 0) d->to_stderr = false;
  free(out);
}

/* ---- telling ---- */

static void tell(mli_http_easy *easy, mli_debug_kind kind, const char *text, size_t size) {
  mli_http *h = easy->request;
  mli_http_debug *d = h->extra->log;
  if (d->to_stderr) print(d, kind, text, size);
  if (h->extra->debug && h->exchange) mli_exchange_tell(h->exchange, kind, text, size);
}

static void tell_body(mli_http_easy *easy, mli_debug_kind kind, uint64_t *bytes) {
  char text[64];
  if (!*bytes) return;
  int n = snprintf(text, sizeof text, "%llu bytes", (unsigned long long)*bytes);
  *bytes = 0;
  tell(easy, kind, text, (size_t)n);
}

static void tell_bodies(mli_http_easy *easy) {
  mli_http_debug *d = easy->request->extra->log;
  tell_body(easy, MLI_DEBUG_SENT, &d->sent);
  tell_body(easy, MLI_DEBUG_RECEIVED, &d->received);
}

/* Each line of a head, masked. */
static bool mask_head(mli_buffer *out, const char *text, size_t size) {
  while (size) {
    const char *end = memchr(text, '\n', size);
    size_t n = end ? (size_t)(end - text) + 1 : size;
    if (!mli_mask_line(out, text, n)) return false;
    text += n;
    size -= n;
  }
  return true;
}

static bool begins(const char *text, size_t size, const char *with) {
  return size >= strlen(with) && memcmp(text, with, strlen(with)) == 0;
}

/* Remarks that repeat headers, or name cookies. */
static bool is_spoken(const char *text, size_t size) {
  static const char *const silent[] = { "h2h3 [", "h2 [", "[HTTP/", "Added cookie",
                                        "Replaced cookie" };
  for (size_t i = 0; i < sizeof silent / sizeof *silent; i++)
    if (begins(text, size, silent[i])) return false;
  return true;
}

static bool on_text(mli_http_easy *easy, mli_debug_kind kind, const char *text, size_t size) {
  mli_buffer *b = &easy->request->extra->log->text;
  b->size = 0;
  bool ok = kind == MLI_DEBUG_REQUEST ? mask_head(b, text, size) : mli_mask_text(b, text, size);
  while (kind == MLI_DEBUG_INFO && b->size && b->bytes[b->size - 1] == '\n') b->size--;
  if (ok) tell(easy, kind, b->bytes, b->size);
  return ok;
}

/* A line of a head; the last one is empty. */
static bool on_head(mli_http_easy *easy, const char *line, size_t size) {
  mli_buffer *head = &easy->request->extra->log->head;
  if (!mli_mask_line(head, line, size)) return false;
  if (*line != '\r' && *line != '\n') return true;
  tell(easy, MLI_DEBUG_RESPONSE, head->bytes, head->size);
  head->size = 0;
  return true;
}

static int on_debug(CURL *curl, curl_infotype what, char *text, size_t size, void *user) {
  mli_http_easy *easy = user;
  mli_http_debug *d = easy->request && easy->request->extra ? easy->request->extra->log : NULL;
  (void)curl;
  if (!d || d->failed || size == 0) return 0;
  if (what == CURLINFO_DATA_OUT) d->sent += size;
  if (what == CURLINFO_DATA_IN) d->received += size;
  if (what != CURLINFO_TEXT && what != CURLINFO_HEADER_OUT && what != CURLINFO_HEADER_IN) return 0;
  if (what == CURLINFO_TEXT && !is_spoken(text, size)) return 0;
  tell_bodies(easy);
  bool ok = what == CURLINFO_HEADER_IN    ? on_head(easy, text, size)
            : what == CURLINFO_HEADER_OUT ? on_text(easy, MLI_DEBUG_REQUEST, text, size)
                                          : on_text(easy, MLI_DEBUG_INFO, text, size);
  d->failed = !ok;
  return 0;
}

/* ---- beginning and end ---- */

CURLcode mli_http_set_debug(mli_http_easy *easy) {
  mli_http_extra *x = easy->request->extra;
  x->log = calloc(1, sizeof *x->log);
  if (!x->log) return CURLE_OUT_OF_MEMORY;
  x->log->number = atomic_fetch_add_explicit(&last_number, 1, memory_order_relaxed) + 1;
  x->log->to_stderr = mli_http_features_get()->debug;
  CURLcode code = curl_easy_setopt(easy->curl, CURLOPT_DEBUGFUNCTION, on_debug);
  if (code == CURLE_OK) code = curl_easy_setopt(easy->curl, CURLOPT_DEBUGDATA, easy);
  if (code == CURLE_OK) code = curl_easy_setopt(easy->curl, CURLOPT_VERBOSE, 1L);
  return code;
}

void mli_http_end_debug(mli_http_easy *easy) {
  mli_http_extra *x = easy->request->extra;
  if (!x || !x->log) return;
  if (!x->log->failed) tell_bodies(easy);
  mli_buffer_free(&x->log->head);
  mli_buffer_free(&x->log->text);
  free(x->log);
  x->log = NULL;
}
