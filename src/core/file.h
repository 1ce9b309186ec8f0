/*
** file.h: files, for whoever must not wait for a disk: each operation runs in
** libuv's pool of threads, and ends on its loop.
**
** F1  A descriptor is closed with the last reference to its file; an operation
**     on it holds one until it ends.
** F2  What the system has begun cannot be stopped. A cancelled operation that
**     changes a file ends when the system is done with it; others end at once.
** F3  An operation keeps its own memory until the pool is done with it.
** F4  A file may say what version of something it has a part of: a time, in
**     seconds since 1970, which is then the file's own, with a nanosecond that
**     tells it from other files.
*/
#ifndef MLI_FILE_H
#define MLI_FILE_H

#include "op.h"

typedef struct mli_file {
  mli_object object;
  int fd;                /* [I] */
  int64_t size, version; /* [I] when it was opened; 0: it has none */
  char path[];           /* [I] for messages */
} mli_file;

typedef enum mli_file_how {
  MLI_FILE_READ,
  MLI_FILE_WRITE, /* made if need be; its contents stay; and it is locked */
  MLI_FILE_FOLDER
} mli_file_how;

typedef struct mli_file_op mli_file_op;
struct mli_file_op {
  mli_op op;
  int (*work)(mli_file_op *f); /* in the pool: 0, or an errno */
  mli_file *file;              /* what it is about, until it ends; of an open: what it gives */
  char *bytes;                 /* of a read: what was read; of a write: what to write; owned */
  size_t size, room;           /* of `bytes` */
  int64_t offset;              /* where in the file */
  int64_t version;             /* the file's afterwards; 0: none is known */
  mli_file_how how;            /* of an open */
  char *path, *other;          /* of an open, a rename, an unlink: in `text` */
  uv_work_t req;
  char text[];
};

/* All return NULL when out of memory. Thread: any. */

/* ENOENT and the like; EISDIR and ESPIPE for what is no regular file; EAGAIN if it is
** to be written and another open file of this path is. */
mli_file_op *mli_file_open_new(mli_loop *loop, const char *path, mli_file_how how);
/* Reads up to `size` bytes; fewer at the end of the file. */
mli_file_op *mli_file_read_new(mli_loop *loop, mli_file *file, int64_t offset, size_t size);
/* Writes all of `bytes` (from malloc, with `room`), which it takes over on success;
** whoever made it may take them back after it ended with ML_OK. */
mli_file_op *mli_file_write_new(mli_loop *loop, mli_file *file, int64_t offset, char *bytes,
                                size_t size, size_t room, int64_t version);
/* Cuts it off, or lengthens it. */
mli_file_op *mli_file_truncate_new(mli_loop *loop, mli_file *file, int64_t size);
/* Brings it to the disk. */
mli_file_op *mli_file_sync_new(mli_loop *loop, mli_file *file);
mli_file_op *mli_file_rename_new(mli_loop *loop, const char *from, const char *to);
mli_file_op *mli_file_unlink_new(mli_loop *loop, const char *path);

#endif
