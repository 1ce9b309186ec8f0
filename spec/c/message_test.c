/* Tests of messages: bytes that are kept, references that are given back. */
#include <string.h>
#include "check.h"
#include "core/message.h"

typedef struct thing {
  mli_object object;
  int destroyed;
} thing;

static void thing_destroy(mli_object *object) { mli_container(object, thing, object)->destroyed++; }

static const mli_type thing_type = { "thing", thing_destroy };

static void test_copied(void) {
  char bytes[] = "a\0b";
  mli_message *m = mli_message_new(bytes, sizeof bytes, NULL, 0);
  memset(bytes, 'x', sizeof bytes);
  CHECK_EQ(m->size, 4);
  CHECK_EQ(m->count, 0);
  CHECK(memcmp(m->bytes, "a\0b", 4) == 0);
  mli_message_free(m);
}

static void test_adopted(void) {
  unsigned char *bytes = malloc(1000);
  memset(bytes, 7, 1000);
  mli_message *m = mli_message_adopt(bytes, 1000, NULL, 0);
  CHECK(m->bytes == bytes);
  CHECK_EQ(m->size, 1000);
  mli_message_free(m);
}

static void test_empty(void) {
  mli_message *m = mli_message_new(NULL, 0, NULL, 0);
  CHECK_EQ(m->size, 0);
  mli_message_free(m);
  m = mli_message_adopt(NULL, 0, NULL, 0);
  CHECK_EQ(m->size, 0);
  mli_message_free(m);
  mli_message_free(NULL);
}

static void test_references(void) {
  thing a = { .destroyed = 0 }, b = { .destroyed = 0 };
  mli_object_init(&a.object, &thing_type);
  mli_object_init(&b.object, &thing_type);
  mli_object *list[] = { &a.object, &mli_retain(&a)->object, &b.object };
  mli_message *m = mli_message_new("x", 1, list, 3);
  list[0] = list[1] = list[2] = NULL; /* the message has its own list */
  CHECK(m->objects[0] == &a.object && m->objects[2] == &b.object);
  CHECK_EQ(m->bytes[0], 'x');
  mli_object *again = &mli_retain(&a)->object;
  mli_message *n = mli_message_adopt(malloc(1), 1, &again, 1);
  mli_message_free(m);
  CHECK_EQ(a.destroyed, 0);
  CHECK_EQ(b.destroyed, 1);
  mli_message_free(n);
  CHECK_EQ(a.destroyed, 1);
}

/* Without memory what was handed over is given back all the same. */
static void test_no_memory(void) {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  thing a = { .destroyed = 0 };
  mli_object_init(&a.object, &thing_type);
  mli_object *list[] = { &a.object };
  volatile size_t too_much = SIZE_MAX / 4;
  CHECK(mli_message_new("", too_much, list, 1) == NULL);
  CHECK_EQ(a.destroyed, 1);
#endif
}

enum { HOLDERS = 4, ROUNDS = CHECK_ROUNDS(100000) };

static void *hold_often(void *argument) {
  thing *t = argument;
  for (int i = 0; i < ROUNDS; i++) {
    mli_object *o = &mli_retain(t)->object;
    mli_message_free(mli_message_new(NULL, 0, &o, 1));
  }
  mli_release(t);
  return NULL;
}

static void test_references_of_threads(void) {
  thing t = { .destroyed = 0 };
  mli_object_init(&t.object, &thing_type);
  pthread_t threads[HOLDERS];
  for (int i = 0; i < HOLDERS; i++) threads[i] = check_thread(hold_often, mli_retain(&t));
  mli_release(&t);
  for (int i = 0; i < HOLDERS; i++) pthread_join(threads[i], NULL);
  CHECK_EQ(t.destroyed, 1);
}

int main(void) {
  test_copied();
  test_adopted();
  test_empty();
  test_references();
  test_no_memory();
  test_references_of_threads();
  return check_report();
}
