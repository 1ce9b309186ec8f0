/* pool.c: the worker threads of a pool, and its queue. */
#include "pool.h"

#include <errno.h>
#include <stdlib.h>
#include "observe.h"

/* ---- the queue and who sleeps: under the lock ---- */

static void put(mli_node ***last, mli_node *node) {
  node->next = NULL;
  **last = node;
  *last = &node->next;
}

static mli_task *take(mli_node **first, mli_node ***last) {
  mli_node *node = *first;
  if (!node) return NULL;
  *first = node->next;
  if (!*first) *last = first;
  return mli_container(node, mli_task, node);
}

/* Takes the task out, wherever it is. False: it is not there. */
static bool take_out(mli_node **first, mli_node ***last, mli_task *task) {
  for (mli_node **at = first; *at; at = &(*at)->next) {
    if (*at != &task->node) continue;
    *at = task->node.next;
    if (!*at) *last = at;
    return true;
  }
  return false;
}

/* True: the worker was idle, and is to be woken. */
static bool take_idle(mli_worker *w) {
  for (mli_worker **at = &w->executor->idle; *at; at = &(*at)->next_idle) {
    if (*at != w) continue;
    *at = w->next_idle;
    mli_clock_engage(1);
    return true;
  }
  return false;
}

/* ---- a worker ---- */

/* Takes the next task, or waits for one as an idle worker. NULL: end. */
static mli_task *next_task(mli_worker *w) {
  mli_executor *ex = w->executor;
  for (;;) {
    mli_lock_acquire(&ex->lock);
    mli_task *task = take(&w->own, &w->own_last);
    if (!task) task = take(&ex->queue, &ex->last);
    if (task) {
      w->task = task;
      task->worker = w;
      mli_lock_release(&ex->lock);
      return task;
    }
    bool closing = atomic_load(&ex->closing), pinned = w->pins > 0;
    if (!closing) {
      w->next_idle = ex->idle;
      ex->idle = w;
      mli_clock_engage(-1);
    }
    mli_lock_release(&ex->lock);
    if (closing) return NULL;
    mli_clock_look();
    ml_status status;
    uint64_t until = MLI_FOREVER;
    if (!pinned && ex->idle_life != MLI_FOREVER) until = mli_now() + ex->idle_life;
    while ((status = mli_park(&w->parker, until)) == ML_INTERRUPTED) continue;
    if (status == ML_OK) continue; /* taken off the idle list by who woke it */
    mli_lock_acquire(&ex->lock);
    bool still = take_idle(w);
    pinned = w->pins > 0;   /* since it fell asleep */
    if (still && !pinned) { /* nobody needed it for long: from here on it counts as gone */
      ex->alive--;
      w->gone = true;
      pthread_detach(w->thread);
    }
    mli_lock_release(&ex->lock);
    if (still && pinned) continue;
    if (still) return NULL;
    while (mli_park(&w->parker, MLI_FOREVER) != ML_OK) continue; /* being woken right now */
  }
}

/* The worker's thread, done with a task: it can no longer be cancelled through it. */
static void pool_forget(mli_worker *w, mli_task *task) {
  mli_executor *ex = w->executor;
  mli_lock_acquire(&ex->lock);
  bool pinned = w->pins > 0; /* what it keeps is wanted */
  w->task = NULL;
  task->worker = NULL;
  mli_lock_release(&ex->lock);
  if (!pinned && ex->class->between) ex->class->between(w);
}

/* Somebody looks. */
static void begin(mli_task *task) {
  mli_observed_job job = mli_observe_task(task);
  task->begun_at = mli_now();
  mli_observe_start(&job, task->submitted_at, task->begun_at);
}

static void *pool_main(void *arg) {
  mli_worker *w = arg;
  mli_executor *ex = w->executor;
  mli_worker_begin(w);
  ex->class->open(w);
  for (mli_task *task; (task = next_task(w));) {
    mli_object_retain(&task->future.object);
    if (mli_unlikely(mli_observing()) && !mli_future_settled(&task->future)) begin(task);
    ex->class->run(w, task);
    pool_forget(w, task);
    mli_release(&task->future);
  }
  ex->class->close(w);
  mli_worker_end(w);
  return NULL;
}

mli_worker *mli_pool_add(mli_executor *ex) {
  for (unsigned i = 0; i < ex->count; i++) {
    mli_worker *w = ex->workers[i];
    if (!w->gone || w->started) continue;
    w->gone = false; /* its counts go on */
    w->started = true;
    ex->alive++;
    ex->threads++;
    return w;
  }
  if (ex->count == ex->room) {
    unsigned room = ex->room ? ex->room * 2 : 8;
    mli_worker **grown = realloc(ex->workers, room * sizeof *grown);
    if (!grown) return NULL;
    ex->workers = grown;
    ex->room = room;
  }
  mli_worker *w = calloc(1, sizeof *w);
  if (!w) return NULL;
  w->executor = ex;
  w->index = ex->count;
  w->own_last = &w->own;
  w->started = true;
  ex->workers[ex->count++] = w;
  ex->alive++;
  ex->threads++;
  return w;
}

/* Starts the thread of a worker that was added: 0, or why not. */
static int pool_start(mli_worker *w) {
  mli_executor *ex = w->executor;
  int err = mli_worker_start(w, pool_main);
  if (!err) return 0;
  mli_lock_acquire(&ex->lock);
  w->started = false;
  w->gone = true;
  ex->alive--;
  bool last = --ex->threads == 0 && atomic_load(&ex->closing);
  mli_lock_release(&ex->lock);
  if (last) mli_future_settle(ex->ended, MLI_FINISHED, NULL, NULL);
  return err;
}

