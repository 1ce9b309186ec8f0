/* watch.c: the thread that looks whether loops go on. */
#include "watch.h"

#include <pthread.h>
#include <signal.h>
#include "system.h"

#define LOOKS 4       /* in the time of a limit */
#define QUIET_LOOKS 8 /* all asleep: then it parks */
#define LEAST MLI_MILLISECOND
#define TOO_LATE (200 * MLI_MILLISECOND)

static struct {
  mli_lock lock;     /* a leaf: what follows, and the fields of each watch that say so */
  mli_watch *first;  /* [M] */
  bool ending;       /* [M] */
  mli_lock life;     /* outside of `lock`: held while the thread is started or ended */
  bool runs;         /* [M] of `life` */
  pthread_t thread;  /* [M] of `life` */
  mli_parker parker; /* of the thread */
} list;

static _Thread_local bool here;

bool mli_watch_is_here(void) { return here; }

atomic_bool mli_watch_parked = true;
_Atomic(uint64_t) mli_watch_pause = MLI_FOREVER;

/* ---- looking ---- */

/* What a look at one loop finds; `*next` becomes the time to look again. */
typedef struct finding {
  bool late;
  mli_late what;
  uint64_t took;
} finding;

static void sooner(uint64_t *at, uint64_t when) {
  if (when < *at) *at = when;
}

static uint64_t at_least(uint64_t pause) { return pause > LEAST ? pause : LEAST; }

/* From here on the step counts. */
static void count_from(mli_watch *w, uint64_t now) {
  atomic_store_explicit(&w->since, now, memory_order_relaxed);
  w->sliced_at = w->looked_at = now;
  w->counted = w->told_at = 0;
  w->cpu = w->has_clock ? mli_clock(w->clock) : 0;
}

/* Counts what it took since the last look: all of it, or while it is runnable the time for
** which it had a core. */
static void count(mli_watch *w, uint64_t now) {
  uint64_t pause = now - w->looked_at, ran = pause;
  if (w->has_clock) {
    uint64_t cpu = mli_clock(w->clock);
    ran = cpu - w->cpu;
    w->cpu = cpu;
  }
  w->looked_at = now;
  w->counted += ran < pause - pause / 8 && mli_thread_is_runnable(w->thread) ? ran : pause;
}

static finding look(mli_watch *w, uint64_t now, uint64_t *next, bool *busy) {
  finding none = { .late = false };
  unsigned beat = atomic_load_explicit(&w->beat, memory_order_acquire);
  uint64_t slice = (uint64_t)atomic_load_explicit(&w->slice, memory_order_relaxed) * 1000;
  uint64_t limit = atomic_load_explicit(&w->limit, memory_order_relaxed);
  if (limit) sooner(next, now + at_least(limit / LOOKS));
  if (slice) sooner(next, now + at_least(slice / 2));
  if (beat != w->seen) {
    *busy = true;
    w->seen = beat;
    count_from(w, now);
    w->told = MLI_TOLD_NOTHING;
    return none;
  }
  if (beat % 2 == 0) return none;
  *busy = true;
  uint64_t took = now - atomic_load_explicit(&w->since, memory_order_relaxed);
  if (limit && w->told != MLI_TOLD_STUCK) count(w, now);
  if (limit && w->told == MLI_TOLD_NOTHING && (w->counted >= limit || took >= 2 * limit)) {
    w->told = MLI_TOLD_STEP;
    w->told_at = w->counted;
    atomic_fetch_add_explicit(&w->incidents, 1, memory_order_relaxed);
    return (finding){ true, MLI_LATE_STEP, took };
  }
  if (limit && w->told == MLI_TOLD_STEP && w->counted - w->told_at >= limit / 2) {
    w->told_at = w->counted;
    return (finding){ true, MLI_LATE_STUCK, took };
  }
  if (slice && now - w->sliced_at >= slice) {
    w->sliced_at = now;
    return (finding){ true, MLI_LATE_SLICE, took };
  }
  return none;
}

/* The process was stopped, or the machine is overloaded: what the loops did meanwhile
** says nothing about them. */
static void start_over(uint64_t now) {
  for (mli_watch *w = list.first; w; w = w->next) count_from(w, now);
}

/* Tells with the lock released; the loop stays where it is. */
static void tell(mli_watch *w, finding f) {
  w->pinned = true;
  mli_lock_release(&list.lock);
  if (w->late(w, f.what, f.took) && f.what == MLI_LATE_STUCK) w->told = MLI_TOLD_STUCK;
  mli_lock_acquire(&list.lock);
  w->pinned = false;
  if (w->leaving) mli_unpark(&w->left);
}

