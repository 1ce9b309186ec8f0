/* loop.c: the turn of a loop, and its wake-up. */
#include "loop.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "stats.h"

/* How much one turn does before it looks at I/O and timers again. */
#define MESSAGES_PER_TURN 512
#define TIMERS_PER_TURN 1024
#define CROWD 16
#define LINGER (5 * (MLI_MILLISECOND / 1000))
#define PATIENCE_MAX 8

static _Thread_local mli_loop *self;

mli_loop *mli_loop_self(void) { return self; }

/* ---- timers ---- */

static void on_alarm(mli_alarm *alarm) { mli_container(alarm, mli_loop, alarm)->alarm_at = 0; }

/* Fires a bounded number of due timers; true if some are left. Where many expire at
** each tick the loop then sleeps for a millisecond: a few more at a time cost less
** than a wake-up for each tick. */
static bool run_timers(mli_loop *loop) {
  bool more = loop->clock.wheel && mli_clock_fire(loop, TIMERS_PER_TURN);
  if (loop->wheel.count == 0) return more;
  uint64_t now = mli_now();
  size_t before = loop->wheel.fired;
  if (mli_wheel_advance(&loop->wheel, now, TIMERS_PER_TURN)) more = true;
  loop->hold = loop->wheel.fired - before > CROWD ? now + MLI_MILLISECOND : 0;
  return more;
}

static void ring_at(mli_loop *loop, uint64_t at) {
  if (at >= loop->alarm_at && loop->alarm_at != 0) return;
  loop->alarm_at = at;
  mli_alarm_set(&loop->alarm, at);
}

/* Before the loop sleeps. A timer that was stopped leaves the alarm early: it then
** rings for nothing, and is set again. False: a timer is due. */
static bool set_alarm(mli_loop *loop) {
  uint64_t at = mli_wheel_next(&loop->wheel);
  if (at == 0) return false;
  ring_at(loop, at < loop->hold ? loop->hold : at);
  return true;
}

static bool is_due(const mli_loop *loop) {
  const mli_wheel *apart = loop->clock.wheel;
  return mli_wheel_is_due(&loop->wheel) || (apart && mli_wheel_is_due(apart));
}

static void check_zero(int err) {
  assert(err == 0);
  (void)err;
}

/* Only uv_poll_init can fail, and only for a descriptor that is none. */
static void open_handles(mli_loop *loop) {
  uv_loop_t *uv = &loop->uv;
  check_zero(uv_poll_init(uv, &loop->wake, loop->bell.fd));
  check_zero(uv_prepare_init(uv, &loop->prepare));
  check_zero(uv_check_init(uv, &loop->check));
  check_zero(uv_idle_init(uv, &loop->idle));
  loop->wake.data = loop->prepare.data = loop->check.data = loop;
  mli_wheel_init(&loop->wheel, mli_now());
  loop->alarm_at = MLI_FOREVER;
}

static void close_handles(mli_loop *loop) {
  uv_close((uv_handle_t *)&loop->wake, NULL);
  uv_close((uv_handle_t *)&loop->prepare, NULL);
  uv_close((uv_handle_t *)&loop->check, NULL);
  uv_close((uv_handle_t *)&loop->idle, NULL);
  mli_alarm_close(&loop->alarm);
}

static void loop_destroy(mli_object *object) {
  mli_loop *loop = mli_container(object, mli_loop, object);
  assert(!loop->incoming);
  mli_clock_leave(loop);
  if (!loop->closed) { /* it never ran */
    close_handles(loop);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    uv_loop_close(&loop->uv);
  }
  mli_bell_close(&loop->bell);
  free(loop);
}

const mli_type mli_loop_type = { "loop", loop_destroy, NULL };

ml_status mli_loop_new(mli_loop **out, const mli_loop_hooks *hooks, void *user) {
  mli_loop *loop = calloc(1, sizeof *loop);
  if (!loop) return ML_MEMORY;
  if (mli_bell_open(&loop->bell) != 0) {
    free(loop);
    return ML_SYSTEM;
  }
  mli_object_init(&loop->object, &mli_loop_type);
  loop->hooks = hooks;
  loop->user = user;
  mli_mailbox_init(&loop->mailbox);
  int err = uv_loop_init(&loop->uv);
  if (!err && (err = mli_alarm_open(&loop->alarm, &loop->uv, on_alarm))) uv_loop_close(&loop->uv);
  if (err) {
    loop->closed = true;
    mli_release(loop);
    errno = -err;
    return ML_SYSTEM;
  }
  loop->uv.data = loop;
  loop->alone = mli_processor_is_alone();
  open_handles(loop);
  if (mli_clock_join(loop) != ML_OK) {
    mli_release(loop);
    return ML_MEMORY;
  }
  *out = loop;
  return ML_OK;
}

