/* set_cookie.c: see set_cookie.h. */
#include "set_cookie.h"

#include <curl/curl.h>
#include <string.h>
#include <strings.h>

static mli_http_span trimmed(const char *from, const char *to) {
  while (from < to && (*from == ' ' || *from == '\t')) from++;
  while (to > from && (to[-1] == ' ' || to[-1] == '\t')) to--;
  return (mli_http_span){ from, (size_t)(to - from) };
}

static bool is(const mli_http_span *s, const char *name) {
  return s->size == strlen(name) && strncasecmp(s->text, name, s->size) == 0;
}

/* False: it is no number. One that is too large is the largest. */
static bool read_number(const mli_http_span *s, int64_t *n) {
  bool negative = s->size && *s->text == '-';
  *n = 0;
  if (s->size == negative) return false;
  for (size_t i = negative; i < s->size; i++) {
    if (s->text[i] < '0' || s->text[i] > '9') return false;
    int digit = s->text[i] - '0';
    *n = *n > (INT64_MAX - digit) / 10 ? INT64_MAX : *n * 10 + digit;
  }
  if (negative) *n = -*n;
  return true;
}

static bool read_date(const mli_http_span *s, int64_t *when) {
  char text[64];
  if (s->size == 0 || s->size >= sizeof text) return false;
  memcpy(text, s->text, s->size);
  text[s->size] = 0;
  time_t t = curl_getdate(text, NULL);
  if (t == -1) return false;
  *when = t;
  return true;
}

static void read_attribute(const char *from, const char *to, mli_http_set_cookie *c) {
  const char *equals = memchr(from, '=', (size_t)(to - from));
  mli_http_span name = trimmed(from, equals ? equals : to);
  mli_http_span value = equals ? trimmed(equals + 1, to) : (mli_http_span){ to, 0 };
  if (is(&name, "expires")) {
    c->has_expires = read_date(&value, &c->expires) || c->has_expires;
  } else if (is(&name, "max-age")) {
    int64_t n;
    if (!read_number(&value, &n)) return;
    c->max_age = n;
    c->has_max_age = true;
  } else if (is(&name, "domain") && value.size) {
    bool dot = *value.text == '.';
    c->domain = (mli_http_span){ value.text + dot, value.size - dot };
  } else if (is(&name, "path")) {
    bool absolute = value.size && *value.text == '/';
    c->path = absolute ? value : (mli_http_span){ NULL, 0 };
  } else if (is(&name, "secure")) {
    c->secure = true;
  } else if (is(&name, "httponly")) {
    c->http_only = true;
  } else if (is(&name, "samesite")) {
    c->same_site = value;
  }
}

bool mli_http_set_cookie_read(const char *text, size_t size, mli_http_set_cookie *c) {
  const char *end = text + size;
  const char *stop = memchr(text, ';', size);
  if (!stop) stop = end;
  memset(c, 0, sizeof *c);
  const char *equals = memchr(text, '=', (size_t)(stop - text));
  if (!equals) return false;
  c->name = trimmed(text, equals);
  c->value = trimmed(equals + 1, stop);
  while (stop < end) {
    const char *from = stop + 1;
    stop = memchr(from, ';', (size_t)(end - from));
    if (!stop) stop = end;
    read_attribute(from, stop, c);
  }
  return c->name.size > 0;
}
