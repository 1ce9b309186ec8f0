/* handshake.c: the request to become a WebSocket, and the answer. */
#include "handshake.h"

#include <curl/curl.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "address.h"
#include "extra.h"

/* ---- addresses ---- */

static bool has_prefix(const char *text, const char *prefix) {
  return strncasecmp(text, prefix, strlen(prefix)) == 0;
}

const char *mli_ws_http_url(mli_http *h, const char **why) {
  const char *url = h->url;
  bool tls = has_prefix(url, "wss://");
  *why = NULL;
  if (strchr(url, '#')) {
    *why = "the URL of a WebSocket has no fragment";
    return NULL;
  }
  if (has_prefix(url, "http://") || has_prefix(url, "https://")) return url;
  if (!tls && !has_prefix(url, "ws://")) {
    *why = "it must begin with ws:// or wss://";
    return NULL;
  }
  const char *rest = url + (tls ? 3 : 2);
  char *text = mli_http_alloc(h, strlen(rest) + 6);
  if (text) strcpy(stpcpy(text, tls ? "https" : "http"), rest);
  return text;
}

/* ---- the key ---- */

bool mli_ws_make_key(char key[MLI_WS_KEY + 1]) {
  unsigned char bytes[16];
  if (RAND_bytes(bytes, sizeof bytes) != 1) return false;
  EVP_EncodeBlock((unsigned char *)key, bytes, sizeof bytes);
  return true;
}

bool mli_ws_accept_of(const char *key, char accept[MLI_WS_ACCEPT + 1]) {
  static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  char text[MLI_WS_KEY + sizeof guid];
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size;
  memcpy(text, key, MLI_WS_KEY);
  memcpy(text + MLI_WS_KEY, guid, sizeof guid);
  if (EVP_Digest(text, MLI_WS_KEY + sizeof guid - 1, digest, &size, EVP_sha1(), NULL) != 1)
    return false;
  EVP_EncodeBlock((unsigned char *)accept, digest, (int)size);
  return true;
}

/* ---- the request ---- */

static bool put(mli_buffer *out, const char *text) {
  return mli_buffer_append(out, text, strlen(text));
}

/* A part of the address, with `before` in front if it is there; `none` if not. */
static bool put_part(mli_buffer *out, CURLU *url, CURLUPart part, const char *before,
                     const char *none) {
  char *text = NULL;
  CURLUcode code = curl_url_get(url, part, &text, 0);
  if (code == CURLUE_OUT_OF_MEMORY) return false;
  bool ok = code ? put(out, none) : put(out, before) && put(out, text);
  curl_free(text);
  return ok;
}

static bool put_basic(mli_buffer *out, const char *user, const char *password) {
  char *pair = NULL, *code = NULL;
  int size = asprintf(&pair, "%s:%s", user, password);
  if (size < 0) return false;
  code = malloc((size_t)size / 3 * 4 + 8);
  if (code) EVP_EncodeBlock((unsigned char *)code, (unsigned char *)pair, size);
  bool ok = code && put(out, "Authorization: Basic ") && put(out, code) && put(out, "\r\n");
  free(code);
  free(pair);
  return ok;
}

/* Who we are: by the options, else by the address. */
static bool put_user(mli_buffer *out, const mli_http *h) {
  const mli_http_extra *x = h->extra;
  char *user = NULL, *password = NULL;
  bool ok = true;
  if (x && x->auth == MLI_HTTP_BASIC) return put_basic(out, x->user, x->password);
  if (x && x->auth == MLI_HTTP_BEARER)
    return put(out, "Authorization: Bearer ") && put(out, x->token) && put(out, "\r\n");
  if (curl_url_get(h->address->url, CURLUPART_USER, &user, CURLU_URLDECODE)) return true;
  if (curl_url_get(h->address->url, CURLUPART_PASSWORD, &password, CURLU_URLDECODE))
    password = NULL;
  ok = put_basic(out, user, password ? password : "");
  curl_free(user);
  curl_free(password);
  return ok;
}

/* The headers of the program. libcurl's own ways of writing: "Name;" has no
** value, "Name:" is none. */
static bool put_headers(mli_buffer *out, const mli_http *h) {
  for (const struct curl_slist *node = h->headers; node; node = node->next) {
    size_t size = strlen(node->data);
    const char *colon = strchr(node->data, ':');
    if (colon == node->data + size - 1) continue;
    if (!colon) {
      if (!mli_buffer_append(out, node->data, size - 1) || !put(out, ":\r\n")) return false;
    } else if (!mli_buffer_append(out, node->data, size) || !put(out, "\r\n")) {
      return false;
    }
  }
  return true;
}

static bool put_line(mli_buffer *out, const char *name, const char *value) {
  return put(out, name) && put(out, ": ") && put(out, value) && put(out, "\r\n");
}

