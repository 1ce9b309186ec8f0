/* processes.c: tasks to children, and what becomes of both. */
#include "processes.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
#include "output.h"

#define FREE_LOSSES 3 /* children that may be lost before it takes patience */
#define FIRST_DELAY (20 * MLI_MILLISECOND)
#define LONGEST_DELAY (2 * MLI_SECOND)
#define MOST_FALSE_STARTS 3 /* then whoever waits is told */
#define HUNG_UP_GRACE (100 * MLI_MILLISECOND)
#define HANDLES 4
#define SMALL ((size_t)16 << 10) /* payloads that a submitter writes itself */

enum { SOCKET, ENDED, OUTPUT, ERRORS }; /* handles of a child */

/* Why a child is being killed: what its task will say. */
typedef enum reason { NONE, CANCELLED, TIMED_OUT, HUNG_UP, DAMAGED, UNFIT } reason;

struct mli_child {
  mli_processes *pool;
  mli_child *next;
  mli_child_state state;
  reason reason;
  pid_t pid;
  void *user; /* of the layer above */
  mli_link link;
  mli_task *task; /* with the reference that came with it */
  uint64_t jobs;  /* that it was given */
  bool ready;     /* it said so */
  bool listening; /* its socket is polled for writing too */
  unsigned open;  /* handles that are not closed yet */
  uv_poll_t handles[HANDLES];
  int fds[HANDLES];
  mli_bytes partial[2]; /* of its output: a line's begin */
  mli_timer deadline;   /* of its task, or of its end */
  char *unfit;          /* why it cannot be used */
  mli_child *next_lent; /* [M] of the pool, while it is lent */
  mli_task *taken;      /* [M] what a submitter gave it */
};

static void pump(mli_processes *p);

static uv_loop_t *uv_of(mli_processes *p) { return &p->worker->loop->uv; }

/* Submitters count too. */
static void count_running(mli_processes *p, int by) {
  atomic_fetch_add_explicit(&p->worker->counts.running, (unsigned long long)by,
                            memory_order_relaxed);
}

/* ---- children that are lent ---- */

static void lend(mli_child *c) {
  mli_processes *p = c->pool;
  c->state = MLI_CHILD_LENT;
  mli_lock_acquire(&p->lock);
  c->next_lent = p->lent;
  p->lent = c;
  mli_lock_release(&p->lock);
}

/* A child that was lent is idle again, or a submitter has made it busy. */
static void recall(mli_child *c) {
  mli_processes *p = c->pool;
  if (c->state != MLI_CHILD_LENT) return;
  mli_lock_acquire(&p->lock);
  c->task = c->taken;
  c->taken = NULL;
  if (!c->task) {
    mli_child **at = &p->lent;
    while (*at != c) at = &(*at)->next_lent;
    *at = c->next_lent;
  }
  mli_lock_release(&p->lock);
  c->state = c->task ? MLI_CHILD_BUSY : MLI_CHILD_IDLE;
}

static void recall_all(mli_processes *p) {
  for (mli_child *c = p->children; c; c = c->next) recall(c);
}

/* ---- outcomes ---- */

