/* file.c: operations on files in libuv's pool. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "system.h"

#define VERSION_MARK 1 /* nanoseconds: see F4 */

/* ---- files ---- */

static void destroy_file(mli_object *object) {
  mli_file *file = mli_container(object, mli_file, object);
  if (file->fd >= 0) close(file->fd);
  free(file);
}

static const mli_type file_type = { .name = "file", .destroy = destroy_file };

static mli_file *file_new(const char *path) {
  size_t size = strlen(path) + 1;
  mli_file *file = malloc(sizeof *file + size);
  if (!file) return NULL;
  mli_object_init(&file->object, &file_type);
  file->fd = -1;
  file->size = file->version = 0;
  memcpy(file->path, path, size);
  return file;
}

/* ---- what they have in common ---- */

static int work_open(mli_file_op *f);

static void destroy_op(mli_object *object) {
  mli_file_op *f = mli_container(object, mli_file_op, op.object);
  if (f->file) mli_release(f->file);
  free(f->bytes);
  mli_op_fini(&f->op);
  free(f);
}

static const mli_type op_type = { .name = "file operation", .destroy = destroy_op };

static mli_file_op *op_new(mli_loop *loop, const mli_op_class *class, int (*work)(mli_file_op *),
                           mli_file *file, const char *path, const char *other) {
  size_t size = path ? strlen(path) + 1 : 0, more = other ? strlen(other) + 1 : 0;
  mli_file_op *f = malloc(sizeof *f + size + more);
  if (!f) return NULL;
  memset(f, 0, sizeof *f);
  mli_op_init(&f->op, &op_type, class, loop);
  f->work = work;
  if (file) f->file = mli_retain(file);
  if (path) f->path = memcpy(f->text, path, size);
  if (other) f->other = memcpy(f->text + size, other, more);
  return f;
}

/* `err` is libuv's: negative, or 0. Lets go of the file first, so that who waits finds it
** closed if nobody else has it; what an open gives is for who waits. */
static void end(mli_file_op *f, int err) {
  char what[512];
  snprintf(what, sizeof what, "%s %s", f->op.class->name, f->path ? f->path : f->file->path);
  if (f->work != work_open || err < 0 || f->op.ended) {
    if (f->file) mli_release(f->file);
    f->file = NULL;
  }
  if (!f->op.ended) mli_op_end_uv(&f->op, err, what);
}

/* In the pool. */
static void on_work(uv_work_t *req) {
  mli_file_op *f = mli_container(req, mli_file_op, req);
  int err;
  do err = f->work(f);
  while (err == EINTR);
  req->data = (void *)(intptr_t)uv_translate_sys_error(err);
}

static void on_worked(uv_work_t *req, int cancelled) {
  mli_file_op *f = mli_container(req, mli_file_op, req);
  end(f, cancelled ? cancelled : (int)(intptr_t)req->data);
  mli_release(&f->op);
}

static void start(mli_op *op) {
  mli_file_op *f = mli_container(op, mli_file_op, op);
  int err = uv_queue_work(&op->loop->uv, &f->req, on_work, on_worked);
  if (err) {
    end(f, err);
    return;
  }
  mli_object_retain(&op->object); /* F3 */
}

static void abort_at_once(mli_op *op) {
  mli_file_op *f = mli_container(op, mli_file_op, op);
  mli_op_end(op, ML_CANCELLED, NULL, NULL);
  uv_cancel((uv_req_t *)&f->req);
}

/* What changes a file is not left behind: whoever writes there next comes after it. */
static void abort_when_done(mli_op *op) {
  uv_cancel((uv_req_t *)&mli_container(op, mli_file_op, op)->req);
}

/* ---- opening ---- */

/* Whether the path leads to another file by now: whoever had the lock before has
** renamed or removed this one. */
static bool is_gone(const char *path, const struct stat *was) {
  struct stat now;
  return stat(path, &now) < 0 || now.st_ino != was->st_ino || now.st_dev != was->st_dev;
}

