/* side.cu - what P and D have in common. */
#include "tests/gpu/handoff/side.h"

extern "C" {
#include "common/base/crypto.h"
}

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/socket.h>
#include <unistd.h>

static const uint8_t SECRET[BT_KEY_BYTES] = {7, 1, 9, 3};

void must(bool ok, const char *what)
{
    if (ok) return;
    fflush(stdout);
    fprintf(stderr, "gpu-handoff: %s failed\n", what);
    _exit(1);
}

void must_ok(bt_status status, const bt_err *err, const char *what)
{
    if (status == BT_OK) return;
    fflush(stdout);
    fprintf(stderr, "gpu-handoff: %s: %s\n", what, err->message);
    _exit(1);
}

namespace
{

struct card {
    uint8_t address[BT_XFER_ADDRESS_BYTES_MAX], rkey[BT_XFER_RKEY_BYTES_MAX];
    uint32_t address_bytes, rkey_bytes;
    uint64_t arena;
};

void on_message(void *arg, uint64_t, const void *data, size_t bytes)
{
    side *s = (side *)arg;
    bt_msg msg;
    bt_err err;
    must_ok(bt_seal_open(&s->seal, data, bytes, s->codec, &msg, &err), &err, "a message");
    s->messages++;
    s->on_message(msg);
}

void on_put(void *arg, bt_xfer_peer *, uint64_t tag, bt_status status)
{
    ((side *)arg)->on_put(tag, status);
}

void on_peer_error(void *, bt_xfer_peer *, const char *why)
{
    fprintf(stderr, "gpu-handoff: the other process: %s\n", why);
}

void drain(void *arg, unsigned budget)
{
    side *s = (side *)arg;
    while (budget-- > 0 && bt_xfer_progress(s->xfer) > 0)
        ;
    s->turn();
}

bool before_sleep(void *arg)
{
    return bt_xfer_arm(((side *)arg)->xfer) == BT_OK;
}

void on_wake(void *)
{
    /* Ends the sleep; the source is drained in this turn. */
}

const bt_loop_source_ops source_ops = {drain, before_sleep, nullptr};

} // namespace

void side::open(const options &o)
{
    bt_err err;
    must_ok(bt_crypto_start(&err), &err, "libsodium");
    bt_seal_init(&seal, SECRET, role);
    codec = bt_codec_init(aligned_alloc(64, (bt_codec_bytes() + 63) & ~(size_t)63));
    must_ok(bt_loop_create(&loop, &err), &err, "loop");
    must_ok(bt_loop_wake_open(loop, on_wake, this, &wake, &err), &err, "wake");
    bt_xfer_config config = {};
    config.backend = o.host ? "ucx" : "ucx-cuda";
    config.transports = o.transports;
    config.net_devices = "lo";
    config.allow_tcp = o.allow_tcp;
    bt_xfer_handler handler = {this, ::on_message, ::on_put, on_peer_error};
    must_ok(bt_xfer_create(&config, &handler, &xfer, &err), &err, "transport");
    engine = o.host ? work_host_open(seal.digest_key) : work_gpu_open(seal.digest_key);

    static card mine, other;
    const uint8_t *bytes;
    bool lands = role == BT_ROLE_DECODE;
    must_ok(bt_xfer_arena_open(xfer, lands ? SET_BYTES : MIB, &arena, &err), &err, "arena");
    if (!lands) must_ok(bt_xfer_source_open(xfer, SET_BYTES, &staging, &err), &err, "staging");
    mine.arena = (uint64_t)(uintptr_t)arena;
    bt_xfer_worker_address(xfer, &bytes, &mine.address_bytes);
    memcpy(mine.address, bytes, mine.address_bytes);
    bt_xfer_arena_rkey(xfer, &bytes, &mine.rkey_bytes);
    memcpy(mine.rkey, bytes, mine.rkey_bytes);
    must(::send(socket, &mine, sizeof(mine), MSG_NOSIGNAL) == (ssize_t)sizeof(mine),
         "sending to the other process");
    must(recv(socket, &other, sizeof(other), MSG_WAITALL) == (ssize_t)sizeof(other),
         "hearing from the other process");
    must_ok(bt_xfer_connect(xfer, other.address, other.address_bytes, (uint64_t)role, &peer, &err),
            &err, "endpoint");
    if (!lands)
        must_ok(
            bt_xfer_remote_open(peer, other.arena, SET_BYTES, other.rkey, other.rkey_bytes, &err),
            &err, "the other's arena");
    must_ok(bt_loop_source_open(loop, bt_xfer_fd(xfer), &source_ops, this, &source, &err), &err,
            "source");
}

void side::close()
{
    bt_loop_source_close(source);
    bt_loop_wake_close(wake);
    bt_loop_destroy(loop);
    bt_xfer_disconnect(peer);
    bt_xfer_destroy(xfer);
    delete engine;
}

void side::send(bt_msg_kind kind, const bt_frame &frame, const bt_kv_digest &digest)
{
    bt_msg msg = {};
    msg.kind = kind;
    msg.fence.attempt = msg.fence.generation = 1;
    msg.fence.p_incarnation = 1;
    msg.fence.d_incarnation = 2;
    if (kind == BT_MSG_SEALED) {
        msg.sealed.frame = frame;
        msg.sealed.digest = digest;
    } else {
        msg.credit.cell = frame.cell;
    }
    uint8_t sealed[BT_SEAL_BYTES_MAX];
    size_t bytes;
    bt_err err;
    must_ok(bt_seal_write(&seal, &msg, sealed, sizeof(sealed), &bytes, &err), &err, "sealing");
    bt_status status;
    while ((status = bt_xfer_send(peer, sealed, bytes, &err)) == BT_AGAIN) bt_xfer_progress(xfer);
    must_ok(status, &err, "sending");
}
