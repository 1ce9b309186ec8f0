/* stream.c: the reads and writes of a stream. */
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RECEIVES_PER_TURN 4   /* of one stream, then the others have their turn */
#define SEND_UNDER_LOCK 65536 /* the most that is sent while the lock is held */
#define IMMEDIATE_WRITES 64   /* a job that always can write still lets others run */

#define stream_of(s) mli_container(s, mli_stream, socket)

/* ---- what lies in the buffer ---- */

/* Under the lock. */
static mli_ready peek(mli_stream *s, mli_want *want, size_t *size) {
  size_t have = mli_input_size(&s->in), marked;
  *size = have;
  if (mli_socket_closed(&s->socket)) return MLI_SHUT;
  switch (want->kind) {
  case MLI_WANT_SOME:
    if (have > 0) return MLI_READY;
    break;
  case MLI_WANT_EXACTLY:
    if (have >= want->n) {
      *size = want->n;
      return MLI_READY;
    }
    break;
  case MLI_WANT_UNTIL:
    marked = mli_input_find(&s->in, want->mark, want->mark_size, &want->scanned);
    if (marked > want->n || (!marked && have > want->n)) return MLI_TOO_LARGE;
    if (marked) {
      *size = marked;
      return MLI_READY;
    }
    break;
  case MLI_WANT_ALL:
    if (have > want->n) return MLI_TOO_LARGE;
    break;
  }
  return s->in_ended ? MLI_AT_END : MLI_NOT_YET;
}

mli_ready mli_stream_peek(mli_stream *s, mli_want *want, size_t *size, int *ended) {
  mli_lock_acquire(&s->socket.lock);
  mli_ready ready = s->reading ? MLI_TAKEN : peek(s, want, size);
  *ended = s->in_ended;
  mli_lock_release(&s->socket.lock);
  return ready;
}

size_t mli_stream_take(mli_stream *s, char *to, size_t size) {
  mli_lock_acquire(&s->socket.lock);
  size = mli_input_take(&s->in, to, size);
  mli_lock_release(&s->socket.lock);
  return size;
}

/* ---- polling ---- */

static void arm(mli_stream *s) {
  mli_socket_arm(&s->socket, (s->pulling ? UV_READABLE : 0) | (s->writer ? UV_WRITABLE : 0));
}

/* Whether to receive: see T2. */
static bool may_pull(mli_stream *s) {
  mli_lock_acquire(&s->socket.lock);
  bool may = !s->in_ended && (s->reader || mli_input_size(&s->in) < MLI_READ_AHEAD);
  mli_lock_release(&s->socket.lock);
  return may;
}

static void end_read(mli_stream *s, ml_status status) {
  mli_read *read = mli_container(s->reader, mli_read, op);
  s->reader = NULL;
  mli_lock_acquire(&s->socket.lock);
  read->slot = s->reading = false;
  mli_lock_release(&s->socket.lock);
  mli_op_end(&read->op, status, NULL, NULL);
}

static void tell_reader(mli_stream *s) {
  if (!s->reader) return;
  size_t size;
  mli_want *want = &mli_container(s->reader, mli_read, op)->want;
  mli_lock_acquire(&s->socket.lock);
  mli_ready ready = peek(s, want, &size);
  mli_lock_release(&s->socket.lock);
  if (ready != MLI_NOT_YET) end_read(s, ML_OK);
}

/* Receives once. False: nothing more to be had now. */
static bool receive(mli_stream *s) {
  mli_net *net = s->socket.net;
  ssize_t n;
  do n = recv(s->socket.fd, net->scratch, sizeof net->scratch, 0);
  while (n < 0 && errno == EINTR);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
  int err = -errno;
  mli_lock_acquire(&s->socket.lock);
  if (n <= 0)
    s->in_ended = n == 0 ? UV_EOF : err;
  else if (!mli_input_append(&s->in, net->scratch, (size_t)n))
    s->in_ended = UV_ENOMEM;
  mli_lock_release(&s->socket.lock);
  return n == (ssize_t)sizeof net->scratch;
}

/* A full buffer stops the polling only at the next event, because the reader
** that was just woken will mostly have emptied it by then. */
static void on_readable(mli_stream *s) {
  bool more = s->pulling = may_pull(s);
  for (int i = 0; more && i < RECEIVES_PER_TURN; i++) {
    more = receive(s);
    tell_reader(s);
    more = more && may_pull(s);
  }
  if (s->in_ended) s->pulling = false;
}

static void on_ready(mli_socket *socket, int events) {
  mli_stream *s = stream_of(socket);
  s->immediate = 0;
  if ((events & UV_READABLE) && s->pulling) on_readable(s);
  if ((events & UV_WRITABLE) && s->writer) s->writable(s);
  arm(s);
}

void mli_stream_await_writable(mli_stream *s, mli_op *op, void (*writable)(mli_stream *s)) {
  s->writer = op;
  s->writable = writable;
  arm(s);
}

/* ---- read operations ---- */

static void start_read(mli_op *op) {
  mli_stream *s = mli_container(op, mli_read, op)->stream;
  s->reader = op;
  if (!s->in_ended) s->pulling = true;
  tell_reader(s);
  arm(s);
}

