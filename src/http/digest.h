/*
** digest.h: checksums of what is downloaded, by OpenSSL.
** Thread: each digest belongs to one at a time.
*/
#ifndef MLI_HTTP_DIGEST_H
#define MLI_HTTP_DIGEST_H

#include <stdbool.h>
#include <stddef.h>

#define MLI_DIGEST_HEX 129 /* the longest, in hexadecimal, with a NUL */

typedef struct mli_digest mli_digest;

/* Of "md5", "sha1", "sha256", "sha512" ...; NULL: OpenSSL knows none of this name,
** or out of memory. */
mli_digest *mli_digest_new(const char *name);
/* False: OpenSSL failed. */
bool mli_digest_update(mli_digest *digest, const void *bytes, size_t size);
/* The checksum in lower-case hexadecimal, in `out` of MLI_DIGEST_HEX bytes. The digest
** is at its end. False: OpenSSL failed. */
bool mli_digest_hex(mli_digest *digest, char *out);
void mli_digest_free(mli_digest *digest);

#endif
