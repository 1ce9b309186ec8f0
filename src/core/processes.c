/* processes.c: tasks, and which child gets them. */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include "children.h"
#include "observe.h"

#define SMALL ((size_t)16 << 10) /* payloads that a submitter writes itself */

/* Submitters count too. */
void mli_processes_count_running(mli_processes *p, int by) {
  atomic_fetch_add_explicit(&p->worker->counts.running, (unsigned long long)by,
                            memory_order_relaxed);
}

/* ---- outcomes ---- */

void mli_processes_settle(mli_processes *p, mli_task *task, mli_verdict v) {
  if (v.state == MLI_STOPPED || v.status != ML_OK) {
    mli_message_free(v.outcome);
    free(v.traceback);
    v.outcome = NULL;
    v.traceback = NULL;
  } else if (!v.outcome) {
    free(v.traceback);
    v.traceback = NULL;
    v.status = ML_MEMORY;
  }
  mli_task_settle(p->worker, task, v.state, v.outcome, v.traceback, v.status);
}

void mli_processes_fail(mli_processes *p, mli_task *task, mli_message *error,
                        const char *traceback) {
  mli_processes_settle(p, task,
                       (mli_verdict){ .state = MLI_FAILED,
                                      .outcome = error,
                                      .traceback = traceback ? strdup(traceback) : NULL });
}

bool mli_processes_claim(mli_processes *p, mli_task *task) {
  if (mli_future_state(&task->future) == MLI_RUNNING) { /* given to a child that never got it */
    if (!atomic_load(&task->future.asked)) return true;
  } else if (mli_future_start(&task->future)) {
    return true;
  }
  mli_processes_settle(p, task, (mli_verdict){ .state = MLI_STOPPED });
  return false;
}

/* ---- lines ---- */

void mli_line_init(mli_line *line) { *line = (mli_line){ NULL, &line->first }; }

void mli_line_put(mli_line *line, mli_task *task) {
  task->node.next = NULL;
  *line->last = &task->node;
  line->last = &task->node.next;
}

void mli_line_put_back(mli_line *line, mli_task *task) {
  task->node.next = line->first;
  if (!line->first) line->last = &task->node.next;
  line->first = &task->node;
}

mli_task *mli_line_take(mli_line *line) {
  mli_node *node = line->first;
  if (!node) return NULL;
  line->first = node->next;
  if (!line->first) line->last = &line->first;
  return mli_container(node, mli_task, node);
}

void mli_line_fail(mli_processes *p, mli_line *line, const mli_message *error,
                   const char *traceback) {
  for (mli_task *task; (task = mli_line_take(line));)
    if (mli_processes_claim(p, task))
      mli_processes_fail(p, task, error ? mli_message_copy(error) : NULL, traceback);
}

/* Cancels what waits in it. */
static void cancel_line(mli_processes *p, mli_line *line) {
  for (mli_task *task; (task = mli_line_take(line));) {
    mli_future_cancel(&task->future, NULL);
    bool runs = mli_processes_claim(p, task);
    assert(!runs);
    (void)runs;
  }
}

/* ---- no children ---- */

void mli_processes_give_up(mli_processes *p, mli_message *error, char *traceback) {
  if (p->broken) {
    mli_message_free(error);
    free(traceback);
    return;
  }
  p->broken = error;
  p->broken_traceback = traceback;
  mli_children_recall(p);
  p->queued = 0;
  mli_line_fail(p, &p->queue, error, traceback);
  for (mli_child *c = p->children; c; c = c->next) mli_line_fail(p, &c->own, error, traceback);
}

mli_message *mli_processes_start_error(mli_processes *p, int err) {
  char text[512];
  snprintf(text, sizeof text, "executor '%s' cannot start a process of %s: %s",
           p->worker->executor->name, p->o.program, strerror(err));
  return p->o.hooks->error(p, uv_err_name(-err), text, NULL);
}

/* No child can be started. Tasks that no other child could run fail with the reason. */
static void cannot_start(mli_processes *p, int err) {
  bool passes = err == EAGAIN || err == ENOMEM || err == EMFILE || err == ENFILE;
  p->next_start = mli_now() + MLI_FIRST_DELAY;
  if (p->alive > 0) return;
  mli_message *error = mli_processes_start_error(p, err);
  if (passes) {
    p->queued = 0;
    mli_line_fail(p, &p->queue, error, NULL);
    mli_message_free(error);
    p->next_start = 0;
  } else {
    mli_processes_give_up(p, error, NULL);
  }
}

