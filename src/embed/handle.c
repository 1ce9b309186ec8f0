/* handle.c: checking, counting and freeing handles; what went wrong last. */
#include "handle.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "core/park.h"

static _Thread_local char last_error[512];

const char *ml_last_error(void) { return last_error; }

ml_status mle_fail(ml_status status, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(last_error, sizeof last_error, format, args);
  va_end(args);
  return status;
}

unsigned ml_abi(void) { return ML_ABI; }

uint64_t ml_now(void) { return mli_now(); }

uint64_t ml_after_ms(uint64_t milliseconds) {
  uint64_t now = mli_now();
  if (milliseconds >= (UINT64_MAX - now) / MLI_MILLISECOND) return ML_FOREVER;
  return now + milliseconds * MLI_MILLISECOND;
}

bool mle_check(const void *handle, mle_kind kind, const char *function) {
  static const char *const names[] = { "a released object", "an executor", "a future",
                                       "an operation" };
  const char *wanted = names[kind - MLE_GONE];
  if (!handle) {
    mle_fail(ML_MISUSE, "%s: %s expected, got NULL", function, wanted);
    return false;
  }
  const mle_handle *h = handle;
  mle_kind got = atomic_load_explicit(&h->kind, memory_order_relaxed);
  if (mli_likely(got == kind)) return true;
  if (got == MLE_GONE) {
    mle_fail(ML_MISUSE, "%s: %s expected, got one that was released", function, wanted);
    fprintf(stderr, "moonloop: %s\n", last_error);
  } else {
    mle_fail(ML_MISUSE, "%s: %s expected, got something else", function, wanted);
  }
  return false;
}

void mle_retain(void *handle) {
  atomic_fetch_add_explicit(&((mle_handle *)handle)->refs, 1, memory_order_relaxed);
}

bool mle_release(void *handle) {
  mle_handle *h = handle;
  return atomic_fetch_sub_explicit(&h->refs, 1, memory_order_acq_rel) == 1;
}

#ifdef NDEBUG
void mle_free(void *handle) { free(handle); }
#else
/* The latest dead, whose memory is kept: who still uses one finds out. */
#define KEPT 256
static mli_lock lock; /* a leaf */
static void *kept[KEPT];
static unsigned next;

void mle_free(void *handle) {
  atomic_store_explicit(&((mle_handle *)handle)->kind, MLE_GONE, memory_order_relaxed);
  mli_lock_acquire(&lock);
  void *old = kept[next];
  kept[next] = handle;
  next = (next + 1) % KEPT;
  mli_lock_release(&lock);
  free(old);
}
#endif
