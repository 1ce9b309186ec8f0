/*
** Tests of the HTTP engine against a small server with manners good and bad: a
** process of its own, a thread per connection, and the path says what it does.
*/
#include <arpa/inet.h>
#include <curl/curl.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "check.h"
#include "core/park.h"
#include "http/request.h"
#include "http/session.h"

/* ---- the server ---- */

static unsigned port, dead_port;
static struct shared {
  atomic_int accepted, open;
  atomic_bool silent; /* to those who want TLS */
} * shared;

static void say(int fd, const char *text) {
  if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0) return;
}

static _Thread_local bool is_head;

static void answer(int fd, const char *head, const char *body, size_t size) {
  char text[512];
  snprintf(text, sizeof text, "HTTP/1.1 200 Very well\r\nContent-Length: %zu\r\n%s\r\n", size,
           head);
  say(fd, text);
  for (size_t at = 0; at < size && !is_head;) {
    ssize_t n = send(fd, body + at, size - at, MSG_NOSIGNAL);
    if (n <= 0) return;
    at += (size_t)n;
  }
}

static void redirect(int fd, int status, const char *to) {
  char text[256];
  snprintf(text, sizeof text,
           "HTTP/1.1 %d Elsewhere\r\nLocation: %s\r\nContent-Length: 4\r\n\r\ngone", status, to);
  say(fd, text);
}

static void wait_for_close(int fd) {
  struct pollfd p = { fd, POLLRDHUP, 0 };
  poll(&p, 1, 20000);
}

/* Does what the path says. False: close the connection. */
static bool serve(int fd, const char *path, const char *request, size_t size) {
  size_t n;
  int k;
  char text[64];
  if (strcmp(path, "/hello") == 0) {
    answer(fd, "X-One: 1\r\nSet-Cookie: a=1\r\nset-cookie:b=2  \r\nEmpty:\r\nX-Fold: a\r\n  b\r\n",
           "hello", 5);
  } else if (strcmp(path, "/echo") == 0) {
    answer(fd, "", request, size);
  } else if (sscanf(path, "/redirect/%d", &k) == 1) {
    snprintf(text, sizeof text, k > 1 ? "/redirect/%d" : "/hello", k - 1);
    redirect(fd, 302, text);
  } else if (sscanf(path, "/to-echo/%d", &k) == 1) {
    redirect(fd, k, "/echo");
  } else if (strcmp(path, "/to-file") == 0) {
    redirect(fd, 302, "file:///etc/passwd");
  } else if (sscanf(path, "/big/%zu", &n) == 1) {
    char *body = malloc(n + 1);
    for (size_t i = 0; i < n; i++) body[i] = (char)('a' + i % 26);
    answer(fd, "", body, n);
    free(body);
  } else if (strcmp(path, "/chunked") == 0) {
    say(fd,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n"
        "X-Trailer: 1\r\n\r\n");
  } else if (strcmp(path, "/interim") == 0) {
    say(fd,
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\nX-Last: 1\r\n\r\n");
  } else if (strcmp(path, "/slow") == 0) {
    wait_for_close(fd);
    return false;
  } else if (strcmp(path, "/half") == 0) {
    say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789");
    return false;
  } else if (strcmp(path, "/stuck") == 0) {
    say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789");
    wait_for_close(fd);
    return false;
  } else if (strcmp(path, "/drip") == 0) { /* always something, never enough */
    say(fd, "HTTP/1.1 200 OK\r\n");
    for (k = 0; k < 200 && send(fd, k % 2 ? ":\r\n" : "X", k % 2 ? 3 : 1, MSG_NOSIGNAL) > 0; k++)
      usleep(10000);
    return false;
  } else if (strcmp(path, "/garbage") == 0) {
    say(fd, "SSH-2.0-nothing\r\n\r\n");
    return false;
  } else if (strcmp(path, "/heads") == 0) {
    say(fd, "HTTP/1.1 200 OK\r\n");
    for (k = 0; k < 20000; k++) say(fd, "X-More: and more and more and more and more\r\n");
    return false;
  } else if (strcmp(path, "/bye") == 0) {
    answer(fd, "", "bye", 3);
    return false; /* without having said so */
  } else {
    return false; /* "/nothing" */
  }
  return true;
}

static void *connection(void *argument) {
  int fd = (int)(intptr_t)argument;
  static const size_t room = 1 << 20;
  char *in = malloc(room);
  size_t have = 0;
  for (bool go = true; go;) {
    in[have] = 0;
    char *end = strstr(in, "\r\n\r\n");
    if (!end) {
      ssize_t n = recv(fd, in + have, room - have - 1, 0);
      if (n <= 0) break;
      have += (size_t)n;
      if (*in == 0x16 && !atomic_load(&shared->silent)) { /* a TLS handshake */
        say(fd, "SSH-2.0-nothing\r\n");
        break;
      }
      continue;
    }
    size_t head = (size_t)(end - in) + 4, body = 0;
    char *length = strcasestr(in, "\r\nContent-Length:");
    if (length && length < end) body = (size_t)atoll(length + 17);
    while (have < head + body) {
      ssize_t n = recv(fd, in + have, room - have - 1, 0);
      if (n <= 0) goto out;
      have += (size_t)n;
    }
    char path[128] = "";
    sscanf(in, "%*s %127s", path);
    is_head = strncmp(in, "HEAD ", 5) == 0;
    go = serve(fd, path, in, head + body);
    have -= head + body;
    memmove(in, in + head + body, have);
  }
out:
  free(in);
  close(fd);
  atomic_fetch_sub(&shared->open, 1);
  return NULL;
}

static void server(int listening) {
  for (;;) {
    int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) continue;
    atomic_fetch_add(&shared->accepted, 1);
    atomic_fetch_add(&shared->open, 1);
    pthread_detach(check_thread(connection, (void *)(intptr_t)fd));
  }
}

