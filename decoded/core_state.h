/* core_state.h - what the decode core remembers. Private to decoded/core*.c.
 *
 * WHAT    core.c carves, dispatches and looks at the clock; core_grants.c owns grants, landing slots and quarantine;
 *         core_frames.c owns frames, verification and the Manifest; core_batch.c decodes.
 * LINKS   Objects name each other by index, BT_KV_NONE = none: sequence <-> landing slot, cell -> sequence. A sequence
 *         and its slot part when the grant ends; the slot then waits for Quiesced alone (H1).
 *
 * LEASES (H3)          owner  renewed by                     at its end
 *   grant              R      LEASE_RENEW, Sealed, RENEW     pool blocks back, slot in quarantine, Refused(lease) to R
 *   sequence           R      RENEW                          blocks back, Refused(lease) to R
 *   local prompt       R      RENEW                          the same
 *   quarantined slot   P      nobody                         never: Quiesced or proven death (H1)
 *   probe              D      LEASE_RENEW, Sealed            Refused to P
 *   attempt seen       -      nobody                         forgotten
 *   everything         R      R's messages                   all sequences end */
#ifndef BT_DECODED_CORE_STATE_H
#define BT_DECODED_CORE_STATE_H

#include "common/kv/attempts.h"
#include "common/kv/prefix.h"
#include "decoded/core.h"

#define NONE BT_KV_NONE

typedef enum {
    SEQ_FREE,
    SEQ_GRANTED,   /* holds pool blocks and a landing slot; KV is arriving */
    SEQ_COMPUTING, /* local: holds pool blocks; its prompt is computed here, in chunks */
    SEQ_DECODING,
    SEQ_LEAVING /* ended; unpacks or a batch in flight still write its blocks (K5) */
} seq_state;

/* What arrived of one grant; forgotten when frames are to be pushed again. */
typedef struct {
    uint64_t *covered; /* bit for each (layer, run) */
    uint64_t *known;   /* bit for each frame number, to tell a duplicate from a second delivery */
    uint32_t covered_count, sealed_count, verified_count;
    bt_kv_digest sum;
    bool manifest_here;
    uint32_t manifest_frames;
    bt_kv_digest manifest_sum;
    bool bad; /* the Manifest contradicts the Reserve */
} d_arrival;

typedef struct {
    seq_state state;
    bool probe;
    bool local;   /* D computes or computed the prompt: no P, no slot, no Ticket */
    bt_fence key; /* as R named it; slot and generation 0 */
    uint64_t serial, stepped;
    uint32_t peer; /* of the grant; NONE if local */
    uint32_t slot; /* GRANTED only */
    bool repush;   /* Refused(retry) is out; waits for Quiesced */
    bool quiesced; /* it came; waits for unpacks to end */
    uint32_t failures;
    uint64_t lease_ends_ns, repeat_ns;
    bool heard; /* P has answered the Ticket */
    uint32_t base, max_tokens, next_index;
    uint32_t prompt_count; /* tokens that are not output */
    bool ignore_eos;
    bt_sampling sampling; /* borrows bias */
    bt_sha256 root, prefix_hash;
    bt_sha256 name; /* COMPUTING: of the first named_runs runs, which others find */
    uint32_t named_runs;
    uint32_t run_first, run_count; /* [0, run_first) were here before */
    d_arrival arrival;
    bt_token first_token;
    uint32_t token_count; /* known tokens */
    uint32_t kv_count;    /* tokens whose KV lies in the blocks */
    uint32_t block_count;
    uint32_t *tokens;    /* [context_tokens_max + 1] */
    uint32_t *blocks;    /* [blocks_per_context] */
    bt_logit_bias *bias; /* [BT_LOGIT_BIAS_MAX] */
    uint32_t unpacks;
    bool in_batch, sampled;
    bool broken; /* its logits: the step sampled nothing */
    uint32_t chunk; /* tokens of it in the batch in flight */
    bt_token sample;
} d_seq;

typedef struct {
    bt_slot_state state;
    uint32_t generation;
    bt_fence fence;
    uint32_t peer; /* where Cancel goes; NONE while no endpoint reaches that P */
    uint32_t seq;  /* GRANTED only */
    uint32_t unpacks;
    uint64_t repeat_ns; /* QUARANTINED: when to say Cancel again */
} d_slot;

/* One landing cell whose frame is being verified. */
typedef struct {
    bool busy;
    uint64_t tag;
    uint32_t seq;
    bt_fence fence;
    bt_frame frame;
    bt_kv_digest digest; /* as P sealed it */
} d_cell;

typedef enum { PEER_NONE, PEER_UP, PEER_LOST } peer_state;
typedef enum { PROBE_WANTED, PROBE_GRANTED, PROBE_PASSED, PROBE_FAILED } probe_state;

typedef struct {
    peer_state state;
    bt_decode_peer info;
    probe_state probe;
} d_peer;

