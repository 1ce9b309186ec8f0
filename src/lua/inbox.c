/*
** inbox.c: letters from any thread to a state: callbacks that must run in it.
** A state with a loop reads them on the loop, at once; a sync state when it
** waits or polls.
*/
#include <stdlib.h>
#include "core/observe.h"
#include "state.h"

struct lml_inbox {
  mli_object object;
  mli_lock lock; /* a leaf: what follows */
  lml_letter *first, **last;
  bool closed;
  bool posted;    /* `node` is on its way */
  mli_loop *loop; /* the state's loop, while one runs; holds a reference */
  mli_node node;
  mli_parker *parker; /* [I] */
  lml_state *S;       /* for the loop's thread */
};

static void inbox_destroy(mli_object *object) {
  lml_inbox *inbox = mli_container(object, lml_inbox, object);
  mli_parker_put(inbox->parker);
  free(inbox);
}

static const mli_type inbox_type = { "inbox", inbox_destroy, NULL };

lml_inbox *lml_inbox_new(void) {
  lml_inbox *inbox = calloc(1, sizeof *inbox);
  if (!inbox) return NULL;
  inbox->parker = mli_parker_get();
  if (!inbox->parker) {
    free(inbox);
    return NULL;
  }
  mli_object_init(&inbox->object, &inbox_type);
  inbox->last = &inbox->first;
  return inbox;
}

lml_inbox *lml_inbox_retain(lml_inbox *inbox) { return mli_retain(inbox); }
void lml_inbox_release(lml_inbox *inbox) { mli_release(inbox); }
mli_parker *lml_inbox_parker(lml_inbox *inbox) { return inbox->parker; }

bool lml_inbox_is_known(lml_inbox *inbox) {
  mli_lock_acquire(&inbox->lock);
  bool known = inbox->first || atomic_load(&inbox->object.refs) > 1;
  mli_lock_release(&inbox->lock);
  return known;
}

static void on_node(mli_node *node, mli_loop *loop) {
  lml_inbox *inbox = mli_container(node, lml_inbox, node);
  mli_lock_acquire(&inbox->lock);
  inbox->posted = false;
  lml_state *S = inbox->loop == loop ? inbox->S : NULL;
  mli_lock_release(&inbox->lock);
  if (S && S->from) lml_inbox_deliver(S->from, S);
  mli_release(inbox);
}

/* Under the lock: what to wake, with a reference of the loop. */
static mli_loop *wake(lml_inbox *inbox) {
  if (!inbox->loop || inbox->posted) return NULL;
  inbox->posted = true;
  mli_object_retain(&inbox->object);
  return mli_retain(inbox->loop);
}

static void wake_loop(lml_inbox *inbox, mli_loop *loop) {
  inbox->node.run = on_node;
  if (!mli_loop_post(loop, &inbox->node)) {
    mli_lock_acquire(&inbox->lock);
    inbox->posted = false;
    mli_lock_release(&inbox->lock);
    mli_release(inbox);
  }
  mli_release(loop);
}

void lml_inbox_post(lml_inbox *inbox, lml_letter *letter) {
  letter->next = NULL;
  mli_lock_acquire(&inbox->lock);
  bool closed = inbox->closed;
  if (!closed) {
    *inbox->last = letter;
    inbox->last = &letter->next;
  }
  mli_loop *loop = closed ? NULL : wake(inbox);
  bool sync = !closed && !inbox->loop;
  mli_lock_release(&inbox->lock);
  if (closed) letter->drop(letter);
  if (loop) wake_loop(inbox, loop);
  if (sync) mli_unpark(inbox->parker);
}

void lml_inbox_nudge(lml_inbox *inbox) {
  mli_lock_acquire(&inbox->lock);
  mli_loop *loop = wake(inbox);
  mli_lock_release(&inbox->lock);
  if (loop) wake_loop(inbox, loop);
  mli_unpark(inbox->parker);
}

void lml_inbox_attach(lml_inbox *inbox, mli_loop *loop) {
  mli_lock_acquire(&inbox->lock);
  mli_loop *old = inbox->loop;
  inbox->loop = loop ? mli_retain(loop) : NULL;
  mli_loop *now = inbox->first ? wake(inbox) : NULL;
  mli_lock_release(&inbox->lock);
  if (now) wake_loop(inbox, now);
  if (old) mli_release(old);
}

static lml_letter *take(lml_inbox *inbox) {
  mli_lock_acquire(&inbox->lock);
  lml_letter *letter = inbox->first;
  if (letter) {
    inbox->first = letter->next;
    if (!letter->next) inbox->last = &inbox->first;
  }
  mli_lock_release(&inbox->lock);
  return letter;
}

static int deliver(lua_State *L) {
  lml_letter *letter = lua_touserdata(L, 1);
  lua_settop(L, 0);
  letter->deliver(L, lml_state_of(L), letter);
  return 0;
}

/* Callbacks run in a coroutine of their own: the hook that a signal's handler leaves in
** the main thread breaks none in the middle, and is there for the wait to see. Those that
** come while a callback waits run where it does. */
bool lml_inbox_deliver(lua_State *L, lml_state *S) {
  lml_letter *letter = take(S->inbox);
  if (!letter) return false;
  bool nested = S->delivering, ran = false;
  uint64_t began = mli_tracing() ? mli_now() : 0;
  S->delivering = true;
  if (!nested) L = S->callbacks;
  lml_job *job = S->current; /* callbacks are in no job */
  lua_State *running = S->running;
  S->current = NULL;
  for (; letter; letter = take(S->inbox)) {
    if (!letter->tidying) ran = true;
    if (!lua_checkstack(L, LUA_MINSTACK)) {
      letter->drop(letter);
      continue;
    }
    lua_pushcfunction(L, lml_message_handler);
    lua_pushcfunction(L, deliver);
    lua_pushlightuserdata(L, letter);
    if (lua_pcall(L, 1, 0, -3) != LUA_OK) lml_report(L, S, "callback", NULL, S->joined, NULL);
    lua_pop(L, 1);
    letter->drop(letter);
  }
  S->current = job;
  S->running = running;
  S->delivering = nested;
  if (mli_unlikely(began != 0) && ran) mli_observe_calls(began);
  return ran;
}

void lml_inbox_close(lml_inbox *inbox) {
  lml_inbox_attach(inbox, NULL);
  mli_lock_acquire(&inbox->lock);
  inbox->closed = true;
  inbox->S = NULL;
  mli_lock_release(&inbox->lock);
  for (lml_letter *letter; (letter = take(inbox));) letter->drop(letter);
}

void lml_inbox_own(lml_inbox *inbox, lml_state *S) { inbox->S = S; }
