/* doctor_transports.c - which lanes UCX really makes between two processes of this host, and how
 * fast each is.
 *
 * For each transport a child opens a landing arena and this process puts into it, exactly as the
 * daemons do: a transport that UCX lists need not work. */
#include "common/xfer/xfer.h"
#include "ops/cli/doctor/doctor.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PUT_BYTES ((size_t)1 << 20)
#define ARENA_BYTES (16 * PUT_BYTES)
#define PUTS 64u
#define TIMEOUT_S 5.0

/* What one side tells the other. */
typedef struct {
    bool ok;
    char why[sizeof(((bt_err *)NULL)->message)];
    uint8_t address[BT_XFER_ADDRESS_BYTES_MAX], rkey[BT_XFER_RKEY_BYTES_MAX];
    uint32_t address_bytes, rkey_bytes;
    uint64_t arena;
} card;

typedef struct {
    bt_xfer *xfer;
    bt_xfer_peer *peer;
    card mine, other;
    uint32_t done;
    bool failed;
} side;

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void on_message(void *arg, uint64_t sender, const void *data, size_t bytes)
{
    (void)arg, (void)sender, (void)data, (void)bytes;
}

static void on_put(void *arg, bt_xfer_peer *peer, uint64_t tag, bt_status status)
{
    side *self = arg;
    (void)peer, (void)tag;
    self->done++;
    self->failed |= status != BT_OK;
}

static void on_peer_error(void *arg, bt_xfer_peer *peer, const char *why)
{
    (void)peer, (void)why;
    ((side *)arg)->failed = true;
}

static bool whole_card(int socket, card *ret_card)
{
    struct timeval timeout = {.tv_sec = (time_t)TIMEOUT_S};
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    return recv(socket, ret_card, sizeof(*ret_card), MSG_WAITALL) == (ssize_t)sizeof(*ret_card);
}

/* Opens a worker and an arena over this transport alone, and exchanges cards. */
static bt_status open_side(side *self, const char *transport, int socket, bt_err *err)
{
    const bt_xfer_config config = {.transports = transport, .net_devices = "lo", .allow_tcp = true};
    const bt_xfer_handler handler = {self, on_message, on_put, on_peer_error};
    uint8_t *arena = NULL;
    bt_status status = bt_xfer_create(&config, &handler, &self->xfer, err);
    if (status == BT_OK) status = bt_xfer_arena_open(self->xfer, ARENA_BYTES, &arena, err);
    if (status == BT_OK) {
        const uint8_t *bytes;
        bt_xfer_worker_address(self->xfer, &bytes, &self->mine.address_bytes);
        memcpy(self->mine.address, bytes, self->mine.address_bytes);
        bt_xfer_arena_rkey(self->xfer, &bytes, &self->mine.rkey_bytes);
        memcpy(self->mine.rkey, bytes, self->mine.rkey_bytes);
        self->mine.arena = (uint64_t)(uintptr_t)arena;
        self->mine.ok = true;
    } else {
        snprintf(self->mine.why, sizeof(self->mine.why), "%s", err->message);
    }
    if (send(socket, &self->mine, sizeof(self->mine), MSG_NOSIGNAL) !=
            (ssize_t)sizeof(self->mine) ||
        !whole_card(socket, &self->other))
        return BT_FAIL(err, BT_ERR_PEER_LOST, "the other process ended");
    if (status != BT_OK) return status;
    if (!self->other.ok) return BT_FAIL(err, BT_ERR_PEER_LOST, "%s", self->other.why);
    return bt_xfer_connect(self->xfer, self->other.address, self->other.address_bytes, 1,
                           &self->peer, err);
}

static void close_side(side *self)
{
    if (self->peer != NULL) bt_xfer_disconnect(self->peer);
    if (self->xfer != NULL) bt_xfer_destroy(self->xfer);
}

/* The target: progresses until the other side closes its socket. */
static void serve(const char *transport, int socket)
{
    static side self;
    bt_err err = {0};
    if (open_side(&self, transport, socket, &err) != BT_OK) _exit(1);
    struct pollfd polled[2] = {{.fd = socket, .events = POLLIN},
                               {.fd = bt_xfer_fd(self.xfer), .events = POLLIN}};
    double end = now_s() + 2 * TIMEOUT_S;
    while ((polled[0].revents & (POLLIN | POLLHUP)) == 0 && now_s() < end) {
        if (bt_xfer_progress(self.xfer) > 0 || bt_xfer_arm(self.xfer) == BT_AGAIN) continue;
        poll(polled, 2, 20);
    }
    _exit(0);
}

