/* side.h - one of the two processes: its loop with UCX on it, its sealed messages, and the page that both share.
 *
 * A process has one loop thread, as the daemons (decision 0001); awake, it turns without sleeping while frames are under way
 * (decision 0011), asleep, callbacks of the streams and UCX's descriptor wake it. */
#ifndef BT_TESTS_GPU_HANDOFF_SIDE_H
#define BT_TESTS_GPU_HANDOFF_SIDE_H

#include "tests/gpu/handoff/work.h"

extern "C" {
#include "common/xfer/xfer.h"
#include "proto/seal.h"
}

constexpr uint32_t FRAMES_MAX = 4096;
constexpr uint64_t AWAKE_NS = 20000000;

/* What P decides for a row, and what D tells. P writes the first part while D is idle. */
struct shared_page {
    uint32_t row;       /* grows: D prepares anew */
    bool awake, verify; /* D stays awake while frames come; unpacks each and compares its digest */
    bt_dtype wire;
    bool ending;

    uint64_t sealed_ns[FRAMES_MAX]; /* when D had opened the frame's Sealed */
    uint64_t credit_ns[FRAMES_MAX];
    uint32_t wrong; /* digests that did not agree, messages that were none */
    uint64_t sum;   /* of the arena, when asked */

    /* death.cu */
    int doomed; /* pid */
    uint64_t puts_begun, puts_done, puts_failed, puts_at_death;
    uint32_t in_flight; /* when it was killed */
    bool changed;       /* what must not, after that */
};

struct options {
    bool host = false, check = true, bench = true;
    const char *transports = nullptr;
    bool allow_tcp = false;
    bool apart = false; /* D in a PID namespace of its own, where cuda_ipc cannot reach */
};

struct side {
    bt_role role;
    int socket; /* to the other process, for cards */
    shared_page *page;
    work *engine;
    bt_loop *loop = nullptr;
    bt_loop_wake *wake = nullptr;
    bt_loop_source *source = nullptr;
    bt_xfer *xfer = nullptr;
    bt_xfer_peer *peer = nullptr;
    uint8_t *arena = nullptr, *staging = nullptr;
    bt_seal seal;
    bt_codec *codec;
    bool awake = false;
    uint64_t messages = 0;

    virtual ~side()
    {
    }
    virtual void on_message(const bt_msg &msg) = 0;
    virtual void on_put(uint64_t tag, bt_status status) = 0;
    /* Every turn of the loop: what the board says. */
    virtual void turn() = 0;

    void open(const options &o);
    void close();
    void send(bt_msg_kind kind, const bt_frame &frame, const bt_kv_digest &digest);
};

void run_prefill(const options &o, int socket, shared_page *page);
void run_decode(const options &o, int socket, shared_page *page);
void run_doomed_prefill(const options &o, int socket, shared_page *page);
void run_mourner(const options &o, int socket, shared_page *page);
void run_doomed_decode(const options &o, int socket, shared_page *page);
void run_widow(const options &o, int socket, shared_page *page);

#endif
