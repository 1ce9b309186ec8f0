/*
** floor_queue_work: how fast can a libuv loop give work to a thread of libuv's pool and be
** told that it is done? Nothing is done there, and nothing else goes on.
**
**   loop: uv_queue_work -> thread: squares -> loop: the callback that asks for the next
**
** usage: floor_queue_work [ROUNDTRIPS]
** It is what to_thread from a job costs at the least: see to_thread.lua.
*/
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

enum { WARM_UP = 1000 };

static size_t total, done;
static uint64_t asked, start, end;
static uint32_t *times;
static unsigned question, answer;
static uv_work_t work;

static int compare(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static void square(uv_work_t *req) {
  (void)req;
  answer = question * question;
}

static void ask(uv_loop_t *loop);

static void answered(uv_work_t *req, int status) {
  if (status != 0 || answer != question * question) {
    fprintf(stderr, "a wrong answer\n");
    exit(1);
  }
  if (done >= WARM_UP) times[done - WARM_UP] = (uint32_t)(uv_hrtime() - asked);
  if (++done < total)
    ask(req->loop);
  else
    end = uv_hrtime();
}

static void ask(uv_loop_t *loop) {
  question = 2 * (unsigned)done + 3;
  asked = uv_hrtime();
  if (done == WARM_UP) start = asked;
  if (uv_queue_work(loop, &work, square, answered) != 0) exit(1);
}

int main(int argc, char **argv) {
  size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 20000;
  uv_loop_t *loop = uv_default_loop();
  if (n == 0 || !loop || !(times = malloc(n * sizeof *times))) {
    fprintf(stderr, "usage: %s [ROUNDTRIPS]\n", argv[0]);
    return 2;
  }
  total = n + WARM_UP;
  ask(loop);
  uv_run(loop, UV_RUN_DEFAULT);
  qsort(times, n, sizeof *times, compare);
  printf("bench=floor_queue_work n=%zu ops_s=%.0f p50_us=%.2f p99_us=%.2f\n", n,
         (double)n * 1e9 / (double)(end - start), times[n / 2] / 1e3, times[n * 99 / 100] / 1e3);
  free(times);
  return 0;
}
