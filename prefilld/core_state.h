/* core_state.h - what the prefill core remembers. Private to prefilld/core*.c.
 *
 * WHAT    core.c carves, dispatches and looks at the clock; core_requests.c owns requests and their blocks;
 *         core_tickets.c owns tickets, landing slots and Quiesced; core_puts.c moves frames; core_batch.c fills
 *         engine batches.
 * FLOW    Every event changes state, then advance (core.c) does whatever has become possible.
 * LINKS   Objects name each other by index, BT_KV_NONE = none: request <-> ticket <-> landing slot,
 *         put -> request, ticket, slot.
 *
 * LEASES (H3)     owner      renewed by                       at its end
 *   waiting       R          nobody: the request's deadline   Refused(full) to R
 *   pinned KV     R          Retarget                         KV freed, Refused(lease) to R
 *   held ticket   D          nobody                           forgotten
 *   ticket        D          LEASE_RENEW, by us               D cancels it
 *   probe         the pair   nobody                           the probe is refused
 *   tombstone     -          nobody                           forgotten
 *   everything    R          R's messages                     all requests end */
#ifndef BT_PREFILLD_CORE_STATE_H
#define BT_PREFILLD_CORE_STATE_H

#include "common/kv/attempts.h"
#include "common/kv/prefix.h"
#include "prefilld/core.h"

#define NONE BT_KV_NONE

typedef enum {
    REQUEST_FREE,
    REQUEST_WAITING,   /* accepted; its blocks are not there yet */
    REQUEST_COMPUTING, /* COMP of the state table */
    REQUEST_DONE,      /* computed and sampled; pinned */
    REQUEST_LEAVING    /* ended; a batch or puts in flight still touch its blocks (K5) */
} request_state;

typedef struct {
    request_state state;
    bt_fence fence; /* as R named it; slot and generation 0 */
    uint64_t serial;
    uint32_t base, max_tokens, priority;
    bool ignore_eos, no_reserve;
    bool score;           /* R wants the prompt's logprobs */
    bt_sampling sampling; /* borrows bias */
    uint8_t tenant_salt[BT_SHA256_BYTES];
    bt_sha256 root, name; /* of the prefix; name covers the first named_runs runs */
    uint32_t named_runs;
    uint32_t token_count, block_count, cached_tokens;
    uint32_t *tokens;    /* [context_tokens_max] */
    uint32_t *blocks;    /* [blocks_per_context] */
    bt_logit_bias *bias; /* [BT_LOGIT_BIAS_MAX] */
    uint32_t computed;   /* tokens whose KV is final in every layer */
    uint32_t chunk;      /* tokens in the batch in flight, 0 = not in it */
    bool broken;         /* its logits: the engine sampled nothing */
    bool sampled, first_sent, pinned_said;
    bt_token token;
    bt_finish_reason finish; /* NONE unless the first token ends the request */
    uint64_t expires_ns;     /* WAITING: deadline; DONE: pin lease; probe: of all of it */
    uint32_t ticket, puts;
    uint32_t probe_peer; /* NONE = a request of R */
} p_request;

typedef struct {
    bool used, manifest_sent;
    bool probe;
    bt_fence fence;
    uint32_t peer;
    uint32_t request; /* NONE: held before its Prefill or Retarget */
    uint32_t run_first, runs_per_cell;
    bt_wire_shape wire;
    uint32_t cells_free; /* bit for each landing cell we may put into */
    uint32_t *next_run;  /* [layers]: runs below are put */
    uint32_t frames_put, frames_sealed;
    bt_kv_digest sum;
    bt_sha256 prefix_hash; /* of the request's tokens, for the Manifest */
    uint64_t renew_every_ns, renew_ns;
    uint64_t expires_ns; /* of a held one */
} p_ticket;

/* A landing slot of one D incarnation: survives a new endpoint to the same incarnation, so that
 * each generation is accepted once (HANDOFF, Fence). */
typedef struct {
    uint32_t generation; /* highest accepted or burnt */
    uint32_t in_flight;  /* puts, of any generation */
    uint32_t ticket;
    bool
        in_doubt; /* a put failed: its bytes may land at any time, so Quiesced is never said (H1) */
    bool owed;    /* Quiesced(owed_fence), when in_flight is 0 */
    bt_fence owed_fence;
} p_slot;

typedef struct {
    uint64_t d_incarnation; /* 0 = unused */
    uint64_t serial;        /* of the last peer_up, to reuse the oldest */
    uint32_t in_flight;
    p_slot *slots; /* [BT_SLOTS_MAX] */
} p_arena;

typedef struct {
    bool up;
    bt_prefill_peer info;
    uint32_t arena;
    bt_probe_state probe;
    char reason[BT_REASON_BYTES_MAX];
} p_peer;

typedef struct {
    bool busy;
    uint64_t tag;
    uint32_t request, ticket, peer, arena;
    bt_fence fence;
    bt_frame frame;
    bt_kv_digest digest;
} p_put;

typedef struct {
    bool busy;
    uint64_t id;
    uint32_t layers_done;
    uint32_t count;
    uint32_t
        tokens; /* of all its chunks; and their pairs: what a batch costs (common/base/cost.h) */
    double pairs;
    uint32_t *requests;  /* [batch_seqs_max] */
    bt_engine_seq *seqs; /* [batch_seqs_max] */
} p_batch;

