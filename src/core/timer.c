/* timer.c: the timing wheel. */
#include "timer.h"

#include <string.h>

#define NEAR_BITS 12
#define FAR_BITS 6
#define NEAR_MASK (MLI_WHEEL_NEAR - 1)
#define FAR_MASK (MLI_WHEEL_FAR - 1)
#define LAST_TICK (UINT64_MAX >> MLI_TICK_BITS) /* for MLI_FOREVER: the year 2554 */

void mli_wheel_init(mli_wheel *wheel, uint64_t now_ns) {
  memset(wheel, 0, sizeof *wheel);
  wheel->now = now_ns >> MLI_TICK_BITS;
  for (unsigned i = 0; i <= MLI_WHEEL_DUE; i++) wheel->slots[i].last = &wheel->slots[i].first;
}

static inline unsigned lowest(uint64_t bits) { return (unsigned)__builtin_ctzll(bits); }

/* Notes whether the slot holds timers. */
static void mark(mli_wheel *wheel, unsigned index, bool occupied) {
  if (index == MLI_WHEEL_DUE) return;
  uint64_t *word = index < MLI_WHEEL_NEAR ? &wheel->near[index / 64]
                                          : &wheel->far[(index - MLI_WHEEL_NEAR) / 64];
  uint64_t bit = UINT64_C(1) << (index % 64);
  *word = occupied ? *word | bit : *word & ~bit;
  if (index >= MLI_WHEEL_NEAR) return;
  bit = UINT64_C(1) << (index / 64);
  wheel->near_set = *word ? wheel->near_set | bit : wheel->near_set & ~bit;
}

static void append(mli_wheel *wheel, mli_timer *t, unsigned index) {
  struct mli_wheel_slot *slot = &wheel->slots[index];
  if (!slot->first) mark(wheel, index, true);
  t->slot = (uint16_t)index;
  t->next = NULL;
  t->link = slot->last;
  *slot->last = t;
  slot->last = &t->next;
}

static void detach(mli_wheel *wheel, mli_timer *t) {
  struct mli_wheel_slot *slot = &wheel->slots[t->slot];
  *t->link = t->next;
  if (t->next)
    t->next->link = t->link;
  else
    slot->last = t->link;
  t->link = NULL;
  if (!slot->first) mark(wheel, t->slot, false);
}

/* The ticks of a level's slot, as a shift. */
static inline unsigned level_shift(unsigned level) {
  return level == 0 ? 0 : NEAR_BITS + FAR_BITS * (level - 1);
}

/* The level is that of the highest group of bits in which the expiry differs from
** now; the slot is that group's value in the expiry. */
static void hang(mli_wheel *wheel, mli_timer *t) {
  uint64_t tick = t->tick, differ = tick ^ wheel->now;
  if (tick <= wheel->now) {
    append(wheel, t, MLI_WHEEL_DUE);
  } else if (differ < MLI_WHEEL_NEAR) {
    append(wheel, t, (unsigned)tick & NEAR_MASK);
  } else {
    unsigned level = (63 - (unsigned)__builtin_clzll(differ) - NEAR_BITS) / FAR_BITS + 1;
    unsigned slot = (unsigned)(tick >> level_shift(level)) & FAR_MASK;
    append(wheel, t, MLI_WHEEL_NEAR + (level - 1) * MLI_WHEEL_FAR + slot);
  }
}

void mli_timer_add(mli_wheel *wheel, mli_timer *t, uint64_t deadline_ns) {
  uint64_t tick = deadline_ns >> MLI_TICK_BITS;
  if (deadline_ns % MLI_TICK != 0 && tick < LAST_TICK) tick++; /* never early */
  t->tick = tick;
  hang(wheel, t);
  wheel->count++;
}

bool mli_timer_remove(mli_wheel *wheel, mli_timer *t) {
  if (!t->link) return false;
  detach(wheel, t);
  wheel->count--;
  return true;
}

/* The bits above bit `at`. */
static inline uint64_t above(uint64_t bits, unsigned at) {
  return bits & ~((UINT64_C(2) << at) - 1);
}

