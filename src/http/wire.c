/* wire.c: connecting by libcurl's CONNECT_ONLY, on a loop. */
#include "wire.h"

#include <stdlib.h>
#include <unistd.h>
#include "core/system.h"
#include "quiet.h"

typedef struct mli_wire_poll wire_poll;
struct mli_wire_poll {
  uv_poll_t poll;
  mli_wire *wire; /* NULL: closing */
  wire_poll *next, **link;
  curl_socket_t fd;
};

/* ---- polls ---- */

static void on_poll_closed(uv_handle_t *handle) { free(handle->data); }

static wire_poll *find(mli_wire *wire, curl_socket_t fd) {
  wire_poll *p = wire->polls;
  while (p && p->fd != fd) p = p->next;
  return p;
}

static void drop_poll(wire_poll *p) {
  if (p->wire->own == p) p->wire->own = NULL;
  *p->link = p->next;
  if (p->next) p->next->link = p->link;
  p->wire = NULL;
  uv_close((uv_handle_t *)&p->poll, on_poll_closed);
}

static wire_poll *make_poll(mli_wire *wire, curl_socket_t fd) {
  wire_poll *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  if (uv_poll_init_socket(&wire->loop->uv, &p->poll, fd) != 0) {
    free(p);
    return NULL;
  }
  p->poll.data = p;
  p->wire = wire;
  p->fd = fd;
  p->next = wire->polls;
  p->link = &wire->polls;
  if (p->next) p->next->link = &p->next;
  wire->polls = p;
  return p;
}

/* ---- driving libcurl ---- */

static void act(mli_wire *wire, curl_socket_t fd, int events) {
  int running, left;
  curl_multi_socket_action(wire->multi, fd, events, &running);
  const CURLMsg *m = curl_multi_info_read(wire->multi, &left);
  if (!m || m->msg != CURLMSG_DONE) return;
  CURLcode code = m->data.result;
  mli_loop_timer_stop(wire->loop, &wire->timer);
  wire->connected(wire, code);
}

static void on_timer(mli_timer *timer) {
  act(mli_container(timer, mli_wire, timer), CURL_SOCKET_TIMEOUT, 0);
}

/* An error of the poll is nothing of its own: the call that follows reports it. */
static void on_dialling(uv_poll_t *poll, int status, int events) {
  wire_poll *p = poll->data;
  mli_loop_stir(p->wire->loop);
  if (status < 0) events = UV_READABLE | UV_WRITABLE;
  act(p->wire, p->fd,
      (events & UV_READABLE ? CURL_CSELECT_IN : 0) | (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0));
}

static void on_ready(uv_poll_t *poll, int status, int events) {
  wire_poll *p = poll->data;
  mli_loop_stir(p->wire->loop);
  p->wire->ready(p->wire, status < 0 ? UV_READABLE | UV_WRITABLE : events);
}

/* ---- libcurl's callbacks ---- */

static int on_timeout(CURLM *multi, long ms, void *user) {
  mli_wire *wire = user;
  (void)multi;
  if (ms < 0)
    mli_loop_timer_stop(wire->loop, &wire->timer);
  else
    mli_loop_timer_start(wire->loop, &wire->timer,
                         ms == 0 ? 0 : mli_now() + (uint64_t)ms * MLI_MILLISECOND);
  return 0;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *known) {
  mli_wire *wire = user;
  (void)easy, (void)known;
  wire_poll *p = find(wire, fd);
  if (what == CURL_POLL_REMOVE) {
    if (p) drop_poll(p);
    return 0;
  }
  if (!p && !(p = make_poll(wire, fd))) return -1;
  int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
  return uv_poll_start(&p->poll, events, on_dialling) ? -1 : 0;
}

static curl_socket_t open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *at) {
  (void)user, (void)purpose;
  int fd = mli_socket_new(at->family, at->socktype, at->protocol, true);
  return fd < 0 ? CURL_SOCKET_BAD : fd;
}