static void abort_read(mli_op *op) {
  end_read(mli_container(op, mli_read, op)->stream, ML_CANCELLED);
}

static void destroy_read(mli_object *object) {
  mli_read *read = mli_container(object, mli_read, op.object);
  mli_stream *s = read->stream;
  mli_lock_acquire(&s->socket.lock);
  if (read->slot) s->reading = false; /* it was never begun */
  mli_lock_release(&s->socket.lock);
  mli_op_fini(&read->op);
  free(read);
  mli_release(&s->socket);
}

static const mli_type read_type = { .name = "tcp read", .destroy = destroy_read };
static const mli_op_class read_class = { "tcp read", start_read, abort_read };

static bool take_slot(mli_stream *s, bool *slot) {
  mli_lock_acquire(&s->socket.lock);
  bool was = *slot;
  *slot = true;
  mli_lock_release(&s->socket.lock);
  return !was;
}

ml_status mli_read_new(mli_stream *s, const mli_want *want, mli_read **out) {
  mli_read *read = malloc(sizeof *read + want->mark_size);
  if (!read) return ML_MEMORY;
  if (!take_slot(s, &s->reading)) {
    free(read);
    return ML_MISUSE;
  }
  mli_op_init(&read->op, &read_type, &read_class, s->socket.loop);
  mli_object_retain(&s->socket.object);
  read->stream = s;
  read->slot = true;
  read->want = *want;
  if (want->mark_size) memcpy(read->mark, want->mark, want->mark_size);
  read->want.mark = read->mark;
  *out = read;
  return ML_OK;
}

/* ---- write operations ---- */

/* Sends a piece; 0 with `*err` 0 when the system takes nothing now. No signal
** comes of a connection that is gone. */
static size_t send_piece(int fd, const char *data, size_t size, int *err) {
  ssize_t n;
  do n = send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  *err = n >= 0 || errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
  return n > 0 ? (size_t)n : 0;
}

ml_status mli_stream_write_now(mli_stream *s, const char *data, size_t size, size_t *sent,
                               int *err) {
  *sent = 0;
  *err = 0;
  if (mli_loop_self() == s->socket.loop && ++s->immediate > IMMEDIATE_WRITES) {
    s->immediate = 0;
    return ML_BUSY;
  }
  for (;;) {
    size_t piece = size - *sent < SEND_UNDER_LOCK ? size - *sent : SEND_UNDER_LOCK, n = 0;
    ml_status status = ML_OK;
    mli_lock_acquire(&s->socket.lock);
    if (s->writing)
      status = ML_MISUSE;
    else if (s->shut || s->cut || s->socket.fd < 0 || mli_socket_closed(&s->socket))
      status = ML_CLOSED;
    else
      n = send_piece(s->socket.fd, data + *sent, piece, err);
    mli_lock_release(&s->socket.lock);
    *sent += n;
    if (status != ML_OK) return status;
    if (*err) return ML_SYSTEM;
    if (*sent == size) return ML_OK;
    if (n < piece) return ML_BUSY;
  }
}

static void end_write(mli_write *write, ml_status status, int err) {
  mli_stream *s = write->stream;
  s->writer = NULL;
  mli_lock_acquire(&s->socket.lock);
  write->slot = s->writing = false;
  if (status == ML_CANCELLED && write->sent > 0) s->cut = true;
  mli_lock_release(&s->socket.lock);
  if (err)
    mli_op_end_uv(&write->op, err, "write");
  else
    mli_op_end(&write->op, status, NULL, NULL);
}

static void go_on_writing(mli_stream *s) {
  mli_write *write = mli_container(s->writer, mli_write, op);
  int err;
  size_t piece, n;
  do {
    piece = write->size - write->sent;
    if (piece > SEND_UNDER_LOCK) piece = SEND_UNDER_LOCK;
    n = send_piece(s->socket.fd, write->rest + write->sent - write->before, piece, &err);
    write->sent += n;
  } while (n == piece && write->sent < write->size);
  if (err || write->sent == write->size) end_write(write, ML_OK, err);
}

static bool writes_are_refused(mli_stream *s) {
  mli_lock_acquire(&s->socket.lock);
  bool refused = s->shut || s->cut || s->socket.fd < 0;
  mli_lock_release(&s->socket.lock);
  return refused;
}

/* Waits for the poll even if the system would take more at once: this is where
** a job that only writes lets the others run. */
static void start_write(mli_op *op) {
  mli_write *write = mli_container(op, mli_write, op);
  if (writes_are_refused(write->stream))
    end_write(write, ML_CLOSED, 0);
  else
    mli_stream_await_writable(write->stream, op, go_on_writing);
}

static void abort_write(mli_op *op) {
  mli_write *write = mli_container(op, mli_write, op);
  mli_stream *s = write->stream;
  end_write(write, ML_CANCELLED, 0);
  arm(s);
}