static int work_open(mli_file_op *f) {
  static const int flags[] = { [MLI_FILE_READ] = O_RDONLY,
                               [MLI_FILE_WRITE] = O_RDWR | O_CREAT,
                               [MLI_FILE_FOLDER] = O_RDONLY | O_DIRECTORY };
  struct stat now;
  mli_file *file = f->file;
  if (file->fd < 0) file->fd = open(f->path, flags[f->how] | O_CLOEXEC, 0666);
  if (file->fd < 0) return errno;
  if (f->how == MLI_FILE_WRITE && flock(file->fd, LOCK_EX | LOCK_NB) < 0) return errno;
  if (fstat(file->fd, &now) < 0) return errno;
  if (f->how != MLI_FILE_FOLDER && !S_ISREG(now.st_mode))
    return S_ISDIR(now.st_mode) ? EISDIR : ESPIPE;
  file->size = now.st_size;
  file->version = now.st_mtim.tv_nsec == VERSION_MARK ? now.st_mtim.tv_sec : 0;
  return f->how == MLI_FILE_WRITE && is_gone(f->path, &now) ? EAGAIN : 0;
}

static const mli_op_class open_class = { "open", start, abort_at_once };

mli_file_op *mli_file_open_new(mli_loop *loop, const char *path, mli_file_how how) {
  mli_file *file = file_new(path);
  if (!file) return NULL;
  mli_file_op *f = op_new(loop, &open_class, work_open, file, path, NULL);
  if (f) f->how = how;
  mli_release(file);
  return f;
}

/* ---- reading and writing ---- */

static int work_read(mli_file_op *f) {
  ssize_t n = pread(f->file->fd, f->bytes, f->room, f->offset);
  f->size = n > 0 ? (size_t)n : 0;
  return n < 0 ? errno : 0;
}

static const mli_op_class read_class = { "read", start, abort_at_once };

mli_file_op *mli_file_read_new(mli_loop *loop, mli_file *file, int64_t offset, size_t size) {
  mli_file_op *f = op_new(loop, &read_class, work_read, file, NULL, NULL);
  if (!f) return NULL;
  f->offset = offset;
  f->room = size;
  f->bytes = malloc(size ? size : 1);
  if (f->bytes) return f;
  mli_release(&f->op);
  return NULL;
}

static int work_write(mli_file_op *f) {
  for (size_t done = 0; done < f->size;) {
    ssize_t n = pwrite(f->file->fd, f->bytes + done, f->size - done,
                       (off_t)(f->offset + (int64_t)done));
    if (n == 0) return EIO;
    if (n < 0 && errno != EINTR) return errno;
    if (n > 0) done += (size_t)n;
  }
  struct timespec times[2] = { { .tv_nsec = UTIME_OMIT },
                               { .tv_sec = f->version, .tv_nsec = VERSION_MARK } };
  return f->version && futimens(f->file->fd, times) < 0 ? errno : 0;
}

static const mli_op_class write_class = { "write", start, abort_when_done };

mli_file_op *mli_file_write_new(mli_loop *loop, mli_file *file, int64_t offset, char *bytes,
                                size_t size, size_t room, int64_t version) {
  mli_file_op *f = op_new(loop, &write_class, work_write, file, NULL, NULL);
  if (!f) return NULL;
  f->offset = offset;
  f->bytes = bytes;
  f->size = size;
  f->room = room;
  f->version = version;
  return f;
}

static int work_truncate(mli_file_op *f) {
  return ftruncate(f->file->fd, f->offset) < 0 ? errno : 0;
}

static const mli_op_class truncate_class = { "truncate", start, abort_when_done };

mli_file_op *mli_file_truncate_new(mli_loop *loop, mli_file *file, int64_t size) {
  mli_file_op *f = op_new(loop, &truncate_class, work_truncate, file, NULL, NULL);
  if (f) f->offset = size;
  return f;
}

static int work_sync(mli_file_op *f) { return fsync(f->file->fd) < 0 ? errno : 0; }

static const mli_op_class sync_class = { "fsync", start, abort_at_once };

mli_file_op *mli_file_sync_new(mli_loop *loop, mli_file *file) {
  return op_new(loop, &sync_class, work_sync, file, NULL, NULL);
}

/* ---- paths ---- */

static int work_rename(mli_file_op *f) { return rename(f->path, f->other) < 0 ? errno : 0; }

static const mli_op_class rename_class = { "rename", start, abort_when_done };

mli_file_op *mli_file_rename_new(mli_loop *loop, const char *from, const char *to) {
  return op_new(loop, &rename_class, work_rename, NULL, from, to);
}

static int work_unlink(mli_file_op *f) { return unlink(f->path) < 0 ? errno : 0; }

static const mli_op_class unlink_class = { "unlink", start, abort_when_done };

mli_file_op *mli_file_unlink_new(mli_loop *loop, const char *path) {
  return op_new(loop, &unlink_class, work_unlink, NULL, path, NULL);
}
