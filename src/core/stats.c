/* stats.c: histograms, and the record of the program. */
#include "stats.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "park.h"
#include "system.h"

mli_stats mli_stats_all;

/* ---- histograms ---- */

/* The first 16 slots are a nanosecond each; from then on each power of two has 16. */
static unsigned slot_of(uint64_t ns) {
  if (ns < MLI_HISTOGRAM_STEPS) return (unsigned)ns;
  unsigned power = 63 - (unsigned)__builtin_clzll(ns); /* from 4 on */
  unsigned step = (unsigned)(ns >> (power - 4)) & (MLI_HISTOGRAM_STEPS - 1);
  unsigned slot = (power - 3) * MLI_HISTOGRAM_STEPS + step;
  return slot < MLI_HISTOGRAM_SLOTS ? slot : MLI_HISTOGRAM_SLOTS - 1;
}

/* The most that goes into a slot. */
static uint64_t most_of(unsigned slot) {
  if (slot < MLI_HISTOGRAM_STEPS) return slot;
  unsigned power = slot / MLI_HISTOGRAM_STEPS + 3, step = slot % MLI_HISTOGRAM_STEPS;
  return ((UINT64_C(16) + step + 1) << (power - 4)) - 1;
}

static void raise_to(atomic_ullong *most, uint64_t n) {
  unsigned long long old = atomic_load_explicit(most, memory_order_relaxed);
  while (old < n && !atomic_compare_exchange_weak_explicit(most, &old, n, memory_order_relaxed,
                                                           memory_order_relaxed))
    continue;
}

void mli_histogram_add(mli_histogram *h, uint64_t ns) {
  mli_stats_count(&h->slots[slot_of(ns)]);
  mli_stats_count(&h->count);
  atomic_fetch_add_explicit(&h->sum, ns, memory_order_relaxed);
  raise_to(&h->most, ns);
}

uint64_t mli_histogram_at(mli_histogram *h, double part) {
  unsigned long long count = atomic_load(&h->count), most = atomic_load(&h->most), seen = 0;
  if (count == 0) return 0;
  unsigned long long wanted = (unsigned long long)(part * (double)count);
  if (wanted < part * (double)count || wanted == 0) wanted++;
  for (unsigned i = 0; i < MLI_HISTOGRAM_SLOTS; i++) {
    seen += atomic_load_explicit(&h->slots[i], memory_order_relaxed);
    if (seen >= wanted) return most_of(i) < most ? most_of(i) : most;
  }
  return most;
}

/* ---- the longest run, the loops ---- */

struct mli_stats_turns {
  mli_stats_turns *next, **link; /* [M] */
  mli_stats_loop *loop;          /* [M] */
  uint64_t since;                /* [I] */
  atomic_ullong busy;            /* [A] written by its thread */
};

static struct {
  mli_lock lock; /* a leaf */
  atomic_ullong most;
  mli_stats_run longest;    /* [M] */
  mli_stats_loop *loops;    /* [M] by the order of their first */
  mli_stats_turns *running; /* [M] */
} own;

void mli_stats_run_was(uint64_t took, uint32_t number, const char *name, const char *chunk,
                       uint32_t line) {
  mli_stats_run *run = &own.longest;
  if (took <= atomic_load_explicit(&own.most, memory_order_relaxed)) return;
  mli_lock_acquire(&own.lock);
  if (took > run->took) {
    *run = (mli_stats_run){ .took = took, .number = number, .line = line };
    snprintf(run->name, sizeof run->name, "%s", name ? name : "");
    snprintf(run->chunk, sizeof run->chunk, "%s", chunk ? chunk : "");
    atomic_store_explicit(&own.most, took, memory_order_relaxed);
  }
  mli_lock_release(&own.lock);
}

mli_stats_run mli_stats_longest(void) {
  mli_lock_acquire(&own.lock);
  mli_stats_run run = own.longest;
  mli_lock_release(&own.lock);
  return run;
}

/* Under the lock. NULL: out of memory. */
static mli_stats_loop *loop_of(const char *name) {
  mli_stats_loop **at = &own.loops;
  while (*at && strcmp((*at)->name, name) != 0) at = &(*at)->next;
  if (!*at && (*at = calloc(1, sizeof **at))) memcpy((*at)->name, name, sizeof(*at)->name);
  return *at;
}

mli_stats_turns *mli_stats_loop_begins(void) {
  mli_stats_turns *t = calloc(1, sizeof *t);
  char name[16] = "main";
  if (!t) return NULL;
  if (!mli_thread_is_main()) pthread_getname_np(pthread_self(), name, sizeof name);
  t->since = mli_now();
  mli_lock_acquire(&own.lock);
  t->loop = loop_of(name);
  if (t->loop) {
    t->loop->count++;
    t->next = own.running;
    t->link = &own.running;
    if (t->next) t->next->link = &t->next;
    own.running = t;
  }
  mli_lock_release(&own.lock);
  if (t->loop) return t;
  free(t);
  return NULL;
}

void mli_stats_loop_turns(mli_stats_turns *t, uint64_t idle) {
  if (!t) return;
  uint64_t lived = mli_now() - t->since;
  atomic_store_explicit(&t->busy, lived > idle ? lived - idle : 0, memory_order_relaxed);
}

void mli_stats_loop_ends(mli_stats_turns *t, uint64_t idle) {
  if (!t) return;
  mli_stats_loop_turns(t, idle);
  mli_lock_acquire(&own.lock);
  *t->link = t->next;
  if (t->next) t->next->link = t->link;
  t->loop->lived += mli_now() - t->since;
  t->loop->busy += atomic_load_explicit(&t->busy, memory_order_relaxed);
  mli_lock_release(&own.lock);
  free(t);
}

void mli_stats_loops(void (*f)(void *user, const mli_stats_loop *loop), void *user) {
  uint64_t now = mli_now();
  mli_lock_acquire(&own.lock);
  for (mli_stats_loop *l = own.loops; l; l = l->next) {
    mli_stats_loop all = *l;
    for (mli_stats_turns *t = own.running; t; t = t->next) {
      if (t->loop != l) continue;
      all.lived += now - t->since;
      all.busy += atomic_load_explicit(&t->busy, memory_order_relaxed);
    }
    f(user, &all);
  }
  mli_lock_release(&own.lock);
}
