/* cookies.c: looking at a session's cookies, through a handle that only shares them. */
#include "cookies.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "quiet.h"

static CURL *open_view(mli_http_session *s) {
  CURL *view = mli_http_easy_new();
  if (view && curl_easy_setopt(view, CURLOPT_SHARE, s->share) == CURLE_OK) return view;
  curl_easy_cleanup(view);
  return NULL;
}

/* Newer libcurls say of a line that is no cookie that it is none. */
static bool command(mli_http_session *s, const char *file, const char *line) {
  CURL *view = open_view(s);
  bool done = view && (!file || !curl_easy_setopt(view, CURLOPT_COOKIEFILE, file)) &&
              curl_easy_setopt(view, CURLOPT_COOKIELIST, line) != CURLE_OUT_OF_MEMORY;
  curl_easy_cleanup(view);
  return done;
}

bool mli_http_cookies_load(mli_http_session *s, const char *path) {
  return command(s, path, "RELOAD");
}

bool mli_http_cookies_put(mli_http_session *s, const char *line) { return command(s, NULL, line); }

bool mli_http_cookies_clear(mli_http_session *s) { return command(s, NULL, "ALL"); }

bool mli_http_cookies_list(mli_http_session *s, struct curl_slist **lines) {
  CURL *view = open_view(s);
  *lines = NULL;
  bool done = view && !curl_easy_getinfo(view, CURLINFO_COOKIELIST, lines);
  curl_easy_cleanup(view);
  return done;
}

bool mli_http_cookie_expired(const char *line) {
  for (int field = 0; field < 4; field++) {
    line = strchr(line, '\t');
    if (!line++) return false;
  }
  long long at = atoll(line);
  return at != 0 && at <= (long long)time(NULL);
}

static int write_lines(int fd, const struct curl_slist *lines) {
  FILE *file = fdopen(fd, "w");
  if (!file) {
    int err = errno;
    close(fd);
    return err;
  }
  fputs("# Netscape HTTP Cookie File\n", file);
  for (; lines; lines = lines->next)
    if (!mli_http_cookie_expired(lines->data)) fprintf(file, "%s\n", lines->data);
  int err = fflush(file) || ferror(file) || fsync(fileno(file)) ? errno : 0;
  if (fclose(file) && !err) err = errno;
  return err;
}

/* A file next to the one that is meant, so that renaming it is one step. */
static int write_beside(const char *path, const struct curl_slist *lines) {
  char *beside;
  if (asprintf(&beside, "%s.XXXXXX", path) < 0) return ENOMEM;
  int fd = mkostemp(beside, O_CLOEXEC), err = fd < 0 ? errno : 0; /* mode 0600 */
  if (!err) {
    err = write_lines(fd, lines);
    if (!err && rename(beside, path)) err = errno;
    if (err) unlink(beside);
  }
  free(beside);
  return err;
}

int mli_http_cookies_save(mli_http_session *s, const char *path) {
  struct curl_slist *lines;
  if (!mli_http_cookies_list(s, &lines)) return ENOMEM;
  int err = write_beside(path, lines);
  curl_slist_free_all(lines);
  return err;
}
