/* clock.c: stopping the time that programs see, and its jumps. */
#include "clock.h"

#include <poll.h>
#include <stdlib.h>
#include "elsewhere.h"
#include "op.h"

#define PATIENCE MLI_SECOND         /* with what goes on elsewhere, before time passes */
#define ON_WAY MLI_MILLISECOND      /* how often to look whether it has come, */
#define LONG (50 * MLI_MILLISECOND) /* and until when: then it is not taken */
#define TICK (MLI_SECOND / 10000)

/* A thread that sleeps in mli_clock_park. */
typedef struct sleeper {
  struct sleeper *next, **link;
  mli_parker *parker;
  uint64_t deadline;
  pthread_t thread;
  bool of_pool;
} sleeper;

atomic_bool mli_clock_altered;

static _Atomic(uint64_t) stopped_at; /* what it shows; 0: it runs, and is */
static _Atomic(uint64_t) ahead;      /* so much ahead of mli_now(), in modular arithmetic */
static _Atomic(uint64_t) shown_back; /* so much is taken off for programs while it is stopped */
static atomic_uint engaged;          /* threads of pools that have something to do */
static _Thread_local bool of_pool;

static mli_lock lock; /* a leaf: what follows */
static mli_loop *loops;
static sleeper *sleepers;
static pthread_t owner;
static bool jumps;
static uint64_t base;          /* of what the wheels count: set once */
static uint64_t until;         /* of an advance, with who waits for its end */
static mli_waker *advancing;   /* NULL: nobody */
static uint64_t held_up_since; /* by what goes on elsewhere, mli_now(); 0: it is not */
static uint64_t settles_since; /* likewise by what is on its way */
static uint64_t passes_since;  /* time passes as it really does; 0: it does not */

uint64_t mli_clock_time(void) {
  uint64_t at = atomic_load_explicit(&stopped_at, memory_order_acquire);
  return at ? at : mli_now() + atomic_load_explicit(&ahead, memory_order_relaxed);
}

static bool is_stopped(void) {
  return atomic_load_explicit(&stopped_at, memory_order_acquire) != 0;
}

uint64_t mli_clock_of(uint64_t real) {
  if (real == 0 || real == MLI_FOREVER || !atomic_load(&mli_clock_altered)) return real;
  uint64_t now = mli_now();
  return real > now ? mli_time() + (real - now) : 0;
}

static uint64_t back(void) { return atomic_load(is_stopped() ? &shown_back : &ahead); }

uint64_t mli_clock_shown(uint64_t seen) {
  return mli_likely(!atomic_load(&mli_clock_altered)) ? seen : seen - back();
}

uint64_t mli_clock_seen(uint64_t shown) {
  return mli_likely(!atomic_load(&mli_clock_altered)) ? shown : shown + back();
}

/* ---- deadlines: in real time, and in wheels with ticks of a length that is even ---- */

static uint64_t to_real(uint64_t seen) {
  if (seen == 0 || seen == MLI_FOREVER) return seen;
  uint64_t real = seen - atomic_load(&ahead);
  return real > MLI_FOREVER / 2 ? 0 : real; /* it passed before the machine was started */
}

static uint64_t ticks(uint64_t seen, uint64_t round) {
  uint64_t n = seen > base ? (seen - base + round) / TICK : 0, last = UINT64_MAX >> MLI_TICK_BITS;
  return n < last ? n : last; /* in 200 years */
}

static uint64_t to_wheel(uint64_t seen) { return ticks(seen, TICK - 1) << MLI_TICK_BITS; }

static uint64_t from_wheel(uint64_t ns) { return base + (ns >> MLI_TICK_BITS) * TICK; }

/* A thread's deadline is that of a job. */
static uint64_t round_up(uint64_t seen) {
  uint64_t even = from_wheel(to_wheel(seen));
  return even > seen ? even : seen;
}

static uint64_t real_to_wheel(uint64_t real) { return to_wheel(real + atomic_load(&ahead)); }

static uint64_t wheel_to_real(uint64_t ns) { return to_real(from_wheel(ns)); }

