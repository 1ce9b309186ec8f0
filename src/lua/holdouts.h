/* holdouts.h: what keeps an executor from ending, in words, where no Lua state can list it. */
#ifndef LML_HOLDOUTS_H
#define LML_HOLDOUTS_H

#include "core/executor.h"

/* The jobs of an executor, each begun with `separator` (static), as many as there is room
** for: their names, and where they are. Waits so long at most for its threads to say so.
** Thread: any but the executor's own, except for the one that drives it. */
void lml_holdouts(mli_executor *ex, const char *separator, unsigned wait_ms, char *text,
                  size_t size);

#endif
