/* children.c: the life of a child: its start, what comes from it, its end. */
#include "children.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
#include "output.h"
#include "trace.h"

#define FREE_LOSSES 3       /* children that may be lost before it takes patience */
#define MOST_FALSE_STARTS 3 /* then whoever waits is told */
#define LONGEST_DELAY (2 * MLI_SECOND)
#define HUNG_UP_GRACE (100 * MLI_MILLISECOND)

/* ---- children that are lent ---- */

void mli_child_lend(mli_child *c) {
  mli_processes *p = c->pool;
  c->state = MLI_CHILD_LENT;
  mli_lock_acquire(&p->lock);
  c->next_lent = p->lent;
  p->lent = c;
  mli_lock_release(&p->lock);
}

void mli_child_recall(mli_child *c) {
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

void mli_children_recall(mli_processes *p) {
  for (mli_child *c = p->children; c; c = c->next) mli_child_recall(c);
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
  if (which != MLI_SOCKET) close(c->fds[which]); /* the socket is the link's */
  c->fds[which] = -1;
  uv_close(handle, on_handle_closed);
}

/* It is no longer one of those that work. */
static void leave_alive(mli_child *c) {
  if (c->state == MLI_CHILD_STARTING) c->pool->starting--;
  if (c->state < MLI_CHILD_ENDING) c->pool->alive--;
}

void mli_child_describe(mli_child *c, const mli_child_end *end, char *text, size_t size) {
  const char *name = c->pool->worker->executor->name, *how = "ended";
  char detail[128] = "";
  if (c->reason == MLI_HUNG_UP)
    how = "closed its connection and was killed";
  else if (c->reason == MLI_DAMAGED)
    how = "sent what makes no sense and was killed";
  else if (c->reason == MLI_UNFIT)
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
  mli_processes_count_running(p, -1);
  char text[256];
  mli_message *error = NULL;
  if (c->reason == MLI_CANCELLED) {
    mli_processes_settle(p, task, (mli_verdict){ .state = MLI_STOPPED });
    return;
  }
  if (c->reason == MLI_TIMED_OUT) {
    snprintf(text, sizeof text, "job '%s' ran longer than its timeout",
             task->name[0] ? task->name : "job");
    error = p->o.hooks->error(p, "timeout", text, NULL);
  } else {
    mli_child_describe(c, end, text, sizeof text);
    error = p->o.hooks->error(p, "crashed", text, end);
    p->losses++;
  }
  mli_processes_fail(p, task, error, NULL);
}

static uint64_t patience(unsigned times) {
  uint64_t delay = MLI_FIRST_DELAY;
  while (times-- > 0 && delay < LONGEST_DELAY) delay *= 2;
  return delay < LONGEST_DELAY ? delay : LONGEST_DELAY;
}

/* It ended before it was ready. */
static void note_false_start(mli_child *c, const mli_child_end *end) {
  mli_processes *p = c->pool;
  char text[384];
  p->false_starts++;
  p->next_start = mli_now() + patience(p->false_starts);
  if (p->false_starts < MOST_FALSE_STARTS && c->reason != MLI_UNFIT) return;
  mli_child_describe(c, end, text, sizeof text);
  mli_message *error = p->o.hooks->error(p, "crashed", text, end);
  if (c->reason == MLI_UNFIT) {
    mli_processes_give_up(p, error, NULL);
  } else { /* what is the matter may pass: the next submit tries again */
    mli_line_fail(p, &p->queue, error, NULL);
    p->queued = 0;
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
  mli_child_recall(c);
  if (c->fds[MLI_SOCKET] >= 0) read_packets(c, true); /* its last words */
  if (!mli_child_reap(c->pid, block, &end)) return;
  for (int i = MLI_STDOUT; i <= MLI_STDERR; i++) read_output(c, i, true);
  leave_alive(c);
  mli_trace_process_ended(c->pid);
  c->state = MLI_CHILD_GONE;
  mli_loop_timer_stop(p->worker->loop, &c->deadline);
  settle_lost(c, &end);
  mli_seats_end(c, &end);
  if (!c->ready && !p->broken && !p->closing) note_false_start(c, &end);
  if (p->losses > FREE_LOSSES) p->next_start = mli_now() + patience(p->losses - FREE_LOSSES - 1);
  c->open++; /* until this is done */
  for (int i = 0; i < MLI_CHILD_HANDLES; i++) close_handle(c, i);
  if (--c->open == 0) child_free(c);
  mli_processes_pump(p);
}

static void on_deadline(mli_timer *timer);

void mli_child_limit(mli_child *c, uint64_t ns) {
  c->deadline.fire = on_deadline;
  mli_loop_timer_start(c->pool->worker->loop, &c->deadline, mli_now() + ns);
}

void mli_child_kill(mli_child *c, int number, mli_reason why) {
  mli_child_recall(c);
  if (c->state == MLI_CHILD_GONE || (c->state == MLI_CHILD_ENDING && c->reason != MLI_NO_REASON))
    return;
  leave_alive(c);
  c->state = MLI_CHILD_ENDING;
  c->reason = why;
  mli_child_signal(c->pid, number);
  if (number != SIGKILL) mli_child_limit(c, c->pool->o.grace);
}

void mli_child_finish(mli_child *c) {
  leave_alive(c);
  c->state = MLI_CHILD_ENDING;
  mli_link_send(&c->link, MLI_END, 0, NULL, 0);
  mli_child_limit(c, c->pool->o.grace);
}

void mli_child_retire(mli_child *c) {
  uint64_t most = c->pool->o.max_jobs;
  if (!most || c->jobs < most || c->held > 0 || c->own.first) return;
  mli_child_recall(c);
  if (c->state == MLI_CHILD_IDLE) mli_child_finish(c);
}

static void on_deadline(mli_timer *timer) {
  mli_child *c = mli_container(timer, mli_child, deadline);
  if (c->state == MLI_CHILD_BUSY) {
    mli_child_kill(c, SIGTERM, MLI_TIMED_OUT);
  } else { /* it was to end by itself */
    if (c->fds[MLI_SOCKET] < 0 && c->reason == MLI_NO_REASON) c->reason = MLI_HUNG_UP;
    mli_child_signal(c->pid, SIGKILL);
  }
}

/* ---- what comes from children ---- */

static void on_ready(mli_child *c, const mli_packet *packet) {
  mli_processes *p = c->pool;
  if (c->state != MLI_CHILD_STARTING) return;
  if (!p->o.hooks->ready(p, packet, &c->unfit)) {
    mli_child_kill(c, SIGKILL, MLI_UNFIT);
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
    mli_child_kill(c, SIGKILL, MLI_DAMAGED);
    return;
  }
  c->ready = true;
  mli_processes_give_up(p, v.outcome, v.traceback);
  mli_child_finish(c);
}

static void on_result(mli_child *c, const mli_packet *packet) {
  mli_processes *p = c->pool;
  mli_verdict v = { .state = MLI_FAILED };
  mli_task *task = c->task;
  if (!task || packet->id != c->jobs) return;
  if (!p->o.hooks->result(p, c->user, packet, &v)) {
    mli_child_kill(c, SIGKILL, MLI_DAMAGED);
    return;
  }
  c->task = NULL;
  task->runner = NULL;
  p->losses = 0;
  mli_processes_count_running(p, -1);
  if (c->state == MLI_CHILD_BUSY) {
    mli_loop_timer_stop(p->worker->loop, &c->deadline);
    c->state = MLI_CHILD_IDLE;
    mli_child_retire(c);
  }
  mli_processes_pump(p); /* first: who waits for the outcome may have the next task ready */
  mli_processes_settle(p, task, v);
}

_Static_assert(MLI_TRACE_CHUNK + 1024 < MLI_LINK_LONG, "a result may follow at once: K1 of link.h");

/* What it did in its task. */
static void on_trace(mli_child *c, const mli_packet *packet) {
  const char *name = c->pool->worker->executor->name;
  if (mli_tracing() && !mli_trace_unpack(c->pid, name, packet->bytes, packet->size))
    mli_child_kill(c, SIGKILL, MLI_DAMAGED);
}

static void on_memory(mli_child *c, const mli_packet *packet) {
  mli_task *task = c->task;
  if (packet->type != MLI_RESULT || !task) return;
  c->task = NULL;
  task->runner = NULL;
  mli_processes_count_running(c->pool, -1);
  if (c->state == MLI_CHILD_BUSY) {
    mli_loop_timer_stop(c->pool->worker->loop, &c->deadline);
    c->state = MLI_CHILD_IDLE;
  }
  mli_processes_settle(c->pool, task, (mli_verdict){ .state = MLI_FAILED, .status = ML_MEMORY });
}

/* Its socket has ended. So has the process, mostly: then how it did will be known at once. */
static void hang_up(mli_child *c) {
  close_handle(c, MLI_SOCKET);
  leave_alive(c);
  c->state = MLI_CHILD_ENDING;
  if (c->fds[MLI_ENDED] < 0) {
    mli_child_signal(c->pid, SIGKILL);
    child_gone(c, true);
  } else if (c->reason == MLI_NO_REASON) {
    mli_child_limit(c, HUNG_UP_GRACE);
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
    else if (packet.type == MLI_TRACE)
      on_trace(c, &packet);
    if (c->state == MLI_CHILD_IDLE) mli_processes_pump(c->pool);
  } while (all || mli_link_any(&c->link));
  if (status == ML_CLOSED && c->fds[MLI_SOCKET] >= 0 && c->state != MLI_CHILD_GONE) hang_up(c);
}

static void on_socket(uv_poll_t *poll, int status, int events);

void mli_child_watch(mli_child *c) {
  bool listen = c->link.out.size > 0;
  int events = UV_READABLE | (listen ? UV_WRITABLE : 0);
  if (listen == c->listening && uv_is_active((uv_handle_t *)&c->handles[MLI_SOCKET])) return;
  c->listening = listen;
  int err = uv_poll_start(&c->handles[MLI_SOCKET], events, on_socket);
  assert(err == 0);
  (void)err;
}

static void on_socket(uv_poll_t *poll, int status, int events) {
  mli_child *c = poll->data;
  (void)status;
  mli_child_recall(c);
  if ((events & UV_WRITABLE) && mli_link_flush(&c->link) != ML_CLOSED) mli_child_watch(c);
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
  line_of l = { c, which - MLI_STDOUT + 1 };
  for (int i = 0; i < (all ? 8 : 1) && c->fds[which] >= 0; i++)
    if (!mli_output_read(c->fds[which], &c->partial[which - MLI_STDOUT], on_line, &l))
      close_handle(c, which);
}

static void on_output(uv_poll_t *poll, int status, int events) {
  mli_child *c = poll->data;
  (void)status, (void)events;
  read_output(c, poll == &c->handles[MLI_STDOUT] ? MLI_STDOUT : MLI_STDERR, false);
}

/* ---- starting children ---- */

static void watch(mli_child *c, int which, int fd, uv_poll_cb f) {
  c->fds[which] = fd;
  if (fd < 0) return;
  int err = uv_poll_init(&c->pool->worker->loop->uv, &c->handles[which], fd);
  assert(err == 0); /* it is a descriptor that can be polled */
  c->handles[which].data = c;
  c->open++;
  if (f) err = uv_poll_start(&c->handles[which], UV_READABLE, f);
  assert(err == 0);
  (void)err;
}

int mli_child_add(mli_processes *p) {
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
  mli_line_init(&c->own);
  c->pid = pipes.pid;
  c->state = MLI_CHILD_STARTING;
  mli_link_init(&c->link, pipes.socket);
  watch(c, MLI_SOCKET, pipes.socket, NULL);
  watch(c, MLI_ENDED, pipes.ended, on_ended);
  for (int i = 0; i < 2; i++) watch(c, MLI_STDOUT + i, pipes.output[i], on_output);
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
    mli_child_kill(c, SIGKILL, MLI_UNFIT);
  mli_child_watch(c);
  return 0;
}
