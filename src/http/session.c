/* session.c: sessions: what they share, their engines, and their end. */
#include "session.h"

#include <stdlib.h>
#include "engine.h"

/* ---- what libcurl shares ---- */

static void on_lock(CURL *easy, curl_lock_data data, curl_lock_access access, void *user) {
  mli_http_session *s = user;
  (void)easy, (void)access;
  pthread_mutex_lock(&s->locks[data]);
}

static void on_unlock(CURL *easy, curl_lock_data data, void *user) {
  mli_http_session *s = user;
  (void)easy;
  pthread_mutex_unlock(&s->locks[data]);
}

static bool open_share(mli_http_session *s) {
  CURLSH *share = s->share = curl_share_init();
  return share && !curl_share_setopt(share, CURLSHOPT_LOCKFUNC, on_lock) &&
         !curl_share_setopt(share, CURLSHOPT_UNLOCKFUNC, on_unlock) &&
         !curl_share_setopt(share, CURLSHOPT_USERDATA, s) &&
         !curl_share_setopt(share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS) &&
         !curl_share_setopt(share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION) &&
         (!s->cookies || !curl_share_setopt(share, CURLSHOPT_SHARE, CURL_LOCK_DATA_COOKIE));
}

/* ---- life ---- */

static void session_free(mli_http_session *s) {
  if (s->share) curl_share_cleanup(s->share);
  for (unsigned i = 0; i < CURL_LOCK_DATA_LAST; i++) pthread_mutex_destroy(&s->locks[i]);
  pthread_mutex_destroy(&s->mutex);
  free(s);
}

/* Asks each engine to end, with the lock held. True: for the first time. A loop that takes
** no messages any more ends its engines by itself. */
static bool ask_engines(mli_http_session *s) {
  bool was_open = !atomic_exchange(&s->closed, true);
  for (mli_http_engine *e = s->engines; e; e = e->next_of_session) {
    if (e->asked) continue;
    e->asked = true;
    mli_loop_post(e->loop, &e->end);
  }
  return was_open;
}

static void session_destroy(mli_object *object) {
  mli_http_session *s = mli_container(object, mli_http_session, object);
  pthread_mutex_lock(&s->mutex);
  ask_engines(s);
  s->unused = true;
  bool last = !s->engines;
  pthread_mutex_unlock(&s->mutex);
  if (last) session_free(s);
}

/* Its handles are declared by the module moonloop.http, which the name is of. */
const mli_type mli_http_session_type = { .name = "http", .destroy = session_destroy };

static bool session_init(mli_http_session *s, bool cookies) {
  mli_object_init(&s->object, &mli_http_session_type);
  for (unsigned i = 0; i < CURL_LOCK_DATA_LAST; i++) pthread_mutex_init(&s->locks[i], NULL);
  pthread_mutex_init(&s->mutex, NULL);
  s->cookies = cookies;
  return open_share(s);
}

mli_http_session *mli_http_session_new(bool cookies) {
  if (!mli_http_features_get()) return NULL;
  mli_http_session *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  if (session_init(s, cookies)) return s;
  session_free(s);
  return NULL;
}

static mli_http_session plain;
static bool plain_usable;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_plain(void) {
  plain_usable = mli_http_features_get() && session_init(&plain, false);
}

mli_http_session *mli_http_session_default(void) {
  pthread_once(&once, make_plain);
  return plain_usable ? &plain : NULL;
}

bool mli_http_session_close(mli_http_session *s) {
  pthread_mutex_lock(&s->mutex);
  bool was_open = ask_engines(s);
  pthread_mutex_unlock(&s->mutex);
  return was_open;
}

/* ---- engines ---- */

bool mli_http_session_join(mli_http_session *s, mli_http_engine *e) {
  pthread_mutex_lock(&s->mutex);
  bool open = !atomic_load(&s->closed);
  if (open) {
    e->next_of_session = s->engines;
    s->engines = e;
  }
  pthread_mutex_unlock(&s->mutex);
  return open;
}

void mli_http_session_leave(mli_http_session *s, mli_http_engine *e) {
  pthread_mutex_lock(&s->mutex);
  mli_http_engine **link = &s->engines;
  while (*link != e) link = &(*link)->next_of_session;
  *link = e->next_of_session;
  bool last = s->unused && !s->engines;
  pthread_mutex_unlock(&s->mutex);
  if (last) session_free(s);
}

/* ---- limits and counts ---- */

void mli_http_session_limit(mli_http_session *s, const mli_http_limits *limits) {
  pthread_mutex_lock(&s->mutex);
  s->limits = *limits;
  atomic_fetch_add(&s->version, 1);
  pthread_mutex_unlock(&s->mutex);
}

mli_http_limits mli_http_session_limits(mli_http_session *s) {
  pthread_mutex_lock(&s->mutex);
  mli_http_limits limits = s->limits;
  pthread_mutex_unlock(&s->mutex);
  return limits;
}

mli_http_counts mli_http_session_counts(mli_http_session *s) {
  return (mli_http_counts){
    .requests = atomic_load(&s->requests),
    .made = atomic_load(&s->made),
    .reused = atomic_load(&s->reused),
    .active = atomic_load(&s->active),
    .queued = atomic_load(&s->queued),
    .connections = atomic_load(&s->connections),
  };
}
