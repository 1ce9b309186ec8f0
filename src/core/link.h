/*
** link.h: packets between this process and one that it started, or that started it,
** over a socket. Long ones do not go through the socket: they lie in memory that both
** have mapped, one such region in each direction, made when it is first needed.
**
** K1  The two sides take turns: who sends a long packet has read the last one of the
**     other side, so that its region is free again.
** K2  A region never shrinks: it is sealed, and who maps it checks that.
**
** Thread: one at a time.
*/
#ifndef MLI_LINK_H
#define MLI_LINK_H

#include <sys/uio.h>
#include "bytes.h"

#define MLI_LINK_PARTS 4                 /* of a packet, at most */
#define MLI_LINK_LONG ((size_t)48 << 10) /* from here on it is a long one */

typedef struct mli_packet {
  uint32_t type;
  uint64_t id;
  const unsigned char *bytes; /* of the link: until the next receive */
  size_t size;
} mli_packet;

typedef struct mli_region {
  int fd; /* the writer's; -1: none */
  unsigned char *base;
  size_t size;
} mli_region;

typedef struct mli_link {
  int fd;        /* owned; blocking or not */
  mli_bytes in;  /* received; `taken` of it is used up */
  size_t taken;  /* bytes of the packet that was given out last */
  size_t skip;   /* bytes still to come of a packet that there was no memory for */
  mli_bytes out; /* what the socket did not take yet; `sent` of it is gone */
  size_t sent;
  int fd_out, fd_in;       /* a region's, still to be sent; that came; -1: none */
  mli_region ours, theirs; /* written by us; by them */
  bool once;               /* `theirs` is unmapped with the next receive: it is large */
  bool holds;              /* nothing is sent before a flush */
} mli_link;

/* Takes over the socket. */
void mli_link_init(mli_link *link, int fd);
void mli_link_fini(mli_link *link);

/* Sends a packet of these parts. ML_OK: it is sent, or kept where the socket would block:
** see mli_link_flush. ML_CLOSED: the other side is gone, or cannot be spoken to any more. */
ml_status mli_link_send(mli_link *link, uint32_t type, uint64_t id, const struct iovec *parts,
                        int count);
/* From here on packets are kept, to be sent at once by mli_link_flush. */
void mli_link_hold(mli_link *link);
/* Sends what was kept. ML_OK: all of it. ML_BUSY: the socket would block. ML_CLOSED. */
ml_status mli_link_flush(mli_link *link);

/* Whether more came with the packet that was given out last. */
static inline bool mli_link_any(const mli_link *link) { return link->in.size > link->taken; }

/* The next packet. ML_OK; ML_BUSY: none is complete and the socket would block;
** ML_CLOSED: there will be none, also where what came makes no sense; ML_MEMORY: there
** is no memory for this one, whose type and id are set; the next may be received. */
ml_status mli_link_receive(mli_link *link, mli_packet *out);

#endif
