/* system_posix.c: the same with what systems have in common, and a little of macOS's own. */
#include "system.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#ifdef __APPLE__
#include <crt_externs.h>
#include <mach-o/dyld.h>
#endif

/* ---- sleeping ---- */

/* Who sleeps on a word sleeps in the room that its address leads to. A room may have
** sleepers on other words too: all wake, and look. */
#define ROOMS 64

static struct room {
  uv_mutex_t lock;
  uv_cond_t called;
} rooms[ROOMS];
static uv_once_t once = UV_ONCE_INIT;

static void open_rooms(void) {
  for (int i = 0; i < ROOMS; i++)
    if (uv_mutex_init(&rooms[i].lock) != 0 || uv_cond_init(&rooms[i].called) != 0) abort();
}

static struct room *room_of(const atomic_uint *word) {
  uv_once(&once, open_rooms);
  uintptr_t at = (uintptr_t)word;
  return &rooms[(at >> 4 ^ at >> 10) % ROOMS];
}

int mli_futex_wait(atomic_uint *word, unsigned expected, uint64_t deadline) {
  struct room *room = room_of(word);
  int err = 0;
  uv_mutex_lock(&room->lock);
  if (atomic_load(word) != expected) {
    err = EAGAIN;
  } else if (deadline == MLI_FOREVER) {
    uv_cond_wait(&room->called, &room->lock);
  } else {
    uint64_t now = mli_now();
    if (now >= deadline ||
        uv_cond_timedwait(&room->called, &room->lock, deadline - now) == UV_ETIMEDOUT)
      err = ETIMEDOUT;
  }
  uv_mutex_unlock(&room->lock);
  return err;
}

/* Who is about to sleep holds the lock, or has seen the new word. */
void mli_futex_wake(atomic_uint *word) {
  struct room *room = room_of(word);
  uv_mutex_lock(&room->lock);
  uv_cond_broadcast(&room->called);
  uv_mutex_unlock(&room->lock);
}

/* ---- descriptors ---- */

static int set_flags(int fd, bool blocking) {
  int flags = blocking ? 0 : fcntl(fd, F_GETFL);
  if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || flags < 0) return -1;
  return blocking || fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 ? 0 : -1;
}

/* Another thread may start a program between the two calls: it keeps the descriptor. */
static int prepare(int fd, bool blocking) {
  if (fd < 0) return fd;
#ifdef SO_NOSIGPIPE
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on); /* fails for one that is gone */
#endif
  if (set_flags(fd, blocking) == 0) return fd;
  int err = errno;
  close(fd);
  errno = err;
  return -1;
}

static int prepare_both(int pair[2], bool blocking) {
  if (prepare(pair[0], blocking) < 0)
    close(pair[1]);
  else if (prepare(pair[1], blocking) < 0)
    close(pair[0]);
  else
    return 0;
  return -1;
}

int mli_socket_new(int family, int type, int protocol, bool blocking) {
  return prepare(socket(family, type, protocol), blocking);
}

int mli_socket_pair(int pair[2]) {
  return socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 ? -1 : prepare_both(pair, true);
}

int mli_pipe(int pair[2]) { return pipe(pair) < 0 ? -1 : prepare_both(pair, true); }

int mli_socket_accept(int fd, struct sockaddr *peer, socklen_t *size) {
  return prepare(accept(fd, peer, size), false);
}

int mli_sealed_memory(size_t size) {
  (void)size;
  errno = ENOSYS;
  return -1;
}

bool mli_is_sealed(int fd) {
  (void)fd;
  return false;
}

/* ---- waking a loop ---- */

int mli_bell_open(mli_bell *bell) {
  int pair[2];
  if (pipe(pair) < 0 || prepare_both(pair, false) < 0) return -1;
  *bell = (mli_bell){ .fd = pair[0], .handle = pair[1] };
  return 0;
}

void mli_bell_ring(const mli_bell *bell) {
  ssize_t r;
  do r = write(bell->handle, "", 1);
  while (r < 0 && errno == EINTR);
  /* EAGAIN: a full pipe is readable too */
}

