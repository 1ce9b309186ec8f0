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
/* What handles refer to. [O] the maker's thread */
struct lml_generator {
  mli_object object;
  lml_feed *feed;              /* [I] holds a reference */
  mli_future *future;          /* [I] of the body's job, once submitted; holds a reference */
  lml_generator **list;        /* [O] of its owner: see left.c; NULL: nobody answers for it */
  lml_generator *next, **link; /* [O] there */
};
extern const mli_type lml_generator_type;

/* For who drops a generator's handle without waiting: the body is told to end.
** `object` is a generator's. Thread: any. */
void lml_generator_abandon(mli_object *object);

/* ---- what is left open (left.c) ---- */

/* The list of what the running job, block or task owns; NULL: what runs owns nothing. */
lml_generator **lml_left_list(lml_state *S);
/* It was made by what runs now. */
void lml_left_add(lml_state *S, lml_generator *g);
/* Its first handle is gone, or it crosses: nobody answers for it here. */
void lml_left_remove(lml_generator *g);
/* All of a list goes to another owner; NULL: to nobody. */
void lml_left_join(lml_generator **from, lml_generator **to);
/* What is there is told to end; nobody waits for that. */
void lml_left_drop(lml_generator **list);
/* The owner of `list` ends with the values from `first` up. What is among them goes to
** the list `to`, or to nobody (NULL). The rest is told to end, and a list of it is pushed.
** False: there is none, nothing is pushed. */
bool lml_left_take(lua_State *L, lml_state *S, int first, lml_generator **list, lml_generator **to);
/* Makes of the list on top a call with 2 arguments, that waits for the ends. It raises
** the first error of their clean-up; `failed`: it reports them, for another is raised. */
void lml_left_push_close(lua_State *L, bool failed);

#endif
