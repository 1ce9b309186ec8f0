/* mask.c: see mask.h. In doubt something is masked that is no secret. */
#include "mask.h"

#include <string.h>
#include <strings.h>

static bool add(mli_buffer *out, const char *text, size_t size) {
  return size == 0 || mli_buffer_append(out, text, size);
}

static bool add_stars(mli_buffer *out) { return add(out, "***", 3); }

/* ---- names ---- */

static bool contains(const char *text, size_t size, const char *part) {
  size_t n = strlen(part);
  for (size_t i = 0; i + n <= size; i++)
    if (strncasecmp(text + i, part, n) == 0) return true;
  return false;
}

bool mli_mask_is_secret(const char *name, size_t size) {
  static const char *const whole[] = { "key", "sig", "code", "auth", "sid", "otp",
                                       "jwt", "pin", "pass", "pwd",  "pw" };
  static const char *const parts[] = { "token",      "secret",    "passw",     "passphrase",
                                       "apikey",     "api_key",   "api-key",   "access_key",
                                       "access-key", "accesskey", "signature", "session",
                                       "credential", "private",   "authoriz" };
  for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
    if (size == strlen(whole[i]) && strncasecmp(name, whole[i], size) == 0) return true;
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    if (contains(name, size, parts[i])) return true;
  return false;
}

/* ---- texts ---- */

static bool is_end(char c) { return c == 0 || strchr(" \t\r\n'\"<>", c) != NULL; }

/* "user:password@" at the start: what it masks of it, as a size; 0: it is none. */
static size_t userinfo(const char *text, size_t size) {
  size_t at = 0, last = 0;
  for (; at < size && !is_end(text[at]) && !strchr("/?#", text[at]); at++)
    if (text[at] == '@') last = at + 1;
  return last;
}

static bool add_userinfo(mli_buffer *out, const char *text, size_t size) {
  const char *colon = memchr(text, ':', size - 1);
  if (!colon) return add(out, text, size);
  return add(out, text, (size_t)(colon - text) + 1) && add_stars(out) && add(out, "@", 1);
}

/* The size of a parameter's name at the start, with "=" behind it; 0: it is none. */
static size_t parameter(const char *text, size_t size) {
  for (size_t i = 0; i < size; i++) {
    if (text[i] == '=') return i;
    if (is_end(text[i]) || strchr("&?#;,/:", text[i])) return 0;
  }
  return 0;
}

static size_t value_size(const char *text, size_t size) {
  size_t i = 0;
  while (i < size && !is_end(text[i]) && text[i] != '&' && text[i] != '#') i++;
  return i;
}

bool mli_mask_text(mli_buffer *out, const char *text, size_t size) {
  size_t at = 0, from = 0; /* what is before `from` is in `out` */
  while (at < size) {
    size_t here = at, n;
    bool starts = here == 0 || strchr("?&", text[here - 1]) || is_end(text[here - 1]);
    bool authority = here >= 3 && memcmp(text + here - 3, "://", 3) == 0;
    if (authority && (n = userinfo(text + here, size - here))) {
      if (!add(out, text + from, here - from) || !add_userinfo(out, text + here, n)) return false;
      from = at = here + n;
    } else if (starts && (n = parameter(text + here, size - here)) &&
               mli_mask_is_secret(text + here, n)) {
      size_t value = here + n + 1;
      if (!add(out, text + from, value - from) || !add_stars(out)) return false;
      from = at = value + value_size(text + value, size - value);
    } else {
      at++;
    }
  }
  return add(out, text + from, size - from);
}

/* ---- heads ---- */

/* "a=1; b=2" with stars for the values: of all, or of the first only. */
static bool add_cookies(mli_buffer *out, const char *text, size_t size, bool all) {
  bool first = true;
  while (size) {
    const char *end = memchr(text, ';', size);
    size_t n = end ? (size_t)(end - text) : size;
    const char *equals = memchr(text, '=', n);
    if ((first || all) && equals) {
      if (!add(out, text, (size_t)(equals - text) + 1) || !add_stars(out)) return false;
    } else if (first || all) {
      if (!add_stars(out)) return false;
    } else if (!add(out, text, n)) {
      return false;
    }
    if (end && !add(out, ";", 1)) return false;
    n += end != NULL;
    text += n;
    size -= n;
    first = false;
  }
  return true;
}

/* "Basic ***": the scheme is no secret. */
static bool add_credentials(mli_buffer *out, const char *text, size_t size) {
  const char *space = memchr(text, ' ', size);
  return add(out, text, space ? (size_t)(space - text) + 1 : 0) && add_stars(out);
}

static bool is(const char *name, size_t size, const char *wanted) {
  return size == strlen(wanted) && strncasecmp(name, wanted, size) == 0;
}

bool mli_mask_line(mli_buffer *out, const char *line, size_t size) {
  const char *colon = memchr(line, ':', size);
  const char *space = memchr(line, ' ', size);
  if (!colon || (space && space < colon)) return mli_mask_text(out, line, size);
  size_t name = (size_t)(colon - line), at = name + 1, end = size;
  while (at < end && (line[at] == ' ' || line[at] == '\t')) at++;
  while (end > at && strchr("\r\n", line[end - 1])) end--;
  const char *value = line + at;
  size_t n = end - at;
  if (!add(out, line, at)) return false;
  bool ok;
  if (is(line, name, "Authorization") || is(line, name, "Proxy-Authorization"))
    ok = add_credentials(out, value, n);
  else if (is(line, name, "Cookie") || is(line, name, "Set-Cookie"))
    ok = add_cookies(out, value, n, is(line, name, "Cookie"));
  else if (mli_mask_is_secret(line, name) || contains(line, name, "cookie"))
    ok = add_stars(out);
  else
    ok = mli_mask_text(out, value, n);
  return ok && add(out, line + end, size - end);
}
