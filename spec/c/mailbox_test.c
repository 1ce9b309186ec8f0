/* Tests of the mailbox: M1 to M3 of core/mailbox.h. */
#include "check.h"
#include "core/mailbox.h"
#include "core/park.h"

typedef struct letter {
  mli_node node;
  int sender, number;
} letter;

static letter *letter_of(mli_node *node) { return mli_container(node, letter, node); }

static void test_order(void) {
  mli_mailbox box;
  letter letters[5];
  mli_mailbox_init(&box);
  CHECK(mli_mailbox_take(&box) == NULL);
  for (int i = 0; i < 5; i++) {
    letters[i].number = i;
    CHECK_EQ(mli_mailbox_push(&box, &letters[i].node), MLI_PUSHED);
  }
  int n = 0;
  for (mli_node *node = mli_mailbox_take(&box); node; node = node->next)
    CHECK_EQ(letter_of(node)->number, n++);
  CHECK_EQ(n, 5);
  CHECK(mli_mailbox_take(&box) == NULL);
}

static void test_arming(void) {
  mli_mailbox box;
  mli_node a, b;
  mli_mailbox_init(&box);
  CHECK(mli_mailbox_arm(&box));
  CHECK(mli_mailbox_arm(&box)); /* still armed */
  CHECK_EQ(mli_mailbox_push(&box, &a), MLI_PUSHED_WAKE);
  CHECK_EQ(mli_mailbox_push(&box, &b), MLI_PUSHED); /* one wake is enough */
  CHECK(!mli_mailbox_arm(&box));                    /* something is there */
  mli_node *all = mli_mailbox_take(&box);
  CHECK(all == &a && a.next == &b && b.next == NULL);

  CHECK(mli_mailbox_arm(&box));
  CHECK(mli_mailbox_take(&box) == NULL); /* awake again, nothing came */
  CHECK_EQ(mli_mailbox_push(&box, &a), MLI_PUSHED);
  CHECK(mli_mailbox_take(&box) == &a);
}

static void test_closing(void) {
  mli_mailbox box;
  mli_node a, b;
  mli_mailbox_init(&box);
  mli_mailbox_push(&box, &a);
  mli_mailbox_push(&box, &b);
  mli_node *rest = mli_mailbox_close(&box);
  CHECK(rest == &a && a.next == &b && b.next == NULL);
  CHECK_EQ(mli_mailbox_push(&box, &a), MLI_PUSH_REFUSED);
  CHECK(mli_mailbox_close(&box) == NULL);
  CHECK_EQ(mli_mailbox_push(&box, &a), MLI_PUSH_REFUSED);

  mli_mailbox_init(&box);
  CHECK(mli_mailbox_arm(&box));
  CHECK(mli_mailbox_close(&box) == NULL);
}

/* Many senders, one receiver that sleeps whenever it can. */
enum { SENDERS = 4, LETTERS = CHECK_ROUNDS(50000) };

static struct {
  mli_mailbox box;
  mli_parker parker;
  atomic_int wakes, accepted;
  letter letters[SENDERS][LETTERS];
} post;

static void *send_all(void *argument) {
  letter *mine = argument;
  for (int i = 0; i < LETTERS; i++) {
    mli_pushed pushed = mli_mailbox_push(&post.box, &mine[i].node);
    if (pushed == MLI_PUSH_REFUSED) break;
    atomic_fetch_add(&post.accepted, 1);
    if (pushed == MLI_PUSHED_WAKE) {
      atomic_fetch_add(&post.wakes, 1);
      mli_unpark(&post.parker);
    }
  }
  return NULL;
}

static void open_post(pthread_t *threads) {
  mli_mailbox_init(&post.box);
  atomic_store(&post.wakes, 0);
  atomic_store(&post.accepted, 0);
  for (int s = 0; s < SENDERS; s++) {
    for (int i = 0; i < LETTERS; i++) {
      post.letters[s][i].sender = s;
      post.letters[s][i].number = i;
    }
    threads[s] = check_thread(send_all, post.letters[s]);
  }
}

/* Counts the letters and whether each sender's came in order. */
static int receive(mli_node *node, int *next, int *misplaced) {
  int n = 0;
  while (node) {
    letter *l = letter_of(node);
    node = node->next;
    *misplaced += l->number != next[l->sender]++;
    n++;
  }
  return n;
}

static void test_many_senders(void) {
  pthread_t threads[SENDERS];
  int next[SENDERS] = { 0 }, got = 0, sleeps = 0, misplaced = 0;
  open_post(threads);
  while (got < SENDERS * LETTERS) {
    got += receive(mli_mailbox_take(&post.box), next, &misplaced);
    if (got < SENDERS * LETTERS && mli_mailbox_arm(&post.box)) {
      sleeps++;
      if (!CHECK_EQ(mli_park(&post.parker, mli_now() + 10 * MLI_SECOND), ML_OK)) break;
    }
  }
  for (int s = 0; s < SENDERS; s++) pthread_join(threads[s], NULL);
  CHECK_EQ(got, SENDERS * LETTERS);
  CHECK_EQ(misplaced, 0);
  CHECK_EQ(atomic_load(&post.wakes), sleeps); /* one system call for each sleep */
}

static void test_close_while_sending(void) {
  pthread_t threads[SENDERS];
  int next[SENDERS] = { 0 }, got = 0, misplaced = 0;
  open_post(threads);
  while (got < LETTERS / 2) got += receive(mli_mailbox_take(&post.box), next, &misplaced);
  got += receive(mli_mailbox_close(&post.box), next, &misplaced);
  for (int s = 0; s < SENDERS; s++) pthread_join(threads[s], NULL);
  CHECK_EQ(got, atomic_load(&post.accepted));
  CHECK_EQ(misplaced, 0);
}

int main(void) {
  test_order();
  test_arming();
  test_closing();
  test_many_senders();
  for (int i = 0; i < 20; i++) test_close_while_sending();
  return check_report();
}
