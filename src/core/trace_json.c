/*
** trace_json.c: events as Chrome trace events, which chrome://tracing and Perfetto show:
** https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
**
** Times are monotonic, in microseconds. A slice is a complete event (X) of its thread; a
** lane is asynchronous events (b, e) with one id. Viewers sort by time, and keep the order
** of the file where times are equal: so what is around comes before what is in it.
*/
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "future.h"
#include "trace.h"

/* ---- a set of numbers ---- */

typedef struct set {
  uint64_t *slots; /* 0: free */
  size_t count, room;
} set;

static uint64_t *slot_of(const set *s, uint64_t n) {
  size_t at = (size_t)((n * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & (s->room - 1);
  while (s->slots[at] && s->slots[at] != n) at = (at + 1) & (s->room - 1);
  return &s->slots[at];
}

static bool set_has(const set *s, uint64_t n) { return s->room && *slot_of(s, n); }

/* False: out of memory. */
static bool set_add(set *s, uint64_t n) {
  if (s->count * 2 >= s->room) {
    set grown = { .room = s->room ? s->room * 2 : 256 };
    grown.slots = calloc(grown.room, sizeof *grown.slots);
    if (!grown.slots) return false;
    for (size_t i = 0; i < s->room; i++)
      if (s->slots[i]) *slot_of(&grown, s->slots[i]) = s->slots[i];
    grown.count = s->count;
    free(s->slots);
    *s = grown;
  }
  uint64_t *slot = slot_of(s, n);
  if (*slot == 0) s->count++;
  *slot = n;
  return true;
}

/* ---- text ---- */

/* The bytes of the UTF-8 character at `s`; 0: it is none. `s` ends with a NUL. */
static int character(const unsigned char *s) {
  static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
  int n = *s < 0x80 ? 1 : *s >> 5 == 6 ? 2 : *s >> 4 == 14 ? 3 : *s >> 3 == 30 ? 4 : 0;
  uint32_t code = n == 1 ? *s : n ? *s & (0x7F >> n) : 0;
  for (int i = 1; i < n; i++) {
    if (s[i] >> 6 != 2) return 0;
    code = code << 6 | (s[i] & 0x3F);
  }
  bool wrong = n && (code < least[n] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000));
  return wrong ? 0 : n;
}

static void put_text(FILE *to, const char *text) {
  for (const unsigned char *s = (const unsigned char *)text; *s;) {
    int n = character(s);
    if (n == 0)
      fputs("\\ufffd", to);
    else if (*s == '"' || *s == '\\')
      fprintf(to, "\\%c", *s);
    else if (*s < 0x20 || *s == 0x7F)
      fprintf(to, "\\u%04x", *s);
    else
      fwrite(s, 1, (size_t)n, to);
    s += n ? n : 1;
  }
}

static void put_time(FILE *to, const char *key, uint64_t ns) {
  fprintf(to, ",\"%s\":%llu.%03u", key, (unsigned long long)(ns / 1000), (unsigned)(ns % 1000));
}

/* ---- events ---- */

typedef struct writer {
  FILE *to;
  long own, pid, thread; /* this process; of what is being written */
  uint64_t events;
  set processes, threads, lanes; /* that were named; that have begun */
  bool failed;
} writer;

typedef struct event {
  mli_trace_event head;
  const char *name, *chunk;
} event;

static const struct {
  const char *category, *before; /* the title */
} topics[] = {
  [MLI_TRACE_JOB] = { "job", "" },
  [MLI_TRACE_SUBMIT] = { "submit", "submit " },
  [MLI_TRACE_QUEUED] = { "job", "queued" },
  [MLI_TRACE_WAIT] = { "wait", "wait: " },
  [MLI_TRACE_CALLS] = { "callbacks", "callbacks" },
  [MLI_TRACE_GC] = { "gc", "gc " },
  [MLI_TRACE_BLOCKED] = { "blocked", "blocked" },
  [MLI_TRACE_HTTP] = { "http", "" },
  [MLI_TRACE_PHASE] = { "http", "" },
};

/* A job without a name is called by the line that started it: so viewers can put those of
** one line together. */
static void put_title(FILE *to, const event *e) {
  fputs(topics[e->head.topic].before, to);
  if (e->head.topic != MLI_TRACE_JOB && e->head.topic != MLI_TRACE_SUBMIT) {
    if (e->head.topic != MLI_TRACE_BLOCKED) put_text(to, e->name);
  } else if (*e->name) {
    put_text(to, e->name);
  } else if (*e->chunk) {
    fputs("job at ", to);
    put_text(to, e->chunk);
    fprintf(to, ":%u", e->head.line);
  } else {
    fprintf(to, "job %u", e->head.number);
  }
}

static void put_place(FILE *to, const event *e, const char *key, const char **comma) {
  if (!*e->chunk) return;
  fprintf(to, "%s\"%s\":\"", *comma, key);
  put_text(to, e->chunk);
  fprintf(to, e->head.line ? ":%u\"" : "\"", e->head.line);
  *comma = ",";
}

static void put_number(FILE *to, const char *key, uint32_t n, const char **comma) {
  if (n == 0) return;
  fprintf(to, "%s\"%s\":%u", *comma, key, n);
  *comma = ",";
}

static void put_word(FILE *to, const char *key, const char *text, const char **comma) {
  if (!*text) return;
  fprintf(to, "%s\"%s\":\"", *comma, key);
  put_text(to, text);
  fputc('"', to);
  *comma = ",";
}

static const char *state_name(unsigned state) {
  return state == MLI_FINISHED ? "finished" : state == MLI_FAILED ? "failed" : "cancelled";
}

/* A task in a child process. */
static bool is_far(const mli_trace_event *head) {
  return head->shape == MLI_TRACE_SLICE && head->topic == MLI_TRACE_JOB && head->arrow;
}

static void put_args(FILE *to, const event *e) {
  const char *comma = "";
  fputs(",\"args\":{", to);
  switch ((mli_trace_topic)e->head.topic) {
  case MLI_TRACE_JOB:
    if (e->head.shape == MLI_TRACE_END) {
      put_word(to, "outcome", state_name(e->head.state), &comma);
      break;
    }
    if (is_far(&e->head)) put_word(to, "outcome", state_name(e->head.state), &comma);
    put_number(to, "job", e->head.number, &comma);
    put_number(to, "parent", e->head.parent, &comma);
    put_place(to, e, "submitted_at", &comma);
    break;
  case MLI_TRACE_SUBMIT: put_place(to, e, "submitted_at", &comma); break;
  case MLI_TRACE_WAIT: put_word(to, "waits_for", e->name, &comma); break;
  case MLI_TRACE_GC: put_number(to, "kib", e->head.number, &comma); break;
  case MLI_TRACE_BLOCKED:
    put_word(to, "by", e->name, &comma);
    put_place(to, e, e->head.shape == MLI_TRACE_INSTANT ? "at" : "submitted_at", &comma);
    break;
  case MLI_TRACE_HTTP:
    if (e->head.shape == MLI_TRACE_END) put_number(to, "status", e->head.number, &comma);
    if (e->head.shape == MLI_TRACE_END) put_word(to, "outcome", e->chunk, &comma);
    break;
  case MLI_TRACE_QUEUED:
  case MLI_TRACE_CALLS:
  case MLI_TRACE_PHASE: break;
  }
  fputc('}', to);
}

/* Viewers tell lanes apart by id and category: all of a lane has the same one. */
static const char *category_of(const mli_trace_event *head) {
  bool in_lane = head->shape == MLI_TRACE_SPAN;
  return in_lane && head->topic == MLI_TRACE_WAIT ? topics[MLI_TRACE_JOB].category
                                                  : topics[head->topic].category;
}

/* `phase` as in the format; `at` in ns. Goes up to before the arguments. */
static void open_event(writer *w, const event *e, const char *phase, uint64_t at) {
  FILE *to = w->to;
  fprintf(to, ",\n{\"ph\":\"%s\",\"cat\":\"%s\",\"name\":\"", phase, category_of(&e->head));
  put_title(to, e);
  fprintf(to, "\",\"pid\":%ld,\"tid\":%ld", w->pid, w->thread);
  put_time(to, "ts", at);
}

static void put_id(FILE *to, uint64_t id) {
  fprintf(to, ",\"id\":\"0x%llx\"", (unsigned long long)id);
}

static void put_half(writer *w, const event *e, const char *phase, uint64_t at, bool args) {
  open_event(w, e, phase, at);
  put_id(w->to, e->head.lane);
  if (args) put_args(w->to, e);
  fputc('}', w->to);
}

/* From the slice of the submit to that in which the job begins: right after their beginnings,
** to be inside of them, and the one before the other. */
static void put_arrow(writer *w, uint64_t lane, bool arrives, uint64_t at) {
  fprintf(w->to,
          ",\n{\"ph\":\"%s\",\"cat\":\"submit\",\"name\":\"submit\"%s,\"pid\":%ld,\"tid\":%ld",
          arrives ? "f" : "s", arrives ? ",\"bp\":\"e\"" : "", w->pid, w->thread);
  put_time(w->to, "ts", at);
  put_id(w->to, lane);
  fputc('}', w->to);
}

static void put_event(writer *w, const event *e) {
  const mli_trace_event *head = &e->head;
  switch ((mli_trace_shape)head->shape) {
  case MLI_TRACE_SLICE:
    open_event(w, e, "X", head->at);
    put_time(w->to, "dur", head->took);
    put_args(w->to, e);
    fputc('}', w->to);
    if (head->topic == MLI_TRACE_SUBMIT) put_arrow(w, head->lane, false, head->at + 1);
    if (is_far(head)) put_arrow(w, head->lane, true, head->at + 1);
    break;
  case MLI_TRACE_INSTANT:
    open_event(w, e, "i", head->at);
    fputs(",\"s\":\"t\"", w->to);
    put_args(w->to, e);
    fputc('}', w->to);
    break;
  case MLI_TRACE_BEGIN:
    if (!set_add(&w->lanes, head->lane)) w->failed = true;
    put_half(w, e, "b", head->at, true);
    if (head->arrow) put_arrow(w, head->lane, true, head->at + head->took + 1);
    break;
  case MLI_TRACE_SPAN:
    put_half(w, e, "b", head->at, true);
    put_half(w, e, "e", head->at + head->took, false);
    break;
  case MLI_TRACE_END: /* of one whose beginning is lost, or was before the start: nothing */
    if (set_has(&w->lanes, head->lane)) put_half(w, e, "e", head->at, true);
    break;
  }
}

static void put_metadata(writer *w, const char *what, const char *name) {
  fprintf(w->to, "{\"ph\":\"M\",\"name\":\"%s\",\"pid\":%ld,\"tid\":%ld,\"args\":{\"name\":\"",
          what, w->pid, w->thread);
  put_text(w->to, name);
  fputs("\"}}", w->to);
}

/* True: it is new. */
static bool note(writer *w, set *s, uint64_t n) {
  if (set_has(s, n)) return false;
  if (!set_add(s, n)) w->failed = true;
  return true;
}

static void put_names(writer *w, const mli_trace_source *from) {
  if (from->pid && note(w, &w->processes, (uint64_t)from->pid)) {
    fputs(",\n", w->to);
    put_metadata(w, "process_name", from->process);
  }
  if (note(w, &w->threads, (uint64_t)from->thread ^ (uint64_t)from->pid << 40)) {
    fputs(",\n", w->to);
    put_metadata(w, "thread_name", from->name);
  }
}

static void put_batch(writer *w, const mli_trace_batch *b) {
  w->pid = b->from.pid ? b->from.pid : w->own;
  w->thread = b->from.thread;
  put_names(w, &b->from);
  for (size_t at = 0; at < b->size;) {
    event e;
    const char *from = b->bytes + at;
    memcpy(&e.head, from, sizeof e.head);
    e.name = from + offsetof(mli_trace_event, text);
    e.chunk = e.name + strlen(e.name) + 1;
    put_event(w, &e);
    w->events++;
    at += e.head.size;
  }
}

int mli_trace_write(FILE *to, mli_trace_written *written) {
  mli_trace_batch *batch = malloc(sizeof *batch);
  writer w = { .to = to, .own = (long)getpid() };
  w.pid = w.thread = w.own;
  if (!batch) return ENOMEM;
  batch->number = batch->last = 0;
  fputs("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n", to);
  put_metadata(&w, "process_name", program_invocation_short_name);
  int err = 0;
  while (!w.failed && !err && mli_trace_read(batch)) {
    errno = 0;
    put_batch(&w, batch);
    if (ferror(to)) err = errno ? errno : EIO;
  }
  written->events = w.events;
  written->dropped = mli_trace_dropped(false);
  fprintf(to, "\n],\"otherData\":{\"moonloop\":\"%s\",\"events\":%llu,\"dropped\":%llu}}\n",
          ML_VERSION, (unsigned long long)written->events, (unsigned long long)written->dropped);
  free(batch);
  free(w.processes.slots);
  free(w.threads.slots);
  free(w.lanes.slots);
  if (w.failed) return ENOMEM;
  if (!err && (fflush(to) != 0 || ferror(to))) err = errno ? errno : EIO;
  return err;
}
