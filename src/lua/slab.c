/* slab.c: size classes of 16 bytes up to 1 KiB, in arenas; the rest by malloc. */
#include "slab.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define STEP 16
#define LARGEST 1024
#define CLASSES (LARGEST / STEP)
#define ARENA (2u << 20)
/* A new state fits in: a large page would be cleared whole for it. */
#define FIRST_ARENA (512u << 10)

typedef struct block {
  struct block *next;
} block;

typedef struct arena {
  struct arena *next;
  size_t size;
} arena;

struct lml_slab {
  block *free[CLASSES];
  char *at, *end; /* what is left of the newest arena */
  arena *arenas;
};

/* Under AddressSanitizer each block is an allocation of its own, so that it sees more. */
#if defined(__SANITIZE_ADDRESS__)
#define PLAIN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PLAIN 1
#endif
#endif
#ifndef PLAIN
#define PLAIN 0
#endif

lml_slab *lml_slab_new(void) {
  static lml_slab none;
  return PLAIN ? &none : calloc(1, sizeof(lml_slab));
}

void lml_slab_free(lml_slab *slab) {
  if (PLAIN) return;
  while (slab->arenas) {
    arena *a = slab->arenas;
    slab->arenas = a->next;
    if (a->size == ARENA)
      munmap(a, a->size);
    else
      free(a);
  }
  free(slab);
}

static int add_arena(lml_slab *slab) {
  arena *a;
  size_t size = slab->arenas ? ARENA : FIRST_ARENA;
  if (size == ARENA) {
    a = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (a == MAP_FAILED) return 0;
#ifdef MADV_HUGEPAGE
    madvise(a, size, MADV_HUGEPAGE); /* a wish */
#endif
  } else if (!(a = malloc(size))) {
    return 0;
  }
  /* The rest of the arena before goes to the free lists. */
  while (slab->end - slab->at >= STEP) {
    size_t rest = (size_t)(slab->end - slab->at);
    size_t take = rest < LARGEST ? rest : LARGEST;
    block *b = (block *)(void *)slab->at;
    b->next = slab->free[take / STEP - 1];
    slab->free[take / STEP - 1] = b;
    slab->at += take / STEP * STEP;
  }
  a->next = slab->arenas;
  a->size = size;
  slab->arenas = a;
  slab->at = (char *)a + STEP;
  slab->end = (char *)a + size;
  return 1;
}

static void *take(lml_slab *slab, size_t size) {
  size_t class = (size - 1) / STEP;
  block *b = slab->free[class];
  if (b) {
    slab->free[class] = b->next;
    return b;
  }
  size = (class + 1) * STEP;
  if ((size_t)(slab->end - slab->at) < size && !add_arena(slab)) return NULL;
  void *fresh = slab->at;
  slab->at += size;
  return fresh;
}

static void give(lml_slab *slab, void *p, size_t size) {
  block *b = p;
  size_t class = (size - 1) / STEP;
  b->next = slab->free[class];
  slab->free[class] = b;
}

void *lml_slab_alloc(void *ud, void *old, size_t old_size, size_t size) {
  lml_slab *slab = ud;
  if (PLAIN) {
    if (size > 0) return realloc(old, size);
    free(old);
    return NULL;
  }
  if (!old) old_size = 0; /* then it is the kind of object */
  if (size == 0) {
    if (old_size > LARGEST)
      free(old);
    else if (old_size > 0)
      give(slab, old, old_size);
    return NULL;
  }
  if (old_size == 0) return size > LARGEST ? malloc(size) : take(slab, size);
  if (old_size > LARGEST && size > LARGEST) return realloc(old, size);
  if (old_size <= LARGEST && size <= LARGEST && (old_size - 1) / STEP == (size - 1) / STEP)
    return old;
  void *fresh = size > LARGEST ? malloc(size) : take(slab, size);
  if (!fresh) return NULL;
  memcpy(fresh, old, old_size < size ? old_size : size);
  if (old_size > LARGEST)
    free(old);
  else
    give(slab, old, old_size);
  return fresh;
}
