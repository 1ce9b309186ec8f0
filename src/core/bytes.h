/*
** bytes.h: what is written into memory piece by piece, and read back. Numbers keep the
** byte order of the machine: both sides are on it.
*/
#ifndef MLI_BYTES_H
#define MLI_BYTES_H

#include <stdlib.h>
#include <string.h>
#include "base.h"

/* The last `c` of `n` bytes, or NULL. */
static inline const char *mli_last_byte(const char *p, char c, size_t n) {
  while (n > 0)
    if (p[--n] == c) return p + n;
  return NULL;
}

typedef struct mli_bytes {
  unsigned char *data; /* owned */
  size_t size, room;
  bool failed; /* there was no memory: what was written is lost */
} mli_bytes;

static inline void mli_bytes_free(mli_bytes *b) {
  free(b->data);
  *b = (mli_bytes){ 0 };
}

/* Room for `n` bytes more. False: out of memory, which `failed` remembers. */
static inline bool mli_bytes_expect(mli_bytes *b, size_t n) {
  if (b->room - b->size >= n) return true;
  size_t room = b->room ? b->room * 2 : 256;
  while (room - b->size < n) room *= 2;
  unsigned char *data = realloc(b->data, room);
  if (!data) {
    b->failed = true;
    return false;
  }
  b->data = data;
  b->room = room;
  return true;
}

static inline void mli_put(mli_bytes *b, const void *p, size_t n) {
  if (n == 0 || !mli_bytes_expect(b, n)) return;
  memcpy(b->data + b->size, p, n);
  b->size += n;
}

static inline void mli_put_u8(mli_bytes *b, uint8_t n) { mli_put(b, &n, sizeof n); }
static inline void mli_put_u32(mli_bytes *b, uint32_t n) { mli_put(b, &n, sizeof n); }
static inline void mli_put_u64(mli_bytes *b, uint64_t n) { mli_put(b, &n, sizeof n); }

/* A string of at most 4 GiB, or NULL. */
static inline void mli_put_string(mli_bytes *b, const char *s) {
  size_t n = s ? strlen(s) : 0;
  mli_put_u8(b, s != NULL);
  mli_put_u32(b, (uint32_t)n);
  mli_put(b, s, n);
}

/* Reads what was put. What goes beyond the end reads as nothing, and sets `bad`. */
typedef struct mli_reader {
  const unsigned char *at, *end;
  bool bad;
} mli_reader;

static inline const unsigned char *mli_get(mli_reader *r, size_t n) {
  if (r->bad || n > (size_t)(r->end - r->at)) {
    r->bad = true;
    return NULL;
  }
  r->at += n;
  return r->at - n;
}

static inline uint8_t mli_get_u8(mli_reader *r) {
  const unsigned char *p = mli_get(r, 1);
  return p ? *p : 0;
}

static inline uint32_t mli_get_u32(mli_reader *r) {
  uint32_t n = 0;
  const unsigned char *p = mli_get(r, sizeof n);
  if (p) memcpy(&n, p, sizeof n);
  return n;
}

static inline uint64_t mli_get_u64(mli_reader *r) {
  uint64_t n = 0;
  const unsigned char *p = mli_get(r, sizeof n);
  if (p) memcpy(&n, p, sizeof n);
  return n;
}

/* A copy from malloc, or NULL: it was NULL, or there is no memory. */
static inline char *mli_get_string(mli_reader *r) {
  bool there = mli_get_u8(r);
  uint32_t n = mli_get_u32(r);
  const unsigned char *p = mli_get(r, n);
  char *s = there && p ? malloc((size_t)n + 1) : NULL;
  if (!s) return NULL;
  memcpy(s, p, n);
  s[n] = '\0';
  return s;
}

#endif
