/*
** slab.h: the allocator of loop states. A Lua state makes and frees small
** blocks all the time, on one thread: a free list per size beats malloc, keeps
** coroutines together, and gives large pages a chance.
*/
#ifndef LML_SLAB_H
#define LML_SLAB_H

#include <stddef.h>

typedef struct lml_slab lml_slab;

lml_slab *lml_slab_new(void); /* NULL: out of memory */
/* Frees all: after lua_close. */
void lml_slab_free(lml_slab *slab);
/* A lua_Alloc; `ud` is the slab. */
void *lml_slab_alloc(void *ud, void *block, size_t old_size, size_t size);

#endif
