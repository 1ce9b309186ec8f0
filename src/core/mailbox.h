/*
** mailbox.h: messages from any thread to one loop. Senders push without a
** lock; a sender makes a system call only when the loop sleeps.
**
** One word, `head`, carries both the list and the loop's sleep:
**
**   EMPTY --push--> list --push--> list       no wake
**   EMPTY --[mli_mailbox_arm]--> ARMED        the loop is about to sleep
**   ARMED --push--> list                      this pusher wakes the loop
**   ARMED, EMPTY, list --[mli_mailbox_take]--> EMPTY
**   any --[mli_mailbox_close]--> CLOSED       later pushes are refused
**
** M1  A node is delivered exactly once, in the order of its pushes.
** M2  Between two takes at most one push reports that it must wake the loop.
** M3  After close no push succeeds: the pusher still owns its node.
*/
#ifndef MLI_MAILBOX_H
#define MLI_MAILBOX_H

#include <stdatomic.h>
#include "base.h"

typedef struct mli_node mli_node;
typedef struct mli_loop mli_loop;

/* A message: embedded in what is sent, owned by the mailbox from the push to
** the call of `run`, which happens on the loop's thread. */
struct mli_node {
  mli_node *next;
  void (*run)(mli_node *node, mli_loop *loop);
};

typedef struct mli_mailbox {
  _Atomic(mli_node *) head;
} mli_mailbox;

typedef enum mli_pushed { MLI_PUSHED, MLI_PUSHED_WAKE, MLI_PUSH_REFUSED } mli_pushed;

void mli_mailbox_init(mli_mailbox *box);
/* Any thread. MLI_PUSHED_WAKE: the caller must wake the loop. */
mli_pushed mli_mailbox_push(mli_mailbox *box, mli_node *node);
/* The loop's thread: all that came, oldest first. */
mli_node *mli_mailbox_take(mli_mailbox *box);
/* The loop's thread: is there something to take? */
static inline bool mli_mailbox_any(const mli_mailbox *box) {
  return atomic_load_explicit(&box->head, memory_order_relaxed) != NULL;
}
/* The loop's thread, before it sleeps. False: something came, take it. */
bool mli_mailbox_arm(mli_mailbox *box);
/* The loop's thread, at its end: what was left, oldest first. */
mli_node *mli_mailbox_close(mli_mailbox *box);

#endif