/* ---- submitting ---- */

/* Under the lock. Whether a worker submits it, or one is busy with the task that it comes
** from: it may be waiting for this one. */
static bool comes_from_inside(const mli_executor *ex, const mli_task *task) {
  const mli_worker *self = mli_worker_self();
  if (self && self->executor == ex) return true;
  for (unsigned i = 0; task->origin && i < ex->count; i++)
    if (ex->workers[i]->task == task->origin) return true;
  return false;
}

ml_status mli_pool_submit(mli_executor *ex, mli_task *task) {
  ml_status status = ML_OK;
  mli_worker *wake = NULL, *add = NULL, *pin = task->pin;
  mli_lock_acquire(&ex->lock);
  if (atomic_load(&ex->closing)) {
    mli_lock_release(&ex->lock);
    return ML_CLOSED;
  }
  if (pin) {
    if (pin->gone) status = ML_SYSTEM, errno = EAGAIN; /* its thread could not be started */
    if (take_idle(pin)) wake = pin;
  } else if (ex->idle) {
    wake = ex->idle;
    take_idle(wake);
  } else if (ex->alive < ex->size || comes_from_inside(ex, task)) {
    add = mli_pool_add(ex);
    if (!add && ex->alive == 0) status = ML_MEMORY;
  }
  if (status == ML_OK) put(pin ? &pin->own_last : &ex->last, &task->node);
  mli_lock_release(&ex->lock);
  if (wake) mli_unpark(&wake->parker);
  int err = add ? pool_start(add) : 0;
  if (!err) return status;
  /* With other workers alive the task waits for one of them. */
  mli_lock_acquire(&ex->lock);
  bool taken_back = ex->alive == 0 && take_out(&ex->queue, &ex->last, task);
  mli_lock_release(&ex->lock);
  errno = err;
  return taken_back ? ML_SYSTEM : ML_OK;
}

ml_status mli_pool_serve(mli_task *task) {
  mli_executor *ex = task->executor;
  mli_worker *self = mli_worker_self(), *wake = NULL, *add = NULL;
  mli_lock_acquire(&ex->lock);
  if (task->pin) {
    bool behind = false;
    for (mli_node *node = self->own; node; node = node->next)
      if (node == &task->node) behind = true;
    mli_lock_release(&ex->lock);
    return behind ? ML_MISUSE : ML_OK;
  }
  bool queued = take_out(&ex->queue, &ex->last, task);
  if (queued) { /* in front: whoever wakes takes this one */
    task->node.next = ex->queue;
    ex->queue = &task->node;
    if (!task->node.next) ex->last = &task->node.next;
    wake = ex->idle;
    if (wake) take_idle(wake);
    if (!wake) add = mli_pool_add(ex);
  }
  mli_lock_release(&ex->lock);
  if (wake) mli_unpark(&wake->parker);
  if (queued && !wake && !add) return ML_MEMORY;
  int err = add ? pool_start(add) : 0;
  errno = err;
  return err ? ML_SYSTEM : ML_OK;
}

/* ---- pins ---- */

ml_status mli_pool_pin(mli_executor *ex, mli_worker **out) {
  mli_worker *best = NULL, *add = NULL;
  mli_lock_acquire(&ex->lock);
  if (atomic_load(&ex->closing)) {
    mli_lock_release(&ex->lock);
    return ML_CLOSED;
  }
  for (unsigned i = 0; i < ex->count; i++) {
    mli_worker *w = ex->workers[i];
    if (!w->gone && w->started && (!best || w->pins < best->pins)) best = w;
  }
  if ((!best || best->pins > 0) && ex->alive < ex->size) add = mli_pool_add(ex);
  if (add) best = add;
  if (best) best->pins++;
  mli_lock_release(&ex->lock);
  *out = best;
  if (!best) return ML_MEMORY;
  int err = add ? pool_start(add) : 0;
  if (!err) return ML_OK;
  mli_lock_acquire(&ex->lock);
  add->pins--;
  mli_lock_release(&ex->lock);
  errno = err;
  return ML_SYSTEM;
}

void mli_pool_unpin(mli_worker *w) {
  mli_executor *ex = w->executor;
  mli_lock_acquire(&ex->lock);
  bool wake = --w->pins == 0 && take_idle(w); /* it may end for want of work again */
  mli_lock_release(&ex->lock);
  if (wake) mli_unpark(&w->parker);
}

/* ---- cancelling ---- */

static void drop_queue(mli_node *queue) {
  while (queue) {
    mli_task *task = mli_container(queue, mli_task, node);
    queue = queue->next;
    mli_future_cancel(&task->future, NULL);
    atomic_fetch_add_explicit(&task->executor->dropped, 1, memory_order_relaxed);
    mli_release(&task->future);
  }
}

void mli_pool_cancel(mli_executor *ex) {
  /* Each future is cancelled with no lock held: its watchers run here. */
  for (unsigned i = 0;; i++) {
    mli_lock_acquire(&ex->lock);
    mli_worker *w = i < ex->count ? ex->workers[i] : NULL;
    mli_node *queue = ex->queue, *own = w ? w->own : NULL;
    ex->queue = NULL;
    ex->last = &ex->queue;
    if (own) w->own = NULL, w->own_last = &w->own;
    mli_task *running = w ? w->task : NULL;
    bool more = i + 1 < ex->count;
    if (running) mli_object_retain(&running->future.object);
    mli_lock_release(&ex->lock);
    drop_queue(queue);
    drop_queue(own);
    if (running) {
      mli_future_cancel(&running->future, NULL);
      mli_release(&running->future);
    }
    if (!more) return;
  }
}
