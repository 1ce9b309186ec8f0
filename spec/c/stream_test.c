/* stream_test.c: streams and listeners of the core, asked from another thread. */
#include "core/listener.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "check.h"

#define LIMIT (10 * MLI_SECOND)

/* ---- a loop on a thread, and a thread that waits ---- */

static bool no_turn(mli_loop *loop) {
  (void)loop;
  return false;
}

static const mli_loop_hooks hooks = { no_turn };

typedef struct rig {
  mli_loop *loop;
  pthread_t thread;
} rig;

static void *run_loop(void *argument) {
  rig *r = argument;
  mli_loop_run(r->loop);
  mli_release(r->loop);
  return NULL;
}

static void on_stop(mli_node *node, mli_loop *loop) {
  mli_loop_stop(loop);
  free(node);
}

static void rig_start(rig *r) {
  if (mli_loop_new(&r->loop, &hooks, NULL) != ML_OK) abort();
  mli_object_retain(&r->loop->object);
  r->thread = check_thread(run_loop, r);
}

static void rig_stop(rig *r) {
  mli_node *node = calloc(1, sizeof *node);
  if (!node) abort();
  node->run = on_stop;
  CHECK(mli_loop_post(r->loop, node));
  pthread_join(r->thread, NULL);
  mli_release(r->loop);
}

typedef struct waiter {
  mli_waker waker;
  mli_parker parker;
} waiter;

static void wake(mli_waker *waker) { mli_unpark(&mli_container(waker, waiter, waker)->parker); }

/* Begins an operation and returns how it ended; one that takes `limit` is cancelled. */
static ml_status run_op(mli_op *op, uint64_t limit) {
  waiter w = { .waker = { wake } };
  mli_op_begin(op, &w.waker);
  if (mli_park(&w.parker, mli_now() + limit) != ML_OK) {
    mli_op_cancel(op);
    CHECK_EQ(mli_park(&w.parker, mli_now() + LIMIT), ML_OK);
  }
  return op->status;
}

static mli_listener *listen_at(rig *r, const mli_endpoint *at) {
  mli_op *op = mli_listen_new(r->loop, at);
  mli_listener *l = NULL;
  if (CHECK_EQ(run_op(op, LIMIT), ML_OK))
    l = mli_container(mli_dial_take(op), mli_listener, socket.object);
  mli_object_release(&op->object);
  if (!l) abort();
  return l;
}

static int port_of(const mli_listener *l) {
  const struct sockaddr_in *in = (const struct sockaddr_in *)&l->address;
  return ntohs(in->sin_port);
}

static mli_stream *connect_to(rig *r, const mli_endpoint *to) {
  mli_op *op = mli_connect_new(r->loop, to);
  mli_stream *s = NULL;
  if (CHECK_EQ(run_op(op, LIMIT), ML_OK))
    s = mli_container(mli_dial_take(op), mli_stream, socket.object);
  mli_object_release(&op->object);
  if (!s) abort();
  return s;
}

static mli_stream *accept_from(mli_listener *l) {
  mli_stream *s = mli_listener_take(l);
  while (!s) {
    mli_accept *accept = mli_accept_new(l);
    ml_status status = run_op(&accept->op, LIMIT);
    mli_release(&accept->op);
    if (!CHECK_EQ(status, ML_OK)) abort();
    s = mli_listener_take(l);
  }
  return s;
}

/* A loop with two connected streams. */
typedef struct pair {
  rig rig;
  mli_listener *listener;
  mli_stream *a, *b;
} pair;

static void pair_open(pair *p) {
  rig_start(&p->rig);
  mli_endpoint at = { .host = "127.0.0.1", .backlog = 16, .no_delay = true };
  p->listener = listen_at(&p->rig, &at);
  at.port = port_of(p->listener);
  p->a = connect_to(&p->rig, &at);
  p->b = accept_from(p->listener);
}

static void pair_close(pair *p) {
  mli_release(&p->a->socket);
  mli_release(&p->b->socket);
  mli_release(&p->listener->socket);
  rig_stop(&p->rig);
}

