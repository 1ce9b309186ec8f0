/* Tests of the loop: its turn, its wake-up, its timers and its end. */
#include <poll.h>
#include <string.h>
#include <unistd.h>
#include "check.h"
#include "core/loop.h"
#include "core/park.h"

#define MS MLI_MILLISECOND

static bool no_turn(mli_loop *loop) {
  (void)loop;
  return false;
}
static const mli_loop_hooks quiet = { no_turn };

static mli_loop *new_loop(const mli_loop_hooks *hooks, void *user) {
  mli_loop *loop;
  if (mli_loop_new(&loop, hooks, user) != ML_OK) abort();
  return loop;
}

static void *run_loop(void *argument) {
  mli_loop_run(argument);
  return NULL;
}

static void stop_now(mli_node *node, mli_loop *loop) {
  (void)node;
  mli_loop_stop(loop);
}

static void stop_and_join(mli_loop *loop, pthread_t thread) {
  mli_node stop = { .run = stop_now };
  CHECK(mli_loop_post(loop, &stop));
  pthread_join(thread, NULL);
}

/* ---- messages ---- */

enum { SENDERS = 4, LETTERS = CHECK_ROUNDS(50000) };

typedef struct letter {
  mli_node node;
  int sender, number;
} letter;

static struct {
  mli_loop *loop;
  letter letters[SENDERS][LETTERS];
  int next[SENDERS], got, misplaced; /* of the loop's thread */
  atomic_int accepted;
} post;

static void receive(mli_node *node, mli_loop *loop) {
  letter *l = mli_container(node, letter, node);
  post.misplaced += l->number != post.next[l->sender]++ || mli_loop_self() != loop;
  post.got++;
}

static void receive_until_all(mli_node *node, mli_loop *loop) {
  receive(node, loop);
  if (post.got == SENDERS * LETTERS) mli_loop_stop(loop);
}

static void *send_all(void *argument) {
  letter *mine = argument;
  for (int i = 0; i < LETTERS && mli_loop_post(post.loop, &mine[i].node); i++)
    atomic_fetch_add(&post.accepted, 1);
  return NULL;
}

static void send_from_threads(pthread_t *threads, void (*run)(mli_node *, mli_loop *)) {
  memset(post.next, 0, sizeof post.next);
  post.got = post.misplaced = 0;
  atomic_store(&post.accepted, 0);
  for (int s = 0; s < SENDERS; s++) {
    for (int i = 0; i < LETTERS; i++)
      post.letters[s][i] = (letter){ .node.run = run, .sender = s, .number = i };
    threads[s] = check_thread(send_all, post.letters[s]);
  }
}

static void test_posting(void) {
  pthread_t threads[SENDERS];
  post.loop = new_loop(&quiet, NULL);
  send_from_threads(threads, receive_until_all);
  CHECK(mli_loop_self() == NULL);
  mli_loop_run(post.loop);
  CHECK(mli_loop_self() == NULL);
  for (int s = 0; s < SENDERS; s++) pthread_join(threads[s], NULL);
  CHECK_EQ(post.got, SENDERS * LETTERS);
  CHECK_EQ(post.misplaced, 0);
  mli_release(post.loop);
}

/* What was accepted is delivered even if the loop stops in between. */
static void test_stop_while_posting(void) {
  pthread_t threads[SENDERS];
  post.loop = new_loop(&quiet, NULL);
  pthread_t runner = check_thread(run_loop, post.loop);
  send_from_threads(threads, receive);
  nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
  stop_and_join(post.loop, runner);
  for (int s = 0; s < SENDERS; s++) pthread_join(threads[s], NULL);
  CHECK_EQ(post.got, atomic_load(&post.accepted));
  CHECK_EQ(post.misplaced, 0);
  mli_node late = { .run = stop_now };
  CHECK(!mli_loop_post(post.loop, &late));
  mli_release(post.loop);
}

enum { MANY = 2000 };
static letter many[MANY];

static void count_one(mli_node *node, mli_loop *loop) {
  (void)node, (void)loop;
  post.got++;
}

static void stop_and_post_many(mli_node *node, mli_loop *loop) {
  (void)node;
  mli_loop_stop(loop);
  for (int i = 0; i < MANY; i++) {
    many[i].node.run = count_one;
    CHECK(mli_loop_post(loop, &many[i].node));
  }
}

static void test_messages_left_at_the_end(void) {
  mli_loop *loop = new_loop(&quiet, NULL);
  mli_node node = { .run = stop_and_post_many };
  post.got = 0;
  mli_loop_post(loop, &node);
  mli_loop_run(loop);
  CHECK_EQ(post.got, MANY);
  mli_release(loop);
}

/* ---- waking ---- */

static struct {
  mli_node node;
  mli_parker held, go;
} gate;

static void hold(mli_node *node, mli_loop *loop) {
  (void)node, (void)loop;
  mli_unpark(&gate.held);
  CHECK_EQ(mli_park(&gate.go, mli_now() + 10 * MLI_SECOND), ML_OK);
}

