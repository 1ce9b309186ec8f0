/*
** process_worker.c: ProcessExecutor, the child's side: one Lua state on the main thread,
** which takes tasks from a socket as a pool's worker takes them from a queue, until the
** parent says that it is enough, or is gone.
*/
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "core/observe.h"
#include "core/system.h"
#include "processes.h"
#include "worker.h"

typedef struct child {
  mli_link link;
  lml_shipping shipping;
  /* From the hello. */
  char *name;
  uint64_t memory_limit;
  lua_Number cpu_limit;
  lml_outset *outset; /* until the executor has it */
  mli_executor *executor;
  mli_worker *worker;
  uint64_t lane; /* of the task, in the parent's trace; 0: that is off */
  mli_bytes out;
} child;

/* ---- limits ---- */

static void limit_memory(uint64_t bytes) {
  struct rlimit limit = { bytes, bytes };
  if (bytes == 0) return;
  if (setrlimit(RLIMIT_AS, &limit) != 0)
    fprintf(stderr, "moonloop: cannot set the memory limit: %s\n", strerror(errno));
}

/* The next task may use so many seconds; then comes SIGXCPU. The system counts whole ones. */
static void limit_cpu(lua_Number seconds) {
  struct rusage used;
  struct rlimit limit;
  if (seconds <= 0 || getrusage(RUSAGE_SELF, &used) != 0 || getrlimit(RLIMIT_CPU, &limit) != 0)
    return;
  lua_Number so_far = (lua_Number)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                      (lua_Number)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
  limit.rlim_cur = (rlim_t)ceil(so_far + seconds);
  if (limit.rlim_cur > limit.rlim_max) limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_CPU, &limit);
}

/* ---- the hello ---- */

static bool read_outset(child *c, const mli_packet *packet) {
  mli_reader r = { packet->bytes, packet->bytes + packet->size, false };
  lml_outset *o = c->outset;
  char *version = mli_get_string(&r);
  bool same = version && strcmp(version, LML_PROCESSES_VERSION) == 0;
  free(version);
  if (!same) return false;
  c->name = mli_get_string(&r);
  c->memory_limit = mli_get_u64(&r);
  const unsigned char *cpu = mli_get(&r, sizeof c->cpu_limit);
  if (cpu) memcpy(&c->cpu_limit, cpu, sizeof c->cpu_limit);
  o->path = mli_get_string(&r);
  o->cpath = mli_get_string(&r);
  return lml_unship_whole(&c->shipping, &r, &o->preload) &&
         lml_unship_whole(&c->shipping, &r, &o->init) && c->name && o->path && o->cpath;
}

static bool send_packet(child *c, uint32_t type, uint64_t id) {
  struct iovec part = { c->out.data, c->out.size };
  return !c->out.failed && mli_link_send(&c->link, type, id, &part, 1) == ML_OK;
}

static void begin_packet(child *c) {
  c->out.size = 0;
  c->out.failed = false;
}

/* ---- tasks ---- */

/* Sends how it ended. The bytes of the outcome go straight from where they are. */
static bool send_outcome(child *c, uint32_t type, uint64_t id, const mli_future *f) {
  const mli_message *outcome = f->outcome;
  fflush(NULL); /* what it printed comes before its result */
  begin_packet(c);
  mli_put_u8(&c->out, (uint8_t)mli_future_state(f));
  mli_put_u8(&c->out, f->status);
  mli_put_string(&c->out, f->traceback);
  mli_put_u8(&c->out, outcome != NULL);
  if (outcome) lml_ship(&c->shipping, outcome, &c->out);
  if (c->out.failed) return false;
  struct iovec parts[] = { { c->out.data, c->out.size }, { 0 } };
  if (outcome) parts[1] = (struct iovec){ (void *)outcome->bytes, outcome->size };
  return mli_link_send(&c->link, type, id, parts, outcome ? 2 : 1) == ML_OK;
}

static bool send_memory(child *c, uint64_t id) {
  begin_packet(c);
  mli_put_u8(&c->out, MLI_FAILED);
  mli_put_u8(&c->out, ML_MEMORY);
  mli_put_string(&c->out, NULL);
  mli_put_u8(&c->out, false);
  return send_packet(c, MLI_RESULT, id);
}

/* ---- the trace: of the parent, as long as its tasks are traced ---- */

static void follow_trace(const child *c) {
  if (c->lane != 0 && !mli_tracing()) mli_trace_start(MLI_TRACE_LEAST);
  if (c->lane == 0 && mli_tracing()) mli_trace_stop();
}

/* Has what happened here since the last time go out with the next packet. */
static bool add_trace(child *c) {
  mli_link_hold(&c->link);
  for (begin_packet(c); mli_trace_pack(&c->out); begin_packet(c))
    if (!send_packet(c, MLI_TRACE, 0)) return false;
  return true;
}