/* Reads what is wanted into `to`; the ready state, with the size in `*size`. */
static mli_ready read_for(mli_stream *s, mli_want want, char *to, size_t *size, uint64_t limit) {
  int ended;
  mli_ready ready;
  while ((ready = mli_stream_peek(s, &want, size, &ended)) == MLI_NOT_YET) {
    mli_read *read;
    if (!CHECK_EQ(mli_read_new(s, &want, &read), ML_OK)) abort();
    ml_status status = run_op(&read->op, limit);
    want.scanned = read->want.scanned;
    mli_release(&read->op);
    if (status != ML_OK) return MLI_NOT_YET;
  }
  if (ready == MLI_READY || ready == MLI_AT_END) *size = mli_stream_take(s, to, *size);
  return ready;
}

static ml_status write_all(mli_stream *s, const char *data, size_t size, uint64_t limit,
                           size_t *sent) {
  int err;
  ml_status status = mli_stream_write_now(s, data, size, sent, &err);
  if (status != ML_BUSY) return status;
  mli_write *write;
  if ((status = mli_write_new(s, data, size, *sent, &write)) != ML_OK) return status;
  status = run_op(&write->op, limit);
  *sent = write->sent;
  mli_release(&write->op);
  return status;
}

static void say(mli_stream *s, const char *text) {
  size_t sent;
  CHECK_EQ(write_all(s, text, strlen(text), LIMIT, &sent), ML_OK);
}

static const mli_want some = { .kind = MLI_WANT_SOME };

/* ---- tests ---- */

static void reads_what_is_wanted(void) {
  pair p;
  char got[64];
  size_t size;
  pair_open(&p);
  say(p.a, "hello world\nrest");
  mli_want four = { .kind = MLI_WANT_EXACTLY, .n = 4 };
  CHECK_EQ(read_for(p.b, four, got, &size, LIMIT), MLI_READY);
  CHECK(size == 4 && memcmp(got, "hell", 4) == 0);
  mli_want line = { .kind = MLI_WANT_UNTIL, .n = 64, .mark = "\n", .mark_size = 1 };
  CHECK_EQ(read_for(p.b, line, got, &size, LIMIT), MLI_READY);
  CHECK(size == 8 && memcmp(got, "o world\n", 8) == 0);
  CHECK_EQ(read_for(p.b, line, got, &size, MLI_SECOND / 50), MLI_NOT_YET);
  say(p.a, "s of it\n");
  CHECK_EQ(read_for(p.b, line, got, &size, LIMIT), MLI_READY);
  CHECK(size == 12 && memcmp(got, "rests of it\n", 12) == 0);
  mli_want mark = { .kind = MLI_WANT_UNTIL, .n = 8, .mark = "abcd", .mark_size = 4 };
  say(p.a, "xxab");
  CHECK_EQ(read_for(p.b, mark, got, &size, MLI_SECOND / 50), MLI_NOT_YET);
  say(p.a, "cdyy");
  CHECK_EQ(read_for(p.b, mark, got, &size, LIMIT), MLI_READY);
  CHECK(size == 6 && memcmp(got, "xxabcd", 6) == 0);
  say(p.a, "1234567");
  CHECK_EQ(read_for(p.b, mark, got, &size, LIMIT), MLI_TOO_LARGE);
  CHECK_EQ(read_for(p.b, some, got, &size, LIMIT), MLI_READY);
  CHECK(size == 9 && memcmp(got, "yy1234567", 9) == 0);
  pair_close(&p);
}

static void the_end_comes_after_the_bytes(void) {
  pair p;
  char got[64];
  size_t size;
  mli_write *shutdown;
  pair_open(&p);
  say(p.a, "abc");
  CHECK_EQ(mli_shutdown_new(p.a, &shutdown), ML_OK);
  CHECK_EQ(run_op(&shutdown->op, LIMIT), ML_OK);
  mli_release(&shutdown->op);
  CHECK_EQ(write_all(p.a, "x", 1, LIMIT, &size), ML_CLOSED);
  mli_want ten = { .kind = MLI_WANT_EXACTLY, .n = 10 };
  CHECK_EQ(read_for(p.b, ten, got, &size, LIMIT), MLI_AT_END);
  CHECK_EQ(size, 3);
  CHECK_EQ(read_for(p.b, some, got, &size, LIMIT), MLI_AT_END);
  CHECK_EQ(size, 0);
  say(p.b, "still open this way");
  CHECK_EQ(read_for(p.a, some, got, &size, LIMIT), MLI_READY);
  CHECK_EQ(size, 19);
  pair_close(&p);
}

