/*
** trust.h: one store of trusted certificates for all connections of the
** process. libcurl by itself reads its bundle again for every new TLS
** connection, at 30 to 50 ms of CPU each.
*/
#ifndef MLI_HTTP_TRUST_H
#define MLI_HTTP_TRUST_H

#include <curl/curl.h>
#include <stdbool.h>

/* Whether this process's libcurl takes an X509 store from us: it is built on
** the OpenSSL that we are linked with. If not, libcurl loads its own. */
bool mli_trust_usable(void);

/* The file and the directory (or NULL) of certificates that the store is made
** of. Thread: any. */
void mli_trust_source(const char **file, const char **dir);

/* For CURLOPT_SSL_CTX_FUNCTION: gives the connection the store, which is built
** on first use and again when its source changed. Thread: any. */
CURLcode mli_trust_apply(CURL *easy, void *ssl_ctx, void *unused);

#endif