void mli_loop_wake(mli_loop *loop) { mli_bell_ring(&loop->bell); }

bool mli_loop_post(mli_loop *loop, mli_node *node) {
  mli_object_retain(&loop->object); /* the node may end the loop before we wake it */
  mli_pushed pushed = mli_mailbox_push(&loop->mailbox, node);
  if (pushed == MLI_PUSHED_WAKE) mli_loop_wake(loop);
  mli_release(loop);
  return pushed != MLI_PUSH_REFUSED;
}

/* ---- the turn ---- */

static void on_idle(uv_idle_t *idle) { (void)idle; } /* its being active keeps poll from sleeping */

void mli_loop_again(mli_loop *loop) {
  int err = uv_idle_start(&loop->idle, on_idle);
  assert(err == 0);
  (void)err;
}

static void look_at_handle(uv_handle_t *handle, void *loud) {
  const mli_loop *loop = handle->loop->data;
  uintptr_t at = (uintptr_t)handle, own = (uintptr_t)loop;
  if (at < own || at >= own + sizeof *loop) *(bool *)loud = true;
}

bool mli_loop_is_quiet(mli_loop *loop) {
  bool loud = loop->uv.active_reqs.count > 0;
  uv_walk(&loop->uv, look_at_handle, &loud);
  return !loud;
}

/* Delivers a bounded number of messages; true if some are left. */
static bool deliver(mli_loop *loop, unsigned *count) {
  for (*count = 0; *count < MESSAGES_PER_TURN; ++*count) {
    mli_node *node = loop->incoming;
    if (!node && !(node = mli_mailbox_take(&loop->mailbox))) return false;
    loop->incoming = node->next;
    node->run(node, loop);
  }
  return true;
}

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* After messages, more often follow at once: a look of a few microseconds before the
** loop sleeps saves the sender a system call and the loop a wake-up. How often it
** looks depends on how often that paid lately: where it does not, 1 time in 64. */
static bool linger(mli_loop *loop) {
  if (loop->alone) return false;
  if (loop->patience == 0 && ++loop->sleeps % 64 != 0) return false;
  uint64_t end = mli_now() + LINGER;
  do {
    for (int i = 0; i < 16; i++) {
      if (mli_mailbox_any(&loop->mailbox)) {
        if (loop->patience < PATIENCE_MAX) loop->patience += 2;
        return true;
      }
      relax();
    }
  } while (mli_now() < end);
  if (loop->patience > 0) loop->patience--;
  return false;
}

static void on_prepare(uv_prepare_t *prepare) {
  mli_loop *loop = prepare->data;
  mli_watch_begin(&loop->watch);
  bool altered = atomic_load_explicit(&mli_clock_altered, memory_order_relaxed);
  if (mli_unlikely(altered)) mli_clock_turn(loop);
  bool more = run_timers(loop);
  unsigned delivered;
  if (deliver(loop, &delivered)) more = true;
  if (loop->hooks->turn(loop)) more = true;
  if (is_due(loop)) { /* wanted at once: once more, before the loop polls */
    if (run_timers(loop)) more = true;
    if (loop->hooks->turn(loop)) more = true;
  }
  if (loop->stopping) {
    uv_stop(&loop->uv);
    more = true;
  }
  mli_watch_done(&loop->watch);
  if (!more && delivered > 0) more = linger(loop);
  if (more || !set_alarm(loop) || !mli_mailbox_arm(&loop->mailbox))
    mli_loop_again(loop);
  else
    uv_idle_stop(&loop->idle);
  if (mli_unlikely(altered) && !uv_is_active((uv_handle_t *)&loop->idle))
    ring_at(loop, mli_clock_sleep(loop));
  if (mli_unlikely(loop->turns != NULL))
    mli_stats_loop_turns(loop->turns, uv_metrics_idle_time(&loop->uv));
}

/* Awake: senders need not wake the loop again until it is armed. What they sent
** meanwhile is kept for the next turn. */
static void on_check(uv_check_t *check) {
  mli_loop *loop = check->data;
  mli_node *came = mli_mailbox_take(&loop->mailbox);
  if (!came) return;
  mli_node **end = &loop->incoming;
  while (*end) end = &(*end)->next;
  *end = came;
}