static void test_no_wake_while_awake(void) {
  mli_loop *loop = new_loop(&quiet, NULL);
  pthread_t runner = check_thread(run_loop, loop);
  post.got = 0;
  for (int round = 0; round < 20; round++) {
    gate.node.run = hold;
    CHECK(mli_loop_post(loop, &gate.node)); /* from whatever state: it gets there */
    CHECK_EQ(mli_park(&gate.held, mli_now() + 10 * MLI_SECOND), ML_OK);
    mli_bell_hush(&loop->bell); /* what woke it for this one */
    for (int i = 0; i < 100; i++) {
      many[i].node.run = count_one;
      mli_loop_post(loop, &many[i].node);
    }
    struct pollfd bell = { .fd = loop->bell.fd, .events = POLLIN };
    CHECK_EQ(poll(&bell, 1, 0), 0);
    mli_unpark(&gate.go);
    if (round % 2) nanosleep(&(struct timespec){ .tv_nsec = 3000000 }, NULL); /* it sleeps */
  }
  stop_and_join(loop, runner);
  CHECK_EQ(post.got, 2000);
  mli_release(loop);
}

/* ---- timers ---- */

typedef struct alarm_clock {
  mli_timer timer;
  mli_loop *loop;
  uint64_t deadline, rang;
  int order;
} alarm_clock;

static int rung;

static void ring(mli_timer *timer) {
  alarm_clock *a = mli_container(timer, alarm_clock, timer);
  a->rang = mli_now();
  a->order = rung++;
}

static void ring_and_stop(mli_timer *timer) {
  ring(timer);
  mli_loop_stop(mli_container(timer, alarm_clock, timer)->loop);
}

static void set(alarm_clock *a, mli_loop *loop, uint64_t deadline, void (*fire)(mli_timer *)) {
  a->loop = loop;
  a->deadline = deadline;
  a->timer.fire = fire;
  mli_loop_timer_start(loop, &a->timer, deadline);
}

static alarm_clock clocks[6];

static void set_clocks(mli_node *node, mli_loop *loop) {
  (void)node;
  uint64_t now = mli_now();
  memset(clocks, 0, sizeof clocks);
  rung = 0;
  set(&clocks[0], loop, now + 30 * MS + 1, ring);
  set(&clocks[1], loop, now + 5 * MS, ring);
  set(&clocks[2], loop, now + 10 * MS + 999, ring);
  set(&clocks[3], loop, now + 500 * MLI_SECOND, ring);
  CHECK(mli_loop_timer_stop(loop, &clocks[3].timer));
  CHECK(!mli_loop_timer_stop(loop, &clocks[3].timer));
  set(&clocks[4], loop, now + 500 * MLI_SECOND, ring);
  set(&clocks[4], loop, now + 20 * MS, ring); /* again, sooner */
  set(&clocks[5], loop, now + 40 * MS, ring_and_stop);
}

static void test_timers(void) {
  mli_loop *loop = new_loop(&quiet, NULL);
  mli_node node = { .run = set_clocks };
  mli_loop_post(loop, &node);
  mli_loop_run(loop);
  static const int order[] = { 3, 0, 1, 0, 2, 4 };
  for (int i = 0; i < 6; i++) {
    if (i == 3) continue;
    CHECK_EQ(clocks[i].order, order[i]);
    CHECK(clocks[i].rang >= clocks[i].deadline);
    CHECK(clocks[i].rang < clocks[i].deadline + 2 * MLI_SECOND); /* a busy machine is slow */
  }
  CHECK_EQ(clocks[3].rang, 0);
  mli_release(loop);
}

/* A timer that is always due, a message that always comes back, a turn that
** always has more: each in turn, and the others still get through. */
enum { TIMER, MESSAGE, TURN, KINDS };

static struct {
  int greedy;
  int seen[KINDS];
  bool io;
  alarm_clock clock;
  mli_node node;
  uv_poll_t poll;
  mli_service service;
  int pipe[2];
} fair;

static void stop_if_all_seen(mli_loop *loop) {
  int others = 0;
  for (int i = 0; i < KINDS; i++) others += i != fair.greedy && fair.seen[i] >= 3;
  if (others == KINDS - 1 && fair.io) mli_loop_stop(loop);
}

static void fair_timer(mli_timer *timer) {
  alarm_clock *a = mli_container(timer, alarm_clock, timer);
  fair.seen[TIMER]++;
  set(a, a->loop, fair.greedy == TIMER ? 0 : mli_now() + 2 * MS, fair_timer);
  stop_if_all_seen(a->loop);
}

static void fair_message(mli_node *node, mli_loop *loop) {
  fair.seen[MESSAGE]++;
  if (!loop->stopping && (fair.greedy == MESSAGE || fair.seen[MESSAGE] < 3)) {
    mli_loop_post(loop, node);
    stop_if_all_seen(loop);
  }
}

static bool fair_turn(mli_loop *loop) {
  fair.seen[TURN]++;
  stop_if_all_seen(loop);
  return fair.greedy == TURN;
}

