/*
** elsewhere.c: what a loop's descriptors are connected to. The other end of a socket is in
** this process if one of its descriptors has the two names the other way round.
*/
#include "elsewhere.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#ifdef __linux__
#include <linux/sockios.h>
#else
#define SIOCOUTQ TIOCOUTQ
#endif

typedef struct name {
  struct sockaddr_storage address;
  socklen_t size;
} name;

typedef struct ends {
  name own, peer;
} ends;

typedef struct watched {
  mli_loop *loop;
  ends *list;
  unsigned count, room, here;
  mli_elsewhere verdict;
} watched;

static bool get_ends(int fd, ends *out) {
  memset(out, 0, sizeof *out);
  out->own.size = out->peer.size = sizeof out->own.address;
  return getsockname(fd, (struct sockaddr *)&out->own.address, &out->own.size) == 0 &&
         getpeername(fd, (struct sockaddr *)&out->peer.address, &out->peer.size) == 0;
}

static bool same(const name *a, const name *b) {
  return a->size == b->size && memcmp(&a->address, &b->address, a->size) == 0;
}

/* One of a pair of Unix sockets without names: it cannot be told from others. */
static bool is_nameless(const ends *e) {
  return e->own.size <= sizeof(sa_family_t) && e->peer.size <= sizeof(sa_family_t);
}

static bool is_listening(int fd) {
  int yes = 0;
  socklen_t size = sizeof yes;
  return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &size) == 0 && yes;
}

static bool has_unsent(int fd) {
  int bytes = 0;
  return ioctl(fd, SIOCOUTQ, &bytes) == 0 && bytes > 0;
}

static void add(watched *w, int fd) {
  ends e;
  if (is_listening(fd)) return;
  if (!get_ends(fd, &e) || is_nameless(&e)) {
    w->verdict = MLI_ELSEWHERE;
    return;
  }
  if (w->count == w->room) {
    unsigned room = w->room ? w->room * 2 : 16;
    ends *grown = realloc(w->list, room * sizeof *grown);
    if (!grown) {
      w->verdict = MLI_ELSEWHERE;
      return;
    }
    w->list = grown;
    w->room = room;
  }
  w->list[w->count++] = e;
}

static void look_at(uv_handle_t *handle, void *user) {
  watched *w = user;
  uintptr_t at = (uintptr_t)handle, own = (uintptr_t)w->loop;
  uv_os_fd_t fd;
  if (at >= own && at < own + sizeof *w->loop) return;
  if (!uv_is_active(handle) || !uv_has_ref(handle)) return;
  switch (handle->type) {
  case UV_ASYNC:
  case UV_CHECK:
  case UV_IDLE:
  case UV_PREPARE:
  case UV_SIGNAL:
  case UV_TIMER:
  case UV_FS_EVENT: return;
  default: break;
  }
  if (uv_fileno(handle, &fd) == 0)
    add(w, fd);
  else
    w->verdict = MLI_ELSEWHERE;
}

/* Counts the watched ends whose other end this descriptor is, and looks whether what it has
** sent has come. */
static void match(watched *w, int fd) {
  ends e;
  if (!get_ends(fd, &e)) return;
  for (unsigned i = 0; i < w->count; i++) {
    if (!same(&w->list[i].own, &e.peer) || !same(&w->list[i].peer, &e.own)) continue;
    w->here++;
    if (has_unsent(fd)) w->verdict = MLI_ON_WAY;
  }
}

/* All descriptors of the process. */
static void match_all(watched *w) {
  DIR *all = opendir("/dev/fd");
  if (!all) return;
  for (struct dirent *entry; (entry = readdir(all));)
    if (*entry->d_name != '.') match(w, atoi(entry->d_name));
  closedir(all);
}

mli_elsewhere mli_loop_waits_elsewhere(mli_loop *loop) {
  watched w = { .loop = loop, .verdict = MLI_HERE };
  if (loop->uv.active_reqs.count > 0) return MLI_ELSEWHERE;
  uv_walk(&loop->uv, look_at, &w);
  if (w.verdict == MLI_HERE && w.count > 0) {
    match_all(&w);
    if (w.here < w.count) w.verdict = MLI_ELSEWHERE;
  }
  free(w.list);
  return w.verdict;
}
