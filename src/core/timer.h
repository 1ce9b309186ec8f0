/*
** timer.h: a hierarchical timing wheel with ticks of 262 us. Starting, stopping
** and firing a timer are O(1); nothing is allocated. A timer never fires early,
** and is due less than a tick late.
** Thread: the loop's only.
*/
#ifndef MLI_TIMER_H
#define MLI_TIMER_H

#include "base.h"

typedef struct mli_timer mli_timer;
struct mli_timer {
  mli_timer *next, **link; /* link is NULL while the timer is stopped */
  void (*fire)(mli_timer *timer);
  uint64_t tick : 46; /* when it fires, in ticks */
  uint64_t seen : 1;  /* of the loop that has it: its deadline is in seen time, */
  uint64_t apart : 1; /* and it hangs in the wheel for that (clock.h) */
  uint64_t slot : 16; /* where it hangs */
};

#define MLI_TICK_BITS 18
#define MLI_TICK (UINT64_C(1) << MLI_TICK_BITS) /* ns */
/* Level 0 has a slot for each tick of the next second, where nearly all timers are: they
** are hung once and fired from there. A slot of level n spans 4096 * 64^(n-1) ticks; the
** wheel as a whole more than a deadline can hold. The last slot holds what is due. Each
** is a queue: timers of one tick fire in the order in which they were started. */
#define MLI_WHEEL_NEAR 4096 /* slots of level 0, */
#define MLI_WHEEL_FAR 64    /* and of each level above it */
#define MLI_WHEEL_LEVELS 6  /* above it */
#define MLI_WHEEL_DUE (MLI_WHEEL_NEAR + MLI_WHEEL_LEVELS * MLI_WHEEL_FAR)

typedef struct mli_wheel {
  uint64_t now;                                              /* the tick that has been reached */
  uint64_t near_set;                                         /* bit n: near[n] is not 0 */
  uint64_t near[MLI_WHEEL_NEAR / 64], far[MLI_WHEEL_LEVELS]; /* which slots hold timers */
  struct mli_wheel_slot {
    mli_timer *first, **last;
  } slots[MLI_WHEEL_DUE + 1];
  size_t count, fired; /* that run; that have fired so far */
} mli_wheel;

void mli_wheel_init(mli_wheel *wheel, uint64_t now_ns);
/* Starts `timer` for the absolute time; `fire` runs once, from `advance`. 0 is due already:
** no tick needs to pass. */
void mli_timer_add(mli_wheel *wheel, mli_timer *timer, uint64_t deadline_ns);
/* True if it was running: then it will not fire. */
bool mli_timer_remove(mli_wheel *wheel, mli_timer *timer);
static inline bool mli_timer_active(const mli_timer *timer) { return timer->link != NULL; }
/* Whether a timer waits for nothing but the next `advance`. */
static inline bool mli_wheel_is_due(const mli_wheel *wheel) {
  return wheel->slots[MLI_WHEEL_DUE].first != NULL;
}
/* Fires all that is due at now_ns, at most `limit` timers; true if more are due. */
bool mli_wheel_advance(mli_wheel *wheel, uint64_t now_ns, unsigned limit);
/* Hangs all that are `seen` in the other wheel, with `convert` of their deadlines. */
void mli_wheel_move_seen(mli_wheel *from, mli_wheel *to, bool apart,
                         uint64_t (*convert)(uint64_t ns));
/* A time at or before the next expiry, for the loop to wake at; MLI_FOREVER
** with no timer. */
uint64_t mli_wheel_next(const mli_wheel *wheel);

#endif