static void fair_io(uv_poll_t *poll, int status, int events) {
  CHECK_EQ(status, 0);
  CHECK_EQ(events, UV_READABLE);
  fair.io = true;
  uv_poll_stop(poll);
  stop_if_all_seen(poll->data);
}

static void fair_close(mli_service *service, mli_loop *loop) {
  CHECK(service == &fair.service);
  CHECK(mli_loop_self() == loop);
  uv_close((uv_handle_t *)&fair.poll, NULL);
}

static void fair_begin(mli_node *node, mli_loop *loop) {
  (void)node;
  set(&fair.clock, loop, 0, fair_timer);
  fair.node.run = fair_message;
  mli_loop_post(loop, &fair.node);
  CHECK_EQ(uv_poll_init(&loop->uv, &fair.poll, fair.pipe[0]), 0);
  fair.poll.data = loop;
  CHECK_EQ(uv_poll_start(&fair.poll, UV_READABLE, fair_io), 0);
  fair.service = (mli_service){ .key = &fair, .close = fair_close };
  CHECK(mli_loop_service(loop, &fair) == NULL);
  mli_loop_add_service(loop, &fair.service);
  CHECK(mli_loop_service(loop, &fair) == &fair.service);
  CHECK(mli_loop_service(loop, &post) == NULL);
}

static void test_nothing_starves(void) {
  static const mli_loop_hooks hooks = { fair_turn };
  for (int greedy = 0; greedy < KINDS; greedy++) {
    memset(&fair, 0, sizeof fair);
    fair.greedy = greedy;
    if (pipe(fair.pipe) != 0 || write(fair.pipe[1], "x", 1) != 1) abort();
    mli_loop *loop = new_loop(&hooks, NULL);
    mli_node node = { .run = fair_begin };
    mli_loop_post(loop, &node);
    mli_loop_run(loop);
    for (int i = 0; i < KINDS; i++) CHECK(fair.seen[i] >= 3);
    mli_release(loop);
    close(fair.pipe[0]);
    close(fair.pipe[1]);
  }
}

/* ---- turns ---- */

static bool counted_turn(mli_loop *loop) {
  int *turns = loop->user;
  if (++*turns == 10) mli_loop_stop(loop);
  return *turns < 10;
}

static void test_turns(void) {
  static const mli_loop_hooks hooks = { counted_turn };
  int turns = 0;
  mli_loop *loop = new_loop(&hooks, &turns);
  mli_loop_run(loop);
  CHECK(turns >= 10);
  mli_release(loop);
}

static void again(mli_timer *timer) {
  mli_loop_again(mli_container(timer, alarm_clock, timer)->loop);
}

static void set_again(mli_node *node, mli_loop *loop) {
  (void)node;
  set(&clocks[0], loop, mli_now() + 3 * MS, again);
}

static bool stop_after_again(mli_loop *loop) {
  int *turns = loop->user;
  if (clocks[0].deadline && !mli_timer_active(&clocks[0].timer) && ++*turns == 1)
    mli_loop_stop(loop);
  return false;
}

static void test_again(void) {
  static const mli_loop_hooks hooks = { stop_after_again };
  int turns = 0;
  memset(clocks, 0, sizeof clocks);
  mli_loop *loop = new_loop(&hooks, &turns);
  mli_node node = { .run = set_again };
  mli_loop_post(loop, &node);
  mli_loop_run(loop);
  CHECK(turns >= 1);
  mli_release(loop);
}

/* ---- life ---- */

static void run_inner(mli_node *node, mli_loop *outer) {
  (void)node;
  mli_loop *inner = new_loop(&quiet, NULL);
  mli_node stop = { .run = stop_now };
  mli_loop_post(inner, &stop);
  mli_loop_run(inner);
  mli_release(inner);
  CHECK(mli_loop_self() == outer);
  mli_loop_stop(outer);
}

static void test_nested(void) {
  mli_loop *loop = new_loop(&quiet, NULL);
  mli_node node = { .run = run_inner };
  mli_loop_post(loop, &node);
  mli_loop_run(loop);
  CHECK(mli_loop_self() == NULL);
  mli_release(loop);
}

static void test_nothing_is_left(void) {
  int before = 0;
  for (int i = 0; i < 100; i++) {
    if (i == 1) before = check_open_files(); /* the first may open libuv's own for good */
    mli_loop *loop = new_loop(&quiet, NULL);
    pthread_t runner = check_thread(run_loop, loop);
    stop_and_join(loop, runner);
    mli_release(loop);
  }
  CHECK_EQ(check_open_files(), before);
  for (int i = 0; i < 20; i++) mli_release(new_loop(&quiet, NULL)); /* never run */
  CHECK_EQ(check_open_files(), before);
}

int main(void) {
  test_posting();
  for (int i = 0; i < 10; i++) test_stop_while_posting();
  test_messages_left_at_the_end();
  test_no_wake_while_awake();
  test_timers();
  test_nothing_starves();
  test_turns();
  test_again();
  test_nested();
  test_nothing_is_left();
  return check_report();
}
