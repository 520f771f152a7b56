/* msg.h - every message between router, prefill and decode daemons, as the plain C the cores work
 * on.
 *
 * WHAT    The vocabulary of HANDOFF (docs/handoff.md). proto/baton.proto is its form on the wire,
 *         proto/codec.h converts. A core never sees wire bytes: what reaches it has passed the caps
 *         and range checks of the codec.
 * OWNS    Pointers (tokens, addresses, texts) are borrowed: valid during the call that hands the
 *         message over. A core that keeps something copies it.
 * ADD ONE a line in BT_MSG_LIST, a struct in the union, a message in baton.proto, a row in codec.c;
 *         the round-trip test and the fuzz target then cover it. */
#ifndef BT_PROTO_MSG_H
#define BT_PROTO_MSG_H

#include "common/base/cost.h"
#include "common/base/crypto.h"
#include "common/base/dtype.h"
#include "common/base/limits.h"
#include "common/base/sampling.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Another major is refused. Another minor of it is understood, but fields it does not know are
 * ignored there: bt_sampling_minor says what a request needs, and R sends it to no older daemon.
 *   minor 1   sampling: min_p, penalties, min_tokens, stop_ids, logit_bias, logprobs;
 *             prompt_logprobs; RESERVE local, HELLO chunk_tokens, costs in HEARTBEAT, ACCEPTED
 *             cached_tokens */
#define BT_PROTO_MAJOR 1u
#define BT_PROTO_MINOR 1u

#define BT_MSG_TOKENS_MAX 64u          /* in one TOKENS message */
#define BT_MSG_RENEW_MAX 4096u         /* requests in one RENEW message */
#define BT_MSG_ADDRESS_BYTES_MAX 4096u /* worker addresses and rkeys */

typedef enum {
    BT_ROLE_NONE = 0,
    BT_ROLE_ROUTER = 1,
    BT_ROLE_PREFILL = 2,
    BT_ROLE_DECODE = 3
} bt_role;

typedef struct {
    uint8_t bytes[16];
} bt_request_id;

/* Names one grant and nothing else. R mints request, attempt and branch and names both
 * incarnations; D mints slot and generation. On R <-> P and R <-> D messages slot and generation
 * are 0. A message whose fence is not current is dropped and counted. */
typedef struct {
    bt_request_id request;
    uint32_t attempt; /* from 1, grows */
    uint32_t branch;
    uint32_t tp_rank;
    uint32_t slot;
    uint32_t generation; /* from 1; 0 = none */
    uint64_t p_incarnation;
    uint64_t d_incarnation;
} bt_fence;

/* One frame: one layer x a range of runs x the heads of one destination rank; one contiguous put.
 */
typedef struct {
    uint32_t frame; /* index within the handoff, from 0, in order of sealing */
    uint32_t cell;  /* landing cell of the slot it was put into */
    uint32_t layer;
    uint32_t run_first; /* run r holds tokens [64 r, 64 r + 64) */
    uint32_t run_count;
    uint32_t head_first;
    uint32_t head_count;
    uint32_t token_end; /* tokens of the sequence valid at the end of this frame: <= 64 (run_first +
                           run_count) */
} bt_frame;

/* Order-independent digest of a set of records: sums modulo 2^64 (common/kv/wire.h). */
typedef struct {
    uint64_t lane[2];
} bt_kv_digest;

typedef enum {
    BT_REFUSE_NONE = 0,
    BT_REFUSE_DRAINING,
    BT_REFUSE_FULL,      /* no slot, no blocks, no room in a queue */
    BT_REFUSE_DIGEST,    /* a frame's digest did not agree; to P: push again with the next Ticket */
    BT_REFUSE_MISSING,   /* the Manifest came before every frame did */
    BT_REFUSE_LEASE,     /* the grant's lease ended */
    BT_REFUSE_PEER_LOST, /* the other daemon of the pair is gone */
    BT_REFUSE_INCOMPATIBLE, /* pairing: fingerprint, format or probe */
    BT_REFUSE_TOO_LONG,     /* prompt or output beyond what the pool can hold at all */
    BT_REFUSE_UNKNOWN,      /* Retarget of KV no longer held, model or adapter not here */
    BT_REFUSE_ENGINE,       /* the engine failed this sequence */
    BT_REFUSE_COUNT
} bt_refuse_reason;

typedef enum {
    BT_FINISH_NONE = 0,
    BT_FINISH_STOP,
    BT_FINISH_LENGTH,
    BT_FINISH_CANCELLED,
    BT_FINISH_FAILED
} bt_finish_reason;