static int listen_on(unsigned *at) {
  struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  socklen_t size = sizeof a;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&a, size) || listen(fd, 512) ||
      getsockname(fd, (struct sockaddr *)&a, &size))
    abort();
  *at = ntohs(a.sin_port);
  return fd;
}

static pid_t start_server(void) {
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) abort();
  int listening = listen_on(&port);
  pid_t parent = getpid(), child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    server(listening);
  }
  if (child < 0) abort();
  close(listening);
  return child;
}

/* ---- a loop on a thread, and waiting for a request ---- */

static bool turn(mli_loop *loop) {
  (void)loop;
  return false;
}
static const mli_loop_hooks hooks = { turn };

static mli_loop *loop;
static pthread_t loop_thread;

static void *run_loop(void *unused) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  mli_loop_run(loop);
  return unused;
}

static void open_loop(void) {
  CHECK_EQ(mli_loop_new(&loop, &hooks, NULL), ML_OK);
  loop_thread = check_thread(run_loop, NULL);
}

static void stop(mli_node *node, mli_loop *l) {
  free(node);
  mli_loop_stop(l);
}

static void close_loop(void) {
  mli_node *node = malloc(sizeof *node);
  node->run = stop;
  CHECK(mli_loop_post(loop, node));
  pthread_join(loop_thread, NULL);
  mli_release(loop);
}

typedef struct waiter {
  mli_waker waker;
  mli_parker parker;
} waiter;

static void wake(mli_waker *w) { mli_unpark(&mli_container(w, waiter, waker)->parker); }

static void begin(mli_http *h, waiter *w) {
  memset(w, 0, sizeof *w);
  w->waker.wake = wake;
  mli_op_begin(&h->op, &w->waker);
}

static void wait_for(waiter *w) {
  ml_status status;
  do status = mli_park(&w->parker, mli_now() + 30 * MLI_SECOND);
  while (status == ML_INTERRUPTED);
  CHECK_EQ(status, ML_OK);
}

static mli_http *request(const char *path) {
  char url[256];
  mli_http *h = mli_http_new(loop);
  snprintf(url, sizeof url, "http://127.0.0.1:%u%s", port, path);
  h->url = mli_http_text(h, url, strlen(url));
  return h;
}

static mli_http *run(mli_http *h) {
  waiter w;
  begin(h, &w);
  wait_for(&w);
  return h;
}

static mli_http *get(const char *path) { return run(request(path)); }

static bool body_is(const mli_http *h, const char *text) {
  return h->in.size - h->head == strlen(text) &&
         memcmp(h->in.bytes + h->head, text, strlen(text)) == 0;
}

static bool body_has(const mli_http *h, const char *text) {
  return h->in.bytes &&
         memmem(h->in.bytes + h->head, h->in.size - h->head, text, strlen(text)) != NULL;
}

static bool failed_with(const mli_http *h, const char *code) {
  if (h->op.status != ML_OK && h->op.code && strcmp(h->op.code, code) == 0) return true;
  printf("  wanted %s, got %s: %s\n", code, h->op.code ? h->op.code : "none",
         h->op.message ? h->op.message : "none");
  return false;
}