/* Under the lock. Returns when to look again. */
static uint64_t look_at_all(bool *busy) {
  uint64_t now = mli_now(), next = MLI_FOREVER;
  *busy = false;
  for (mli_watch *w = list.first, *after; w; w = after) {
    finding f = look(w, now, &next, busy);
    if (f.late) tell(w, f);
    after = w->next; /* the list may have changed, but for this one */
  }
  return next;
}

static void *watch_main(void *argument) {
  (void)argument;
  here = true;
  mli_thread_name("ml-watch");
  uint64_t next = 0;
  unsigned quiet = 0;
  mli_lock_acquire(&list.lock);
  while (!list.ending) {
    uint64_t now = mli_now();
    if (next && now > next + TOO_LATE) start_over(now);
    bool busy;
    atomic_store(&mli_watch_pause, MLI_FOREVER); /* a slice is seen by this look, or wakes us */
    next = look_at_all(&busy);
    quiet = busy ? 0 : quiet + 1;
    bool park = quiet >= QUIET_LOOKS || next == MLI_FOREVER;
    if (park) { /* then one more look: see mli_watch_begin */
      atomic_store(&mli_watch_parked, true);
      next = look_at_all(&busy);
      if (busy && next != MLI_FOREVER) {
        park = !atomic_exchange(&mli_watch_parked, false);
        quiet = 0;
      }
    }
    atomic_store(&mli_watch_pause, park || next <= now ? MLI_FOREVER : next - now);
    mli_lock_release(&list.lock);
    mli_park(&list.parker, park ? MLI_FOREVER : next);
    if (park) next = 0;
    mli_lock_acquire(&list.lock);
  }
  mli_lock_release(&list.lock);
  return NULL;
}

/* ---- the thread ---- */

static bool start_thread(void) {
  sigset_t all, old;
  sigfillset(&all);
  if (pthread_sigmask(SIG_SETMASK, &all, &old)) return false;
  bool ok = pthread_create(&list.thread, NULL, watch_main, NULL) == 0;
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  return ok;
}

/* If it cannot be started nobody looks, until a loop begins its next turn. */
void mli_watch_wake(void) {
  bool parked = atomic_exchange(&mli_watch_parked, false);
  if (parked) {
    mli_lock_acquire(&list.life);
    if (!list.runs) list.runs = start_thread();
    if (!list.runs) atomic_store(&mli_watch_parked, true);
    mli_lock_release(&list.life);
  }
  mli_unpark(&list.parker);
}

void mli_watch_end(void) {
  if (here) return; /* it cannot wait for itself */
  mli_lock_acquire(&list.life);
  mli_lock_acquire(&list.lock);
  bool end = list.runs && !list.first;
  list.ending = end;
  mli_lock_release(&list.lock);
  if (end) {
    mli_unpark(&list.parker);
    pthread_join(list.thread, NULL);
    list.runs = list.ending = false;
    atomic_store(&mli_watch_parked, true);
    atomic_store(&mli_watch_pause, MLI_FOREVER);
  }
  mli_lock_release(&list.life);
}

/* ---- the list ---- */

void mli_watch_add(mli_watch *w) {
  mli_lock_acquire(&list.lock);
  w->listed = true;
  w->thread = mli_thread_number();
  w->has_clock = mli_thread_clock(&w->clock);
  count_from(w, mli_now());
  w->seen = atomic_load(&w->beat);
  w->next = list.first;
  list.first = w;
  mli_lock_release(&list.lock);
}

void mli_watch_remove(mli_watch *w) {
  mli_lock_acquire(&list.lock);
  while (w->pinned) {
    w->leaving = true;
    mli_lock_release(&list.lock);
    mli_park(&w->left, MLI_FOREVER);
    mli_lock_acquire(&list.lock);
  }
  mli_watch **at = &list.first;
  while (*at != w) at = &(*at)->next;
  *at = w->next;
  w->listed = w->leaving = false;
  mli_lock_release(&list.lock);
}

bool mli_watch_with(mli_watch *w, void (*f)(mli_watch *w, void *argument), void *argument) {
  mli_lock_acquire(&list.lock);
  bool listed = w->listed;
  if (listed) f(w, argument);
  mli_lock_release(&list.lock);
  return listed;
}
