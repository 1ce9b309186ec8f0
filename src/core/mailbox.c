/* mailbox.c: the armed queue. */
#include "mailbox.h"

static mli_node armed_mark, closed_mark;
#define ARMED (&armed_mark)
#define CLOSED (&closed_mark)

void mli_mailbox_init(mli_mailbox *box) { atomic_init(&box->head, NULL); }

mli_pushed mli_mailbox_push(mli_mailbox *box, mli_node *node) {
  mli_node *old = atomic_load_explicit(&box->head, memory_order_relaxed);
  do {
    if (old == CLOSED) return MLI_PUSH_REFUSED;
    node->next = old == ARMED ? NULL : old;
  } while (!atomic_compare_exchange_weak_explicit(&box->head, &old, node, memory_order_acq_rel,
                                                  memory_order_relaxed));
  return old == ARMED ? MLI_PUSHED_WAKE : MLI_PUSHED;
}

/* The list is newest first: turn it round. */
static mli_node *reverse(mli_node *node) {
  mli_node *out = NULL;
  while (node) {
    mli_node *next = node->next;
    node->next = out;
    out = node;
    node = next;
  }
  return out;
}

mli_node *mli_mailbox_take(mli_mailbox *box) {
  mli_node *list = atomic_load_explicit(&box->head, memory_order_relaxed);
  if (!list) return NULL;
  list = atomic_exchange_explicit(&box->head, NULL, memory_order_acquire);
  return list == ARMED ? NULL : reverse(list);
}

bool mli_mailbox_arm(mli_mailbox *box) {
  mli_node *old = NULL;
  return atomic_compare_exchange_strong_explicit(&box->head, &old, ARMED, memory_order_acq_rel,
                                                 memory_order_relaxed) ||
         old == ARMED;
}

mli_node *mli_mailbox_close(mli_mailbox *box) {
  mli_node *list = atomic_exchange_explicit(&box->head, CLOSED, memory_order_acq_rel);
  return list == ARMED || list == CLOSED ? NULL : reverse(list);
}
