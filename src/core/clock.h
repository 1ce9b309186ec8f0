/*
** clock.h: the time that programs see. Deadlines that come from programs (of waits, scopes
** and jobs) are in this time; what the library needs for itself goes by mli_now(). Both
** pass alike until a test stops the clock:
**
**   RUNS --[mli_clock_stop]--> STOPPED --[mli_clock_go_on]--> RUNS
**
** T1  Seen time never goes back. While it runs it is mli_now() and a constant.
** T2  Stopped, it moves only while all that take part sleep: every loop, and the thread that
**     stopped it. It then is the next deadline at once.
** T3  No jump overtakes what goes on elsewhere: I/O with other processes, files, threads of
**     pools that compute. When that has taken a second, time passes as it really does.
** T4  `mli_clock_advance` jumps over that too, but never further than it was told.
*/
#ifndef MLI_CLOCK_H
#define MLI_CLOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include "park.h"
#include "timer.h"

typedef struct mli_loop mli_loop;
typedef struct mli_waker mli_waker;

/* What a loop has to do with it. */
typedef struct mli_clock_loop {
  mli_wheel *wheel;         /* [L] its timers in seen time while that is stopped; else NULL */
  bool sleeps;              /* [L] it has said so, and was not stirred since */
  mli_loop *next, **link;   /* [M] of the clock, as what follows; link is NULL: takes no part */
  mli_wheel *spare;         /* to become `wheel` */
  bool asleep, of_pool;     /* `sleeps`; its thread is one of ours */
  bool elsewhere, settles;  /* as it went to sleep: see T3; what was sent has not come yet */
  const atomic_uint *tasks; /* [I] if not NULL: what it waits for is children, and how much */
  uint64_t deadline;        /* its next, or before that */
  pthread_t thread;
} mli_clock_loop;

extern atomic_bool mli_clock_altered; /* it was stopped at least once */

/* Now, ns; any thread. */
uint64_t mli_clock_time(void);
static inline uint64_t mli_time(void) {
  if (mli_likely(!atomic_load_explicit(&mli_clock_altered, memory_order_relaxed))) return mli_now();
  return mli_clock_time();
}

/* The seen time that a time of mli_now() is, as far as that can be told. */
uint64_t mli_clock_of(uint64_t real);
/* What programs are told of a seen time, and the other way round: an hour that was jumped
** over is gone when the clock runs again. */
uint64_t mli_clock_shown(uint64_t seen);
uint64_t mli_clock_seen(uint64_t shown);

/* mli_park until a deadline in seen time, or until `real`, a time of mli_now().
** May return ML_TIMEOUT before either: look again. */
ml_status mli_clock_park(mli_parker *parker, uint64_t deadline, uint64_t real);

/* ---- tests: any thread, none blocks ---- */

/* The calling thread stops it. `jumps`: it jumps by itself. ML_OK, ML_MISUSE: it is stopped
** already, or ML_MEMORY. */
ml_status mli_clock_stop(bool jumps);
/* From here on it runs. Who waits for an advance is woken. */
void mli_clock_go_on(void);
/* Time passes until then, deadline by deadline; `waker` is woken when everybody sleeps again.
** False: somebody waits for that already. */
bool mli_clock_advance(uint64_t until, mli_waker *waker);
/* True: the waker was waiting, and will not be woken. */
bool mli_clock_give_up(mli_waker *waker);

/* ---- loops ---- */

/* A new loop takes part; one that ends does not. ML_OK or ML_MEMORY. */
ml_status mli_clock_join(mli_loop *loop);
void mli_clock_leave(mli_loop *loop);
/* The loop's thread. It runs the loop; a turn begins; before the loop sleeps: a time of
** mli_now() by which it has to wake. */
void mli_clock_run(mli_loop *loop);
void mli_clock_turn(mli_loop *loop);
uint64_t mli_clock_sleep(mli_loop *loop);
/* The loop's thread: before anything that came is taken, so that nobody misses it. */
void mli_clock_stir(mli_loop *loop);
/* The loop's thread: what is due by seen time fires, at most `limit` timers; true if more is. */
bool mli_clock_fire(mli_loop *loop, unsigned limit);
/* The loop's thread: as mli_loop_deadline_start, for a clock that was altered. */
void mli_clock_start(mli_loop *loop, mli_timer *timer, uint64_t deadline);

/* ---- threads of pools ---- */

/* One more, or one less, that has something to do. After it was said that there is one less,
** with no lock held: perhaps all sleep now. */
void mli_clock_engage(int by);
void mli_clock_look(void);
/* The calling thread is one. */
void mli_clock_be_counted(void);

#endif
