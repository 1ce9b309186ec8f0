/* budget.c: states whose memory is counted, limited, or the host's. */
#include <stdlib.h>
#include "host.h"
#include "slab.h"
#include "state.h"

typedef struct budget {
  const lml_host *host; /* of the executor, which outlives its states */
  lml_slab *slab;       /* NULL: the host's allocator */
  size_t used;
} budget;

/* Lua takes for granted that giving back works: a limit is for what grows. */
static void *budget_alloc(void *ud, void *block, size_t old_size, size_t size) {
  budget *b = ud;
  size_t old = block ? old_size : 0; /* without a block it is the kind of object */
  size_t limit = b->host->memory_limit;
  if (limit && size > old && (b->used > limit || size - old > limit - b->used)) return NULL;
  void *p = b->slab ? lml_slab_alloc(b->slab, block, old_size, size)
                    : b->host->alloc(b->host->user, block, old, size);
  if (p || size == 0) b->used += size - old;
  return p;
}

lua_State *lml_budget_state(const lml_host *host) {
  budget *b = calloc(1, sizeof *b);
  if (!b) return NULL;
  b->host = host;
  lua_State *L = NULL;
  if (host->alloc || (b->slab = lml_slab_new())) L = lua_newstate(budget_alloc, b);
  if (L) return L;
  if (b->slab) lml_slab_free(b->slab);
  free(b);
  return NULL;
}

bool lml_budget_close(lua_State *L) {
  void *ud;
  if (lua_getallocf(L, &ud) != budget_alloc) return false;
  budget *b = ud;
  lua_close(L);
  if (b->slab) lml_slab_free(b->slab);
  free(b);
  return true;
}
