#include "common/daemon/process.h"

#include "common/base/crypto.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <uv.h>

struct bt_process_watch {
    uv_poll_t poll;
    int fd;
    bt_loop_fn on_death;
    void *arg;
};

static bool read_small(const char *path, char *ret_text, size_t capacity)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t bytes = read(fd, ret_text, capacity - 1);
    close(fd);
    if (bytes <= 0) return false;
    ret_text[bytes] = '\0';
    return true;
}

/* Field 22 of /proc/PID/stat, counted after the command's closing parenthesis (it may hold
 * anything). 0 = gone. */
static uint64_t start_time(uint32_t pid)
{
    char path[48], text[1024];
    snprintf(path, sizeof(path), "/proc/%u/stat", pid);
    if (!read_small(path, text, sizeof(text))) return 0;
    const char *field = strrchr(text, ')');
    for (int i = 2; field != NULL && i < 22; i++) field = strchr(field + 1, ' ');
    uint64_t start = 0;
    if (field == NULL || sscanf(field, " %" SCNu64, &start) != 1) return 0;
    return start;
}

static uint64_t host_id(void)
{
    char text[256] = {0};
    if (!read_small("/proc/sys/kernel/random/boot_id", text, 64)) return 0;
    size_t used = strlen(text);
    ssize_t bytes = readlink("/proc/self/ns/pid", text + used, sizeof(text) - used - 1);
    if (bytes <= 0) return 0;
    bt_sha256 hash;
    bt_sha256_of(text, used + (size_t)bytes, &hash);
    uint64_t id;
    memcpy(&id, hash.bytes, sizeof(id));
    return id;
}

void bt_process_self(bt_process *ret_process)
{
    uint32_t pid = (uint32_t)getpid();
    *ret_process = (bt_process){.host = host_id(), .start = start_time(pid), .pid = pid};
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    bt_process_watch *watch = poll->data;
    uv_poll_stop(poll);
    watch->on_death(watch->arg);
}

static void on_closed(uv_handle_t *handle)
{
    bt_process_watch *watch = handle->data;
    close(watch->fd);
    free(watch);
}

static int open_pidfd(const bt_process *process, bt_err *err)
{
    int fd = (int)syscall(SYS_pidfd_open, process->pid, 0);
    if (fd < 0 && errno != ESRCH) {
        BT_FAIL(err, BT_ERR_OS, "pidfd of process %u: %s", process->pid, strerror(errno));
        return -1;
    }
    if (fd >= 0 && start_time(process->pid) == process->start) return fd;
    /* It is gone, and the number may be another's: a descriptor that is readable at once says so.
     */
    if (fd >= 0) close(fd);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        BT_FAIL(err, BT_ERR_OS, "pipe: %s", strerror(errno));
        return -1;
    }
    close(ends[1]);
    return ends[0];
}

bt_status bt_process_watch_open(bt_loop *loop, const bt_process *process, bt_loop_fn on_death,
                                void *arg, bt_process_watch **ret_watch, bt_err *err)
{
    if (process->host == 0 || process->start == 0 || process->pid == 0 ||
        process->pid > INT32_MAX || process->host != host_id())
        return BT_FAIL(err, BT_ERR_ARGUMENT, "process %u is not of this host", process->pid);
    bt_process_watch *watch = calloc(1, sizeof(*watch));
    if (watch == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "process watch");
    watch->on_death = on_death;
    watch->arg = arg;
    watch->fd = open_pidfd(process, err);
    if (watch->fd < 0) {
        free(watch);
        return BT_ERR_OS;
    }
    int rc = uv_poll_init(bt_loop_uv(loop), &watch->poll, watch->fd);
    if (rc != 0) {
        close(watch->fd);
        free(watch);
        return BT_FAIL(err, BT_ERR_OS, "watch of process %u: %s", process->pid, uv_strerror(rc));
    }
    watch->poll.data = watch;
    uv_poll_start(&watch->poll, UV_READABLE, on_readable);
    *ret_watch = watch;
    return BT_OK;
}

void bt_process_watch_close(bt_process_watch *watch)
{
    if (watch == NULL) return;
    uv_poll_stop(&watch->poll);
    uv_close((uv_handle_t *)&watch->poll, on_closed);
}