/* ---- the tests ---- */

static void test_get(void) {
  mli_http *h = get("/hello");
  CHECK_EQ(h->op.status, ML_OK);
  CHECK_EQ(h->status, 200);
  CHECK(body_is(h, "hello"));
  CHECK(strcmp(mli_http_protocol(h), "1.1") == 0);
  CHECK(strcmp(h->final, h->url) == 0);
  size_t size, at = 0;
  const char *reason = mli_http_reason(h, &size);
  CHECK(size == 9 && memcmp(reason, "Very well", 9) == 0);
  mli_http_field f;
  CHECK(mli_http_next_field(h->in.bytes, h->head, &at, "SET-COOKIE", 10, &f));
  CHECK(f.value_size == 3 && memcmp(f.value, "a=1", 3) == 0);
  CHECK(mli_http_next_field(h->in.bytes, h->head, &at, "SET-COOKIE", 10, &f));
  CHECK(f.value_size == 3 && memcmp(f.value, "b=2", 3) == 0);
  CHECK(!mli_http_next_field(h->in.bytes, h->head, &at, "SET-COOKIE", 10, &f));
  at = 0;
  CHECK(mli_http_next_field(h->in.bytes, h->head, &at, "empty", 5, &f) && f.value_size == 0);
  at = 0;
  CHECK(mli_http_next_field(h->in.bytes, h->head, &at, "x-fold", 6, &f));
  /* A libcurl that joins folded lines leaves one of the blanks. */
  CHECK(f.value_size == 4 ? memcmp(f.value, "a  b", 4) == 0
                          : f.value_size == 3 && memcmp(f.value, "a b", 3) == 0);
  int fields = 0;
  for (at = 0; mli_http_next_field(h->in.bytes, h->head, &at, NULL, 0, &f);) fields++;
  CHECK_EQ(fields, 6);
  CHECK(h->times.total > 0 && h->times.total >= h->times.first_byte);
  mli_release(&h->op);
}

static void test_reuse(void) {
  mli_release(&get("/hello")->op);
  int before = atomic_load(&shared->accepted);
  for (int i = 0; i < 20; i++) mli_release(&get("/hello")->op);
  CHECK_EQ(atomic_load(&shared->accepted), before);
}

/* A server that closed while the connection was idle: the next request gets another. */
static void test_idle_close(void) {
  for (int i = 0; i < 10; i++) {
    mli_http *h = get("/bye");
    CHECK_EQ(h->op.status, ML_OK);
    mli_release(&h->op);
    usleep(2000);
  }
}

static void test_body(void) {
  mli_http *h = get("/big/3000000");
  CHECK_EQ(h->in.size - h->head, 3000000);
  CHECK(h->in.bytes[h->head + 2999999] == 'a' + 2999999 % 26);
  mli_release(&h->op);
  h = get("/big/0");
  CHECK_EQ(h->op.status, ML_OK);
  CHECK_EQ(h->in.size, h->head);
  mli_release(&h->op);
  h = get("/chunked");
  CHECK(body_is(h, "hello world"));
  size_t at = 0;
  mli_http_field f;
  CHECK(!mli_http_next_field(h->in.bytes, h->head, &at, "x-trailer", 9, &f));
  mli_release(&h->op);
  h = get("/interim");
  CHECK_EQ(h->status, 204);
  at = 0;
  CHECK(!mli_http_next_field(h->in.bytes, h->head, &at, "link", 4, &f));
  mli_release(&h->op);
  h = request("/big/100000");
  h->max_body = 99999;
  CHECK(failed_with(run(h), "too_large"));
  mli_release(&h->op);
  h = request("/big/100000");
  h->max_body = 100000;
  CHECK_EQ(run(h)->op.status, ML_OK);
  mli_release(&h->op);
}

static mli_http *with_body(const char *method, const char *path) {
  mli_http *h = request(path);
  h->method = method;
  h->body = "a body";
  h->body_size = 6;
  return h;
}

