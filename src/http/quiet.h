/*
** quiet.h: libcurl's handles, made so that they leave the process's signals alone.
**
** Without CURLOPT_NOSIGNAL, libcurl ignores SIGPIPE while it closes something and then puts
** back what it found. Two threads that do so at once can leave SIGPIPE ignored for good, here
** and in every program that is started later. Our sends raise no SIGPIPE in any case.
*/
#ifndef MLI_HTTP_QUIET_H
#define MLI_HTTP_QUIET_H

#include <curl/curl.h>

/* Like curl_easy_init. After a curl_easy_reset, CURLOPT_NOSIGNAL must be set again. */
CURL *mli_http_easy_new(void);

/* Like curl_multi_init. */
CURLM *mli_http_multi_new(void);

#endif
