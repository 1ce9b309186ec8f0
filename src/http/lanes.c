/* lanes.c: libcurl's multi handles, their limits, and the requests that wait for room. */
#include "lanes.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include "engine.h"
#include "quiet.h"

/* Connections to one host at a time. The dear part of TLS is the handshake, and
** HTTP/2 needs but one; plain HTTP/1.1 needs one for each request at a time, and
** those that wait for one cost more than the connection does. */
#define PLAIN_PER_HOST 1000L
#define TLS_PER_HOST 8L
#define HOST_STREAMS 100L

/* Connections that a lane keeps for later: by itself libcurl would drop them as
** concurrency falls, and dial again as it rises. The most that it has at a time
** leave descriptors for the rest of the process. */
#define KEPT_CONNECTIONS 1024L

/* So many requests keep a lane busy. */
#define BUSY 128L
/* A lane but the first is closed after so long without requests. */
#define LANE_LIFE (60 * MLI_SECOND)

static long share_of_descriptors(long parts, long most) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return most;
  long part = (long)(limit.rlim_cur / (rlim_t)parts);
  return part < 8 ? 8 : part < most ? part : most;
}

/* ---- a lane ---- */

static void on_timer(mli_timer *timer) {
  mli_http_act(mli_container(timer, mli_http_lane, timer), CURL_SOCKET_TIMEOUT, 0);
}

/* Also called while a handle is added, with 0: the loop then calls libcurl once
** for all that were added in this turn. */
static int on_timeout(CURLM *multi, long ms, void *user) {
  mli_http_lane *lane = user;
  mli_loop *loop = lane->engine->loop;
  (void)multi;
  if (ms < 0)
    mli_loop_timer_stop(loop, &lane->timer);
  else
    mli_loop_timer_start(loop, &lane->timer,
                         ms == 0 ? 0 : mli_now() + (uint64_t)ms * MLI_MILLISECOND);
  return 0;
}

static void close_lane(mli_http_lane *lane) {
  if (!lane->multi) return;
  curl_multi_cleanup(lane->multi);
  lane->multi = NULL;
  mli_loop_timer_stop(lane->engine->loop, &lane->timer);
  mli_loop_timer_stop(lane->engine->loop, &lane->idle);
}

static void on_idle(mli_timer *timer) { close_lane(mli_container(timer, mli_http_lane, idle)); }

/* libcurl refuses none of these values. */
static void set_limits(mli_http_lane *lane) {
  if (!lane->multi) return;
  curl_multi_setopt(lane->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, lane->connections);
  curl_multi_setopt(lane->multi, CURLMOPT_MAX_HOST_CONNECTIONS, lane->per_host);
  curl_multi_setopt(lane->multi, CURLMOPT_MAX_CONCURRENT_STREAMS, lane->engine->lanes.streams);
}

