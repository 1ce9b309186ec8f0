/* trace.c: threads, their chunks of events, and who reads them. */
#include "trace.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "park.h"
#include "system.h"

typedef struct chunk chunk;

/* A thread that has written events. */
typedef struct track {
  struct track *next;
  long thread;     /* [I] */
  char name[16];   /* [I] */
  chunk *current;  /* [M] written by the thread */
  unsigned chunks; /* [M] that it has filled, or fills */
  bool ended;      /* [M] */
} track;

struct chunk {
  chunk *next;       /* [M] newer */
  track *track;      /* [M] who wrote it */
  uint64_t number;   /* [M] they are in this order */
  unsigned start;    /* [M] the start that it belongs to */
  atomic_uint used;  /* [A] bytes that are written */
  atomic_uint count; /* [A] events */
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
  t->thread = mli_thread_number();
  if (mli_thread_is_main())
    memcpy(t->name, "main", sizeof "main");
  else if (pthread_getname_np(pthread_self(), t->name, sizeof t->name) != 0)
    memcpy(t->name, "thread", sizeof "thread");
  pthread_setspecific(key, t);
  mli_lock_acquire(&store.lock);
  t->next = store.tracks;
  store.tracks = t;
  mli_lock_release(&store.lock);
  return self = t;
}

uint64_t mli_trace_lane(uint32_t number) {
  const track *t = here();
  return (uint64_t)(t ? t->thread : 0) << 32 | number;
}

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
  mli_lock_acquire(&store.lock);
  chunk *c = stale(t);
  if (!c && store.count < store.most && (c = malloc(sizeof *c))) store.count++;
  if (!c) c = oldest();
  if (c) append(c, t);
  mli_lock_release(&store.lock);
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
    c = t ? next_chunk(t) : NULL;
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

uint64_t mli_trace_dropped(void) { return atomic_load(&dropped); }

bool mli_trace_read(mli_trace_batch *batch) {
  mli_lock_acquire(&store.lock);
  chunk *c = store.first;
  unsigned start = atomic_load(&starts);
  if (batch->last == 0) batch->last = store.numbers;
  while (c && (c->number <= batch->number || c->start != start)) c = c->next;
  if (c && c->number > batch->last) c = NULL;
  if (c) {
    batch->number = c->number;
    batch->thread = c->track->thread;
    memcpy(batch->name, c->track->name, sizeof batch->name);
    batch->size = atomic_load_explicit(&c->used, memory_order_acquire);
    memcpy(batch->bytes, c->bytes, batch->size);
  }
  mli_lock_release(&store.lock);
  return c != NULL;
}
