/*
** embed.h: what the files of moonloop.h share. An ml_executor and an ml_future are the C
** program's references to the core's, which Lua states may hold as well.
*/
#ifndef MLE_EMBED_H
#define MLE_EMBED_H

#include <stddef.h>
#include "core/driven.h"
#include "handle.h"
#include "lua/crossing.h"
#include "lua/worker.h"
#include "values.h"

/* The size of a struct of the host's that ends with this member. */
#define MLE_SIZE_TO(type, member) (offsetof(type, member) + sizeof((type){ 0 }.member))

typedef struct mle_guest mle_guest;

struct ml_executor {
  mle_handle handle;
  mli_executor *core; /* [I] a reference, and a use that keeps it open */
  mle_guest *guest;   /* [I] a libuv loop of the host's drives it; a reference; or NULL */
};

/* Whether others wait for the calling thread: it runs a loop, or tells of one. */
static inline bool mle_must_not_wait(void) { return mli_loop_self() || mli_watch_is_here(); }

/* Whether the calling thread is the one that drives it. */
bool mle_drives(const mli_executor *core);
/* That thread: steps it until the future is settled; to its end, if it was let go of
** meanwhile. ML_OK or ML_TIMEOUT. */
ml_status mle_drive_until(mli_executor *core, mli_future *f, uint64_t deadline);
/* That thread: shuts it down and steps it until it has ended. ML_OK or ML_TIMEOUT. */
ml_status mle_drive_to_end(mli_executor *core, bool cancel, uint64_t deadline);

/* ---- on a libuv loop of the host's (guest.c): that thread, unless it says otherwise ---- */

/* Has the host's loop drive it until it has ended. */
ml_status mle_guest_new(mle_guest **out, mli_executor *core, struct uv_loop_s *host);
/* It has ended: the handles are closed. Again: nothing. */
void mle_guest_leave(mle_guest *g);
void mle_guest_release(mle_guest *g); /* any thread */

struct ml_future {
  mle_handle handle;
  mli_future *core; /* [I] a reference */
  mli_executor *ex; /* [I] a reference: who settles it, if that is driven; else NULL */
  mli_lock lock;    /* a leaf: what follows */
  ml_values *error; /* [M] the error value, once asked for; then it stays */
  const char *text, *code;
};

/* A new ml_future that takes over a reference of `core`, which that executor settles (NULL:
** not known). NULL: no memory, and the reference was released. */
ml_future *mle_future_wrap(mli_future *core, mli_executor *ex);
/* ML_BUSY, or how the settled future ended. */
ml_status mle_future_status(const mli_future *core);

/* The record of L, where moonloop is opened if need be. ML_MEMORY; ML_MISUSE: Lua's own
** libraries are not all there, or it belongs to another thread. The stack is left as it was. */
ml_status mle_state(lua_State *L, lml_state **out);
/* The error value on top of L, as the words of a failure; pops it. */
ml_status mle_fail_lua(lua_State *L, ml_status status, const char *function);

#endif
