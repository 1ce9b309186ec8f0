/* request.c: the memory of a request, and reading the head of a response. */
#include "request.h"

#include <assert.h>
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "core/bytes.h"
#include "session.h"

typedef struct mli_http_text {
  struct mli_http_text *next;
  _Alignas(void *) char bytes[];
} text_block;

static void request_destroy(mli_object *object) {
  mli_http *h = mli_container(object, mli_http, op.object);
  assert(!h->easy && !h->address);
  for (text_block *b = h->texts, *next; b; b = next) {
    next = b->next;
    free(b);
  }
  mli_buffer_free(&h->in);
  if (h->session) mli_release(h->session);
  if (h->upgraded) mli_object_release(h->upgraded);
  mli_op_fini(&h->op);
  free(h);
}

static const mli_type request_type = { .name = "http request", .destroy = request_destroy };
extern const mli_op_class mli_http_op_class; /* engine.c */

mli_http *mli_http_new(mli_loop *loop) {
  mli_http *h = malloc(sizeof *h);
  if (!h) return NULL;
  memset(h, 0, offsetof(mli_http, inline_text));
  mli_op_init(&h->op, &request_type, &mli_http_op_class, loop);
  h->method = "GET";
  h->last_header = &h->headers;
  h->last_hop = &h->hops;
  h->timeout = MLI_HTTP_NO_TIMEOUT;
  h->connect_timeout = 30000;
  h->max_redirects = 10;
  h->max_body = MLI_HTTP_UNLIMITED;
  h->follow = h->compressed = true;
  return h;
}

void *mli_http_alloc(mli_http *h, size_t size) {
  size_t align = sizeof(void *);
  size_t rounded = (size + align - 1) & ~(align - 1);
  if (rounded < size) return NULL;
  if (rounded <= sizeof h->inline_text - h->inline_used) {
    void *p = h->inline_text + h->inline_used;
    h->inline_used += rounded;
    return p;
  }
  text_block *block = malloc(sizeof *block + rounded);
  if (!block) return NULL;
  block->next = h->texts;
  h->texts = block;
  return block->bytes;
}

char *mli_http_text(mli_http *h, const char *text, size_t size) {
  char *copy = mli_http_alloc(h, size + 1);
  if (!copy) return NULL;
  memcpy(copy, text, size);
  copy[size] = 0;
  return copy;
}

/* libcurl takes "Name;" for a header without a value, and "Name:" for none. */
bool mli_http_add_header(mli_http *h, const char *name, size_t name_size, const char *value,
                         size_t value_size) {
  struct curl_slist *node = mli_http_alloc(h, sizeof *node);
  char *line = mli_http_alloc(h, name_size + value_size + 3);
  if (!node || !line) return false;
  char *end = line + name_size;
  memcpy(line, name, name_size);
  *end++ = value_size ? ':' : ';';
  if (value_size) {
    *end++ = ' ';
    memcpy(end, value, value_size);
    end += value_size;
  }
  *end = '\0';
  node->data = line;
  node->next = NULL;
  *h->last_header = node;
  h->last_header = &node->next;
  return true;
}

const char *mli_http_header(const mli_http *h, const char *name) {
  size_t size = strlen(name);
  for (const struct curl_slist *node = h->headers; node; node = node->next) {
    if (strncasecmp(node->data, name, size) != 0) continue;
    if (node->data[size] == ';') return "";
    if (node->data[size] == ':') return node->data + size + 2;
  }
  return NULL;
}

bool mli_http_is_token(const char *text, size_t size) {
  for (size_t i = 0; i < size; i++) {
    unsigned char c = (unsigned char)text[i];
    bool letter = (c | 32) >= 'a' && (c | 32) <= 'z';
    if (!letter && !(c >= '0' && c <= '9') && !(c && strchr("!#$%&'*+-.^_`|~", c))) return false;
  }
  return size > 0;
}

