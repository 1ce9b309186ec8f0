/* Tests of the timing wheel, by hand and at random against a simple model. */
#include <string.h>
#include "check.h"
#include "core/timer.h"

#define MS MLI_MILLISECOND
#define TICK MLI_TICK

typedef struct alarm_clock {
  mli_timer timer;
  int rang, order;
  void (*also)(struct alarm_clock *);
} alarm_clock;

static mli_wheel wheel;
static int rung;

static void ring(mli_timer *timer) {
  alarm_clock *a = mli_container(timer, alarm_clock, timer);
  a->rang++;
  a->order = rung++;
  if (a->also) a->also(a);
}

static void add(alarm_clock *a, uint64_t deadline) {
  a->timer.fire = ring;
  mli_timer_add(&wheel, &a->timer, deadline);
}

static void restart(uint64_t now) {
  mli_wheel_init(&wheel, now);
  rung = 0;
}

static void test_never_early(void) {
  for (uint64_t start = 0; start < 3 * TICK; start += TICK / 3) {
    for (uint64_t wait = 0; wait < 200 * TICK; wait += 7 * TICK + 77777) {
      alarm_clock a = { 0 };
      uint64_t deadline = start + wait;
      restart(start);
      add(&a, deadline);
      if (wait) {
        mli_wheel_advance(&wheel, deadline - 1, 10);
        if (deadline % TICK) mli_wheel_advance(&wheel, deadline, 10);
        if (deadline % TICK || deadline / TICK > start / TICK) CHECK_EQ(a.rang, 0);
      }
      mli_wheel_advance(&wheel, deadline + TICK - 1, 10); /* less than a tick late */
      CHECK_EQ(a.rang, 1);
      CHECK_EQ(wheel.count, 0);
      CHECK(!mli_timer_active(&a.timer));
    }
  }
}

static void test_at_once(void) {
  alarm_clock later = { 0 }, now = { 0 };
  restart(5 * TICK + 7);
  add(&later, 5 * TICK + 7);
  CHECK(!mli_wheel_is_due(&wheel)); /* the tick has begun already: the next one */
  add(&now, 0);
  CHECK(mli_wheel_is_due(&wheel));
  CHECK_EQ(mli_wheel_next(&wheel), 0);
  mli_wheel_advance(&wheel, 5 * TICK + 7, 10);
  CHECK_EQ(now.rang, 1);
  CHECK_EQ(later.rang, 0);
  CHECK(!mli_wheel_is_due(&wheel));
}

static void test_order(void) {
  alarm_clock a[6] = { 0 };
  restart(0);
  add(&a[0], 100 * TICK);
  add(&a[1], 50 * TICK);
  add(&a[2], 100 * TICK);
  mli_wheel_advance(&wheel, 40 * TICK, 10);
  add(&a[3], 50 * TICK); /* nearer now, but it came later */
  add(&a[4], 39 * TICK); /* overdue */
  mli_wheel_advance(&wheel, 90 * TICK, 10);
  add(&a[5], 100 * TICK);
  mli_wheel_advance(&wheel, 100 * TICK, 10);
  static const int order[] = { 3, 1, 4, 2, 0, 5 };
  for (int i = 0; i < 6; i++) CHECK_EQ(a[i].order, order[i]);
}

static void test_removal(void) {
  alarm_clock a = { 0 }, b = { 0 };
  restart(0);
  CHECK(!mli_timer_remove(&wheel, &a.timer));
  CHECK(!mli_timer_active(&a.timer));
  add(&a, 10 * TICK);
  add(&b, 10 * TICK);
  CHECK(mli_timer_active(&a.timer));
  CHECK(mli_timer_remove(&wheel, &a.timer));
  CHECK(!mli_timer_remove(&wheel, &a.timer));
  mli_wheel_advance(&wheel, 20 * TICK, 10);
  CHECK_EQ(a.rang, 0);
  CHECK_EQ(b.rang, 1);
  CHECK(!mli_timer_remove(&wheel, &b.timer));
  CHECK_EQ(mli_wheel_next(&wheel), MLI_FOREVER);
}

static alarm_clock pair[2];

static void remove_other(alarm_clock *a) {
  alarm_clock *other = a == &pair[0] ? &pair[1] : &pair[0];
  CHECK(mli_timer_remove(&wheel, &other->timer));
}

static void again(alarm_clock *a) {
  if (a->rang < 3) add(a, (uint64_t)(a->rang + 1) * 10 * TICK);
}