void mli_bell_hush(const mli_bell *bell) {
  char bytes[256];
  while (read(bell->fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes) {
  }
}

void mli_bell_close(mli_bell *bell) {
  close(bell->fd);
  close(bell->handle);
}

/* ---- threads ---- */

void mli_thread_name(const char *name) {
#if defined(__APPLE__)
  pthread_setname_np(name);
#elif defined(__GLIBC__)
  char kept[16] = { 0 }; /* a longer one is refused */
  for (size_t i = 0; i < sizeof kept - 1 && name[i]; i++) kept[i] = name[i];
  pthread_setname_np(pthread_self(), kept);
#else
  (void)name;
#endif
}

long mli_thread_number(void) {
#ifdef __APPLE__
  uint64_t number = 0;
  pthread_threadid_np(NULL, &number);
  return (long)number;
#else
  return (long)(intptr_t)pthread_self();
#endif
}

bool mli_thread_clock(clockid_t *clock) {
  (void)clock;
  return false;
}

bool mli_thread_is_runnable(long number) {
  (void)number;
  return false;
}

bool mli_thread_is_main(void) {
#ifdef __APPLE__
  return pthread_main_np();
#else
  return true;
#endif
}

bool mli_processor_is_alone(void) { return sysconf(_SC_NPROCESSORS_ONLN) == 1; }

mli_interrupted mli_interrupted_at(const void *context) {
  (void)context;
  return (mli_interrupted){ 0, false };
}

/* ---- processes ---- */

/* A thread that no signal goes to, and nobody joins. 0, or an error number. */
static int start_thread(void *(*run)(void *argument), void *argument) {
  pthread_t thread;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  int err = pthread_create(&thread, NULL, run, argument);
  if (err == 0) pthread_detach(thread);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return err;
}

typedef struct child {
  pid_t pid;
  int end; /* of a pipe, for writing: closed when the child has ended */
} child;

static void *look_after_child(void *argument) {
  child *c = argument;
  siginfo_t info;
  int r;
  do r = waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOWAIT);
  while (r != 0 && errno == EINTR);
  close(c->end);
  free(c);
  return NULL;
}

int mli_process_fd(pid_t pid) {
  int pair[2];
  child *c = malloc(sizeof *c);
  if (!c || mli_pipe(pair) != 0) {
    free(c);
    return -1;
  }
  *c = (child){ pid, pair[1] };
  int err = start_thread(look_after_child, c);
  if (err == 0) return pair[0];
  close(pair[0]);
  close(pair[1]);
  free(c);
  errno = err;
  return -1;
}

static void *look_after_parent(void *parent) {
  static const struct timespec second = { .tv_sec = 1 };
  while (getppid() == (pid_t)(intptr_t)parent) nanosleep(&second, NULL);
  kill(getpid(), SIGKILL);
  return NULL;
}

/* Of one that ended before this the caller's socket will tell. */
void mli_process_ends_with_parent(void) {
  start_thread(look_after_parent, (void *)(intptr_t)getppid());
}

void mli_process_closes_from(int first) {
  DIR *open = opendir("/dev/fd");
  if (!open) return;
  for (struct dirent *entry; (entry = readdir(open));) {
    int fd = atoi(entry->d_name);
    if (fd >= first && fd != dirfd(open)) close(fd);
  }
  closedir(open);
}

bool mli_process_program(char *out, size_t size) {
#ifdef __APPLE__
  uint32_t room = (uint32_t)size;
  bool found = _NSGetExecutablePath(out, &room) == 0;
#else
  ssize_t n = readlink("/proc/self/exe", out, size - 1);
  bool found = n > 0;
  if (found) out[n] = '\0';
#endif
  if (!found) out[0] = '\0';
  return found;
}

char **mli_process_environment(void) {
#ifdef __APPLE__
  return *_NSGetEnviron();
#else
  extern char **environ;
  return environ;
#endif
}