static bt_status put_all(side *self, uint8_t *source, double *ret_gb_per_s, bt_err *err)
{
    double start = 0, end = now_s() + TIMEOUT_S;
    /* The first round touches every page and makes the lane. */
    for (uint32_t round = 0; round < 2; round++) {
        self->done = 0;
        start = now_s();
        for (uint32_t i = 0; i < PUTS; i++) {
            bt_status status =
                bt_xfer_put(self->peer, source, PUT_BYTES, (uint64_t)i % 16 * PUT_BYTES, i, err);
            if (status == BT_AGAIN && now_s() < end) {
                bt_xfer_progress(self->xfer);
                i--;
                continue;
            }
            if (status != BT_OK) return status;
        }
        while (self->done < PUTS && !self->failed && now_s() < end) bt_xfer_progress(self->xfer);
        if (self->failed || self->done < PUTS)
            return BT_FAIL(err, BT_ERR_PEER_LOST, "%u of %u puts of 1 MiB finished", self->done,
                           PUTS);
    }
    *ret_gb_per_s = (double)PUTS * (double)PUT_BYTES / (now_s() - start) * 1e-9;
    return BT_OK;
}

static bt_status measure(const char *transport, int socket, char ret_lane[64], double *ret_gb_per_s,
                         bt_err *err)
{
    static side self;
    self = (side){0};
    uint8_t *source = NULL;
    bt_status status = open_side(&self, transport, socket, err);
    if (status == BT_OK) status = bt_xfer_source_open(self.xfer, PUT_BYTES, &source, err);
    if (status == BT_OK) {
        memset(source, 7, PUT_BYTES);
        status = bt_xfer_remote_open(self.peer, self.other.arena, ARENA_BYTES, self.other.rkey,
                                     self.other.rkey_bytes, err);
    }
    if (status == BT_OK) {
        snprintf(ret_lane, 64, "%s", bt_xfer_transport(self.peer));
        status = put_all(&self, source, ret_gb_per_s, err);
    }
    close_side(&self);
    return status;
}

static bt_status try_transport(const char *transport, char ret_lane[64], double *ret_gb_per_s,
                               bt_err *err)
{
    int sockets[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
        return BT_FAIL(err, BT_ERR_OS, "socketpair");
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        close(sockets[1]);
        serve(transport, sockets[0]);
    }
    close(sockets[0]);
    bt_status status = child < 0 ? BT_FAIL(err, BT_ERR_OS, "fork")
                                 : measure(transport, sockets[1], ret_lane, ret_gb_per_s, err);
    close(sockets[1]);
    if (child > 0) waitpid(child, NULL, 0);
    return status;
}

/* In a process of its own: UCX may abort where a transport is half there, and doctor goes on. */
static bool try_apart(const char *transport, char *ret_text, size_t capacity)
{
    int ends[2];
    if (pipe(ends) != 0) return false;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        char lane[64];
        double gb_per_s = 0;
        bt_err err = {0};
        bt_status status = try_transport(transport, lane, &gb_per_s, &err);
        if (status == BT_OK && strncmp(lane, transport, strlen(transport)) != 0)
            status = BT_FAIL(&err, BT_ERR_PEER_LOST, "UCX takes %s instead", lane);
        if (status == BT_OK)
            dprintf(ends[1], "%s, %.1f GB/s in cached puts of 1 MiB between two processes", lane,
                    gb_per_s);
        else
            dprintf(ends[1], "%s", err.message);
        _exit(status == BT_OK ? 0 : 1);
    }
    close(ends[1]);
    ssize_t got = read(ends[0], ret_text, capacity - 1);
    ret_text[got > 0 ? got : 0] = '\0';
    close(ends[0]);
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) return false;
    if (WIFSIGNALED(status)) snprintf(ret_text, capacity, "UCX: %s", strsignal(WTERMSIG(status)));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void run(bt_doctor *doctor)
{
    static const struct {
        const char *name, *mend;
    } transports[] = {
        {"posix", "see /dev/shm above: without shared memory KV between two processes of a host "
                  "takes the loopback device, about a tenth as fast"},
        {"tcp", "a firewall on the loopback device, or no such device"},
    };
    bool any = false;
    for (size_t i = 0; i < sizeof(transports) / sizeof(transports[0]); i++) {
        char text[256];
        bool works = try_apart(transports[i].name, text, sizeof(text));
        bool last = i + 1 == sizeof(transports) / sizeof(transports[0]);
        any |= works && !last;
        bt_doctor_level level = works ? BT_DOCTOR_OK : BT_DOCTOR_WARNING;
        bt_doctor_say(doctor, level, transports[i].name, works ? NULL : transports[i].mend, "%s",
                      text);
    }
    if (!any)
        bt_doctor_say(doctor, BT_DOCTOR_PROBLEM, "fast lanes",
                      "mend posix, or set allow_tcp=yes on both daemons if this is wanted",
                      "only TCP connects two processes here, and daemons refuse such a pair");
}

const bt_doctor_check bt_doctor_transports = {"transports", run};
