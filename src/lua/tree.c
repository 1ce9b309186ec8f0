/*
** tree.c: the jobs of a state as a tree, for people: each below the job that started it.
**
**   jobs of main: 2
**     main: parked 1.204 s, waits for future, at crawl.lua:31
**       fetch: parked 0.310 s, waits for http, at crawl.lua:12, spawned at crawl.lua:30
*/
#include <stdio.h>
#include <stdlib.h>
#include "processes.h"
#include "state.h"

#define MOST 1000 /* jobs that are shown of one state */

typedef struct leaf {
  lml_job *job;
  struct leaf *parent, *child, *next; /* the last two: oldest first */
} leaf;

static int by_id(const void *a, const void *b) {
  uint32_t x = ((const leaf *)a)->job->id, y = ((const leaf *)b)->job->id;
  return (x > y) - (x < y);
}

static leaf *find(leaf *all, size_t n, uint32_t id) {
  size_t low = 0;
  while (low < n) {
    size_t middle = low + (n - low) / 2;
    uint32_t at = all[middle].job->id;
    if (at == id) return &all[middle];
    if (at < id)
      low = middle + 1;
    else
      n = middle;
  }
  return NULL;
}

/* Joins the jobs, sorted by id; returns the first of those that have no parent here. */
static leaf *join(leaf *all, size_t n) {
  leaf *roots = NULL;
  for (size_t i = n; i-- > 0;) { /* each goes before its younger siblings */
    leaf *l = &all[i];
    l->parent = l->job->parent ? find(all, n, l->job->parent) : NULL;
    leaf **list = l->parent ? &l->parent->child : &roots;
    l->next = *list;
    *list = l;
  }
  return roots;
}

const char *lml_job_state(const lml_job *job) {
  if (!job->started) return "queued";
  if (job->await.parked) return "parked";
  return job->S->current == job ? "running" : "ready";
}

static void print_place(FILE *out, const char *label, const char *chunk, uint32_t line) {
  if (line) fprintf(out, ", %s %s:%u", label, chunk, line);
}

static void print_job(FILE *out, lml_job *job, unsigned depth) {
  char name[64], chunk[LUA_IDSIZE];
  uint32_t line;
  lml_state *S = job->S;
  fprintf(out, "%*s%s: %s", 2 * (depth < 40 ? (int)depth : 40), "",
          lml_job_name(job, name, sizeof name), lml_job_state(job));
  if (job->await.parked) {
    double seconds = (double)(mli_now() - job->await.since) / MLI_SECOND;
    fprintf(out, " %.3f s, waits for %s", seconds, job->await.what);
  }
  if (job->co && job->started) {
    lml_where(S->current == job && S->running ? S->running : job->co, 0, chunk, sizeof chunk,
              &line);
    print_place(out, "at", chunk, line);
  }
  if (job->task)
    print_place(out, "submitted at", mli_task_chunk(job->task), job->task->line);
  else
    print_place(out, "spawned at", lml_chunk_name(S, job->place.chunk), job->place.line);
  fputc('\n', out);
}

static void print_tree(FILE *out, leaf *at) {
  unsigned depth = 1;
  for (size_t shown = 0; at && shown < MOST; shown++) {
    print_job(out, at->job, depth);
    if (at->child) {
      at = at->child;
      depth++;
      continue;
    }
    while (at && !at->next) {
      at = at->parent;
      depth--;
    }
    if (at) at = at->next;
  }
}

/* Tasks that wait for the end of init. */
static size_t print_deferred(FILE *out, const lml_state *S) {
  size_t n = 0;
  for (mli_node *node = S->deferred; node; node = node->next, n++) {
    mli_task *task = mli_container(node, mli_task, node);
    if (n >= MOST) continue;
    fprintf(out, "  %s: queued", task->name[0] ? task->name : "job");
    print_place(out, "submitted at", mli_task_chunk(task), task->line);
    fputc('\n', out);
  }
  return n;
}

