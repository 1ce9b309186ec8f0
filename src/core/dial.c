/*
** dial.c: from a name to a socket. Finds the addresses of the name, then tries
** to connect to them, or to listen on them, one after the other.
**
**   NEW --[start]--> LOOKUP --[on_addresses]--> TRYING --[try_next]--> ended
**         \__ a number or a path __^               \__ per address __/
*/
#include "listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>
#include "system.h"

typedef struct dial {
  mli_op op;
  mli_endpoint to;              /* [I] its strings are in `text` */
  mli_lookup *lookup;           /* [L] while LOOKUP */
  struct addrinfo *list, *next; /* [L] of a lookup: owned; to try next */
  struct addrinfo own;          /* a number or a path */
  struct sockaddr_storage own_address;
  mli_stream *connecting; /* [L] */
  mli_object *made;       /* the result */
  int err;                /* [L] of the first address */
  char text[];
} dial;

#define dial_of(o) mli_container(o, dial, op)

static const mli_op_class listen_class;

/* ---- the end ---- */

static void finish(dial *d, mli_object *made) {
  if (made) {
    d->made = made;
    mli_op_end(&d->op, ML_OK, NULL, NULL);
    return;
  }
  char what[320];
  const char *verb = d->op.class == &listen_class ? "listen on" : "connect to";
  if (d->to.path)
    snprintf(what, sizeof what, "%s %.255s", verb, d->to.path[0] ? d->to.path : "@");
  else
    snprintf(what, sizeof what, strchr(d->to.host, ':') ? "%s [%.255s]:%d" : "%s %.255s:%d", verb,
             d->to.host, d->to.port);
  mli_op_end_uv(&d->op, d->err, what);
}

static int set_option(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) < 0 ? -errno : 0;
}

/* What a listener is given here its connections inherit. */
static int prepare(int fd, const dial *d) {
  int err = 0;
  if (d->to.path) return 0;
  if (d->to.no_delay) err = set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  if (!err && d->to.keep_alive) err = set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  if (!err && d->to.keep_alive) err = set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, d->to.keep_alive);
  if (!err && d->to.reuse_port) err = set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
  return err;
}

static int open_socket(const dial *d, const struct addrinfo *at, int *err) {
  int fd = mli_socket_new(at->ai_family, SOCK_STREAM, 0, false);
  *err = fd < 0 ? -errno : prepare(fd, d);
  if (fd >= 0 && *err) {
    close(fd);
    fd = -1;
  }
  return fd;
}

static void try_next(dial *d);

static void failed(dial *d, int err) {
  if (!d->err) d->err = err;
  try_next(d);
}

/* ---- connecting ---- */

static void connected(dial *d, mli_stream *s, const struct addrinfo *at) {
  memcpy(&s->peer, at->ai_addr, at->ai_addrlen);
  s->peer_size = at->ai_addrlen;
  finish(d, &s->socket.object);
}

static void on_connected(mli_stream *s) {
  dial *d = dial_of(s->writer);
  const struct addrinfo *at = d->next;
  int err = 0;
  socklen_t size = sizeof err;
  if (getsockopt(s->socket.fd, SOL_SOCKET, SO_ERROR, &err, &size) < 0) err = errno;
  s->writer = NULL;
  d->connecting = NULL;
  d->next = at->ai_next;
  if (!err) {
    connected(d, s, at);
    return;
  }
  mli_release(&s->socket);
  failed(d, -err);
}

static void try_connect(dial *d) {
  const struct addrinfo *at = d->next;
  int err, r, fd = open_socket(d, at, &err);
  mli_stream *s = fd < 0 ? NULL : mli_stream_new(d->op.loop, fd, &err);
  if (!s) {
    if (fd >= 0) close(fd);
    d->next = at->ai_next;
    failed(d, err);
    return;
  }
  do r = connect(fd, at->ai_addr, at->ai_addrlen);
  while (r < 0 && errno == EINTR);
  if (r < 0 && errno == EINPROGRESS) {
    d->connecting = s;
    mli_stream_await_writable(s, &d->op, on_connected);
    return;
  }
  d->next = at->ai_next;
  if (r == 0) {
    connected(d, s, at);
    return;
  }
  err = -errno;
  mli_release(&s->socket);
  failed(d, err);
}

/* ---- listening ---- */

static int listen_on(dial *d, int fd, const struct addrinfo *at) {
  int err = d->to.path ? 0 : set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (!err && bind(fd, at->ai_addr, at->ai_addrlen) < 0) err = -errno;
  if (!err && listen(fd, d->to.backlog) < 0) err = -errno;
  return err;
}