bool mli_clock_fire(mli_loop *loop, unsigned limit) {
  return mli_wheel_advance(loop->clock.wheel, ticks(mli_time(), 0) << MLI_TICK_BITS, limit);
}

/* ---- who sleeps: under the lock ---- */

static bool has_events(mli_loop *loop) {
  struct pollfd fd = { .fd = uv_backend_fd(&loop->uv), .events = POLLIN };
  return poll(&fd, 1, 0) != 0;
}

typedef enum { AWAKE, SETTLING, HELD_UP, QUIET } rest;

/* Whether all that take part sleep, and what they sleep to. */
static rest survey(uint64_t *next) {
  bool settles = false, elsewhere = false, owner_sleeps = false;
  unsigned counted = 0;
  *next = MLI_FOREVER;
  for (const sleeper *s = sleepers; s; s = s->next) {
    if (mli_parker_has_token(s->parker)) return AWAKE;
    if (s->deadline < *next) *next = s->deadline;
    if (s->of_pool) counted++;
    if (pthread_equal(s->thread, owner)) owner_sleeps = true;
  }
  for (mli_loop *loop = loops; loop; loop = loop->clock.next) {
    const mli_clock_loop *c = &loop->clock;
    if (!c->asleep || has_events(loop)) return AWAKE;
    if (c->deadline < *next) *next = c->deadline;
    if (c->of_pool) counted++;
    if (pthread_equal(c->thread, owner)) owner_sleeps = true;
    if (c->elsewhere || (c->tasks && atomic_load(c->tasks) > 0)) elsewhere = true;
    if (c->settles) settles = true;
  }
  if (!owner_sleeps) return AWAKE;
  if (elsewhere || atomic_load(&engaged) != counted) return HELD_UP;
  return settles ? SETTLING : QUIET;
}

static void jump(uint64_t to) {
  settles_since = 0;
  atomic_store_explicit(&stopped_at, to, memory_order_release);
  for (mli_loop *loop = loops; loop; loop = loop->clock.next)
    if (loop->clock.deadline <= to) mli_loop_wake(loop);
  for (sleeper *s = sleepers; s; s = s->next)
    if (s->deadline <= to) mli_unpark(s->parker);
}

/* While everybody slept, time may have passed as it really does. */
static void account(void) {
  if (!passes_since) return;
  uint64_t now = mli_now();
  atomic_store_explicit(&stopped_at, atomic_load(&stopped_at) + (now - passes_since),
                        memory_order_release);
  passes_since = 0;
}

/* Something goes on elsewhere. Returns when to look again. */
static uint64_t wait_elsewhere(uint64_t next) {
  uint64_t now = mli_now();
  if (!held_up_since) held_up_since = now;
  if (now - held_up_since < PATIENCE) return held_up_since + PATIENCE;
  if (next == MLI_FOREVER) return MLI_FOREVER;
  passes_since = now;
  return now + (next - atomic_load(&stopped_at));
}

/* The end of a step of an advance; whom to wake. */
static mli_waker *step(uint64_t next) {
  if (next <= until) {
    jump(next);
    return NULL;
  }
  if (until > atomic_load(&stopped_at)) jump(until);
  mli_waker *waker = advancing;
  advancing = NULL;
  return waker;
}

/* Somebody has gone to sleep: has time to move? Returns when that one has to look again. */
static uint64_t decide(mli_waker **wake) {
  uint64_t next;
  *wake = NULL;
  if (!is_stopped()) return MLI_FOREVER;
  account();
  rest how = survey(&next);
  if (how == AWAKE) return MLI_FOREVER;
  if (next <= atomic_load(&stopped_at)) {
    jump(atomic_load(&stopped_at));
    return MLI_FOREVER;
  }
  if (how == SETTLING && !settles_since) settles_since = mli_now();
  if (how == SETTLING && mli_now() - settles_since < LONG) return mli_now() + ON_WAY;
  if (advancing) {
    *wake = step(next);
    return MLI_FOREVER;
  }
  if (!jumps) return MLI_FOREVER;
  if (how == HELD_UP) return wait_elsewhere(next);
  held_up_since = 0;
  if (next != MLI_FOREVER) jump(next);
  return MLI_FOREVER;
}

