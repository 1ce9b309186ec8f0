/*
** inbox.h: callbacks that come to a state from other threads.
*/
#ifndef LML_INBOX_H
#define LML_INBOX_H

#include "core/loop.h"
#include "core/park.h"
#include "lml.h"

typedef struct lml_state lml_state;
typedef struct lml_inbox lml_inbox;

typedef struct lml_letter lml_letter;
struct lml_letter {
  lml_letter *next;
  void (*deliver)(lua_State *L, lml_state *S, lml_letter *letter); /* may raise: it is reported */
  void (*drop)(lml_letter *letter); /* frees it: after delivery, or when the state is gone */
  bool tidying;                     /* it only lets go of something: no callback runs */
};

lml_inbox *lml_inbox_new(void);
lml_inbox *lml_inbox_retain(lml_inbox *inbox);
void lml_inbox_release(lml_inbox *inbox);
/* Any thread. Takes over the letter; drops it if the state is gone. */
void lml_inbox_post(lml_inbox *inbox, lml_letter *letter);
/* Any thread: wakes the state, wherever it waits, to look around. */
void lml_inbox_nudge(lml_inbox *inbox);
/* The state's thread. True: a callback ran. */
bool lml_inbox_deliver(lua_State *L, lml_state *S);
void lml_inbox_attach(lml_inbox *inbox, mli_loop *loop); /* NULL: sync again */
void lml_inbox_own(lml_inbox *inbox, lml_state *S);
void lml_inbox_close(lml_inbox *inbox);
mli_parker *lml_inbox_parker(lml_inbox *inbox);
/* Whether anybody but its state may post to it, or has. */
bool lml_inbox_is_known(lml_inbox *inbox);

#endif
