/*
** processes.h: what both ends of a ProcessExecutor's children share: what is said between
** them, in bytes.
*/
#ifndef LML_PROCESSES_H
#define LML_PROCESSES_H

#include "core/processes.h"
#include "shipping.h"

/* Both sides must say the same. */
#define LML_PROCESSES_VERSION "moonloop " ML_VERSION " (2), " LUA_RELEASE

#define LML_WORKER_OPTION "--worker" /* of the program: it is a child */

typedef struct lml_process_options {
  char program[4096];
  uint64_t memory_limit; /* bytes of address space; 0: none */
  lua_Number cpu_limit;  /* seconds of each job; 0: none */
  atomic_uint children;  /* [A] that there are */
  atomic_uint seats;     /* [A] that there have been */
  mli_processes processes;
} lml_process_options;

/* A seat, and its number. NULL: out of memory. Any thread. */
mli_seat *lml_processes_hold(mli_executor *ex, unsigned *number);
/* How many children the executor has. Any thread. */
unsigned lml_processes_count(const mli_executor *ex);
/* The loop's thread: adds them to the list of jobs on top of the stack. */
void lml_processes_push_jobs(lua_State *L, mli_processes *p);

/* What the program does as a child; the socket is that descriptor. Returns its exit status. */
int lml_worker_main(int socket);

#endif
