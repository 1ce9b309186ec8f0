/*
** elsewhere.h: whether what a loop waits for comes from elsewhere.
*/
#ifndef MLI_ELSEWHERE_H
#define MLI_ELSEWHERE_H

#include "loop.h"

typedef enum mli_elsewhere {
  MLI_HERE,     /* all of it comes from this process: of sockets, both ends are here */
  MLI_ON_WAY,   /* likewise, but something that was sent has not come yet */
  MLI_ELSEWHERE /* files, pipes, children, sockets to others */
} mli_elsewhere;

/* The loop's thread. Handles that are not referenced (uv_unref) are waited for by nobody,
** and who listens waits for nobody in particular. */
mli_elsewhere mli_loop_waits_elsewhere(mli_loop *loop);

#endif