/* What Prefill and Reserve both carry, so that no sampler state ever moves. */
typedef struct {
    const uint32_t *tokens; /* prompt + tokens already committed */
    uint32_t token_count;
    uint32_t base;       /* index of the next token to sample = committed tokens; the prompt is
                            token_count - base long */
    uint32_t max_tokens; /* output tokens in all, committed ones included; > base */
    uint32_t priority;   /* higher first */
    bool ignore_eos;
    bool no_reserve;      /* Prefill only: the first token ends the request, no D is involved */
    bool local;           /* Reserve only: D computes the prompt itself, no P is involved */
    bool prompt_logprobs; /* Prefill: tell the logprob of each prompt token but the first, with
                             sampling.top_logprobs alternatives */
    uint64_t deadline_ms; /* milliseconds from receipt, 0 = none */
    bt_sampling sampling;
    uint8_t tenant_salt[BT_SHA256_BYTES];
} bt_msg_work;

/* What a daemon says about itself; R and the pairing peer compare. */
typedef struct {
    uint32_t proto_major, proto_minor;
    bt_role role;
    char name[BT_NAME_BYTES_MAX];
    char model[BT_NAME_BYTES_MAX];
    uint64_t incarnation;
    bt_sha256 fingerprint;    /* architecture, tokenizer, RoPE, windows …: must agree
                                 (proto/fingerprint.h) */
    bt_sha256 weights_digest; /* may differ between P and D; named in prefix keys */
    bt_dtype kv_dtype;
    uint32_t
        wire_formats; /* bit (1 << bt_dtype) for each format this daemon packs (P) or unpacks (D) */
    uint32_t block_tokens;
    uint32_t pool_blocks;
    uint32_t context_tokens_max;
    uint32_t layers, kv_heads, head_dim, vocab;
    uint32_t tp_size;
    uint32_t ucx_major, ucx_minor;
    char pair_endpoint[128]; /* D: where P dials for pairing; else empty */
    uint8_t curve_public[32];
    char metrics_url[128];
    /* Which process this is, so that a peer on the same host can prove its death (common/daemon/process.h). */
    uint64_t process_host, process_start;
    uint32_t process_pid;
    uint32_t chunk_tokens; /* of a prompt computed in one batch; 0: computes no prompts (most Ds) */
} bt_hello;

/* clang-format off */
/*    kind            direction and channel (Z = ZeroMQ, U = UCX active message on the pair's endpoint) */
#define BT_MSG_LIST(X)                                                                              \
    X(HELLO,           1) /* P,D -> R  Z  first message of a daemon, and again after a reconnect */ \
    X(WELCOME,         2) /* R -> P,D  Z  names the router's incarnation */                         \
    X(HEARTBEAT,       3) /* both ways Z  load one way; "the router lives" the other */             \
    X(PAIR,            4) /* R -> P    Z  pair with this D */                                       \
    X(UNPAIR,          5) /* R -> P    Z  that D incarnation is gone */                             \
    X(PAIR_STATUS,     6) /* P -> R,D  Z  ready with transport and GB/s, or refused and why */      \
    X(PAIR_HELLO,      7) /* P -> D    Z  checked before any UCX address is used */                 \
    X(PAIR_ACCEPT,     8) /* D -> P    Z  wire format agreed, arena, rkey, secret */                \
    X(PAIR_REFUSE,     9) /* D -> P    Z  both sides' values in the text */                         \
    X(PREFILL,        10) /* R -> P    Z */                                                         \
    X(RESERVE,        11) /* R -> D    Z */                                                         \
    X(RETARGET,       12) /* R -> P    Z  fence = the new attempt */                                \
    X(CANCEL,         13) /* R -> P,D  Z  fence up to attempt;  D -> P  U  the full fence */        \
    X(FIRST_TOKEN,    14) /* P -> R    Z */                                                         \
    X(PINNED,         15) /* P -> R    Z */                                                         \
    X(ACCEPTED,       16) /* D -> P    U, D -> R  Z */                                              \
    X(REFUSED,        17) /* D -> P    U, D -> R  Z, P -> R  Z */                                   \
    X(TOKENS,         18) /* D -> R    Z */                                                         \
    X(FINISHED,       19) /* D -> R    Z */                                                         \
    X(EVICTED,        20) /* D -> R    Z */                                                         \
    X(RENEW,          21) /* R -> P,D  Z  the owner still wants these requests */                   \
    X(TICKET,         22) /* D -> P    U */                                                         \
    X(SEALED,         23) /* P -> D    U  after the frame's flush completed */                      \
    X(CREDIT,         24) /* D -> P    U  the cell may be used again by the same fence */           \
    X(MANIFEST,       25) /* P -> D    U */                                                         \
    X(ABANDON,        26) /* P -> D    U  ended at the first token */                               \
    X(QUIESCED,       27) /* P -> D    U  no put of that fence can still be in flight */            \
    X(LEASE_RENEW,    28) /* P -> D    U  P is still computing for this grant */                     \
    X(PROMPT_LOGPROBS, 29) /* P -> R   Z  in order, before FIRST_TOKEN */
/* clang-format on */

