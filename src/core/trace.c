/* trace.c: threads, their chunks of events, and who reads them. */
#include "trace.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "park.h"
#include "system.h"

typedef struct chunk chunk;

/* A thread that has written events. */
typedef struct track {
  struct track *next;
  mli_trace_source is; /* [I] */
  chunk *current;      /* [M] written by the thread; by us, if it is another process's */
  unsigned chunks;     /* [M] that it has filled, or fills */
  bool ended;          /* [M] */
} track;

struct chunk {
  chunk *next;       /* [M] newer */
  track *track;      /* [M] who wrote it */
  uint64_t number;   /* [M] they are in this order */
  unsigned start;    /* [M] the start that it belongs to */
  atomic_uint used;  /* [A] bytes that are written */
  atomic_uint count; /* [A] events */
  unsigned taken;    /* [M] of those bytes */
  _Alignas(uint64_t) char bytes[MLI_TRACE_CHUNK];
};

static struct {
  mli_lock lock; /* a leaf: what is [M] */
  chunk *first, **last;
  size_t count, most;
  uint64_t numbers;
  track *tracks;
} store = { .last = &store.first };

static atomic_uint starts;    /* counts them */
static atomic_ullong dropped; /* events, since the last */
static atomic_ullong lanes;   /* given out */
atomic_uint mli_observed;

/* ---- threads ---- */

static _Thread_local track *self;
static pthread_key_t key;

/* Under the lock. */
static void forget_track(track *t) {
  if (!t->ended || t->chunks > 0) return;
  track **at = &store.tracks;
  while (*at != t) at = &(*at)->next;
  *at = t->next;
  free(t);
}

static void thread_ends(void *value) {
  track *t = value;
  self = NULL;
  mli_lock_acquire(&store.lock);
  t->ended = true;
  t->current = NULL;
  forget_track(t);
  mli_lock_release(&store.lock);
}

static void make_key(void) {
  int err = pthread_key_create(&key, thread_ends);
  (void)err; /* then threads that end are not noticed, and keep a chunk each */
}

static track *here(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  if (mli_likely(self != NULL)) return self;
  track *t = calloc(1, sizeof *t);
  if (!t) return NULL;
  pthread_once(&once, make_key);
  t->is.thread = mli_thread_number();
  if (mli_thread_is_main())
    memcpy(t->is.name, "main", sizeof "main");
  else if (pthread_getname_np(pthread_self(), t->is.name, sizeof t->is.name) != 0)
    memcpy(t->is.name, "thread", sizeof "thread");
  pthread_setspecific(key, t);
  mli_lock_acquire(&store.lock);
  t->next = store.tracks;
  store.tracks = t;
  mli_lock_release(&store.lock);
  return self = t;
}

uint64_t mli_trace_lane(uint32_t number) {
  const track *t = here();
  return (uint64_t)(t ? t->is.thread : 0) << 32 | number;
}

void mli_trace_be_far(void) { atomic_store(&lanes, (uint64_t)getpid() << 32); }

uint64_t mli_trace_new_lane(void) {
  return UINT64_C(1) << 63 | atomic_fetch_add_explicit(&lanes, 1, memory_order_relaxed);
}

/* ---- chunks: under the lock ---- */

static void append(chunk *c, track *t) {
  c->next = NULL;
  *store.last = c;
  store.last = &c->next;
  c->track = t;
  c->number = ++store.numbers;
  c->start = atomic_load(&starts);
  atomic_store_explicit(&c->used, 0, memory_order_relaxed);
  atomic_store_explicit(&c->count, 0, memory_order_relaxed);
  c->taken = 0;
  t->current = c;
  t->chunks++;
}

static chunk *take_out(chunk **at) {
  chunk *c = *at;
  *at = c->next;
  if (!*at) store.last = at;
  track *t = c->track;
  t->chunks--;
  if (t->current == c) t->current = NULL;
  forget_track(t);
  return c;
}

/* The oldest that nobody writes into, with what it held given up; NULL: there is none. */
static chunk *oldest(void) {
  for (chunk **at = &store.first; *at; at = &(*at)->next) {
    if ((*at)->track->current == *at) continue;
    unsigned count = atomic_load_explicit(&(*at)->count, memory_order_relaxed);
    atomic_fetch_add_explicit(&dropped, count, memory_order_relaxed);
    return take_out(at);
  }
  return NULL;
}

/* A chunk from before the last start, that this thread still had: to be used again. */
static chunk *stale(track *t) {
  chunk **at = &store.first;
  if (!t->current || t->current->start == atomic_load(&starts)) return NULL;
  while (*at != t->current) at = &(*at)->next;
  return take_out(at);
}

/* Gives the thread room for more; NULL: there is none. */
static chunk *next_chunk(track *t) {
  chunk *c = stale(t);
  if (!c && store.count < store.most && (c = malloc(sizeof *c))) store.count++;
  if (!c) c = oldest();
  if (c) append(c, t);
  return c;
}

/* ---- writing ---- */

static size_t measure(const char *text) { return text ? strnlen(text, MLI_TRACE_TEXT) : 0; }