void mli_clock_look(void) {
  mli_waker *wake;
  if (mli_likely(!atomic_load_explicit(&mli_clock_altered, memory_order_relaxed))) return;
  mli_lock_acquire(&lock);
  decide(&wake);
  mli_lock_release(&lock);
  if (wake) wake->wake(wake);
}

/* ---- threads ---- */

void mli_clock_engage(int by) { atomic_fetch_add(&engaged, (unsigned)by); }

void mli_clock_be_counted(void) { of_pool = true; }

static ml_status sleep_stopped(mli_parker *parker, uint64_t deadline, uint64_t real) {
  sleeper s = {
    .parker = parker, .deadline = deadline, .thread = pthread_self(), .of_pool = of_pool
  };
  mli_waker *wake;
  mli_lock_acquire(&lock);
  s.next = sleepers;
  s.link = &sleepers;
  if (s.next) s.next->link = &s.next;
  sleepers = &s;
  uint64_t again = decide(&wake);
  mli_lock_release(&lock);
  if (wake) wake->wake(wake);
  /* The token is taken when it is known that we are awake. */
  ml_status status = mli_park_peek(parker, again < real ? again : real);
  mli_lock_acquire(&lock);
  if (is_stopped()) account();
  *s.link = s.next;
  if (s.next) s.next->link = s.link;
  mli_lock_release(&lock);
  return status == ML_OK ? mli_park(parker, 0) : status;
}

ml_status mli_clock_park(mli_parker *parker, uint64_t deadline, uint64_t real) {
  if (mli_unlikely(atomic_load_explicit(&mli_clock_altered, memory_order_relaxed))) {
    if (is_stopped()) {
      deadline = round_up(deadline);
      if (deadline <= mli_time()) return mli_park(parker, 0);
      return sleep_stopped(parker, deadline, real);
    }
    deadline = to_real(deadline);
  }
  return mli_park(parker, deadline < real ? deadline : real);
}

/* ---- loops ---- */

ml_status mli_clock_join(mli_loop *loop) {
  mli_clock_loop *c = &loop->clock;
  mli_lock_acquire(&lock);
  ml_status status = ML_OK;
  if (is_stopped() && !(c->spare = malloc(sizeof *c->spare))) {
    status = ML_MEMORY;
  } else {
    c->next = loops;
    c->link = &loops;
    if (c->next) c->next->clock.link = &c->next;
    loops = loop;
  }
  mli_lock_release(&lock);
  return status;
}

void mli_clock_leave(mli_loop *loop) {
  mli_clock_loop *c = &loop->clock;
  mli_lock_acquire(&lock);
  if (c->link) {
    *c->link = c->next;
    if (c->next) c->next->clock.link = c->link;
    c->link = NULL;
  }
  mli_lock_release(&lock);
  free(c->wheel);
  free(c->spare);
  c->wheel = c->spare = NULL;
}

void mli_clock_run(mli_loop *loop) {
  mli_lock_acquire(&lock);
  loop->clock.thread = pthread_self();
  loop->clock.of_pool = of_pool;
  mli_lock_release(&lock);
}

void mli_clock_stir(mli_loop *loop) {
  loop->clock.sleeps = false;
  mli_lock_acquire(&lock);
  if (is_stopped()) account();
  loop->clock.asleep = false;
  mli_lock_release(&lock);
}

/* The clock was stopped, and is perhaps: the loop's timers go to the other wheel. */
static void take_wheel(mli_loop *loop) {
  mli_clock_loop *c = &loop->clock;
  mli_lock_acquire(&lock);
  c->wheel = c->spare;
  c->spare = NULL;
  mli_lock_release(&lock);
  if (!c->wheel) return; /* it goes on again */
  mli_wheel_init(c->wheel, ticks(mli_time(), 0) << MLI_TICK_BITS);
  mli_wheel_move_seen(&loop->wheel, c->wheel, true, real_to_wheel);
}

