#include "common/weights/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHOW(name) bt_show(name).text

bt_shown bt_show(const char *name)
{
    bt_shown shown;
    size_t bytes = strlen(name), room = sizeof(shown.text) - 1, at = 0;
    if (bytes > room) {
        memcpy(shown.text, "...", 3);
        at = 3;
        name += bytes - (room - 3);
    }
    for (; *name != '\0'; name++) {
        unsigned char c = (unsigned char)*name;
        shown.text[at++] = c >= 0x20 && c < 0x7f ? (char)c : '?';
    }
    shown.text[at] = '\0';
    return shown;
}

static bt_status fail_os(bt_err *err, const char *path, const char *doing)
{
    int saved = errno;
    bt_status status =
        BT_FAIL(err, BT_ERR_OS, "%s: cannot %s: %s", SHOW(path), doing, strerror(saved));
    if (err != NULL) err->os_errno = saved;
    return status;
}

bool bt_file_missing(const char *path)
{
    struct stat st;
    return stat(path, &st) != 0 && errno == ENOENT;
}

bt_status bt_file_open(const char *path, int *ret_fd, uint64_t *ret_bytes, bt_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return fail_os(err, path, "open");
    struct stat st;
    if (fstat(fd, &st) != 0) {
        bt_status status = fail_os(err, path, "stat");
        close(fd);
        return status;
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return BT_FAIL(err, BT_ERR_OS, "%s: is not a regular file", SHOW(path));
    }
    *ret_fd = fd;
    *ret_bytes = (uint64_t)st.st_size;
    return BT_OK;
}

bt_status bt_file_read_fd(int fd, const char *path, void *data, uint64_t bytes, bt_err *err)
{
    uint64_t at = 0;
    while (at < bytes) {
        ssize_t got = pread(fd, (char *)data + at, bytes - at, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail_os(err, path, "read");
        if (got == 0)
            return BT_FAIL(err, BT_ERR_FORMAT, "%s: became shorter while it was read", SHOW(path));
        at += (uint64_t)got;
    }
    return BT_OK;
}

bt_status bt_file_read(const char *path, uint64_t bytes_max, char **ret_data, size_t *ret_bytes,
                       bt_err *err)
{
    int fd;
    uint64_t bytes;
    bt_status status = bt_file_open(path, &fd, &bytes, err);
    if (status != BT_OK) return status;
    char *data = NULL;
    if (bytes > bytes_max) {
        status = BT_FAIL(err, BT_ERR_LIMIT, "%s: has %llu bytes, the limit is %llu", SHOW(path),
                         (unsigned long long)bytes, (unsigned long long)bytes_max);
    } else if ((data = malloc((size_t)bytes + 1)) == NULL) {
        status = BT_FAIL(err, BT_ERR_NO_MEMORY, "%s: no memory for its bytes", SHOW(path));
    } else {
        status = bt_file_read_fd(fd, path, data, bytes, err);
    }
    close(fd);
    if (status != BT_OK) {
        free(data);
        return status;
    }
    data[bytes] = '\0';
    *ret_data = data;
    *ret_bytes = (size_t)bytes;
    return BT_OK;
}
