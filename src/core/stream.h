/*
** stream.h: connected sockets, TCP and unix.
**
** Any thread and any job may hold a stream. What has come lies in its buffer,
** and whoever reads takes it from there, on the reader's own thread: a read
** operation only waits until the buffer has what is wanted. So a read that
** times out or is cancelled loses nothing.
**
** Writing begins on the writer's thread too; what the system does not accept
** at once becomes a write operation on the loop.
**
** T1  At most one read and one write (or shutdown) wait at a time.
** T2  Once reading has begun, the loop reads while a read waits, or while less
**     than MLI_READ_AHEAD bytes lie in the buffer.
** T3  After the end of the input, or an error, the buffer can still be read;
**     then that end is what every read reports.
** T4  When a write ends early after a part of its data went out, later writes
**     are refused, until the writer who was told how much calls
**     mli_stream_uncut.
*/
#ifndef MLI_STREAM_H
#define MLI_STREAM_H

#include <sys/socket.h>
#include "input.h"
#include "socket.h"

#define MLI_READ_AHEAD ((size_t)64 * 1024)

extern const mli_type mli_stream_type;

typedef struct mli_stream mli_stream;
struct mli_stream {
  mli_socket socket;
  struct sockaddr_storage peer; /* [I] */
  socklen_t peer_size;          /* [I] */
  mli_stream *next_accepted;    /* of a listener's queue */
  /* [M] the lock of the socket */
  mli_input in;
  int in_ended;          /* UV_EOF or the error after the bytes; 0: none yet */
  bool reading, writing; /* an operation has the slot */
  bool shut;             /* the output was ended */
  bool cut;              /* see T4 */
  /* [L] */
  bool pulling; /* it is polled for input */
  mli_op *reader, *writer;
  void (*writable)(mli_stream *s); /* goes on with `writer` */
  unsigned immediate;              /* writes on the loop since it last had a turn */
};

/* Makes a stream of a descriptor, with one reference; NULL with the error in
** `*err`, the descriptor is the caller's then. Thread: the loop's. */
mli_stream *mli_stream_new(mli_loop *loop, int fd, int *err);

/* The same connection as a stream of another loop; `s` is closed. Only for one that nobody
** has used yet: what was read already would be lost. NULL with the error in `*err`, `s` is as
** it was. Thread: that of `loop`. */
mli_stream *mli_stream_move(mli_stream *s, mli_loop *loop, int *err);

/* ---- reading ---- */

typedef enum mli_want_kind {
  MLI_WANT_SOME,
  MLI_WANT_EXACTLY,
  MLI_WANT_UNTIL,
  MLI_WANT_ALL
} mli_want_kind;

typedef struct mli_want {
  mli_want_kind kind;
  size_t n;         /* how many; for UNTIL and ALL the most that may come */
  const char *mark; /* UNTIL: the bytes that end it; borrowed */
  size_t mark_size;
  uint64_t scanned; /* UNTIL: no mark begins before this place of the stream */
} mli_want;

typedef enum mli_ready {
  MLI_READY, /* `size` bytes are what is wanted */
  MLI_NOT_YET,
  MLI_AT_END,    /* `size` bytes are all that will come: see `ended` */
  MLI_TOO_LARGE, /* more than n bytes came without an end */
  MLI_TAKEN,     /* another read waits: misuse */
  MLI_SHUT       /* the stream was closed on this side */
} mli_ready;

/* What a read would find now. Thread: any. Blocks: no. */
mli_ready mli_stream_peek(mli_stream *s, mli_want *want, size_t *size, int *ended);
/* Moves up to `size` bytes out of the buffer; returns how many. Thread: any. */
size_t mli_stream_take(mli_stream *s, char *to, size_t size);

/* A wait until `want` can be told something else than MLI_NOT_YET, which is
** what it then ends with ML_OK for. It keeps a copy of the want, for a
** reader that has to wait again. ML_OK, ML_MEMORY, or ML_MISUSE: another read
** waits. */
typedef struct mli_read {
  mli_op op;
  mli_stream *stream;
  bool slot; /* [M] it has the stream's */
  mli_want want;
  char mark[];
} mli_read;
ml_status mli_read_new(mli_stream *s, const mli_want *want, mli_read **out);

/* ---- writing ---- */

/* Writes what the system takes at once; `*sent` of `size`. ML_OK: all of it.
** ML_BUSY: the rest is for a write operation. ML_MISUSE: another write waits.
** ML_CLOSED: closed, shut or cut. ML_SYSTEM: `*err` is libuv's error.
** Thread: any. Blocks: no. */
ml_status mli_stream_write_now(mli_stream *s, const char *data, size_t size, size_t *sent,
                               int *err);

/* Writes the rest of `data`, of which `sent` bytes went out already; keeps a
** copy of the rest. In the end `sent` says how much of all went out. ML_OK,
** ML_MEMORY or ML_MISUSE. */
typedef struct mli_write {
  mli_op op;
  mli_stream *stream;
  bool slot; /* [M] */
  size_t size, sent;
  size_t before; /* what was sent before it began; `rest` begins there */
  char rest[];
} mli_write;
ml_status mli_write_new(mli_stream *s, const char *data, size_t size, size_t sent, mli_write **out);
/* Ends the output; the other side sees the end of its input. Holds the slot of
** a write. */
ml_status mli_shutdown_new(mli_stream *s, mli_write **out);

/* The writer knows where the stream stands and may go on. Thread: any. */
void mli_stream_uncut(mli_stream *s);

/* ---- other ---- */

/* 0 or libuv's error (UV_EBADF: closed). Thread: any. Blocks: no. */
int mli_stream_nodelay(mli_stream *s, bool on);
int mli_stream_address(mli_stream *s, struct sockaddr_storage *address, socklen_t *size);

/* Calls `writable` while `op` is pending and the system would take output, or
** has an error: for the end of a connect. Thread: the loop's. */
void mli_stream_await_writable(mli_stream *s, mli_op *op, void (*writable)(mli_stream *s));

#endif
