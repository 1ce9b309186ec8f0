/* executor.c: tasks to threads; starting and ending the threads. */
#include "executor.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "observe.h"
#include "pool.h"
#include "system.h"

static _Thread_local mli_worker *self;

mli_worker *mli_worker_self(void) { return self; }

mli_worker *mli_worker_become(mli_worker *w) {
  mli_worker *before = self;
  self = w;
  return before;
}

const char *mli_task_chunk(const mli_task *task) { return task->chunk ? task->chunk->text : "?"; }

void mli_worker_runs(mli_worker *w, mli_task *task) {
  mli_lock_acquire(&w->executor->lock);
  w->task = task;
  mli_lock_release(&w->executor->lock);
}

/* ---- tasks ---- */

static void task_destroy(mli_object *object) {
  mli_task *task = mli_container(object, mli_task, future.object);
  mli_message_free(task->payload);
  mli_message_free(task->context);
  if (task->chunk) mli_release(task->chunk);
  if (task->seat) mli_object_release(task->seat);
  mli_release(task->executor);
  mli_future_fini(&task->future);
  free(task);
}

const mli_type mli_task_type = { "future", task_destroy, &mli_future_type };

static void task_release(mli_task *task) { mli_release(&task->future); }

/* A message to the task's loop: its running job is to be cancelled. */
static void on_cancel_node(mli_node *node, mli_loop *loop) {
  mli_task *task = mli_container(node, mli_task, cancel_node);
  mli_worker *w = loop->user;
  if (!loop->stopping && !mli_future_settled(&task->future)) w->executor->class->cancel(w, task);
  task_release(task);
}

static void task_on_cancel(mli_future *f) {
  mli_task *task = mli_container(f, mli_task, future);
  mli_executor *ex = task->executor;
  if (!ex->loops) {
    mli_lock_acquire(&ex->lock); /* while it is held the worker stays with the task */
    if (task->worker) ex->class->cancel(task->worker, task);
    mli_lock_release(&ex->lock);
    return;
  }
  mli_object_retain(&f->object);
  task->cancel_node.run = on_cancel_node;
  if (!mli_loop_post(task->worker->loop, &task->cancel_node)) task_release(task);
}

mli_task *mli_task_new(mli_executor *ex, mli_message *payload) {
  mli_task *task = malloc(sizeof *task);
  if (!task) return NULL;
  mli_future_init(&task->future, &mli_task_type, true);
  task->future.on_cancel = task_on_cancel;
  task->executor = mli_retain(ex);
  task->payload = payload;
  task->context = NULL;
  task->submitted_at = mli_now();
  task->timeout = MLI_FOREVER;
  task->worker = task->pin = NULL;
  task->seat = NULL;
  task->origin = NULL;
  task->lane = task->begun_at = 0;
  atomic_init(&task->over, false);
  task->runner = NULL;
  task->line = 0;
  task->chunk = NULL;
  task->name[0] = '\0';
  return task;
}

/* Gives back the slot, once. */
static void leave_slot(mli_task *task) {
  if (!atomic_exchange_explicit(&task->over, true, memory_order_relaxed))
    mli_sem_release(&task->executor->slots);
}

/* Nobody who waits for the task has hung a watcher before this one, so the slot is free as
** they wake; also if a cancel settled the task in the queue. */
static void task_on_settled(mli_watcher *w) { leave_slot(mli_container(w, mli_task, settled)); }

void mli_task_settle(mli_worker *w, mli_task *task, mli_state state, mli_message *outcome,
                     char *traceback, ml_status status) {
  /* Counted first: who sees the outcome sees the counts, and finds the slot free. Only a
  ** cancel in the queue has settled it before. */
  if (status != ML_OK) state = MLI_FAILED;
  if (mli_future_settled(&task->future)) state = MLI_STOPPED;
  if (mli_unlikely(mli_observing())) mli_observe_settle(task, state);
  mli_count(state == MLI_FINISHED ? &w->counts.finished
            : state == MLI_FAILED ? &w->counts.failed
                                  : &w->counts.cancelled,
            1);
  if (task->executor->bounded) leave_slot(task);
  if (status != ML_OK)
    mli_future_fail(&task->future, status);
  else
    mli_future_settle(&task->future, state, outcome, traceback);
  if (task->executor->loops) atomic_fetch_sub_explicit(&w->load, 1, memory_order_relaxed);
  task_release(task);
}

