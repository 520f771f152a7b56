/* state.h - the router core's memory, shared by its parts. Private to router/.
 *
 * core.c       daemons, pairs, time, the entry points.
 * choose.c     where an attempt goes: pairs, caches, policy, prompts that D computes.
 * attempts.c   requests: submit, attempts, commits, the one ending.
 * Requests are found by id and by user through chained hash tables of indexes. */
#ifndef BT_ROUTER_STATE_H
#define BT_ROUTER_STATE_H

#include "common/base/arena.h"
#include "router/core.h"
#include "router/policies/policy.h"
#include "router/prefix_index.h"

#define BT_ROUTER_NONE UINT32_MAX
#define BT_ROUTER_GAP_MAX 32u /* tokens held beyond a gap; one further fails the attempt */
#define BT_ROUTER_DAEMON_WORDS ((BT_DAEMONS_MAX + 63) / 64)

typedef struct {
    bool used;
    bool waiting;    /* between attempts: no daemon works on it; deadline_ns = next try */
    bool no_reserve; /* this attempt ends with its first token: no D */
    bool accepted;   /* D has it all: P's fate no longer matters */
    bool pinned;
    bool patient;    /* the last refusal passes by itself: worth a wait, and no failure */
    bool first_seen; /* a token of this attempt came */
    bool usage_seen;
    bool p_counted; /* in its P's `assigned` */
    bool local;     /* D computes the prompt of this attempt: no P */
    bool learnt;    /* what P has cached now is in the index */
    bool no_local;  /* an attempt of that kind failed: prefer pairs */
    bool ignore_eos;
    bt_request_id id;
    uint64_t user;
    uint32_t id_next, user_next; /* chains; id_next also chains free requests */
    uint32_t prompt_count, max_tokens, committed, priority, cached_tokens;
    uint32_t *tokens;     /* [tokens_max]: prompt, then committed */
    bt_sampling sampling; /* borrows bias */
    bt_logit_bias *bias;  /* [BT_LOGIT_BIAS_MAX] */
    bool score;           /* the client wants the prompt's logprobs */
    uint32_t scored;      /* of tokens 1 .. scored they are here */
    uint8_t tenant_salt[BT_SHA256_BYTES];
    uint32_t attempt, base;
    uint32_t failures;        /* attempts that failed, refusals counted */
    uint32_t waits;           /* since the last commit */
    uint32_t prefill, decode; /* NONE where the attempt has none */
    uint64_t p_incarnation, d_incarnation;
    uint32_t p_tokens; /* counted in assigned_tokens of who computes the prompt … */
    double work_ns;    /* … and in its work_ns */
    uint64_t started_ns;
    double predicted_ns; /* to the first token, by the first attempt; 0 = not known */
    /* Names of the prompt's whole runs, committed tokens included, and what we believed cached. */
    bt_prefix_name *names; /* [tokens_max / 64] */
    uint32_t name_count;
    bt_sha256 chain; /* the last name in full */
    uint32_t p_believed, d_believed;
    uint64_t believed_when;
    uint64_t deadline_ns;
    uint64_t give_up_ns;                    /* waits > 0: when to fail */
    uint64_t avoid[BT_ROUTER_DAEMON_WORDS]; /* daemons that failed an attempt of this request */
    bt_refuse_reason refused;
    char text[BT_REASON_BYTES_MAX]; /* why the last attempt failed */
    uint32_t gap_set;               /* bit i: gap[i] holds the token with index = i mod GAP_MAX */
    bt_token gap[BT_ROUTER_GAP_MAX];
} bt_router_entry;

/* A PAIR or its answer may be lost, so it is sent again; a probe may also take long, so ever later. */
typedef struct {
    uint64_t next_ns;
    uint32_t count;
} bt_router_ask;

