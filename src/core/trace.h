/*
** trace.h: what happened when, on which thread. Events are kept in memory, the newest of
** them, until somebody wants to see them: then they become Chrome trace events. Those of child
** processes come with the results of their tasks, and are kept here too: all processes of a
** machine have the same monotonic clock.
**
**   a chunk:   none --a thread needs room--> CURRENT --it is full, or its thread ends--> FULL
**                                               ^____memory is used up: the oldest_______/
**
** T1  A thread writes into its own chunk, without a lock and without a system call; for
**     each next chunk it takes the lock once.
** T2  Readers copy what was published by `used`, under the lock, under which alone a chunk
**     is used again: so they never read what is being written. What comes from children is
**     written under the lock too.
** T3  There are at most as many chunks as were asked for. What is lost is counted.
*/
#ifndef MLI_TRACE_H
#define MLI_TRACE_H

#include <stdatomic.h>
#include <stdio.h>
#include "base.h"

/* What of the program is being looked at; 0 but for a few. */
enum { MLI_OBSERVE_TRACE = 1, MLI_OBSERVE_STATS = 2 };
extern atomic_uint mli_observed;

/* One load, and a branch that is not taken: what it costs while nobody looks. */
static inline unsigned mli_observing(void) {
  return atomic_load_explicit(&mli_observed, memory_order_relaxed);
}
static inline bool mli_tracing(void) { return mli_unlikely(mli_observing() & MLI_OBSERVE_TRACE); }

/* Slices are of the thread that writes them and nest there. What goes on beside other
** things (a job that waits, a request) is in a lane of its own, from begin to end; spans
** are parts of it. */
typedef enum mli_trace_shape {
  MLI_TRACE_SLICE,
  MLI_TRACE_BEGIN,
  MLI_TRACE_SPAN,
  MLI_TRACE_END,
  MLI_TRACE_INSTANT
} mli_trace_shape;

typedef enum mli_trace_topic {
  MLI_TRACE_JOB,     /* `name`, else `chunk` and `line` are its title */
  MLI_TRACE_SUBMIT,  /* the handing over of a job: a slice, from which an arrow starts */
  MLI_TRACE_QUEUED,  /* it waits for its turn */
  MLI_TRACE_WAIT,    /* `name`: what for */
  MLI_TRACE_CALLS,   /* callbacks */
  MLI_TRACE_GC,      /* `name`: what; `number`: KiB that Lua has now, or 0 */
  MLI_TRACE_BLOCKED, /* `name`: whom by, `chunk` and `line`: where */
  MLI_TRACE_HTTP,    /* `name`: the request; `number`: the status */
  MLI_TRACE_PHASE    /* `name`: of a request */
} mli_trace_topic;

typedef struct mli_trace_event {
  uint16_t size; /* of all of it, by mli_trace_add */
  uint8_t shape, topic;
  uint32_t number; /* a job's, unless the topic says something else */
  uint32_t line, parent;
  uint64_t at, took; /* ns */
  uint64_t lane;     /* 0: none */
  uint8_t state;     /* of an END, and of a job's SLICE that has an arrow: a mli_state */
  bool arrow;        /* of a BEGIN or a SLICE: an arrow comes from the SUBMIT of that lane */
  char text[6];      /* name, NUL, chunk, NUL; goes on behind */
} mli_trace_event;

#define MLI_TRACE_TEXT 240 /* the most that is kept of a name or chunk */

/* Writes an event. Either text may be NULL. Thread: any. Blocks: see T1. */
void mli_trace_add(const mli_trace_event *event, const char *name, const char *chunk);

/* A lane for something of this thread, that has this number there; and one of its own. */
uint64_t mli_trace_lane(uint32_t number);
uint64_t mli_trace_new_lane(void);

/* Begins to keep events in so much memory, and forgets those from before. False: it has
** begun already, and goes on. Thread: any. */
#define MLI_TRACE_MEMORY ((size_t)64 << 20)
#define MLI_TRACE_LEAST ((size_t)1 << 20)
bool mli_trace_start(size_t bytes);
/* Keeps no more. True: it did. */
bool mli_trace_stop(void);
/* How often it has begun; 0: there is nothing to write. */
unsigned mli_trace_starts(void);

typedef struct mli_trace_written {
  uint64_t events;  /* as they were traced; each is one to three of JSON */
  uint64_t dropped; /* that are lost, since the start */
} mli_trace_written;
/* Writes what is kept as JSON, also while more comes. 0, or an errno. Thread: any. Blocks:
** as long as writing takes. (trace_json.c) */
int mli_trace_write(FILE *to, mli_trace_written *written);

/* ---- child processes (trace_far.c) ---- */

typedef struct mli_bytes mli_bytes;

/* In the child: lanes are told apart from those of other processes. Before the first. */
void mli_trace_be_far(void);
/* Writes the next events that were not written so before. False: there are none. */
bool mli_trace_pack(mli_bytes *out);
/* In the parent: keeps what a child has packed. False: that makes no sense. */
bool mli_trace_unpack(long pid, const char *process, const unsigned char *bytes, size_t size);
/* That child has ended. */
void mli_trace_process_ended(long pid);

/* ---- for trace_json.c and trace_far.c ---- */

#define MLI_TRACE_CHUNK ((size_t)32 << 10)

/* A thread. */
typedef struct mli_trace_source {
  long pid;    /* 0: of this process */
  long thread; /* as the system calls it */
  char name[16];
  char process[64]; /* of another: its name */
} mli_trace_source;

typedef struct mli_trace_batch {
  uint64_t number; /* of the chunk; begin with 0, and so with `last` */
  uint64_t last;   /* that there was then: writers may be faster than the reader */
  mli_trace_source from;
  uint32_t count; /* of events */
  size_t size;
  _Alignas(uint64_t) char bytes[MLI_TRACE_CHUNK];
} mli_trace_batch;
/* The next batch. False: there is none. */
bool mli_trace_read(mli_trace_batch *batch);
/* The same for what was not taken yet, whose room may then be used again. */
bool mli_trace_take(mli_trace_batch *batch);
/* Keeps events of another process, of which so many were dropped there. */
void mli_trace_keep(const mli_trace_batch *batch, uint64_t lost);
/* How many were dropped, since the start. `forget`: and since the last such call. */
uint64_t mli_trace_dropped(bool forget);

#endif
