/*
** base.h: what every file of the core needs. Time is monotonic and counted in
** nanoseconds; a deadline is absolute; MLI_FOREVER never passes and 0 has
** passed already.
*/
#ifndef MLI_BASE_H
#define MLI_BASE_H

#include <moonloop.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define MLI_FOREVER UINT64_MAX
#define MLI_SECOND UINT64_C(1000000000)
#define MLI_MILLISECOND UINT64_C(1000000)

/* The object of type T whose member M is at P. */
#define mli_container(p, T, m) ((T *)(void *)((char *)(p)-offsetof(T, m)))

#define mli_likely(x) __builtin_expect(!!(x), 1)
#define mli_unlikely(x) __builtin_expect(!!(x), 0)

static inline uint64_t mli_clock(clockid_t clock) {
  struct timespec ts;
  clock_gettime(clock, &ts);
  return (uint64_t)ts.tv_sec * MLI_SECOND + (uint64_t)ts.tv_nsec;
}

static inline uint64_t mli_now(void) { return mli_clock(CLOCK_MONOTONIC); }

/* The same, some milliseconds behind, at a fraction of the cost: for what people read. */
static inline uint64_t mli_now_about(void) {
#ifdef CLOCK_MONOTONIC_COARSE
  return mli_clock(CLOCK_MONOTONIC_COARSE);
#else
  return mli_now();
#endif
}

#endif