/* ---- loops ---- */

static void on_task(mli_node *node, mli_loop *loop) {
  mli_task *task = mli_container(node, mli_task, node);
  mli_worker *w = loop->user;
  if (loop->stopping)
    mli_task_settle(w, task, MLI_FAILED, NULL, NULL, ML_CLOSED);
  else
    w->executor->class->run(w, task);
}

static void on_close(mli_node *node, mli_loop *loop) {
  mli_worker *w = loop->user;
  (void)node;
  w->closing = true;
  if (atomic_load(&w->executor->cancel)) w->executor->class->cancel_all(w);
}

/* Asks again, for a second shutdown that cancels. */
typedef struct cancel_request {
  mli_node node;
} cancel_request;

static void on_cancel_request(mli_node *node, mli_loop *loop) {
  mli_worker *w = loop->user;
  w->executor->class->cancel_all(w);
  free(mli_container(node, cancel_request, node));
}

static bool worker_turn(mli_loop *loop) {
  mli_worker *w = loop->user;
  bool more = w->executor->class->turn(w);
  if (w->closing && !more && !loop->incoming && w->executor->class->idle(w)) mli_loop_stop(loop);
  return more;
}

static const mli_loop_hooks loop_hooks = { worker_turn };

mli_worker *mli_executor_place(mli_executor *ex) {
  if (!ex->loops) return NULL;
  mli_worker *best = ex->workers[0];
  for (unsigned i = 1; i < ex->size; i++)
    if (atomic_load_explicit(&ex->workers[i]->load, memory_order_relaxed) <
        atomic_load_explicit(&best->load, memory_order_relaxed))
      best = ex->workers[i];
  return best;
}

/* ---- threads ---- */

void mli_worker_leave(mli_worker *w) {
  mli_executor *ex = w->executor;
  mli_lock_acquire(&ex->lock);
  if (w->gone)
    w->started = false; /* its place may be taken */
  else
    ex->alive--;
  bool last = --ex->threads == 0 && atomic_load(&ex->closing);
  mli_lock_release(&ex->lock);
  if (last) mli_future_settle(ex->ended, MLI_FINISHED, NULL, NULL);
  mli_release(ex);
}

void mli_worker_end(mli_worker *w) {
  mli_worker_leave(w);
  mli_clock_engage(-1);
  mli_clock_look();
}

void mli_worker_begin(mli_worker *w) {
  self = w;
  mli_clock_be_counted();
  char name[16]; /* what Linux keeps */
  if (w->executor->size > 1)
    snprintf(name, sizeof name, "%.10s-%u", w->executor->name, w->index + 1);
  else
    snprintf(name, sizeof name, "%.15s", w->executor->name);
  mli_thread_name(name);
}

static void *loop_main(void *arg) {
  mli_worker *w = arg;
  mli_worker_begin(w);
  w->executor->class->open(w);
  mli_loop_run(w->loop);
  w->executor->class->close(w);
  mli_worker_end(w);
  return NULL;
}

/* Signals are for the threads of the program: ours block all but the faults. */
int mli_worker_start(mli_worker *w, void *(*run)(void *)) {
  sigset_t all, old;
  sigfillset(&all);
  sigdelset(&all, SIGSEGV);
  sigdelset(&all, SIGBUS);
  sigdelset(&all, SIGFPE);
  sigdelset(&all, SIGILL);
  sigdelset(&all, SIGABRT);
  sigdelset(&all, SIGTRAP);
  sigdelset(&all, SIGPROF);
  int err = pthread_sigmask(SIG_SETMASK, &all, &old);
  if (err) return err;
  mli_object_retain(&w->executor->object);
  mli_clock_engage(1);
  err = pthread_create(&w->thread, NULL, run, w);
  if (err) {
    mli_clock_engage(-1);
    mli_release(w->executor);
  }
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  return err;
}

mli_worker *mli_executor_adopt(mli_executor *ex) {
  mli_lock_acquire(&ex->lock);
  mli_worker *w = mli_pool_add(ex);
  if (w) w->joined = true; /* its end is the thread's own business */
  mli_lock_release(&ex->lock);
  self = w;
  return w;
}

/* ---- the executor ---- */

