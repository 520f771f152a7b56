/* core.h - the decode daemon as a pure state machine: HANDOFF rules of side D.
 *
 * WHAT    Grants (reserve, ticket, landing slots, frames, quarantine), verified sequences, continuous batching of
 *         decode steps, short prompts computed here in chunks (RESERVE with local), prefix index, leases. Pure in the sense of prefilld/core.h: events in, bt_decode_io calls out,
 *         io functions never call back, no malloc after init.
 * ROUTER  Any message of R is a sign of its life; sending HEARTBEAT is the shell's.
 * PAIRS   A peer is one P incarnation over one endpoint, named by a small index that the shell chooses. */
#ifndef BT_DECODED_CORE_H
#define BT_DECODED_CORE_H

#include "common/engine/engine.h"
#include "common/kv/probe.h"
#include "proto/msg.h"

typedef struct bt_decode_core bt_decode_core;

typedef struct {
    uint64_t incarnation;
    bt_sha256 weights_digest; /* of D's own weights: keys the KV it computes itself */
    bt_kv_shape kv;
    uint32_t vocab, context_tokens_max;
    uint32_t eos_ids[BT_EOS_IDS_MAX], eos_count;
    uint32_t seqs_max; /* granted and decoding at once */
    uint32_t batch_seqs_max, batch_tokens_max;
    uint32_t local_chunk; /* prompt tokens that one batch computes beside decoding; 0 = none ever */
    uint32_t slot_count;  /* landing slots of the arena, over all peers */
    uint32_t cell_count;  /* cells of one slot */
    uint32_t cell_bytes;
    uint32_t quarantine_max; /* slots one peer may have in quarantine before it gets no tickets */
    uint32_t reserve_tokens; /* R of HANDOFF: pool space reserved for output at the grant */
    uint64_t lease_ns;       /* of a grant, renewed by LEASE_RENEW, Sealed and RENEW */
    uint64_t cancel_repeat_ns;
    uint64_t router_timeout_ns;
    const uint32_t
        *probe_tokens; /* [64]; D's own KV of them lies in probe_blocks after the start-up batch */
} bt_decode_config;

/* Verify and convert what lies in (slot, cell) into blocks; unpack_done(tag) follows, possibly
 * before this returns to the loop but never from inside the call. */
typedef struct {
    uint64_t tag;
    uint32_t peer;
    uint32_t slot;
    bt_wire_shape wire;
    bt_frame frame;
    const uint32_t *blocks;
} bt_decode_unpack;

typedef struct {
    void *ctx;
    void (*send_router)(void *ctx, const bt_msg *msg);
    void (*send_peer)(void *ctx, uint32_t peer, const bt_msg *msg);
    bt_status (*submit)(void *ctx, const bt_engine_batch *batch);
    void (*unpack)(void *ctx, const bt_decode_unpack *unpack);
    /* Distance of D's own probe KV to the pushed one, and the bound for this wire format
     * (docs/probe-bounds.md). */
    void (*probe_distance)(void *ctx, uint32_t peer, const uint32_t *own_blocks,
                           const uint32_t *pushed_blocks, double *ret_error, double *ret_bound,
                           char ret_where[BT_REASON_BYTES_MAX]);
} bt_decode_io;

typedef struct {
    uint64_t p_incarnation;
    bt_sha256 weights_digest; /* of P's weights: keys the prefix index */
    bt_dtype wire, kv_dtype;  /* P's pool dtype: the precision path of the KV */
} bt_decode_peer;

typedef struct {
    uint32_t running,
        waiting; /* decoding; granted, or computing its prompt, and not yet decoding */
    uint32_t blocks_free, blocks_cached, blocks_held, blocks_quarantined; /* recounted */
    uint32_t slots_free, slots_held, slots_quarantined;
    uint64_t requests_total, refused_total, tokens_total, steps_total, probe_tokens_total,
        cached_tokens_total;
    uint64_t local_total, local_tokens_total; /* Reserves with `local`, prompt tokens computed */
    uint64_t frames_total, frames_bad_total, stale_total, quarantines_total, evicted_total,
        leases_ended_total;
} bt_decode_stats;

size_t bt_decode_core_bytes(const bt_decode_config *config);
bt_decode_core *bt_decode_core_init(void *memory, const bt_decode_config *config,
                                    const bt_decode_io *io, uint64_t now_ns);

/* Computes D's own probe KV: submits one batch; ready once its BATCH_DONE came. */
void bt_decode_core_start(bt_decode_core *core, uint64_t now_ns);
bool bt_decode_core_ready(const bt_decode_core *core);

void bt_decode_core_router_message(bt_decode_core *core, const bt_msg *msg, uint64_t now_ns);
/* Grants the pairing probe: a Ticket with probe = true goes out, again and again until P answers,
 * since it may come before P knows the endpoint. The index of a lost peer is given to another
 * incarnation only after peer_dead: else its quarantined slots stay so for ever. */
void bt_decode_core_peer_up(bt_decode_core *core, uint32_t peer, const bt_decode_peer *info,
                            uint64_t now_ns);
/* That P process is proven dead (H1): its quarantined slots are free again. */
void bt_decode_core_peer_dead(bt_decode_core *core, uint32_t peer, uint64_t now_ns);
/* The endpoint is gone but the process may live: grants end, slots stay quarantined. */
void bt_decode_core_peer_lost(bt_decode_core *core, uint32_t peer, uint64_t now_ns);
void bt_decode_core_peer_message(bt_decode_core *core, uint32_t peer, const bt_msg *msg,
                                 uint64_t now_ns);
void bt_decode_core_unpack_done(bt_decode_core *core, uint64_t tag, const bt_kv_digest *digest,
                                uint64_t now_ns);
void bt_decode_core_engine_event(bt_decode_core *core, const bt_engine_event *event,
                                 uint64_t now_ns);
void bt_decode_core_tick(bt_decode_core *core, uint64_t now_ns);
uint64_t bt_decode_core_next_deadline(const bt_decode_core *core);

void bt_decode_core_drain(bt_decode_core *core, uint64_t now_ns);
bool bt_decode_core_idle(const bt_decode_core *core);
/* Load and measured costs, into a HEARTBEAT; its incarnation and draining are the shell's. */
void bt_decode_core_heartbeat(const bt_decode_core *core, bt_msg *ret_msg);
void bt_decode_core_stats(const bt_decode_core *core, bt_decode_stats *ret_stats);

/* For checkers and `baton ps`: what a landing slot is now, and for whom (fence is set unless FREE).
 */
typedef enum { BT_SLOT_FREE, BT_SLOT_GRANTED, BT_SLOT_QUARANTINED } bt_slot_state;
bt_slot_state bt_decode_core_slot(const bt_decode_core *core, uint32_t slot, bt_fence *ret_fence);

#endif
