/* buffer.c: growing buffers, and a small stock of large ones. */
#include "buffer.h"

#include <stdlib.h>
#include <string.h>
#include "core/park.h"

#define SMALLEST ((size_t)32 << 10) /* of what is stocked */
#define LARGEST ((size_t)1 << 20)
#define STOCK ((size_t)16 << 20) /* all of it */
#define SLOTS 64

static mli_lock lock; /* a leaf: what follows */
static struct {
  char *bytes;
  size_t room;
} stock[SLOTS];
static unsigned count;
static size_t stocked;

/* One that is large enough, but not wastefully so; or NULL. */
static char *take(size_t want, size_t *room) {
  char *bytes = NULL;
  mli_lock_acquire(&lock);
  for (unsigned i = count; i-- > 0 && !bytes;) {
    if (stock[i].room < want || stock[i].room / 4 > want) continue;
    bytes = stock[i].bytes;
    *room = stock[i].room;
    stocked -= stock[i].room;
    stock[i] = stock[--count];
  }
  mli_lock_release(&lock);
  return bytes;
}

static void give(char *bytes, size_t room) {
  if (room >= SMALLEST && room <= LARGEST) {
    mli_lock_acquire(&lock);
    if (count < SLOTS && stocked + room <= STOCK) {
      stock[count].bytes = bytes;
      stock[count++].room = room;
      stocked += room;
      bytes = NULL;
    }
    mli_lock_release(&lock);
  }
  free(bytes);
}

bool mli_buffer_reserve(mli_buffer *b, size_t extra) {
  size_t want = b->size + extra;
  if (want < extra) return false;
  if (want <= b->room) return true;
  size_t room = b->room ? b->room * 2 : 1024;
  if (room < want) room = want;
  char *bytes = want >= SMALLEST && want <= LARGEST ? take(want, &room) : NULL;
  if (bytes) {
    if (b->size) memcpy(bytes, b->bytes, b->size);
    give(b->bytes, b->room);
  } else {
    bytes = realloc(b->bytes, room);
    if (!bytes) return false;
  }
  b->bytes = bytes;
  b->room = room;
  return true;
}

bool mli_buffer_append(mli_buffer *b, const char *data, size_t size) {
  if (!mli_buffer_reserve(b, size)) return false;
  memcpy(b->bytes + b->size, data, size);
  b->size += size;
  return true;
}

void mli_buffer_free(mli_buffer *b) {
  give(b->bytes, b->room);
  *b = (mli_buffer){ NULL, 0, 0 };
}
