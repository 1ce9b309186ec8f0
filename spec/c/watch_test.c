/* Tests of the thread that looks whether loops go on. */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "check.h"
#include "core/watch.h"

#define LIMIT (50 * MLI_MILLISECOND)
#define PATIENCE (20 * MLI_SECOND)

static atomic_int steps, stucks, slices;
static _Atomic(uint64_t) told_after; /* ns, of the last step */

static bool late(mli_watch *w, mli_late what, uint64_t took) {
  (void)w;
  switch (what) {
  case MLI_LATE_STEP:
    atomic_store(&told_after, took);
    atomic_fetch_add(&steps, 1);
    return true;
  case MLI_LATE_STUCK: return atomic_fetch_add(&stucks, 1) == 2;
  default: atomic_fetch_add(&slices, 1); return true;
  }
}

static void begin(mli_watch *w) {
  steps = stucks = slices = 0;
  memset(w, 0, sizeof *w);
  w->late = late;
  atomic_store(&w->limit, LIMIT);
  mli_watch_add(w);
  mli_watch_begin(w);
}

static void end(mli_watch *w) {
  mli_watch_done(w);
  mli_watch_remove(w);
}

static void moment(void) { nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL); }

static bool comes(atomic_int *count, int n) {
  uint64_t until = mli_now() + PATIENCE;
  while (atomic_load(count) < n && mli_now() < until) moment();
  return atomic_load(count) >= n;
}

static void test_once(void) {
  mli_watch w;
  begin(&w);
  CHECK(comes(&stucks, 3)); /* until it was taken */
  uint64_t until = mli_now() + 4 * LIMIT;
  while (mli_now() < until) moment();
  CHECK_EQ(1, atomic_load(&steps));
  CHECK_EQ(3, atomic_load(&stucks));
  CHECK_EQ(1, atomic_load(&w.incidents));
  mli_watch_step(&w);
  CHECK(comes(&steps, 2)); /* the next one is another */
  end(&w);
}

static void test_slices(void) {
  mli_watch w;
  begin(&w);
  mli_watch_limit(&w, 0);
  mli_watch_slice(&w, 2000);
  CHECK(comes(&slices, 5)); /* again and again, in one step */
  end(&w);
  CHECK_EQ(0, atomic_load(&steps));
}

/* Once all sleep so does it. */
static void test_parks(void) {
  mli_watch w;
  begin(&w);
  mli_watch_done(&w);
  uint64_t until = mli_now() + PATIENCE;
  while (!atomic_load(&mli_watch_parked) && mli_now() < until) moment();
  CHECK(atomic_load(&mli_watch_parked));
  mli_watch_begin(&w);
  CHECK(!atomic_load(&mli_watch_parked));
  end(&w);
}

/* ---- without a core ---- */

static atomic_bool over;

static uint64_t used(void) { return mli_clock(CLOCK_THREAD_CPUTIME_ID); }

static void *hog(void *argument) {
  (void)argument;
  while (!atomic_load(&over)) continue;
  return NULL;
}

/* A step that takes longer than the limit because another thread has the core: that does
** not count until it takes twice as long. */
static void *starve(void *argument) {
  (void)argument;
  setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 19);
  mli_watch w;
  begin(&w);
  mli_watch_limit(&w, 10 * LIMIT);
  uint64_t begun = used();
  while (atomic_load(&steps) == 0 && used() < begun + 5 * LIMIT) continue;
  if (atomic_load(&steps) > 0)
    CHECK(atomic_load(&told_after) >= 20 * LIMIT);
  else
    printf("watch_test: a core for all, nothing was waited for\n");
  end(&w);
  return NULL;
}

static void test_without_a_core(void) {
  cpu_set_t all, one;
  if (access("/proc/self/stat", R_OK) != 0) return;
  CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
    if (CPU_ISSET(i, &all)) CPU_SET(i, &one);
  CHECK(sched_setaffinity(0, sizeof one, &one) == 0); /* of the two threads; not of the watcher */
  pthread_t other = check_thread(hog, NULL), starved = check_thread(starve, NULL);
  pthread_join(starved, NULL);
  atomic_store(&over, true);
  pthread_join(other, NULL);
  CHECK(sched_setaffinity(0, sizeof all, &all) == 0);
}

int main(void) {
  test_once();
  test_slices();
  test_parks();
  test_without_a_core();
  mli_watch_end();
  return check_report();
}
