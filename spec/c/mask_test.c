/*
** Tests of what hides secrets in texts, and of the reader of Set-Cookie: by
** example, and with bytes at random, in memory of exactly their size so that a
** sanitizer sees a step beyond. MOONLOOP_FUZZ_SEED names other bytes.
*/
#include <string.h>
#include "check.h"
#include "http/mask.h"
#include "http/set_cookie.h"

typedef bool mask(mli_buffer *out, const char *text, size_t size);

static bool becomes(mask *f, const char *text, const char *wanted) {
  mli_buffer out = { NULL, 0, 0 };
  bool ok = f(&out, text, strlen(text)) && out.size == strlen(wanted) &&
            memcmp(out.bytes, wanted, out.size) == 0;
  if (!ok) printf("%s: %.*s\n", text, (int)out.size, out.bytes);
  mli_buffer_free(&out);
  return ok;
}

static void test_texts(void) {
  static const char *const pairs[][2] = {
    { "nothing in here", "nothing in here" },
    { "http://me:pw@host/path", "http://me:***@host/path" },
    { "to 'https://me:p@w@host'.", "to 'https://me:***@host'." },
    { "http://me@host/a@b", "http://me@host/a@b" },
    { "http://host/a:b@c", "http://host/a:b@c" },
    { "/p?token=x&a=b&API_KEY=y#f", "/p?token=***&a=b&API_KEY=***#f" },
    { "/p?a=token&token", "/p?a=token&token" },
    { "/p?token=", "/p?token=***" },
    { "password=x&user=y", "password=***&user=y" },
    { "/p?monkey=1&key=2", "/p?monkey=1&key=***" },
    { "http://a:b@c http://d:e@f", "http://a:***@c http://d:***@f" },
  };
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
    CHECK(becomes(mli_mask_text, pairs[i][0], pairs[i][1]));
}

static void test_lines(void) {
  static const char *const pairs[][2] = {
    { "GET http://me:pw@h/?sig=1 HTTP/1.1\r\n", "GET http://me:***@h/?sig=*** HTTP/1.1\r\n" },
    { "Authorization: Basic bWU6cHc=\r\n", "Authorization: Basic ***\r\n" },
    { "authorization:token", "authorization:***" },
    { "Proxy-Authorization: Digest a=\"b\", c=d\r\n", "Proxy-Authorization: Digest ***\r\n" },
    { "Cookie: a=1; b=\"2;3\"; c\r\n", "Cookie: a=***; b=***;***;***\r\n" },
    { "Set-Cookie: sid=x; Path=/; HttpOnly\n", "Set-Cookie: sid=***; Path=/; HttpOnly\n" },
    { "X-Auth-Token: x\r\n", "X-Auth-Token: ***\r\n" },
    { "Content-Length: 42\r\n", "Content-Length: 42\r\n" },
    { "Location: /in?code=abc\r\n", "Location: /in?code=***\r\n" },
    { "\r\n", "\r\n" },
  };
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
    CHECK(becomes(mli_mask_line, pairs[i][0], pairs[i][1]));
}

static bool span_is(const mli_http_span *s, const char *wanted) {
  if (!wanted) return !s->text;
  return s->text && s->size == strlen(wanted) && memcmp(s->text, wanted, s->size) == 0;
}

static void test_cookies(void) {
  mli_http_set_cookie c;
  static const char text[] =
    " a b = c=d ; secure; Domain=.x.y ; path=z; Path=/p; Max-Age=-5;"
    "max-age=5x; Expires=Thu, 01 Jan 1970 00:01:00 GMT; expires=never; =;;";
  CHECK(mli_http_set_cookie_read(text, strlen(text), &c));
  CHECK(span_is(&c.name, "a b") && span_is(&c.value, "c=d"));
  CHECK(span_is(&c.domain, "x.y") && span_is(&c.path, "/p") && span_is(&c.same_site, NULL));
  CHECK(c.secure && !c.http_only);
  CHECK(c.has_max_age && c.max_age == -5);
  CHECK(c.has_expires && c.expires == 60);
  CHECK(!mli_http_set_cookie_read("", 0, &c));
  CHECK(!mli_http_set_cookie_read("novalue; Path=/", 15, &c));
  CHECK(!mli_http_set_cookie_read("=x", 2, &c));
  CHECK(mli_http_set_cookie_read("a=;Max-Age=99999999999999999999", 31, &c));
  CHECK(c.value.size == 0 && c.max_age == INT64_MAX);
}

/* ---- at random ---- */

static uint64_t state;

static unsigned any(unsigned n) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (unsigned)(state >> 11) % n;
}

static const char *const words[] = {
  "://",      "@",
  ":",        "?",
  "&",        "=",
  "token",    "password=",
  "a=1",      " ",
  "\r\n",     ";",
  "#",        "'",
  "Cookie: ", "key=",
  "http",     "Set-Cookie:",
  "max-age=", "expires=",
  "path=/",   "\0x",
  "\xff",     "-",
  "9",        "Authorization: Basic ",
};

/* Words in any order, in memory of their size. */
static char *random_text(size_t *size) {
  char text[512];
  *size = 0;
  for (unsigned n = any(24); n > 0; n--) {
    const char *word = words[any(sizeof words / sizeof *words)];
    size_t length = *word ? strlen(word) : 2;
    if (*size + length > sizeof text) break;
    memcpy(text + *size, word, length);
    *size += length;
  }
  char *copy = malloc(*size ? *size : 1);
  if (!copy) abort();
  memcpy(copy, text, *size);
  return copy;
}

static bool inside(const mli_http_span *s, const char *text, size_t size) {
  return !s->text || (s->text >= text && s->text + s->size <= text + size);
}

static void test_random(unsigned rounds) {
  mask *const masks[] = { mli_mask_text, mli_mask_line };
  for (unsigned i = 0; i < rounds; i++) {
    size_t size;
    char *text = random_text(&size);
    mli_http_set_cookie c;
    mli_buffer out = { NULL, 0, 0 };
    if (!masks[i % 2](&out, text, size) || out.size > 4 * size + 8) CHECK(!"masked");
    mli_buffer_free(&out);
    if (mli_http_set_cookie_read(text, size, &c) &&
        (!inside(&c.name, text, size) || !inside(&c.value, text, size) ||
         !inside(&c.domain, text, size) || !inside(&c.path, text, size) ||
         !inside(&c.same_site, text, size)))
      CHECK(!"inside");
    free(text);
  }
}

int main(void) {
  const char *seed = getenv("MOONLOOP_FUZZ_SEED");
  state = seed ? strtoull(seed, NULL, 10) | 1 : 20230501;
  test_texts();
  test_lines();
  test_cookies();
  test_random(CHECK_ROUNDS(200000));
  return check_report();
}
