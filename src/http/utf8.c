/* utf8.c: checking text; ASCII is passed over eight bytes at a time. */
#include "utf8.h"

#include <string.h>

static size_t skip_ascii(const unsigned char *p, size_t size) {
  size_t i = 0;
  for (uint64_t eight; i + 8 <= size; i += 8) {
    memcpy(&eight, p + i, 8);
    if (eight & UINT64_C(0x8080808080808080)) break;
  }
  while (i < size && p[i] < 0x80) i++;
  return i;
}

/* The first byte of a character that is not ASCII: what may follow it. */
static bool begin(mli_utf8 *state, unsigned char c) {
  if (c < 0xc2 || c > 0xf4) return false;
  state->missing = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
  state->least = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
  state->most = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
  return true;
}

bool mli_utf8_feed(mli_utf8 *state, const char *text, size_t size) {
  const unsigned char *p = (const unsigned char *)text;
  for (size_t i = 0; i < size;) {
    if (state->missing == 0) {
      i += skip_ascii(p + i, size - i);
      if (i < size && !begin(state, p[i++])) return false;
      continue;
    }
    if (p[i] < state->least || p[i] > state->most) return false;
    state->least = 0x80;
    state->most = 0xbf;
    state->missing--;
    i++;
  }
  return true;
}
