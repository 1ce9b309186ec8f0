/* kept.c: what a C library keeps with a loop, until that ends. */
#include <stdlib.h>
#include "embed.h"

typedef struct kept {
  mli_service service;
  void *value;
  void (*end)(void *value);
} kept;

/* NULL: the calling thread does not run that loop. */
static mli_loop *own(const uv_loop_t *uv, const char *function) {
  mli_loop *loop = mli_loop_self();
  if (loop && &loop->uv == uv) return loop;
  mle_fail(ML_MISUSE, "%s: not on the thread of that loop", function);
  return NULL;
}

static void close_kept(mli_service *service, mli_loop *loop) {
  kept *k = mli_container(service, kept, service);
  (void)loop;
  if (k->end) k->end(k->value);
  free(k);
}

ml_status ml_loop_keep(struct uv_loop_s *uv, const void *key, void *value,
                       void (*end)(void *value)) {
  mli_loop *loop = own(uv, "ml_loop_keep");
  if (!loop) return ML_MISUSE;
  if (!key) return mle_fail(ML_MISUSE, "ml_loop_keep: a key expected, got NULL");
  if (mli_loop_service(loop, key))
    return mle_fail(ML_MISUSE, "ml_loop_keep: the loop has a value with this key");
  kept *k = calloc(1, sizeof *k);
  if (!k) return mle_fail(ML_MEMORY, "ml_loop_keep: out of memory");
  k->service.key = key;
  k->service.close = close_kept;
  k->value = value;
  k->end = end;
  mli_loop_add_service(loop, &k->service);
  return ML_OK;
}

void *ml_loop_kept(struct uv_loop_s *uv, const void *key) {
  mli_loop *loop = own(uv, "ml_loop_kept");
  mli_service *service = loop && key ? mli_loop_service(loop, key) : NULL;
  return service ? mli_container(service, kept, service)->value : NULL;
}
