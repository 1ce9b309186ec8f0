/*
** op.h: an operation that runs on a loop (a transfer, a read, a connect) for
** whoever waits for it: a job on that loop, a job on another, or a thread.
** This is what makes waits colourless: the operation does not know who waits.
**
**   NEW --[mli_op_begin]--> BEGUN --[mli_op_end]--> ENDED, the waker is woken
**
** O1  `start`, `abort` and the end run on the operation's loop only.
** O2  The waker is woken exactly once, after the end, unless detached first.
** O3  A cancel asked from another thread is a message; an end that happens
**     meanwhile waits for it, so that no message refers to a freed operation
**     (each message holds a reference).
** O4  A begun operation always ends: if its loop ends first, with ML_CLOSED.
*/
#ifndef MLI_OP_H
#define MLI_OP_H

#include "loop.h"

typedef struct mli_waker mli_waker;
/* Whoever is to be woken. `wake` runs on any thread and never blocks. */
struct mli_waker {
  void (*wake)(mli_waker *waker);
};

typedef struct mli_op mli_op;

typedef struct mli_op_class {
  const char *name;          /* what a job waits for: "tcp read" */
  void (*start)(mli_op *op); /* on the loop; may end it at once */
  void (*abort)(mli_op *op); /* on the loop, begun and not ended: end it soon */
} mli_op_class;

struct mli_op {
  mli_object object; /* the type of what embeds it; destroy calls mli_op_fini */
  const mli_op_class *class;
  mli_loop *loop;   /* [I] holds a reference */
  mli_waker *waker; /* [L] of the loop once begun */
  mli_node begin_node, cancel_node;
  atomic_bool cancel_asked; /* [A] */
  bool begun, ended;        /* [L] */
  /* The result: written on the loop before the end, read by the waiter after. */
  ml_status status;
  const char *code; /* Lua's err.code when status is not ML_OK; a static string */
  char *message;    /* owned, may be NULL */
};

/* Initializes the base with one reference; takes its own reference of the loop. NULL: one that
** never begins. */
void mli_op_init(mli_op *op, const mli_type *type, const mli_op_class *class, mli_loop *loop);
void mli_op_fini(mli_op *op);

/* Begins it: at once when on its loop, else by message. `waker` is borrowed
** until it is woken. The caller keeps its reference.
** Thread: any. Blocks: no. */
void mli_op_begin(mli_op *op, mli_waker *waker);

/* Asks it to end soon with ML_CANCELLED, once. It may still end otherwise.
** The waker is woken in any case. Thread: any. Blocks: no. */
void mli_op_cancel(mli_op *op);

/* The loop's thread: it has ended. `code` is static; `message` (from malloc, or
** NULL) passes to the operation. */
void mli_op_end(mli_op *op, ml_status status, const char *code, char *message);

/* The same for an error of libuv: negative `uv_errno`, or 0 for ML_OK.
** `what` ("connect to 127.0.0.1:80") begins the message. */
void mli_op_end_uv(mli_op *op, int uv_errno, const char *what);

#endif
