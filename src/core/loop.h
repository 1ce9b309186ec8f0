/*
** loop.h: one libuv loop, owned by one thread: a mailbox, a timing wheel, and a
** turn.
**
** A turn of the loop:
**
**   poll I/O -> run timers -> deliver messages -> [hooks.turn] -> arm or go on
**
** What the layer above wants at once (a timer for 0) it gets before the loop polls.
** Each step is bounded, so that none can starve the others: when work is left
** the loop polls without sleeping and comes back to it.
**
** L1  Every libuv handle on the loop has one owner, which closes it.
** L2  Messages, timers, hooks and operations run on the loop's thread only.
** L3  The loop ends when `mli_loop_stop` was called: then the mailbox is
**     closed, services are closed, and nothing is left on the libuv loop.
*/
#ifndef MLI_LOOP_H
#define MLI_LOOP_H

#include "alarm.h"
#include "clock.h"
#include "mailbox.h"
#include "object.h"
#include "system.h"
#include "timer.h"
#include "watch.h"

/* What the layer above does on the loop. All on the loop's thread. */
typedef struct mli_loop_hooks {
  /* A bounded share of the ready work. True: there is more. */
  bool (*turn)(mli_loop *loop);
} mli_loop_hooks;

/* Something that lives on a loop and is made when it is first needed there:
** the HTTP engine, for one. `close` runs at the loop's end and must start
** closing every handle of the service; its `key` is an address that identifies it. */
typedef struct mli_service mli_service;
struct mli_service {
  const void *key;
  void (*close)(mli_service *service, mli_loop *loop);
  mli_service *next;
};

extern const mli_type mli_loop_type;

struct mli_loop {
  mli_object object;
  const mli_loop_hooks *hooks; /* [I] */
  void *user;                  /* [I] of the layer above */
  mli_mailbox mailbox;         /* any thread pushes */
  mli_bell bell;               /* any thread rings */
  mli_watch watch;             /* of the layer above, which lists it */
  /* [L] from here on: the loop's thread only */
  uv_loop_t uv;
  mli_wheel wheel;
  mli_clock_loop clock;
  mli_service *services;
  mli_node *incoming; /* taken from the mailbox, not delivered yet */
  uv_poll_t wake;
  uv_prepare_t prepare;
  uv_check_t check;
  uv_idle_t idle;
  mli_alarm alarm;
  struct mli_stats_turns *turns; /* NULL: nobody wants to know how busy it is */
  uint64_t alarm_at;             /* when it rings, ns; 0: it has rung */
  uint64_t hold;                 /* no ring before then: see run_timers */
  unsigned patience;             /* how often to look for more messages before sleeping */
  unsigned sleeps;               /* without looking */
  bool alone;                    /* one processor: looking would only keep the senders from it */
  bool stopping, closed;
};

/* Makes a loop with one reference. No thread runs it yet.
** ML_OK, ML_MEMORY, or ML_SYSTEM with errno set. */
ml_status mli_loop_new(mli_loop **out, const mli_loop_hooks *hooks, void *user);

/* The loop as a guest of another: what mli_loop_run does, in steps, by the thread that
** begins it. Between steps the loop sleeps: wait until mli_loop_fd is readable or
** mli_loop_timeout is over, then step. */
void mli_loop_begin(mli_loop *loop);
void mli_loop_step(mli_loop *loop);
int mli_loop_fd(const mli_loop *loop);
int mli_loop_timeout(const mli_loop *loop); /* ms; -1: for ever */
/* After a step that left it stopping. */
void mli_loop_end(mli_loop *loop);
/* Whether the calling thread has begun a guest that has not ended: then it must not sleep
** for what that is to do. */
bool mli_loop_is_driven_here(void);

/* Runs the loop on the calling thread, which owns it from here on, until
** `mli_loop_stop`; returns when nothing is left of it but memory. */
void mli_loop_run(mli_loop *loop);

/* The loop's thread: end `mli_loop_run` after this turn. */
void mli_loop_stop(mli_loop *loop);

/* Any thread, never blocks: `node->run` will be called on the loop's thread.
** False: the loop has ended, the node is still the caller's. */
bool mli_loop_post(mli_loop *loop, mli_node *node);

/* Any thread, never blocks: it has a turn soon. */
void mli_loop_wake(mli_loop *loop);

/* The loop that the calling thread is running now, or NULL. */
mli_loop *mli_loop_self(void);

/* The loop's thread: have a turn soon even if no message or I/O comes. */
void mli_loop_again(mli_loop *loop);

/* The loop's thread: nothing is open on the loop but what it is made of itself: no
** socket, process or file can call back. */
bool mli_loop_is_quiet(mli_loop *loop);

/* The loop's thread. True if it was running. */
static inline bool mli_loop_timer_stop(mli_loop *loop, mli_timer *timer) {
  return mli_timer_remove(mli_unlikely(timer->apart) ? loop->clock.wheel : &loop->wheel, timer);
}
/* The loop's thread. Starts or restarts a timer for an absolute time; 0: it fires in this
** turn or the next, before the loop sleeps. No system call: a turn that goes to sleep sets
** the alarm once, for whatever comes first. */
static inline void mli_loop_timer_start(mli_loop *loop, mli_timer *timer, uint64_t deadline_ns) {
  mli_loop_timer_stop(loop, timer);
  timer->seen = timer->apart = 0;
  mli_timer_add(&loop->wheel, timer, deadline_ns);
}
/* The same for a deadline in the time that programs see (clock.h). */
static inline void mli_loop_deadline_start(mli_loop *loop, mli_timer *timer, uint64_t deadline) {
  mli_loop_timer_stop(loop, timer);
  timer->seen = 1;
  timer->apart = 0;
  if (mli_unlikely(atomic_load_explicit(&mli_clock_altered, memory_order_relaxed)))
    mli_clock_start(loop, timer, deadline);
  else
    mli_timer_add(&loop->wheel, timer, deadline);
}

/* The loop's thread: to be called before I/O that came is taken. */
static inline void mli_loop_stir(mli_loop *loop) {
  if (mli_unlikely(loop->clock.sleeps)) mli_clock_stir(loop);
}

/* The loop's thread. */
mli_service *mli_loop_service(mli_loop *loop, const void *key); /* NULL: none yet */
void mli_loop_add_service(mli_loop *loop, mli_service *service);
/* Its owner closes it before the loop ends. */
void mli_loop_remove_service(mli_loop *loop, mli_service *service);

#endif
