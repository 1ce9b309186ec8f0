/*
** Tests of what WebSocket frames mean: the same messages come of the same bytes
** however they are cut, and mutated bytes neither crash it nor break its limits.
** MOONLOOP_SEED gives the mutations another seed.
*/
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include "check.h"
#include "http/frames.h"
#include "http/handshake.h"

/* ---- what comes of bytes, as text ---- */

typedef struct said {
  char text[4096];
  size_t size;
} said;

static void say(said *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(said *s, const char *format, ...) {
  va_list args;
  va_start(args, format);
  int n = vsnprintf(s->text + s->size, sizeof s->text - s->size, format, args);
  va_end(args);
  s->size += (size_t)n < sizeof s->text - s->size ? (size_t)n : sizeof s->text - s->size - 1;
}

static unsigned hash_of(const char *bytes, size_t size) {
  unsigned hash = 2166136261u;
  for (size_t i = 0; i < size; i++) hash = (hash ^ (unsigned char)bytes[i]) * 16777619u;
  return hash;
}

/* False: broken, or closed. */
static bool report(mli_frames *f, said *s) {
  for (;;) {
    switch (mli_frames_next(f)) {
    case MLI_WS_NOTHING: return true;
    case MLI_WS_MESSAGE:
      if (f->message.size > f->max_message) say(s, "TOO LARGE ");
      say(s, "message %d %zu %x\n", f->kind, f->message.size,
          hash_of(f->message.bytes, f->message.size));
      break;
    case MLI_WS_PING: say(s, "ping %zu\n", f->control_size); break;
    case MLI_WS_PONG: say(s, "pong %zu\n", f->control_size); break;
    case MLI_WS_CLOSE: say(s, "close %d %zu\n", f->status, f->control_size); return false;
    case MLI_WS_BROKEN: say(s, "broken %d %s\n", f->status, f->why); return false;
    }
  }
}

/* Feeds the bytes in pieces: the first of `first`, then of `piece`. Each piece has memory
** of its own, so that a sanitizer sees a read beyond it. */
static void hear(const char *bytes, size_t size, size_t first, size_t piece, said *s) {
  mli_frames f;
  s->size = 0;
  s->text[0] = 0;
  if (!mli_frames_init(&f, 1000)) abort();
  for (size_t at = 0, n = first; at < size; at += n, n = piece) {
    if (n > size - at) n = size - at;
    char *copy = malloc(n ? n : 1);
    memcpy(copy, bytes + at, n);
    mli_frames_feed(&f, copy, n);
    bool more = report(&f, s);
    free(copy);
    if (!more) break;
  }
  mli_frames_fini(&f);
}

/* ---- frames, as a server sends them ---- */

static size_t put(char *to, uint8_t first, const char *data, size_t size) {
  char *p = to;
  *p++ = (char)first;
  if (size < 126) {
    *p++ = (char)size;
  } else {
    *p++ = 126;
    *p++ = (char)(size >> 8);
    *p++ = (char)size;
  }
  memcpy(p, data, size);
  return (size_t)(p + size - to);
}

static size_t conversation(char *to) {
  char long_text[700];
  memset(long_text, 'x', sizeof long_text);
  char *p = to;
  p += put(p, 0x81,
           "gr\xc3\xbc\xc3\x9f"
           "e",
           7);
  p += put(p, 0x82, "", 0);
  p += put(p, 0x01, "\xe2\x82", 2);
  p += put(p, 0x89, "ping", 4);
  p += put(p, 0x00, "", 0);
  p += put(p, 0x8a, "", 0);
  p += put(p, 0x80, "\xac", 1);
  p += put(p, 0x82, long_text, sizeof long_text);
  p += put(p, 0x02, long_text, 300);
  p += put(p, 0x80, long_text, 700);
  p += put(p, 0x88,
           "\x0f\xa1"
           "bye",
           5);
  return (size_t)(p - to);
}

static void test_cuts(void) {
  char bytes[2048];
  said whole, cut;
  size_t size = conversation(bytes);
  hear(bytes, size, size, size, &whole);
  CHECK(strstr(whole.text, "message 1 7 ") == whole.text);
  CHECK(strstr(whole.text, "message 2 0 ") != NULL);
  CHECK(strstr(whole.text, "ping 4\npong 0\nmessage 1 3 ") != NULL);
  CHECK(strstr(whole.text, "message 2 1000 ") != NULL);
  CHECK(strstr(whole.text, "close 4001 3\n") != NULL);
  unsigned others = 0;
  for (size_t at = 0; at <= size; at++) {
    hear(bytes, size, at, size, &cut);
    if (strcmp(cut.text, whole.text) != 0) others++;
  }
  for (size_t piece = 1; piece < 40; piece++) {
    hear(bytes, size, piece, piece, &cut);
    if (strcmp(cut.text, whole.text) != 0) others++;
  }
  CHECK_EQ(others, 0);
}

/* ---- mutations ---- */

static uint64_t state;

static unsigned random_below(unsigned n) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (unsigned)(state >> 33) % n;
}

static void mutate(char *bytes, size_t *size) {
  for (unsigned n = 1 + random_below(4); n > 0 && *size > 1; n--) {
    size_t at = random_below((unsigned)*size);
    switch (random_below(4)) {
    case 0: bytes[at] = (char)random_below(256); break;
    case 1: bytes[at] ^= (char)(1 << random_below(8)); break;
    case 2:
      memmove(bytes + at, bytes + at + 1, *size - at - 1);
      --*size;
      break;
    default: *size = at + 1; break;
    }
  }
}

