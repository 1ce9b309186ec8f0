/*
** bare.c: what HTTP requests cost in C with nothing but libcurl's multi interface and
** libuv: N GETs of a URL, C at once, connections kept alive and handles used again. The
** floor of the HTTP benches.
**
**   http_bare [-n N] [-c C] [-b B] [-o FILE] [-m] [-a CA] URL BYTES
**       BYTES: the size each body must have   B: CURLOPT_BUFFERSIZE
**       FILE: where bodies are written        -m: HTTP/2, and moonloop's other settings
**       CA: the certificate to trust
**
** Prints one line: cpu_us is the CPU time (user and system) of one request, p50_us the
** median of what they took.
*/
#include <curl/curl.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

typedef struct watch {
  uv_poll_t poll;
  curl_socket_t fd;
} watch;

typedef struct request {
  size_t got;
  uint64_t began;
} request;

static CURLM *multi;
static uv_timer_t timer;
static const char *url, *ca;
static size_t expected;
static long to_begin, to_end, wrong;
static uint32_t *took; /* ns, of those that ended */
static int file = -1;

static void die(const char *what) {
  fprintf(stderr, "http_bare: %s\n", what);
  exit(1);
}

static size_t on_body(char *data, size_t one, size_t size, void *user) {
  request *r = user;
  (void)one;
  if (file >= 0 && pwrite(file, data, size, (off_t)r->got) != (ssize_t)size) die("cannot write");
  r->got += size;
  return size;
}

static void begin(CURL *easy, request *r) {
  to_begin--;
  r->got = 0;
  r->began = uv_hrtime();
  if (curl_multi_add_handle(multi, easy) != CURLM_OK) die("curl_multi_add_handle failed");
}

static void drain(void) {
  int left;
  for (CURLMsg *m; (m = curl_multi_info_read(multi, &left));) {
    if (m->msg != CURLMSG_DONE) continue;
    CURL *easy = m->easy_handle;
    request *r;
    long status = 0;
    if (m->data.result != CURLE_OK) wrong++;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &r);
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200 || r->got != expected) wrong++;
    curl_multi_remove_handle(multi, easy);
    took[--to_end] = (uint32_t)(uv_hrtime() - r->began);
    if (to_end == 0) uv_stop(uv_default_loop());
    if (to_begin > 0) begin(easy, r);
  }
}

static void act(curl_socket_t fd, int events) {
  int running;
  curl_multi_socket_action(multi, fd, events, &running);
  drain();
}

static void on_poll(uv_poll_t *poll, int status, int events) {
  watch *w = poll->data;
  int flags = status < 0 ? CURL_CSELECT_ERR : 0;
  if (events & UV_READABLE) flags |= CURL_CSELECT_IN;
  if (events & UV_WRITABLE) flags |= CURL_CSELECT_OUT;
  act(w->fd, flags);
}

static void on_closed(uv_handle_t *handle) { free(handle->data); }

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *known) {
  watch *w = known;
  (void)easy, (void)user;
  if (what == CURL_POLL_REMOVE) {
    if (!w) return 0;
    uv_poll_stop(&w->poll);
    curl_multi_assign(multi, fd, NULL);
    uv_close((uv_handle_t *)&w->poll, on_closed);
    return 0;
  }
  if (!w) {
    w = malloc(sizeof *w);
    if (!w || uv_poll_init_socket(uv_default_loop(), &w->poll, fd)) die("cannot poll");
    w->poll.data = w;
    w->fd = fd;
    curl_multi_assign(multi, fd, w);
  }
  int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
  if (uv_poll_start(&w->poll, events, on_poll)) die("cannot poll");
  return 0;
}

static void on_timer(uv_timer_t *t) {
  (void)t;
  act(CURL_SOCKET_TIMEOUT, 0);
}

static int on_timeout(CURLM *m, long ms, void *user) {
  (void)m, (void)user;
  if (ms < 0)
    uv_timer_stop(&timer);
  else
    uv_timer_start(&timer, on_timer, (uint64_t)ms, 0);
  return 0;
}

static double cpu_seconds(void) {
  struct rusage r;
  getrusage(RUSAGE_SELF, &r);
  return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
         (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static double wall_seconds(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int by_time(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static CURL *new_easy(request *r, long buffer, bool multiplex) {
  CURL *easy = curl_easy_init();
  if (!easy) die("no memory");
  curl_easy_setopt(easy, CURLOPT_URL, url);
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, buffer);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, r);
  curl_easy_setopt(easy, CURLOPT_PRIVATE, r);
  if (ca) curl_easy_setopt(easy, CURLOPT_CAINFO, ca);
  if (multiplex) {
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "moonloop/0.1.0");
    curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
  }
  return easy;
}

int main(int argc, char **argv) {
  long n = 20000, c = 64, buffer = 16384;
  bool multiplex = false;
  for (int o; (o = getopt(argc, argv, "n:c:b:o:ma:")) != -1;) {
    if (o == 'n')
      n = atol(optarg);
    else if (o == 'c')
      c = atol(optarg);
    else if (o == 'b')
      buffer = atol(optarg);
    else if (o == 'o')
      file = open(optarg, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    else if (o == 'm')
      multiplex = true;
    else if (o == 'a')
      ca = optarg;
    else
      return 2;
  }
  if (argc - optind != 2 || n < 1 || c < 1)
    die("usage: http_bare [-n N] [-c C] [-b B] [-o FILE] [-m] [-a CA] URL BYTES");
  url = argv[optind];
  expected = (size_t)atoll(argv[optind + 1]);
  if (c > n) c = n;

  if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) die("no libcurl");
  multi = curl_multi_init();
  CURL **easies = calloc((size_t)c, sizeof *easies);
  request *requests = calloc((size_t)c, sizeof *requests);
  took = calloc((size_t)n, sizeof *took);
  if (!multi || !easies || !requests || !took || uv_timer_init(uv_default_loop(), &timer))
    die("no memory");
  curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket);
  curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timeout);
  curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, c);

  double cpu = cpu_seconds(), wall = wall_seconds();
  to_begin = to_end = n;
  for (long i = 0; i < c; i++) {
    easies[i] = new_easy(&requests[i], buffer, multiplex);
    begin(easies[i], &requests[i]);
  }
  uv_run(uv_default_loop(), UV_RUN_DEFAULT);
  cpu = cpu_seconds() - cpu;
  wall = wall_seconds() - wall;

  for (long i = 0; i < c; i++) curl_easy_cleanup(easies[i]);
  curl_multi_cleanup(multi);
  free(easies);
  free(requests);
  if (wrong || to_end) {
    fprintf(stderr, "http_bare: %ld of %ld responses were wrong\n", wrong + to_end, n);
    return 1;
  }
  qsort(took, (size_t)n, sizeof *took, by_time);
  printf("bench=http_bare n=%ld c=%ld cpu_us=%.2f cpu_ms=%.1f req_s=%.0f p50_us=%.1f\n", n, c,
         cpu * 1e6 / (double)n, cpu * 1e3, (double)n / wall, took[n / 2] / 1e3);
  free(took);
  return 0;
}