static void *read_big(void *argument) {
  pair *p = argument;
  size_t n = 8 << 20, size;
  char *got = malloc(n);
  mli_want all = { .kind = MLI_WANT_EXACTLY, .n = n };
  CHECK_EQ(read_for(p->b, all, got, &size, LIMIT), MLI_READY);
  size_t wrong = size != n;
  for (size_t i = 0; i < size; i++) wrong += got[i] != (char)(i * 31 >> 3);
  CHECK_EQ(wrong, 0);
  free(got);
  return NULL;
}

static void big_writes_wait_for_the_reader(void) {
  pair p;
  pair_open(&p);
  size_t n = 8 << 20, sent;
  char *data = malloc(n);
  for (size_t i = 0; i < n; i++) data[i] = (char)(i * 31 >> 3);
  pthread_t reader = check_thread(read_big, &p);
  CHECK_EQ(write_all(p.a, data, n, LIMIT, &sent), ML_OK);
  CHECK_EQ(sent, n);
  pthread_join(reader, NULL);
  free(data);
  pair_close(&p);
}

static void a_cut_write_says_how_much_went_out(void) {
  pair p;
  pair_open(&p);
  size_t n = 32 << 20, sent = 0, more, size, total = 0;
  char *data = calloc(1, n);
  CHECK_EQ(write_all(p.a, data, n, MLI_SECOND / 20, &sent), ML_CANCELLED);
  CHECK(sent > 0 && sent < n);
  CHECK_EQ(write_all(p.a, "x", 1, LIMIT, &more), ML_CLOSED);
  mli_stream_uncut(p.a);
  while (total < sent && read_for(p.b, some, data, &size, LIMIT) == MLI_READY) total += size;
  CHECK_EQ(total, sent);
  free(data);
  pair_close(&p);
}

static void a_reader_that_is_slow_is_not_flooded(void) {
  pair p;
  char byte;
  size_t size, sent;
  pair_open(&p);
  say(p.a, "x");
  CHECK_EQ(read_for(p.b, (mli_want){ .kind = MLI_WANT_EXACTLY, .n = 1 }, &byte, &size, LIMIT),
           MLI_READY);
  size_t n = 32 << 20;
  char *data = calloc(1, n);
  CHECK_EQ(write_all(p.a, data, n, MLI_SECOND / 20, &sent), ML_CANCELLED);
  mli_want nothing = { .kind = MLI_WANT_EXACTLY, .n = SIZE_MAX };
  int ended;
  mli_stream_peek(p.b, &nothing, &size, &ended);
  CHECK(size < 8 * MLI_READ_AHEAD);
  free(data);
  pair_close(&p);
}

static void one_reader_and_one_writer(void) {
  pair p;
  mli_read *first, *second;
  mli_write *writer;
  size_t size;
  int ended;
  pair_open(&p);
  CHECK_EQ(mli_read_new(p.b, &some, &first), ML_OK);
  CHECK_EQ(mli_read_new(p.b, &some, &second), ML_MISUSE);
  mli_want want = some;
  CHECK_EQ(mli_stream_peek(p.b, &want, &size, &ended), MLI_TAKEN);
  mli_release(&first->op); /* never begun: the slot is free again */
  CHECK_EQ(mli_stream_peek(p.b, &want, &size, &ended), MLI_NOT_YET);
  CHECK_EQ(mli_write_new(p.b, "x", 1, 0, &writer), ML_OK);
  CHECK_EQ(mli_stream_write_now(p.b, "y", 1, &size, &ended), ML_MISUSE);
  mli_release(&writer->op);
  pair_close(&p);
}

typedef struct blocked {
  mli_stream *stream;
  ml_status status;
} blocked;

static void *read_blocked(void *argument) {
  blocked *b = argument;
  mli_read *read;
  if (mli_read_new(b->stream, &some, &read) != ML_OK) abort();
  b->status = run_op(&read->op, LIMIT);
  mli_release(&read->op);
  return NULL;
}

static void closing_ends_what_waits(void) {
  pair p;
  size_t size;
  int ended;
  pair_open(&p);
  blocked b = { .stream = p.b };
  pthread_t reader = check_thread(read_blocked, &b);
  usleep(20000);
  mli_socket_close(&p.b->socket);
  mli_socket_close(&p.b->socket);
  pthread_join(reader, NULL);
  /* The read ended closed, or found the stream closed as it began. */
  CHECK(b.status == ML_CLOSED || b.status == ML_OK);
  mli_want want = some;
  CHECK_EQ(mli_stream_peek(p.b, &want, &size, &ended), MLI_SHUT);
  char got[8];
  CHECK_EQ(read_for(p.a, some, got, &size, LIMIT), MLI_AT_END);
  pair_close(&p);
}