typedef enum {
    BT_MSG_NONE = 0,
#define X(name, value) BT_MSG_##name = (value),
    BT_MSG_LIST(X)
#undef X
        BT_MSG_KIND_END
} bt_msg_kind;

typedef struct {
    bt_msg_kind kind;
    bt_fence fence; /* zero where the message is not about a request */
    union {
        bt_hello hello;
        struct {
            uint64_t router_incarnation;
            uint32_t heartbeat_ms;
        } welcome;
        struct {
            uint64_t incarnation; /* of the sender */
            uint32_t running, waiting;
            uint32_t blocks_free, slots_free;
            bool draining;
            uint32_t queued_tokens;  /* prompt tokens accepted and not computed yet */
            uint64_t context_tokens; /* of all running sequences, what a decode step reads */
            bt_cost cost;            /* measured; all 0 until something was */
        } heartbeat;
        struct {
            uint64_t d_incarnation;
            char name[BT_NAME_BYTES_MAX];
            char endpoint[128];
            uint8_t curve_public[32];
        } pair; /* PAIR, UNPAIR */
        struct {
            uint64_t d_incarnation;
            bool ready;
            char transport[64]; /* UCX lane, as "posix/memory" */
            uint32_t mb_per_s;  /* measured at pairing */
            bt_dtype wire;
            char reason[BT_REASON_BYTES_MAX]; /* if not ready */
        } pair_status;
        struct {
            bt_hello hello;       /* of P */
            bt_dtype wire_wanted; /* NONE = what D stores */
            const uint8_t *worker_address;
            uint32_t worker_address_bytes;
        } pair_hello;
        struct {
            bt_hello hello; /* of D */
            bt_dtype wire;
            uint32_t slot_count, cell_count, cell_bytes; /* cells of one slot */
            uint64_t arena_address; /* D's own; P adds slot and cell offsets and nothing else */
            uint8_t secret[BT_KEY_BYTES]; /* keys the MAC of every UCX message of this pair */
            const uint8_t *worker_address;
            uint32_t worker_address_bytes;
            const uint8_t *rkey;
            uint32_t rkey_bytes;
        } pair_accept;
        struct {
            char reason[BT_REASON_BYTES_MAX];
        } pair_refuse;
        bt_msg_work prefill;
        bt_msg_work reserve;
        struct {
            bt_token token;
            uint32_t index; /* = base of the Prefill */
            bool final;     /* this token ends the request */
            bt_finish_reason finish;
            uint32_t cached_tokens;
        } first_token;
        struct {
            uint32_t cached_tokens; /* prompt tokens whose KV D held before */
        } accepted;
        struct {
            bt_refuse_reason reason;
            bool retry; /* to P: push again after Quiesced, with the next Ticket */
            char text[BT_REASON_BYTES_MAX];
        } refused;
        struct {
            const bt_token *tokens; /* at index, index + 1, … */
            uint32_t index;         /* PROMPT_LOGPROBS: in the prompt, from 1; else in the output */
            uint32_t token_count;
        } tokens; /* TOKENS, PROMPT_LOGPROBS */
        struct {
            bt_finish_reason reason;
            uint32_t token_count; /* output tokens in all = index after the last one */
        } finished;
        struct {
            uint32_t token_count; /* output tokens sent so far */
        } evicted;
        struct {
            const bt_request_id *requests;
            uint32_t request_count;
        } renew;
        struct {
            bt_dtype wire;
            uint32_t run_first;  /* D holds runs [0, run_first) already; P sends the rest */
            uint32_t cell_count; /* landing credits to start with: cells 0 .. cell_count - 1 */
            uint32_t lease_ms;
            bool probe; /* the pairing probe, not a request */
        } ticket;
        struct {
            bt_frame frame;
            bt_kv_digest digest;
        } sealed;
        struct {
            uint32_t cell;
        } credit;
        struct {
            uint32_t
                token_count; /* tokens whose KV was handed over: the whole prompt + committed */
            uint32_t frame_count;
            bt_kv_digest digest_sum; /* over all frames */
            bt_sha256 prefix_hash; /* of the tokens (common/kv/prefix.h); D compares with its own */
            uint32_t base;
            bt_token first_token;
        } manifest;
    };
} bt_msg;

/* "TICKET"; "?" for a value that is no kind. */
const char *bt_msg_name(bt_msg_kind kind);
const char *bt_refuse_name(bt_refuse_reason reason);

/* True if both name the same grant in every field. */
bool bt_fence_equal(const bt_fence *a, const bt_fence *b);
bool bt_request_id_equal(const bt_request_id *a, const bt_request_id *b);
bool bt_token_equal(const bt_token *a, const bt_token *b);
/* The lowest minor whose daemons do all that this sampling asks for. */
uint32_t bt_sampling_minor(const bt_sampling *sampling);
/* Same kind, fence and contents, what the pointers point to included. */
bool bt_msg_equal(const bt_msg *a, const bt_msg *b);

#endif