static void test_methods(void) {
  mli_http *h = run(with_body("POST", "/echo"));
  CHECK(body_has(h, "POST /echo HTTP/1.1\r\n") && body_has(h, "\r\n\r\na body"));
  CHECK(!body_has(h, "Content-Type") && !body_has(h, "Expect"));
  mli_release(&h->op);
  h = request("/echo");
  h->method = "PUT";
  run(h);
  CHECK(body_has(h, "PUT /echo") && body_has(h, "Content-Length: 0"));
  mli_release(&h->op);
  h = request("/echo");
  h->method = "DELETE";
  run(h);
  CHECK(body_has(h, "DELETE /echo") && !body_has(h, "Content-Length"));
  mli_release(&h->op);
  h = request("/big/77");
  h->method = "HEAD";
  run(h);
  CHECK(h->op.status == ML_OK && h->in.size == h->head && h->status == 200);
  mli_release(&h->op);
  /* Nothing of all this is left for the next. */
  h = request("/echo");
  CHECK(mli_http_add_header(h, "X-Mine", 6, "yes", 3));
  CHECK(mli_http_add_header(h, "X-Empty", 7, "", 0));
  CHECK(mli_http_add_header(h, "Accept", 6, "text/x", 6));
  run(h);
  CHECK(body_has(h, "GET /echo") && !body_has(h, "a body") && !body_has(h, "Content-"));
  CHECK(body_has(h, "X-Mine: yes\r\n") && body_has(h, "X-Empty:\r\n"));
  CHECK(body_has(h, "Accept: text/x\r\n") && body_has(h, "User-Agent: moonloop/"));
  mli_release(&h->op);
  h = get("/echo");
  CHECK(!body_has(h, "X-Mine") && !body_has(h, "Accept:"));
  mli_release(&h->op);
}

static void test_redirects(void) {
  char want[128];
  mli_http *h = get("/redirect/3");
  CHECK(h->op.status == ML_OK && body_is(h, "hello"));
  snprintf(want, sizeof want, "http://127.0.0.1:%u/hello", port);
  CHECK(strcmp(h->final, want) == 0);
  mli_release(&h->op);
  CHECK(failed_with(h = get("/redirect/11"), "redirects"));
  mli_release(&h->op);
  CHECK(failed_with(h = get("/to-file"), "redirects"));
  mli_release(&h->op);
  h = request("/redirect/3");
  h->follow = false;
  run(h);
  CHECK(h->status == 302 && body_is(h, "gone"));
  mli_release(&h->op);
  h = request("/redirect/1");
  h->max_redirects = 0;
  CHECK(failed_with(run(h), "redirects"));
  mli_release(&h->op);

  static const struct {
    int status;
    const char *method, *after;
    bool body;
  } cases[] = {
    { 301, "POST", "GET", false },     { 302, "POST", "GET", false },
    { 303, "POST", "GET", false },     { 307, "POST", "POST", true },
    { 308, "POST", "POST", true },     { 302, "PATCH", "PATCH", true },
    { 303, "PATCH", "GET", false },    { 307, "PUT", "PUT", true },
    { 303, "DELETE", "GET", false },   { 303, "HEAD", "HEAD", false },
    { 308, "DELETE", "DELETE", true },
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char path[32];
    snprintf(path, sizeof path, "/to-echo/%d", cases[i].status);
    bool head = strcmp(cases[i].method, "HEAD") == 0;
    h = head ? request(path) : with_body(cases[i].method, path);
    h->method = cases[i].method;
    run(h);
    CHECK_EQ(h->op.status, ML_OK);
    snprintf(want, sizeof want, "%s /echo HTTP", cases[i].after);
    if (!(head || CHECK(body_has(h, want) && body_has(h, "a body") == cases[i].body)))
      printf("  %d of %s gave %.*s\n", cases[i].status, cases[i].method,
             (int)(h->in.size - h->head), h->in.bytes + h->head);
    mli_release(&h->op);
  }
}

/* A password in a URL is for that URL, whichever handle serves the next request. */
static void test_credentials(void) {
  char url[128];
  mli_http *h = mli_http_new(loop);
  snprintf(url, sizeof url, "http://me:secret@127.0.0.1:%u/echo", port);
  h->url = url;
  run(h);
  CHECK(body_has(h, "Authorization: Basic "));
  mli_release(&h->op);
  h = get("/echo");
  CHECK(!body_has(h, "Authorization"));
  mli_release(&h->op);
  h = mli_http_new(loop);
  snprintf(url, sizeof url, "http://me:secret@127.0.0.1:%u/nothing?token=abc", port);
  h->url = url;
  CHECK(failed_with(run(h), "closed"));
  CHECK(!strstr(h->op.message, "secret") && !strstr(h->op.message, "abc"));
  CHECK(strstr(h->op.message, "/nothing"));
  mli_release(&h->op);
}