static int close_socket(void *user, curl_socket_t fd) {
  wire_poll *p = find(user, fd);
  if (p) drop_poll(p);
  return close(fd);
}

/* ---- opening and closing ---- */

/* What is otherwise than for a request. Plain HTTP goes through a proxy by
** CONNECT too: nothing but bytes must come between. */
static bool set_up(mli_wire *wire) {
  CURL *c = wire->easy.curl;
  CURLM *m = wire->multi;
  return !curl_easy_setopt(c, CURLOPT_CONNECT_ONLY, 1L) &&
         !curl_easy_setopt(c, CURLOPT_HTTPPROXYTUNNEL, 1L) &&
         !curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) &&
         !curl_easy_setopt(c, CURLOPT_TCP_NODELAY, 1L) &&
         !curl_easy_setopt(c, CURLOPT_PREREQFUNCTION, NULL) &&
         !curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, open_socket) &&
         !curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, wire) &&
         !curl_easy_setopt(c, CURLOPT_CLOSESOCKETFUNCTION, close_socket) &&
         !curl_easy_setopt(c, CURLOPT_CLOSESOCKETDATA, wire) &&
         !curl_multi_setopt(m, CURLMOPT_SOCKETFUNCTION, on_socket) &&
         !curl_multi_setopt(m, CURLMOPT_SOCKETDATA, wire) &&
         !curl_multi_setopt(m, CURLMOPT_TIMERFUNCTION, on_timeout) &&
         !curl_multi_setopt(m, CURLMOPT_TIMERDATA, wire);
}

CURLcode mli_wire_open(mli_wire *wire, mli_http *request) {
  wire->timer.fire = on_timer;
  wire->multi = mli_http_multi_new();
  wire->easy.curl = mli_http_easy_new();
  wire->easy.request = request;
  CURLcode code = CURLE_OUT_OF_MEMORY;
  if (wire->multi && wire->easy.curl) code = mli_http_prepare(&wire->easy);
  if (code == CURLE_OK &&
      (!set_up(wire) || curl_multi_add_handle(wire->multi, wire->easy.curl) != CURLM_OK))
    code = CURLE_OUT_OF_MEMORY;
  if (code != CURLE_OK) mli_wire_close(wire);
  return code;
}

void mli_wire_close(mli_wire *wire) {
  if (wire->multi && wire->easy.curl) curl_multi_remove_handle(wire->multi, wire->easy.curl);
  /* The multi handle goes first: it still has the connection, and closes it. */
  if (wire->multi) curl_multi_cleanup(wire->multi);
  if (wire->easy.curl) curl_easy_cleanup(wire->easy.curl);
  wire->multi = NULL;
  wire->easy.curl = NULL;
  mli_loop_timer_stop(wire->loop, &wire->timer);
  while (wire->polls) drop_poll(wire->polls);
}

/* ---- bytes ---- */

CURLcode mli_wire_watch(mli_wire *wire, int events) {
  if (!wire->own) {
    curl_socket_t fd = CURL_SOCKET_BAD;
    CURLcode code = curl_easy_getinfo(wire->easy.curl, CURLINFO_ACTIVESOCKET, &fd);
    if (code != CURLE_OK || fd == CURL_SOCKET_BAD) return CURLE_RECV_ERROR;
    wire_poll *p = find(wire, fd);
    if (!p) p = make_poll(wire, fd);
    if (!p) return CURLE_OUT_OF_MEMORY;
    wire->own = p;
  }
  int err = events ? uv_poll_start(&wire->own->poll, events, on_ready)
                   : uv_poll_stop(&wire->own->poll);
  return err ? CURLE_RECV_ERROR : CURLE_OK;
}

CURLcode mli_wire_send(mli_wire *wire, const char *data, size_t size, size_t *sent) {
  *sent = 0;
  return curl_easy_send(wire->easy.curl, data, size, sent);
}

CURLcode mli_wire_receive(mli_wire *wire, char *to, size_t size, size_t *received) {
  *received = 0;
  return curl_easy_recv(wire->easy.curl, to, size, received);
}
