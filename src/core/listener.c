/* listener.c: accepting connections. */
#include "listener.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include "system.h"

#define listener_of(s) mli_container(s, mli_listener, socket)

/* ---- the queue ---- */

mli_stream *mli_listener_take(mli_listener *l) {
  mli_lock_acquire(&l->socket.lock);
  mli_stream *s = l->accepted;
  if (s) {
    l->accepted = s->next_accepted;
    if (!l->accepted) l->last = &l->accepted;
    s->next_accepted = NULL;
  }
  mli_lock_release(&l->socket.lock);
  return s;
}

static void queue_stream(mli_listener *l, mli_stream *s) {
  mli_lock_acquire(&l->socket.lock);
  *l->last = s;
  l->last = &s->next_accepted;
  mli_lock_release(&l->socket.lock);
}

/* ---- accepting ---- */

static void arm(mli_listener *l) { mli_socket_arm(&l->socket, l->waiting ? UV_READABLE : 0); }

static void unlink_accept(mli_listener *l, mli_accept *accept) {
  *accept->link = accept->next;
  if (accept->next)
    accept->next->link = accept->link;
  else
    l->last_waiting = accept->link;
  accept->link = NULL;
}

static void end_accept(mli_accept *accept, ml_status status, int err) {
  unlink_accept(accept->listener, accept);
  if (err)
    mli_op_end_uv(&accept->op, err, "accept");
  else
    mli_op_end(&accept->op, status, NULL, NULL);
}

/* Accepts one connection: 0, UV_EAGAIN when none is there, or what is wrong. */
static int accept_one(mli_listener *l) {
  struct sockaddr_storage peer;
  socklen_t size = sizeof peer;
  int fd, err;
  do fd = mli_socket_accept(l->socket.fd, (struct sockaddr *)&peer, &size);
  while (fd < 0 && (errno == EINTR || errno == ECONNABORTED || errno == EPROTO));
  if (fd < 0) return -errno;
  mli_stream *s = mli_stream_new(l->socket.loop, fd, &err);
  if (!s) {
    close(fd);
    return err;
  }
  s->peer = peer;
  s->peer_size = size;
  queue_stream(l, s);
  return 0;
}

/* Polling stops only when a connection comes that nobody waits for, because the
** one that was just served will mostly be back by then. */
static void on_ready(mli_socket *socket, int events) {
  mli_listener *l = listener_of(socket);
  (void)events;
  if (!l->waiting) arm(l);
  while (l->waiting) {
    int err = accept_one(l);
    if (err == UV_EAGAIN) break;
    end_accept(l->waiting, ML_OK, err);
  }
  if (!l->socket.events) arm(l); /* an error had stopped it */
}

static void start_accept(mli_op *op) {
  mli_accept *accept = mli_container(op, mli_accept, op);
  mli_listener *l = accept->listener;
  accept->next = NULL;
  accept->link = l->last_waiting;
  *l->last_waiting = accept;
  l->last_waiting = &accept->next;
  mli_lock_acquire(&l->socket.lock);
  bool there = l->accepted != NULL;
  mli_lock_release(&l->socket.lock);
  if (there || mli_socket_closed(&l->socket))
    end_accept(accept, there ? ML_OK : ML_CLOSED, 0);
  else
    arm(l);
}

static void abort_accept(mli_op *op) {
  end_accept(mli_container(op, mli_accept, op), ML_CANCELLED, 0);
}

static void destroy_accept(mli_object *object) {
  mli_accept *accept = mli_container(object, mli_accept, op.object);
  mli_listener *l = accept->listener;
  mli_op_fini(&accept->op);
  free(accept);
  mli_release(&l->socket);
}

static const mli_type accept_type = { .name = "tcp accept", .destroy = destroy_accept };
static const mli_op_class accept_class = { "tcp accept", start_accept, abort_accept };

mli_accept *mli_accept_new(mli_listener *l) {
  mli_accept *accept = malloc(sizeof *accept);
  if (!accept) return NULL;
  mli_op_init(&accept->op, &accept_type, &accept_class, l->socket.loop);
  mli_object_retain(&l->socket.object);
  accept->listener = l;
  accept->next = NULL;
  accept->link = NULL;
  return accept;
}

/* ---- life ---- */

static void on_closed(mli_socket *socket) {
  mli_listener *l = listener_of(socket);
  mli_stream *s;
  if (l->path) unlink(l->path);
  while (l->waiting) end_accept(l->waiting, ML_CLOSED, 0);
  while ((s = mli_listener_take(l))) mli_release(&s->socket);
}

static void free_listener(mli_socket *socket) {
  mli_listener *l = listener_of(socket);
  free(l->path);
  free(l);
}

static const mli_socket_class listener_class = { on_ready, on_closed, free_listener };

const mli_type mli_listener_type = { .name = "tcp", .destroy = mli_socket_destroy };

mli_listener *mli_listener_new(mli_loop *loop, int fd, int *err) {
  mli_listener *l = calloc(1, sizeof *l);
  *err = l ? mli_socket_init(&l->socket, &mli_listener_type, &listener_class, loop, fd) : UV_ENOMEM;
  if (*err) {
    free(l);
    return NULL;
  }
  l->last = &l->accepted;
  l->last_waiting = &l->waiting;
  return l;
}
