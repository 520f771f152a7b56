/* core.h - the router as a pure state machine: attempts, commits, retries, admission, choice of
 * (P, D).
 *
 * WHAT    Side R of HANDOFF. Text, HTTP, tokenizers and keys are the shell's. Pure in the sense of
 *         prefilld/core.h.
 * LINKS   A daemon is named by a small index that the shell gives to its authenticated connection.
 * ENDING  H4: every submit that returned OK ends in exactly one io.ended; tokens come in order,
 *         each index once. */
#ifndef BT_ROUTER_CORE_H
#define BT_ROUTER_CORE_H

#include "proto/msg.h"

typedef struct bt_router_core bt_router_core;

typedef struct {
    uint64_t incarnation;
    const char *policy;         /* a row of router/policies/registry.c */
    bt_sha256 fingerprint;      /* of our model; a D of another computes no prompts */
    uint32_t prefix_entries;    /* runs of 64 tokens remembered, over all daemons; 0 = none */
    uint32_t affinity_tokens;   /* of prefix_affinity: how much longer a queue may be */
    uint32_t local_prefill_max; /* tokens not cached that a D may compute itself; 0 = never */
    bool local_when_no_prefill; /* D computes every prompt while no pair is ready */
    uint32_t requests_max;      /* in flight at once; one more is AGAIN (429) */
    uint32_t attempts_max;      /* bounded retries, refusals counted */
    uint32_t tokens_max;        /* prompt + output of one request */
    uint32_t eos_ids[BT_EOS_IDS_MAX], eos_count;
    uint64_t progress_ns;       /* an attempt without any message for so long has failed */
    uint64_t heartbeat_ns;      /* period of ours */
    uint64_t daemon_timeout_ns; /* heartbeats missing for so long: the daemon is dead */
    uint64_t renew_ns;
    /* How long a request may wait between attempts, without a token committed, for a pair to be
     * ready or for a refusal that passes (full, draining, pairing again). Such refusals are bounded
     * by this and not by attempts_max. 0 = full fails at once (H8). */
    uint64_t retry_wait_ns;
} bt_router_config;

typedef struct {
    bt_request_id id;       /* random, minted by the shell */
    const uint32_t *tokens; /* copied */
    uint32_t token_count;
    uint32_t max_tokens;
    bool ignore_eos;
    uint32_t priority;
    bt_sampling sampling; /* copied, with its rows */
    bool prompt_logprobs; /* of the prompt's tokens but the first, before the first output token. To
                             score only: max_tokens 1, and leave the token out of the answer */
    uint8_t tenant_salt[BT_SHA256_BYTES];
    uint64_t user; /* given back in every io call about this request */
    bool reserved; /* it takes one of the places that bt_router_core_reserve kept */
} bt_router_request;

typedef struct {
    bt_finish_reason reason;
    uint32_t prompt_tokens, output_tokens, cached_tokens;
    uint32_t attempts;
    bt_refuse_reason refused; /* what ended the last attempt, if a daemon refused: FULL = 429 */
    char text[BT_REASON_BYTES_MAX]; /* why, if failed */
} bt_router_end;

typedef struct {
    void *ctx;
    void (*send)(void *ctx, uint32_t daemon, const bt_msg *msg);
    /* Committed token number index of this request; never twice, never out of order. eos: it is an
     * end-of-sequence id of the model. The callee may end this request: core_cancel, core_stop. */
    void (*token)(void *ctx, uint64_t user, uint32_t index, const bt_token *token, bool eos);
    void (*ended)(void *ctx, uint64_t user, const bt_router_end *end);
    /* Logprobs of the prompt's tokens index, index + 1, …, from 1 on, each once and in order, and all
     * of them before the first token. NULL if no request asks for them. */
    void (*prompt_logprobs)(void *ctx, uint64_t user, uint32_t index, const bt_token *tokens,
                            uint32_t token_count);
} bt_router_io;

/* What policies and `baton ps` see. */
typedef struct {
    bool up, draining;
    bt_hello hello;
    uint32_t running, waiting, blocks_free, slots_free; /* last heartbeat */
    uint32_t assigned;                                  /* requests of ours it works on */
    uint64_t assigned_tokens; /* prompt tokens of those still in prefill, cached ones not counted */
    double work_ns;           /* what computing them was predicted to take, … */
    uint64_t work_since_ns;   /* … counted from here */
    uint32_t queued_tokens;   /* last heartbeat, and when it came */
    uint64_t context_tokens, told_ns;
    bt_cost cost;
    uint64_t heard_ns;
} bt_router_daemon;