/* ---- tasks to children ---- */

/* Writes the task to the child. ML_CLOSED: the child never saw it. ML_MEMORY. */
static ml_status send_task(mli_child *c, mli_task *task, mli_bytes *draft) {
  mli_processes *p = c->pool;
  draft->size = 0;
  draft->failed = false;
  p->o.hooks->job(p, c->user, task, draft);
  if (draft->failed) return ML_MEMORY;
  if (mli_unlikely(mli_observing())) task->begun_at = mli_now();
  struct iovec parts[] = { { draft->data, draft->size },
                           { (void *)task->payload->bytes, task->payload->size } };
  ml_status status = mli_link_send(&c->link, MLI_JOB, c->jobs + 1, parts, 2);
  if (status != ML_OK && c->link.out.size == 0) return ML_CLOSED;
  c->jobs++;
  task->runner = c;
  return ML_OK;
}

static void drop_payload(mli_task *task) {
  mli_message_free(task->payload);
  task->payload = NULL;
}

static void give(mli_child *c, mli_task *task) {
  mli_processes *p = c->pool;
  ml_status status = send_task(c, task, &p->scratch);
  if (status == ML_MEMORY) {
    mli_processes_settle(p, task, (mli_verdict){ .state = MLI_FAILED, .status = ML_MEMORY });
    return;
  }
  if (status != ML_OK) { /* it ended unasked */
    mli_line_put_back(task->seat ? &c->own : &p->queue, task);
    if (!task->seat) p->queued++;
    mli_child_kill(c, SIGKILL, MLI_HUNG_UP);
    return;
  }
  drop_payload(task);
  c->task = task;
  c->state = MLI_CHILD_BUSY;
  mli_processes_count_running(p, 1);
  if (task->timeout != MLI_FOREVER) mli_child_limit(c, task->timeout);
  mli_child_watch(c);
}

/* A submitter could not write all of its task. */
static void on_unsent(mli_node *node, mli_loop *loop) {
  mli_task *task = mli_container(node, mli_task, node);
  mli_child *c = task->runner;
  (void)loop;
  if (c) {
    mli_child_recall(c);
    if (c->fds[MLI_SOCKET] >= 0) mli_child_watch(c);
  }
  mli_release(&task->future);
}

bool mli_processes_direct(mli_processes *p, mli_task *task) {
  bool sent = false, all = true;
  mli_lock_acquire(&p->lock);
  mli_child *c = p->lent;
  if (c && atomic_load(&p->posted) == 0 && !task->seat && task->timeout == MLI_FOREVER &&
      task->payload->size <= SMALL && send_task(c, task, &p->draft) == ML_OK) {
    mli_future_start(&task->future); /* nobody else has it yet */
    p->lent = c->next_lent;
    c->taken = task;
    mli_processes_count_running(p, 1);
    all = c->link.out.size == 0;
    sent = true;
  } else {
    atomic_fetch_add(&p->posted, 1); /* those that follow go behind it */
  }
  mli_lock_release(&p->lock);
  if (!sent) return false;
  drop_payload(task);
  if (all) return true;
  mli_object_retain(&task->future.object);
  task->node.run = on_unsent;
  if (!mli_loop_post(p->worker->loop, &task->node)) mli_release(&task->future);
  return true;
}

/* An idle child, rather one that nobody holds. */
static mli_child *idle_child(mli_processes *p) {
  mli_child *held = NULL;
  for (mli_child *c = p->children; c; c = c->next) {
    mli_child_recall(c);
    if (c->state == MLI_CHILD_IDLE && c->held == 0) return c;
    if (c->state == MLI_CHILD_IDLE && !held) held = c;
  }
  return held;
}

/* Gives a child what only it may run. */
static void pump_own(mli_child *c) {
  if (!c->own.first) return;
  mli_child_recall(c);
  while (c->state == MLI_CHILD_IDLE && c->own.first) {
    mli_task *task = mli_line_take(&c->own);
    if (mli_processes_claim(c->pool, task)) give(c, task);
  }
}

