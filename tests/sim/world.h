/* world.h - the simulated world: virtual time, an event queue, faults from a seed, and the nodes
 * that live in it.
 *
 * WHAT    One router core, some prefill and decode cores, all the daemons' own objects, in one
 *         process on virtual time. The five seams are replaced: clock (world.now), random
 *         (world.rng), network (net.c), transfer (land.c) and engine (engine.c). node.c is what the
 *         shells are to the cores; check.c looks at everything after every event.
 * REPLAY  A world is a function of its seed alone: nothing reads the clock, addresses or
 *         uninitialised memory.
 * FAILURE world_fail records the first violation; the run stops and main.c prints the line that
 *         replays it. */
#ifndef BT_TESTS_SIM_WORLD_H
#define BT_TESTS_SIM_WORLD_H

#include "decoded/core.h"
#include "prefilld/core.h"
#include "proto/codec.h"
#include "router/core.h"

#include <stdbool.h>
#include <stdint.h>

#define SIM_PREFILL_MAX 2u
#define SIM_DECODE_MAX 2u
#define SIM_NODES_MAX (SIM_PREFILL_MAX + SIM_DECODE_MAX)
#define SIM_REQUESTS_MAX 12u
#define SIM_PROMPT_MAX 320u
#define SIM_OUTPUT_MAX 24u
#define SIM_TOKENS_MAX (SIM_PROMPT_MAX + SIM_OUTPUT_MAX)
#define SIM_BIAS_MAX 3u
#define SIM_LAYERS 2u
#define SIM_VOCAB 997u
#define SIM_EOS 7u
#define SIM_UNSTOPPED 8u /* what min_tokens makes of a token that would end the output */
#define SIM_SLOTS 4u
#define SIM_CELLS 3u
#define SIM_CELL_RUNS_MAX 3u
#define SIM_POOL_MAX 96u  /* blocks */
#define SIM_BLOCK_MAX 64u /* tokens */
#define SIM_MESSAGE_MAX 16384u

#define MS 1000000ull
#define SEC (1000 * MS)

typedef struct world world;

/* ---- faults and shape, drawn from the seed (scenario.c) ---- */

typedef struct {
    uint32_t prefills, decodes, requests;
    uint32_t p_block_tokens, d_block_tokens, p_blocks, d_blocks, cell_runs, batch_tokens;
    const char *policy;
    bool slow_engine;
    /* per 10,000 messages, puts or events; 0 in undisturbed worlds */
    uint32_t loss, duplicate, reorder, corrupt, slow;
    uint32_t again, engine_fail;        /* per 10,000 batches; again of puts, too */
    uint32_t broken_logits;             /* per 10,000 sampled sequences: no token comes of it */
    uint32_t crashes, freezes, cancels; /* how many in the whole run */
    uint32_t drains, router_restarts;   /* the same */
    bool tight;         /* short prompts, long outputs, a pool of D that they outgrow */
    uint32_t late_puts; /* per 10,000 puts: lands and completes seconds later */
    uint32_t
        broken_puts; /* per 10,000 puts: is said to have failed, and lands all the same, later */
    uint32_t local_chunk, local_max; /* prompts that D computes: of a batch; at most. 0 = none */
    bool local_alone;                /* D computes all prompts while no pair is ready */
    uint64_t calm_ns;                /* no new fault after this time */
} scenario;

void scenario_draw(world *w, uint64_t seed);
uint64_t sim_lease_ns(const scenario *s); /* of a grant */
void scenario_print(const world *w);
bool scenario_undisturbed(const scenario *s);

/* ---- requests ---- */

typedef struct {
    bt_request_id id;
    uint32_t prompt[SIM_PROMPT_MAX];
    uint32_t prompt_count, max_tokens;
    bool ignore_eos;
    bt_sampling sampling;
    bt_logit_bias bias[SIM_BIAS_MAX];
    uint64_t start_ns, cancel_ns;      /* cancel_ns 0 = never */
    uint32_t expected[SIM_OUTPUT_MAX]; /* what an undisturbed run commits */
    uint32_t expected_count;
    uint32_t got_count;
    bool score;                            /* wants the prompt's logprobs */
    float expected_scores[SIM_PROMPT_MAX]; /* of prompt token i, from 1 */
    uint32_t scored;                       /* tokens 1 .. scored have come */
    uint32_t endings;
    bool submitted, refused, eos_seen;
    bool orphaned; /* the router that had accepted it died */
    bt_finish_reason reason;
} sim_request;

/* ---- nodes ---- */

typedef struct {
    uint64_t value[SIM_LAYERS][SIM_BLOCK_MAX];
} sim_block; /* the KV of one pool block: one word for each (layer, token) */

typedef struct {
    uint64_t value[SIM_CELL_RUNS_MAX * BT_RUN_TOKENS];
} sim_cell;

typedef struct {
    bool busy;
    uint64_t batch, started_ns;
    uint32_t seq_count;
    bt_engine_seq seqs[8];
    bt_token scores[8][SIM_TOKENS_MAX];
    uint32_t tokens[8][SIM_TOKENS_MAX + BT_RUN_TOKENS];
    uint32_t blocks[8][SIM_TOKENS_MAX];
} sim_engine;