static void test_failures(void) {
  static const struct {
    const char *path, *code;
  } cases[] = { { "/nothing", "closed" },
                { "/half", "closed" },
                { "/garbage", "protocol" },
                { "/heads", "too_large" } };
  mli_http *h;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    CHECK(failed_with(h = get(cases[i].path), cases[i].code));
    CHECK(h->op.message && strstr(h->op.message, cases[i].path));
    mli_release(&h->op);
  }
  static const char *const bad[] = { "",
                                     "example.com/x",
                                     "ftp://127.0.0.1/",
                                     "http://",
                                     "http://:80/",
                                     "http://127.0.0.1:99999/",
                                     "http://a b/",
                                     "file:///etc/passwd" };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    h = mli_http_new(loop);
    h->url = bad[i];
    CHECK(failed_with(run(h), "url"));
    mli_release(&h->op);
  }
  char url[64];
  snprintf(url, sizeof url, "http://127.0.0.1:%u/", dead_port);
  h = mli_http_new(loop);
  h->url = url;
  CHECK(failed_with(run(h), "refused"));
  mli_release(&h->op);
  snprintf(url, sizeof url, "https://127.0.0.1:%u/hello", port);
  h = mli_http_new(loop);
  h->url = url;
  CHECK(failed_with(run(h), "tls"));
  mli_release(&h->op);
}

