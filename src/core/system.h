/*
** system.h: what one system does differently from another. system_linux.c uses what only
** Linux has; system_posix.c makes do with what systems with POSIX threads have in common,
** macOS for one. CMake builds one of the two: MOONLOOP_PORTABLE=ON takes the second on
** Linux too, where the specs run on it.
**
** Every descriptor that is made here is closed in programs that are started. What fails
** returns -1 and sets errno, if nothing else is said. Any thread.
*/
#ifndef MLI_SYSTEM_H
#define MLI_SYSTEM_H

#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/types.h>
#include "base.h"

/* A connection that is gone raises no signal: by the flag, or because mli_socket_new,
** mli_socket_accept and mli_socket_pair saw to it. */
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif
#ifndef MSG_CMSG_CLOEXEC
#define MSG_CMSG_CLOEXEC 0
#endif
#ifdef __APPLE__
#define TCP_KEEPIDLE TCP_KEEPALIVE
#define st_mtim st_mtimespec
#endif

/* ---- sleeping ---- */

/* Sleeps while `*word` is `expected`, until the absolute monotonic deadline or a wake.
** 0, or EAGAIN (it is another), ETIMEDOUT, EINTR (a signal's handler ran; the portable one
** does not notice). May end for nothing. */
int mli_futex_wait(atomic_uint *word, unsigned expected, uint64_t deadline);
/* Ends one sleep on `word`, or more. It may lie in memory that is free by now. */
void mli_futex_wake(atomic_uint *word);

/* ---- waking a loop ---- */

/* A bell that was rung is readable until it is hushed. */
typedef struct mli_bell {
  int fd;     /* for reading */
  int handle; /* for ringing */
} mli_bell;

int mli_bell_open(mli_bell *bell);
void mli_bell_ring(const mli_bell *bell);
void mli_bell_hush(const mli_bell *bell);
void mli_bell_close(mli_bell *bell);

/* ---- descriptors ---- */

int mli_socket_new(int family, int type, int protocol, bool blocking);
int mli_socket_accept(int fd, struct sockaddr *peer, socklen_t *size); /* not blocking */
int mli_socket_pair(int pair[2]);                                      /* blocking */
int mli_pipe(int pair[2]);                                             /* likewise */

/* Memory as a file that cannot shrink; ENOSYS where there is none. */
int mli_sealed_memory(size_t size);
bool mli_is_sealed(int fd);

/* ---- threads ---- */

/* For people only: a part of the name may be all that is kept. */
void mli_thread_name(const char *name);
/* A number for the calling thread, on Linux the kernel's; the clock of its processor time, and
** whether a thread of this process runs, or would if it had a processor: false where that is
** not known. */
long mli_thread_number(void);
bool mli_thread_clock(clockid_t *clock);
bool mli_thread_is_runnable(long number);
/* Whether it is the first, to which the terminal's signals go; true also if that is not known. */
bool mli_thread_is_main(void);
/* This process may use one processor only. */
bool mli_processor_is_alone(void);

/* What a signal interrupted, for its handler. */
typedef struct mli_interrupted {
  uintptr_t place; /* the instruction; 0: unknown */
  bool at_rest;    /* it was in a system call, which was none of an allocator's */
} mli_interrupted;

mli_interrupted mli_interrupted_at(const void *context);

/* ---- processes ---- */

/* Readable when the child has ended; ENOSYS where this kernel has none. */
int mli_process_fd(pid_t pid);
/* The calling process is killed when its parent has ended: soon, where not at once. */
void mli_process_ends_with_parent(void);
/* Closes all descriptors from `first` on, where that is possible. */
void mli_process_closes_from(int first);
/* The path of the program that runs. */
bool mli_process_program(char *out, size_t size);
char **mli_process_environment(void);

#endif