typedef struct {
    world *world;
    uint32_t index; /* of all nodes; prefills first */
    bt_role role;
    bool up, draining;
    bool drain_worked; /* there was work when the drain began */
    uint64_t incarnation, frozen_until_ns;
    void *memory;
    bt_prefill_core *prefill;
    bt_decode_core *decode;
    sim_engine engine;
    sim_block pool[SIM_POOL_MAX];
    sim_cell cells[SIM_SLOTS][SIM_CELLS]; /* D's landing arena */
    struct {
        bool up;
        uint64_t incarnation; /* of the other side */
        uint32_t epoch;       /* counts endpoints */
        bool reported;
        uint64_t told_ready; /* the incarnation that R was told is ready */
    } peer[SIM_NODES_MAX];
} sim_node;

/* ---- events ---- */

typedef enum {
    EV_MESSAGE,  /* data: encoded bt_msg from node a to node b (SIM_ROUTER = the router), on channel
                  */
    EV_WAKE,     /* a: tick of node a */
    EV_ENGINE,   /* a: the engine of node a reaches step `arg` */
    EV_LAND,     /* a put of node a lands at node b */
    EV_PUT_DONE, /* completion of it at a */
    EV_UNPACK,   /* D's node a unpacks */
    EV_HEARTBEAT, /* a tells its load */
    EV_SUBMIT,    /* request arg arrives */
    EV_CANCEL,    /* request arg's client leaves */
    EV_CRASH,
    EV_RESTART,
    EV_TOLD_DEAD, /* the others learn that incarnation arg of node a is dead */
    EV_FREEZE,
    EV_PAIR,  /* P's node a pairs with D's node b */
    EV_DRAIN, /* node a gets its SIGTERM */
    EV_DRAIN_END,
    EV_ROUTER_RESTART
} event_kind;

typedef struct sim_event {
    uint64_t time_ns, order;
    event_kind kind;
    uint32_t a, b;
    uint64_t a_incarnation, b_incarnation; /* 0 = whoever lives */
    uint64_t sent_to; /* EV_MESSAGE: the incarnation at b when it was sent, 0 = none */
    uint64_t arg;
    bool ucx;
    bool broken;    /* EV_PUT_DONE: a failure, whatever becomes of the bytes */
    uint32_t epoch; /* EV_PUT_DONE: of the endpoint */
    uint32_t slot;  /* EV_PUT_DONE */
    bt_msg_kind msg_kind;
    uint32_t bytes;
    uint8_t *data;
} sim_event;

#define SIM_ROUTER SIM_NODES_MAX

/* ---- what the worlds met (tally.c) ---- */

typedef enum {
    FAULT_SENT,
    FAULT_LOST,
    FAULT_DOUBLED,
    FAULT_REORDERED, /* comes before what was sent earlier, or after what was sent later */
    FAULT_SLOW,
    FAULT_SUCCESSOR, /* either end is another incarnation by now */
    FAULT_FROZEN,    /* comes to a stopped process */
    FAULT_COUNT
} sim_fault;

typedef enum {
    CORNER_QUIESCED_OWED,
    CORNER_LATE_LANDING,
    CORNER_PUT_FAILED,
    CORNER_IN_DOUBT,
    CORNER_SHARE_FULL,
    CORNER_LEASE_P,
    CORNER_LEASE_D,
    CORNER_ROUTER_SILENT,
    CORNER_ROUTER_RESTART,
    CORNER_OLD_ROUTER,
    CORNER_GAP,
    CORNER_FINISHED_GAP,
    CORNER_CONTINUED,
    CORNER_DRAIN_REFUSED,
    CORNER_DRAINED,
    CORNER_DRAIN_RETARGET,
    CORNER_FULL,
    CORNER_NO_RESERVE,
    CORNER_HELD_TICKET,
    CORNER_TOMBSTONE,
    CORNER_PUSHED_AGAIN,
    CORNER_DIGEST_FINAL,
    CORNER_RETARGETED,
    CORNER_RETARGET_UNKNOWN,
    CORNER_CACHED_P,
    CORNER_CACHED_D,
    CORNER_CACHED_ALL,
    CORNER_CREDITS,
    CORNER_ENGINE_FAILED,
    CORNER_BROKEN_LOGITS,
    CORNER_CONTINUED_PENALTIES,
    CORNER_CONTINUED_MIN_TOKENS,
    CORNER_STOP_ID,
    CORNER_SCORES_LOST,
    CORNER_SCORES_AGAIN,
    CORNER_AGAIN,
    CORNER_LOCAL,
    CORNER_LOCAL_CHUNKS,
    CORNER_LOCAL_CACHED,
    CORNER_LOCAL_CANCELLED,
    CORNER_LOCAL_RETRIED,
    CORNER_LOCAL_CONTINUED,
    CORNER_LOCAL_ALONE,
    CORNER_COUNT
} sim_corner;

typedef struct {
    uint64_t messages[BT_MSG_KIND_END][FAULT_COUNT];
    uint64_t corners[CORNER_COUNT];
} sim_tally;