mli_worker *mli_executor_worker(mli_executor *ex, unsigned index) {
  mli_lock_acquire(&ex->lock);
  mli_worker *w = index < ex->count ? ex->workers[index] : NULL;
  mli_lock_release(&ex->lock);
  return w;
}

static void executor_destroy(mli_object *object) {
  mli_executor *ex = mli_container(object, mli_executor, object);
  for (unsigned i = 0; i < ex->count; i++) {
    mli_worker *w = ex->workers[i];
    if (w->started && !w->gone && !w->joined) {
      /* The last reference may be dropped by the last thread itself. */
      if (pthread_equal(w->thread, pthread_self()))
        pthread_detach(w->thread);
      else
        pthread_join(w->thread, NULL);
    }
    if (w->loop) mli_release(w->loop);
    free(w);
  }
  free(ex->workers);
  if (ex->free_user) ex->free_user(ex->user);
  mli_release(ex->ended);
  free(ex);
}

const mli_type mli_executor_type = { "executor", executor_destroy, NULL };

static ml_status start_loops(mli_executor *ex) {
  ex->workers = calloc(ex->size, sizeof *ex->workers);
  if (!ex->workers) return ML_MEMORY;
  for (unsigned i = 0; i < ex->size; i++) {
    mli_worker *w = calloc(1, sizeof *w);
    if (!w) return ML_MEMORY;
    w->executor = ex;
    w->index = i;
    ex->workers[ex->count++] = w;
    ml_status status = mli_loop_new(&w->loop, &loop_hooks, w);
    if (status != ML_OK) return status;
  }
  if (ex->driven) {
    mli_worker *w = ex->workers[0];
    ex->alive = ex->threads = 1;
    w->started = w->joined = true; /* there is nothing to join */
    mli_object_retain(&ex->object);
    return ML_OK;
  }
  for (unsigned i = 0; i < ex->size; i++) {
    ex->alive++;
    ex->threads++;
    ex->workers[i]->started = true;
    int err = mli_worker_start(ex->workers[i], loop_main);
    if (err) {
      ex->alive--;
      ex->threads--;
      ex->workers[i]->started = false;
      errno = err;
      return ML_SYSTEM;
    }
  }
  return ML_OK;
}

ml_status mli_executor_new(mli_executor **out, const mli_executor_options *o) {
  mli_executor *ex = calloc(1, sizeof *ex);
  mli_future *ended = mli_future_new();
  if (!ex || !ended) {
    free(ex);
    if (ended) mli_release(ended);
    o->free_user(o->user);
    return ML_MEMORY;
  }
  mli_object_init(&ex->object, &mli_executor_type);
  ex->class = o->class;
  ex->user = o->user;
  ex->free_user = o->free_user;
  snprintf(ex->name, sizeof ex->name, "%s", o->name);
  ex->size = o->size;
  ex->loops = o->loops;
  ex->idle_life = o->idle_life;
  ex->driven = o->driven;
  ex->bounded = o->max_pending > 0;
  mli_sem_init(&ex->slots, o->max_pending);
  ex->ended = ended;
  ex->last = &ex->queue;
  ml_status status = ex->loops ? start_loops(ex) : ML_OK;
  if (status != ML_OK) {
    int err = errno;
    mli_executor_shutdown(ex, true);
    mli_release(ex);
    errno = err;
    return status;
  }
  *out = ex;
  return ML_OK;
}

ml_status mli_executor_submit(mli_executor *ex, mli_task *task) {
  ml_status status = ML_CLOSED;
  if (mli_tracing()) task->lane = mli_trace_new_lane();
  mli_object_retain(&task->future.object);
  if (ex->bounded) {
    task->settled.fired = task_on_settled;
    mli_future_watch(&task->future, &task->settled);
  }
  atomic_fetch_add_explicit(&ex->submitted, 1, memory_order_relaxed);
  if (!ex->loops) {
    status = mli_pool_submit(ex, task);
  } else if (!atomic_load(&ex->closing)) {
    mli_worker *w = task->pin ? task->pin : mli_executor_place(ex);
    atomic_fetch_add_explicit(&w->load, 1, memory_order_relaxed);
    task->worker = w;
    task->node.run = on_task;
    bool sent = ex->class->direct && ex->class->direct(w, task);
    status = sent || mli_loop_post(w->loop, &task->node) ? ML_OK : ML_CLOSED;
    if (status != ML_OK) atomic_fetch_sub_explicit(&w->load, 1, memory_order_relaxed);
  }
  if (status == ML_OK) {
    if (mli_tracing()) mli_observe_submit(task);
    return ML_OK;
  }
  atomic_fetch_sub_explicit(&ex->submitted, 1, memory_order_relaxed);
  mli_future_fail(&task->future, status);
  task_release(task);
  return status;
}