static void settle(mli_processes *p, mli_task *task, mli_verdict v) {
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

static void fail(mli_processes *p, mli_task *task, mli_message *error, const char *traceback) {
  settle(p, task,
         (mli_verdict){ .state = MLI_FAILED,
                        .outcome = error,
                        .traceback = traceback ? strdup(traceback) : NULL });
}

/* Whether the task may run: it was not cancelled before. Else it is settled. */
static bool begin(mli_processes *p, mli_task *task) {
  if (mli_future_state(&task->future) == MLI_RUNNING) { /* given to a child that never got it */
    if (!atomic_load(&task->future.asked)) return true;
  } else if (mli_future_start(&task->future)) {
    return true;
  }
  settle(p, task, (mli_verdict){ .state = MLI_STOPPED });
  return false;
}

static mli_task *take_task(mli_processes *p) {
  mli_task *task = mli_container(p->queue, mli_task, node);
  p->queue = p->queue->next;
  if (!p->queue) p->last = &p->queue;
  p->queued--;
  return task;
}

/* Everything that is queued fails with a copy of the error, which stays the caller's. */
static void fail_queue(mli_processes *p, const mli_message *error, const char *traceback) {
  while (p->queue) {
    mli_task *task = take_task(p);
    if (begin(p, task)) fail(p, task, error ? mli_message_copy(error) : NULL, traceback);
  }
}

/* From here on every task fails so. Takes over the error and the traceback. */
static void give_up(mli_processes *p, mli_message *error, char *traceback) {
  if (p->broken) {
    mli_message_free(error);
    free(traceback);
    return;
  }
  p->broken = error;
  p->broken_traceback = traceback;
  recall_all(p);
  fail_queue(p, error, traceback);
}

/* ---- ends of children ---- */

static void child_free(mli_child *c) {
  mli_processes *p = c->pool;
  mli_child **at = &p->children;
  while (*at != c) at = &(*at)->next;
  *at = c->next;
  mli_link_fini(&c->link);
  mli_bytes_free(&c->partial[0]);
  mli_bytes_free(&c->partial[1]);
  free(c->unfit);
  p->o.hooks->close(p, c->user);
  free(c);
  mli_loop_again(p->worker->loop); /* perhaps nothing is left */
}

static void on_handle_closed(uv_handle_t *handle) {
  mli_child *c = handle->data;
  if (--c->open == 0) child_free(c);
}

static void close_handle(mli_child *c, int which) {
  uv_handle_t *handle = (uv_handle_t *)&c->handles[which];
  if (c->fds[which] < 0) return;
  uv_poll_stop(&c->handles[which]);
  if (which != SOCKET) close(c->fds[which]); /* the socket is the link's */
  c->fds[which] = -1;
  uv_close(handle, on_handle_closed);
}

/* It is no longer one of those that work. */
static void leave_alive(mli_child *c) {
  if (c->state == MLI_CHILD_STARTING) c->pool->starting--;
  if (c->state < MLI_CHILD_ENDING) c->pool->alive--;
}

static void describe(mli_child *c, const mli_child_end *end, char *text, size_t size) {
  const char *name = c->pool->worker->executor->name, *how = "ended";
  char detail[128] = "";
  if (c->reason == HUNG_UP)
    how = "closed its connection and was killed";
  else if (c->reason == DAMAGED)
    how = "sent what makes no sense and was killed";
  else if (c->reason == UNFIT)
    how = c->unfit ? c->unfit : "cannot be used";
  else if (end->known && end->signal) {
    how = "was killed by signal";
    snprintf(detail, sizeof detail, " %d (%s)", end->signal, strsignal(end->signal));
  } else if (end->known) {
    how = "ended with status";
    snprintf(detail, sizeof detail, " %d", end->status);
  }
  snprintf(text, size, "process %d of executor '%s' %s%s%s", (int)c->pid, name, how, detail,
           c->ready ? "" : " before it was ready");
}

/* The process has ended: its task is settled, unless its result came before. */
static void settle_lost(mli_child *c, const mli_child_end *end) {
  mli_processes *p = c->pool;
  mli_task *task = c->task;
  if (!task) return;
  c->task = NULL;
  task->runner = NULL;
  count_running(p, -1);
  char text[256];
  mli_message *error = NULL;
  if (c->reason == CANCELLED) {
    settle(p, task, (mli_verdict){ .state = MLI_STOPPED });
    return;
  }
  if (c->reason == TIMED_OUT) {
    snprintf(text, sizeof text, "job '%s' ran longer than its timeout",
             task->name[0] ? task->name : "job");
    error = p->o.hooks->error(p, "timeout", text, NULL);
  } else {
    describe(c, end, text, sizeof text);
    error = p->o.hooks->error(p, "crashed", text, end);
    p->losses++;
  }
  fail(p, task, error, NULL);
}

static uint64_t patience(unsigned times) {
  uint64_t delay = FIRST_DELAY;
  while (times-- > 0 && delay < LONGEST_DELAY) delay *= 2;
  return delay < LONGEST_DELAY ? delay : LONGEST_DELAY;
}

/* It ended before it was ready. */
static void note_false_start(mli_child *c, const mli_child_end *end) {
  mli_processes *p = c->pool;
  char text[384];
  p->false_starts++;
  p->next_start = mli_now() + patience(p->false_starts);
  if (p->false_starts < MOST_FALSE_STARTS && c->reason != UNFIT) return;
  describe(c, end, text, sizeof text);
  mli_message *error = p->o.hooks->error(p, "crashed", text, end);
  if (c->reason == UNFIT) {
    give_up(p, error, NULL);
  } else { /* what is the matter may pass: the next submit tries again */
    fail_queue(p, error, NULL);
    mli_message_free(error);
    p->false_starts = 0;
  }
}

static void read_packets(mli_child *c, bool all);
static void read_output(mli_child *c, int which, bool all);

/* The process has ended, or is about to where `block` is set. */
static void child_gone(mli_child *c, bool block) {
  mli_processes *p = c->pool;
  mli_child_end end;
  if (c->state == MLI_CHILD_GONE) return;
  recall(c);
  if (c->fds[SOCKET] >= 0) read_packets(c, true); /* its last words */
  if (!mli_child_reap(c->pid, block, &end)) return;
  for (int i = OUTPUT; i <= ERRORS; i++) read_output(c, i, true);
  leave_alive(c);
  c->state = MLI_CHILD_GONE;
  mli_loop_timer_stop(p->worker->loop, &c->deadline);
  settle_lost(c, &end);
  if (!c->ready && !p->broken && !p->closing) note_false_start(c, &end);
  if (p->losses > FREE_LOSSES) p->next_start = mli_now() + patience(p->losses - FREE_LOSSES - 1);
  c->open++; /* until this is done */
  for (int i = 0; i < HANDLES; i++) close_handle(c, i);
  if (--c->open == 0) child_free(c);
  pump(p);
}

static void on_deadline(mli_timer *timer);

static void start_deadline(mli_child *c, uint64_t ns) {
  c->deadline.fire = on_deadline;
  mli_loop_timer_start(c->pool->worker->loop, &c->deadline, mli_now() + ns);
}

/* Asks it to end by a signal, which it need not heed; after the grace it is killed. */
static void kill_child(mli_child *c, int number, reason why) {
  recall(c);
  if (c->state == MLI_CHILD_GONE || (c->state == MLI_CHILD_ENDING && c->reason != NONE)) return;
  leave_alive(c);
  c->state = MLI_CHILD_ENDING;
  c->reason = why;
  mli_child_signal(c->pid, number);
  if (number != SIGKILL) start_deadline(c, c->pool->o.grace);
}

/* Asks it to end when it has done what it does. */
static void end_child(mli_child *c) {
  leave_alive(c);
  c->state = MLI_CHILD_ENDING;
  mli_link_send(&c->link, MLI_END, 0, NULL, 0);
  start_deadline(c, c->pool->o.grace);
}

static void on_deadline(mli_timer *timer) {
  mli_child *c = mli_container(timer, mli_child, deadline);
  if (c->state == MLI_CHILD_BUSY) {
    kill_child(c, SIGTERM, TIMED_OUT);
  } else { /* it was to end by itself */
    if (c->fds[SOCKET] < 0 && c->reason == NONE) c->reason = HUNG_UP;
    mli_child_signal(c->pid, SIGKILL);
  }
}

/* ---- what comes from children ---- */

static void on_ready(mli_child *c, const mli_packet *packet) {
  mli_processes *p = c->pool;
  if (c->state != MLI_CHILD_STARTING) return;
  if (!p->o.hooks->ready(p, packet, &c->unfit)) {
    kill_child(c, SIGKILL, UNFIT);
    return;
  }
  p->starting--;
  p->false_starts = 0;
  c->ready = true;
  c->state = MLI_CHILD_IDLE;
}

/* Its init failed, as it will in every other. */
static void on_broken(mli_child *c, const mli_packet *packet) {
  mli_processes *p = c->pool;
  mli_verdict v = { .state = MLI_FAILED };
  if (c->state != MLI_CHILD_STARTING) return;
  if (!p->o.hooks->result(p, c->user, packet, &v)) {
    kill_child(c, SIGKILL, DAMAGED);
    return;
  }
  c->ready = true;
  give_up(p, v.outcome, v.traceback);
  end_child(c);
}

static void on_result(mli_child *c, const mli_packet *packet) {
  mli_processes *p = c->pool;
  mli_verdict v = { .state = MLI_FAILED };
  mli_task *task = c->task;
  if (!task || packet->id != c->jobs) return;
  if (!p->o.hooks->result(p, c->user, packet, &v)) {
    kill_child(c, SIGKILL, DAMAGED);
    return;
  }
  c->task = NULL;
  task->runner = NULL;
  p->losses = 0;
  count_running(p, -1);
  if (c->state == MLI_CHILD_BUSY) {
    mli_loop_timer_stop(p->worker->loop, &c->deadline);
    c->state = MLI_CHILD_IDLE;
    if (p->o.max_jobs && c->jobs >= p->o.max_jobs) end_child(c);
  }
  pump(p); /* first: who waits for the outcome may have the next task ready */
  settle(p, task, v);
}

static void on_memory(mli_child *c, const mli_packet *packet) {
  mli_task *task = c->task;
  if (packet->type != MLI_RESULT || !task) return;
  c->task = NULL;
  task->runner = NULL;
  count_running(c->pool, -1);
  if (c->state == MLI_CHILD_BUSY) {
    mli_loop_timer_stop(c->pool->worker->loop, &c->deadline);
    c->state = MLI_CHILD_IDLE;
  }
  settle(c->pool, task, (mli_verdict){ .state = MLI_FAILED, .status = ML_MEMORY });
}

/* Its socket has ended. So has the process, mostly: then how it did will be known at once. */
static void hang_up(mli_child *c) {
  close_handle(c, SOCKET);
  leave_alive(c);
  c->state = MLI_CHILD_ENDING;
  if (c->fds[ENDED] < 0) {
    mli_child_signal(c->pid, SIGKILL);
    child_gone(c, true);
  } else if (c->reason == NONE) {
    start_deadline(c, HUNG_UP_GRACE);
  }
}

/* Reads a packet and what came with it, or `all`: until the socket has no more. */
static void read_packets(mli_child *c, bool all) {
  mli_packet packet;
  ml_status status;
  do {
    status = mli_link_receive(&c->link, &packet);
    if (status != ML_OK && status != ML_MEMORY) break;
    if (status == ML_MEMORY)
      on_memory(c, &packet);
    else if (packet.type == MLI_READY)
      on_ready(c, &packet);
    else if (packet.type == MLI_BROKEN)
      on_broken(c, &packet);
    else if (packet.type == MLI_RESULT)
      on_result(c, &packet);
    if (c->state == MLI_CHILD_IDLE) pump(c->pool);
  } while (all || mli_link_any(&c->link));
  if (status == ML_CLOSED && c->fds[SOCKET] >= 0 && c->state != MLI_CHILD_GONE) hang_up(c);
}

static void on_socket(uv_poll_t *poll, int status, int events);

/* The socket is watched for what comes, and for room where something is kept. */
static void watch_socket(mli_child *c) {
  bool listen = c->link.out.size > 0;
  int events = UV_READABLE | (listen ? UV_WRITABLE : 0);
  if (listen == c->listening && uv_is_active((uv_handle_t *)&c->handles[SOCKET])) return;
  c->listening = listen;
  int err = uv_poll_start(&c->handles[SOCKET], events, on_socket);
  assert(err == 0);
  (void)err;
}

static void on_socket(uv_poll_t *poll, int status, int events) {
  mli_child *c = poll->data;
  (void)status;
  recall(c);
  if ((events & UV_WRITABLE) && mli_link_flush(&c->link) != ML_CLOSED) watch_socket(c);
  read_packets(c, false); /* also after an error: it says so itself */
}

static void on_ended(uv_poll_t *poll, int status, int events) {
  (void)status, (void)events;
  child_gone(poll->data, false);
}

/* ---- what children print ---- */

typedef struct line_of {
  mli_child *child;
  int stream;
} line_of;

static void on_line(void *user, const char *text, size_t size) {
  const line_of *l = user;
  mli_processes *p = l->child->pool;
  p->o.hooks->line(p, l->child->pid, l->stream, text, size);
}

/* Reads what is there; `all`: a few times, for it has ended and no more will come. */
static void read_output(mli_child *c, int which, bool all) {
  line_of l = { c, which - OUTPUT + 1 };
  for (int i = 0; i < (all ? 8 : 1) && c->fds[which] >= 0; i++)
    if (!mli_output_read(c->fds[which], &c->partial[which - OUTPUT], on_line, &l))
      close_handle(c, which);
}

static void on_output(uv_poll_t *poll, int status, int events) {
  mli_child *c = poll->data;
  (void)status, (void)events;
  read_output(c, poll == &c->handles[OUTPUT] ? OUTPUT : ERRORS, false);
}

/* ---- starting children ---- */

static void watch(mli_child *c, int which, int fd, uv_poll_cb f) {
  c->fds[which] = fd;
  if (fd < 0) return;
  int err = uv_poll_init(uv_of(c->pool), &c->handles[which], fd);
  assert(err == 0); /* it is a descriptor that can be polled */
  c->handles[which].data = c;
  c->open++;
  if (f) err = uv_poll_start(&c->handles[which], UV_READABLE, f);
  assert(err == 0);
  (void)err;
}

/* 0, or an errno. */
static int start_child(mli_processes *p) {
  mli_child_pipes pipes;
  mli_child *c = calloc(1, sizeof *c);
  void *user = c ? p->o.hooks->open(p) : NULL;
  int err = user ? mli_child_start(&pipes, p->o.program, p->o.argv, p->o.output) : ENOMEM;
  if (err) {
    if (user) p->o.hooks->close(p, user);
    free(c);
    return err;
  }
  c->pool = p;
  c->user = user;
  c->pid = pipes.pid;
  c->state = MLI_CHILD_STARTING;
  mli_link_init(&c->link, pipes.socket);
  watch(c, SOCKET, pipes.socket, NULL);
  watch(c, ENDED, pipes.ended, on_ended);
  for (int i = 0; i < 2; i++) watch(c, OUTPUT + i, pipes.output[i], on_output);
  c->next = p->children;
  p->children = c;
  p->alive++;
  p->starting++;
  p->scratch.size = 0;
  p->scratch.failed = false;
  p->o.hooks->hello(p, user, &p->scratch);
  struct iovec part = { p->scratch.data, p->scratch.size };
  if (!p->scratch.failed)
    mli_link_send(&c->link, MLI_HELLO, 0, &part, 1);
  else
    kill_child(c, SIGKILL, UNFIT);
  watch_socket(c);
  return 0;
}

/* No child can be started. Tasks that no other child could run fail with the reason. */
static void cannot_start(mli_processes *p, int err) {
  char text[512];
  snprintf(text, sizeof text, "executor '%s' cannot start a process of %s: %s",
           p->worker->executor->name, p->o.program, strerror(err));
  bool passes = err == EAGAIN || err == ENOMEM || err == EMFILE || err == ENFILE;
  p->next_start = mli_now() + FIRST_DELAY;
  if (p->alive > 0) return;
  mli_message *error = p->o.hooks->error(p, uv_err_name(-err), text, NULL);
  if (passes) {
    fail_queue(p, error, NULL);
    mli_message_free(error);
    p->next_start = 0;
  } else {
    give_up(p, error, NULL);
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
    settle(p, task, (mli_verdict){ .state = MLI_FAILED, .status = ML_MEMORY });
    return;
  }
  if (status != ML_OK) { /* it ended unasked */
    task->node.next = p->queue;
    if (!p->queue) p->last = &task->node.next;
    p->queue = &task->node;
    p->queued++;
    kill_child(c, SIGKILL, HUNG_UP);
    return;
  }
  drop_payload(task);
  c->task = task;
  c->state = MLI_CHILD_BUSY;
  count_running(p, 1);
  if (task->timeout != MLI_FOREVER) start_deadline(c, task->timeout);
  watch_socket(c);
}

/* A submitter could not write all of its task. */
static void on_unsent(mli_node *node, mli_loop *loop) {
  mli_task *task = mli_container(node, mli_task, node);
  mli_child *c = task->runner;
  (void)loop;
  if (c) {
    recall(c);
    if (c->fds[SOCKET] >= 0) watch_socket(c);
  }
  mli_release(&task->future);
}

bool mli_processes_direct(mli_processes *p, mli_task *task) {
  bool sent = false, all = true;
  mli_lock_acquire(&p->lock);
  mli_child *c = p->lent;
  if (c && atomic_load(&p->posted) == 0 && task->timeout == MLI_FOREVER &&
      task->payload->size <= SMALL && send_task(c, task, &p->draft) == ML_OK) {
    mli_future_start(&task->future); /* nobody else has it yet */
    p->lent = c->next_lent;
    c->taken = task;
    count_running(p, 1);
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

static mli_child *idle_child(mli_processes *p) {
  for (mli_child *c = p->children; c; c = c->next) {
    recall(c);
    if (c->state == MLI_CHILD_IDLE) return c;
  }
  return NULL;
}

static void on_restart(mli_timer *timer) { pump(mli_container(timer, mli_processes, restart)); }

/* Hands out tasks, and starts children for those that are left, or lends children. */
static void pump(mli_processes *p) {
  mli_child *c;
  while (p->queue && (c = idle_child(p))) {
    mli_task *task = take_task(p);
    if (begin(p, task)) give(c, task);
  }
  while (p->queue && p->alive < p->o.size && p->starting < p->queued) {
    if (mli_now() < p->next_start) {
      p->restart.fire = on_restart;
      mli_loop_timer_start(p->worker->loop, &p->restart, p->next_start);
      return;
    }
    int err = start_child(p);
    if (err) {
      cannot_start(p, err);
      if (p->alive > 0) return; /* they go on with it; a result, or an end, tries again */
    }
  }
  if (p->queue || p->closing || p->broken) return;
  for (c = p->children; c; c = c->next)
    if (c->state == MLI_CHILD_IDLE) lend(c);
}

void mli_processes_run(mli_processes *p, mli_task *task) {
  if (p->broken) {
    if (begin(p, task)) fail(p, task, mli_message_copy(p->broken), p->broken_traceback);
  } else {
    task->node.next = NULL;
    *p->last = &task->node;
    p->last = &task->node.next;
    p->queued++;
    pump(p);
  }
  atomic_fetch_sub(&p->posted, 1); /* now: P4 */
}

void mli_processes_cancel(mli_processes *p, mli_task *task) {
  (void)p;
  if (task->runner) kill_child(task->runner, SIGTERM, CANCELLED);
}

void mli_processes_cancel_all(mli_processes *p) {
  for (mli_node *n = p->queue; n; n = n->next)
    mli_future_cancel(&mli_container(n, mli_task, node)->future, NULL);
  while (p->queue) {
    mli_task *task = take_task(p);
    bool runs = begin(p, task);
    assert(!runs);
    (void)runs;
  }
  recall_all(p);
  for (mli_child *c = p->children; c; c = c->next)
    if (c->task) mli_future_cancel(&c->task->future, NULL); /* comes back as a message */
}

bool mli_processes_idle(mli_processes *p) {
  if (p->queue) return false;
  p->closing = true;
  mli_loop_timer_stop(p->worker->loop, &p->restart);
  recall_all(p);
  for (mli_child *c = p->children; c; c = c->next)
    if (c->state == MLI_CHILD_IDLE)
      end_child(c);
    else if (c->state == MLI_CHILD_STARTING)
      kill_child(c, SIGKILL, CANCELLED);
  return !p->children;
}

void mli_processes_init(mli_processes *p, const mli_processes_options *o) {
  *p = (mli_processes){ .o = *o };
  p->last = &p->queue;
}

void mli_processes_begin(mli_processes *p, mli_worker *w) { p->worker = w; }

void mli_processes_end(mli_processes *p) {
  assert(!p->children && !p->queue);
  mli_bytes_free(&p->scratch);
  mli_bytes_free(&p->draft);
  mli_message_free(p->broken);
  free(p->broken_traceback);
}

void mli_processes_each(mli_processes *p, void (*f)(void *user, mli_task *task, pid_t pid),
                        void *user) {
  recall_all(p);
  for (mli_child *c = p->children; c; c = c->next)
    if (c->task) f(user, c->task, c->pid);
  for (mli_node *n = p->queue; n; n = n->next) f(user, mli_container(n, mli_task, node), 0);
  pump(p); /* lends again */
}

unsigned mli_processes_count(const mli_processes *p) {
  unsigned n = 0;
  for (const mli_child *c = p->children; c; c = c->next) n++;
  return n;
}