static void start_shutdown(mli_op *op) {
  mli_write *write = mli_container(op, mli_write, op);
  mli_stream *s = write->stream;
  bool refused = writes_are_refused(s) && !s->shut;
  int err = 0;
  if (!refused && !s->shut && shutdown(s->socket.fd, SHUT_WR) < 0) err = -errno;
  mli_lock_acquire(&s->socket.lock);
  if (!refused && !err) s->shut = true;
  mli_lock_release(&s->socket.lock);
  end_write(write, refused ? ML_CLOSED : ML_OK, err);
}

static void destroy_write(mli_object *object) {
  mli_write *write = mli_container(object, mli_write, op.object);
  mli_stream *s = write->stream;
  mli_lock_acquire(&s->socket.lock);
  if (write->slot) { /* it was never begun */
    s->writing = false;
    if (write->sent > 0) s->cut = true;
  }
  mli_lock_release(&s->socket.lock);
  mli_op_fini(&write->op);
  free(write);
  mli_release(&s->socket);
}

static const mli_type write_type = { .name = "tcp write", .destroy = destroy_write };
static const mli_op_class write_class = { "tcp write", start_write, abort_write };
static const mli_op_class shutdown_class = { "tcp shutdown", start_shutdown, abort_write };

static ml_status new_write(mli_stream *s, const mli_op_class *class, const char *data, size_t size,
                           size_t sent, mli_write **out) {
  mli_write *write = malloc(sizeof *write + size - sent);
  if (!write) return ML_MEMORY;
  if (!take_slot(s, &s->writing)) {
    free(write);
    return ML_MISUSE;
  }
  mli_op_init(&write->op, &write_type, class, s->socket.loop);
  mli_object_retain(&s->socket.object);
  write->stream = s;
  write->slot = true;
  write->size = size;
  write->sent = write->before = sent;
  if (size > sent) memcpy(write->rest, data + sent, size - sent);
  *out = write;
  return ML_OK;
}

ml_status mli_write_new(mli_stream *s, const char *data, size_t size, size_t sent,
                        mli_write **out) {
  return new_write(s, &write_class, data, size, sent, out);
}

ml_status mli_shutdown_new(mli_stream *s, mli_write **out) {
  return new_write(s, &shutdown_class, NULL, 0, 0, out);
}

void mli_stream_uncut(mli_stream *s) {
  mli_lock_acquire(&s->socket.lock);
  s->cut = false;
  mli_lock_release(&s->socket.lock);
}

/* ---- other ---- */

int mli_stream_nodelay(mli_stream *s, bool on) {
  int value = on, err = 0;
  mli_lock_acquire(&s->socket.lock);
  if (s->socket.fd < 0)
    err = UV_EBADF;
  else if (setsockopt(s->socket.fd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value) < 0)
    err = -errno;
  mli_lock_release(&s->socket.lock);
  return err;
}

int mli_stream_address(mli_stream *s, struct sockaddr_storage *address, socklen_t *size) {
  int err = 0;
  *size = sizeof *address;
  mli_lock_acquire(&s->socket.lock);
  if (s->socket.fd < 0)
    err = UV_EBADF;
  else if (getsockname(s->socket.fd, (struct sockaddr *)address, size) < 0)
    err = -errno;
  mli_lock_release(&s->socket.lock);
  return err;
}

/* ---- life ---- */

static void on_closed(mli_socket *socket) {
  mli_stream *s = stream_of(socket);
  mli_op *writer = s->writer;
  if (s->reader) end_read(s, ML_CLOSED);
  s->writer = NULL;
  if (!writer) return;
  if (writer->class == &write_class)
    end_write(mli_container(writer, mli_write, op), ML_CLOSED, 0);
  else
    mli_op_end(writer, ML_CLOSED, NULL, NULL);
}

static void free_stream(mli_socket *socket) {
  mli_stream *s = stream_of(socket);
  mli_input_fini(&s->in);
  free(s);
}

static const mli_socket_class stream_class = { on_ready, on_closed, free_stream };

const mli_type mli_stream_type = { .name = "tcp", .destroy = mli_socket_destroy };

mli_stream *mli_stream_new(mli_loop *loop, int fd, int *err) {
  mli_stream *s = calloc(1, sizeof *s);
  *err = s ? mli_socket_init(&s->socket, &mli_stream_type, &stream_class, loop, fd) : UV_ENOMEM;
  if (*err) {
    free(s);
    return NULL;
  }
  return s;
}

mli_stream *mli_stream_move(mli_stream *s, mli_loop *loop, int *err) {
  mli_lock_acquire(&s->socket.lock);
  int fd = s->socket.fd < 0 ? -1 : fcntl(s->socket.fd, F_DUPFD_CLOEXEC, 0);
  *err = fd >= 0 ? 0 : s->socket.fd < 0 ? UV_EBADF : -errno;
  mli_lock_release(&s->socket.lock);
  if (fd < 0) return NULL;
  mli_stream *moved = mli_stream_new(loop, fd, err);
  if (!moved) {
    close(fd);
    return NULL;
  }
  moved->peer = s->peer;
  moved->peer_size = s->peer_size;
  mli_socket_close(&s->socket);
  return moved;
}
