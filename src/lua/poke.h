/*
** poke.h: a word to the Lua code that runs in another thread: at its next instruction
** it stops for a moment and serves what was asked for.
**
**   any thread: lml_poke ---signal---> the state's thread: arms a hook on the running
**   coroutine ---next instruction---> the hook calls the functions of the reasons
**
** The signal is a real-time one that nobody uses, taken when the first poke is sent.
** Its handler takes a note and sets a hook, which Lua allows in a handler, and nothing else.
**
** P1  A state is poked between lml_poke_enter and lml_poke_leave only; who pokes keeps
**     it there, by a lock that its thread takes before it leaves.
** P2  A poke may be served late, by what runs next, or never: in a C function there is
**     no next instruction. A reason's function looks whether it still applies, and who
**     pokes looks whether it was served.
** P3  A hook that the program set itself is put back.
*/
#ifndef LML_POKE_H
#define LML_POKE_H

#include <lua.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct lml_state lml_state;

/* Served in this order. */
typedef enum lml_poke_reason {
  LML_POKE_LOOK,   /* say where you are */
  LML_POKE_ASK,    /* say what jobs there are */
  LML_POKE_CANCEL, /* raise, if what runs was cancelled */
  LML_POKE_SLICE,  /* let others run */
  LML_POKE_REASONS
} lml_poke_reason;

typedef struct lml_poked {
  pthread_t thread;         /* [I] between enter and leave */
  struct lml_state *outer;  /* of the thread, before enter */
  atomic_uint reasons;      /* [A] a bit each: not served yet */
  atomic_bool sent;         /* [A] a signal is on its way */
  _Atomic(uintptr_t) place; /* [A] the instruction at which the last signal found the thread */
  volatile uint64_t armed;  /* since when the hook waits for an instruction, ns; 0: it does not */
  uintptr_t armed_in;       /* in which step or task that is */
  volatile bool at_rest;    /* in a signal's handler: Lua is, in a call that waits */
  /* The hook of the program that ours took the place of, and in which coroutine. */
  lua_State *kept_in;
  lua_Hook kept;
  int kept_mask, kept_count;
} lml_poked;

/* What a reason means. Runs inside the hook, in the coroutine L that runs: it may raise;
** to yield is up to it (lua_isyieldable(L)), as its last act and without values. */
typedef void (*lml_poke_function)(lua_State *L, lml_state *S);
/* Before the first poke. `note`, if not NULL, runs in the signal's handler already. */
void lml_poke_serves(lml_poke_reason reason, lml_poke_function function,
                     void (*note)(lml_state *S));

/* The state's thread: from here on it can be poked. A thread of ours lets the signal
** through; the mask of any other thread stays as it is. They nest. */
void lml_poke_enter(lml_state *S);
void lml_poke_leave(lml_state *S);

/* What runs in it, as far as it was we who called it; NULL: nothing that a hook could stop.
** Thread: its own, in a signal's handler too. */
lua_State *lml_poke_runs(const lml_state *S);

/* Which signal it will be: with the masks of the calling thread, a host's, the first time.
** -1: none. Thread: any. */
int lml_poke_choose(void);

/* Asks for `reason` to be served by what runs in the state: see P1. False: no signal can
** be had, it is noted all the same. Thread: any. Blocks: no. */
bool lml_poke(lml_state *S, lml_poke_reason reason);
/* Takes a reason back, if it was not served yet. Thread: any. */
void lml_poke_forget(lml_state *S, lml_poke_reason reason);
/* Whether it was asked for and not served yet. Thread: any. */
bool lml_poke_is_due(const lml_state *S, lml_poke_reason reason);
/* In a function of a reason: have it served again once the job's own coroutine runs. */
void lml_poke_later(lml_state *S, lml_poke_reason reason);
/* Whether it is the hook that a poke leaves, and no sign of anything else. */
bool lml_poke_is_hook(lua_Hook hook);

#endif
