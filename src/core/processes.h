/*
** processes.h: child processes that run the tasks of an executor, on that executor's one
** loop, which starts them, speaks to them and reaps them. What a task, a result and an
** error are in bytes is the business of the layer above, which gives the hooks.
**
**   STARTING --ready--> IDLE <--task, result--> BUSY
**       |                 |  \--[lend, recall]--> LENT --[mli_processes_direct]--> BUSY
**       |_________________|_______________________|--[end_child, kill_child]--> ENDING
**       |_________________|_______________________|_____________________________|
**                                   the process has ended: GONE, freed
**
** A child that is LENT is idle, and a thread that submits may write its task to it there and
** then: that saves the loop a wake-up. The loop looks what became of it, under the lock,
** before it does anything with that child.
**
** P1  A child runs one task at a time; who loses its child fails alone.
** P2  A task that a child may have begun is never run again.
** P3  Each child is reaped, and everything of it closed, before the loop ends.
** P4  No child is lent while a task that was submitted before waits for one.
**
** Thread: the loop's, unless something else is said.
*/
#ifndef MLI_PROCESSES_H
#define MLI_PROCESSES_H

#include "child.h"
#include "executor.h"
#include "link.h"

typedef struct mli_processes mli_processes;
typedef struct mli_child mli_child;
typedef struct mli_seat mli_seat;

/* Tasks that wait, first come, first served. */
typedef struct mli_line {
  mli_node *first, **last;
} mli_line;

/* Packets. To a child: HELLO once, then JOBs, END. From it: READY or BROKEN, RESULTs, each after
** the TRACEs of its task, if that is traced. */
enum mli_packet_type {
  MLI_HELLO = 1,
  MLI_JOB,
  MLI_END,
  MLI_READY,
  MLI_BROKEN,
  MLI_RESULT,
  MLI_TRACE
};

/* The outcome of a task as it came from a child. */
typedef struct mli_verdict {
  mli_state state;
  ml_status status;     /* not ML_OK: the core's own, without an outcome */
  mli_message *outcome; /* owned by whoever has the verdict, as is `traceback` */
  char *traceback;
} mli_verdict;

typedef struct mli_processes_hooks {
  /* Memory of the layer above for a new child; NULL: there is none. */
  void *(*open)(mli_processes *p);
  void (*close)(mli_processes *p, void *user);
  /* Writes what a new child is told first. */
  void (*hello)(mli_processes *p, void *user, mli_bytes *out);
  /* Writes the task but for the bytes of its payload, which follow it. Thread: also that of
  ** its submit. */
  void (*job)(mli_processes *p, void *user, mli_task *task, mli_bytes *out);
  /* Reads READY. False: the child cannot be used; then it says why, from malloc. */
  bool (*ready)(mli_processes *p, const mli_packet *packet, char **why);
  /* Reads a RESULT, or BROKEN. False: it makes no sense. */
  bool (*result)(mli_processes *p, void *user, const mli_packet *packet, mli_verdict *out);
  /* Makes an error value. `end` may be NULL. NULL: out of memory. */
  mli_message *(*error)(mli_processes *p, const char *code, const char *text,
                        const mli_child_end *end);
  /* A line that a child printed, without its end. `stream` is 1 or 2. */
  void (*line)(mli_processes *p, pid_t pid, int stream, const char *text, size_t size);
} mli_processes_hooks;

typedef struct mli_processes_options {
  const mli_processes_hooks *hooks;
  void *user;          /* of the layer above; borrowed */
  const char *program; /* the path of moonloop; borrowed, like `argv` */
  char *const *argv;
  unsigned size;     /* the most children */
  uint64_t max_jobs; /* after which a child is replaced; 0: never */
  uint64_t grace;    /* ns from the asking to the killing */
  mli_output output;
} mli_processes_options;

typedef enum mli_child_state {
  MLI_CHILD_STARTING,
  MLI_CHILD_IDLE,
  MLI_CHILD_LENT,
  MLI_CHILD_BUSY,
  MLI_CHILD_ENDING,
  MLI_CHILD_GONE
} mli_child_state;

struct mli_processes {
  mli_processes_options o;
  mli_worker *worker; /* the executor's one loop */
  mli_child *children;
  unsigned alive, starting; /* children that are not ending; of those, not ready */
  mli_line queue;           /* for any child */
  unsigned queued;
  mli_bytes scratch;
  unsigned losses;       /* children lost one after the other, with no result between */
  unsigned false_starts; /* likewise before they were ready */
  uint64_t next_start;   /* no child is started before */
  mli_timer restart;     /* runs while tasks wait for that */
  mli_message *broken;   /* the error with which every task fails; NULL: none */
  char *broken_traceback;
  bool closing;
  atomic_uint posted; /* tasks on their way through the loop's mailbox */
  mli_lock lock;      /* a leaf: what follows, and of a child that is lent all that sending needs */
  mli_child *lent;
  mli_bytes draft;
};

/* In the caller's memory, which outlives the executor's last submit. Thread: any. */
void mli_processes_init(mli_processes *p, const mli_processes_options *o);
/* On the thread of the worker, which has a loop; from here on tasks can run. */
void mli_processes_begin(mli_processes *p, mli_worker *w);
/* There are no children and no tasks any more. */
void mli_processes_end(mli_processes *p);

/* The hooks of the executor's class. `direct`: any thread; each task for which it says no is
** given to `run`. */
bool mli_processes_direct(mli_processes *p, mli_task *task);
void mli_processes_run(mli_processes *p, mli_task *task);
void mli_processes_cancel(mli_processes *p, mli_task *task);
void mli_processes_cancel_all(mli_processes *p);
/* True: nothing is left. Else the children without work are asked to end. */
bool mli_processes_idle(mli_processes *p);

/* A child that is held, for tasks that need what others left there: they run in the order of
** their submits, others may come between. With the first of them it is chosen, the child that
** the fewest hold, or a new one; as long as it is held it is not replaced. When it ends, those
** that wait for it, and all that follow, fail. A counted object; NULL: out of memory.
** Thread: any. */
mli_seat *mli_seat_new(mli_executor *ex);
mli_object *mli_seat_object(mli_seat *seat); /* for `task->seat` */
/* Holds it no longer; what was submitted is done. Once for each. Thread: any. */
void mli_seat_leave(mli_seat *seat);

/* Calls `f` for each task: with the pid of its child, or 0: it is queued. */
void mli_processes_each(mli_processes *p, void (*f)(void *user, mli_task *task, pid_t pid),
                        void *user);
/* How many children there are. */
unsigned mli_processes_count(const mli_processes *p);

#endif