/* False: out of memory; close it all the same. */
static bool open_lane(mli_http_lane *lane) {
  CURLM *m = lane->multi = mli_http_multi_new();
  set_limits(lane);
  return m && !curl_multi_setopt(m, CURLMOPT_SOCKETFUNCTION, mli_http_on_socket) &&
         !curl_multi_setopt(m, CURLMOPT_SOCKETDATA, lane) &&
         !curl_multi_setopt(m, CURLMOPT_TIMERFUNCTION, on_timeout) &&
         !curl_multi_setopt(m, CURLMOPT_TIMERDATA, lane) &&
         !curl_multi_setopt(m, CURLMOPT_MAXCONNECTS, share_of_descriptors(4, KEPT_CONNECTIONS)) &&
         !curl_multi_setopt(m, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
}

void mli_http_lanes_close(mli_http_engine *e) {
  close_lane(&e->lanes.tls);
  for (unsigned i = 0; i < MLI_HTTP_PLAIN_LANES; i++) close_lane(&e->lanes.plain[i]);
}

static void init_lane(mli_http_engine *e, mli_http_lane *lane) {
  lane->engine = e;
  lane->timer.fire = on_timer;
  lane->idle.fire = on_idle;
}

void mli_http_lanes_init(mli_http_engine *e) {
  init_lane(e, &e->lanes.tls);
  for (unsigned i = 0; i < MLI_HTTP_PLAIN_LANES; i++) init_lane(e, &e->lanes.plain[i]);
  e->lanes.last_hungry = &e->lanes.hungry;
}

bool mli_http_lane_join(mli_http_lane *lane, mli_http *h) {
  mli_http_lanes *l = &lane->engine->lanes;
  h->lane = lane;
  if (lane != &l->tls) {
    if (lane->active++ == 0) mli_loop_timer_stop(lane->engine->loop, &lane->idle);
    l->active++;
    if (h->site) h->site->active[lane - l->plain]++;
  }
  if (lane->multi || open_lane(lane)) return true;
  close_lane(lane);
  return false;
}

void mli_http_lane_leave(mli_http *h) {
  mli_http_lane *lane = h->lane;
  mli_http_lanes *l = &lane->engine->lanes;
  h->lane = NULL;
  if (lane == &l->tls) return;
  unsigned index = (unsigned)(lane - l->plain);
  if (h->site) h->site->active[index]--;
  l->active--;
  if (--lane->active == 0 && index > 0)
    mli_loop_timer_start(lane->engine->loop, &lane->idle,
                         index < l->count ? mli_now() + LANE_LIFE : 0);
}

/* ---- limits ---- */

static long either(long set, long otherwise) { return set ? set : otherwise; }

static long least(long a, long b) { return a < b ? a : b; }

/* The first lane has what the others leave: at least half of all connections, as it alone has
** those to many hosts. */
void mli_http_lanes_limit(mli_http_engine *e, const mli_http_limits *limits) {
  mli_http_lanes *l = &e->lanes;
  long total = either(limits->connections, share_of_descriptors(2, INT_MAX));
  long per_host = least(either(limits->per_host, PLAIN_PER_HOST), total);
  long more = least(least(per_host / BUSY, 1 + total / 2 / BUSY), MLI_HTTP_PLAIN_LANES) - 1;
  if (more < 0) more = 0;
  long share = more ? total / 2 / more : 0;
  long host_share = least(per_host / (more + 1), share);
  l->connections = total;
  l->count = (unsigned)more + 1;
  l->streams = either(limits->host_streams, HOST_STREAMS);
  for (unsigned i = 0; i < MLI_HTTP_PLAIN_LANES; i++) {
    l->plain[i].connections = i ? share : total - more * share;
    l->plain[i].per_host = i ? host_share : per_host - more * host_share;
    set_limits(&l->plain[i]);
    if (i > more && l->plain[i].active == 0) close_lane(&l->plain[i]);
  }
  l->tls.connections = total;
  l->tls.per_host = either(limits->per_host, TLS_PER_HOST);
  set_limits(&l->tls);
}

/* ---- hosts ---- */

static mli_http_site **bucket_of(mli_http_lanes *l, const char *name) {
  uint32_t hash = 2166136261u; /* FNV-1a */
  for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 16777619u;
  return &l->sites[hash % MLI_HTTP_SITES];
}

static mli_http_site *site_new(mli_http_site **bucket, const char *name) {
  size_t size = strlen(name) + 1;
  mli_http_site *site = malloc(sizeof *site + size);
  if (!site) return NULL;
  memset(site, 0, sizeof *site);
  memcpy(site->name, name, size);
  site->last = &site->first;
  site->next = *bucket;
  site->link = bucket;
  if (site->next) site->next->link = &site->next;
  return *bucket = site;
}

/* The host that the address names. NULL: out of memory. */
static mli_http_site *site_of(mli_http_lanes *l, mli_http_address *a) {
  char *host = NULL, *port = NULL, name[300];
  if (a->site) return a->site;
  if (!curl_url_get(a->url, CURLUPART_HOST, &host, 0) &&
      !curl_url_get(a->url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT)) {
    snprintf(name, sizeof name, "%s:%s", host, port); /* longer names are no hosts of DNS */
    for (char *p = name; *p; p++) *p = (char)tolower((unsigned char)*p);
    mli_http_site **bucket = bucket_of(l, name);
    mli_http_site *site = *bucket;
    while (site && strcmp(site->name, name) != 0) site = site->next;
    if (!site) site = site_new(bucket, name);
    if (site) site->refs++;
    a->site = site;
  }
  curl_free(host);
  curl_free(port);
  return a->site;
}

void mli_http_site_release(mli_http_site *site) {
  if (!site || --site->refs) return;
  *site->link = site->next;
  if (site->next) site->next->link = site->link;
  free(site);
}

/* ---- room, and waiting for it ---- */

/* A lane where one more of the host may be, so that few are in use; or NULL. */
static mli_http_lane *find_room(mli_http_lanes *l, const mli_http_site *site) {
  mli_http_lane *best = NULL;
  if (l->count == 1) return &l->plain[0];
  for (unsigned i = 0; i < l->count; i++) {
    mli_http_lane *lane = &l->plain[i];
    if (site->active[i] >= lane->per_host || lane->active >= lane->connections) continue;
    if (lane->active < BUSY) return lane;
    if (!best || lane->active < best->active) best = lane;
  }
  return best;
}

static void make_hungry(mli_http_lanes *l, mli_http_site *site) {
  site->next_hungry = NULL;
  site->hungry_link = l->last_hungry;
  *site->hungry_link = site;
  l->last_hungry = &site->next_hungry;
}

static void make_fed(mli_http_lanes *l, mli_http_site *site) {
  *site->hungry_link = site->next_hungry;
  if (site->next_hungry)
    site->next_hungry->hungry_link = site->hungry_link;
  else
    l->last_hungry = site->hungry_link;
}

static void wait_for_room(mli_http_lanes *l, mli_http *h) {
  mli_http_site *site = h->site;
  if (!site->first) make_hungry(l, site);
  h->next = NULL;
  h->link = site->last;
  *h->link = h;
  site->last = &h->next;
}

void mli_http_lanes_forget(mli_http_engine *e, mli_http *h) {
  mli_http_site *site = h->site;
  *h->link = h->next;
  if (h->next)
    h->next->link = h->link;
  else
    site->last = h->link;
  if (!site->first) make_fed(&e->lanes, site);
}

mli_http_lane *mli_http_lanes_enter(mli_http_engine *e, mli_http *h) {
  mli_http_lanes *l = &e->lanes;
  bool shares = h->version == MLI_HTTP_2 || h->version == MLI_HTTP_2_PRIOR;
  if (h->address->tls) return &l->tls;
  if (!shares && (l->count > 1 || l->hungry)) h->site = site_of(l, h->address);
  if (!h->site) return &l->plain[0];
  mli_http_lane *lane = h->site->first ? NULL : find_room(l, h->site);
  if (!lane) wait_for_room(l, h);
  return lane;
}

mli_http *mli_http_lanes_next(mli_http_engine *e, mli_http_lane **lane) {
  mli_http_lanes *l = &e->lanes;
  if (l->active >= l->connections) return NULL;
  for (mli_http_site *site = l->hungry; site; site = site->next_hungry) {
    *lane = find_room(l, site);
    if (!*lane) continue;
    mli_http *h = site->first;
    mli_http_lanes_forget(e, h);
    if (site->first) { /* its turn comes after all others' */
      make_fed(l, site);
      make_hungry(l, site);
    }
    return h;
  }
  return NULL;
}
