/* trace_test.c: the store of events under threads, and histograms. */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include "check.h"
#include "core/bytes.h"
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

/* Every event of the batches that there are is whole, and those of each thread here are in order.
 */
static uint64_t read_all(void) {
  static mli_trace_batch batch;
  uint64_t events = 0;
  batch.number = batch.last = 0;
  while (mli_trace_read(&batch)) {
    uint32_t before = 0;
    for (size_t at = 0; at < batch.size; events++) {
      mli_trace_event e;
      memcpy(&e, batch.bytes + at, sizeof e);
      bool whole = e.size >= sizeof e && at + e.size <= batch.size &&
                   (e.number > before || batch.from.pid != 0) &&
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
  CHECK_EQ(kept + mli_trace_dropped(false), N);
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

/* ---- from a child process ---- */

#define PACKETS 64
#define HEAD 32 /* of a packet, before the events */

/* What a child sends of so many events. */
static size_t pack(mli_bytes *packets, uint32_t events) {
  size_t n = 0;
  CHECK(mli_trace_start(MLI_TRACE_LEAST));
  for (uint32_t i = 1; i <= events; i++) {
    mli_trace_event e = instant(i);
    mli_trace_add(&e, "name", i % 2 ? "chunk" : NULL);
  }
  while (n < PACKETS && mli_trace_pack(&packets[n])) n++;
  mli_trace_stop();
  return n;
}

static void free_all(mli_bytes *packets, size_t n) {
  for (size_t i = 0; i < n; i++) mli_bytes_free(&packets[i]);
}

static bool unpack(const mli_bytes *packet) {
  return mli_trace_unpack(4711, "child", packet->data, packet->size);
}

static void test_far_events(void) {
  enum { N = 30000 }; /* more than the child keeps */
  mli_bytes packets[PACKETS] = { { 0 } };
  static mli_trace_batch batch;
  size_t n = pack(packets, N);
  CHECK(n > 1 && n < PACKETS);
  CHECK(mli_trace_start(MLI_TRACE_LEAST * 4));
  for (size_t i = 0; i < n; i++) CHECK(unpack(&packets[i]));
  CHECK_EQ(read_all() + mli_trace_dropped(false), N);
  batch.number = batch.last = 0;
  CHECK(mli_trace_read(&batch));
  CHECK_EQ(batch.from.pid, 4711);
  CHECK(strcmp(batch.from.process, "child") == 0);
  mli_trace_stop();
  CHECK(mli_trace_start(MLI_TRACE_LEAST)); /* less than there is of it */
  for (int round = 0; round < 3; round++)
    for (size_t i = 0; i < n; i++) CHECK(unpack(&packets[i]));
  CHECK(read_all() * sizeof(mli_trace_event) <= MLI_TRACE_LEAST);
  mli_trace_process_ended(4711);
  mli_trace_stop();
  free_all(packets, n);
}

static void test_far_events_come_once(void) {
  mli_bytes first[PACKETS] = { { 0 } }, more = { 0 };
  size_t n = pack(first, 100);
  CHECK_EQ(n, 1);
  mli_trace_event e = instant(101);
  CHECK(!mli_trace_pack(&more));
  mli_trace_add(&e, "name", NULL); /* behind the others */
  CHECK(mli_trace_pack(&more));
  CHECK(more.size < first[0].size / 50);
  CHECK(!mli_trace_pack(&more));
  mli_bytes_free(&more);
  free_all(first, n);
}

/* A part of a packet is taken where it ends with an event; else, and with other bytes in it,
** it is refused, or names other things. */
static void test_far_damage(void) {
  mli_bytes packets[PACKETS] = { { 0 } };
  CHECK_EQ(pack(packets, 3), 1);
  size_t size = packets[0].size, taken = 0;
  CHECK(mli_trace_start(MLI_TRACE_LEAST));
  for (size_t part = 0; part <= size; part++) {
    mli_bytes cut = { .data = malloc(part + 1), .size = part };
    memcpy(cut.data, packets[0].data, part);
    bool good = unpack(&cut);
    CHECK(!good || part >= HEAD);
    taken += good;
    free(cut.data);
  }
  CHECK_EQ(taken, 4);
  for (size_t at = 0; at < size * 8; at++) {
    packets[0].data[at / 8] ^= (unsigned char)(1 << at % 8);
    unpack(&packets[0]);
    packets[0].data[at / 8] ^= (unsigned char)(1 << at % 8);
  }
  FILE *to = fopen("/dev/null", "w");
  mli_trace_written written;
  CHECK(to);
  if (to) CHECK_EQ(mli_trace_write(to, &written), 0);
  if (to) fclose(to);
  mli_trace_process_ended(4711);
  mli_trace_stop();
  free_all(packets, 1);
}

static atomic_bool ending;

static mli_bytes packet; /* of a child */

static void *unpack_on(void *unused) {
  (void)unused;
  while (!atomic_load(&ending)) {
    if (mli_tracing()) CHECK(unpack(&packet));
    sched_yield();
  }
  return NULL;
}

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
  pthread_t threads[4], parent;
  mli_bytes packets[PACKETS] = { { 0 } };
  CHECK_EQ(pack(packets, 3), 1);
  packet = packets[0];
  mli_trace_start(MLI_TRACE_LEAST);
  parent = check_thread(unpack_on, NULL);
  for (size_t i = 0; i < 4; i++) threads[i] = check_thread(write_on, NULL);
  for (int i = 0; i < CHECK_ROUNDS(200); i++) {
    read_all();
    pthread_join(check_thread(write_some, NULL), NULL);
    if (i % 7 == 0) mli_trace_stop();
    if (i % 7 == 1) CHECK(mli_trace_start(MLI_TRACE_LEAST));
    if (i % 5 == 0) mli_trace_process_ended(4711);
  }
  atomic_store(&ending, true);
  for (size_t i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  pthread_join(parent, NULL);
  mli_bytes_free(&packet);
  mli_trace_process_ended(4711);
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
  test_far_events();
  test_far_events_come_once();
  test_far_damage();
  test_threads();
  test_full_disk();
  return check_report();
}
