/* future.c: futures of a C program: asking, waiting, reading. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "embed.h"

/* ---- making, counting ---- */

ml_future *mle_future_wrap(mli_future *core, mli_executor *ex) {
  ml_future *f = calloc(1, sizeof *f);
  if (!f) {
    mli_release(core);
    return NULL;
  }
  mle_init(&f->handle, MLE_FUTURE);
  f->core = core;
  if (ex && ex->driven) f->ex = mli_retain(ex);
  return f;
}

ml_future *ml_future_retain(ml_future *f) {
  if (f && mle_check(f, MLE_FUTURE, "ml_future_retain")) mle_retain(f);
  return f;
}

const char *ml_future_name(ml_future *f) {
  if (!mle_check(f, MLE_FUTURE, "ml_future_name")) return "";
  if (f->core->object.type != &mli_task_type) return "";
  return mli_container(f->core, mli_task, future)->name;
}

/* Tells the host of the executor about a failure that nobody asked for. The core's own
** report needs a Lua state on this thread to show the error. */
static void report(ml_future *f) {
  if (f->core->object.type != &mli_task_type) return;
  const mli_task *task = mli_container(f->core, mli_task, future);
  const lml_host *host = lml_host_of(task->executor);
  if (!host || !host->on_error) return;
  char where[MLI_WHERE_MAX + 16] = "";
  if (task->line) snprintf(where, sizeof where, "%s:%u", mli_task_chunk(task), task->line);
  const char *error = ml_future_error(f); /* observes it */
  const ml_report r = { sizeof r,
                        "job",
                        task->name[0] ? task->name : NULL,
                        error ? error : "?",
                        f->core->traceback,
                        where[0] ? where : NULL };
  host->on_error(&r, host->user);
}

void ml_future_release(ml_future *f) {
  if (!f || !mle_check(f, MLE_FUTURE, "ml_future_release") || !mle_release(f)) return;
  if (mli_future_state(f->core) == MLI_FAILED && !atomic_load(&f->core->observed) &&
      atomic_load(&f->core->object.refs) == 1)
    report(f);
  ml_values_free(f->error);
  mli_release(f->core);
  if (f->ex) mli_release(f->ex);
  mle_free(f);
}

/* ---- how it stands ---- */

ml_status mle_future_status(const mli_future *core) {
  switch (mli_future_state(core)) {
  case MLI_FINISHED: return ML_OK;
  case MLI_FAILED: return core->outcome ? ML_FAILED : (ml_status)core->status;
  case MLI_STOPPED: return ML_JOB_CANCELLED;
  default: return ML_BUSY;
  }
}

/* The same for the last error. */
static ml_status tell(ml_future *f) {
  ml_status status = mle_future_status(f->core);
  if (status == ML_OK) return status;
  mli_future_observe(f->core);
  const char *error = status == ML_BUSY ? "not settled" : ml_future_error(f);
  return mle_fail(status, "job '%s': %s", ml_future_name(f), error ? error : "?");
}

ml_status ml_future_peek(ml_future *f) {
  if (!mle_check(f, MLE_FUTURE, "ml_future_peek")) return ML_MISUSE;
  return tell(f);
}

ml_status ml_future_wait(ml_future *f, uint64_t deadline) {
  if (!mle_check(f, MLE_FUTURE, "ml_future_wait")) return ML_MISUSE;
  if (!mli_future_settled(f->core)) {
    if (mle_must_not_wait())
      return mle_fail(ML_BUSY, "ml_future_wait: this thread runs a loop, which must not wait");
    ml_status status = f->ex && mle_drives(f->ex) ? mle_drive_until(f->ex, f->core, deadline)
                                                  : mli_future_wait(f->core, deadline);
    if (status != ML_OK)
      return mle_fail(status, "ml_future_wait: %s waiting for job '%s'",
                      status == ML_TIMEOUT ? "timeout" : "out of memory", ml_future_name(f));
  }
  return tell(f);
}

ml_status ml_future_cancel(ml_future *f, const char *reason) {
  if (!mle_check(f, MLE_FUTURE, "ml_future_cancel")) return ML_MISUSE;
  mli_message *message = NULL;
  if (reason) {
    ml_values *v = ml_values_new();
    ml_values_add_text(v, reason);
    message = v ? mle_encode(v, NULL) : NULL;
    ml_values_free(v);
    if (!message) return mle_fail(ML_MEMORY, "ml_future_cancel: out of memory");
  }
  if (mli_future_cancel(f->core, message)) return ML_OK;
  return mle_fail(ML_CLOSED, "ml_future_cancel: job '%s' has ended", ml_future_name(f));
}

/* ---- callbacks ---- */

typedef struct callback {
  mli_watcher watcher;
  ml_future *future; /* a reference */
  void (*done)(ml_future *future, void *user);
  void *user;
} callback;

static void fired(mli_watcher *watcher) {
  callback *c = mli_container(watcher, callback, watcher);
  c->done(c->future, c->user);
  ml_future_release(c->future);
  free(c);
}