static void at_once(alarm_clock *a) {
  if (a->rang < 5) add(a, 0);
}

static void *freed;

static void free_self(alarm_clock *a) {
  freed = a;
  free(a);
}

static void test_changes_while_firing(void) {
  restart(0);
  memset(pair, 0, sizeof pair);
  pair[0].also = pair[1].also = remove_other;
  add(&pair[0], 5 * TICK);
  add(&pair[1], 5 * TICK);
  mli_wheel_advance(&wheel, 5 * TICK, 10);
  CHECK_EQ(pair[0].rang, 1);
  CHECK_EQ(pair[1].rang, 0);
  CHECK_EQ(wheel.count, 0);

  alarm_clock repeated = { .also = again };
  restart(0);
  add(&repeated, 10 * TICK);
  mli_wheel_advance(&wheel, 15 * TICK, 10);
  CHECK_EQ(repeated.rang, 1);
  mli_wheel_advance(&wheel, 100 * TICK, 10);
  CHECK_EQ(repeated.rang, 3);

  alarm_clock eager = { .also = at_once };
  restart(0);
  add(&eager, 0);
  CHECK(mli_wheel_advance(&wheel, 0, 3)); /* the limit holds for those too */
  CHECK_EQ(eager.rang, 3);
  CHECK(!mli_wheel_advance(&wheel, 0, 3));
  CHECK_EQ(eager.rang, 5);

  alarm_clock *gone = calloc(1, sizeof *gone);
  gone->also = free_self;
  restart(0);
  add(gone, 3 * TICK);
  mli_wheel_advance(&wheel, 3 * TICK, 10);
  CHECK(freed != NULL);
}

static void test_limit(void) {
  alarm_clock a[25] = { 0 };
  restart(0);
  for (int i = 0; i < 25; i++) add(&a[i], (uint64_t)(i % 5) * TICK);
  CHECK(mli_wheel_advance(&wheel, 10 * TICK, 10));
  CHECK_EQ(rung, 10);
  CHECK_EQ(mli_wheel_next(&wheel), 0); /* come back at once */
  CHECK(mli_wheel_advance(&wheel, 10 * TICK, 10));
  CHECK(!mli_wheel_advance(&wheel, 10 * TICK, 10));
  CHECK_EQ(rung, 25);
}

/* A timer that is alone is waited for as one: no wake-ups on the way to it. */
static void test_alone(void) {
  alarm_clock a = { 0 }, b = { 0 };
  restart(123456789);
  add(&a, 3600 * MLI_SECOND);
  uint64_t next = mli_wheel_next(&wheel);
  CHECK(next >= 3600 * MLI_SECOND && next < 3600 * MLI_SECOND + TICK);
  add(&b, 3600 * MLI_SECOND + 20 * MS);
  CHECK(mli_wheel_next(&wheel) <= 3600 * MLI_SECOND);
  mli_wheel_advance(&wheel, next, 10);
  CHECK_EQ(a.rang, 1);
  CHECK_EQ(b.rang, 0);
  CHECK_EQ(wheel.fired, 1);
}

static void test_far(void) {
  const uint64_t year = 365 * 86400 * MLI_SECOND;
  alarm_clock decade = { 0 }, century = { 0 }, beyond = { 0 }, never = { 0 };
  uint64_t now = 123 * MLI_SECOND + 456;
  restart(now);
  add(&decade, now + 10 * year);
  add(&century, now + 100 * year);
  add(&beyond, now + 300 * year);
  add(&never, MLI_FOREVER);
  uint64_t at = now;
  for (int y = 1; y < 10; y++) mli_wheel_advance(&wheel, at += year, 10);
  CHECK_EQ(rung, 0);
  CHECK(mli_wheel_next(&wheel) <= now + 10 * year + TICK);
  mli_wheel_advance(&wheel, now + 10 * year + MS, 10);
  CHECK_EQ(decade.rang, 1);
  mli_wheel_advance(&wheel, now + 100 * year - MS, 10);
  CHECK_EQ(century.rang, 0);
  mli_wheel_advance(&wheel, now + 100 * year + MS, 10);
  CHECK_EQ(century.rang, 1);
  mli_wheel_advance(&wheel, now + 300 * year - MS, 10);
  CHECK_EQ(beyond.rang, 0);
  mli_wheel_advance(&wheel, now + 300 * year + MS, 10);
  CHECK_EQ(beyond.rang, 1);
  CHECK_EQ(never.rang, 0);
  CHECK(mli_timer_remove(&wheel, &never.timer));
  CHECK_EQ(wheel.count, 0);
}

