/* executor.c: executors of a C program: making, counting, ending. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "embed.h"
#include "lua/holdouts.h"

#define MOST_LOOPS 1024
#define MOST_SLICE (3600 * MLI_SECOND)
#define ANSWER_MS 50 /* for a thread to say where it is, at most */

/* ---- making ---- */

/* Copies the options, of this ABI or an older one. */
static ml_status read_options(ml_executor_options *o, const ml_executor_options *given) {
  memset(o, 0, sizeof *o);
  if (given) {
    if (given->size < MLE_SIZE_TO(ml_executor_options, user) || given->size > sizeof *o)
      return mle_fail(ML_MISUSE,
                      "ml_executor_new: options of %zu bytes: start with "
                      "ML_EXECUTOR_OPTIONS, and compile with the header of this library",
                      given->size);
    memcpy(o, given, given->size);
  }
  if (o->loops > MOST_LOOPS || o->workers > MOST_LOOPS)
    return mle_fail(ML_MISUSE, "ml_executor_new: more than %d threads", MOST_LOOPS);
  if (o->loops && o->workers)
    return mle_fail(ML_MISUSE, "ml_executor_new: either loops or workers");
  if ((o->uv_loop || o->driven) && (o->loops > 1 || o->workers))
    return mle_fail(ML_MISUSE, "ml_executor_new: an executor without threads has one loop");
  if (o->slice > MOST_SLICE)
    return mle_fail(ML_MISUSE, "ml_executor_new: a slice of more than %d s",
                    (int)(MOST_SLICE / MLI_SECOND));
  if (o->init && !strchr(o->init, ':'))
    return mle_fail(ML_MISUSE, "ml_executor_new: init '%s': \"module:function\" expected", o->init);
  if (!o->name) o->name = "host";
  return ML_OK;
}

static ml_status make(mli_executor **out, const ml_executor_options *o) {
  const lml_host host = { .new_state = o->new_state,
                          .close_state = o->close_state,
                          .alloc = o->alloc,
                          .memory_limit = o->memory_limit,
                          .on_error = o->on_error,
                          .blocked_after = o->blocked_after,
                          .slice = (unsigned)((o->slice + 999) / 1000),
                          .on_blocked = o->on_blocked,
                          .on_log = o->on_log,
                          .user = o->user };
  mli_message *init = NULL;
  if (o->init && !(init = mle_encode(NULL, o->init))) return ML_MEMORY;
  lml_outset *outset = lml_outset_new(&host, o->path, o->cpath, init);
  if (!outset) return ML_MEMORY;
  lml_report_open();
  lml_blocked_host();
  const mli_executor_options options = {
    .class = o->workers ? &lml_pool_class : &lml_loop_class,
    .name = o->name,
    .loops = o->workers == 0,
    .driven = o->driven || o->uv_loop,
    .size = o->workers ? o->workers
            : o->loops ? o->loops
                       : 1,
    .max_pending = o->max_pending,
    .idle_life = LML_IDLE_LIFE,
    .user = outset,
    .free_user = lml_outset_free,
  };
  return mli_executor_new(out, &options);
}

ml_status ml_executor_new(ml_executor **out, const ml_executor_options *options) {
  ml_executor_options o;
  if (!out) return mle_fail(ML_MISUSE, "ml_executor_new: NULL instead of a place for it");
  ml_status status = read_options(&o, options);
  if (status != ML_OK) return status;
  ml_executor *ex = calloc(1, sizeof *ex);
  if (!ex) return mle_fail(ML_MEMORY, "ml_executor_new: out of memory");
  status = make(&ex->core, &o);
  if (status != ML_OK) {
    free(ex);
    return status == ML_MEMORY
             ? mle_fail(status, "ml_executor_new: out of memory")
             : mle_fail(status, "ml_executor_new: cannot start its threads: %s", strerror(errno));
  }
  mli_executor_use(ex->core);
  if (ex->core->driven) mli_driven_begin(ex->core);
  if (o.uv_loop && (status = mle_guest_new(&ex->guest, ex->core, o.uv_loop)) != ML_OK) {
    mle_drive_to_end(ex->core, true, ML_FOREVER);
    mli_executor_leave(ex->core);
    mli_release(ex->core);
    free(ex);
    return mle_fail(status, "ml_executor_new: the libuv loop does not take it");
  }
  mle_init(&ex->handle, MLE_EXECUTOR);
  *out = ex;
  return ML_OK;
}

ml_executor *ml_executor_retain(ml_executor *ex) {
  if (ex && mle_check(ex, MLE_EXECUTOR, "ml_executor_retain")) mle_retain(ex);
  return ex;
}

void ml_executor_release(ml_executor *ex) {
  if (!ex || !mle_check(ex, MLE_EXECUTOR, "ml_executor_release") || !mle_release(ex)) return;
  if (mle_drives(ex->core) && !ex->guest) {
    if (mli_loop_self() == ex->core->workers[0]->loop)
      mli_executor_shutdown(ex->core, true); /* who steps it now brings it to its end */
    else
      mle_drive_to_end(ex->core, true, ML_FOREVER);
  }
  mli_executor_leave(ex->core);
  mli_release(ex->core);
  if (ex->guest) mle_guest_release(ex->guest);
  mle_free(ex);
}

/* ---- driving ---- */