ml_status ml_future_on_done(ml_future *f, void (*done)(ml_future *future, void *user), void *user) {
  if (!mle_check(f, MLE_FUTURE, "ml_future_on_done")) return ML_MISUSE;
  if (!done) return mle_fail(ML_MISUSE, "ml_future_on_done: a function expected, got NULL");
  callback *c = malloc(sizeof *c);
  if (!c) return mle_fail(ML_MEMORY, "ml_future_on_done: out of memory");
  *c = (callback){ { .fired = fired }, ml_future_retain(f), done, user };
  if (!mli_future_watch(f->core, &c->watcher)) fired(&c->watcher);
  return ML_OK;
}

/* ---- values and errors, in C ---- */

ml_status ml_future_values(ml_future *f, ml_values **out) {
  if (!mle_check(f, MLE_FUTURE, "ml_future_values")) return ML_MISUSE;
  if (!out) return mle_fail(ML_MISUSE, "ml_future_values: NULL instead of a place for them");
  if (!mli_future_settled(f->core)) return tell(f);
  mli_future_observe(f->core);
  ml_values *v = mle_decode(f->core->outcome);
  if (!v) return mle_fail(ML_MEMORY, "ml_future_values: out of memory");
  *out = v;
  return tell(f);
}

static const char *status_text(ml_status status) {
  switch (status) {
  case ML_JOB_CANCELLED: return "the job was cancelled";
  case ML_CLOSED: return "the executor was shut down before the job could run";
  case ML_MEMORY: return "not enough memory";
  case ML_ABANDONED: return "the promise was dropped unsettled";
  default: return ml_status_name(status);
  }
}

/* The words for an error value of Lua. */
static const char *value_text(ml_values *v, const ml_value *value) {
  static const char *const names[] = { [ML_NONE] = "no error value",
                                       [ML_NIL] = "nil",
                                       [ML_TABLE] = "(a table)",
                                       [ML_POINTER] = "(a light userdata)",
                                       [ML_OTHER] = "(a value that C cannot read)" };
  const char *text = ml_value_string(value, NULL);
  if (!text) text = ml_value_string(ml_value_field(value, "message"), NULL);
  if (!text) text = ml_value_string(ml_value_field(value, "code"), NULL);
  if (text) return text;
  char *number;
  switch (ml_value_type(value)) {
  case ML_BOOLEAN: return ml_value_boolean(value) ? "true" : "false";
  case ML_INTEGER:
    if ((number = mle_values_alloc(v, 32)))
      snprintf(number, 32, "%lld", (long long)ml_value_integer(value));
    return number ? number : "(an integer)";
  case ML_NUMBER:
    if ((number = mle_values_alloc(v, 32))) snprintf(number, 32, "%.14g", ml_value_number(value));
    return number ? number : "(a number)";
  default: return names[ml_value_type(value)];
  }
}

/* Of a cancelled one: why, if that was said. */
static void read_reason(ml_future *f) {
  ml_values *v = f->core->reason ? mle_decode(f->core->reason) : NULL;
  if (!v) return;
  f->error = v;
  const char *reason = value_text(v, ml_values_at(v, 0));
  size_t size = strlen(f->text) + strlen(reason) + sizeof ": ";
  char *text = mle_values_alloc(v, size);
  if (!text) return;
  snprintf(text, size, "%s: %s", f->text, reason);
  f->text = text;
}

/* Under the lock: reads the error once. */
static void read_error(ml_future *f) {
  if (f->text) return;
  ml_status status = mle_future_status(f->core);
  f->text = status_text(status);
  f->code = ml_status_name(status);
  if (status == ML_JOB_CANCELLED) read_reason(f);
  if (status != ML_FAILED) return;
  ml_values *v = mle_decode(f->core->outcome);
  if (!v) return;
  const ml_value *value = ml_values_at(v, 0);
  f->error = v;
  const char *code = ml_value_string(ml_value_field(value, "code"), NULL);
  if (code) f->code = code;
  f->text = value_text(v, value);
}

static const char *error_part(ml_future *f, const char *function, bool code) {
  if (!mle_check(f, MLE_FUTURE, function)) return NULL;
  mli_state state = mli_future_state(f->core);
  if (state != MLI_FAILED && state != MLI_STOPPED) return NULL;
  mli_future_observe(f->core);
  mli_lock_acquire(&f->lock);
  read_error(f);
  const char *part = code ? f->code : f->text;
  mli_lock_release(&f->lock);
  return part;
}

const char *ml_future_error(ml_future *f) { return error_part(f, "ml_future_error", false); }

const char *ml_future_code(ml_future *f) { return error_part(f, "ml_future_code", true); }

const char *ml_future_traceback(ml_future *f) {
  if (!mle_check(f, MLE_FUTURE, "ml_future_traceback")) return NULL;
  return mli_future_state(f->core) == MLI_FAILED ? f->core->traceback : NULL;
}
