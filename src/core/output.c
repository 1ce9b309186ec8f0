/* output.c: a pipe as lines. */
#include "output.h"

#include <errno.h>
#include <unistd.h>

#define READS 4 /* of one turn: a flood must not keep the loop from its other work */

static void take_lines(mli_bytes *b, mli_line_hook line, void *user) {
  const char *at = (const char *)b->data, *end = at + b->size;
  for (const char *stop; at < end && (stop = memchr(at, '\n', (size_t)(end - at))); at = stop + 1)
    line(user, at, (size_t)(stop - at));
  b->size = (size_t)(end - at);
  if (b->size > 0) memmove(b->data, at, b->size);
}

bool mli_output_read(int fd, mli_bytes *partial, mli_line_hook line, void *user) {
  for (int i = 0; i < READS; i++) {
    char chunk[MLI_LINE_MAX];
    ssize_t n = read(fd, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
    if (n > 0) mli_put(partial, chunk, (size_t)n);
    if (partial->size > 0) take_lines(partial, line, user);
    if (partial->size >= MLI_LINE_MAX || (n <= 0 && partial->size > 0)) {
      line(user, (const char *)partial->data, partial->size);
      partial->size = 0;
    }
    if (n <= 0) return false;
    if ((size_t)n < sizeof chunk) return true;
  }
  return true;
}
