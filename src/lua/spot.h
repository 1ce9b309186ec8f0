/*
** spot.h: where a thread of ours is that computes or is blocked, as others see it.
**
**   lml_spot_ask --signal--> noted: the job and the instruction --hook--> the Lua line
**
** In a system call that waits the line is noted in the signal's handler: there Lua is at
** rest, and to look up a line only reads. In a C function that computes it is not known.
**
** S1  The loop's or worker's own thread writes the spot, in the signal's handler too: it
**     never waits for the lock there, but leaves the spot as it was.
** S2  A spot counts for the step, or the task, in which it was noted.
*/
#ifndef LML_SPOT_H
#define LML_SPOT_H

#include "core/executor.h"

typedef struct lml_state lml_state;

typedef struct lml_spot {
  unsigned beat;        /* of the loop's step, see core/watch.h */
  const mli_task *task; /* a pool's: only to compare */
  uint64_t when;        /* it was noted, ns */
  uint32_t id;          /* of the job; 0: a pool's task, or a callback */
  uint32_t line;        /* where the job was submitted; 0: unknown */
  uintptr_t place;      /* the instruction at which it was found; 0: unknown */
  bool in_call;         /* it is inside one C call, as far as is known */
  char name[MLI_NAME_MAX], chunk[LUA_IDSIZE];
  char at[LUA_IDSIZE + 16]; /* the Lua line, or "" */
  char waits_for[32];       /* a sync state's wait, or "" */
} lml_spot;

/* ---- the state's own thread ---- */

/* In a signal's handler, or where no such signal can come to. */
void lml_spot_note(lml_state *S);
/* In the hook. */
void lml_spot_place(lua_State *L, lml_state *S);

/* ---- any thread ---- */

/* Has the worker note where it is. False: it runs nothing. */
bool lml_spot_ask(mli_worker *w);
/* Has all those of an executor note it that have not since then, or not the line. True: there is
** no more to be known. */
bool lml_spot_ask_all(mli_executor *ex, uint64_t since);
/* Where it is in what it runs now, as far as it was asked; else only what that is. False: it
** runs nothing. */
bool lml_spot_read(mli_worker *w, lml_spot *out);
/* Of a loop, by who sees to it that it stays: false if it was noted in another step. */
bool lml_spot_of_step(lml_state *S, unsigned beat, lml_spot *out);

#define LML_SPOT_CALL (LUA_IDSIZE + 128) /* room for the text of lml_spot_call */

/* "job 'fetch', submitted at app.lua:3," */
void lml_spot_describe(const lml_spot *spot, char *text, size_t size);
/* "clock_nanosleep in libc.so.6, called at app.lua:12", as far as it is known, or "". */
void lml_spot_call(const lml_spot *spot, char *text, size_t size);
/* "runs at app.lua:12", "is inside one C call: ...", "waits for ...", or "". */
void lml_spot_where(const lml_spot *spot, char *text, size_t size);
/* Both. */
void lml_spot_say(const lml_spot *spot, char *text, size_t size);

#endif