/* Runs it as a pool's worker does; its future is for the answer. Takes over the task. */
static bool run(child *c, mli_task *task, uint32_t type, uint64_t id) {
  uint64_t began = c->lane != 0 ? mli_now() : 0;
  mli_object_retain(&task->future.object);
  c->executor->class->run(c->worker, task);
  mli_future_observe(&task->future);
  if (began) mli_observe_far_run(task, c->lane, began);
  bool sent = (!began || add_trace(c)) && send_outcome(c, type, id, &task->future) &&
              mli_link_flush(&c->link) == ML_OK;
  mli_release(&task->future);
  return sent;
}

/* The task of a packet, or NULL: there is no memory. */
static mli_task *read_task(child *c, const mli_packet *packet) {
  mli_reader r = { packet->bytes, packet->bytes + packet->size, false };
  mli_task *task = mli_task_new(c->executor, NULL);
  if (!task) return NULL;
  char *name = mli_get_string(&r);
  if (name) snprintf(task->name, sizeof task->name, "%s", name);
  task->line = mli_get_u32(&r);
  char *chunk = mli_get_string(&r);
  if (chunk) task->chunk = mli_text_new(chunk);
  c->lane = mli_get_u64(&r);
  free(name);
  free(chunk);
  if (lml_unship_whole(&c->shipping, &r, &task->context))
    task->payload = lml_unship(&c->shipping, &r, true);
  if (task->payload) return task;
  mli_release(&task->future);
  return NULL;
}

/* Takes tasks until there are no more. False: the parent is gone. */
static bool serve(child *c) {
  mli_packet packet;
  for (;;) {
    ml_status status = mli_link_receive(&c->link, &packet);
    if (status == ML_CLOSED) return false;
    if (packet.type == MLI_END) return true;
    if (packet.type != MLI_JOB) continue;
    mli_task *task = status == ML_OK ? read_task(c, &packet) : NULL;
    if (task) limit_cpu(c->cpu_limit);
    if (task) follow_trace(c);
    bool sent = task ? run(c, task, MLI_RESULT, packet.id) : send_memory(c, packet.id);
    if (!sent) return false;
  }
}

/* ---- life ---- */

/* What the parent says first. False: it is no parent of ours, or of another version. */
static bool read_hello(child *c) {
  mli_packet packet;
  if (mli_link_receive(&c->link, &packet) != ML_OK || packet.type != MLI_HELLO) {
    fprintf(stderr, "moonloop: " LML_WORKER_OPTION " is for processes that moonloop starts\n");
    return false;
  }
  return read_outset(c, &packet);
}

/* Tells the parent that it can begin, and which version this is. */
static bool say_ready(child *c) {
  begin_packet(c);
  mli_put_string(&c->out, LML_PROCESSES_VERSION);
  return send_packet(c, MLI_READY, 0);
}

/* The worker, and whether its init let it live. Takes over the outset. */
static bool open_worker(child *c) {
  mli_executor_options options = {
    .class = &lml_pool_class,
    .name = c->name,
    .size = 1,
    .user = c->outset,
    .free_user = lml_outset_free,
  };
  c->outset = NULL;
  if (mli_executor_new(&c->executor, &options) != ML_OK) return false;
  c->worker = mli_executor_adopt(c->executor);
  if (!c->worker) return false;
  c->executor->class->open(c->worker);
  lml_state *S = c->worker->user;
  if (!S) return false;
  S->far = true;
  if (!S->broken) return true;
  mli_task *task = mli_task_new(c->executor, NULL); /* it fails as every other would */
  if (task) run(c, task, MLI_BROKEN, 0);
  return false;
}

/* From the hello to the end. True: it ended because the parent said so. */
static bool live(child *c) {
  c->outset = calloc(1, sizeof *c->outset);
  if (!c->outset) return false;
  if (!read_hello(c)) {
    say_ready(c); /* the parent refuses another version, and says which */
    return false;
  }
  mli_thread_name(c->name);
  limit_memory(c->memory_limit);
  mli_trace_be_far();
  lml_context_number_from((unsigned long long)getpid() << 32);
  lml_host_enter();
  bool asked = open_worker(c) && say_ready(c) && serve(c);
  if (c->worker && c->worker->user) c->executor->class->close(c->worker);
  lml_host_leave();
  return asked;
}

int lml_worker_main(int socket) {
  child c = { 0 };
  mli_process_ends_with_parent();
  mli_process_closes_from(socket + 1); /* of the host, not ours */
  setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
  mli_link_init(&c.link, socket);
  bool asked = live(&c);
  if (c.executor) mli_release(c.executor);
  if (c.outset) lml_outset_free(c.outset);
  free(c.name);
  mli_bytes_free(&c.out);
  lml_shipping_fini(&c.shipping);
  mli_link_fini(&c.link);
  fflush(NULL);
  return asked ? EXIT_SUCCESS : EXIT_FAILURE;
}
