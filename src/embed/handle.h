/*
** handle.h: what all objects of moonloop.h begin with, and how calls fail. A handle that
** was let go of is kept for a while where asserts are on, so that its use is seen.
*/
#ifndef MLE_HANDLE_H
#define MLE_HANDLE_H

#include <stdatomic.h>
#include "core/base.h"

typedef enum mle_kind {
  MLE_GONE = 0x6d6c6700,
  MLE_EXECUTOR,
  MLE_FUTURE,
  MLE_OP,
} mle_kind;

typedef struct mle_handle {
  _Atomic mle_kind kind;
  atomic_uint refs;
} mle_handle;

static inline void mle_init(mle_handle *h, mle_kind kind) {
  atomic_init(&h->kind, kind);
  atomic_init(&h->refs, 1);
}

/* True: it is one of these, and alive. Else ML_MISUSE is on record for `function`. */
bool mle_check(const void *handle, mle_kind kind, const char *function);
void mle_retain(void *handle);
/* True: that was the last reference: end what it holds, then mle_free it. */
bool mle_release(void *handle);
void mle_free(void *handle);

/* Records the words and returns the status. */
ml_status mle_fail(ml_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
