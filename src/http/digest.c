/* digest.c: OpenSSL's message digests. */
#include "digest.h"

#include <openssl/evp.h>
#include <stdio.h>

/* OpenSSL's own context: there is nothing to add to it. */
static EVP_MD_CTX *context(mli_digest *digest) { return (EVP_MD_CTX *)digest; }

mli_digest *mli_digest_new(const char *name) {
  const EVP_MD *kind = EVP_get_digestbyname(name);
  EVP_MD_CTX *c = kind ? EVP_MD_CTX_new() : NULL;
  if (!c) return NULL;
  if (EVP_DigestInit_ex(c, kind, NULL) == 1) return (mli_digest *)c;
  EVP_MD_CTX_free(c);
  return NULL;
}

bool mli_digest_update(mli_digest *digest, const void *bytes, size_t size) {
  return EVP_DigestUpdate(context(digest), bytes, size) == 1;
}

bool mli_digest_hex(mli_digest *digest, char *out) {
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (EVP_DigestFinal_ex(context(digest), bytes, &size) != 1) return false;
  for (unsigned i = 0; i < size; i++) snprintf(out + (size_t)2 * i, 3, "%02x", bytes[i]);
  return true;
}

void mli_digest_free(mli_digest *digest) { EVP_MD_CTX_free(context(digest)); }
