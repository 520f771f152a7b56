/* core.h - the prefill daemon as a pure state machine: HANDOFF rules of side P.
 *
 * WHAT    Requests (computing, done, pinned), tickets, frames, chunk scheduling, prefix cache, leases. It decides; it
 *         does not do: no socket, clock, thread, malloc after init, UCX, ZeroMQ or libuv. Everything it wants is a call
 *         through bt_prefill_io; everything that happens is an event call. io functions never call back into the core.
 * FLOW    bytes -> init -> events…; tick at next_deadline. Three owners run it: prefilld/shell.c, tests/sim, the
 *         planner.
 * ROUTER  Any message of R is a sign of its life; sending HEARTBEAT and answering PAIR is the shell's.
 * TIME    now_ns is the caller's monotonic clock and never goes back.
 * PAIRS   A peer is one D incarnation over one endpoint, named by a small index that the shell chooses (peer_up, below
 *         BT_PEERS_MAX). peer_up of an index that is up is a new endpoint: the probe starts again. */
#ifndef BT_PREFILLD_CORE_H
#define BT_PREFILLD_CORE_H

#include "common/engine/engine.h"
#include "common/kv/probe.h"
#include "proto/msg.h"

typedef struct bt_prefill_core bt_prefill_core;

typedef struct {
    uint64_t incarnation;
    bt_sha256 weights_digest;
    bt_kv_shape kv;
    uint32_t vocab, context_tokens_max;
    uint32_t eos_ids[BT_EOS_IDS_MAX], eos_count;
    uint32_t requests_max; /* accepted at once, pinned included */
    uint32_t
        batch_tokens_max; /* tokens of one engine batch; chunks are multiples of 64 but the last */
    uint32_t batch_seqs_max;
    uint32_t staging_bytes; /* of one piece of staging: the largest frame that is packed */
    uint32_t staging_count; /* pieces: frames packed or on their way at once */
    uint64_t
        pin_lease_ns; /* KV without Accepted is held this long at most after the compute ended */
    uint64_t tombstone_ns;        /* one maximum lease */
    uint64_t router_timeout_ns;   /* heartbeats of R stop: everything it owns is dropped */
    const uint32_t *probe_tokens; /* [64] */
} bt_prefill_config;

#define BT_PREFILL_STAGING_MAX 1024u

/* A frame to pack into staging piece `staging` and put into (slot, cell) of the peer; completion:
 * put_done(tag). */
typedef struct {
    uint64_t tag;
    uint32_t peer;
    bt_request_id request;     /* for traces */
    uint32_t slot, generation; /* of the ticket; the generation is for traces and checkers */
    uint32_t staging;
    bt_wire_shape wire;
    bt_frame frame;
    const uint32_t *blocks;
} bt_prefill_put;

/* The piece of staging that a tag of ours is about. */
static inline uint32_t bt_prefill_put_staging(uint64_t tag)
{
    return (uint32_t)(tag & 0xffff);
}

typedef struct {
    void *ctx;
    void (*send_router)(void *ctx, const bt_msg *msg);
    void (*send_peer)(void *ctx, uint32_t peer, const bt_msg *msg);
    /* OK or AGAIN (a batch is in flight; the core asks again at its end). */
    bt_status (*submit)(void *ctx, const bt_engine_batch *batch);
    /* Packs now, starts the put. Returns the digest of the packed frame. AGAIN: try at the next
     * tick. */
    bt_status (*put)(void *ctx, const bt_prefill_put *put, bt_kv_digest *ret_digest);
} bt_prefill_io;

typedef struct {
    uint64_t d_incarnation;
    bt_dtype wire; /* agreed at pairing */
    uint32_t slot_count, cell_count, cell_bytes;
} bt_prefill_peer;

typedef struct {
    uint32_t running, waiting;
    uint32_t blocks_free, blocks_cached, blocks_held,
        blocks_quarantined; /* recounted from the pool's own table */
    uint64_t requests_total, refused_total, prefill_tokens_total, cached_tokens_total,
        probe_tokens_total;
    uint64_t frames_total, frame_bytes_total, stale_total, pinned_total, tickets_dropped_total,
        leases_ended_total;
} bt_prefill_stats;

size_t bt_prefill_core_bytes(const bt_prefill_config *config);
/* memory: bt_prefill_core_bytes, 64-byte aligned. config and io are copied. */
bt_prefill_core *bt_prefill_core_init(void *memory, const bt_prefill_config *config,
                                      const bt_prefill_io *io, uint64_t now_ns);

void bt_prefill_core_router_message(bt_prefill_core *core, const bt_msg *msg, uint64_t now_ns);
void bt_prefill_core_peer_up(bt_prefill_core *core, uint32_t peer, const bt_prefill_peer *info,
                             uint64_t now_ns);
/* The D incarnation is proven dead, or unpaired: its tickets are dropped; KV stays pinned for a
 * Retarget. */
void bt_prefill_core_peer_down(bt_prefill_core *core, uint32_t peer, uint64_t now_ns);
void bt_prefill_core_peer_message(bt_prefill_core *core, uint32_t peer, const bt_msg *msg,
                                  uint64_t now_ns);
void bt_prefill_core_engine_event(bt_prefill_core *core, const bt_engine_event *event,
                                  uint64_t now_ns);
void bt_prefill_core_put_done(bt_prefill_core *core, uint64_t tag, bt_status status,
                              uint64_t now_ns);
void bt_prefill_core_tick(bt_prefill_core *core, uint64_t now_ns);
/* UINT64_MAX if nothing waits for time. */
uint64_t bt_prefill_core_next_deadline(const bt_prefill_core *core);

/* H7: refuse new Prefills, finish the rest. */
void bt_prefill_core_drain(bt_prefill_core *core, uint64_t now_ns);
bool bt_prefill_core_idle(const bt_prefill_core *core);

/* Outcome of the pairing probe (bt_probe_request_id, common/kv/probe.h) with this peer; the reason
 * is "" unless refused, and valid until the next event. */
typedef enum {
    BT_PROBE_PENDING,
    BT_PROBE_READY,
    BT_PROBE_REFUSED, /* a verdict: the two do not fit, now or ever */
    BT_PROBE_FAILED   /* no verdict: a lease, an engine or a lane broke; pair anew */
} bt_probe_state;
bt_probe_state bt_prefill_core_probe(const bt_prefill_core *core, uint32_t peer,
                                     const char **ret_reason);

/* Load and measured costs, into a HEARTBEAT; its incarnation and draining are the shell's. */
void bt_prefill_core_heartbeat(const bt_prefill_core *core, bt_msg *ret_msg);
void bt_prefill_core_stats(const bt_prefill_core *core, bt_prefill_stats *ret_stats);

#endif
