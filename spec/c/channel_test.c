/* Tests of channels, waiters, barriers and events: N1 to N4 of core/channel.h, Q1, B1. */
#include "check.h"
#include "core/channel.h"
#include "core/sem.h"
#include "core/sync.h"

/* ---- a thread that waits ---- */

typedef struct sleeper {
  mli_waker waker;
  mli_parker *parker;
  atomic_int wakes;
} sleeper;

static void sleeper_wake(mli_waker *waker) {
  sleeper *s = mli_container(waker, sleeper, waker);
  mli_parker *parker = s->parker;
  atomic_fetch_add(&s->wakes, 1);
  mli_unpark(parker);
}

static void sleeper_init(sleeper *s) {
  *s = (sleeper){ .waker.wake = sleeper_wake, .parker = mli_parker_get() };
}

/* True: woken. */
static bool sleeper_wait(sleeper *s, uint64_t deadline) {
  while (atomic_load(&s->wakes) == 0)
    if (mli_park(s->parker, deadline) == ML_TIMEOUT) return atomic_load(&s->wakes) > 0;
  return true;
}

static void sleeper_fini(sleeper *s) { mli_parker_put(s->parker); }

/* ---- items ---- */

static atomic_int alive;

typedef struct item {
  mli_item item;
  int value;
} item;

static void item_drop(mli_item *i) {
  free(mli_container(i, item, item));
  atomic_fetch_sub(&alive, 1);
}

static mli_item *item_new(int value, double priority) {
  item *i = calloc(1, sizeof *i);
  if (!i) abort();
  i->item.drop = item_drop;
  i->item.priority = priority;
  i->value = value;
  atomic_fetch_add(&alive, 1);
  return &i->item;
}

static int item_take(mli_item *i) {
  int value = mli_container(i, item, item)->value;
  item_drop(i);
  return value;
}

static ml_status try_send(mli_channel *channel, int value, double priority) {
  mli_offer offer = { .channel = channel, .send = true, .item = item_new(value, priority) };
  ml_status status = mli_offer_try(&offer);
  if (offer.item) item_drop(offer.item);
  return status;
}

/* The value, or minus the status. */
static int try_receive(mli_channel *channel) {
  mli_offer offer = { .channel = channel };
  ml_status status = mli_offer_try(&offer);
  return status == ML_OK ? item_take(offer.item) : -(int)status;
}

/* ---- one thread ---- */

static void test_orders(void) {
  static const struct {
    mli_order order;
    int expected[4];
  } cases[] = { { MLI_FIFO, { 1, 2, 3, 4 } },
                { MLI_LIFO, { 4, 3, 2, 1 } },
                { MLI_PRIORITY, { 3, 1, 4, 2 } } };
  static const double priorities[] = { 1, 7, -2, 1 };
  for (int c = 0; c < 3; c++) {
    mli_channel *channel = mli_channel_new(&mli_queue_type, 4, cases[c].order);
    for (int i = 0; i < 4; i++) CHECK_EQ(try_send(channel, i + 1, priorities[i]), ML_OK);
    CHECK_EQ(try_send(channel, 5, 0), ML_BUSY);
    for (int i = 0; i < 4; i++) CHECK_EQ(try_receive(channel), cases[c].expected[i]);
    CHECK_EQ(try_receive(channel), -ML_BUSY);
    CHECK_EQ(try_send(channel, 6, 0), ML_OK); /* it is dropped with the channel */
    mli_release(channel);
  }
  CHECK_EQ(atomic_load(&alive), 0);
}

static void test_waiting_offers(void) {
  mli_channel *channel = mli_channel_new(&mli_channel_type, 0, MLI_FIFO);
  mli_choice choices[2];
  sleeper sleepers[2];
  mli_offer offers[2] = { { .channel = channel }, { .channel = channel } };
  for (int i = 0; i < 2; i++) {
    sleeper_init(&sleepers[i]);
    mli_choice_init(&choices[i], &sleepers[i].waker);
    CHECK(!mli_choice_offer(&choices[i], &offers[i], 1));
  }
  CHECK(mli_choice_give_up(&choices[0])); /* it is skipped, though still queued */
  CHECK_EQ(try_send(channel, 7, 0), ML_OK);
  CHECK(!mli_choice_give_up(&choices[1]));
  CHECK_EQ(atomic_load(&sleepers[0].wakes), 0);
  CHECK_EQ(atomic_load(&sleepers[1].wakes), 1);
  CHECK_EQ(item_take(offers[1].item), 7);
  CHECK_EQ(try_send(channel, 8, 0), ML_BUSY);
  mli_choice_withdraw(offers, 2);

  mli_choice_init(&choices[0], &sleepers[0].waker);
  CHECK(!mli_choice_offer(&choices[0], &offers[0], 1));
  mli_channel_close(channel, false);
  CHECK_EQ(atomic_load(&sleepers[0].wakes), 1);
  CHECK_EQ(offers[0].status, ML_CLOSED);
  CHECK(mli_choice_offer(&choices[1], &offers[1], 1)); /* closed: met at once */
  for (int i = 0; i < 2; i++) sleeper_fini(&sleepers[i]);
  mli_release(channel);
  CHECK_EQ(atomic_load(&alive), 0);
}

