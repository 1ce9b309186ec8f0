/* spot.c: where a thread is that does not answer. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include "state.h"

/* ---- noting, on the thread itself ---- */

static void copy_text(char *to, size_t size, const char *from) {
  size_t n = 0;
  while (from && from[n] && n + 1 < size) {
    to[n] = from[n];
    n++;
  }
  to[n] = '\0';
}

/* Reads what the thread owns. */
static void fill(lml_state *S, lml_spot *spot) {
  const lml_job *job = S->current;
  const mli_task *task = job ? job->task : S->task;
  spot->beat = S->loop ? atomic_load_explicit(&S->loop->watch.beat, memory_order_relaxed) : 0;
  spot->task = S->task;
  spot->when = mli_now();
  spot->id = job ? job->id : 0;
  spot->line = task ? task->line : job ? job->place.line : 0;
  spot->place = atomic_load(&S->poked.place);
  copy_text(spot->name, sizeof spot->name,
            job && job->info && job->info->name ? job->info->name
            : task                              ? task->name
                                                : NULL);
  copy_text(spot->chunk, sizeof spot->chunk,
            task                ? mli_task_chunk(task)
            : job && !S->naming ? lml_chunk_name(S, job->place.chunk)
                                : "?");
  spot->in_call = !S->waits_for;
  copy_text(spot->waits_for, sizeof spot->waits_for, S->waits_for);
  spot->at[0] = '\0';
}

/* The innermost line of Lua code. Only reads. */
static void fill_line(lua_State *L, lml_spot *spot) {
  lua_Debug ar;
  for (int level = 0; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline <= 0) continue;
    copy_text(spot->at, sizeof spot->at, ar.short_src);
    size_t n = strlen(spot->at);
    unsigned line = (unsigned)ar.currentline;
    char digits[12];
    unsigned count = 0;
    do digits[count++] = (char)('0' + line % 10);
    while (line /= 10);
    spot->at[n++] = ':';
    while (count > 0) spot->at[n++] = digits[--count];
    spot->at[n] = '\0';
    return;
  }
}

void lml_spot_note(lml_state *S) {
  if (!mli_lock_try(&S->held.lock)) return; /* somebody reads it, or this thread is at it */
  fill(S, &S->held.spot);
  lua_State *L = S->poked.at_rest || S->waits_for ? lml_poke_runs(S) : NULL;
  if (L) fill_line(L, &S->held.spot);
  mli_lock_release(&S->held.lock);
}

void lml_spot_place(lua_State *L, lml_state *S) {
  mli_lock_acquire(&S->held.lock);
  fill(S, &S->held.spot);
  S->held.spot.in_call = false;
  fill_line(L, &S->held.spot);
  mli_lock_release(&S->held.lock);
}

/* ---- reading, on any thread ---- */

static void copy(lml_state *S, lml_spot *out) {
  mli_lock_acquire(&S->held.lock);
  *out = S->held.spot;
  mli_lock_release(&S->held.lock);
}

bool lml_spot_of_step(lml_state *S, unsigned beat, lml_spot *out) {
  copy(S, out);
  return out->beat == beat;
}

/* Of a worker that runs something, its state kept there meanwhile by a lock. */
typedef struct look {
  void (*f)(lml_state *S, unsigned beat, struct look *look);
  const mli_task *task; /* of a pool's worker */
  lml_spot *out;
  bool found;
} look;

static void look_at_loop(mli_watch *watch, void *argument) {
  look *l = argument;
  unsigned beat = atomic_load(&watch->beat);
  if (beat % 2) l->f(watch->owner, beat, l);
}

static bool look_at(mli_worker *w, look *l) {
  if (w->loop) {
    mli_watch_with(&w->loop->watch, look_at_loop, l);
    return l->found;
  }
  mli_lock_acquire(&w->executor->lock);
  l->task = w->task;
  if (w->task && w->user) l->f(w->user, 0, l);
  mli_lock_release(&w->executor->lock);
  return l->found;
}

static void ask(lml_state *S, unsigned beat, look *l) {
  (void)beat;
  l->found = lml_poke(S, LML_POKE_ASK);
}

bool lml_spot_ask(mli_worker *w) { return look_at(w, &(look){ .f = ask }); }

static void read_spot(lml_state *S, unsigned beat, look *l) {
  copy(S, l->out);
  l->found = l->task ? l->out->task == l->task : l->out->beat == beat;
}

/* What is known without its help. */
static bool read_task(mli_worker *w, lml_spot *out) {
  mli_lock_acquire(&w->executor->lock);
  const mli_task *task = w->task;
  *out = (lml_spot){ .task = task, .line = task ? task->line : 0 };
  if (task) {
    copy_text(out->name, sizeof out->name, task->name);
    copy_text(out->chunk, sizeof out->chunk, mli_task_chunk(task));
  }
  mli_lock_release(&w->executor->lock);
  return task;
}

bool lml_spot_read(mli_worker *w, lml_spot *out) {
  return look_at(w, &(look){ .f = read_spot, .out = out }) || read_task(w, out);
}

bool lml_spot_ask_all(mli_executor *ex, uint64_t since) {
  mli_worker *w;
  lml_spot spot;
  bool all = true;
  for (unsigned i = 0; (w = mli_executor_worker(ex, i)); i++)
    if (lml_spot_read(w, &spot) && (spot.when < since || !spot.at[0]))
      all = !lml_spot_ask(w) && all;
  return all;
}

/* ---- in words ---- */

void lml_spot_describe(const lml_spot *spot, char *text, size_t size) {
  if (spot->name[0])
    snprintf(text, size, "job '%s'", spot->name);
  else if (spot->id)
    snprintf(text, size, "job %u", spot->id);
  else
    snprintf(text, size, spot->task ? "a job" : "a callback");
  size_t n = strlen(text);
  if (spot->line) snprintf(text + n, size - n, ", submitted at %s:%u,", spot->chunk, spot->line);
}

void lml_spot_call(const lml_spot *spot, char *text, size_t size) {
  Dl_info info;
  text[0] = '\0';
  if (spot->place && dladdr((void *)spot->place, &info) && info.dli_fname) {
    const char *file = strrchr(info.dli_fname, '/');
    file = file ? file + 1 : info.dli_fname;
    if (info.dli_sname)
      snprintf(text, size, "%s in %s", info.dli_sname, file);
    else
      snprintf(text, size, "in %s", file);
  }
  size_t n = strlen(text);
  if (spot->at[0]) snprintf(text + n, size - n, "%scalled at %s", n ? ", " : "", spot->at);
}

void lml_spot_where(const lml_spot *spot, char *text, size_t size) {
  char call[LML_SPOT_CALL];
  text[0] = '\0';
  if (spot->waits_for[0]) {
    snprintf(text, size, "waits for %s at %s", spot->waits_for, spot->at);
  } else if (spot->in_call) {
    lml_spot_call(spot, call, sizeof call);
    snprintf(text, size, "is inside one C call%s%s", *call ? ": " : "", call);
  } else if (spot->at[0]) {
    snprintf(text, size, "runs at %s", spot->at);
  }
}

void lml_spot_say(const lml_spot *spot, char *text, size_t size) {
  char who[MLI_NAME_MAX + LUA_IDSIZE + 64], where[LML_SPOT_CALL + 64];
  lml_spot_describe(spot, who, sizeof who);
  lml_spot_where(spot, where, sizeof where);
  snprintf(text, size, "%s %s", who, *where ? where : "runs still");
}