struct world {
    uint64_t seed, now_ns, order, rng;
    bool trace;
    scenario sc;
    sim_event **heap;
    uint32_t heap_count, heap_capacity;
    uint64_t events;
    bt_codec *codec;
    bt_router_core *router;
    void *router_memory;
    uint64_t router_wake_ns;
    uint64_t router_incarnation, router_frozen_until_ns;
    event_kind event; /* the one that happens now */
    sim_node nodes[SIM_NODES_MAX];
    uint64_t node_wake_ns[SIM_NODES_MAX];
    uint64_t link_clock_ns[SIM_NODES_MAX + 1][SIM_NODES_MAX + 1][2]; /* FIFO: last delivery time */
    sim_request requests[SIM_REQUESTS_MAX];
    uint64_t next_incarnation;
    /* what checkers remember: of each request at each P the attempts that hold a ticket and those
     * that sent their FirstToken, a bit each; and when each grant of D was last renewed */
    struct {
        uint64_t tickets, firsts;
    } attempts[SIM_REQUESTS_MAX][SIM_PREFILL_MAX];
    struct {
        uint64_t p_incarnation, renewed_ns;
        uint32_t generation;
    } grants[SIM_NODES_MAX][SIM_SLOTS];
    uint64_t doubt[SIM_NODES_MAX][SIM_SLOTS]; /* the P incarnation that had a put into it fail */
    /* highest attempt that came to a daemon, of them before it drained, and cancelled there */
    uint32_t reached[SIM_REQUESTS_MAX][SIM_NODES_MAX];
    uint32_t before_drain[SIM_REQUESTS_MAX][SIM_NODES_MAX];
    uint32_t cancelled[SIM_REQUESTS_MAX][SIM_NODES_MAX];
    uint32_t pushed_again[SIM_REQUESTS_MAX][SIM_NODES_MAX]; /* the attempt that was */
    uint32_t retargeted[SIM_REQUESTS_MAX];
    bool was_local[SIM_REQUESTS_MAX]; /* the last attempt was */
    sim_tally tally;
    /* what checkers count */
    uint64_t quarantines, refused_digests, retries, landed, stale;
    bool failed;
    char failure[256];
};

/* world.c */
void world_init(world *w, uint64_t seed, bool trace);
void world_run(world *w);
void world_free(world *w);
void world_fail(world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void world_trace(world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
uint64_t world_random(world *w, uint64_t below);
bool world_chance(world *w, uint32_t per_10000); /* false after the calm began */
sim_event *world_schedule(world *w, uint64_t delay_ns, event_kind kind, uint32_t a, uint32_t b);
uint64_t sim_mix(uint64_t a, uint64_t b);

/* net.c: encodes, delays, loses, doubles and reorders messages */
void net_send(world *w, uint32_t from, uint32_t to, bool ucx, const bt_msg *msg);

/* engine.c: a model whose KV and tokens are hashes of what came before */
bt_status engine_submit(sim_node *node, const bt_engine_batch *batch);
void engine_step(sim_node *node, const sim_event *event);
void engine_expect(sim_request *request);
uint64_t *engine_value(sim_node *node, const uint32_t *blocks, uint32_t layer, uint32_t token);

/* land.c: puts, the landing arena, unpack; the place of H1 */
bt_status land_put(sim_node *node, const bt_prefill_put *put, bt_kv_digest *ret_digest);
void land_arrive(world *w, const sim_event *event);
void land_done(world *w, const sim_event *event);
void land_unpack(sim_node *node, const bt_decode_unpack *unpack);
void land_unpacked(world *w, const sim_event *event);

/* node.c: births, deaths, pairing, the io tables */
void node_start(sim_node *node);
void node_crash(sim_node *node);
void node_event(world *w, sim_event *event);
void router_start(world *w);
void router_event(world *w, sim_event *event);
uint32_t node_block_tokens(const sim_node *node);
void node_hello(sim_node *node);

/* tally.c */
void tally_message(world *w, bt_msg_kind kind, sim_fault fault);
void tally_corner(world *w, sim_corner corner);
void tally_sent(world *w, uint32_t from, uint32_t to, const bt_msg *msg);
void tally_delivered(world *w, const sim_node *node, const bt_msg *msg);
void tally_to_router(world *w, const bt_msg *msg);
void tally_node_end(world *w, const sim_node *node);
void tally_add(sim_tally *sum, const sim_tally *tally);
/* Prints all of it; returns how many are 0. */
uint32_t tally_print(const sim_tally *tally);

/* check.c */
void check_sent(world *w, uint32_t from, uint32_t to, const bt_msg *msg);
void check_delivered(world *w, sim_node *node, const bt_msg *msg);
void check_born(world *w, const sim_node *node);
void check_landing(world *w, sim_node *d, uint32_t slot, const bt_fence *fence);
void check_token(world *w, sim_request *request, uint32_t index, uint32_t id);
void check_scores(world *w, sim_request *request, uint32_t index, const bt_token *tokens,
                  uint32_t token_count);
void check_ended(world *w, sim_request *request, const bt_router_end *end);
void check_after_event(world *w);
void check_final(world *w);

#endif
