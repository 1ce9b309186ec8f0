/* trace_test.c: the store of events under threads, and histograms. */
#include <errno.h>
#include <string.h>
#include "check.h"
#include "core/stats.h"
#include "core/trace.h"

/* ---- histograms ---- */

static int compare(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static void test_percentiles(void) {
  static mli_histogram h;
  static uint64_t values[5000];
  uint64_t n = sizeof values / sizeof *values, seed = 1;
  for (uint64_t i = 0; i < n; i++) {
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    values[i] = (seed >> 33) >> (seed >> 20 & 31); /* of all sizes */
    mli_histogram_add(&h, values[i]);
  }
  qsort(values, n, sizeof *values, compare);
  static const double parts[] = { 0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0 };
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    double at = parts[i] * (double)n;
    uint64_t rank = (uint64_t)at < at || at < 1 ? (uint64_t)at + 1 : (uint64_t)at;
    uint64_t exact = values[rank - 1], got = mli_histogram_at(&h, parts[i]);
    CHECK(got >= exact);
    CHECK(got <= exact + exact / 16);
  }
  CHECK_EQ(mli_histogram_at(&h, 1), values[n - 1]);
  CHECK_EQ(atomic_load(&h.count), n);
}

static void test_edges(void) {
  static mli_histogram h, one, huge;
  CHECK_EQ(mli_histogram_at(&h, 0.5), 0);
  mli_histogram_add(&one, 0);
  CHECK_EQ(mli_histogram_at(&one, 1), 0);
  mli_histogram_add(&huge, UINT64_MAX);
  CHECK_EQ(mli_histogram_at(&huge, 0.5) > 0, 1);
}

/* ---- the store ---- */

static mli_trace_event instant(uint32_t number) {
  return (mli_trace_event){
    .shape = MLI_TRACE_INSTANT, .topic = MLI_TRACE_GC, .number = number, .at = 1
  };
}

/* Every event of the batches that there are is whole, and each thread's are in order. */
static uint64_t read_all(void) {
  static mli_trace_batch batch;
  uint64_t events = 0;
  batch.number = batch.last = 0;
  while (mli_trace_read(&batch)) {
    uint32_t before = 0;
    for (size_t at = 0; at < batch.size; events++) {
      mli_trace_event e;
      memcpy(&e, batch.bytes + at, sizeof e);
      bool whole = e.size >= sizeof e && at + e.size <= batch.size && e.number > before &&
                   strcmp(batch.bytes + at + offsetof(mli_trace_event, text), "name") == 0;
      if (!whole) {
        CHECK(whole);
        return 0;
      }
      before = e.number;
      at += e.size;
    }
  }
  return events;
}

static void test_newest_stay(void) {
  enum { N = 100000 };
  CHECK(mli_trace_start(MLI_TRACE_LEAST));
  for (uint32_t i = 1; i <= N; i++) {
    mli_trace_event e = instant(i);
    mli_trace_add(&e, "name", NULL);
  }
  mli_trace_stop();
  uint64_t kept = read_all();
  CHECK(kept > 10000);
  CHECK(kept * sizeof(mli_trace_event) <= MLI_TRACE_LEAST);
  CHECK_EQ(kept + mli_trace_dropped(), N);
}

static void test_long_texts_are_cut(void) {
  char text[1000];
  static mli_trace_batch batch;
  memset(text, 'x', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  CHECK(mli_trace_start(MLI_TRACE_LEAST));
  mli_trace_event e = instant(1);
  mli_trace_add(&e, text, text);
  mli_trace_stop();
  batch.number = batch.last = 0;
  CHECK(mli_trace_read(&batch));
  const char *name = batch.bytes + offsetof(mli_trace_event, text);
  CHECK_EQ(strlen(name), MLI_TRACE_TEXT);
  CHECK_EQ(strlen(name + MLI_TRACE_TEXT + 1), MLI_TRACE_TEXT);
}

static atomic_bool ending;

static void *write_on(void *unused) {
  (void)unused;
  for (uint32_t i = 1; !atomic_load(&ending); i++) {
    mli_trace_event e = instant(i);
    if (mli_tracing()) mli_trace_add(&e, "name", NULL);
  }
  return NULL;
}

static void *write_some(void *unused) {
  (void)unused;
  for (uint32_t i = 1; i <= 100; i++) {
    mli_trace_event e = instant(i);
    mli_trace_add(&e, "name", NULL);
  }
  return NULL;
}

/* Threads write, come and go; one reads, stops and starts. */
static void test_threads(void) {
  pthread_t threads[4];
  mli_trace_start(MLI_TRACE_LEAST);
  for (size_t i = 0; i < 4; i++) threads[i] = check_thread(write_on, NULL);
  for (int i = 0; i < CHECK_ROUNDS(200); i++) {
    read_all();
    pthread_join(check_thread(write_some, NULL), NULL);
    if (i % 7 == 0) mli_trace_stop();
    if (i % 7 == 1) CHECK(mli_trace_start(MLI_TRACE_LEAST));
  }
  atomic_store(&ending, true);
  for (size_t i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  mli_trace_stop();
  CHECK(mli_trace_start(MLI_TRACE_LEAST)); /* forgets the threads, which are gone */
  mli_trace_stop();
  CHECK_EQ(read_all(), 0);
}

static void test_full_disk(void) {
  mli_trace_written written;
  FILE *to = fopen("/dev/full", "w");
  CHECK(to);
  CHECK(mli_trace_start(MLI_TRACE_LEAST));
  write_some(NULL);
  mli_trace_stop();
  if (!to) return;
  CHECK_EQ(mli_trace_write(to, &written), ENOSPC);
  fclose(to);
}

int main(void) {
  test_percentiles();
  test_edges();
  test_newest_stay();
  test_long_texts_are_cut();
  test_threads();
  test_full_disk();
  return check_report();
}
