/*
** child.h: one child process: started with posix_spawn from a program of ours, spoken to
** over a socket, and waited for by a descriptor of its own, so that the handlers of the
** host, that of SIGCHLD too, stay as they are.
**
** The child begins with default signal actions, an empty mask, a process group of its own
** (what the terminal sends does not reach it, and what it starts can be ended with it),
** /dev/null as its input, the socket as descriptor 3, and nothing else that we opened.
*/
#ifndef MLI_CHILD_H
#define MLI_CHILD_H

#include <sys/types.h>
#include "base.h"

#define MLI_CHILD_SOCKET 3 /* the child's end */

/* What becomes of what the child prints. */
typedef enum mli_output { MLI_OUTPUT_LOG, MLI_OUTPUT_INHERIT, MLI_OUTPUT_DISCARD } mli_output;

/* How a child ended. */
typedef struct mli_child_end {
  pid_t pid;
  bool known; /* else another part of the process waited for it first */
  int status; /* the exit status */
  int signal; /* or the signal that killed it; 0: none did */
} mli_child_end;

typedef struct mli_child_pipes {
  pid_t pid;
  int socket;    /* ours; does not block; the caller's from here on */
  int ended;     /* readable when the child has ended; -1: this kernel cannot tell */
  int output[2]; /* its stdout and stderr, if they are captured; else -1 */
} mli_child_pipes;

/* Starts `program`, a path, with these arguments. Returns 0 or an errno.
** Thread: one that outlives the child, which dies with it. Blocks: about 1 ms. */
int mli_child_start(mli_child_pipes *out, const char *program, char *const *argv,
                    mli_output output);

/* Sends a signal to the child and all of its group; it must not have been reaped. */
void mli_child_signal(pid_t pid, int number);

/* Waits for it if `block`; else false means that it lives. */
bool mli_child_reap(pid_t pid, bool block, mli_child_end *end);

#endif
