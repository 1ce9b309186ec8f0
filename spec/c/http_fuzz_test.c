/*
** Random and mutated texts for the parsers of src/http that are ours: the head of a
** response, URLs in messages, what may be a header. Each text stands in memory of just
** its size, so that a sanitizer sees a byte read too far.
**
** The same every time, unless MOONLOOP_FUZZ_SEED names another seed;
** MOONLOOP_FUZZ_ROUNDS is how many texts for each.
*/
#include <inttypes.h>
#include <stdint.h>
#include <string.h>
#include "check.h"
#include "http/address.h"
#include "http/request.h"

#define MAX_TEXT 2048
#define SECRET "s3cr3t"

static uint64_t state;

/* splitmix64 */
static uint64_t next_random(void) {
  uint64_t z = (state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static size_t below(size_t n) { return (size_t)(next_random() % n); }

static uint64_t setting(const char *name, uint64_t otherwise) {
  const char *text = getenv(name);
  return text ? strtoull(text, NULL, 10) : otherwise;
}

/* ---- texts ---- */

typedef struct text {
  char *bytes; /* of just `size`, or `size` and a NUL */
  size_t size;
} text;

/* What is worth a try in these grammars. */
static const char *const pieces[] = {
  "HTTP/1.1 200 OK\r\n",
  "HTTP/2 204 \r\n",
  "HTTP/1.0 999\n",
  "\r\n",
  "\n",
  "\r",
  ":",
  ": ",
  " ",
  "\t",
  "Content-Length: 5\r\n",
  "Set-Cookie: a=b; Path=/\r\n",
  "X:\r\n",
  ":x\r\n",
  " folded\r\n",
  "\t\r\n",
  "name",
  "NAME",
  "value",
  ",",
  ";",
  "=",
  "\"",
  "\\",
  "http",
  "https",
  "://",
  "//",
  "/",
  "?",
  "#",
  "@",
  "user",
  "me:" SECRET "@",
  "[",
  "]",
  "::1",
  "127.0.0.1",
  ":80",
  ":99999",
  ":x",
  "%",
  "%00",
  "%zz",
  "..",
  "localhost",
  "\x7f",
  "\xc3\xbc",
  "\xff",
  "xn--",
  "file:",
  "a",
  "0",
};

static void append(char *to, size_t *size, const char *bytes, size_t n) {
  if (n > MAX_TEXT - *size) n = MAX_TEXT - *size;
  memcpy(to + *size, bytes, n);
  *size += n;
}

static void mutate(char *bytes, size_t *size) {
  for (size_t n = below(4); n > 0 && *size > 0; n--) {
    size_t at = below(*size), count = 1 + below(*size - at);
    switch (below(4)) {
    case 0: bytes[at] = (char)next_random(); break;
    case 1: bytes[at] = (char)(bytes[at] ^ 1 << below(8)); break;
    case 2: *size = at; break;
    default: memmove(bytes + at, bytes + at + count, *size - at - count); *size -= count;
    }
  }
}

/* `start` and what chance puts behind it, mutated; a string has no NUL but at its end. */
static text make_text(const char *start, bool string) {
  char bytes[MAX_TEXT];
  size_t size = 0;
  append(bytes, &size, start, strlen(start));
  for (size_t n = below(12); n > 0; n--) {
    const char *piece = pieces[below(sizeof pieces / sizeof *pieces)];
    char odd = (char)next_random();
    if (below(8) == 0)
      append(bytes, &size, &odd, 1);
    else
      append(bytes, &size, piece, strlen(piece));
  }
  mutate(bytes, &size);
  for (size_t i = 0; string && i < size; i++)
    if (!bytes[i]) bytes[i] = '0';
  text t = { malloc(size + string), size };
  if (!t.bytes && size + string > 0) abort();
  if (size) memcpy(t.bytes, bytes, size);
  if (string) t.bytes[size] = 0;
  return t;
}

/* ---- the head of a response ---- */

static bool is_inside(const text *t, const char *part, size_t size) {
  return part >= t->bytes && size <= t->size && part <= t->bytes + t->size - size;
}

static bool is_good_field(const text *head, const mli_http_field *f) {
  if (!is_inside(head, f->name, f->name_size) || !is_inside(head, f->value, f->value_size))
    return false;
  if (f->name_size == 0 || memchr(f->name, ':', f->name_size)) return false;
  if (memchr(f->name, '\n', f->name_size) || memchr(f->value, '\n', f->value_size)) return false;
  return f->value_size == 0 || !(strchr(" \t\r", *f->value) && *f->value) ||
         !(strchr(" \t\r", f->value[f->value_size - 1]) && f->value[f->value_size - 1]);
}

/* Every field that is there is found, in order, each also by its name. */
static bool head_is_read_well(const text *head) {
  mli_http_field field, again;
  size_t at = 0, before = 0;
  while (mli_http_next_field(head->bytes, head->size, &at, NULL, 0, &field)) {
    size_t from = before;
    if (at <= before || at > head->size || !is_good_field(head, &field)) return false;
    if (!mli_http_next_field(head->bytes, head->size, &from, field.name, field.name_size, &again) ||
        again.value != field.value || from != at)
      return false;
    before = at;
  }
  return at <= head->size;
}

static bool reason_is_inside(const text *head) {
  size_t size;
  mli_http h = { .head = head->size, .in = { .bytes = head->bytes, .size = head->size } };
  const char *reason = mli_http_reason(&h, &size);
  return size == 0 || (is_inside(head, reason, size) && !memchr(reason, '\n', size));
}

static void fuzz_heads(uint64_t rounds) {
  bool fields = true, reasons = true;
  for (uint64_t i = 0; i < rounds; i++) {
    text head = make_text(below(4) ? "HTTP/1.1 200 OK\r\nServer: x\r\n" : "", false);
    fields = fields && head_is_read_well(&head);
    reasons = reasons && reason_is_inside(&head);
    free(head.bytes);
  }
  CHECK(fields);
  CHECK(reasons);
}

/* ---- URLs ---- */

static bool mask_fits(const text *url, size_t size) {
  char *out = malloc(size);
  if (!out) abort();
  bool good = mli_http_masked(url->bytes, out, size) == out && memchr(out, 0, size) != NULL;
  free(out);
  return good;
}

/* However a URL is broken, what stands before an "@" or behind a "?" is not shown.
** `start` ends where the secret begins. */
static bool hides(const char *start, const char *end) {
  char url[256], out[300];
  snprintf(url, sizeof url, "%s" SECRET "%s", start, end);
  mli_http_masked(url, out, sizeof out);
  bool hidden = !strstr(out, SECRET);
  if (!hidden) printf("shown: %s as %s\n", url, out);
  return hidden;
}

static void fuzz_urls(uint64_t rounds) {
  static const char *const starts[] = { "http://", "https://", "http://h",
                                        "http://me:" SECRET "@h/", "" };
  mli_http_addresses cache = { 0 };
  bool fits = true, sound = true;
  for (uint64_t i = 0; i < rounds; i++) {
    text url = make_text(starts[below(sizeof starts / sizeof *starts)], true);
    fits = fits && mask_fits(&url, 1 + below(64)) && mask_fits(&url, MAX_TEXT * 2);
    const char *why = NULL;
    bool same;
    mli_http_address *address = mli_http_address_get(&cache, url.bytes, &why);
    sound = sound && (address || why) && !(address && why);
    if (address) mli_http_address_release(address);
    why = NULL;
    char *joined = mli_http_join("http://127.0.0.1/a/b", url.bytes, &same, &why);
    sound = sound && (joined || why);
    curl_free(joined);
    free(url.bytes);
  }
  mli_http_addresses_clear(&cache);
  CHECK(fits);
  CHECK(sound);
}

static void test_secrets(void) {
  static const char *const starts[] = {
    "http://me:",    "https://me:", "http://me:a@b:", "me:",           "http:/me:",
    "http:me:",      "//me:",       "http://me:x/",   "http://me:x?y", "http://me:x#",
    "http://[::1]:", "HTTP://u:",   "http://me :",    "http://me:\\"
  };
  static const char *const ends[] = { "@host/",  "@host:80/path", "@host",   "@[::1]/a?b#c",
                                      "@h?x=y",  "@a@b/",         "/@host/", "?@host/",
                                      "#@host/", " @host/" };
  static const char *const hidden[] = {
    "http://h/?",          "http://h?a=b&c=", "http://h/p#",          "http://h#", "h?",
    "http://me@h/?token=", "http://h:80/?",   "h/?u=http://x&token=", "h#http://"
  };
  for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
    for (size_t j = 0; j < sizeof ends / sizeof *ends; j++) CHECK(hides(starts[i], ends[j]));
  for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++) CHECK(hides(hidden[i], "&z=1"));
}

static bool is_shown_as(const char *url, const char *wanted) {
  char out[256];
  return strcmp(mli_http_masked(url, out, sizeof out), wanted) == 0;
}

static void test_shown(void) {
  CHECK(is_shown_as("http://host/path", "http://host/path"));
  CHECK(is_shown_as("http://host:8080/a/b?c#d", "http://host:8080/a/b"));
  CHECK(is_shown_as("http://[::1]:80/", "http://[::1]:80/"));
  CHECK(is_shown_as("http://me:pw@host/", "http://host/"));
  CHECK(is_shown_as("http://host/@scope/package@1.0", "http://host/@scope/package@1.0"));
  CHECK(is_shown_as("https://\xc3\xbc.test/", "https://\xc3\xbc.test/"));
  CHECK(is_shown_as("host", "host"));
  CHECK(is_shown_as("", ""));
  CHECK(is_shown_as("http://me:a/b@host/", "http://***"));
  CHECK(is_shown_as("http:/me:pw@host/", "***"));
  CHECK(is_shown_as("http://a\r\nb/", "http://a??b/"));
}

/* ---- headers of a request ---- */

static void fuzz_headers(uint64_t rounds) {
  bool tokens = true, values = true;
  for (uint64_t i = 0; i < rounds; i++) {
    text t = make_text("", false);
    bool token = mli_http_is_token(t.bytes, t.size), value = mli_http_is_value(t.bytes, t.size);
    for (size_t k = 0; k < t.size; k++) {
      unsigned char c = (unsigned char)t.bytes[k];
      if (token && (c <= ' ' || c >= 0x7f || strchr("\"(),/:;<=>?@[\\]{}", c))) tokens = false;
      if (value && (c == '\r' || c == '\n' || c == 0)) values = false;
    }
    if (token && (!value || t.size == 0)) tokens = false;
    free(t.bytes);
  }
  CHECK(tokens);
  CHECK(values);
}

int main(void) {
  uint64_t rounds = setting("MOONLOOP_FUZZ_ROUNDS", CHECK_ROUNDS(20000));
  state = setting("MOONLOOP_FUZZ_SEED", 1);
  printf("seed %" PRIu64 ", %" PRIu64 " rounds\n", state, rounds);
  fuzz_heads(rounds);
  fuzz_urls(rounds);
  fuzz_headers(rounds);
  test_secrets();
  test_shown();
  return check_report();
}