static bool next_near(const mli_wheel *wheel, unsigned *slot) {
  unsigned at = (unsigned)wheel->now & NEAR_MASK, word = at / 64;
  uint64_t later = above(wheel->near[word], at % 64);
  if (!later) {
    uint64_t words = above(wheel->near_set, word);
    if (!words) return false;
    word = lowest(words);
    later = wheel->near[word];
  }
  *slot = word * 64 + lowest(later);
  return true;
}

/* The first occupied slot after now: its index, and the tick it starts at. */
static bool next_slot(const mli_wheel *wheel, unsigned *index, uint64_t *start) {
  if (next_near(wheel, index)) {
    *start = (wheel->now & ~(uint64_t)NEAR_MASK) | *index;
    return true;
  }
  for (unsigned level = 1; level <= MLI_WHEEL_LEVELS; level++) {
    unsigned shift = level_shift(level), at = (unsigned)(wheel->now >> shift) & FAR_MASK;
    uint64_t later = above(wheel->far[level - 1], at);
    if (!later) continue;
    unsigned slot = lowest(later);
    *index = MLI_WHEEL_NEAR + (level - 1) * MLI_WHEEL_FAR + slot;
    *start = wheel->now >> (shift + FAR_BITS) << (shift + FAR_BITS) | (uint64_t)slot << shift;
    return true;
  }
  return false;
}

/* Timers that fire together were started far apart: with many of them each lies in
** memory that the processor has to fetch, amid what its `fire` needs. */
static inline void fetch(const mli_timer *t) {
  const char *at = (const char *)t;
  for (int line = 0; line < 3; line++) __builtin_prefetch(at + 64 * line);
}

/* Time has come to this slot: what is in it is due, or belongs to a finer slot now. */
static void unpack(mli_wheel *wheel, unsigned index) {
  struct mli_wheel_slot *slot = &wheel->slots[index];
  mli_timer *t = slot->first;
  slot->first = NULL;
  slot->last = &slot->first;
  mark(wheel, index, false);
  for (mli_timer *next; t; t = next) {
    next = t->next;
    if (next) __builtin_prefetch(next->next);
    hang(wheel, t);
  }
}

bool mli_wheel_advance(mli_wheel *wheel, uint64_t now_ns, unsigned limit) {
  uint64_t now = now_ns >> MLI_TICK_BITS, start;
  struct mli_wheel_slot *due = &wheel->slots[MLI_WHEEL_DUE];
  unsigned index;
  for (;;) {
    for (mli_timer *t; (t = due->first); t->fire(t)) {
      if (limit-- == 0) return true;
      mli_timer_remove(wheel, t);
      wheel->fired++;
      if (t->next && t->next->next) fetch(t->next->next);
    }
    if (!next_slot(wheel, &index, &start) || start > now) break;
    wheel->now = start;
    unpack(wheel, index);
  }
  if (now > wheel->now) wheel->now = now;
  return false;
}

void mli_wheel_move_seen(mli_wheel *from, mli_wheel *to, bool apart,
                         uint64_t (*convert)(uint64_t ns)) {
  for (unsigned i = 0; i <= MLI_WHEEL_DUE; i++) {
    for (mli_timer *t = from->slots[i].first, *next; t; t = next) {
      next = t->next;
      if (!t->seen) continue;
      mli_timer_remove(from, t);
      t->apart = apart;
      mli_timer_add(to, t, convert((uint64_t)t->tick << MLI_TICK_BITS));
    }
  }
}

uint64_t mli_wheel_next(const mli_wheel *wheel) {
  unsigned index;
  uint64_t start;
  if (mli_wheel_is_due(wheel)) return 0;
  if (!next_slot(wheel, &index, &start)) return MLI_FOREVER;
  const mli_timer *first = wheel->slots[index].first;
  if (!first->next) start = first->tick; /* alone: no need to come for a finer slot */
  return start << MLI_TICK_BITS;
}