/* ---- at random ---- */

enum { CLOCKS = 300, STEPS = CHECK_ROUNDS(200000) };

static struct {
  alarm_clock clock;
  bool active;
  uint64_t deadline, key; /* the tick it is ordered by */
  unsigned number;        /* and then by its start */
} model[CLOCKS];
static unsigned starts;
static uint64_t clock_now, last_key, last_number;
static int early, misplaced, unexpected;

static uint64_t seed = 88172645463325252u;
static uint64_t random_below(uint64_t n) {
  seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
  return seed % n;
}

/* Of very different sizes, the first `kinds` of them. */
static uint64_t random_span(unsigned kinds) {
  static const uint64_t spans[] = { 3 * MS,           70 * MS,           5000 * MS,
                                    300000 * MS,      20000000 * MS,     2000000000 * MS,
                                    90000000000 * MS, 2000000000000 * MS };
  return random_below(spans[random_below(kinds)]);
}

static void model_start(unsigned i, uint64_t deadline) {
  uint64_t tick = deadline / TICK + (deadline % TICK != 0);
  model[i].active = true;
  model[i].deadline = deadline;
  model[i].key = tick > wheel.now ? tick : wheel.now;
  model[i].number = starts++;
  add(&model[i].clock, deadline);
}

static void on_model_ring(alarm_clock *a) {
  unsigned i = (unsigned)((size_t)((char *)a - (char *)model) / sizeof model[0]);
  unexpected += !model[i].active;
  model[i].active = false;
  early += clock_now < model[i].deadline;
  misplaced += model[i].key < last_key ||
               (model[i].key == last_key && model[i].number < last_number);
  last_key = model[i].key;
  last_number = model[i].number;
  if (random_below(4) == 0) model_start(i, clock_now + random_span(8));
  if (random_below(8) == 0) {
    unsigned other = (unsigned)random_below(CLOCKS);
    unexpected += mli_timer_remove(&wheel, &model[other].clock.timer) != model[other].active;
    model[other].active = false;
  }
}

/* What must have fired has; what is left is counted, and `next` is not late. */
static void compare(void) {
  uint64_t next = mli_wheel_next(&wheel), first = MLI_FOREVER;
  size_t active = 0;
  int late = 0;
  for (unsigned i = 0; i < CLOCKS; i++) {
    if (model[i].active != mli_timer_active(&model[i].clock.timer)) unexpected++;
    if (!model[i].active) continue;
    active++;
    late += model[i].key <= clock_now / TICK;
    if (model[i].key * TICK < first) first = model[i].key * TICK;
  }
  if (late || active != wheel.count || next > first) {
    CHECK_EQ(late, 0);
    CHECK_EQ(active, wheel.count);
    CHECK(next <= first);
  }
}

static void test_random(void) {
  clock_now = 1000 * MLI_SECOND + 1;
  restart(clock_now);
  for (unsigned i = 0; i < CLOCKS; i++) model[i].clock.also = on_model_ring;
  for (int step = 0; step < STEPS; step++) {
    unsigned i = (unsigned)random_below(CLOCKS);
    switch (random_below(4)) {
    case 0:
    case 1:
      if (!model[i].active) model_start(i, clock_now + random_span(8));
      break;
    case 2:
      unexpected += mli_timer_remove(&wheel, &model[i].clock.timer) != model[i].active;
      model[i].active = false;
      break;
    default: {
      uint64_t next = mli_wheel_next(&wheel);
      uint64_t to = clock_now + random_span(6) / 16;
      /* As the loop does it: often to the next time exactly. */
      if (random_below(2) && next != MLI_FOREVER && next > clock_now) to = next;
      clock_now = to;
      last_key = last_number = 0;
      while (mli_wheel_advance(&wheel, clock_now, 1 + (unsigned)random_below(50))) {
      }
      compare();
    }
    }
  }
  CHECK(rung > STEPS / 20);
  CHECK_EQ(early, 0);
  CHECK_EQ(misplaced, 0);
  CHECK_EQ(unexpected, 0);
}

int main(void) {
  test_never_early();
  test_at_once();
  test_order();
  test_removal();
  test_changes_while_firing();
  test_limit();
  test_alone();
  test_far();
  test_random();
  return check_report();
}