static void the_end_of_the_loop_ends_what_waits(void) {
  pair p;
  pair_open(&p);
  blocked a = { .stream = p.a }, b = { .stream = p.b };
  pthread_t ra = check_thread(read_blocked, &a), rb = check_thread(read_blocked, &b);
  mli_accept *accept = mli_accept_new(p.listener);
  waiter w = { .waker = { wake } };
  mli_op_begin(&accept->op, &w.waker);
  usleep(20000);
  rig_stop(&p.rig);
  pthread_join(ra, NULL);
  pthread_join(rb, NULL);
  CHECK_EQ(a.status, ML_CLOSED);
  CHECK_EQ(b.status, ML_CLOSED);
  CHECK_EQ(mli_park(&w.parker, mli_now() + LIMIT), ML_OK);
  CHECK_EQ(accept->op.status, ML_CLOSED);
  mli_release(&accept->op);
  CHECK(mli_socket_closed(&p.a->socket));
  size_t sent;
  int err;
  CHECK_EQ(mli_stream_write_now(p.a, "x", 1, &sent, &err), ML_CLOSED);
  mli_release(&p.a->socket);
  mli_release(&p.b->socket);
  mli_release(&p.listener->socket);
}

static ml_status dial_fails(rig *r, const mli_endpoint *to, const char **code, uint64_t limit) {
  mli_op *op = mli_connect_new(r->loop, to);
  ml_status status = run_op(op, limit);
  *code = op->code;
  mli_object_release(&op->object);
  return status;
}

static void connects_fail_with_their_code(void) {
  rig r;
  const char *code;
  rig_start(&r);
  mli_endpoint at = { .host = "127.0.0.1", .backlog = 1 };
  mli_listener *l = listen_at(&r, &at);
  int port = port_of(l);
  mli_op *taken = mli_listen_new(r.loop, &(mli_endpoint){ .host = "127.0.0.1", .port = port });
  CHECK_EQ(run_op(taken, LIMIT), ML_SYSTEM);
  CHECK(strcmp(taken->code, "EADDRINUSE") == 0);
  mli_object_release(&taken->object);
  mli_release(&l->socket);
  for (int i = 0; i < 3; i++) {
    const char *hosts[] = { "127.0.0.1", "::1", "localhost" };
    at.host = hosts[i];
    at.port = port;
    CHECK_EQ(dial_fails(&r, &at, &code, LIMIT), ML_SYSTEM);
    CHECK(strcmp(code, "ECONNREFUSED") == 0 || strcmp(code, "EADDRNOTAVAIL") == 0);
  }
  at = (mli_endpoint){ .path = "/nonexistent/socket", .path_size = 19 };
  CHECK_EQ(dial_fails(&r, &at, &code, LIMIT), ML_SYSTEM);
  CHECK(strcmp(code, "ENOENT") == 0);
  char path[200];
  memset(path, 'x', sizeof path);
  at = (mli_endpoint){ .path = path, .path_size = sizeof path };
  CHECK_EQ(dial_fails(&r, &at, &code, LIMIT), ML_SYSTEM);
  CHECK(strcmp(code, "ENAMETOOLONG") == 0);
  at = (mli_endpoint){ .host = "localhost", .port = 1 };
  for (int i = 0; i < 20; i++)
    dial_fails(&r, &at, &code, 0); /* cancelled in the lookup, or later */
  mli_op *pending = mli_connect_new(r.loop, &at);
  waiter w = { .waker = { wake } };
  mli_op_begin(pending, &w.waker);
  rig_stop(&r);
  CHECK_EQ(mli_park(&w.parker, mli_now() + LIMIT), ML_OK);
  mli_object_release(&pending->object);
}

