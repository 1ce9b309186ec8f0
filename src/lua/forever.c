/*
** forever.c: waits that can never end, where that is cheap to know and certain: they
** are refused rather than begun.
**
**   - for what only this state has, while nothing else can run in it: a primitive with
**     no handle but the waiter's, in the only job of an `ml.run`, or in a thread outside
**     of jobs. A worker's state is never that alone: others submit to it.
**   - for a job that waits for the waiter, itself or through other jobs of the loop.
**
** A wait with a time limit, its own or a scope's, ends: it is none of these.
*/
#include "core/loop.h"
#include "sync.h"

/* ---- what nobody else has ---- */

/* The waiter is all that can run in its state: no other job, nothing on its loop that
** may start one, no callback of a future or ref that may come. */
static bool is_alone(const lml_state *S) {
  const lml_job *job = S->current;
  if (S->worker || lml_thread_is_scoped(S) || lml_inbox_is_known(S->inbox)) return false;
  if (!job) return S->loop == NULL;
  return S->job_count == 1 && lml_future_is_local(job->fut) && !lml_job_is_bounded(job) &&
         mli_loop_is_quiet(S->loop);
}

void lml_check_hope(lua_State *L, lml_state *S, uint64_t deadline, const mli_object *object,
                    unsigned own, const char *what) {
  if (deadline != MLI_FOREVER || atomic_load(&object->refs) > own || !is_alone(S)) return;
  lml_misuse(L, "%s: it would wait for ever: nobody else has this %s", what, object->type->name);
}

/* ---- jobs that wait for each other ---- */

#define MOST_STEPS 64 /* a wait is to stay cheap, however long the chain it joins */

/* The job of this loop that settles the future; NULL: none, or not known. */
static lml_job *job_of(const lml_state *S, const lml_future *u) {
  if (u->job) return u->job;
  const mli_object *object = u->handle.object;
  if (object->type != &mli_task_type || !S->worker) return NULL;
  const mli_task *task = mli_container(object, mli_task, future.object);
  if (mli_future_settled(&task->future)) return NULL;
  return task->executor == S->worker->executor && task->worker == S->worker ? task->runner : NULL;
}

void lml_check_cycle(lua_State *L, lml_state *S, const lml_future *u) {
  const lml_job *me = S->current;
  if (!me || lml_thread_is_scoped(S) || lml_job_cancelled(me) || lml_job_is_bounded(me)) return;
  char first[MLI_NAME_MAX + 8] = "";
  for (int steps = 0; steps < MOST_STEPS; steps++) {
    lml_job *job = job_of(S, u);
    if (!job) return;
    if (job == me)
      lml_misuse(L, "it would wait for ever: %s waits%s for this job", first,
                 steps > 1 ? ", through others," : "");
    if (steps == 0) lml_job_title(job, first, sizeof first);
    u = lml_awaited_future(&job->await);
    if (!u || lml_job_is_bounded(job)) return;
  }
}
