/*
** utf8.h: checking text piece by piece, where a piece may end inside a character.
** By RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
*/
#ifndef MLI_HTTP_UTF8_H
#define MLI_HTTP_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed memory: between two characters. */
typedef struct mli_utf8 {
  uint8_t missing;     /* bytes that the character still needs */
  uint8_t least, most; /* between which the next of them must be */
} mli_utf8;

/* False: no UTF-8 begins like this. */
bool mli_utf8_feed(mli_utf8 *state, const char *text, size_t size);

/* Whether a text may end here. */
static inline bool mli_utf8_whole(const mli_utf8 *state) { return state->missing == 0; }

static inline bool mli_utf8_valid(const char *text, size_t size) {
  mli_utf8 state = { 0, 0, 0 };
  return mli_utf8_feed(&state, text, size) && mli_utf8_whole(&state);
}

#endif
