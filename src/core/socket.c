/* socket.c: the life of sockets and lookups on their loop. */
#include "socket.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- the loop's share ---- */

static const char net_key;

static void close_now(mli_socket *s);

static void close_net(mli_service *service, mli_loop *loop) {
  mli_net *net = mli_container(service, mli_net, service);
  (void)loop;
  while (net->lookups) {
    mli_op *op = net->lookups->op;
    mli_lookup_forget(net->lookups);
    mli_op_end(op, ML_CLOSED, NULL, NULL);
  }
  while (net->sockets) close_now(net->sockets);
  free(net);
}

mli_net *mli_net_of(mli_loop *loop) {
  mli_service *found = mli_loop_service(loop, &net_key);
  if (found) return mli_container(found, mli_net, service);
  mli_net *net = malloc(sizeof *net);
  if (!net) return NULL;
  net->service = (mli_service){ .key = &net_key, .close = close_net };
  net->sockets = NULL;
  net->lookups = NULL;
  mli_loop_add_service(loop, &net->service);
  return net;
}

/* ---- sockets ---- */

int mli_socket_init(mli_socket *s, const mli_type *type, const mli_socket_class *class,
                    mli_loop *loop, int fd) {
  mli_net *net = mli_net_of(loop);
  if (!net) return UV_ENOMEM;
  int err = uv_poll_init(&loop->uv, &s->poll, fd);
  if (err) return err;
  mli_object_init(&s->object, type);
  s->class = class;
  s->loop = mli_retain(loop);
  s->net = net;
  atomic_init(&s->holds, 2);
  s->fd = fd;
  s->poll.data = s;
  s->next = net->sockets;
  s->link = &net->sockets;
  if (s->next) s->next->link = &s->next;
  net->sockets = s;
  return 0;
}

static void drop_hold(mli_socket *s) {
  if (atomic_fetch_sub_explicit(&s->holds, 1, memory_order_acq_rel) != 1) return;
  mli_loop *loop = s->loop;
  s->class->free(s);
  mli_release(loop);
}

static void on_ready(uv_poll_t *poll, int status, int events) {
  mli_socket *s = poll->data;
  mli_loop_stir(s->loop);
  if (status < 0) { /* libuv has stopped polling */
    s->events = 0;
    events = UV_READABLE | UV_WRITABLE;
  }
  s->class->ready(s, events);
}

void mli_socket_arm(mli_socket *s, int events) {
  if (events == s->events || !s->link) return;
  s->events = events;
  int err = events ? uv_poll_start(&s->poll, events, on_ready) : uv_poll_stop(&s->poll);
  assert(err == 0);
  (void)err;
}

static void on_closed(uv_handle_t *handle) { drop_hold(handle->data); }

static void close_now(mli_socket *s) {
  if (!s->link) return;
  *s->link = s->next;
  if (s->next) s->next->link = s->link;
  s->link = NULL;
  atomic_store_explicit(&s->closed, true, memory_order_release);
  uv_close((uv_handle_t *)&s->poll, on_closed);
  mli_lock_acquire(&s->lock);
  close(s->fd); /* Linux closes it also when it says EINTR */
  s->fd = -1;
  mli_lock_release(&s->lock);
  s->class->closed(s);
}

static void close_by_message(mli_node *node, mli_loop *loop) {
  mli_socket *s = mli_container(node, mli_socket, close_node);
  (void)loop;
  close_now(s);
  mli_release(s);
}

void mli_socket_close(mli_socket *s) {
  if (atomic_exchange_explicit(&s->closed, true, memory_order_acq_rel)) return;
  if (mli_loop_self() == s->loop) {
    close_now(s);
    return;
  }
  s->close_node.run = close_by_message;
  mli_object_retain(&s->object);
  if (!mli_loop_post(s->loop, &s->close_node)) mli_release(s); /* closed by the loop's end */
}

static void destroy_by_message(mli_node *node, mli_loop *loop) {
  mli_socket *s = mli_container(node, mli_socket, close_node);
  (void)loop;
  close_now(s);
  drop_hold(s);
}

void mli_socket_destroy(mli_object *object) {
  mli_socket *s = mli_container(object, mli_socket, object);
  if (mli_loop_self() == s->loop) {
    close_now(s);
    drop_hold(s);
    return;
  }
  s->close_node.run = destroy_by_message;
  if (!mli_loop_post(s->loop, &s->close_node)) drop_hold(s);
}

/* ---- lookups ---- */

static void unlink_lookup(mli_lookup *lookup) {
  if (!lookup->link) return;
  *lookup->link = lookup->next;
  if (lookup->next) lookup->next->link = lookup->link;
  lookup->link = NULL;
}

static void on_found(uv_getaddrinfo_t *req, int err, struct addrinfo *list) {
  mli_lookup *lookup = mli_container(req, mli_lookup, req);
  mli_op *op = lookup->op;
  unlink_lookup(lookup);
  if (op)
    lookup->found(op, err, list);
  else
    uv_freeaddrinfo(list);
  free(lookup);
}

int mli_lookup_start(mli_op *op, const char *host, int port, bool passive,
                     void (*found)(mli_op *op, int err, struct addrinfo *list), mli_lookup **out) {
  mli_net *net = mli_net_of(op->loop);
  mli_lookup *lookup = net ? calloc(1, sizeof *lookup) : NULL;
  if (!lookup) return UV_ENOMEM;
  char service[8];
  snprintf(service, sizeof service, "%d", port);
  struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
                            .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0) };
  int err = uv_getaddrinfo(&op->loop->uv, &lookup->req, on_found, host, service, &hints);
  if (err) {
    free(lookup);
    return err;
  }
  lookup->op = op;
  lookup->found = found;
  lookup->next = net->lookups;
  lookup->link = &net->lookups;
  if (lookup->next) lookup->next->link = &lookup->next;
  net->lookups = lookup;
  *out = lookup;
  return 0;
}

/* The thread that looks up cannot be stopped once it runs; its answer then
** finds nobody. */
void mli_lookup_forget(mli_lookup *lookup) {
  lookup->op = NULL;
  unlink_lookup(lookup);
  uv_cancel((uv_req_t *)&lookup->req);
}
