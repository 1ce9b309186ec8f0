/*
** children.h: what children.c, processes.c and seats.c, which are one module, have from each
** other: a child process, its life, and the lines in which tasks wait.
**
** Thread: the loop's, for all of it.
*/
#ifndef MLI_CHILDREN_H
#define MLI_CHILDREN_H

#include "processes.h"

#define MLI_FIRST_DELAY (20 * MLI_MILLISECOND) /* before what failed is tried again */

/* Handles of a child. */
enum { MLI_SOCKET, MLI_ENDED, MLI_STDOUT, MLI_STDERR, MLI_CHILD_HANDLES };

/* Why a child is being killed: what its task will say. */
typedef enum mli_reason {
  MLI_NO_REASON,
  MLI_CANCELLED,
  MLI_TIMED_OUT,
  MLI_HUNG_UP,
  MLI_DAMAGED,
  MLI_UNFIT
} mli_reason;

struct mli_child {
  mli_processes *pool;
  mli_child *next;
  mli_child_state state;
  mli_reason reason;
  pid_t pid;
  void *user; /* of the layer above */
  mli_link link;
  mli_task *task; /* with the reference that came with it */
  uint64_t jobs;  /* that it was given */
  mli_line own;   /* tasks that only this one may run */
  mli_seat *seats;
  unsigned held;  /* how many seats */
  bool ready;     /* it said so */
  bool listening; /* its socket is polled for writing too */
  unsigned open;  /* handles that are not closed yet */
  uv_poll_t handles[MLI_CHILD_HANDLES];
  int fds[MLI_CHILD_HANDLES];
  mli_bytes partial[2]; /* of its output: a line's begin */
  mli_timer deadline;   /* of its task, or of its end */
  char *unfit;          /* why it cannot be used */
  mli_child *next_lent; /* [M] of the pool, while it is lent */
  mli_task *taken;      /* [M] what a submitter gave it */
};

/* ---- children.c ---- */

/* Starts one, which is the first of the list then: 0, or an errno. */
int mli_child_add(mli_processes *p);
/* Asks it to end by a signal, which it need not heed; after the grace it is killed. */
void mli_child_kill(mli_child *c, int number, mli_reason why);
/* Asks it to end when it has done what it does. */
void mli_child_finish(mli_child *c);
/* The same for one that has done its share, if nobody holds it. */
void mli_child_retire(mli_child *c);
/* What it does now may take so long. */
void mli_child_limit(mli_child *c, uint64_t ns);
/* Its socket is watched for what comes, and for room where something is kept. */
void mli_child_watch(mli_child *c);
/* An idle child is for submitters to take. */
void mli_child_lend(mli_child *c);
/* A child that was lent is idle again, or a submitter has made it busy. */
void mli_child_recall(mli_child *c);
void mli_children_recall(mli_processes *p);
/* How it ended, for people. */
void mli_child_describe(mli_child *c, const mli_child_end *end, char *text, size_t size);

/* ---- processes.c ---- */

/* Hands out tasks, and starts children for those that are left, or lends children. */
void mli_processes_pump(mli_processes *p);
/* Whether the task may run: it was not cancelled before. Else it is settled. */
bool mli_processes_claim(mli_processes *p, mli_task *task);
void mli_processes_settle(mli_processes *p, mli_task *task, mli_verdict v);
/* Takes over the error; NULL: out of memory. */
void mli_processes_fail(mli_processes *p, mli_task *task, mli_message *error,
                        const char *traceback);
/* From here on every task fails so. Takes over the error and the traceback. */
void mli_processes_give_up(mli_processes *p, mli_message *error, char *traceback);
/* The error of a process that cannot be started. */
mli_message *mli_processes_start_error(mli_processes *p, int err);
void mli_processes_count_running(mli_processes *p, int by);

void mli_line_init(mli_line *line);
void mli_line_put(mli_line *line, mli_task *task);
void mli_line_put_back(mli_line *line, mli_task *task);
mli_task *mli_line_take(mli_line *line); /* NULL: none is left */
/* Everything in it fails with a copy of the error, which stays the caller's. */
void mli_line_fail(mli_processes *p, mli_line *line, const mli_message *error,
                   const char *traceback);

/* ---- seats.c ---- */

/* A task that has a seat goes to the line of that child. */
void mli_seat_run(mli_processes *p, mli_task *task);
/* The child has ended: so do its seats, and their tasks fail. */
void mli_seats_end(mli_child *c, const mli_child_end *end);

#endif
