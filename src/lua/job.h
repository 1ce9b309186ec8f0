/*
** job.h: what the files about jobs share: job.c, job_memory.c, place.c, traceback.c, turn.c.
*/
#ifndef LML_JOB_H
#define LML_JOB_H

#include "state.h"

/* Makes room for one more of `count` elements of `size` bytes; false: no memory. */
bool lml_grow(void **array, size_t *room, size_t count, size_t size);

/* ---- job_memory.c ---- */

/* A record, in its state's list of jobs; NULL: no memory. */
lml_job *lml_job_new(lml_state *S);
void lml_job_free(lml_job *job);
/* An empty coroutine, anchored. Raises on lack of memory. */
lml_coroutine lml_coroutine_get(lua_State *L, lml_state *S);
void lml_coroutine_put(lml_state *S, lua_State *co, unsigned slot);

/* ---- traceback.c ---- */

/* Is the value at `error` the job's own cancel? */
bool lml_is_own_cancel(lua_State *L, const lml_job *job, int error);

/* ---- job.c ---- */

/* Pushes what a submitted job's coroutine begins with. */
void lml_job_push_task_base(lua_State *co);
/* Starts the deadline of `timeout=`. The job has its info. */
void lml_job_set_timeout(lml_job *job, uint64_t deadline);
/* Settles the job's future and lets the job go. `co` is as the base leaves it. */
void lml_job_finish(lua_State *L, lml_job *job);
/* Ends a job from outside: its coroutine is closed where it stands. The error
** value on top of L is popped and becomes the job's. */
void lml_job_stop(lua_State *L, lml_state *S, lml_job *job);

#endif