/* Where nobody takes connections and the queue for them is full: a client's first
** packet is dropped, and so are those after it. */
static void test_black_hole(void) {
  unsigned at;
  int listening = listen_on(&at), clients[8];
  struct sockaddr_in a = { .sin_family = AF_INET,
                           .sin_port = htons((uint16_t)at),
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  CHECK_EQ(listen(listening, 0), 0);
  for (int i = 0; i < 8; i++) {
    clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(connect(clients[i], (struct sockaddr *)&a, sizeof a) < 0);
  }
  char url[64];
  snprintf(url, sizeof url, "http://127.0.0.1:%u/", at);
  for (int i = 0; i < 2; i++) {
    mli_http *h = mli_http_new(loop);
    h->url = url;
    *(i ? &h->timeout : &h->connect_timeout) = 100;
    uint64_t start = mli_now();
    CHECK(failed_with(run(h), "timeout"));
    uint64_t ms = (mli_now() - start) / MLI_MILLISECOND;
    CHECK(ms >= 99 && ms < 1000);
    CHECK(h->op.message && strstr(h->op.message, "waiting for a connection"));
    mli_release(&h->op);
  }
  for (int i = 0; i < 8; i++) close(clients[i]);
  close(listening);
}

static void test_timeouts(void) {
  static const char *const paths[] = { "/slow", "/drip", "/stuck" };
  static const char *const phases[] = { "waiting for the response", "receiving the headers",
                                        "receiving the body" };
  for (int i = 0; i < 3; i++) {
    mli_http *h = request(paths[i]);
    h->timeout = 100;
    uint64_t start = mli_now();
    CHECK(failed_with(run(h), "timeout"));
    CHECK_EQ(h->op.status, ML_TIMEOUT);
    uint64_t ms = (mli_now() - start) / MLI_MILLISECOND;
    CHECK(ms >= 99 && ms < 1000);
    CHECK(strstr(h->op.message, phases[i]));
    mli_release(&h->op);
  }
  char url[64];
  snprintf(url, sizeof url, "https://127.0.0.1:%u/hello", port);
  atomic_store(&shared->silent, true);
  mli_http *h = mli_http_new(loop);
  h->url = url;
  h->connect_timeout = 100;
  CHECK(failed_with(run(h), "timeout"));
  CHECK(h->op.message && strstr(h->op.message, "in the TLS handshake"));
  mli_release(&h->op);
  atomic_store(&shared->silent, false);
  h = request("/hello");
  h->timeout = 0;
  CHECK(failed_with(run(h), "timeout"));
  mli_release(&h->op);
}

/* Waits until the server has closed all that it served: the clients' sockets are gone. */
static bool connections_fall_to(int n) {
  for (int i = 0; i < 500 && atomic_load(&shared->open) > n; i++) usleep(10000);
  return atomic_load(&shared->open) <= n;
}

static void test_cancelling(void) {
  enum { N = 50 };
  mli_http *h[N];
  waiter w[N];
  int before = atomic_load(&shared->open);
  for (int i = 0; i < N; i++) begin(h[i] = request(i % 2 ? "/slow" : "/stuck"), &w[i]);
  usleep(100000);
  for (int i = 0; i < N; i++) mli_op_cancel(&h[i]->op);
  for (int i = 0; i < N; i++) {
    wait_for(&w[i]);
    CHECK_EQ(h[i]->op.status, ML_CANCELLED);
    mli_release(&h[i]->op);
  }
  CHECK(connections_fall_to(before));
  /* At once, before it can have got anywhere; and one whose host name takes a while. */
  for (int i = 0; i < N; i++) {
    h[i] = mli_http_new(loop);
    h[i]->url = i % 2 ? "http://moonloop-test.invalid/" : "http://127.0.0.1:1/";
    begin(h[i], &w[i]);
    mli_op_cancel(&h[i]->op);
  }
  for (int i = 0; i < N; i++) {
    wait_for(&w[i]);
    CHECK(h[i]->op.status != ML_OK);
    mli_release(&h[i]->op);
  }
  mli_http *after = get("/hello");
  CHECK_EQ(after->op.status, ML_OK);
  mli_release(&after->op);
}

/* More at once than the connections a host may have: all are served. */
static void test_many(void) {
  enum { N = 600 };
  static mli_http *h[N];
  static waiter w[N];
  for (int i = 0; i < N; i++) begin(h[i] = request(i % 3 ? "/hello" : "/big/20000"), &w[i]);
  int good = 0;
  for (int i = 0; i < N; i++) {
    wait_for(&w[i]);
    good += h[i]->op.status == ML_OK && h[i]->in.size - h[i]->head == (i % 3 ? 5 : 20000);
    mli_release(&h[i]->op);
  }
  CHECK_EQ(good, N);
}

/* The loop ends with requests in flight: they end as closed, and nothing is left. */
static void test_loop_end(void) {
  close_loop();
  CHECK(connections_fall_to(0));
  int files = check_open_files();
  for (int round = 0; round < 20; round++) {
    enum { N = 8 };
    mli_http *h[N];
    waiter w[N];
    open_loop();
    if (round % 2) mli_release(&get("/hello")->op);
    for (int i = 0; i < N; i++) {
      begin(h[i] = request(i % 2 ? "/slow" : "/stuck"), &w[i]);
    }
    if (round % 4 < 2) usleep(10000);
    close_loop();
    for (int i = 0; i < N; i++) {
      wait_for(&w[i]);
      CHECK_EQ(h[i]->op.status, ML_CLOSED);
      mli_release(&h[i]->op);
    }
  }
  CHECK(connections_fall_to(0));
  CHECK_EQ(check_open_files(), files);
}

/* ---- sessions ---- */

static mli_http *request_of(mli_http_session *s, const char *path) {
  mli_http *h = request(path);
  h->session = mli_retain(s);
  return h;
}

/* It is closed, by this thread or by its last reference's going, while requests begin and
** go on; or its loop ends at that very time. Each request ends, and nothing is left. */
static void test_session_ends(void) {
  enum { N = 8 };
  int files = check_open_files(), open = atomic_load(&shared->open);
  for (int round = 0; round < 60; round++) {
    mli_http *h[N];
    waiter w[N];
    bool with_loop = round % 5 == 4, dropped = round % 2;
    mli_http_session *s = mli_http_session_new(round % 3 == 0);
    open_loop();
    if (round % 4 < 2) mli_release(&run(request_of(s, "/hello"))->op);
    for (int i = 0; i < N; i++) begin(h[i] = request_of(s, i % 2 ? "/slow" : "/stuck"), &w[i]);
    if (round % 3) usleep((unsigned)round * 100);
    if (!dropped) CHECK(mli_http_session_close(s));
    if (!dropped) CHECK(!mli_http_session_close(s));
    mli_release(s);
    if (with_loop || dropped) close_loop(); /* requests in flight keep a session open */
    for (int i = 0; i < N; i++) {
      wait_for(&w[i]);
      CHECK_EQ(h[i]->op.status, ML_CLOSED);
      mli_release(&h[i]->op);
    }
    if (!with_loop && !dropped) close_loop();
  }
  CHECK(connections_fall_to(open));
  CHECK_EQ(check_open_files(), files);
}

/* At most `per_host` connections to one host, and those that stand are found again. */
static void test_session_limits(void) {
  enum { N = 300 };
  static mli_http *h[N];
  static waiter w[N];
  open_loop();
  mli_release(&get("/hello")->op); /* what earlier tests gave up has been accepted by now */
  for (long per_host = 1; per_host <= 200; per_host += 66) {
    mli_http_session *s = mli_http_session_new(false);
    mli_http_session_limit(s, &(mli_http_limits){ .per_host = per_host });
    int before = atomic_load(&shared->accepted);
    for (int burst = 0; burst < 3; burst++) {
      for (int i = 0; i < N; i++) begin(h[i] = request_of(s, "/hello"), &w[i]);
      for (int i = 0; i < N; i++) {
        wait_for(&w[i]);
        CHECK_EQ(h[i]->op.status, ML_OK);
        mli_release(&h[i]->op);
      }
    }
    mli_http_counts c = mli_http_session_counts(s);
    CHECK(c.made <= (unsigned long long)per_host);
    CHECK(atomic_load(&shared->accepted) - before <= per_host);
    CHECK_EQ(c.requests, 3 * N);
    CHECK_EQ(c.made + c.reused, 3 * N);
    CHECK_EQ(c.active + c.queued, 0);
    mli_release(s);
  }
  close_loop();
}

/* ---- lanes (src/http/lanes.h) ---- */

typedef struct placed {
  mli_http *h;
  waiter waiter;
  atomic_int place; /* in the order in which they ended, from 1; 0: it has not */
} placed;

static atomic_int places;

static void wake_placed(mli_waker *w) {
  placed *p = mli_container(mli_container(w, waiter, waker), placed, waiter);
  atomic_store(&p->place, atomic_fetch_add(&places, 1) + 1);
  wake(w);
}

static void begin_placed(placed *p, mli_http_session *s, const char *path) {
  p->h = request_of(s, path);
  atomic_store(&p->place, 0);
  memset(&p->waiter, 0, sizeof p->waiter);
  p->waiter.waker.wake = wake_placed;
  mli_op_begin(&p->h->op, &p->waiter.waker);
}

static void end_placed(placed *p, ml_status status) {
  wait_for(&p->waiter);
  CHECK_EQ(p->h->op.status, status);
  mli_release(&p->h->op);
}

static void cancel_placed(placed *p) {
  mli_op_cancel(&p->h->op);
  end_placed(p, ML_CANCELLED);
}

/* Waits until the session has so many connections, and so many requests without one. */
static void counts_become(mli_http_session *s, uint64_t connections, uint64_t queued) {
  mli_http_counts c = mli_http_session_counts(s);
  for (int i = 0; i < 2000 && (c.connections != connections || c.queued != queued); i++) {
    usleep(5000);
    c = mli_http_session_counts(s);
  }
  CHECK_EQ(c.connections, connections);
  CHECK_EQ(c.queued, queued);
}

enum { FILL = 300, LINE = 20 };

static placed held[FILL], line[LINE];

/* A session with as many requests to one host as may be, in two lanes, and some that wait. */
static mli_http_session *fill_lanes(void) {
  mli_http_session *s = mli_http_session_new(false);
  mli_http_session_limit(s, &(mli_http_limits){ .per_host = FILL, .connections = 1000 });
  for (int i = 0; i < FILL; i++) begin_placed(&held[i], s, "/slow");
  for (int i = 0; i < LINE; i++) begin_placed(&line[i], s, "/hello");
  counts_become(s, FILL, LINE);
  return s;
}

/* The limit holds over all lanes. Those beyond it wait while other hosts are served, time out,
** are cancelled, and go on in their order: one place is enough for all. */
static void test_waiting_for_lanes(void) {
  char url[64];
  mli_http_session *s = fill_lanes();
  mli_http *other = request_of(s, "/hello"), *late = request_of(s, "/hello");
  snprintf(url, sizeof url, "http://LocalHost:%u/hello", port);
  other->url = url;
  CHECK_EQ(run(other)->op.status, ML_OK);
  mli_release(&other->op);
  late->timeout = 50;
  CHECK(failed_with(run(late), "timeout"));
  mli_release(&late->op);
  cancel_placed(&line[0]);
  cancel_placed(&line[7]);
  cancel_placed(&line[LINE - 1]);
  for (int i = 0; i < LINE; i++)
    CHECK_EQ(atomic_load(&line[i].place) == 0, i != 0 && i != 7 && i != LINE - 1);
  cancel_placed(&held[200]);
  for (int i = 1, place = 0; i < LINE - 1; i++) {
    if (i == 7) continue;
    end_placed(&line[i], ML_OK);
    CHECK(atomic_load(&line[i].place) > place);
    place = atomic_load(&line[i].place);
  }
  CHECK_EQ(mli_http_session_counts(s).made, FILL + 2); /* the other host's, and that place's */
  for (int i = 0; i < FILL; i++)
    if (i != 200) cancel_placed(&held[i]);
  counts_become(s, 2, 0);
  mli_release(s);
}

/* Higher limits let those that wait begin with the next request. With lower ones the lanes
** that are too many are closed with their last request. */
static void test_changing_lanes(void) {
  mli_http_session *s = fill_lanes();
  mli_http_session_limit(s, &(mli_http_limits){ .per_host = FILL + 4, .connections = 1000 });
  mli_http *more = run(request_of(s, "/hello"));
  CHECK_EQ(more->op.status, ML_OK);
  mli_release(&more->op);
  for (int i = 0; i < LINE; i++) end_placed(&line[i], ML_OK);
  CHECK_EQ(mli_http_session_counts(s).made, FILL + 4);
  mli_http_session_limit(s, &(mli_http_limits){ .per_host = 1 });
  begin_placed(&line[0], s, "/hello");
  for (int i = 0; i < FILL; i++) cancel_placed(&held[i]);
  end_placed(&line[0], ML_OK);
  for (int i = 0; i < 1000 && mli_http_session_counts(s).connections > 2; i++) usleep(5000);
  CHECK(mli_http_session_counts(s).connections <= 2); /* those of the first lane */
  mli_release(s);
}

/* A session that is closed ends those that wait, too. */
static void test_closing_lanes(void) {
  mli_http_session *s = fill_lanes();
  CHECK(mli_http_session_close(s));
  for (int i = 0; i < FILL; i++) end_placed(&held[i], ML_CLOSED);
  for (int i = 0; i < LINE; i++) end_placed(&line[i], ML_CLOSED);
  counts_become(s, 0, 0);
  mli_release(s);
}

static void test_lanes(void) {
  int files = check_open_files(), open = atomic_load(&shared->open);
  open_loop();
  test_waiting_for_lanes();
  test_changing_lanes();
  test_closing_lanes();
  close_loop();
  CHECK(connections_fall_to(open));
  CHECK_EQ(check_open_files(), files);
}

static void test_parts(void) {
  char out[32];
  CHECK(strcmp(mli_http_masked("http://u:p@h/x?y#z", out, sizeof out), "http://h/x") == 0);
  CHECK(strcmp(mli_http_masked("http://h?a@b", out, sizeof out), "http://h") == 0);
  CHECK(strcmp(mli_http_masked("u:p@h", out, sizeof out), "h") == 0);
  CHECK(strlen(mli_http_masked("http://a-very-long-host-name.example/and/a/path", out, 32)) == 31);
  CHECK(mli_http_is_token("X-A_b", 5) && !mli_http_is_token("a b", 3) && !mli_http_is_token("", 0));
  CHECK(!mli_http_is_token("a:b", 3) && !mli_http_is_token("a\0b", 3));
  CHECK(mli_http_is_value("a b", 3) && !mli_http_is_value("a\nb", 3) &&
        !mli_http_is_value("\0", 1));
}

/* ---- signals ---- */

/* libcurl and the others find this one: it counts who meddles with SIGPIPE. */
static atomic_uint pipe_changes;

__attribute__((visibility("default"))) int
sigaction(int signal, const struct sigaction *restrict set, struct sigaction *restrict old) {
  static int (*real)(int, const struct sigaction *, struct sigaction *);
  if (!real)
    real = (int (*)(int, const struct sigaction *, struct sigaction *))dlsym(RTLD_NEXT,
                                                                             "sigaction");
  if (signal == SIGPIPE && set) atomic_fetch_add(&pipe_changes, 1);
  return real(signal, set, old);
}

/* Not so much a test of ours as of the one above: it would see libcurl. */
static void test_signals_seen(void) {
  curl_easy_cleanup(curl_easy_init());
  CHECK(atomic_exchange(&pipe_changes, 0) > 0);
}

int main(void) {
  close(listen_on(&dead_port));
  pid_t child = start_server();
  open_loop();
  test_signals_seen();
  test_parts();
  test_get();
  test_reuse();
  test_idle_close();
  test_body();
  test_methods();
  test_redirects();
  test_credentials();
  test_failures();
  test_black_hole();
  test_timeouts();
  test_cancelling();
  test_many();
  test_loop_end();
  test_session_ends();
  test_session_limits();
  test_lanes();
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  CHECK_EQ(atomic_load(&pipe_changes), 0);
  return check_report();
}