void mli_trace_add(const mli_trace_event *event, const char *name, const char *more) {
  track *t = here();
  size_t n = measure(name), m = measure(more);
  size_t size = offsetof(mli_trace_event, text) + n + m + 2;
  if (size < sizeof *event) size = sizeof *event;
  size = (size + 7) & ~(size_t)7;
  chunk *c = t ? t->current : NULL;
  unsigned used = c ? atomic_load_explicit(&c->used, memory_order_relaxed) : 0;
  if (!c || used + size > sizeof c->bytes || c->start != atomic_load(&starts)) {
    mli_lock_acquire(&store.lock);
    c = t ? next_chunk(t) : NULL;
    mli_lock_release(&store.lock);
    used = 0;
  }
  if (!c) {
    atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed);
    return;
  }
  char *to = c->bytes + used, *text = to + offsetof(mli_trace_event, text);
  memcpy(to, event, offsetof(mli_trace_event, text));
  ((mli_trace_event *)(void *)to)->size = (uint16_t)size;
  if (n) memcpy(text, name, n);
  text[n] = '\0';
  if (m) memcpy(text + n + 1, more, m);
  text[n + 1 + m] = '\0';
  unsigned count = atomic_load_explicit(&c->count, memory_order_relaxed);
  atomic_store_explicit(&c->count, count + 1, memory_order_relaxed);
  atomic_store_explicit(&c->used, used + (unsigned)size, memory_order_release);
}

/* ---- starting, stopping, reading ---- */

bool mli_trace_start(size_t bytes) {
  mli_lock_acquire(&store.lock);
  bool first = !(atomic_load(&mli_observed) & MLI_OBSERVE_TRACE);
  if (first) {
    store.most = bytes / sizeof(chunk);
    atomic_fetch_add(&starts, 1);
    atomic_store(&dropped, 0);
    for (chunk **at = &store.first; *at;) { /* those that are being written stay: see `stale` */
      if ((*at)->track->current == *at) {
        at = &(*at)->next;
        continue;
      }
      free(take_out(at));
      store.count--;
    }
    atomic_fetch_or(&mli_observed, MLI_OBSERVE_TRACE);
  }
  mli_lock_release(&store.lock);
  return first;
}

bool mli_trace_stop(void) {
  return atomic_fetch_and(&mli_observed, ~(unsigned)MLI_OBSERVE_TRACE) & MLI_OBSERVE_TRACE;
}

unsigned mli_trace_starts(void) { return atomic_load_explicit(&starts, memory_order_relaxed); }

uint64_t mli_trace_dropped(bool forget) {
  return forget ? atomic_exchange(&dropped, 0) : atomic_load(&dropped);
}

/* Under the lock: the bytes of the chunk from there on. */
static void copy_out(mli_trace_batch *batch, const chunk *c, unsigned from) {
  batch->number = c->number;
  batch->from = c->track->is;
  batch->count = atomic_load_explicit(&c->count, memory_order_relaxed);
  batch->size = atomic_load_explicit(&c->used, memory_order_acquire) - from;
  memcpy(batch->bytes, c->bytes + from, batch->size);
}

bool mli_trace_read(mli_trace_batch *batch) {
  mli_lock_acquire(&store.lock);
  chunk *c = store.first;
  unsigned start = atomic_load(&starts);
  if (batch->last == 0) batch->last = store.numbers;
  while (c && (c->number <= batch->number || c->start != start)) c = c->next;
  if (c && c->number > batch->last) c = NULL;
  if (c) copy_out(batch, c, 0);
  mli_lock_release(&store.lock);
  return c != NULL;
}

bool mli_trace_take(mli_trace_batch *batch) {
  unsigned start = atomic_load(&starts);
  bool found = false;
  mli_lock_acquire(&store.lock);
  for (chunk **at = &store.first; *at && !found;) {
    chunk *c = *at;
    unsigned used = atomic_load_explicit(&c->used, memory_order_acquire);
    found = c->start == start && used > c->taken;
    if (found) {
      copy_out(batch, c, c->taken);
      c->taken += (unsigned)batch->size;
    }
    if (c->track->current == c) {
      at = &c->next;
    } else if (found || c->start != start || used == c->taken) {
      free(take_out(at)); /* nobody needs it any more */
      store.count--;
    } else {
      at = &c->next;
    }
  }
  mli_lock_release(&store.lock);
  return found;
}

/* ---- other processes ---- */

/* Under the lock. */
static track *far_track(const mli_trace_source *from) {
  for (track *t = store.tracks; t; t = t->next)
    if (!t->ended && t->is.pid == from->pid && t->is.thread == from->thread) return t;
  track *t = calloc(1, sizeof *t);
  if (!t) return NULL;
  t->is = *from;
  t->next = store.tracks;
  return store.tracks = t;
}

void mli_trace_keep(const mli_trace_batch *batch, uint64_t lost) {
  mli_lock_acquire(&store.lock);
  track *t = far_track(&batch->from);
  chunk *c = t ? t->current : NULL;
  unsigned used = c ? atomic_load_explicit(&c->used, memory_order_relaxed) : 0;
  if (t && (!c || used + batch->size > sizeof c->bytes || c->start != atomic_load(&starts))) {
    c = next_chunk(t);
    used = 0;
  }
  if (c) {
    memcpy(c->bytes + used, batch->bytes, batch->size);
    atomic_fetch_add_explicit(&c->count, batch->count, memory_order_relaxed);
    atomic_store_explicit(&c->used, used + (unsigned)batch->size, memory_order_release);
  }
  mli_lock_release(&store.lock);
  atomic_fetch_add_explicit(&dropped, lost + (c ? 0 : batch->count), memory_order_relaxed);
}

void mli_trace_process_ended(long pid) {
  if (atomic_load(&starts) == 0) return;
  mli_lock_acquire(&store.lock);
  for (track *t = store.tracks, *next; t; t = next) {
    next = t->next;
    if (t->is.pid != pid) continue;
    t->ended = true;
    t->current = NULL;
    forget_track(t);
  }
  mli_lock_release(&store.lock);
}
