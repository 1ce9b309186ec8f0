/* trace_far.c: events of child processes, on their way to the parent. */
#include <stdlib.h>
#include <string.h>
#include "bytes.h"
#include "trace.h"

bool mli_trace_pack(mli_bytes *out) {
  mli_trace_batch *batch = malloc(sizeof *batch);
  bool any = batch && mli_trace_take(batch);
  if (any) {
    mli_put_u64(out, (uint64_t)batch->from.thread);
    mli_put(out, batch->from.name, sizeof batch->from.name);
    mli_put_u64(out, mli_trace_dropped(true));
    mli_put(out, batch->bytes, batch->size);
  }
  free(batch);
  return any;
}

/* Counts the events. False: they are not whole. */
static bool check(mli_trace_batch *batch) {
  mli_trace_event head;
  batch->count = 0;
  for (size_t at = 0; at < batch->size; at += head.size) {
    const size_t texts = offsetof(mli_trace_event, text);
    if (batch->size - at < sizeof head) return false;
    memcpy(&head, batch->bytes + at, sizeof head);
    if (head.size < sizeof head || head.size % 8 != 0 || head.size > batch->size - at) return false;
    if (head.shape > MLI_TRACE_INSTANT || head.topic > MLI_TRACE_PHASE) return false;
    const char *name = batch->bytes + at + texts, *end = batch->bytes + at + head.size;
    const char *more = memchr(name, '\0', (size_t)(end - name));
    if (!more || ++more == end || !memchr(more, '\0', (size_t)(end - more))) return false;
    batch->count++;
  }
  return true;
}

bool mli_trace_unpack(long pid, const char *process, const unsigned char *bytes, size_t size) {
  mli_reader r = { bytes, bytes + size, false };
  mli_trace_batch *batch = malloc(sizeof *batch);
  if (!batch) return true; /* lost, but it made sense */
  batch->from = (mli_trace_source){ .pid = pid, .thread = (long)mli_get_u64(&r) };
  snprintf(batch->from.process, sizeof batch->from.process, "%s", process);
  const unsigned char *name = mli_get(&r, sizeof batch->from.name);
  if (name) memcpy(batch->from.name, name, sizeof batch->from.name - 1);
  uint64_t lost = mli_get_u64(&r);
  batch->size = (size_t)(r.end - r.at);
  bool good = !r.bad && batch->size <= sizeof batch->bytes;
  if (good) {
    memcpy(batch->bytes, r.at, batch->size);
    good = check(batch);
  }
  if (good) mli_trace_keep(batch, lost);
  free(batch);
  return good;
}