bool mli_http_is_value(const char *text, size_t size) {
  for (size_t i = 0; i < size; i++)
    if (text[i] == '\r' || text[i] == '\n' || text[i] == 0) return false;
  return true;
}

const char *mli_http_library(void) { return curl_version_info(CURLVERSION_NOW)->version; }

const char *mli_http_protocol(const mli_http *h) {
  switch (h->protocol) {
  case CURL_HTTP_VERSION_1_0: return "1.0";
  case CURL_HTTP_VERSION_1_1: return "1.1";
  case CURL_HTTP_VERSION_2_0: return "2";
  case CURL_HTTP_VERSION_3: return "3";
  default: return "";
  }
}

const char *mli_http_reason(const mli_http *h, size_t *size) {
  const char *end = h->head ? memchr(h->in.bytes, '\n', h->head) : NULL;
  const char *p = end ? memchr(h->in.bytes, ' ', (size_t)(end - h->in.bytes)) : NULL;
  if (p) p = memchr(p + 1, ' ', (size_t)(end - p - 1));
  *size = 0;
  if (!p) return "";
  p++;
  if (end > p && end[-1] == '\r') end--;
  *size = (size_t)(end - p);
  return p;
}

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

/* The line at `p` as a field; false: it is none. */
static bool read_field(const char *p, const char *end, mli_http_field *field) {
  const char *colon = memchr(p, ':', (size_t)(end - p));
  if (!colon || colon == p) return false;
  const char *stop = end;
  field->name = p;
  field->name_size = (size_t)(colon - p);
  for (p = colon + 1; p < stop && is_blank(*p);) p++;
  while (stop > p && is_blank(stop[-1])) stop--;
  field->value = p;
  field->value_size = (size_t)(stop - p);
  return true;
}

bool mli_http_next_field(const char *head, size_t size, size_t *at, const char *name,
                         size_t name_size, mli_http_field *field) {
  while (*at < size) {
    const char *p = head + *at;
    const char *end = memchr(p, '\n', size - *at);
    if (!end) end = head + size;
    *at = (size_t)(end - head) + (end < head + size);
    if (p == head || !read_field(p, end, field)) continue; /* the first is the status line */
    if (!name || (field->name_size == name_size && strncasecmp(field->name, name, name_size) == 0))
      return true;
  }
  return false;
}

/* Can this be "host" or "host:port"? */
static bool is_authority(const char *p, size_t size) {
  const char *bracket = mli_last_byte(p, ']', size), *from = bracket ? bracket : p;
  const char *colon = memchr(from, ':', size - (size_t)(from - p));
  return !colon || strspn(colon + 1, "0123456789") >= size - (size_t)(colon + 1 - p);
}

/* What follows the scheme, as far as it may be shown. */
static const char *find_shown(const char *host, bool has_scheme, size_t *size) {
  size_t authority = strcspn(host, "/?#");
  const char *at = mli_last_byte(host, '@', authority);
  const char *shown = at ? at + 1 : host;
  authority -= (size_t)(shown - host);
  if (strchr(shown, '@') && !(has_scheme && is_authority(shown, authority))) {
    *size = 3; /* a password with a "/" in it looks so, and much else that is no URL */
    return "***";
  }
  *size = strcspn(shown, "?#");
  return shown;
}

char *mli_http_masked(const char *url, char *out, size_t size) {
  size_t prefix = strcspn(url, ":/?#@"), rest;
  prefix = strncmp(url + prefix, "://", 3) == 0 ? prefix + 3 : 0;
  const char *shown = find_shown(url + prefix, prefix > 0, &rest);
  if (prefix > size - 1) prefix = size - 1;
  if (rest > size - 1 - prefix) rest = size - 1 - prefix;
  memcpy(out, url, prefix);
  memcpy(out + prefix, shown, rest);
  out[prefix + rest] = 0;
  for (char *p = out; *p; p++)
    if ((unsigned char)*p < ' ' || *p == 0x7f) *p = '?';
  return out;
}
