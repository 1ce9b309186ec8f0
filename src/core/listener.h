/*
** listener.h: sockets that accept connections, and how sockets come to be: by
** connecting to an address or by listening on one.
**
** An accept operation only waits until a connection is in the listener's queue;
** whoever waited takes it from there. So an accept that times out or is
** cancelled loses no connection. The loop accepts no more connections than
** there are accepts that wait.
*/
#ifndef MLI_LISTENER_H
#define MLI_LISTENER_H

#include "stream.h"

extern const mli_type mli_listener_type;

typedef struct mli_accept mli_accept;

typedef struct mli_listener {
  mli_socket socket;
  struct sockaddr_storage address;     /* [I] */
  socklen_t address_size;              /* [I] */
  char *path;                          /* [I] a file to remove at the end; owned, may be NULL */
  mli_stream *accepted, **last;        /* [M] the queue; each with a reference */
  mli_accept *waiting, **last_waiting; /* [L] in the order they came */
} mli_listener;

/* Makes a listener of a listening descriptor, like mli_stream_new. */
mli_listener *mli_listener_new(mli_loop *loop, int fd, int *err);

/* A connection from the queue, with its reference; NULL: none is there.
** Thread: any. Blocks: no. */
mli_stream *mli_listener_take(mli_listener *l);

/* A wait for a connection in the queue. Any number may wait, and are served in
** turn. NULL: out of memory. */
struct mli_accept {
  mli_op op;
  mli_listener *listener;
  mli_accept *next, **link; /* [L] */
};
mli_accept *mli_accept_new(mli_listener *l);

/* Where to connect to, or to listen. Borrowed for the call. */
typedef struct mli_endpoint {
  const char *host; /* a name or a number; NULL with `path` */
  int port;
  const char *path; /* a unix socket, may hold zeros */
  size_t path_size;
  bool no_delay;   /* send small writes at once */
  int keep_alive;  /* seconds of silence until the system asks the peer; 0: never */
  bool reuse_port; /* listen: several listeners may share the port */
  int backlog;     /* listen: how many connections the system queues */
} mli_endpoint;

/* Operations that find the addresses of a name and try one after the other. A
** later failure is reported as that of the first address. NULL: out of memory. */
mli_op *mli_connect_new(mli_loop *loop, const mli_endpoint *endpoint);
mli_op *mli_listen_new(mli_loop *loop, const mli_endpoint *endpoint);
/* What a connect (a stream) or a listen (a listener) ended with; the reference
** passes to the caller. */
mli_object *mli_dial_take(mli_op *op);

#endif
