/* system_linux.c: what Linux has. */
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* ---- sleeping ---- */

/* There always is a deadline: without, a handler with SA_RESTART would not end the wait. */
int mli_futex_wait(atomic_uint *word, unsigned expected, uint64_t deadline) {
  struct timespec at = { .tv_sec = (time_t)(deadline / MLI_SECOND),
                         .tv_nsec = (long)(deadline % MLI_SECOND) };
  long r = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected, &at, NULL,
                   FUTEX_BITSET_MATCH_ANY);
  return r == 0 ? 0 : errno;
}

void mli_futex_wake(atomic_uint *word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* ---- waking a loop ---- */

int mli_bell_open(mli_bell *bell) {
  bell->fd = bell->handle = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  return bell->fd < 0 ? -1 : 0;
}

void mli_bell_ring(const mli_bell *bell) {
  static const uint64_t one = 1;
  ssize_t r;
  do r = write(bell->handle, &one, sizeof one);
  while (r < 0 && errno == EINTR);
}

void mli_bell_hush(const mli_bell *bell) {
  uint64_t count;
  ssize_t r = read(bell->fd, &count, sizeof count);
  (void)r; /* EAGAIN: another turn read it */
}

void mli_bell_close(mli_bell *bell) { close(bell->fd); }

/* ---- descriptors ---- */

int mli_socket_new(int family, int type, int protocol, bool blocking) {
  return socket(family, type | SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK), protocol);
}

int mli_socket_pair(int pair[2]) {
  return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
}

int mli_pipe(int pair[2]) { return pipe2(pair, O_CLOEXEC); }

int mli_socket_accept(int fd, struct sockaddr *peer, socklen_t *size) {
  return accept4(fd, peer, size, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

int mli_sealed_memory(size_t size) {
  int fd = memfd_create("moonloop", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return -1;
  if (ftruncate(fd, (off_t)size) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL) == 0)
    return fd;
  close(fd);
  return -1;
}

bool mli_is_sealed(int fd) {
  int seals = fcntl(fd, F_GET_SEALS);
  return seals >= 0 && (seals & F_SEAL_SHRINK);
}

/* ---- threads ---- */

void mli_thread_name(const char *name) { prctl(PR_SET_NAME, name); }

long mli_thread_number(void) { return syscall(SYS_gettid); }

bool mli_thread_clock(clockid_t *clock) {
  return pthread_getcpuclockid(pthread_self(), clock) == 0;
}

bool mli_thread_is_runnable(long number) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/self/task/%ld/stat", number);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  text[n > 0 ? n : 0] = '\0';
  const char *name_end = strrchr(text, ')');
  return name_end && name_end[1] == ' ' && name_end[2] == 'R';
}

bool mli_thread_is_main(void) { return syscall(SYS_gettid) == (long)getpid(); }

bool mli_processor_is_alone(void) {
  cpu_set_t allowed;
  return sched_getaffinity(0, sizeof allowed, &allowed) == 0 && CPU_COUNT(&allowed) == 1;
}

/* The instruction, and if that is a system call which one. With SA_RESTART it is either
** about to be made (again), or it was broken off with EINTR. */
typedef struct interrupted {
  uintptr_t place;
  long call; /* -1: none, or unknown; 0: broken off */
} interrupted;

static interrupted what_was(const void *context) {
#ifdef __SANITIZE_THREAD__
  (void)context; /* it calls handlers later */
  return (interrupted){ 0, -1 };
#else
  const ucontext_t *u = context;
#if defined(__x86_64__)
  uintptr_t pc = (uintptr_t)u->uc_mcontext.gregs[REG_RIP];
  const unsigned char *code = (const unsigned char *)pc;
  long value = (long)u->uc_mcontext.gregs[REG_RAX];
  if (value == -EINTR) return (interrupted){ pc, code[-2] == 0x0f && code[-1] == 0x05 ? 0 : -1 };
  return (interrupted){ pc, code[0] == 0x0f && code[1] == 0x05 ? value : -1 };
#elif defined(__aarch64__)
  uintptr_t pc = (uintptr_t)u->uc_mcontext.pc;
  const unsigned *code = (const unsigned *)pc, svc = 0xd4000001;
  if ((long)u->uc_mcontext.regs[0] == -EINTR) return (interrupted){ pc, code[-1] == svc ? 0 : -1 };
  return (interrupted){ pc, code[0] == svc ? (long)u->uc_mcontext.regs[8] : -1 };
#else
  (void)u;
  return (interrupted){ 0, -1 };
#endif
#endif
}

/* Memory is allocated with these, and what allocates may wait: Lua's stack may be on its way
** to another place. */
static bool is_of_allocators(long call) {
  switch (call) {
  case SYS_mmap:
  case SYS_munmap:
  case SYS_mremap:
  case SYS_mprotect:
  case SYS_madvise:
  case SYS_brk:
  case SYS_sched_yield:
  case SYS_futex: return true;
  default: return false;
  }
}

mli_interrupted mli_interrupted_at(const void *context) {
  interrupted was = what_was(context);
  return (mli_interrupted){ was.place, was.call >= 0 && !is_of_allocators(was.call) };
}

/* ---- processes ---- */

int mli_process_fd(pid_t pid) {
  return (int)syscall(SYS_pidfd_open, pid, 0); /* close-on-exec by itself */
}

void mli_process_ends_with_parent(void) { prctl(PR_SET_PDEATHSIG, SIGKILL); }

void mli_process_closes_from(int first) {
#ifdef SYS_close_range
  syscall(SYS_close_range, (unsigned)first, ~0u, 0u);
#else
  (void)first;
#endif
}

bool mli_process_program(char *out, size_t size) {
  ssize_t n = readlink("/proc/self/exe", out, size - 1);
  out[n > 0 ? n : 0] = '\0';
  return n > 0;
}

char **mli_process_environment(void) { return environ; }
