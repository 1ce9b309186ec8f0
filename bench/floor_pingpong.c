/*
** floor_pingpong: how fast can one thread ask another, that sleeps in epoll,
** and sleep until it answers? Nothing else is done.
**
**   asker:  write(eventfd), futex wait   ->   loop:  epoll_wait, read, futex wake
**
** usage: floor_pingpong [ROUNDTRIPS [CPU,CPU]]           (the asker's CPU, the loop's)
** It is what a submit and its result cost at the least: see submit_wait.lua.
*/
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { WARM_UP = 1000 };

static int event_fd, epoll_fd;
static atomic_uint question, answer;
static int loop_cpu = -1;

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void pin(int cpu) {
  if (cpu < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) die("sched_setaffinity");
}

static uint64_t now(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Answers n questions, each with its square. */
static void *loop(void *arg) {
  size_t n = *(size_t *)arg;
  pin(loop_cpu);
  for (size_t i = 0; i < n; i++) {
    struct epoll_event event;
    uint64_t count;
    while (epoll_wait(epoll_fd, &event, 1, -1) != 1) {
      if (errno != EINTR) die("epoll_wait");
    }
    if (read(event_fd, &count, sizeof count) != sizeof count) die("read");
    unsigned q = atomic_load_explicit(&question, memory_order_relaxed);
    atomic_store_explicit(&answer, q * q, memory_order_release);
    syscall(SYS_futex, &answer, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
  }
  return NULL;
}

static int compare(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 20000;
  int ask_cpu = -1;
  if (n == 0 || (argc > 2 && sscanf(argv[2], "%d,%d", &ask_cpu, &loop_cpu) != 2)) {
    fprintf(stderr, "usage: %s [ROUNDTRIPS [CPU,CPU]]\n", argv[0]);
    return 2;
  }
  uint32_t *times = malloc(n * sizeof *times);
  if (times == NULL) die("malloc");
  if ((event_fd = eventfd(0, EFD_CLOEXEC)) < 0) die("eventfd");
  if ((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0) die("epoll_create1");
  struct epoll_event event = { .events = EPOLLIN };
  if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event_fd, &event) != 0) die("epoll_ctl");
  pthread_t thread;
  size_t total = n + WARM_UP;
  if ((errno = pthread_create(&thread, NULL, loop, &total)) != 0) die("pthread_create");
  pin(ask_cpu);

  uint64_t start = 0;
  for (size_t i = 0; i < total; i++) {
    const uint64_t one = 1;
    unsigned before = atomic_load_explicit(&answer, memory_order_relaxed);
    unsigned q = 2 * (unsigned)i + 3; /* an odd square is never the one before it */
    uint64_t asked = now();
    if (i == WARM_UP) start = asked;
    atomic_store_explicit(&question, q, memory_order_relaxed);
    if (write(event_fd, &one, sizeof one) != sizeof one) die("write");
    while (atomic_load_explicit(&answer, memory_order_acquire) == before) {
      syscall(SYS_futex, &answer, FUTEX_WAIT_PRIVATE, before, NULL, NULL, 0);
    }
    if (i >= WARM_UP) times[i - WARM_UP] = (uint32_t)(now() - asked);
    if (atomic_load_explicit(&answer, memory_order_relaxed) != q * q) {
      fprintf(stderr, "a wrong answer\n");
      return 1;
    }
  }
  uint64_t end = now();
  if ((errno = pthread_join(thread, NULL)) != 0) die("pthread_join");
  qsort(times, n, sizeof *times, compare);
  printf("bench=floor_pingpong n=%zu cpus=%s ops_s=%.0f p50_us=%.2f p99_us=%.2f\n", n,
         argc > 2 ? argv[2] : "any", (double)n * 1e9 / (double)(end - start), times[n / 2] / 1e3,
         times[n * 99 / 100] / 1e3);
  free(times);
  return 0;
}