void mli_executor_shutdown(mli_executor *ex, bool cancel) {
  if (cancel) atomic_store(&ex->cancel, true);
  mli_lock_acquire(&ex->lock);
  bool first = !atomic_exchange(&ex->closing, true);
  bool ended = first && ex->threads == 0;
  mli_worker *idle = ex->idle;
  ex->idle = NULL;
  mli_lock_release(&ex->lock);
  if (first) mli_sem_close(&ex->slots);
  while (idle) {
    mli_worker *w = idle;
    idle = w->next_idle;
    mli_clock_engage(1);
    mli_unpark(&w->parker);
  }
  for (unsigned i = 0; ex->loops && i < ex->count; i++) {
    mli_worker *w = ex->workers[i];
    if (!w->started) continue;
    if (first) {
      w->close_node.run = on_close;
      mli_loop_post(w->loop, &w->close_node);
    } else if (cancel) {
      cancel_request *request = malloc(sizeof *request);
      if (!request) continue; /* the caller's deadline will tell */
      request->node.run = on_cancel_request;
      if (!mli_loop_post(w->loop, &request->node)) free(request);
    }
  }
  if (cancel && !ex->loops) mli_pool_cancel(ex);
  if (ended) mli_future_settle(ex->ended, MLI_FINISHED, NULL, NULL);
}

void mli_executor_join(mli_executor *ex) {
  for (unsigned i = 0;; i++) {
    mli_lock_acquire(&ex->lock);
    mli_worker *w = i < ex->count ? ex->workers[i] : NULL;
    bool join = w && w->started && !w->gone && !w->joined &&
                !pthread_equal(w->thread, pthread_self());
    if (join) w->joined = true;
    mli_lock_release(&ex->lock);
    if (!w) return;
    if (join) pthread_join(w->thread, NULL);
  }
}

void mli_task_force(mli_task *task) {
  mli_executor *ex = task->executor;
  if (ex->loops || !ex->class->force) return;
  mli_lock_acquire(&ex->lock);
  if (task->worker) ex->class->force(task->worker, task);
  mli_lock_release(&ex->lock);
}

void mli_executor_use(mli_executor *ex) {
  atomic_fetch_add_explicit(&ex->users, 1, memory_order_relaxed);
}

void mli_executor_leave(mli_executor *ex) {
  if (atomic_fetch_sub_explicit(&ex->users, 1, memory_order_acq_rel) == 1)
    mli_executor_shutdown(ex, false);
}

void mli_executor_totals(mli_executor *ex, mli_totals *out) {
  mli_totals t = { .submitted = atomic_load(&ex->submitted),
                   .cancelled = atomic_load(&ex->dropped) };
  mli_lock_acquire(&ex->lock);
  t.threads = ex->threads;
  for (unsigned i = 0; i < ex->count; i++) {
    const mli_counts *c = &ex->workers[i]->counts;
    t.submitted += atomic_load_explicit(&c->submitted, memory_order_relaxed);
    t.finished += atomic_load_explicit(&c->finished, memory_order_relaxed);
    t.failed += atomic_load_explicit(&c->failed, memory_order_relaxed);
    t.cancelled += atomic_load_explicit(&c->cancelled, memory_order_relaxed);
    t.running += atomic_load_explicit(&c->running, memory_order_relaxed);
    t.parked += atomic_load_explicit(&c->parked, memory_order_relaxed);
    if (ex->loops)
      t.blocked += atomic_load_explicit(&ex->workers[i]->loop->watch.incidents,
                                        memory_order_relaxed);
  }
  mli_lock_release(&ex->lock);
  unsigned long long begun = t.finished + t.failed + t.cancelled + t.running + t.parked;
  t.queued = t.submitted > begun ? t.submitted - begun : 0;
  *out = t;
}
