/* file.h - small files of a checkpoint folder, whole, and names of outside origin in messages. */
#ifndef BT_COMMON_WEIGHTS_FILE_H
#define BT_COMMON_WEIGHTS_FILE_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Opens a regular file for reading; a FIFO or device is refused without waiting for it. */
bt_status bt_file_open(const char *path, int *ret_fd, uint64_t *ret_bytes, bt_err *err);

/* Exactly bytes bytes from offset 0; a file that has become shorter is ERR_FORMAT. */
bt_status bt_file_read_fd(int fd, const char *path, void *data, uint64_t bytes, bt_err *err);

/* The whole file in malloc'd memory with a NUL behind it. ERR_LIMIT above bytes_max. */
bt_status bt_file_read(const char *path, uint64_t bytes_max, char **ret_data, size_t *ret_bytes,
                       bt_err *err);

/* ENOENT and nothing else. */
bool bt_file_missing(const char *path);

/* A path or name fit for a message: its last bytes, control characters and non-ASCII as '?'. */
typedef struct {
    char text[72];
} bt_shown;
bt_shown bt_show(const char *name);

#endif