bool mle_drives(const mli_executor *core) {
  return core->driven && pthread_equal(core->workers[0]->thread, pthread_self());
}

static bool check_driven(ml_executor *ex, const char *function) {
  if (!mle_check(ex, MLE_EXECUTOR, function)) return false;
  if (!ex->core->driven || ex->guest)
    mle_fail(ML_MISUSE, "%s: executor '%s' is not driven", function, ex->core->name);
  else if (!mle_drives(ex->core))
    mle_fail(ML_MISUSE, "%s: executor '%s' is driven by the thread that made it", function,
             ex->core->name);
  else
    return true;
  return false;
}

int ml_executor_fd(ml_executor *ex) {
  if (!check_driven(ex, "ml_executor_fd")) return -1;
  const mli_loop *loop = ex->core->workers[0]->loop;
  return loop->closed ? -1 : mli_loop_fd(loop);
}

int ml_executor_timeout(ml_executor *ex) {
  if (!check_driven(ex, "ml_executor_timeout")) return -1;
  const mli_loop *loop = ex->core->workers[0]->loop;
  return loop->closed ? -1 : mli_loop_timeout(loop);
}

ml_status ml_executor_step(ml_executor *ex) {
  if (!check_driven(ex, "ml_executor_step")) return ML_MISUSE;
  if (mli_loop_self() == ex->core->workers[0]->loop)
    return mle_fail(ML_BUSY, "ml_executor_step: executor '%s' is being stepped", ex->core->name);
  mle_retain(ex); /* what runs may release it */
  ml_status status = ML_OK;
  if (!mli_driven_step(ex->core))
    status = mle_fail(ML_CLOSED, "ml_executor_step: executor '%s' has ended", ex->core->name);
  ml_executor_release(ex);
  return status;
}

/* ---- ending ---- */

ml_status mle_drive_until(mli_executor *core, mli_future *f, uint64_t deadline) {
  ml_status status = mli_driven_wait(core, f, deadline);
  bool released = atomic_load(&core->users) == 0 && atomic_load(&core->cancel);
  if (released && mli_loop_self() != core->workers[0]->loop)
    mle_drive_to_end(core, true, ML_FOREVER);
  return status;
}

ml_status mle_drive_to_end(mli_executor *core, bool cancel, uint64_t deadline) {
  mli_executor_shutdown(core, cancel);
  return mli_future_settled(core->ended) ? ML_OK : mli_driven_wait(core, core->ended, deadline);
}

/* Records that the deadline passed, and which jobs are in the way; if it waits, where. */
static ml_status still_running(mli_executor *ex, bool wait) {
  char text[400];
  lml_holdouts(ex, "; ", wait ? ANSWER_MS : 0, text, sizeof text);
  return mle_fail(ML_TIMEOUT, "executor '%s' has jobs that did not stop%s%s", ex->name,
                  *text ? ":" : "", *text ? text + 1 : "");
}

static ml_status end_executor(ml_executor *ex, bool cancel, uint64_t deadline) {
  mli_executor *core = ex->core;
  mli_executor_shutdown(core, cancel);
  if (!mli_future_settled(core->ended)) {
    if (mle_must_not_wait())
      return mle_fail(ML_BUSY, "ml_executor_shutdown: a loop's thread cannot wait");
    const mli_worker *w = mli_worker_self();
    if (w && w->executor == core)
      return mle_fail(ML_BUSY,
                      "ml_executor_shutdown: the executor's own thread cannot wait for it");
    ml_status status = mle_drives(core) ? mle_drive_to_end(core, cancel, deadline)
                                        : mli_future_wait(core->ended, deadline);
    if (status == ML_TIMEOUT) return still_running(core, deadline != 0);
    if (status != ML_OK) return mle_fail(status, "ml_executor_shutdown: out of memory");
  }
  mli_executor_join(core);
  if (!mle_must_not_wait()) mli_watch_end(); /* unless there are other loops */
  if (ex->guest && mle_drives(core)) mle_guest_leave(ex->guest);
  return ML_OK;
}

ml_status ml_executor_shutdown(ml_executor *ex, bool cancel, uint64_t deadline) {
  if (!mle_check(ex, MLE_EXECUTOR, "ml_executor_shutdown")) return ML_MISUSE;
  mle_retain(ex); /* what runs meanwhile may release it */
  ml_status status = end_executor(ex, cancel, deadline);
  ml_executor_release(ex);
  return status;
}

/* ---- looking ---- */

ml_status ml_executor_stats(ml_executor *ex, ml_stats *stats) {
  if (!mle_check(ex, MLE_EXECUTOR, "ml_executor_stats")) return ML_MISUSE;
  if (!stats || stats->size < sizeof stats->size)
    return mle_fail(ML_MISUSE, "ml_executor_stats: set stats.size first");
  mli_totals t;
  mli_executor_totals(ex->core, &t);
  ml_stats all = { .size = stats->size,
                   .submitted = t.submitted,
                   .queued = t.queued,
                   .running = t.running,
                   .parked = t.parked,
                   .finished = t.finished,
                   .failed = t.failed,
                   .cancelled = t.cancelled,
                   .blocked = t.blocked,
                   .threads = t.threads };
  memcpy(stats, &all, stats->size < sizeof all ? stats->size : sizeof all);
  return ML_OK;
}