static void on_wake(uv_poll_t *poll, int status, int events) {
  mli_loop *loop = poll->data;
  (void)status, (void)events;
  mli_loop_stir(loop);
  mli_bell_hush(&loop->bell);
}

void mli_loop_stop(mli_loop *loop) {
  loop->stopping = true;
  mli_loop_again(loop);
}

/* ---- life ---- */

static void begin(mli_loop *loop) {
  check_zero(uv_poll_start(&loop->wake, UV_READABLE, on_wake));
  check_zero(uv_prepare_start(&loop->prepare, on_prepare));
  check_zero(uv_check_start(&loop->check, on_check));
  mli_loop_again(loop); /* the first turn does not sleep */
}

static void end(mli_loop *loop) {
  mli_loop_stir(loop);
  /* Nobody can send any more; what was sent is delivered, to be refused. */
  mli_node *rest = mli_mailbox_close(&loop->mailbox);
  mli_node **end = &loop->incoming;
  while (*end) end = &(*end)->next;
  *end = rest;
  while (loop->incoming) {
    mli_node *node = loop->incoming;
    loop->incoming = node->next;
    node->run(node, loop);
  }
  while (loop->services) {
    mli_service *service = loop->services;
    loop->services = service->next;
    service->close(service, loop);
  }
  close_handles(loop);
  uv_run(&loop->uv, UV_RUN_DEFAULT);
  int err = uv_loop_close(&loop->uv);
  assert(err == 0 && "a handle was left on the loop");
  (void)err;
  loop->closed = true;
  mli_clock_leave(loop);
}

/* From here on libuv measures how long it sleeps: a system call more for each sleep. */
static void watch_turns(mli_loop *loop) {
  if (uv_loop_configure(&loop->uv, UV_METRICS_IDLE_TIME) == 0)
    loop->turns = mli_stats_loop_begins();
}

void mli_loop_run(mli_loop *loop) {
  mli_loop *outer = self;
  self = loop;
  mli_clock_run(loop);
  begin(loop);
  if (mli_unlikely(mli_observing() & MLI_OBSERVE_STATS)) watch_turns(loop);
  while (!loop->stopping) uv_run(&loop->uv, UV_RUN_DEFAULT);
  if (loop->turns) mli_stats_loop_ends(loop->turns, uv_metrics_idle_time(&loop->uv));
  loop->turns = NULL;
  end(loop);
  self = outer;
}

/* ---- as a guest ---- */

static _Thread_local unsigned guests; /* that this thread drives */

bool mli_loop_is_driven_here(void) { return guests > 0; }

void mli_loop_begin(mli_loop *loop) {
  guests++;
  mli_clock_leave(loop); /* nobody can tell when its host sleeps */
  begin(loop);
}

int mli_loop_fd(const mli_loop *loop) { return uv_backend_fd(&loop->uv); }

/* What the callbacks of the last poll began to watch is told to the system by the next. */
static bool has_unwatched(const mli_loop *loop) {
  const void *queue = &loop->uv.watcher_queue; /* a ring: empty, it points to itself */
  return *(const void *const *)queue != queue;
}

int mli_loop_timeout(const mli_loop *loop) {
  return loop->stopping || has_unwatched(loop) ? 0 : uv_backend_timeout(&loop->uv);
}

/* A turn comes before the poll: one more after it serves what the poll has brought. */
void mli_loop_step(mli_loop *loop) {
  mli_loop *outer = self;
  self = loop;
  uv_run(&loop->uv, UV_RUN_NOWAIT);
  if (!loop->stopping) on_prepare(&loop->prepare);
  loop->uv.stop_flag = 0; /* set by that turn for a uv_run that is over */
  self = outer;
}

void mli_loop_end(mli_loop *loop) {
  mli_loop *outer = self;
  self = loop;
  end(loop);
  self = outer;
  guests--;
}

mli_service *mli_loop_service(mli_loop *loop, const void *key) {
  for (mli_service **link = &loop->services, *s; (s = *link); link = &s->next) {
    if (s->key != key) continue;
    *link = s->next; /* to the front: it will be asked for again */
    mli_loop_add_service(loop, s);
    return s;
  }
  return NULL;
}

void mli_loop_remove_service(mli_loop *loop, mli_service *service) {
  mli_service **link = &loop->services;
  while (*link != service) link = &(*link)->next;
  *link = service->next;
}

void mli_loop_add_service(mli_loop *loop, mli_service *service) {
  service->next = loop->services;
  loop->services = service;
}