struct bt_router_core {
    bt_router_config config;
    bt_router_io io;
    const bt_router_policy *policy;
    bt_router_policy_state policy_state;
    bt_prefix_index *index; /* NULL if nothing reads it */
    bool wants_names;
    uint64_t deadline_ns; /* not later than any timer; exact after a tick */
    uint64_t heartbeat_next_ns, renew_next_ns;
    bt_router_stats stats;
    bt_router_daemon daemons[BT_DAEMONS_MAX];
    bt_router_pair *pairs; /* [BT_DAEMONS_MAX][BT_DAEMONS_MAX]: prefill, decode */
    bt_router_ask *asks;   /* [BT_DAEMONS_MAX][BT_DAEMONS_MAX]: of pairs in state ASKED */
    bt_router_choice *choices;
    bt_request_id *renew_ids; /* [BT_MSG_RENEW_MAX] */
    bt_router_entry *entries; /* [requests_max] */
    uint32_t bucket_mask;
    uint32_t *id_buckets, *user_buckets;
    uint32_t free_head;
    uint32_t reserved; /* free entries that are promised */
};

/* -- core.c ------------------------------------------------------------------------------------ */

bt_router_pair *bt_router_pair_at(bt_router_core *core, uint32_t prefill, uint32_t decode);
/* Tokens a daemon's pool and context hold at most; UINT32_MAX if it does not say. */
uint32_t bt_router_daemon_capacity(const bt_router_daemon *daemon);

/* -- choose.c ---------------------------------------------------------------------------------- */

typedef struct {
    bt_router_choice choice; /* prefill NONE: D computes the prompt */
    bt_router_decision kind;
    double ttft_ns; /* predicted; 0 = not known */
    double work_ns; /* of computing the prompt */
} bt_router_plan;

/* What is not asked of a pair. */
typedef struct {
    bool any_daemon; /* those that failed the request too */
    bool any_minor, any_size;
} bt_router_terms;

static inline bool bt_router_avoided(const bt_router_entry *r, uint32_t daemon)
{
    return r->avoid[daemon / 64] >> daemon % 64 & 1;
}

/* The prompt's logprobs are with the client, if it wants them; no token is committed before. */
static inline bool bt_router_scores_complete(const bt_router_entry *r)
{
    return !r->score || r->scored + 1 >= r->prompt_count;
}

/* Of the protocol, that the daemons of this request must speak at least. */
static inline uint32_t bt_router_minor(const bt_router_entry *r)
{
    uint32_t minor = bt_sampling_minor(&r->sampling);
    return r->score && minor < 1 ? 1 : minor;
}

/* False if nobody may take it. fixed_prefill: a Retarget of its KV; else NONE. */
bool bt_router_choose(bt_router_core *core, const bt_router_entry *r, uint32_t fixed_prefill,
                      bt_router_terms terms, uint64_t now_ns, bt_router_plan *ret_plan);
/* Whether anybody may; asks no policy. */
bool bt_router_choosable(bt_router_core *core, const bt_router_entry *r, bt_router_terms terms);
/* True if decode daemons may compute all prompts now, since no pair is ready. */
bool bt_router_alone(const bt_router_core *core);
/* Names of prompt and committed tokens, before bt_router_choose. */
void bt_router_names_update(bt_router_core *core, bt_router_entry *r);
void bt_router_believe(bt_router_core *core, bt_router_entry *r, const bt_router_choice *choice);
/* What the daemons of this attempt say of their caches. */
void bt_router_learn_prefill(bt_router_core *core, bt_router_entry *r, uint32_t cached_tokens);
/* P had computed it, since D has it all, before its FirstToken came; what was cached is not known. */
void bt_router_learn_prefill_done(bt_router_core *core, bt_router_entry *r);
void bt_router_learn_decode(bt_router_core *core, const bt_router_entry *r, uint32_t cached_tokens);

/* -- attempts.c -------------------------------------------------------------------------------- */

/* Messages about a request: FIRST_TOKEN, PINNED, ACCEPTED, REFUSED, TOKENS, PROMPT_LOGPROBS, FINISHED, EVICTED. */
void bt_router_request_message(bt_router_core *core, uint32_t daemon, const bt_msg *msg,
                               uint64_t now_ns);
/* The daemon is down already: every attempt that needs it fails. */
void bt_router_requests_daemon_down(bt_router_core *core, uint32_t daemon, uint64_t now_ns);
/* P says that its endpoint to D is broken: attempts that still need it fail. */
void bt_router_requests_pair_down(bt_router_core *core, uint32_t prefill, uint32_t decode,
                                  uint64_t now_ns);
/* Requests whose deadline has passed; those waiting for a pair too if `all_waiting`. */
void bt_router_requests_expire(bt_router_core *core, bool all_waiting, uint64_t now_ns);
void bt_router_requests_init(bt_router_core *core);

#endif
