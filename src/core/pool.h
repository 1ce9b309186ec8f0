/*
** pool.h: the worker threads of a pool: what executor.c and pool.c have from each other,
** and what a worker of a pool may do besides.
**
** A pool has one queue, and each worker one of its own for the tasks that are pinned to it.
**
** P1  Who waits inside a worker for a queued task of the same pool is served: see
**     mli_pool_serve. So with E4 no pool waits for itself.
** P2  A worker that somebody pinned does not end before the executor does.
*/
#ifndef MLI_POOL_H
#define MLI_POOL_H

#include "executor.h"

/* Hands a task over, whose reference passes on success. As mli_executor_submit. */
ml_status mli_pool_submit(mli_executor *ex, mli_task *task);
/* A worker more, counted already; its thread is to be started. Under the executor's lock. NULL:
** out of memory. */
mli_worker *mli_pool_add(mli_executor *ex);
/* Cancels what is queued and what runs. Thread: any. */
void mli_pool_cancel(mli_executor *ex);

/* A worker of the pool is about to wait for this task of it. If that is queued still it
** goes first, to an idle worker or to one more. ML_OK; ML_MISUSE: it is pinned behind the
** caller; ML_SYSTEM with errno, ML_MEMORY: no thread can be had. Thread: a worker's. */
ml_status mli_pool_serve(mli_task *task);

/* A worker for tasks that belong together: one that nobody pinned, a new one, else the one
** with the fewest pins. ML_OK, ML_CLOSED, ML_MEMORY, or ML_SYSTEM with errno. Thread: any. */
ml_status mli_pool_pin(mli_executor *ex, mli_worker **out);
void mli_pool_unpin(mli_worker *w);

/* ---- of executor.c ---- */

/* Starts the thread of a worker: 0 or errno. It begins and ends with the other two. */
int mli_worker_start(mli_worker *w, void *(*run)(void *));
void mli_worker_begin(mli_worker *w);
void mli_worker_end(mli_worker *w);
/* What ends without its thread: part of that. */
void mli_worker_leave(mli_worker *w);

#endif