static void on_restart(mli_timer *timer) {
  mli_processes_pump(mli_container(timer, mli_processes, restart));
}

void mli_processes_pump(mli_processes *p) {
  mli_child *c;
  for (c = p->children; c; c = c->next) pump_own(c);
  while (p->queue.first && (c = idle_child(p))) {
    mli_task *task = mli_line_take(&p->queue);
    p->queued--;
    if (mli_processes_claim(p, task)) give(c, task);
  }
  while (p->queue.first && p->alive < p->o.size && p->starting < p->queued) {
    if (mli_now() < p->next_start) {
      p->restart.fire = on_restart;
      mli_loop_timer_start(p->worker->loop, &p->restart, p->next_start);
      return;
    }
    int err = mli_child_add(p);
    if (err) {
      cannot_start(p, err);
      if (p->alive > 0) return; /* they go on with it; a result, or an end, tries again */
    }
  }
  if (p->queue.first || p->closing || p->broken) return;
  for (c = p->children; c; c = c->next)
    if (c->state == MLI_CHILD_IDLE) mli_child_lend(c);
}

void mli_processes_run(mli_processes *p, mli_task *task) {
  if (p->broken) {
    if (mli_processes_claim(p, task))
      mli_processes_fail(p, task, mli_message_copy(p->broken), p->broken_traceback);
  } else {
    if (task->seat) {
      mli_seat_run(p, task);
    } else {
      mli_line_put(&p->queue, task);
      p->queued++;
    }
    mli_processes_pump(p);
  }
  atomic_fetch_sub(&p->posted, 1); /* now: P4 */
}

void mli_processes_cancel(mli_processes *p, mli_task *task) {
  (void)p;
  if (task->runner) mli_child_kill(task->runner, SIGTERM, MLI_CANCELLED);
}

void mli_processes_cancel_all(mli_processes *p) {
  p->queued = 0;
  cancel_line(p, &p->queue);
  mli_children_recall(p);
  for (mli_child *c = p->children; c; c = c->next) {
    cancel_line(p, &c->own);
    if (c->task) mli_future_cancel(&c->task->future, NULL); /* comes back as a message */
  }
}

bool mli_processes_idle(mli_processes *p) {
  if (p->queue.first) return false;
  for (mli_child *c = p->children; c; c = c->next)
    if (c->own.first) return false;
  p->closing = true;
  mli_loop_timer_stop(p->worker->loop, &p->restart);
  mli_children_recall(p);
  for (mli_child *c = p->children; c; c = c->next)
    if (c->state == MLI_CHILD_IDLE)
      mli_child_finish(c);
    else if (c->state == MLI_CHILD_STARTING)
      mli_child_kill(c, SIGKILL, MLI_CANCELLED);
  return !p->children;
}

void mli_processes_init(mli_processes *p, const mli_processes_options *o) {
  *p = (mli_processes){ .o = *o };
  mli_line_init(&p->queue);
}

void mli_processes_begin(mli_processes *p, mli_worker *w) {
  p->worker = w;
  w->loop->clock.tasks = &w->load;
}

void mli_processes_end(mli_processes *p) {
  assert(!p->children && !p->queue.first);
  mli_bytes_free(&p->scratch);
  mli_bytes_free(&p->draft);
  mli_message_free(p->broken);
  free(p->broken_traceback);
}

typedef void task_hook(void *user, mli_task *task, pid_t pid);

static void each_of(mli_line *line, task_hook *f, void *user) {
  for (mli_node *n = line->first; n; n = n->next) f(user, mli_container(n, mli_task, node), 0);
}

void mli_processes_each(mli_processes *p, void (*f)(void *user, mli_task *task, pid_t pid),
                        void *user) {
  mli_children_recall(p);
  for (mli_child *c = p->children; c; c = c->next)
    if (c->task) f(user, c->task, c->pid);
  for (mli_child *c = p->children; c; c = c->next) each_of(&c->own, f, user);
  each_of(&p->queue, f, user);
  mli_processes_pump(p); /* lends again */
}

unsigned mli_processes_count(const mli_processes *p) {
  unsigned n = 0;
  for (const mli_child *c = p->children; c; c = c->next) n++;
  return n;
}
