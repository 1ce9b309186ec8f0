/*
** socket.c: libcurl's sockets as libuv polls.
**
** libcurl stops watching a connection after each response and starts again with
** the next request; following it costs three system calls a request. So a poll
** stays armed for reading when libcurl lets go of a connection, and is stopped
** only when something comes while nobody wants it, or the descriptor closes.
**
** K1  Only descriptors that libcurl opened and closes through us stay armed: we
**     hear of their end. Others (its resolver's pipes) stop when it says so.
** K2  A poll belongs to a descriptor number and is used again for the next
**     socket with it. A descriptor is never closed while its poll is armed.
** K3  A socket whose transfer is paused is held: nothing is read from it. libcurl 8.5
**     goes on watching it, and would keep in memory what comes.
*/
#include "engine.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "core/system.h"

struct mli_http_socket {
  uv_poll_t poll;
  mli_http_lane *lane; /* who wants it now */
  mli_http_engine *engine;
  curl_socket_t fd;
  int wanted, armed; /* UV_READABLE, UV_WRITABLE */
  bool ours;         /* opened by mli_http_open_socket, and open */
  bool held;         /* ... and not to be read from, though wanted */
};

static mli_http_socket *find(mli_http_engine *e, curl_socket_t fd) {
  return (size_t)fd < e->sockets_room ? e->sockets[fd] : NULL;
}

static bool make_room(mli_http_engine *e, size_t index) {
  if (index < e->sockets_room) return true;
  size_t room = e->sockets_room ? e->sockets_room : 64;
  while (room <= index) room *= 2;
  mli_http_socket **grown = realloc(e->sockets, room * sizeof *grown);
  if (!grown) return false;
  memset(grown + e->sockets_room, 0, (room - e->sockets_room) * sizeof *grown);
  e->sockets = grown;
  e->sockets_room = room;
  return true;
}

static mli_http_socket *find_or_make(mli_http_engine *e, curl_socket_t fd) {
  mli_http_socket *s = find(e, fd);
  if (s) return s;
  if (fd < 0 || !make_room(e, (size_t)fd)) return NULL;
  s = calloc(1, sizeof *s);
  if (!s) return NULL;
  if (uv_poll_init_socket(&e->loop->uv, &s->poll, fd) != 0) {
    free(s);
    return NULL;
  }
  s->poll.data = s;
  s->engine = e;
  s->fd = fd;
  e->sockets[fd] = s;
  e->closing++;
  return s;
}

static void disarm(mli_http_socket *s) {
  if (!s->armed) return;
  uv_poll_stop(&s->poll);
  s->armed = 0;
}

static void on_poll(uv_poll_t *poll, int status, int events);

static bool arm(mli_http_socket *s, int events) {
  if (s->armed == events) return true;
  int err = uv_poll_start(&s->poll, events, on_poll);
  s->armed = err ? 0 : events;
  return err == 0;
}

static void on_poll(uv_poll_t *poll, int status, int events) {
  mli_http_socket *s = poll->data;
  int flags = 0;
  mli_loop_stir(s->engine->loop);
  if (status < 0) {
    /* An error on the socket, and libuv has stopped the poll. Told so, libcurl
    ** would give up at once; by reading it gets what came before the error. */
    s->armed = 0;
    events = s->wanted;
  }
  if (!s->wanted) { /* an idle connection: the other side closed it, most likely */
    disarm(s);
    return;
  }
  if (s->held && events & UV_READABLE) {
    disarm(s);
    if (s->wanted & UV_WRITABLE && !arm(s, UV_WRITABLE)) s->wanted = 0;
    events &= ~UV_READABLE;
    if (!events) return;
  }
  if (events & UV_READABLE) flags |= CURL_CSELECT_IN;
  if (events & UV_WRITABLE) flags |= CURL_CSELECT_OUT;
  mli_http_act(s->lane, s->fd, flags);
  if (s->wanted && !s->armed && !s->held && !arm(s, s->wanted)) s->wanted = 0;
}

void mli_http_hold_socket(mli_http_easy *easy) {
  long version = 0;
  curl_easy_getinfo(easy->curl, CURLINFO_HTTP_VERSION, &version);
  if (easy->socket && easy->socket->ours && version < CURL_HTTP_VERSION_2_0)
    easy->socket->held = true;
}

mli_http_socket *mli_http_release_socket(mli_http_easy *easy) {
  mli_http_socket *s = easy->socket;
  if (!s || !s->held) return NULL;
  s->held = false;
  return s;
}

void mli_http_rearm_socket(mli_http_socket *s) {
  if (s->wanted && s->armed != s->wanted && !arm(s, s->wanted)) s->wanted = 0;
}

/* The transfer waits to read from there: so the connection stands. */
static void note_socket(CURL *curl, mli_http_socket *s) {
  mli_http_easy *easy = NULL;
  curl_easy_getinfo(curl, CURLINFO_PRIVATE, &easy);
  if (easy) easy->socket = s;
}

int mli_http_on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *known) {
  mli_http_lane *lane = user;
  (void)known;
  if (what == CURL_POLL_REMOVE) {
    mli_http_socket *s = find(lane->engine, fd);
    if (!s) return 0;
    s->wanted = 0;
    s->held = false;
    if (!s->ours || s->armed != UV_READABLE) disarm(s);
    uv_unref((uv_handle_t *)&s->poll); /* nobody waits for it */
    return 0;
  }
  mli_http_socket *s = find_or_make(lane->engine, fd);
  if (!s) return -1;
  if (s->ours && what & CURL_POLL_IN) note_socket(easy, s);
  s->lane = lane;
  uv_ref((uv_handle_t *)&s->poll);
  s->wanted = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
  if ((s->armed & s->wanted) == s->wanted && !(s->armed & ~s->wanted & UV_WRITABLE)) return 0;
  return arm(s, s->wanted) ? 0 : -1;
}

curl_socket_t mli_http_open_socket(void *user, curlsocktype purpose,
                                   struct curl_sockaddr *address) {
  mli_http_engine *e = user;
  (void)purpose;
  int fd = mli_socket_new(address->family, address->socktype, address->protocol, true);
  if (fd < 0) return CURL_SOCKET_BAD;
  mli_http_socket *s = find_or_make(e, fd);
  if (!s) {
    close(fd);
    return CURL_SOCKET_BAD;
  }
  disarm(s); /* a libcurl that closed the last one behind our back */
  s->wanted = 0;
  s->held = false;
  s->ours = true;
  atomic_fetch_add_explicit(&e->session->connections, 1, memory_order_relaxed);
  return fd;
}

int mli_http_close_socket(void *user, curl_socket_t fd) {
  mli_http_engine *e = user;
  mli_http_socket *s = find(e, fd);
  atomic_fetch_sub_explicit(&e->session->connections, 1, memory_order_relaxed);
  if (s) {
    disarm(s);
    s->wanted = 0;
    s->ours = s->held = false;
  }
  return close(fd);
}

static void on_closed(uv_handle_t *handle) {
  mli_http_socket *s = handle->data;
  mli_http_engine *e = s->engine;
  free(s);
  if (--e->closing == 0) mli_http_engine_free(e);
}

void mli_http_close_polls(mli_http_engine *e) {
  if (e->closing == 0) {
    mli_http_engine_free(e);
    return;
  }
  for (size_t i = 0; i < e->sockets_room; i++)
    if (e->sockets[i]) uv_close((uv_handle_t *)&e->sockets[i]->poll, on_closed);
}
