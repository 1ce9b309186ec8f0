/* link.c: packets over a socket, long ones by shared memory. */
#include "link.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "system.h"

#define MAGIC 0x6d6c3031u
#define READ_AHEAD ((size_t)64 << 10)   /* asked of the socket at once */
#define REGION_STEP ((size_t)1 << 20)   /* sizes of regions */
#define REGION_KEPT ((size_t)64 << 20)  /* larger ones are let go of after one packet */
#define KEPT_BUFFER ((size_t)256 << 10) /* likewise buffers */

enum { IN_REGION = 1, NEW_REGION = 2 }; /* flags */

typedef struct header {
  uint32_t magic, type;
  uint32_t flags, unused;
  uint64_t id;
  uint64_t size; /* of what follows, here or in the region */
} header;

static void region_drop(mli_region *region) {
  if (region->base) munmap(region->base, region->size);
  if (region->fd >= 0) close(region->fd);
  *region = (mli_region){ .fd = -1 };
}

void mli_link_init(mli_link *link, int fd) {
  *link = (mli_link){ .fd = fd, .fd_out = -1, .fd_in = -1 };
  link->ours.fd = link->theirs.fd = -1;
}

void mli_link_fini(mli_link *link) {
  region_drop(&link->ours);
  region_drop(&link->theirs);
  if (link->fd_in >= 0) close(link->fd_in);
  if (link->fd >= 0) close(link->fd);
  mli_bytes_free(&link->in);
  mli_bytes_free(&link->out);
  link->fd = link->fd_in = -1;
}

/* ---- sending ---- */

/* A region of ours for `size` bytes. False: there is none, the socket must do. A new one
** goes along with the next packet. */
static bool make_region(mli_link *link, size_t size) {
  if (link->ours.size >= size) return true;
  region_drop(&link->ours);
  mli_region r = { .size = (size + REGION_STEP - 1) / REGION_STEP * REGION_STEP };
  r.fd = mli_sealed_memory(r.size);
  if (r.fd < 0) return false;
  r.base = mmap(NULL, r.size, PROT_READ | PROT_WRITE, MAP_SHARED, r.fd, 0);
  if (r.base != MAP_FAILED) {
    link->ours = r;
    link->fd_out = r.fd;
    return true;
  }
  close(r.fd);
  return false;
}

