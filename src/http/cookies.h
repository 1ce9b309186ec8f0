/*
** cookies.h: the cookies of a session, in the lines of Netscape's cookie files:
** domain, whether its subdomains get it, path, whether for https only, when it
** expires (seconds since 1970; 0: with the session), name, value; between tabs.
** "#HttpOnly_" before the domain says that scripts in a page do not see it.
** Thread: any; they are locked while libcurl looks at them.
*/
#ifndef MLI_HTTP_COOKIES_H
#define MLI_HTTP_COOKIES_H

#include "session.h"

/* Adds those of a file; of one that is not there: none. Blocks to read it.
** False: out of memory. */
bool mli_http_cookies_load(mli_http_session *s, const char *path);
/* Writes them to a file, for its owner's eyes only, which replaces one that is there
** when it is whole. Blocks. 0 or an errno. */
int mli_http_cookies_save(mli_http_session *s, const char *path);
/* Adds one; libcurl drops what is none, or has expired. False: out of memory. */
bool mli_http_cookies_put(mli_http_session *s, const char *line);
/* False: out of memory. */
bool mli_http_cookies_clear(mli_http_session *s);
/* The lines, to be freed with curl_slist_free_all; NULL: none. False: out of memory.
** Those that have expired since may still be among them. */
bool mli_http_cookies_list(mli_http_session *s, struct curl_slist **lines);
bool mli_http_cookie_expired(const char *line);

#endif