/* In one write, so that threads do not mix. */
static void write_out(FILE *memory, char **text, const size_t *size) {
  if (fclose(memory) == 0) fwrite(*text, 1, *size, stderr);
  free(*text);
}

void lml_tree_show(lml_state *S, const char *name) {
  size_t size, n = 0;
  char *text = NULL;
  leaf *all = calloc(S->job_count + 1, sizeof *all);
  FILE *out = all ? open_memstream(&text, &size) : NULL;
  if (out) {
    for (lml_job *job = S->jobs; job && n < S->job_count; job = job->next) all[n++].job = job;
    qsort(all, n, sizeof *all, by_id);
    fprintf(out, "jobs of %s: %zu\n", name, n);
    print_tree(out, join(all, n));
    if (n > MOST) fprintf(out, "  and %zu more\n", n - MOST);
    size_t deferred = print_deferred(out, S);
    if (deferred > MOST) fprintf(out, "  and %zu more that are queued\n", deferred - MOST);
    write_out(out, &text, &size);
  }
  free(all);
}

/* ---- those of executors ---- */

static void print_task(FILE *out, const mli_task *task, const char *state) {
  fprintf(out, "  %s: %s", task->name[0] ? task->name : "job", state);
  print_place(out, "submitted at", mli_task_chunk(task), task->line);
  fputc('\n', out);
}

typedef struct process_tree {
  FILE *out;
  size_t running, queued;
} process_tree;

static void print_process_task(void *user, mli_task *task, pid_t pid) {
  process_tree *t = user;
  char state[48] = "queued";
  if (pid) snprintf(state, sizeof state, "running in process %d", (int)pid);
  if ((pid ? t->running++ : t->queued++) < MOST) print_task(t->out, task, state);
}

static void show_processes(mli_processes *p, const char *name) {
  size_t size;
  char *text = NULL;
  process_tree t = { .out = open_memstream(&text, &size) };
  if (!t.out) return;
  fprintf(t.out, "jobs of %s:\n", name);
  mli_processes_each(p, print_process_task, &t);
  fprintf(t.out, "  %zu running, %zu queued\n", t.running, t.queued);
  write_out(t.out, &text, &size);
}

static void on_show(mli_node *node, mli_loop *loop) {
  mli_worker *w = loop->user;
  char name[MLI_NAME_MAX + 32];
  if (w->executor->size > 1)
    snprintf(name, sizeof name, "%s, loop %u", w->executor->name, w->index + 1);
  else
    snprintf(name, sizeof name, "%s", w->executor->name);
  lml_state *S = loop->stopping ? NULL : w->user;
  if (S && S->processes)
    show_processes(S->processes, name);
  else if (S)
    lml_tree_show(S, name);
  free(node);
}

static void show_pool(mli_executor *ex) {
  size_t size, running = 0, queued = 0;
  char *text = NULL;
  FILE *out = open_memstream(&text, &size);
  if (!out) return;
  fprintf(out, "jobs of %s:\n", ex->name);
  mli_lock_acquire(&ex->lock);
  for (unsigned i = 0; i < ex->count; i++)
    if (ex->workers[i]->task && running++ < MOST) print_task(out, ex->workers[i]->task, "running");
  for (mli_node *node = ex->queue; node; node = node->next)
    if (queued++ < MOST) print_task(out, mli_container(node, mli_task, node), "queued");
  mli_lock_release(&ex->lock);
  fprintf(out, "  %zu running, %zu queued\n", running, queued);
  write_out(out, &text, &size);
}

void lml_tree_show_executor(mli_executor *ex) {
  if (!ex->loops) {
    show_pool(ex);
    return;
  }
  for (unsigned i = 0; i < ex->size; i++) {
    mli_node *node = malloc(sizeof *node);
    if (!node) return;
    node->run = on_show;
    if (!mli_loop_post(ex->workers[i]->loop, node)) free(node);
  }
}
