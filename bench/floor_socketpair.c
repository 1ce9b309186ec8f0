/*
** floor_socketpair: how fast can one process ask another over a socket pair, and sleep until
** it answers? The question and the answer are of the same size; nothing else is done.
**
** usage: floor_socketpair [ROUNDTRIPS [BYTES]]
** It is what a ProcessExecutor's submit and its result cost at the least: process_pool.lua.
*/
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WARM_UP = 1000 };

static void die(const char *what) {
  perror(what);
  exit(1);
}

static uint64_t now(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* False: the other side is gone. */
static int move_all(int fd, char *bytes, size_t n, int sending) {
  while (n > 0) {
    ssize_t r = sending ? write(fd, bytes, n) : read(fd, bytes, n);
    if (r <= 0) return 0;
    bytes += r;
    n -= (size_t)r;
  }
  return 1;
}

static int compare(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 20000;
  size_t size = argc > 2 ? strtoul(argv[2], NULL, 10) : 64;
  int pair[2];
  if (n == 0 || size < sizeof n) {
    fprintf(stderr, "usage: %s [ROUNDTRIPS [BYTES]]\n", argv[0]);
    return 2;
  }
  uint32_t *times = malloc(n * sizeof *times);
  char *bytes = calloc(1, size);
  if (!times || !bytes) die("malloc");
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) die("socketpair");
  pid_t child = fork();
  if (child < 0) die("fork");
  if (child == 0) {
    close(pair[0]);
    while (move_all(pair[1], bytes, size, 0) && move_all(pair[1], bytes, size, 1)) continue;
    _exit(0);
  }
  close(pair[1]);
  uint64_t start = 0;
  for (size_t i = 0; i < n + WARM_UP; i++) {
    uint64_t asked = now();
    if (i == WARM_UP) start = asked;
    memcpy(bytes, &i, sizeof i);
    if (!move_all(pair[0], bytes, size, 1)) die("write");
    if (!move_all(pair[0], bytes, size, 0)) die("read");
    if (memcmp(bytes, &i, sizeof i) != 0) {
      fprintf(stderr, "a wrong answer\n");
      return 1;
    }
    if (i >= WARM_UP) times[i - WARM_UP] = (uint32_t)(now() - asked);
  }
  uint64_t end = now();
  close(pair[0]);
  waitpid(child, NULL, 0);
  qsort(times, n, sizeof *times, compare);
  double seconds = (double)(end - start) / 1e9;
  printf("bench=floor_socketpair n=%zu bytes=%zu ops_s=%.0f p50_us=%.2f p99_us=%.2f gb_s=%.2f\n", n,
         size, (double)n / seconds, times[n / 2] / 1e3, times[n * 99 / 100] / 1e3,
         2.0 * (double)n * (double)size / seconds / 1e9);
  free(times);
  free(bytes);
  return 0;
}
