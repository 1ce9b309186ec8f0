/*
** Tests that no wait looks at the wall clock. This program brings a wall clock of
** its own, which libuv, libcurl and the C library's callers find instead of the
** system's: it is another hour each time that somebody reads it. What counts on
** monotonic time does not notice.
*/
#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>
#include "check.h"
#include "core/park.h"
#include "http/request.h"

#define MS MLI_MILLISECOND
#define VISIBLE __attribute__((visibility("default")))

/* ---- the wall clock ---- */

static atomic_uint readings;

/* Now, an hour ahead, an hour behind. */
static time_t jump(void) {
  static const time_t jumps[] = { 0, 3600, -3600 };
  return jumps[atomic_fetch_add(&readings, 1) % 3];
}

VISIBLE int clock_gettime(clockid_t id, struct timespec *at) {
  int r = (int)syscall(SYS_clock_gettime, id, at);
  if (r == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += jump();
  return r;
}

VISIBLE int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = (suseconds_t)(now.tv_nsec / 1000);
  return 0;
}

VISIBLE time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}

/* Not so much a test of ours as of this file: the libraries see the jumps. */
static void test_jumps(void) {
  uv_timeval64_t a, b;
  CHECK_EQ(uv_gettimeofday(&a), 0);
  CHECK_EQ(uv_gettimeofday(&b), 0);
  CHECK(a.tv_sec - b.tv_sec > 3000 || b.tv_sec - a.tv_sec > 3000);
}

/* ---- waits ---- */

static uint64_t began;

static void begin(void) { began = mli_now(); }

/* A wait of 50 ms has taken that; a busy machine is slow, but not by an hour. */
static void check_took_50ms(void) {
  uint64_t took = mli_now() - began;
  CHECK(took >= 50 * MS);
  CHECK(took < 10 * MLI_SECOND);
}

static void test_park(void) {
  mli_parker parker = { 0 };
  for (int i = 0; i < 3; i++) {
    begin();
    CHECK_EQ(mli_park(&parker, began + 50 * MS), ML_TIMEOUT);
    check_took_50ms();
  }
}

static bool no_turn(mli_loop *loop) {
  (void)loop;
  return false;
}
static const mli_loop_hooks quiet = { no_turn };
static mli_loop *loop;
static mli_parker rung;
static mli_timer timer;

static void *run_loop(void *argument) {
  mli_loop_run(argument);
  return NULL;
}

static void ring(mli_timer *t) {
  (void)t;
  mli_unpark(&rung);
}

static void start_timer(mli_node *node, mli_loop *l) {
  (void)node;
  timer.fire = ring;
  mli_loop_timer_start(l, &timer, began + 50 * MS);
}

static void test_timer(void) {
  for (int i = 0; i < 3; i++) {
    mli_node node = { .run = start_timer };
    begin();
    CHECK(mli_loop_post(loop, &node));
    CHECK_EQ(mli_park(&rung, began + 30 * MLI_SECOND), ML_OK);
    check_took_50ms();
  }
}

typedef struct waiter {
  mli_waker waker;
  mli_parker parker;
} waiter;

static void wake(mli_waker *w) { mli_unpark(&mli_container(w, waiter, waker)->parker); }

/* A server that takes connections and says nothing. */
static int listen_silently(unsigned *port) {
  struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  socklen_t size = sizeof at;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&at, size) != 0 || listen(fd, 8) != 0 ||
      getsockname(fd, (struct sockaddr *)&at, &size) != 0)
    abort();
  *port = ntohs(at.sin_port);
  return fd;
}

static void test_http(void) {
  unsigned port;
  int fd = listen_silently(&port);
  char url[64];
  snprintf(url, sizeof url, "http://127.0.0.1:%u/", port);
  for (int i = 0; i < 3; i++) {
    waiter w = { .waker.wake = wake };
    mli_http *h = mli_http_new(loop);
    if (!h) abort();
    h->url = url;
    h->timeout = 50;
    begin();
    mli_op_begin(&h->op, &w.waker);
    CHECK_EQ(mli_park(&w.parker, began + 30 * MLI_SECOND), ML_OK);
    CHECK_EQ(h->op.status, ML_TIMEOUT);
    check_took_50ms();
    mli_release(&h->op);
  }
  close(fd);
}

static void stop(mli_node *node, mli_loop *l) {
  (void)node;
  mli_loop_stop(l);
}

int main(void) {
  if (mli_loop_new(&loop, &quiet, NULL) != ML_OK) abort();
  pthread_t thread = check_thread(run_loop, loop);
  test_jumps();
  test_park();
  test_timer();
  test_http();
  mli_node last = { .run = stop };
  CHECK(mli_loop_post(loop, &last));
  pthread_join(thread, NULL);
  mli_release(loop);
  return check_report();
}