void mli_clock_turn(mli_loop *loop) {
  mli_clock_loop *c = &loop->clock;
  mli_wheel *apart = c->wheel;
  mli_loop_stir(loop);
  if (!apart && is_stopped()) take_wheel(loop);
  if (!apart || is_stopped()) return;
  mli_wheel_move_seen(apart, &loop->wheel, false, wheel_to_real);
  c->wheel = NULL;
  free(apart);
}

void mli_clock_start(mli_loop *loop, mli_timer *timer, uint64_t deadline) {
  if (!loop->clock.wheel && is_stopped()) take_wheel(loop);
  mli_wheel *apart = loop->clock.wheel;
  timer->apart = apart != NULL;
  if (apart)
    mli_timer_add(apart, timer, to_wheel(deadline));
  else
    mli_timer_add(&loop->wheel, timer, to_real(deadline));
}

uint64_t mli_clock_sleep(mli_loop *loop) {
  mli_clock_loop *c = &loop->clock;
  if (!c->wheel) return MLI_FOREVER;        /* it runs, or this loop takes no part */
  if (uv_backend_timeout(&loop->uv) == 0) { /* what it is to watch it is yet to tell the system */
    mli_loop_again(loop);
    return MLI_FOREVER;
  }
  mli_elsewhere waits = c->tasks ? MLI_HERE : mli_loop_waits_elsewhere(loop);
  uint64_t at = mli_wheel_next(c->wheel);
  mli_waker *wake;
  c->sleeps = true;
  mli_lock_acquire(&lock);
  c->asleep = true;
  c->deadline = at == MLI_FOREVER ? at : from_wheel(at);
  c->elsewhere = waits == MLI_ELSEWHERE;
  c->settles = waits == MLI_ON_WAY;
  uint64_t again = decide(&wake);
  mli_lock_release(&lock);
  if (wake) wake->wake(wake);
  return again;
}

/* ---- stopping it ---- */

/* Each loop that has no second wheel gets one. False: out of memory. */
static bool give_wheels(void) {
  for (mli_loop *loop = loops; loop; loop = loop->clock.next) {
    mli_clock_loop *c = &loop->clock;
    c->asleep = false; /* it does not know yet */
    if (!c->spare && !(c->spare = malloc(sizeof *c->spare))) return false;
  }
  return true;
}

static void wake_all(void) {
  for (mli_loop *loop = loops; loop; loop = loop->clock.next) mli_loop_wake(loop);
}

ml_status mli_clock_stop(bool by_itself) {
  mli_lock_acquire(&lock);
  ml_status status = is_stopped() ? ML_MISUSE : give_wheels() ? ML_OK : ML_MEMORY;
  if (status == ML_OK) {
    uint64_t real = mli_now(), now = real + atomic_load(&ahead);
    if (!base) base = now;
    now = round_up(now);
    /* Programs see a whole second, so that what they add to it comes out even. */
    atomic_store(&shown_back, now - (real + MLI_SECOND - 1) / MLI_SECOND * MLI_SECOND);
    owner = pthread_self();
    jumps = by_itself;
    held_up_since = settles_since = passes_since = 0;
    atomic_store_explicit(&stopped_at, now, memory_order_release);
    atomic_store(&mli_clock_altered, true);
    wake_all();
  }
  mli_lock_release(&lock);
  if (status == ML_OK) mli_unpark_all();
  return status;
}

void mli_clock_go_on(void) {
  mli_lock_acquire(&lock);
  account();
  atomic_store(&ahead, atomic_load(&stopped_at) - mli_now());
  atomic_store_explicit(&stopped_at, 0, memory_order_release);
  mli_waker *wake = advancing;
  advancing = NULL;
  wake_all();
  mli_lock_release(&lock);
  mli_unpark_all();
  if (wake) wake->wake(wake);
}

bool mli_clock_advance(uint64_t to, mli_waker *waker) {
  mli_lock_acquire(&lock);
  bool free = !advancing;
  if (free) {
    advancing = waker;
    until = round_up(to);
  }
  mli_lock_release(&lock);
  return free;
}

bool mli_clock_give_up(mli_waker *waker) {
  mli_lock_acquire(&lock);
  bool waits = advancing == waker;
  if (waits) advancing = NULL;
  mli_lock_release(&lock);
  return waits;
}