/* Sends bytes, and the descriptor with the first of them. How many went; -1: none, errno. */
static ssize_t send_some(mli_link *link, struct iovec *parts, size_t count) {
  union {
    char space[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control = { { 0 } };
  struct msghdr m = { .msg_iov = parts, .msg_iovlen = count };
  if (link->fd_out >= 0) {
    m.msg_control = control.space;
    m.msg_controllen = sizeof control.space;
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &link->fd_out, sizeof(int));
  }
  ssize_t n;
  do n = sendmsg(link->fd, &m, MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  if (n > 0) link->fd_out = -1;
  return n;
}

void mli_link_hold(mli_link *link) { link->holds = true; }

ml_status mli_link_flush(mli_link *link) {
  link->holds = false;
  while (link->sent < link->out.size) {
    struct iovec rest = { link->out.data + link->sent, link->out.size - link->sent };
    ssize_t n = send_some(link, &rest, 1);
    if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? ML_BUSY : ML_CLOSED;
    link->sent += (size_t)n;
  }
  link->out.size = link->sent = 0;
  if (link->out.room > KEPT_BUFFER) mli_bytes_free(&link->out);
  return ML_OK;
}

/* Sends the parts, or keeps what the socket does not take. */
static ml_status send_parts(mli_link *link, struct iovec *parts, int count) {
  size_t left = 0;
  for (int i = 0; i < count; i++) left += parts[i].iov_len;
  while (left > 0 && link->out.size == 0 && !link->holds) {
    ssize_t n = send_some(link, parts, (size_t)count);
    if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return ML_CLOSED;
    if (n < 0) break;
    left -= (size_t)n;
    for (size_t gone = (size_t)n; count > 0;) {
      size_t part = gone < parts->iov_len ? gone : parts->iov_len;
      parts->iov_base = (char *)parts->iov_base + part;
      parts->iov_len -= part;
      gone -= part;
      if (parts->iov_len > 0) break;
      parts++;
      count--;
    }
  }
  if (left == 0) return ML_OK;
  if (!mli_bytes_expect(&link->out, left))
    return ML_CLOSED; /* half a packet cannot be taken back */
  for (int i = 0; i < count; i++) mli_put(&link->out, parts[i].iov_base, parts[i].iov_len);
  return ML_OK;
}

ml_status mli_link_send(mli_link *link, uint32_t type, uint64_t id, const struct iovec *parts,
                        int count) {
  header h = { .magic = MAGIC, .type = type, .id = id };
  struct iovec all[MLI_LINK_PARTS + 1] = { { &h, sizeof h } };
  for (int i = 0; i < count; i++) {
    h.size += parts[i].iov_len;
    all[i + 1] = parts[i];
  }
  if (h.size >= MLI_LINK_LONG) {
    if (make_region(link, h.size)) {
      h.flags = IN_REGION | (link->fd_out >= 0 ? NEW_REGION : 0);
      unsigned char *to = link->ours.base;
      for (int i = 0; i < count; i++) {
        memcpy(to, parts[i].iov_base, parts[i].iov_len);
        to += parts[i].iov_len;
      }
      return send_parts(link, all, 1);
    }
  }
  return send_parts(link, all, count + 1);
}

/* ---- receiving ---- */

/* Asks the socket for more. ML_OK: some came. */
static ml_status receive_some(mli_link *link, size_t wanted) {
  union {
    char space[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control;
  mli_bytes *in = &link->in;
  if (wanted < READ_AHEAD) wanted = READ_AHEAD;
  if (!mli_bytes_expect(in, wanted)) return ML_MEMORY;
  struct iovec part = { in->data + in->size, wanted };
  struct msghdr m = { .msg_iov = &part,
                      .msg_iovlen = 1,
                      .msg_control = control.space,
                      .msg_controllen = sizeof control.space };
  ssize_t n;
  do n = recvmsg(link->fd, &m, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? ML_BUSY : ML_CLOSED;
  if (n == 0) return ML_CLOSED;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    if (link->fd_in >= 0) close(link->fd_in);
    memcpy(&link->fd_in, CMSG_DATA(c), sizeof(int));
  }
  in->size += (size_t)n;
  return ML_OK;
}

/* Maps the region that came. ML_CLOSED: it is not what it must be. */
static ml_status map_region(mli_link *link, size_t needed) {
  int fd = link->fd_in;
  struct stat s;
  ml_status status = ML_CLOSED;
  region_drop(&link->theirs);
  link->fd_in = -1;
  if (fd >= 0 && mli_is_sealed(fd) && fstat(fd, &s) == 0 && (uint64_t)s.st_size >= needed) {
    void *base = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_SHARED, fd, 0);
    status = base == MAP_FAILED ? ML_MEMORY : ML_OK;
    if (status == ML_OK) link->theirs = (mli_region){ -1, base, (size_t)s.st_size };
  }
  if (fd >= 0) close(fd);
  return status;
}

/* Lets go of the packet that was given out last. */
static void forget_last(mli_link *link) {
  mli_bytes *in = &link->in;
  if (link->once) region_drop(&link->theirs);
  link->once = false;
  if (link->taken == 0) return;
  in->size -= link->taken;
  if (in->size > 0)
    memmove(in->data, in->data + link->taken, in->size);
  else if (in->room > KEPT_BUFFER)
    mli_bytes_free(in);
  link->taken = 0;
}

/* What comes of a packet that nobody gets. */
static ml_status skip_some(mli_link *link) {
  ml_status status = receive_some(link, 0);
  if (status != ML_OK) return status == ML_MEMORY ? ML_CLOSED : status;
  mli_bytes *in = &link->in;
  size_t n = in->size < link->skip ? in->size : link->skip;
  in->size -= n;
  memmove(in->data, in->data + n, in->size);
  link->skip -= n;
  return ML_OK;
}

ml_status mli_link_receive(mli_link *link, mli_packet *out) {
  header h;
  forget_last(link);
  while (link->skip > 0) {
    ml_status status = skip_some(link);
    if (status != ML_OK) return status;
  }
  for (;;) {
    size_t wanted = sizeof h;
    if (link->in.size >= sizeof h) {
      memcpy(&h, link->in.data, sizeof h);
      if (h.magic != MAGIC || h.size > SIZE_MAX / 4) return ML_CLOSED;
      if (!(h.flags & IN_REGION)) wanted += h.size;
      if (link->in.size >= wanted) break;
    }
    /* Memory for a long one is asked for as it comes, not as its header promises. */
    size_t missing = wanted - link->in.size;
    ml_status status = receive_some(link, missing < link->in.size ? missing : link->in.size);
    if (status == ML_MEMORY && link->in.size >= sizeof h) {
      *out = (mli_packet){ .type = h.type, .id = h.id };
      link->skip = missing;
      mli_bytes_free(&link->in);
      return ML_MEMORY;
    }
    if (status != ML_OK) return status == ML_MEMORY ? ML_CLOSED : status;
  }
  *out = (mli_packet){ .type = h.type, .id = h.id, .size = (size_t)h.size };
  if (link->ours.size > REGION_KEPT && link->fd_out < 0) region_drop(&link->ours); /* K1 */
  link->taken = sizeof h;
  if (!(h.flags & IN_REGION)) {
    link->taken += out->size;
    out->bytes = link->in.data + sizeof h;
    return ML_OK;
  }
  if (h.flags & NEW_REGION) {
    ml_status status = map_region(link, out->size);
    if (status != ML_OK) return status;
  }
  if (out->size > link->theirs.size) return link->theirs.base ? ML_CLOSED : ML_MEMORY;
  link->once = link->theirs.size > REGION_KEPT;
  out->bytes = link->theirs.base;
  return ML_OK;
}
