/*
** check.h: checks for the C tests. A test is a function; a failed check says
** where and goes on. `check_report` prints `N passed, N failed`, which is what
** `./dev test` reads, and gives the exit status. Checks work in any thread.
*/
#ifndef CHECK_H
#define CHECK_H

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static atomic_int check_passed, check_failed;

/* Sanitized code is slow: loops that look for races run shorter there. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define CHECK_ROUNDS(n) ((n) / 10)
#else
#define CHECK_ROUNDS(n) (n)
#endif

static inline bool check_that(bool ok, const char *what, const char *file, int line) {
  if (ok) {
    atomic_fetch_add(&check_passed, 1);
  } else {
    atomic_fetch_add(&check_failed, 1);
    printf("%s:%d: failed: %s\n", file, line, what);
  }
  return ok;
}

static inline bool check_same(long long a, long long b, const char *what, const char *file,
                              int line) {
  if (!check_that(a == b, what, file, line)) printf("  left is %lld, right is %lld\n", a, b);
  return a == b;
}

#define CHECK(condition) check_that((condition), #condition, __FILE__, __LINE__)
#define CHECK_EQ(a, b) check_same((long long)(a), (long long)(b), #a " == " #b, __FILE__, __LINE__)

static inline pthread_t check_thread(void *(*body)(void *), void *argument) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, body, argument) != 0) {
    printf("cannot start a thread\n");
    abort();
  }
  return thread;
}

static inline int check_open_files(void) {
  int n = 0;
  DIR *dir = opendir("/proc/self/fd");
  if (!dir) return -1;
  while (readdir(dir)) n++;
  closedir(dir);
  return n;
}

static inline int check_report(void) {
  printf("%d passed, %d failed\n", atomic_load(&check_passed), atomic_load(&check_failed));
  return atomic_load(&check_failed) ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
