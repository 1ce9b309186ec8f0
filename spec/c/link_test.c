/* Tests of links: packets of all sizes over a socket that takes and gives little at a time,
** K1 and K2 of core/link.h, and a peer that sends what makes no sense. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include "check.h"
#include "core/link.h"

static void open_pair(mli_link *a, mli_link *b) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0) abort();
  mli_link_init(a, fds[0]);
  mli_link_init(b, fds[1]);
}

static void close_pair(mli_link *a, mli_link *b) {
  mli_link_fini(a);
  mli_link_fini(b);
}

static unsigned char *pattern(size_t size, unsigned seed) {
  unsigned char *p = malloc(size + 1);
  if (!p) abort();
  for (size_t i = 0; i < size; i++) p[i] = (unsigned char)(i * 31 + i / 251 + seed);
  return p;
}

/* Sends a packet in two parts and receives it on the other side. */
static void pass(mli_link *from, mli_link *to, size_t size, unsigned id) {
  unsigned char *bytes = pattern(size, id);
  struct iovec parts[] = { { bytes, size / 3 }, { bytes + size / 3, size - size / 3 } };
  mli_packet got;
  CHECK_EQ(mli_link_send(from, 7, id, parts, 2), ML_OK);
  ml_status status;
  while ((status = mli_link_receive(to, &got)) == ML_BUSY && mli_link_flush(from) != ML_CLOSED)
    continue;
  CHECK_EQ(status, ML_OK);
  CHECK(got.type == 7 && got.id == id && got.size == size);
  CHECK(status == ML_OK && memcmp(got.bytes, bytes, size) == 0);
  free(bytes);
}

static void test_sizes(void) {
  static const size_t sizes[] = { 0,        1,     100,     40000,         49151,
                                  49152,    60000, 1 << 20, (1 << 20) + 1, 3000000,
                                  70 << 20, 5,     100000 };
  mli_link a, b;
  open_pair(&a, &b);
  for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    pass(&a, &b, sizes[i], 2 * i);
    pass(&b, &a, sizes[i], 2 * i + 1);
  }
  close_pair(&a, &b);
}

/* Held packets go out at the flush, in order; a long one's region comes with them. */
static void test_held(void) {
  static const size_t sizes[] = { 10, 0, 3000, 60000 };
  enum { COUNT = sizeof sizes / sizeof *sizes };
  mli_link a, b;
  mli_packet got;
  open_pair(&a, &b);
  mli_link_hold(&a);
  for (unsigned i = 0; i < COUNT; i++) {
    unsigned char *bytes = pattern(sizes[i], i);
    CHECK_EQ(mli_link_send(&a, 7, i, &(struct iovec){ bytes, sizes[i] }, 1), ML_OK);
    free(bytes);
  }
  CHECK_EQ(mli_link_receive(&b, &got), ML_BUSY);
  CHECK_EQ(mli_link_flush(&a), ML_OK);
  for (unsigned i = 0; i < COUNT; i++) {
    unsigned char *bytes = pattern(sizes[i], i);
    CHECK_EQ(mli_link_receive(&b, &got), ML_OK);
    CHECK(got.id == i && got.size == sizes[i] && memcmp(got.bytes, bytes, sizes[i]) == 0);
    free(bytes);
  }
  CHECK_EQ(mli_link_receive(&b, &got), ML_BUSY);
  pass(&a, &b, 100, COUNT); /* which is not held */
  close_pair(&a, &b);
}

/* Many packets before any is read: they come in order, also where the socket is full. */
static void test_many(void) {
  mli_link a, b;
  unsigned char *bytes = pattern(9000, 1);
  struct iovec part = { bytes, 9000 };
  mli_packet got;
  open_pair(&a, &b);
  for (unsigned i = 0; i < 100; i++) CHECK_EQ(mli_link_send(&a, i, i, &part, 1), ML_OK);
  CHECK(a.out.size > 0);
  for (unsigned i = 0; i < 100; i++) {
    ml_status status;
    while ((status = mli_link_receive(&b, &got)) == ML_BUSY) mli_link_flush(&a);
    CHECK(status == ML_OK && got.id == i && got.size == 9000);
    CHECK(memcmp(got.bytes, bytes, 9000) == 0);
  }
  CHECK_EQ(mli_link_flush(&a), ML_OK);
  CHECK_EQ(mli_link_receive(&b, &got), ML_BUSY);
  free(bytes);
  close_pair(&a, &b);
}

static void test_gone(void) {
  mli_link a, b;
  struct iovec part = { "x", 1 };
  mli_packet got;
  open_pair(&a, &b);
  mli_link_fini(&b);
  CHECK_EQ(mli_link_send(&a, 1, 1, &part, 1), ML_CLOSED);
  CHECK_EQ(mli_link_receive(&a, &got), ML_CLOSED);
  mli_link_fini(&a);
}

/* The header of a long packet, as link.c sends it, with a region of the sender's choice. */
static void send_region(int socket, uint64_t size, int fd) {
  struct {
    uint32_t magic, type, flags, unused;
    uint64_t id, size;
  } h = { 0x6d6c3031u, 1, 3, 0, 1, size };
  union {
    char space[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control = { { 0 } };
  struct iovec part = { &h, sizeof h };
  struct msghdr m = { .msg_iov = &part,
                      .msg_iovlen = 1,
                      .msg_control = control.space,
                      .msg_controllen = sizeof control.space };
  struct cmsghdr *c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(c), &fd, sizeof fd);
  if (sendmsg(socket, &m, 0) < 0) abort();
}

/* What a peer that went wrong could send: none of it is believed. */
static void test_nonsense(void) {
  for (int kind = 0; kind < 3; kind++) {
    mli_link a, b;
    mli_packet got;
    open_pair(&a, &b);
    if (kind == 0) {
      CHECK_EQ(write(b.fd, "no packet, but text of some length", 34), 34);
    } else {
      int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
      CHECK(fd >= 0 && ftruncate(fd, 4096) == 0);
      if (kind == 2) CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0); /* but it is too short */
      send_region(b.fd, kind == 1 ? 4096 : 100000, fd);
      close(fd);
    }
    CHECK_EQ(mli_link_receive(&a, &got), ML_CLOSED);
    close_pair(&a, &b);
  }
}

int main(void) {
  test_sizes();
  test_held();
  test_many();
  test_gone();
  test_nonsense();
  return check_report();
}
