/*
** holdouts.c: what keeps an executor from ending. A loop that rests lists its jobs on its own
** thread; of one that computes or is blocked, and of a pool's worker, it is known what it runs
** (spot.h).
*/
#include "holdouts.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "processes.h"
#include "state.h"

#define POLL_MS 5
#define ROOM 2048

/* What a loop is asked, and its answer. */
typedef struct question {
  mli_node node;
  mli_future *answered;
  atomic_int refs;       /* the loop's and the asker's */
  const char *separator; /* static */
  size_t size;
  char text[ROOM];
} question;

static void release(question *q) {
  if (!q || atomic_fetch_sub(&q->refs, 1) > 1) return;
  if (q->answered) mli_release(q->answered);
  free(q);
}

static question *question_new(const char *separator) {
  question *q = calloc(1, sizeof *q);
  if (!q) return NULL;
  atomic_init(&q->refs, 1);
  q->separator = separator;
  if ((q->answered = mli_future_new())) return q;
  free(q);
  return NULL;
}

/* ---- on the loop's thread ---- */

/* Adds a job, unless there is no room for all of it. */
static void add(question *q, const char *who, const char *chunk, uint32_t line, const char *does) {
  char where[LUA_IDSIZE + 32] = "";
  if (line) snprintf(where, sizeof where, ", submitted at %s:%u,", chunk, line);
  int n = snprintf(q->text + q->size, ROOM - q->size, "%s%s%s %s", q->separator, who, where, does);
  if (n > 0 && (size_t)n < ROOM - q->size) q->size += (size_t)n;
  q->text[q->size] = '\0';
}

static void add_job(question *q, lml_job *job) {
  char who[MLI_NAME_MAX + 16], does[64];
  snprintf(does, sizeof does, job->await.parked ? "waits for %s" : "is %s",
           job->await.parked ? job->await.what : lml_job_state(job));
  lml_job_title(job, who, sizeof who);
  add(q, who, job->task ? mli_task_chunk(job->task) : lml_chunk_name(job->S, job->place.chunk),
      job->task ? job->task->line : job->place.line, does);
}

static void add_call(void *user, mli_task *task, pid_t pid) {
  char who[MLI_NAME_MAX + 16], does[48] = "is queued";
  snprintf(who, sizeof who, task->name[0] ? "job '%s'" : "a job", task->name);
  if (pid) snprintf(does, sizeof does, "runs in process %d", (int)pid);
  add(user, who, mli_task_chunk(task), task->line, does);
}

static void list(question *q, lml_state *S) {
  for (lml_job *job = S->jobs; job; job = job->next) add_job(q, job);
  if (S->processes) mli_processes_each(S->processes, add_call, q);
}

static void on_question(mli_node *node, mli_loop *loop) {
  question *q = mli_container(node, question, node);
  mli_worker *w = loop->user;
  if (w->user && !loop->stopping) list(q, w->user);
  mli_future_settle(q->answered, MLI_FINISHED, NULL, NULL);
  release(q);
}

/* ---- on the asker's ---- */

static question *ask(mli_worker *w, const char *separator) {
  question *q = w->loop ? question_new(separator) : NULL;
  if (!q) return NULL;
  if (w->executor->driven && pthread_equal(w->thread, pthread_self())) {
    if (w->user && !w->loop->closed) list(q, w->user);
    mli_future_settle(q->answered, MLI_FINISHED, NULL, NULL);
    return q;
  }
  q->node.run = on_question;
  atomic_fetch_add(&q->refs, 1);
  if (mli_loop_post(w->loop, &q->node)) return q;
  release(q);
  release(q);
  return NULL;
}

/* True: there is no more to be known. `asked` NULL: nobody is asked. */
static bool all_known(mli_executor *ex, question **asked) {
  mli_worker *w;
  lml_spot spot;
  if (!asked) return true;
  bool all = lml_spot_ask_all(ex, 0);
  for (unsigned i = 0; all && i < ex->size && (w = mli_executor_worker(ex, i)); i++)
    all = !asked[i] || mli_future_settled(asked[i]->answered) || lml_spot_read(w, &spot);
  return all;
}

static void say(mli_worker *w, const question *q, const char *separator, char *text, size_t size) {
  lml_spot spot;
  char words[512];
  if (q && mli_future_settled(q->answered)) {
    snprintf(text, size, "%s", q->text);
  } else if (lml_spot_read(w, &spot)) {
    lml_spot_say(&spot, words, sizeof words);
    snprintf(text, size, "%s%s", separator, words);
  }
}

void lml_holdouts(mli_executor *ex, const char *separator, unsigned wait_ms, char *text,
                  size_t size) {
  mli_worker *w;
  uint64_t until = mli_now() + wait_ms * MLI_MILLISECOND;
  question **asked = wait_ms > 0 ? calloc(ex->size, sizeof *asked) : NULL;
  for (unsigned i = 0; asked && i < ex->size && (w = mli_executor_worker(ex, i)); i++)
    asked[i] = ask(w, separator);
  while (!all_known(ex, asked) && mli_now() < until) uv_sleep(POLL_MS);
  text[0] = '\0';
  for (unsigned i = 0; i < ex->size && (w = mli_executor_worker(ex, i)); i++) {
    size_t n = strlen(text);
    say(w, asked ? asked[i] : NULL, separator, text + n, size - n);
    if (asked) release(asked[i]);
  }
  free(asked);
}
