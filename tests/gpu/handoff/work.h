/* work.h - the part of an engine that a handoff meets, faked: layers that take their time, frames that are packed and
 * unpacked, and numbers that the CPU reads to know of both.
 *
 * WHAT    work_gpu.cu does it on a GPU, with the kernels and notices that an engine uses; work_host.cu on two threads with the CPU's
 *         pack and unpack, so that the program's own logic runs where there is no GPU (`gpu-handoff --host`).
 * ORDER   Two queues, each in order: one for layers, one for frames.
 * THREAD  layer and frame by any thread, one at a time; the rest by the loop thread. */
#ifndef BT_TESTS_GPU_HANDOFF_WORK_H
#define BT_TESTS_GPU_HANDOFF_WORK_H

extern "C" {
#include "common/kv/wire.h"
#include "common/loop/loop.h"
}

#include <vector>

enum : uint32_t { LAYERS = 32, HEADS = 8, HEAD_DIM = 128, BLOCK_TOKENS = 16, TOKENS_MAX = 8192 };
enum : uint32_t { PIECES = 16 }; /* staging pieces of P, landing cells of D */
constexpr size_t MIB = (size_t)1 << 20;
constexpr size_t PIECE_BYTES = 20 * MIB;
constexpr size_t SET_BYTES = PIECES * PIECE_BYTES;

/* Slots of the board: how many layers are done; how often frame k was packed or unpacked. */
constexpr uint32_t SLOT_LAYERS = 0;
constexpr uint32_t slot_of_piece(uint32_t piece)
{
    return 1 + piece;
}

struct frame_job {
    bool pack;
    bt_frame frame;
    bt_dtype wire;
    uint8_t *records;
    uint32_t piece, value; /* its slot becomes value */
    bool
        after_layers; /* waits for the layers that were queued before it; else they are known to be done */
};

struct work {
    virtual ~work()
    {
    }
    /* Memory for arena and staging is the transport's; this fills and sums it. */
    virtual void fill(uint8_t *bytes, size_t count, uint32_t seed) = 0;
    virtual uint64_t sum(const uint8_t *bytes, size_t count) = 0;
    /* The KV pool, with random values or nothing, and a shuffled table of TOKENS_MAX tokens. */
    virtual void pool_open(bt_dtype dtype, bool random) = 0;
    virtual void pool_close() = 0;

    /* A layer of so many ns, after which SLOT_LAYERS becomes layer + 1. */
    virtual void layer(uint64_t ns, uint32_t layer) = 0;
    virtual void frame(const frame_job &job) = 0;
    /* When the layer ended, by bt_loop_now_ns. */
    virtual uint64_t layer_ended_ns(uint32_t layer) = 0;
    virtual uint32_t read(uint32_t slot) = 0;
    virtual bt_kv_digest digest(uint32_t piece) = 0;
    /* All queues are empty on return, and all slots are 0. */
    virtual void reset() = 0;
    /* Layers fill the whole card, by kernels of 20 us; else they leave it to the frames. */
    bool full = false;
    /* If set, whatever raises a slot then also wakes this loop. */
    bt_loop_wake *bell = nullptr;
    /* Bytes read and written in a second by a copy within this memory. */
    virtual double copy_rate() = 0;
    virtual const char *name() = 0;
};

/* key: of the digests, the same on both sides. */
work *work_gpu_open(const uint8_t key[BT_KEY_BYTES]);
work *work_host_open(const uint8_t key[BT_KEY_BYTES]);

/* Ends the process if a call failed. */
void must(bool ok, const char *what);
void must_ok(bt_status status, const bt_err *err, const char *what);

#endif
