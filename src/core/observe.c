/* observe.c: events and figures from what is told. */
#include "observe.h"

#include "stats.h"

mli_observed_job mli_observe_task(const mli_task *task) {
  return (mli_observed_job){ .lane = task->lane,
                             .line = task->line,
                             .name = task->name,
                             .chunk = task->chunk ? task->chunk->text : NULL,
                             .arrow = task->lane != 0 };
}

/* An event about the job. */
static void tell(const mli_observed_job *job, mli_trace_event event) {
  event.number = job->number;
  event.parent = job->parent;
  event.line = job->line;
  event.lane = job->lane;
  mli_trace_add(&event, job->name, job->chunk);
}

static void tell_slice(mli_trace_topic topic, uint64_t since, uint64_t until, uint32_t number,
                       const char *name) {
  mli_trace_event event = { .shape = MLI_TRACE_SLICE,
                            .topic = (uint8_t)topic,
                            .number = number,
                            .at = since,
                            .took = until - since };
  mli_trace_add(&event, name, NULL);
}

void mli_observe_submit(const mli_task *task) {
  if (!mli_tracing() || !task->lane) return;
  mli_observed_job job = mli_observe_task(task);
  tell(&job, (mli_trace_event){ .shape = MLI_TRACE_SLICE,
                                .topic = MLI_TRACE_SUBMIT,
                                .at = task->submitted_at,
                                .took = mli_now() - task->submitted_at });
}

void mli_observe_start(const mli_observed_job *job, uint64_t since, uint64_t now) {
  if (mli_observing() & MLI_OBSERVE_STATS) mli_histogram_add(&mli_stats_all.queued, now - since);
  if (!mli_tracing() || !job->lane) return;
  tell(job, (mli_trace_event){ .shape = MLI_TRACE_BEGIN,
                               .topic = MLI_TRACE_JOB,
                               .arrow = job->arrow,
                               .at = since,
                               .took = now - since });
  mli_trace_event queued = { .shape = MLI_TRACE_SPAN,
                             .topic = MLI_TRACE_QUEUED,
                             .at = since,
                             .took = now - since,
                             .lane = job->lane };
  mli_trace_add(&queued, NULL, NULL);
}

void mli_observe_again(const mli_observed_job *job, uint64_t now) {
  tell(job, (mli_trace_event){ .shape = MLI_TRACE_BEGIN, .topic = MLI_TRACE_JOB, .at = now });
}

static void count_run(const mli_observed_job *job, uint64_t took, bool blocked) {
  mli_histogram_add(job->threaded ? &mli_stats_all.tasks : &mli_stats_all.runs, took);
  if (job->threaded) return;
  if (blocked) mli_stats_count(&mli_stats_all.blocked);
  mli_stats_run_was(took, job->number, job->name, job->chunk, job->line);
}

void mli_observe_run(const mli_observed_job *job, uint64_t began, uint64_t limit) {
  uint64_t took = mli_now() - began;
  bool blocked = limit && took >= limit;
  if (mli_observing() & MLI_OBSERVE_STATS) count_run(job, took, blocked);
  if (!mli_tracing()) return;
  mli_trace_event event = {
    .shape = MLI_TRACE_SLICE, .topic = MLI_TRACE_JOB, .at = began, .took = took
  };
  tell(job, event);
  if (!blocked) return;
  event.topic = MLI_TRACE_BLOCKED;
  tell(job, event);
}

void mli_observe_far_run(const mli_task *task, uint64_t lane, uint64_t began) {
  mli_observed_job job = mli_observe_task(task);
  job.lane = lane;
  tell(&job, (mli_trace_event){ .shape = MLI_TRACE_SLICE,
                                .topic = MLI_TRACE_JOB,
                                .state = (uint8_t)mli_future_state(&task->future),
                                .arrow = true,
                                .at = began,
                                .took = mli_now() - began });
}

void mli_observe_park(const mli_observed_job *job, const char *what, uint64_t since) {
  if (!mli_tracing()) return;
  mli_trace_event event = { .shape = MLI_TRACE_SPAN,
                            .topic = MLI_TRACE_WAIT,
                            .at = since,
                            .took = mli_now() - since,
                            .lane = job->lane };
  mli_trace_add(&event, what, NULL);
}

void mli_observe_end(const mli_observed_job *job, mli_state state, bool begun) {
  if (mli_observing() & MLI_OBSERVE_STATS)
    mli_stats_count(&mli_stats_all.settled[state - MLI_FINISHED]);
  if (!begun || !mli_tracing() || !job->lane) return;
  tell(job, (mli_trace_event){ .shape = MLI_TRACE_END,
                               .topic = MLI_TRACE_JOB,
                               .state = (uint8_t)state,
                               .at = mli_now() });
}

/* A child's begin is told only now, for another thread may have given it the task: a lane is
** told of by one. */
void mli_observe_settle(const mli_task *task, mli_state state) {
  const mli_executor *ex = task->executor;
  mli_observed_job job = mli_observe_task(task);
  if (ex->loops && !ex->class->far) return;
  job.threaded = !ex->loops;
  if (!job.threaded) job.arrow = false; /* the child has the slice that it points to */
  if (task->begun_at && job.threaded) mli_observe_run(&job, task->begun_at, 0);
  if (task->begun_at && !job.threaded) mli_observe_start(&job, task->submitted_at, task->begun_at);
  mli_observe_end(&job, state, task->begun_at != 0);
}

void mli_observe_wait(const char *what, uint64_t since) {
  if (mli_tracing()) tell_slice(MLI_TRACE_WAIT, since, mli_now(), 0, what);
}

void mli_observe_calls(uint64_t since) {
  if (mli_tracing()) tell_slice(MLI_TRACE_CALLS, since, mli_now(), 0, NULL);
}

void mli_observe_held(const char *who, const char *where) {
  if (!mli_tracing()) return;
  mli_trace_event event = { .shape = MLI_TRACE_INSTANT,
                            .topic = MLI_TRACE_BLOCKED,
                            .at = mli_now() };
  mli_trace_add(&event, who, where);
}

void mli_observe_gc_step(uint64_t since, size_t kib) {
  uint64_t now = mli_now();
  if (mli_observing() & MLI_OBSERVE_STATS) mli_histogram_add(&mli_stats_all.steps, now - since);
  if (mli_tracing()) tell_slice(MLI_TRACE_GC, since, now, (uint32_t)kib, "step");
}

void mli_observe_gc_cycle(void) {
  if (mli_observing() & MLI_OBSERVE_STATS) mli_stats_count(&mli_stats_all.cycles);
  if (!mli_tracing()) return;
  mli_trace_event event = { .shape = MLI_TRACE_INSTANT, .topic = MLI_TRACE_GC, .at = mli_now() };
  mli_trace_add(&event, "cycle", NULL);
}