typedef struct {
    bool busy, own_probe;
    uint64_t id;
    uint32_t count;
    uint32_t tokens; /* new ones of all sequences; and their pairs: what a batch costs */
    double pairs;
    uint32_t *seq_index; /* [batch_seqs_max] */
    bt_engine_seq *seqs; /* [batch_seqs_max] */
} d_batch;

struct bt_decode_core {
    bt_decode_config config;
    bt_decode_io io;
    bool draining, started, ready;
    uint32_t probe_attempt;
    uint64_t now_ns;
    uint64_t serial;
    uint64_t router_incarnation, router_heard_ns;
    uint64_t not_before_ns; /* no batch is submitted before; 0 = any time */
    uint32_t blocks_per_context, blocks_per_run, seq_count, arrival_words;
    uint32_t probe_blocks[BT_PROBE_TOKENS / 16];
    uint32_t *probe_tokens;
    bt_kv_pool *pool;
    bt_kv_prefix *prefix;
    bt_attempts *seen; /* attempts granted, refused or cancelled */
    d_seq *seqs;
    d_slot *slots;
    d_cell *cells; /* [slot_count][BT_CELLS_MAX] */
    d_peer *peers; /* [BT_PEERS_MAX] */
    d_batch batch;
    bt_cost_fit cost;
    bt_decode_stats stats; /* the totals; the rest is counted when asked */
};

/* core_grants.c */
void bt_dcore_reserve(bt_decode_core *core, const bt_msg *msg);
void bt_dcore_cancel(bt_decode_core *core, const bt_fence *fence);
void bt_dcore_renew(bt_decode_core *core, const bt_msg *msg);
void bt_dcore_probe_grant(bt_decode_core *core, uint32_t peer);
/* H3: a sign of life of whoever the grant waits for. */
void bt_dcore_lease_extend(bt_decode_core *core, d_seq *seq);
/* Sends a Ticket of the next generation for the slot the sequence holds. */
void bt_dcore_ticket_send(bt_decode_core *core, uint32_t seq);
/* end() of the state table: pool blocks back, slot into quarantine, Cancel to P. */
void bt_dcore_grant_end(bt_decode_core *core, uint32_t seq);
/* The same, and tells R (or, for a probe, P) why. */
void bt_dcore_grant_fail(bt_decode_core *core, uint32_t seq, bt_refuse_reason reason,
                         const char *text);
/* Ends a sequence in any state without a word to R. */
void bt_dcore_seq_end(bt_decode_core *core, uint32_t seq);
/* Frees what an ended sequence held once nothing writes to it. */
void bt_dcore_seq_leave(bt_decode_core *core, uint32_t seq);
void bt_dcore_seq_collect(bt_decode_core *core, uint32_t seq);
void bt_dcore_all_end(bt_decode_core *core);
void bt_dcore_slot_free(bt_decode_core *core, uint32_t slot);
void bt_dcore_grants_tick(bt_decode_core *core);
void bt_dcore_refuse(bt_decode_core *core, const bt_fence *key, bt_refuse_reason reason,
                     const char *text);
void bt_dcore_refuse_peer(bt_decode_core *core, const d_slot *slot, bt_refuse_reason reason,
                          bool retry, const char *text);
void bt_dcore_probe_settle(bt_decode_core *core, uint32_t peer, bool passed);

/* core_frames.c */
void bt_dcore_peer_message(bt_decode_core *core, uint32_t peer, const bt_msg *msg);
void bt_dcore_arrival_reset(bt_decode_core *core, d_seq *seq);
/* To R, and to the P of a grant: the whole prompt is here. */
void bt_dcore_accepted_send(bt_decode_core *core, uint32_t seq);
void bt_dcore_unpack_done(bt_decode_core *core, uint64_t tag, const bt_kv_digest *digest);

/* core_batch.c */
/* Whole runs among the first kv_count tokens become findable for later prompts (K3). */
void bt_dcore_local_seal(bt_decode_core *core, d_seq *seq, uint32_t kv_count);
void bt_dcore_engine_event(bt_decode_core *core, const bt_engine_event *event);
void bt_dcore_step(bt_decode_core *core);
/* Sends the token at next_index to R and takes it into the sequence; Finished if it is the last. */
void bt_dcore_token(bt_decode_core *core, uint32_t seq, const bt_token *token);

/* Neither FREE nor LEAVING. */
static inline bool bt_dcore_live(const d_seq *s)
{
    return s->state == SEQ_GRANTED || s->state == SEQ_COMPUTING || s->state == SEQ_DECODING;
}

static inline uint32_t bt_dcore_runs(uint32_t tokens)
{
    return tokens / BT_RUN_TOKENS + (tokens % BT_RUN_TOKENS != 0);
}

static inline uint32_t bt_dcore_blocks(const bt_decode_core *core, uint32_t tokens)
{
    uint32_t block_tokens = core->config.kv.block_tokens;
    return tokens / block_tokens + (tokens % block_tokens != 0);
}

static inline void bt_dcore_stale(bt_decode_core *core)
{
    core->stats.stale_total++;
}

#endif