static void test_mutations(void) {
  char original[2048], bytes[2048];
  said whole, cut;
  const char *seed = getenv("MOONLOOP_SEED");
  state = seed ? strtoull(seed, NULL, 10) | 1 : 20240229;
  size_t size = conversation(original);
  unsigned others = 0, large = 0;
  for (int i = 0; i < CHECK_ROUNDS(50000); i++) {
    size_t n = size;
    memcpy(bytes, original, n);
    mutate(bytes, &n);
    hear(bytes, n, n, n, &whole);
    hear(bytes, n, random_below((unsigned)n), 1 + random_below(200), &cut);
    if (strcmp(cut.text, whole.text) != 0) others++;
    if (strstr(whole.text, "TOO LARGE")) large++;
  }
  CHECK_EQ(others, 0);
  CHECK_EQ(large, 0);
}

/* ---- writing ---- */

/* A server's frames_recv is wslay's own: what we write, it understands. */
static ssize_t give(uint8_t *to, size_t size, int flags, void *user) {
  mli_buffer *b = user;
  (void)flags;
  if (size > b->size) size = b->size;
  if (size == 0) return -1;
  memcpy(to, b->bytes, size);
  memmove(b->bytes, b->bytes + size, b->size - size);
  b->size -= size;
  return (ssize_t)size;
}

static void test_writing(void) {
  static const size_t sizes[] = { 0, 1, 125, 126, 65535, 65536, 300000 };
  static char data[300000];
  mli_frames f;
  memset(data, 'y', sizeof data);
  CHECK(mli_frames_init(&f, 1000));
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    mli_buffer out = { NULL, 0, 0 };
    CHECK(mli_frames_write(&f, &out, MLI_WS_BINARY, true, data, sizes[i]));
    size_t header = sizes[i] < 126 ? 6 : sizes[i] < 65536 ? 8 : 14;
    CHECK_EQ(out.size, sizes[i] + header);
    struct wslay_frame_callbacks callbacks = { .recv_callback = give };
    wslay_frame_context_ptr server;
    CHECK(wslay_frame_context_init(&server, &callbacks, &out) == 0);
    size_t got = 0, wrong = 0;
    do {
      struct wslay_frame_iocb io = { 0 };
      if (wslay_frame_recv(server, &io) < 0) break;
      if (!io.fin || !io.mask || io.opcode != MLI_WS_BINARY || io.payload_length != sizes[i])
        wrong++;
      for (size_t k = 0; k < io.data_length; k++) wrong += io.data[k] != 'y';
      got += io.data_length;
    } while (got < sizes[i]);
    CHECK_EQ(got, sizes[i]);
    CHECK_EQ(wrong, 0);
    wslay_frame_context_free(server);
    mli_buffer_free(&out);
  }
  mli_frames_fini(&f);
}

/* ---- the rest ---- */

static void test_utf8(void) {
  static const char *const good[] = { "",
                                      "a",
                                      "\xc2\x80",
                                      "\xdf\xbf",
                                      "\xe0\xa0\x80",
                                      "\xed\x9f\xbf",
                                      "\xee\x80\x80",
                                      "\xef\xbf\xbf",
                                      "\xf0\x90\x80\x80",
                                      "\xf4\x8f\xbf\xbf",
                                      "12345678\xc3\xbc" };
  static const char *const bad[] = { "\x80",
                                     "\xc0\x80",
                                     "\xc1\xbf",
                                     "\xc2",
                                     "\xc2\x41",
                                     "\xe0\x9f\xbf",
                                     "\xed\xa0\x80",
                                     "\xe1\x80",
                                     "\xf0\x8f\xbf\xbf",
                                     "\xf4\x90\x80\x80",
                                     "\xf5\x80\x80\x80",
                                     "\xff",
                                     "12345678\xfe" };
  for (size_t i = 0; i < sizeof good / sizeof *good; i++)
    CHECK(mli_utf8_valid(good[i], strlen(good[i])));
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    CHECK(!mli_utf8_valid(bad[i], strlen(bad[i])));
}

/* The example of RFC 6455, section 1.3. */
static void test_accept(void) {
  char accept[MLI_WS_ACCEPT + 1], key[MLI_WS_KEY + 1], other[MLI_WS_KEY + 1];
  CHECK(mli_ws_accept_of("dGhlIHNhbXBsZSBub25jZQ==", accept));
  CHECK(strcmp(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") == 0);
  CHECK(mli_ws_make_key(key) && mli_ws_make_key(other));
  CHECK(strlen(key) == MLI_WS_KEY && strcmp(key, other) != 0);
}

/* Heads cut anywhere, and mutated: nothing is read beyond them. */
static void test_heads(void) {
  static const char head[] =
    "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: a, Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    "Sec-WebSocket-Protocol: b\r\n\r\n";
  const char *accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", *protocol;
  size_t size = sizeof head - 1, scanned = 0, n;
  for (size_t i = 0; i < size; i++) CHECK(mli_ws_find_head(head, i, &scanned) == 0);
  CHECK_EQ(mli_ws_find_head(head, size, &scanned), size);
  CHECK_EQ(mli_ws_status_of(head, size), 101);
  CHECK(mli_ws_check(head, size, accept, "a, b", &protocol, &n) == NULL);
  CHECK(n == 1 && *protocol == 'b');
  CHECK(mli_ws_check(head, size, accept, "a", &protocol, &n) != NULL);
  for (int i = 0; i < CHECK_ROUNDS(20000); i++) {
    char *copy = malloc(size);
    size_t left = size;
    memcpy(copy, head, size);
    mutate(copy, &left);
    char *cut = malloc(left);
    memcpy(cut, copy, left);
    mli_ws_status_of(cut, left);
    mli_ws_check(cut, left, accept, "a, b", &protocol, &n);
    free(cut);
    free(copy);
  }
}

int main(void) {
  test_utf8();
  test_accept();
  test_cuts();
  test_mutations();
  test_writing();
  test_heads();
  return check_report();
}
