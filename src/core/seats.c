/* seats.c: tasks that belong together, in one child. */
#include <stdio.h>
#include "children.h"

struct mli_seat {
  mli_object object;
  mli_loop *loop;    /* [I] a reference */
  mli_node leave;    /* the holder's last word, to the loop */
  mli_seat *next;    /* [L] of its child */
  mli_child *child;  /* [L] NULL: none yet, or no more */
  bool lost, left;   /* [L] its child has ended; nobody holds it any more */
  mli_child_end end; /* [L] how its child ended */
};

static void seat_destroy(mli_object *object) {
  mli_seat *seat = mli_container(object, mli_seat, object);
  mli_release(seat->loop);
  free(seat);
}

static const mli_type seat_type = { "seat", seat_destroy, NULL };

mli_seat *mli_seat_new(mli_executor *ex) {
  mli_seat *seat = calloc(1, sizeof *seat);
  if (!seat) return NULL;
  mli_object_init(&seat->object, &seat_type);
  seat->loop = mli_retain(mli_executor_place(ex)->loop);
  return seat;
}

mli_object *mli_seat_object(mli_seat *seat) { return &seat->object; }

static void leave_place(mli_seat *seat) {
  mli_child *c = seat->child;
  if (!c) return;
  mli_seat **at = &c->seats;
  while (*at != seat) at = &(*at)->next;
  *at = seat->next;
  c->held--;
  seat->child = NULL;
}

static void on_leave(mli_node *node, mli_loop *loop) {
  mli_seat *seat = mli_container(node, mli_seat, leave);
  mli_child *c = seat->child;
  (void)loop;
  seat->left = true;
  leave_place(seat);
  if (c) mli_child_retire(c);
  mli_release(seat);
}

void mli_seat_leave(mli_seat *seat) {
  mli_loop *loop = seat->loop;
  seat->leave.run = on_leave;
  mli_object_retain(&seat->object);
  if (!mli_loop_post(loop, &seat->leave)) mli_release(seat); /* it has ended, and all children */
}

/* Its child: the one that the fewest hold, or a new one. 0, or why there is none. */
static int take_place(mli_processes *p, mli_seat *seat) {
  mli_child *best = NULL;
  int err = 0;
  for (mli_child *c = p->children; c; c = c->next)
    if (c->state < MLI_CHILD_ENDING && (!best || c->held < best->held)) best = c;
  if ((!best || best->held > 0) && p->alive < p->o.size && !(err = mli_child_add(p)))
    best = p->children;
  if (!best) return err;
  seat->child = best;
  seat->next = best->seats;
  best->seats = seat;
  best->held++;
  return 0;
}

static void fail_lost(mli_processes *p, mli_task *task, const mli_child_end *end) {
  char text[128];
  snprintf(text, sizeof text, "process %d of executor '%s' that was held has ended", (int)end->pid,
           p->worker->executor->name);
  mli_processes_fail(p, task, p->o.hooks->error(p, "crashed", text, end), NULL);
}

void mli_seat_run(mli_processes *p, mli_task *task) {
  mli_seat *seat = mli_container(task->seat, mli_seat, object);
  int err = 0;
  if (seat->left) { /* it was submitted while the seat was given up: any child will do */
    mli_line_put(&p->queue, task);
    p->queued++;
  } else if (seat->lost) {
    if (mli_processes_claim(p, task)) fail_lost(p, task, &seat->end);
  } else if (!seat->child && (err = take_place(p, seat)) != 0) {
    if (mli_processes_claim(p, task))
      mli_processes_fail(p, task, mli_processes_start_error(p, err), NULL);
  } else {
    mli_line_put(&seat->child->own, task);
  }
}

void mli_seats_end(mli_child *c, const mli_child_end *end) {
  mli_processes *p = c->pool;
  while (c->seats) {
    c->seats->lost = true;
    c->seats->end = *end;
    leave_place(c->seats);
  }
  if (!c->own.first) return;
  char text[384];
  mli_child_describe(c, end, text, sizeof text);
  mli_message *error = p->o.hooks->error(p, "crashed", text, end);
  mli_line_fail(p, &c->own, error, NULL);
  mli_message_free(error);
}