typedef enum { BT_PAIR_NONE, BT_PAIR_ASKED, BT_PAIR_READY, BT_PAIR_REFUSED } bt_pair_state;

typedef struct {
    bt_pair_state state;
    bt_dtype wire;
    uint32_t mb_per_s;
    char transport[64];
    char reason[BT_REASON_BYTES_MAX];
} bt_router_pair;

/* How attempts were begun. */
typedef enum {
    BT_DECIDED_PAIR,
    BT_DECIDED_PREFILL_ONLY, /* one token left: no D */
    BT_DECIDED_LOCAL,        /* D computes the prompt: cheaper */
    BT_DECIDED_ALONE,        /* D computes the prompt: no pair is ready */
    BT_DECIDED_RETARGET,
    BT_DECIDED_COUNT
} bt_router_decision;

typedef struct {
    uint32_t requests;
    uint64_t accepted_total, finished_total, cancelled_total, failed_total, refused_total,
        retries_total;
    uint64_t tokens_total, stale_total, duplicate_tokens_total;
    uint64_t decided_total[BT_DECIDED_COUNT];
    /* First tokens of first attempts whose time was predicted; sums of both times and of their
     * differences without sign. */
    uint64_t predictions_total, predicted_ns_total, actual_ns_total, error_ns_total;
    /* Prompt tokens that we believed cached, and that were, at daemons that said so. */
    uint64_t believed_tokens_total, cached_tokens_total;
    uint32_t prefix_entries;
} bt_router_stats;

size_t bt_router_core_bytes(const bt_router_config *config);
bt_router_core *bt_router_core_init(void *memory, const bt_router_config *config,
                                    const bt_router_io *io, uint64_t now_ns);

/* H8: OK = accepted. AGAIN = full now. ERR_PEER_LOST = no ready pair, or none that speaks the
 * protocol's minor that the request needs (proto/msg.h). ERR_LIMIT = longer than any pair can
 * hold. ERR_ARGUMENT = empty, or sampling out of range. */
bt_status bt_router_core_submit(bt_router_core *core, const bt_router_request *request,
                                uint64_t now_ns, bt_err *err);
/* Keeps places of requests_max for requests to come: their submit is not AGAIN for lack of one. Each
 * is taken by a submit that says so and is OK, or given back. Errors: AGAIN = not so many are free. */
bt_status bt_router_core_reserve(bt_router_core *core, uint32_t count, bt_err *err);
void bt_router_core_unreserve(bt_router_core *core, uint32_t count);
/* The client left. Ended(cancelled) comes at once; unknown users are ignored. */
void bt_router_core_cancel(bt_router_core *core, uint64_t user, uint64_t now_ns);
/* The text stage met a stop string in the last committed token: finished(stop) now. */
void bt_router_core_stop(bt_router_core *core, uint64_t user, uint64_t now_ns);

void bt_router_core_message(bt_router_core *core, uint32_t daemon, const bt_msg *msg,
                            uint64_t now_ns);
/* The connection of that daemon broke, or its process is known dead. */
void bt_router_core_daemon_lost(bt_router_core *core, uint32_t daemon, uint64_t now_ns);
void bt_router_core_tick(bt_router_core *core, uint64_t now_ns);
uint64_t bt_router_core_next_deadline(const bt_router_core *core);

/* NULL if there is no such index. */
const bt_router_daemon *bt_router_core_daemon(const bt_router_core *core, uint32_t daemon);
const bt_router_pair *bt_router_core_pair(const bt_router_core *core, uint32_t prefill,
                                          uint32_t decode);
/* Tokens, prompt and output, that the roomiest ready pair can take for a prompt of so many; 0: none
 * can. What it holds now does not count. */
uint32_t bt_router_core_room(const bt_router_core *core, uint32_t prompt_tokens);
/* At least one pair is ready, or none is needed (local_when_no_prefill) / one is ready / every pair
 * of live daemons is decided. */
bool bt_router_core_serving(const bt_router_core *core);
bool bt_router_core_paired(const bt_router_core *core);
bool bt_router_core_settled(const bt_router_core *core);
void bt_router_core_stats(const bt_router_core *core, bt_router_stats *ret_stats);

#endif