/* Why the request whose turn it is waits: it did not fit with so much available. */
typedef struct {
    uint64_t serial; /* of the request; 0 = none */
    uint32_t available, entries;
} p_blocked;

struct bt_prefill_core {
    bt_prefill_config config;
    bt_prefill_io io;
    bool draining;
    uint32_t probe_attempt;
    uint64_t now_ns;
    uint64_t serial;
    uint64_t router_incarnation, router_heard_ns;
    uint64_t retry_ns; /* io said AGAIN: try again then; UINT64_MAX = nothing to retry */
    uint32_t blocks_per_context, blocks_per_run;
    uint32_t request_count, ticket_count, arena_count;
    bt_kv_pool *pool;
    bt_kv_prefix *prefix;
    bt_attempts *dead; /* attempts that ended: tombstones and "attempts seen" */
    p_request *requests;
    uint32_t *live; /* [request_count]: requests that are not FREE, in order of arrival */
    uint32_t live_count;
    p_blocked blocked;
    p_ticket *tickets;
    p_arena *arenas;
    p_peer *peers; /* [BT_PEERS_MAX] */
    p_put *puts;   /* [staging_count] */
    uint32_t *probe_tokens;
    p_batch batch;
    bt_cost_fit cost;
    bt_prefill_stats stats; /* the totals; the rest is counted when asked */
};

/* core_requests.c */
void bt_pcore_prefill(bt_prefill_core *core, const bt_msg *msg);
void bt_pcore_retarget(bt_prefill_core *core, const bt_msg *msg);
void bt_pcore_cancel(bt_prefill_core *core, const bt_fence *fence);
void bt_pcore_probe_start(bt_prefill_core *core, uint32_t peer);
/* Ends a request without a word: tombstone, ticket dropped, KV freed when nothing touches it. */
void bt_pcore_request_end(bt_prefill_core *core, uint32_t request);
/* The same, and says why: Refused to R, or the probe's outcome. Neither takes it off the live list:
 * bt_pcore_requests_sweep does. */
void bt_pcore_request_fail(bt_prefill_core *core, uint32_t request, bt_refuse_reason reason,
                           const char *text);
void bt_pcore_all_end(bt_prefill_core *core);
void bt_pcore_request_collect(bt_prefill_core *core, uint32_t request);
/* Takes what became FREE off the live list; the only place that moves entries of it. */
void bt_pcore_requests_sweep(bt_prefill_core *core);
void bt_pcore_requests_admit(bt_prefill_core *core);
void bt_pcore_requests_tick(bt_prefill_core *core);
/* Live request of R with this id, or NONE. */
uint32_t bt_pcore_request_find(const bt_prefill_core *core, const bt_request_id *id);
void bt_pcore_refuse(bt_prefill_core *core, const bt_fence *fence, bt_refuse_reason reason,
                     const char *text);
void bt_pcore_probe_end(bt_prefill_core *core, uint32_t peer, bt_probe_state state,
                        const char *reason);

/* core_tickets.c */
void bt_pcore_peer_message(bt_prefill_core *core, uint32_t peer, const bt_msg *msg);
void bt_pcore_ticket_attach(bt_prefill_core *core, uint32_t request);
void bt_pcore_ticket_drop(bt_prefill_core *core, uint32_t ticket);
/* Drops tickets of this request up to this attempt, held ones included. */
void bt_pcore_tickets_forget(bt_prefill_core *core, const bt_request_id *id, uint32_t attempt);
void bt_pcore_slot_settle(bt_prefill_core *core, uint32_t peer, uint32_t slot);
void bt_pcore_tickets_tick(bt_prefill_core *core);
p_slot *bt_pcore_slot(bt_prefill_core *core, uint32_t arena, uint32_t slot);

/* core_puts.c */
void bt_pcore_puts_pump(bt_prefill_core *core);
/* True if every frame of the ticket was put and sealed. */
bool bt_pcore_all_sealed(const bt_prefill_core *core, const p_request *request,
                         const p_ticket *ticket);

void bt_pcore_put_done(bt_prefill_core *core, uint64_t tag, bt_status status);

/* core_batch.c */
void bt_pcore_engine_event(bt_prefill_core *core, const bt_engine_event *event);
void bt_pcore_batch_submit(bt_prefill_core *core);

/* Not FREE and not LEAVING. */
static inline bool bt_pcore_alive(const p_request *r)
{
    return r->state == REQUEST_WAITING || r->state == REQUEST_COMPUTING || r->state == REQUEST_DONE;
}

static inline uint32_t bt_pcore_runs(uint32_t tokens)
{
    return tokens / BT_RUN_TOKENS + (tokens % BT_RUN_TOKENS != 0);
}

static inline uint32_t bt_pcore_blocks(const bt_prefill_core *core, uint32_t tokens)
{
    uint32_t block_tokens = core->config.kv.block_tokens;
    return tokens / block_tokens + (tokens % block_tokens != 0);
}

static inline void bt_pcore_stale(bt_prefill_core *core)
{
    core->stats.stale_total++;
}

#endif
