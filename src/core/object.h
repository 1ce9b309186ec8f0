/*
** object.h: counted objects. Whatever several threads or states hold at once
** (futures, executors, loops, sockets, primitives) starts with an mli_object
** and is freed by whoever drops the last reference, on that thread.
*/
#ifndef MLI_OBJECT_H
#define MLI_OBJECT_H

#include <stdatomic.h>
#include "base.h"

typedef struct mli_object mli_object;

/* One static instance per type: its address is the type's identity. */
typedef struct mli_type {
  const char *name;              /* for messages: "future" */
  void (*destroy)(mli_object *); /* ends and frees it; any thread, no lock held */
  const struct mli_type *as;     /* it is shown as that type; NULL: as itself */
} mli_type;

struct mli_object {
  const mli_type *type; /* [I] */
  atomic_uint refs;     /* [A] */
};

static inline void mli_object_init(mli_object *o, const mli_type *type) {
  o->type = type;
  atomic_init(&o->refs, 1);
}

static inline void mli_object_retain(mli_object *o) {
  atomic_fetch_add_explicit(&o->refs, 1, memory_order_relaxed);
}

static inline void mli_object_release(mli_object *o) {
  if (atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel) == 1) o->type->destroy(o);
}

#define mli_retain(p) (mli_object_retain(&(p)->object), (p))
#define mli_release(p) mli_object_release(&(p)->object)

#endif
