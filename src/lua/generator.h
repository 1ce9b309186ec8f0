/*
** generator.h: async generators, as job.c and coroutine.c see them: a job that
** has a feed is the body of a generator.
*/
#ifndef LML_GENERATOR_H
#define LML_GENERATOR_H

#include "core/ring.h"
#include "state.h"

/* So many a job gives or takes without a wait before it lets others run. */
#define LML_ITEMS_PER_TURN 64

/* What the body of a generator shares with who pulls from it: see generator.c.
** [C] the consumer, while it holds `pulling`  [L] the body's loop */
struct lml_feed {
  mli_object object;
  mli_ring ring;
  unsigned prefetch;   /* [I] items to keep ready; 0: none before they are asked for */
  mli_watcher end;     /* on the job's future: holds a reference until it fires */
  atomic_bool pulling; /* [A] */
  atomic_bool closed;  /* [A] whoever pulled wants no more */
  atomic_bool raised;  /* [A] the body's error */
  mli_message *sent;   /* [C] until the grant, [L] until the next put: for the yield */
  bool thrown;         /* likewise: `sent` is an error to raise there */
  mli_message *read;   /* [L] what was sent, while it is read */
  unsigned taken;      /* [C] in a row without a wait */
  unsigned given;      /* [L] likewise */
  bool idle;           /* [L] waits for credit */
  bool ignored;        /* [L] yielded after it was told to end */
};
extern const mli_type lml_feed_type;

/* A submitted job begins: its function and arguments are on the stack from `first` up.
** If it is a generator's body, whose last argument is its feed, takes that off, gives it
** to the job, and puts a function before the rest that waits for the first pull. */
void lml_generator_begin(lua_State *L, lml_state *S, int first);
int lml_generator_body(lua_State *L); /* that function: it is not in a wait's way */
/* The job lets its feed go. NULL is allowed. */
void lml_feed_drop(lml_feed *feed);
static inline bool lml_is_generator(const lml_job *job) { return job->info && job->info->feed; }
/* What coroutine.yield does in the body's own coroutine. */
int lml_generator_yield(lua_State *L, lml_state *S);
/* Why the job was stopped, if it is a body that yielded after it was told to end. */
const char *lml_generator_verdict(const lml_job *job);
/* The loop's executor is closing. When nothing is left but generators that nobody
** pulls from, ends them. */
void lml_generators_sweep(lml_state *S);
/* For who drops a generator's handle without waiting, and for the end of a scope: the
** body is told to end. `object` is a generator's. Thread: any. */
void lml_generator_abandon(mli_object *object);
extern const mli_type lml_generator_type;

#endif
