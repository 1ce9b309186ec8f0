/*
** sync.h: what the bindings of the primitives share: semaphores, locks, events,
** conditions, barriers, queues and channels. Internal to src/lua.
*/
#ifndef LML_SYNC_H
#define LML_SYNC_H

#include "core/channel.h"
#include "core/sem.h"
#include "state.h"

/* ---- handles (sync.c) ---- */

/* Declares a type of handles; leaves the table of its methods on the stack. */
void lml_sync_declare(lua_State *L, const mli_type *type, const luaL_Reg *methods,
                      const luaL_Reg *metamethods);
/* The object of the handle at `arg`; raises for another type. */
mli_object *lml_sync_check(lua_State *L, lml_state *S, int arg, const mli_type *type);

/* ---- waiting (sync.c) ---- */

/* A wait that can be met at once does not suspend, unless the caller may have been
** cancelled: then it goes the long way, where lml_await_begin looks closely. */
bool lml_may_be_cancelled(const lml_state *S);

/* Before a wait that would begin now: refuses one that could never end, for the waiter
** holds all `own` references to the object and nothing else can run. See forever.c. */
void lml_check_hope(lua_State *L, lml_state *S, uint64_t deadline, const mli_object *object,
                    unsigned own, const char *what);

/* A place in a primitive's queue: the memory of one wait. */
typedef struct lml_queued {
  mli_waiter waiter;
  mli_waiters *queue;
} lml_queued;

lml_queued *lml_queued_push(lua_State *L, mli_waiters *queue);
/* lml_await_begin for that place. */
lml_await *lml_queued_begin(lua_State *L, lml_state *S, const char *what, lml_queued *q);
/* Pushes nil and an error with code "timeout"; returns 2. */
int lml_timed_out(lua_State *L, const char *what);

/* ---- holds (sync.c): what is given back as a block is left ---- */

typedef struct lml_hold lml_hold;
struct lml_hold {
  mli_object *object; /* holds a reference; NULL: nothing is held */
  void (*release)(lml_state *S, lml_hold *hold);
  uint64_t owner; /* of a lock */
};

/* Pushes an empty hold: make it before what it is to hold is taken. */
lml_hold *lml_hold_push(lua_State *L, void (*release)(lml_state *S, lml_hold *hold));

/* ---- values on their way (parcel.c) ---- */

/* Makes an item of the value at `index`, which is not nil. Raises if it cannot cross. */
mli_item *lml_parcel_new(lua_State *L, lml_state *S, int index);
/* Pushes the value of an item and frees it, also if it raises: what crossed may not
** be rebuilt here. */
void lml_parcel_push(lua_State *L, lml_state *S, mli_item *item);

/* ---- offers (offer.c): what channels and queues do alike ---- */

/* A wait for the first of some offers to be met. Owns what they hold. */
typedef struct lml_choice {
  mli_choice core;
  const char *what; /* static: "channel send" */
  size_t count;
  mli_offer offers[];
} lml_choice;

/* Pushes a choice with room for n offers. */
lml_choice *lml_choice_push(lua_State *L, const char *what, size_t n);
/* Adds one: to send the item, which it takes over, or to receive (NULL). */
void lml_choice_add(lml_choice *c, mli_channel *channel, mli_item *item);
/* Waits until one is met, then runs k with the choice as its context; k must call
** lml_choice_end first. */
int lml_choice_wait(lua_State *L, lml_state *S, lml_choice *c, uint64_t deadline, lua_KFunction k);
/* Which offer was met, 1 and up, or 0: timeout. How, and what it received, the
** caller's now, is left in `*met`. Raises if the waiter was cancelled. */
size_t lml_choice_end(lua_State *L, lml_state *S, lml_choice *c, mli_offer *met);

/* Sends the value at 2, or receives one: true or the value, or nil and an error. */
int lml_send(lua_State *L, lml_state *S, mli_channel *channel, const char *what, uint64_t deadline,
             lua_Number priority);
int lml_receive(lua_State *L, lml_state *S, mli_channel *channel, const char *what,
                uint64_t deadline);
/* The same without waiting: "busy" rather than "timeout". */
int lml_try_send(lua_State *L, lml_state *S, mli_channel *channel, const char *what,
                 lua_Number priority);
int lml_try_receive(lua_State *L, lml_state *S, mli_channel *channel, const char *what);

void lml_semaphore_open(lua_State *L);
void lml_lock_open(lua_State *L);
void lml_event_open(lua_State *L);
void lml_channel_open(lua_State *L);
void lml_queue_open(lua_State *L);

#endif