bool mli_ws_write_request(const mli_http *h, const char *key, const char *protocols,
                          mli_buffer *out) {
  CURLU *url = h->address->url;
  bool ok = put(out, "GET ") && put_part(out, url, CURLUPART_PATH, "", "/") &&
            put_part(out, url, CURLUPART_QUERY, "?", "") && put(out, " HTTP/1.1\r\n");
  if (ok && !mli_http_header(h, "Host"))
    ok = put(out, "Host: ") && put_part(out, url, CURLUPART_HOST, "", "") &&
         put_part(out, url, CURLUPART_PORT, ":", "") && put(out, "\r\n");
  ok = ok && put_line(out, "Upgrade", "websocket") && put_line(out, "Connection", "Upgrade") &&
       put_line(out, "Sec-WebSocket-Key", key) && put_line(out, "Sec-WebSocket-Version", "13");
  if (ok && protocols) ok = put_line(out, "Sec-WebSocket-Protocol", protocols);
  if (ok && !mli_http_header(h, "User-Agent"))
    ok = put_line(out, "User-Agent", "moonloop/" ML_VERSION);
  if (ok && !mli_http_header(h, "Authorization")) ok = put_user(out, h);
  return ok && put_headers(out, h) && put(out, "\r\n");
}

/* ---- the answer ---- */

size_t mli_ws_find_head(const char *bytes, size_t size, size_t *scanned) {
  size_t from = *scanned > 3 ? *scanned - 3 : 0;
  const char *end = memmem(bytes + from, size - from, "\r\n\r\n", 4);
  *scanned = size;
  return end ? (size_t)(end - bytes) + 4 : 0;
}

long mli_ws_status_of(const char *head, size_t size) {
  long status = 0;
  if (size < 13 || memcmp(head, "HTTP/1.1 ", 9) != 0) return 0;
  for (int i = 9; i < 12; i++) {
    if (head[i] < '0' || head[i] > '9') return 0;
    status = status * 10 + (head[i] - '0');
  }
  return head[12] == ' ' || head[12] == '\r' ? status : 0;
}

static bool next(const char *head, size_t size, size_t *at, const char *name,
                 mli_http_field *field) {
  return mli_http_next_field(head, size, at, name, strlen(name), field);
}

/* Whether a list with commas has the word; any case if `fold`. */
static bool has_word(const char *list, size_t size, const char *word, size_t word_size, bool fold) {
  for (const char *p = list, *end = list + size; p < end;) {
    const char *comma = memchr(p, ',', (size_t)(end - p)), *stop = comma ? comma : end;
    const char *next_item = comma ? comma + 1 : end;
    while (p < stop && (*p == ' ' || *p == '\t')) p++;
    while (stop > p && (stop[-1] == ' ' || stop[-1] == '\t')) stop--;
    if ((size_t)(stop - p) == word_size &&
        (fold ? strncasecmp(p, word, word_size) : memcmp(p, word, word_size)) == 0)
      return true;
    p = next_item;
  }
  return false;
}

static bool says(const char *head, size_t size, const char *name, const char *word) {
  mli_http_field field;
  for (size_t at = 0; next(head, size, &at, name, &field);)
    if (has_word(field.value, field.value_size, word, strlen(word), true)) return true;
  return false;
}

const char *mli_ws_check(const char *head, size_t size, const char *accept, const char *protocols,
                         const char **protocol, size_t *protocol_size) {
  mli_http_field field;
  size_t at = 0;
  *protocol = NULL;
  *protocol_size = 0;
  if (!says(head, size, "Upgrade", "websocket")) return "the answer has no 'Upgrade: websocket'";
  if (!says(head, size, "Connection", "upgrade")) return "the answer has no 'Connection: Upgrade'";
  if (!next(head, size, &at, "Sec-WebSocket-Accept", &field))
    return "the answer has no Sec-WebSocket-Accept";
  if (field.value_size != MLI_WS_ACCEPT || memcmp(field.value, accept, MLI_WS_ACCEPT) != 0)
    return "the answer's Sec-WebSocket-Accept is not for this request";
  if (next(head, size, &at, "Sec-WebSocket-Accept", &field))
    return "the answer has more than one Sec-WebSocket-Accept";
  at = 0;
  if (next(head, size, &at, "Sec-WebSocket-Extensions", &field) && field.value_size > 0)
    return "the server chose an extension that was not offered";
  at = 0;
  if (!next(head, size, &at, "Sec-WebSocket-Protocol", &field)) return NULL;
  if (!protocols || !has_word(protocols, strlen(protocols), field.value, field.value_size, false))
    return "the server chose a protocol that was not offered";
  *protocol = field.value;
  *protocol_size = field.value_size;
  if (next(head, size, &at, "Sec-WebSocket-Protocol", &field))
    return "the server chose more than one protocol";
  return NULL;
}
