/*
** socket.h: what streams and listeners share: a descriptor that one loop polls.
**
**   OPEN --[mli_socket_close, last release, end of the loop]--> CLOSED
**
** S1  The descriptor and its libuv handle belong to the loop; it alone closes
**     them. Another thread may use the descriptor under the lock while it is
**     not -1.
** S2  The memory has two holders: the references of the object, and the libuv
**     handle. Whoever lets go last frees it.
** S3  The end of the loop closes every socket that is still open on it, and
**     each operation that was pending there ends with ML_CLOSED.
*/
#ifndef MLI_SOCKET_H
#define MLI_SOCKET_H

#include "op.h"
#include "park.h"

typedef struct mli_socket mli_socket;

typedef struct mli_socket_class {
  /* Something can be done: UV_READABLE, UV_WRITABLE; both after an error, which
  ** the system call then reports. */
  void (*ready)(mli_socket *socket, int events);
  void (*closed)(mli_socket *socket); /* it was closed: end what is pending */
  void (*free)(mli_socket *socket);   /* any thread, at the very end */
} mli_socket_class;

struct mli_socket {
  mli_object object;             /* its type destroys with mli_socket_destroy */
  const mli_socket_class *class; /* [I] */
  mli_loop *loop;                /* [I] holds a reference */
  struct mli_net *net;           /* [I] what the loop keeps for its sockets; [L] inside */
  mli_node close_node;
  atomic_uint holds;        /* [A] see S2 */
  atomic_bool closed;       /* [A] closed, or about to be */
  mli_lock lock;            /* a leaf: guards the descriptor's life, and what the user says */
  int fd;                   /* [L] writes it under the lock */
  mli_socket *next, **link; /* [L] the open sockets of the loop; link is NULL when closed */
  int events;               /* [L] what is polled for */
  uv_poll_t poll;           /* [L] */
};

/* A lookup of a name that an operation waits for. */
typedef struct mli_lookup mli_lookup;
struct mli_lookup {
  mli_lookup *next, **link; /* [L] the lookups of the loop; link is NULL when done */
  mli_op *op;               /* [L] NULL: it has ended, nobody waits */
  void (*found)(mli_op *op, int err, struct addrinfo *list); /* takes the list */
  uv_getaddrinfo_t req;
};

/* The sockets and lookups of one loop. */
typedef struct mli_net {
  mli_service service;
  mli_socket *sockets;
  mli_lookup *lookups;
  char scratch[64 * 1024]; /* where a receive goes first */
} mli_net;

static inline bool mli_socket_closed(const mli_socket *s) {
  return atomic_load_explicit(&s->closed, memory_order_acquire);
}

/* The loop's thread; NULL: out of memory. */
mli_net *mli_net_of(mli_loop *loop);

/* Puts the base of a zeroed socket on the loop with one reference. Takes `fd` on
** success only. 0 or libuv's error. Thread: the loop's. */
int mli_socket_init(mli_socket *s, const mli_type *type, const mli_socket_class *class,
                    mli_loop *loop, int fd);
/* Polls for these events from now on; 0: for none. Thread: the loop's. */
void mli_socket_arm(mli_socket *s, int events);
/* Closes it, at once on the loop's thread, else by message. Idempotent.
** Thread: any. Blocks: no. */
void mli_socket_close(mli_socket *s);
/* `destroy` of the types that embed a socket. */
void mli_socket_destroy(mli_object *object);

/* Looks a name up for `op`, which ends with ML_CLOSED if the loop ends first.
** 0 or libuv's error. Thread: the loop's. */
int mli_lookup_start(mli_op *op, const char *host, int port, bool passive,
                     void (*found)(mli_op *op, int err, struct addrinfo *list), mli_lookup **out);
/* The operation does not wait for it any more. Thread: the loop's. */
void mli_lookup_forget(mli_lookup *lookup);

#endif
