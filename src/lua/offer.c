/*
** offer.c: sending and receiving, as channels and queues do alike: what can be met
** at once does not wait; what waits is a choice of one offer, or of several.
*/
#include "sync.h"

#define CHOICE "moonloop.choice"

/* Lets go what the offers hold. They are in no channel any more. */
static void clear(lml_choice *c) {
  for (size_t i = 0; i < c->count; i++) {
    mli_item *item = c->offers[i].item;
    if (item) item->drop(item);
    mli_release(c->offers[i].channel);
  }
  c->count = 0;
}

static int choice_gc(lua_State *L) {
  clear(lua_touserdata(L, 1));
  return 0;
}

lml_choice *lml_choice_push(lua_State *L, const char *what, size_t n) {
  lml_choice *c = lua_newuserdatauv(L, sizeof *c + n * sizeof *c->offers, 0);
  c->what = what;
  c->count = 0;
  if (luaL_newmetatable(L, CHOICE)) {
    lua_pushcfunction(L, choice_gc);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  return c;
}

void lml_choice_add(lml_choice *c, mli_channel *channel, mli_item *item) {
  c->offers[c->count++] = (mli_offer){ .channel = mli_retain(channel),
                                       .item = item,
                                       .send = item != NULL };
}

static void choice_abort(lml_await *a) {
  lml_choice *c = a->source;
  if (mli_choice_give_up(&c->core)) lml_await_wake(a, true);
}

int lml_choice_wait(lua_State *L, lml_state *S, lml_choice *c, uint64_t deadline, lua_KFunction k) {
  lml_await *a = lml_await_begin(L, S, c->what);
  a->waker.wake = lml_await_woken;
  a->abort = choice_abort;
  a->source = c;
  mli_choice_init(&c->core, &a->waker);
  if (mli_choice_offer(&c->core, c->offers, c->count)) atomic_store(&a->woken, true);
  return lml_await_park(L, S, a, deadline, k, (lua_KContext)c);
}

size_t lml_choice_end(lua_State *L, lml_state *S, lml_choice *c, mli_offer *met) {
  size_t which = 0;
  mli_choice_withdraw(c->offers, c->count);
  if (lml_await_end(L, S) == ML_OK) {
    which = (size_t)(c->core.met - c->offers) + 1;
    *met = *c->core.met;
    if (!met->send) c->core.met->item = NULL; /* one that could not be sent is dropped */
  }
  clear(c);
  return which;
}

/* ---- one offer ---- */

static int closed(lua_State *L, const char *what) {
  return lml_fail(L, "closed", "%s: closed", what);
}

static int busy(lua_State *L, const char *what) {
  return lml_fail(L, "busy", "%s: it would have to wait", what);
}

/* Makes the offer to send the value at 2; its choice is on top of the stack. */
static lml_choice *push_sender(lua_State *L, lml_state *S, mli_channel *channel, const char *what,
                               lua_Number priority) {
  if (lua_isnoneornil(L, 2)) lml_misuse(L, "%s: a value expected: nil cannot be sent", what);
  lml_choice *c = lml_choice_push(L, what, 1);
  mli_item *item = lml_parcel_new(L, S, 2);
  item->priority = priority;
  lml_choice_add(c, channel, item);
  return c;
}

/* ML_BUSY leaves the choice as it is. */
static ml_status try_sender(lml_choice *c) {
  ml_status status = mli_offer_try(&c->offers[0]);
  if (status != ML_BUSY) clear(c);
  return status;
}

static int sent(lua_State *L) {
  lua_pushboolean(L, 1);
  return 1;
}

static int send_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  lml_choice *c = (lml_choice *)ctx;
  mli_offer met;
  if (lml_choice_end(L, lml_upstate(L), c, &met) == 0) return lml_timed_out(L, c->what);
  return met.status == ML_OK ? sent(L) : closed(L, c->what);
}

int lml_send(lua_State *L, lml_state *S, mli_channel *channel, const char *what, uint64_t deadline,
             lua_Number priority) {
  lml_choice *c = push_sender(L, S, channel, what, priority);
  if (mli_likely(!lml_may_be_cancelled(S))) {
    ml_status status = try_sender(c);
    if (mli_likely(status == ML_OK)) return sent(L);
    if (status == ML_CLOSED) return closed(L, what);
    if (deadline == 0) return clear(c), lml_timed_out(L, what);
    lml_check_hope(L, S, deadline, &channel->object, 2, what); /* the offer has it too */
  }
  return lml_choice_wait(L, S, c, deadline, send_k);
}

int lml_try_send(lua_State *L, lml_state *S, mli_channel *channel, const char *what,
                 lua_Number priority) {
  lml_choice *c = push_sender(L, S, channel, what, priority);
  ml_status status = try_sender(c);
  if (status == ML_OK) return sent(L);
  if (status == ML_CLOSED) return closed(L, what);
  return clear(c), busy(L, what);
}

static int receive_k(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  lml_state *S = lml_upstate(L);
  lml_choice *c = (lml_choice *)ctx;
  mli_offer met;
  if (lml_choice_end(L, S, c, &met) == 0) return lml_timed_out(L, c->what);
  if (met.status != ML_OK) return closed(L, c->what);
  lml_parcel_push(L, S, met.item);
  return 1;
}

int lml_receive(lua_State *L, lml_state *S, mli_channel *channel, const char *what,
                uint64_t deadline) {
  if (mli_likely(!lml_may_be_cancelled(S))) {
    mli_offer offer = { .channel = channel };
    ml_status status = mli_offer_try(&offer);
    if (status == ML_OK) return lml_parcel_push(L, S, offer.item), 1;
    if (status == ML_CLOSED) return closed(L, what);
    if (deadline == 0) return lml_timed_out(L, what);
    lml_check_hope(L, S, deadline, &channel->object, 1, what);
  }
  lml_choice *c = lml_choice_push(L, what, 1);
  lml_choice_add(c, channel, NULL);
  return lml_choice_wait(L, S, c, deadline, receive_k);
}

int lml_try_receive(lua_State *L, lml_state *S, mli_channel *channel, const char *what) {
  mli_offer offer = { .channel = channel };
  ml_status status = mli_offer_try(&offer);
  if (status == ML_CLOSED) return closed(L, what);
  if (status != ML_OK) return busy(L, what);
  lml_parcel_push(L, S, offer.item);
  return 1;
}