static void test_waiters(void) {
  mli_sem sem;
  sleeper sleepers[4];
  mli_waiter waiters[4];
  mli_sem_init(&sem, 0);
  for (int i = 0; i < 4; i++) {
    sleeper_init(&sleepers[i]);
    waiters[i] = (mli_waiter){ .waker = &sleepers[i].waker };
    CHECK(!mli_sem_acquire(&sem, &waiters[i]));
  }
  CHECK(mli_sem_remove(&sem, &waiters[1]));
  CHECK(!mli_sem_remove(&sem, &waiters[1]));
  CHECK(mli_sem_release_many(&sem, 2));
  CHECK(!mli_sem_remove(&sem, &waiters[0]));
  CHECK(!mli_sem_remove(&sem, &waiters[2]));
  CHECK(mli_sem_remove(&sem, &waiters[3]));
  for (int i = 0; i < 4; i++) CHECK_EQ(atomic_load(&sleepers[i].wakes), i == 0 || i == 2);
  CHECK(mli_sem_release_many(&sem, 5));
  CHECK_EQ(mli_sem_value(&sem), 5);
  CHECK(!mli_sem_release_many(&sem, MLI_SEM_MAX));

  mli_barrier barrier;
  mli_barrier_init(&barrier, 3);
  CHECK(!mli_barrier_wait(&barrier, &waiters[0]));
  CHECK(!mli_barrier_wait(&barrier, &waiters[1]));
  CHECK(mli_waiters_remove(&barrier.waiters, &waiters[0]));
  CHECK(!mli_barrier_wait(&barrier, &waiters[2]));
  CHECK(mli_barrier_wait(&barrier, &waiters[3]));
  for (uint64_t i = 1; i < 4; i++) CHECK_EQ(waiters[i].granted, i);
  CHECK_EQ(atomic_load(&sleepers[3].wakes), 0); /* the last one goes on by itself */
  mli_barrier_abort(&barrier);
  CHECK(mli_barrier_wait(&barrier, &waiters[0]));
  CHECK_EQ(waiters[0].granted, 0);

  mli_event event;
  mli_event_init(&event);
  CHECK(!mli_event_wait(&event, &waiters[1]));
  mli_event_set(&event);
  mli_event_clear(&event);
  CHECK(!mli_waiters_remove(&event.waiters, &waiters[1]));
  CHECK(!mli_event_is_set(&event));
  for (int i = 0; i < 4; i++) sleeper_fini(&sleepers[i]);
}

/* ---- threads ---- */

enum { CHANNELS = 3, THREADS = 3 };

typedef struct party {
  mli_channel *channels[CHANNELS];
  int count;
  unsigned seed;
  long long sum; /* of what was sent or received */
} party;

/* Sends or receives `count` values, each on whichever of some channels is first; many
** choices have too little time. */
static void run_party(party *p, bool send) {
  for (int n = 0; n < p->count;) {
    sleeper s;
    mli_choice choice;
    mli_offer offers[CHANNELS];
    size_t many = 1 + (size_t)rand_r(&p->seed) % CHANNELS;
    size_t from = (size_t)rand_r(&p->seed) % CHANNELS;
    uint64_t patience = rand_r(&p->seed) % 2 ? 20000 : 2 * MLI_MILLISECOND;
    sleeper_init(&s);
    mli_choice_init(&choice, &s.waker);
    for (size_t i = 0; i < many; i++)
      offers[i] = (mli_offer){ .channel = p->channels[(from + i) % CHANNELS],
                               .send = send,
                               .item = send ? item_new(n + 1, 0) : NULL };
    bool met = mli_choice_offer(&choice, offers, many);
    if (!met) met = sleeper_wait(&s, mli_now() + patience);
    if (!met && !mli_choice_give_up(&choice)) met = sleeper_wait(&s, MLI_FOREVER);
    mli_choice_withdraw(offers, many);
    if (met) {
      n++;
      p->sum += send ? n : item_take(choice.met->item);
      choice.met->item = NULL;
    }
    for (size_t i = 0; i < many; i++)
      if (offers[i].item) item_drop(offers[i].item);
    sleeper_fini(&s);
  }
}

static void *run_sender(void *p) { return run_party(p, true), NULL; }
static void *run_receiver(void *p) { return run_party(p, false), NULL; }

static void test_threads(void) {
  party parties[2 * THREADS];
  pthread_t threads[2 * THREADS];
  mli_channel *channels[CHANNELS];
  for (int i = 0; i < CHANNELS; i++)
    channels[i] = mli_channel_new(&mli_channel_type, i == 2 ? 2 : 0, MLI_FIFO);
  for (unsigned i = 0; i < 2 * THREADS; i++) {
    parties[i] = (party){ .count = CHECK_ROUNDS(20000), .seed = i + 1 };
    for (int c = 0; c < CHANNELS; c++) parties[i].channels[c] = channels[c];
    threads[i] = check_thread(i % 2 ? run_sender : run_receiver, &parties[i]);
  }
  long long sent = 0, received = 0;
  for (int i = 0; i < 2 * THREADS; i++) {
    pthread_join(threads[i], NULL);
    *(i % 2 ? &sent : &received) += parties[i].sum;
  }
  CHECK_EQ(sent, received);
  for (int i = 0; i < CHANNELS; i++) {
    CHECK_EQ(mli_channel_count(channels[i]), 0);
    CHECK(!channels[i]->senders && !channels[i]->receivers);
    mli_release(channels[i]);
  }
  CHECK_EQ(atomic_load(&alive), 0);
}

int main(void) {
  test_orders();
  test_waiting_offers();
  test_waiters();
  test_threads();
  return check_report();
}