static void try_listen(dial *d) {
  const struct addrinfo *at = d->next;
  mli_listener *l = NULL;
  int err, fd = open_socket(d, at, &err);
  if (fd >= 0) err = listen_on(d, fd, at);
  if (!err) l = mli_listener_new(d->op.loop, fd, &err);
  if (!l) {
    if (fd >= 0) close(fd);
    d->next = at->ai_next;
    failed(d, err);
    return;
  }
  l->address_size = sizeof l->address;
  if (getsockname(fd, (struct sockaddr *)&l->address, &l->address_size) < 0) err = -errno;
  if (!err && d->to.path && d->to.path[0] && !(l->path = strdup(d->to.path))) err = UV_ENOMEM;
  if (!err) {
    finish(d, &l->socket.object);
    return;
  }
  mli_release(&l->socket);
  d->next = at->ai_next;
  failed(d, err);
}

/* ---- addresses ---- */

static void on_addresses(mli_op *op, int err, struct addrinfo *list) {
  dial *d = dial_of(op);
  d->lookup = NULL;
  d->list = d->next = list;
  if (err) d->err = err;
  try_next(d);
}

/* Fills the address that needs no lookup; 0, UV_EINVAL: it is a name. */
static int own_address(dial *d) {
  struct sockaddr_storage *a = &d->own_address;
  d->own.ai_addr = (struct sockaddr *)a;
  if (d->to.path) {
    struct sockaddr_un *un = (struct sockaddr_un *)a;
    if (d->to.path_size >= sizeof un->sun_path) return UV_ENAMETOOLONG;
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, d->to.path, d->to.path_size);
    d->own.ai_addrlen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + d->to.path_size);
    if (d->to.path[0]) d->own.ai_addrlen++; /* the zero at the end; not in the abstract space */
  } else if (uv_ip4_addr(d->to.host, d->to.port, (struct sockaddr_in *)a) == 0) {
    d->own.ai_addrlen = sizeof(struct sockaddr_in);
  } else if (uv_ip6_addr(d->to.host, d->to.port, (struct sockaddr_in6 *)a) == 0) {
    d->own.ai_addrlen = sizeof(struct sockaddr_in6);
  } else {
    return UV_EINVAL;
  }
  d->own.ai_family = a->ss_family;
  return 0;
}

/* ---- the operations ---- */

static void start(mli_op *op) {
  dial *d = dial_of(op);
  int err = own_address(d);
  if (!err)
    d->next = &d->own;
  else if (d->to.path)
    d->err = err;
  else {
    bool passive = op->class == &listen_class;
    err = mli_lookup_start(op, d->to.host, d->to.port, passive, on_addresses, &d->lookup);
    if (!err) return;
    d->err = err;
  }
  try_next(d);
}

static void try_next(dial *d) {
  if (!d->next)
    finish(d, NULL);
  else if (d->op.class == &listen_class)
    try_listen(d);
  else
    try_connect(d);
}

static void abort_dial(mli_op *op) {
  dial *d = dial_of(op);
  mli_stream *s = d->connecting;
  if (d->lookup) mli_lookup_forget(d->lookup);
  d->lookup = NULL;
  d->connecting = NULL;
  if (s) {
    s->writer = NULL;
    mli_release(&s->socket);
  }
  mli_op_end(op, ML_CANCELLED, NULL, NULL);
}

static void destroy(mli_object *object) {
  dial *d = mli_container(object, dial, op.object);
  if (d->connecting) mli_release(&d->connecting->socket); /* the loop ended meanwhile */
  if (d->made) mli_object_release(d->made);
  if (d->list) uv_freeaddrinfo(d->list);
  mli_op_fini(&d->op);
  free(d);
}

static const mli_type dial_type = { .name = "tcp dial", .destroy = destroy };
static const mli_op_class connect_class = { "tcp connect", start, abort_dial };
static const mli_op_class listen_class = { "tcp listen", start, abort_dial };

static mli_op *dial_new(mli_loop *loop, const mli_op_class *class, const mli_endpoint *to) {
  const char *text = to->path ? to->path : to->host;
  size_t size = to->path ? to->path_size : strlen(to->host);
  dial *d = calloc(1, sizeof *d + size + 1);
  if (!d) return NULL;
  mli_op_init(&d->op, &dial_type, class, loop);
  d->to = *to;
  memcpy(d->text, text, size);
  if (to->path)
    d->to.path = d->text;
  else
    d->to.host = d->text;
  return &d->op;
}

mli_op *mli_connect_new(mli_loop *loop, const mli_endpoint *to) {
  return dial_new(loop, &connect_class, to);
}

mli_op *mli_listen_new(mli_loop *loop, const mli_endpoint *to) {
  return dial_new(loop, &listen_class, to);
}

mli_object *mli_dial_take(mli_op *op) {
  dial *d = dial_of(op);
  mli_object *made = d->made;
  d->made = NULL;
  return made;
}