static void unix_sockets(void) {
  rig r;
  rig_start(&r);
  char path[64], got[8];
  size_t size;
  snprintf(path, sizeof path, "/tmp/moonloop-stream-test.%d", (int)getpid());
  mli_endpoint at = { .path = path, .path_size = strlen(path), .backlog = 4 };
  mli_listener *l = listen_at(&r, &at);
  mli_stream *a = connect_to(&r, &at), *b = accept_from(l);
  say(a, "ping");
  CHECK_EQ(read_for(b, some, got, &size, LIMIT), MLI_READY);
  CHECK_EQ(size, 4);
  mli_release(&a->socket);
  CHECK_EQ(read_for(b, some, got, &size, LIMIT), MLI_AT_END);
  mli_release(&b->socket);
  mli_release(&l->socket);
  rig_stop(&r);
  struct stat st;
  CHECK(stat(path, &st) < 0 && errno == ENOENT);
}

static void a_cancelled_accept_loses_no_connection(void) {
  rig r;
  rig_start(&r);
  mli_endpoint at = { .host = "127.0.0.1", .backlog = 128 };
  mli_listener *l = listen_at(&r, &at);
  at.port = port_of(l);
  int n = CHECK_ROUNDS(200), got = 0;
  mli_stream *clients[200];
  for (int i = 0; i < n; i++) {
    clients[i] = connect_to(&r, &at);
    mli_accept *accept = mli_accept_new(l);
    run_op(&accept->op, (uint64_t)(i % 10) * 2000); /* often cancelled, sometimes too late */
    mli_release(&accept->op);
    mli_stream *s = mli_listener_take(l);
    if (!s) continue;
    got++;
    mli_release(&s->socket);
  }
  for (; got < n; got++) {
    mli_stream *s = accept_from(l);
    mli_release(&s->socket);
  }
  CHECK_EQ(got, n);
  CHECK(!mli_listener_take(l));
  for (int i = 0; i < n; i++) mli_release(&clients[i]->socket);
  mli_release(&l->socket);
  rig_stop(&r);
}

/* The reader cancels again and again while bytes come: none is lost. */
static void *write_numbers(void *argument) {
  pair *p = argument;
  for (uint32_t i = 0; i < (uint32_t)CHECK_ROUNDS(20000); i++) {
    size_t sent;
    CHECK_EQ(write_all(p->a, (const char *)&i, sizeof i, LIMIT, &sent), ML_OK);
  }
  return NULL;
}

static void a_cancelled_read_loses_no_byte(void) {
  pair p;
  pair_open(&p);
  pthread_t writer = check_thread(write_numbers, &p);
  mli_want want = { .kind = MLI_WANT_EXACTLY, .n = 4 };
  uint32_t expected = 0, wrong = 0, number;
  size_t size;
  while (expected < (uint32_t)CHECK_ROUNDS(20000)) {
    mli_ready ready = read_for(p.b, want, (char *)&number, &size, expected % 7 * 1000);
    if (ready == MLI_NOT_YET) continue;
    if (!CHECK_EQ(ready, MLI_READY)) break;
    wrong += number != expected++;
  }
  CHECK_EQ(wrong, 0);
  pthread_join(writer, NULL);
  pair_close(&p);
}

static void a_peer_that_is_gone_raises_no_signal(void) {
  pair p;
  pair_open(&p);
  mli_socket_close(&p.b->socket);
  size_t sent, size;
  char got[8];
  ml_status status = ML_OK;
  CHECK_EQ(read_for(p.a, some, got, &size, LIMIT), MLI_AT_END);
  int err = 0;
  for (int i = 0; status == ML_OK && i < 100; i++) {
    status = mli_stream_write_now(p.a, "x", 1, &sent, &err);
    usleep(1000);
  }
  CHECK_EQ(status, ML_SYSTEM);
  CHECK(err == UV_EPIPE || err == UV_ECONNRESET);
  pair_close(&p);
}

int main(void) {
  signal(SIGPIPE, SIG_DFL);
  rig first; /* libuv keeps what its first loop opens */
  rig_start(&first);
  rig_stop(&first);
  int files = check_open_files();
  reads_what_is_wanted();
  the_end_comes_after_the_bytes();
  big_writes_wait_for_the_reader();
  a_cut_write_says_how_much_went_out();
  a_reader_that_is_slow_is_not_flooded();
  one_reader_and_one_writer();
  closing_ends_what_waits();
  the_end_of_the_loop_ends_what_waits();
  connects_fail_with_their_code();
  unix_sockets();
  a_cancelled_accept_loses_no_connection();
  a_cancelled_read_loses_no_byte();
  a_peer_that_is_gone_raises_no_signal();
  CHECK_EQ(check_open_files(), files);
  return check_report();
}
