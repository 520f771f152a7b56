/* bench_policy.c - the routing policies against each other: the real cores of router, prefill and
 * decode daemons on virtual time, with a latency model for the engine and for the puts.
 *
 *     bench_policy [--trace FILE] [--requests N] [--scale X] [--seed S]
 *
 * Without a trace: shared prefixes and mixed lengths, drawn from the seed (draw_synthetic). FILE has a
 * line for each request, as Mooncake's public traces: {"timestamp": ms, "input_length": tokens,
 * "output_length": tokens, "hash_ids": [one for each 512 tokens]}; equal ids are equal tokens. --scale
 * multiplies the arrival rate. Requests of more than CONTEXT tokens are left out and counted.
 * Prints a Markdown table: TTFT, the longest gaps between tokens, the share of prompt tokens that were
 * cached, how many prompts D computed, and the mean error of the predicted TTFT. No wall clock: the
 * same arguments give the same table on any machine. */
#include "common/base/rng.h"
#include "common/kv/wire.h"
#include "decoded/core.h"
#include "prefilld/core.h"
#include "router/core.h"
#include "router/policies/policy.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFILLS 4u
#define DECODES 4u
#define NODES (PREFILLS + DECODES)
#define ROUTER NODES
#define CONTEXT 32768u
#define LAYERS 4u
#define CHUNK 2048u
#define SEQS 128u
#define REQUESTS_MAX 20000u
#define HASH_TOKENS 512u
#define VOCAB 100000u
#define MS 1000000ull
#define SEC (1000 * MS)
#define NET_NS 50000ull
#define LINK_BYTES_PER_NS 5.0 /* of a pair */

/* The ground truth, about a 7B model on one data-centre GPU: 20,000 prompt tokens a second, decode
 * steps from 8 ms. Every second prefill daemon is of a generation that takes twice as long. */
static const bt_cost truth_prefill = {5e6f, 50e3f, 2.0f};
static const bt_cost truth_decode = {8e6f, 60e3f, 2.0f};

typedef struct {
    uint64_t arrival_ns;
    uint32_t *tokens;
    uint32_t token_count, max_tokens;
    uint64_t first_ns, last_ns;
    uint32_t cached;
    bool failed, ended;
} job;

typedef enum {
    ON_MESSAGE,
    ON_ENGINE,
    ON_PUT,
    ON_UNPACK,
    ON_BEAT,
    ON_PAIR,
    ON_SUBMIT,
    ON_WAKE
} what;

typedef struct {
    uint64_t time_ns, order, arg;
    what kind;
    uint32_t from, to;
    bool ucx;
    bt_msg msg;
    void *data; /* what the message points to */
} event;

typedef struct {
    bt_role role;
    bt_prefill_core *prefill;
    bt_decode_core *decode;
    void *memory;
    bool batch_busy;
    uint32_t layer;
    uint64_t batch, batch_ns, started_ns;
    uint32_t handle_count, handles[SEQS];
    bool paired[NODES], reported[NODES];
    uint64_t link_free_ns[NODES], wake_ns;
} node;

typedef struct {
    uint64_t now_ns, order;
    event *heap;
    uint32_t count, capacity;
    node nodes[NODES];
    bt_router_core *router;
    void *router_memory;
    uint64_t router_wake_ns;
    job *jobs;
    uint32_t job_count, open;
    bt_rng rng;
    float *gaps; /* ms between tokens */
    uint32_t gap_count, gap_capacity;
} world;

/* ---- time ---- */

static bool sooner(const event *a, const event *b)
{
    return a->time_ns != b->time_ns ? a->time_ns < b->time_ns : a->order < b->order;
}

static void push(world *w, uint64_t delay_ns, event e)
{
    if (w->count == w->capacity) {
        w->capacity = w->capacity ? 2 * w->capacity : 4096;
        w->heap = realloc(w->heap, w->capacity * sizeof(event));
        assert(w->heap != NULL);
    }
    e.time_ns = w->now_ns + delay_ns;
    e.order = w->order++;
    uint32_t i = w->count++;
    for (; i > 0 && sooner(&e, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = e;
}

static event pop(world *w)
{
    event top = w->heap[0], last = w->heap[--w->count];
    uint32_t i = 0;
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= w->count) break;
        if (child + 1 < w->count && sooner(&w->heap[child + 1], &w->heap[child])) child++;
        if (!sooner(&w->heap[child], &last)) break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

/* ---- io ---- */

static world *the_world; /* what io contexts, which are node indexes, belong to */

static void *copy_of(const void *data, size_t bytes)
{
    void *copy = malloc(bytes);
    assert(copy != NULL);
    memcpy(copy, data, bytes);
    return copy;
}

static void send(uint32_t from, uint32_t to, bool ucx, const bt_msg *msg)
{
    event e = {.kind = ON_MESSAGE, .from = from, .to = to, .ucx = ucx, .msg = *msg};
    if (msg->kind == BT_MSG_PREFILL || msg->kind == BT_MSG_RESERVE)
        e.msg.prefill.tokens = e.data =
            copy_of(msg->prefill.tokens, msg->prefill.token_count * sizeof(uint32_t));
    if (msg->kind == BT_MSG_TOKENS)
        e.msg.tokens.tokens = e.data =
            copy_of(msg->tokens.tokens, msg->tokens.token_count * sizeof(bt_token));
    if (msg->kind == BT_MSG_RENEW)
        e.msg.renew.requests = e.data =
            copy_of(msg->renew.requests, msg->renew.request_count * sizeof(bt_request_id));
    push(the_world, NET_NS, e);
}

static uint32_t index_of(const void *ctx)
{
    return (uint32_t)((const node *)ctx - the_world->nodes);
}

static void io_router(void *ctx, const bt_msg *msg)
{
    send(index_of(ctx), ROUTER, false, msg);
}

static void io_peer(void *ctx, uint32_t peer, const bt_msg *msg)
{
    send(index_of(ctx), peer, true, msg);
}

static bt_cost truth_of(const node *n)
{
    bt_cost cost = n->role == BT_ROLE_PREFILL ? truth_prefill : truth_decode;
    bool old = n->role == BT_ROLE_PREFILL && index_of(n) % 2 == 1;
    float factor = old ? 2 : 1;
    return (bt_cost){cost.batch_ns * factor, cost.token_ns * factor, cost.pair_ns * factor};
}

static bt_status io_submit(void *ctx, const bt_engine_batch *batch)
{
    node *n = ctx;
    if (n->batch_busy) return BT_AGAIN;
    bt_cost cost = truth_of(n);
    double ns = (double)cost.batch_ns;
    n->handle_count = 0;
    for (uint32_t i = 0; i < batch->seq_count; i++) {
        const bt_engine_seq *s = &batch->seqs[i];
        ns += (double)cost.token_ns * s->token_count +
              (double)cost.pair_ns * bt_cost_pairs(s->position, s->token_count);
        if (s->sample) n->handles[n->handle_count++] = s->handle;
    }
    ns *= 0.95 + 0.1 * bt_rng_double(&the_world->rng);
    n->batch_busy = true;
    n->batch = batch->batch;
    n->layer = 0;
    n->started_ns = the_world->now_ns;
    n->batch_ns = (uint64_t)ns;
    push(the_world, n->batch_ns / LAYERS, (event){.kind = ON_ENGINE, .to = index_of(n)});
    return BT_OK;
}

static bt_status io_put(void *ctx, const bt_prefill_put *put, bt_kv_digest *ret_digest)
{
    node *n = ctx;
    world *w = the_world;
    double bytes =
        (double)bt_wire_frame_bytes(&put->wire, put->frame.run_count, put->frame.head_count);
    uint64_t *free_ns = &n->link_free_ns[put->peer];
    uint64_t start_ns = *free_ns > w->now_ns ? *free_ns : w->now_ns;
    *free_ns = start_ns + (uint64_t)(bytes / LINK_BYTES_PER_NS);
    *ret_digest = (bt_kv_digest){{0, 0}};
    push(w, *free_ns - w->now_ns + NET_NS,
         (event){.kind = ON_PUT, .to = index_of(n), .arg = put->tag});
    return BT_OK;
}

static void io_unpack(void *ctx, const bt_decode_unpack *unpack)
{
    push(the_world, 100000, (event){.kind = ON_UNPACK, .to = index_of(ctx), .arg = unpack->tag});
}

static void io_distance(void *ctx, uint32_t peer, const uint32_t *own, const uint32_t *pushed,
                        double *ret_error, double *ret_bound, char ret_where[BT_REASON_BYTES_MAX])
{
    (void)ctx, (void)peer, (void)own, (void)pushed;
    *ret_error = 0;
    *ret_bound = 1;
    ret_where[0] = '\0';
}

static void io_send(void *ctx, uint32_t daemon, const bt_msg *msg)
{
    (void)ctx;
    send(ROUTER, daemon, false, msg);
}

static void io_token(void *ctx, uint64_t user, uint32_t index, const bt_token *token, bool eos)
{
    (void)token, (void)eos;
    world *w = ctx;
    job *j = &w->jobs[user];
    if (index == 0) {
        j->first_ns = w->now_ns;
    } else {
        if (w->gap_count == w->gap_capacity) {
            w->gap_capacity = w->gap_capacity ? 2 * w->gap_capacity : 65536;
            w->gaps = realloc(w->gaps, w->gap_capacity * sizeof(float));
            assert(w->gaps != NULL);
        }
        w->gaps[w->gap_count++] = (float)(w->now_ns - j->last_ns) / 1e6f;
    }
    j->last_ns = w->now_ns;
}

static void io_ended(void *ctx, uint64_t user, const bt_router_end *end)
{
    world *w = ctx;
    w->jobs[user].ended = true;
    w->jobs[user].failed = end->reason == BT_FINISH_FAILED;
    w->jobs[user].cached = end->cached_tokens;
    w->open--;
}

/* ---- births ---- */

static uint32_t probe_tokens[BT_RUN_TOKENS];

static bt_kv_shape shape(bt_role role)
{
    return (bt_kv_shape){.dtype = BT_DTYPE_BF16,
                         .layers = LAYERS,
                         .kv_heads = 8,
                         .head_dim = 128,
                         .block_tokens = 64,
                         .pool_blocks = role == BT_ROLE_PREFILL ? 3000 : 6000};
}

static void *core_memory(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    assert(memory != NULL);
    return memory;
}

static void start_node(world *w, uint32_t i)
{
    node *n = &w->nodes[i];
    n->role = i < PREFILLS ? BT_ROLE_PREFILL : BT_ROLE_DECODE;
    n->wake_ns = UINT64_MAX;
    bt_kv_shape kv = shape(n->role);
    if (n->role == BT_ROLE_PREFILL) {
        bt_prefill_config c = {.incarnation = 10 + i,
                               .kv = kv,
                               .vocab = VOCAB,
                               .context_tokens_max = CONTEXT,
                               .requests_max = SEQS,
                               .batch_tokens_max = CHUNK,
                               .batch_seqs_max = 16,
                               .staging_bytes = 16u << 20,
                               .staging_count = 64,
                               .pin_lease_ns = 600 * SEC,
                               .tombstone_ns = 30 * SEC,
                               .router_timeout_ns = 10 * SEC,
                               .probe_tokens = probe_tokens};
        bt_prefill_io io = {n, io_router, io_peer, io_submit, io_put};
        n->memory = core_memory(bt_prefill_core_bytes(&c));
        n->prefill = bt_prefill_core_init(n->memory, &c, &io, w->now_ns);
    } else {
        bt_decode_config c = {.incarnation = 10 + i,
                              .kv = kv,
                              .vocab = VOCAB,
                              .context_tokens_max = CONTEXT,
                              .seqs_max = SEQS,
                              .batch_seqs_max = SEQS,
                              .batch_tokens_max = CHUNK,
                              .local_chunk = 256,
                              .slot_count = BT_SLOTS_MAX,
                              .cell_count = 8,
                              .cell_bytes = 16u << 20,
                              .quarantine_max = 64,
                              .reserve_tokens = 256,
                              .lease_ns = 60 * SEC,
                              .cancel_repeat_ns = 1 * SEC,
                              .router_timeout_ns = 10 * SEC,
                              .probe_tokens = probe_tokens};
        bt_decode_io io = {n, io_router, io_peer, io_submit, io_unpack, io_distance};
        n->memory = core_memory(bt_decode_core_bytes(&c));
        n->decode = bt_decode_core_init(n->memory, &c, &io, w->now_ns);
        bt_decode_core_start(n->decode, w->now_ns);
    }
    bt_msg hello = {.kind = BT_MSG_HELLO};
    hello.hello = (bt_hello){.proto_major = BT_PROTO_MAJOR,
                             .proto_minor = BT_PROTO_MINOR,
                             .role = n->role,
                             .incarnation = 10 + i,
                             .kv_dtype = kv.dtype,
                             .block_tokens = kv.block_tokens,
                             .pool_blocks = kv.pool_blocks,
                             .context_tokens_max = CONTEXT,
                             .layers = kv.layers,
                             .kv_heads = kv.kv_heads,
                             .head_dim = kv.head_dim,
                             .vocab = VOCAB,
                             .chunk_tokens = n->role == BT_ROLE_PREFILL ? CHUNK : 256};
    snprintf(hello.hello.name, sizeof(hello.hello.name), "node%u", i);
    send(i, ROUTER, false, &hello);
    push(w, 100 * MS + i * MS, (event){.kind = ON_BEAT, .to = i});
}

static void start_router(world *w, const char *policy, uint32_t local_max, uint64_t seed)
{
    bt_router_config c = {.incarnation = seed + 1,
                          .policy = policy,
                          .prefix_entries = 65536,
                          .affinity_tokens = 8192,
                          .local_prefill_max = local_max,
                          .requests_max = 512,
                          .attempts_max = 8,
                          .tokens_max = CONTEXT,
                          .progress_ns = 600 * SEC,
                          .heartbeat_ns = 500 * MS,
                          .daemon_timeout_ns = 5 * SEC,
                          .renew_ns = 2 * SEC,
                          .retry_wait_ns = 60 * SEC};
    bt_router_io io = {.ctx = w, .send = io_send, .token = io_token, .ended = io_ended};
    w->router_memory = core_memory(bt_router_core_bytes(&c));
    w->router = bt_router_core_init(w->router_memory, &c, &io, w->now_ns);
    w->router_wake_ns = UINT64_MAX;
}

/* ---- events ---- */

static void pair(world *w, uint32_t p, uint32_t d)
{
    if (w->nodes[p].paired[d]) return;
    if (!bt_decode_core_ready(w->nodes[d].decode)) {
        push(w, 10 * MS, (event){.kind = ON_PAIR, .from = p, .to = d});
        return;
    }
    w->nodes[p].paired[d] = true;
    bt_prefill_peer to_d = {.d_incarnation = 10 + d,
                            .wire = BT_DTYPE_BF16,
                            .slot_count = BT_SLOTS_MAX,
                            .cell_count = 8,
                            .cell_bytes = 16u << 20};
    bt_decode_peer to_p = {
        .p_incarnation = 10 + p, .wire = BT_DTYPE_BF16, .kv_dtype = BT_DTYPE_BF16};
    bt_prefill_core_peer_up(w->nodes[p].prefill, d, &to_d, w->now_ns);
    bt_decode_core_peer_up(w->nodes[d].decode, p, &to_p, w->now_ns);
}

static void report(node *n)
{
    for (uint32_t d = PREFILLS; d < NODES; d++) {
        const char *why;
        if (!n->paired[d] || n->reported[d] ||
            bt_prefill_core_probe(n->prefill, d, &why) != BT_PROBE_READY)
            continue;
        n->reported[d] = true;
        bt_msg msg = {.kind = BT_MSG_PAIR_STATUS};
        msg.pair_status.d_incarnation = 10 + d;
        msg.pair_status.ready = true;
        msg.pair_status.wire = BT_DTYPE_BF16;
        msg.pair_status.mb_per_s = (uint32_t)(LINK_BYTES_PER_NS * 1000);
        io_router(n, &msg);
    }
}

static void engine_tell(world *w, node *n, const bt_engine_event *e)
{
    if (n->role == BT_ROLE_PREFILL)
        bt_prefill_core_engine_event(n->prefill, e, w->now_ns);
    else
        bt_decode_core_engine_event(n->decode, e, w->now_ns);
}

static void on_engine(world *w, node *n)
{
    bt_engine_event e = {.kind = BT_ENGINE_LAYER_DONE,
                         .batch = n->batch,
                         .layer = n->layer++,
                         .time_ns = w->now_ns,
                         .started_ns = n->started_ns};
    if (n->layer < LAYERS)
        push(w, n->batch_ns / LAYERS, (event){.kind = ON_ENGINE, .to = index_of(n)});
    engine_tell(w, n, &e);
    if (n->layer < LAYERS) return;
    e.kind = BT_ENGINE_TOKEN;
    for (uint32_t i = 0; i < n->handle_count; i++) {
        e.handle = n->handles[i];
        e.token = (bt_token){.id = 1, .logprob = -1};
        engine_tell(w, n, &e);
    }
    n->batch_busy = false;
    e.kind = BT_ENGINE_BATCH_DONE;
    engine_tell(w, n, &e);
}

static void on_message(world *w, const event *e)
{
    if (e->to == ROUTER) {
        bt_router_core_message(w->router, e->from, &e->msg, w->now_ns);
        return;
    }
    node *n = &w->nodes[e->to];
    if (e->msg.kind == BT_MSG_PAIR) {
        pair(w, e->to, (uint32_t)(e->msg.pair.d_incarnation - 10));
    } else if (n->role == BT_ROLE_PREFILL) {
        if (e->ucx)
            bt_prefill_core_peer_message(n->prefill, e->from, &e->msg, w->now_ns);
        else
            bt_prefill_core_router_message(n->prefill, &e->msg, w->now_ns);
    } else if (e->ucx) {
        bt_decode_core_peer_message(n->decode, e->from, &e->msg, w->now_ns);
    } else {
        bt_decode_core_router_message(n->decode, &e->msg, w->now_ns);
    }
}

static void beat(world *w, uint32_t i)
{
    bt_msg msg = {.kind = BT_MSG_HEARTBEAT};
    if (w->nodes[i].role == BT_ROLE_PREFILL)
        bt_prefill_core_heartbeat(w->nodes[i].prefill, &msg);
    else
        bt_decode_core_heartbeat(w->nodes[i].decode, &msg);
    msg.heartbeat.incarnation = 10 + i;
    send(i, ROUTER, false, &msg);
    push(w, 500 * MS, (event){.kind = ON_BEAT, .to = i});
}

/* A client that is told "full" comes again: its time to the first token counts from its first try. */
static void submit(world *w, uint32_t i)
{
    job *j = &w->jobs[i];
    bt_router_request r = {.tokens = j->tokens,
                           .token_count = j->token_count,
                           .max_tokens = j->max_tokens,
                           .ignore_eos = true,
                           .sampling = {.top_p = 1},
                           .user = i};
    uint64_t id[2] = {bt_rng_u64(&w->rng), i + 1};
    memcpy(r.id.bytes, id, sizeof(r.id.bytes));
    bt_status status = bt_router_core_submit(w->router, &r, w->now_ns, NULL);
    if (status == BT_OK) return;
    assert(status == BT_AGAIN || status == BT_ERR_PEER_LOST);
    push(w, 250 * MS, (event){.kind = ON_SUBMIT, .arg = i});
}

static void tick(world *w, uint32_t i)
{
    if (i == ROUTER) {
        w->router_wake_ns = UINT64_MAX;
        bt_router_core_tick(w->router, w->now_ns);
    } else {
        w->nodes[i].wake_ns = UINT64_MAX;
        if (w->nodes[i].role == BT_ROLE_PREFILL)
            bt_prefill_core_tick(w->nodes[i].prefill, w->now_ns);
        else
            bt_decode_core_tick(w->nodes[i].decode, w->now_ns);
    }
}

/* Of the one that an event was for; the others' deadlines have not changed. */
static void arm(world *w, uint32_t i)
{
    uint64_t at = i == ROUTER ? bt_router_core_next_deadline(w->router)
                  : w->nodes[i].role == BT_ROLE_PREFILL
                      ? bt_prefill_core_next_deadline(w->nodes[i].prefill)
                      : bt_decode_core_next_deadline(w->nodes[i].decode);
    uint64_t *wake = i == ROUTER ? &w->router_wake_ns : &w->nodes[i].wake_ns;
    if (at >= *wake) return;
    *wake = at > w->now_ns ? at : w->now_ns + 1;
    push(w, *wake - w->now_ns, (event){.kind = ON_WAKE, .to = i, .arg = *wake});
}

static void happen(world *w, event *e)
{
    uint32_t subject = e->kind == ON_SUBMIT ? ROUTER : e->to;
    switch (e->kind) {
    case ON_MESSAGE: on_message(w, e); break;
    case ON_ENGINE: on_engine(w, &w->nodes[e->to]); break;
    case ON_PUT: bt_prefill_core_put_done(w->nodes[e->to].prefill, e->arg, BT_OK, w->now_ns); break;
    case ON_UNPACK: {
        bt_kv_digest digest = {{0, 0}};
        bt_decode_core_unpack_done(w->nodes[e->to].decode, e->arg, &digest, w->now_ns);
        break;
    }
    case ON_BEAT: beat(w, e->to); break;
    case ON_PAIR: pair(w, e->from, e->to); break;
    case ON_SUBMIT: submit(w, (uint32_t)e->arg); break;
    case ON_WAKE:
        if (e->arg == (e->to == ROUTER ? w->router_wake_ns : w->nodes[e->to].wake_ns))
            tick(w, e->to);
        break;
    }
    free(e->data);
    if (subject != ROUTER && w->nodes[subject].role == BT_ROLE_PREFILL) report(&w->nodes[subject]);
    if (e->kind == ON_PAIR) arm(w, e->from);
    arm(w, subject);
}

/* ---- workloads ---- */

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = (a ^ b * 0x9e3779b97f4a7c15ull) + 0xd1b54a32d192ed03ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    return x ^ (x >> 29);
}

static double exponential(bt_rng *rng, double mean)
{
    return -mean * log(1 - bt_rng_double(rng));
}

static void add_job(world *w, uint64_t arrival_ns, uint32_t tokens, uint32_t output)
{
    job *j = &w->jobs[w->job_count++];
    *j = (job){.arrival_ns = arrival_ns, .token_count = tokens, .max_tokens = output};
    j->tokens = malloc(tokens * sizeof(uint32_t));
    assert(j->tokens != NULL);
}

/* Poisson arrivals. Seven of ten prompts begin with one of 24 prefixes of 1,000 to 4,000 tokens, the
 * k-th 1/k as likely as the first, and go on with 20 to 1,500 of their own; three of ten are 8 to 100
 * tokens of nothing shared. Outputs of 32 to 256 tokens. */
static void draw_synthetic(world *w, uint32_t count, double scale, uint64_t seed)
{
    bt_rng rng;
    bt_rng_init(&rng, seed);
    double at_ns = 0, weights = 0;
    for (uint32_t k = 1; k <= 24; k++) weights += 1.0 / k;
    for (uint32_t i = 0; i < count; i++) {
        at_ns += exponential(&rng, 1e9 / (24.0 * scale));
        double dice = bt_rng_double(&rng) * weights;
        uint32_t family = 1;
        while (family < 24 && (dice -= 1.0 / family) > 0) family++;
        bool shared = bt_rng_below(&rng, 10) < 7;
        uint32_t prefix = shared ? 1000 + (uint32_t)(mix(family, seed) % 3000) : 0;
        double spread = shared ? log(1500.0 / 20) : log(100.0 / 8);
        uint32_t own = (uint32_t)((shared ? 20 : 8) * exp(spread * bt_rng_double(&rng)));
        add_job(w, (uint64_t)at_ns, prefix + own, 32 + (uint32_t)bt_rng_below(&rng, 225));
        job *j = &w->jobs[w->job_count - 1];
        for (uint32_t t = 0; t < j->token_count; t++)
            j->tokens[t] = (uint32_t)(mix(t < prefix ? family : i + 1000, t) % VOCAB);
    }
}

/* A number after "key": of a line, and where the text behind it begins; 0 if it is not there. */
static uint64_t number_of(const char *line, const char *key)
{
    const char *at = strstr(line, key);
    return at == NULL ? 0 : strtoull(at + strlen(key), NULL, 10);
}

static uint32_t read_trace(world *w, const char *path, uint32_t count, double scale)
{
    static char line[65536];
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    uint32_t left_out = 0;
    while (w->job_count < count && fgets(line, sizeof(line), file) != NULL) {
        uint64_t input = number_of(line, "\"input_length\":");
        uint64_t output = number_of(line, "\"output_length\":");
        const char *ids = strstr(line, "\"hash_ids\": [");
        if (input == 0 || output == 0 || ids == NULL || input + output > CONTEXT) {
            left_out++;
            continue;
        }
        add_job(w, (uint64_t)((double)number_of(line, "\"timestamp\":") * 1e6 / scale),
                (uint32_t)input, (uint32_t)output);
        job *j = &w->jobs[w->job_count - 1];
        ids += strlen("\"hash_ids\": [");
        uint64_t id = 0;
        for (uint32_t t = 0; t < j->token_count; t++) {
            if (t % HASH_TOKENS == 0) {
                char *end;
                id = strtoull(ids, &end, 10);
                ids = *end == ',' ? end + 1 : end;
            }
            j->tokens[t] = (uint32_t)(mix(id, t) % VOCAB);
        }
    }
    fclose(file);
    return left_out;
}

/* ---- figures ---- */

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static float percentile(const float *sorted, uint32_t count, double share)
{
    return count == 0 ? 0 : sorted[(uint32_t)(share * (count - 1))];
}

static void print_row(world *w, const char *policy, uint32_t local_max)
{
    float *ttft = malloc(w->job_count * sizeof(float));
    assert(ttft != NULL);
    uint32_t count = 0, failed = 0;
    uint64_t prompt = 0, cached = 0;
    double sum = 0;
    for (uint32_t i = 0; i < w->job_count; i++) {
        const job *j = &w->jobs[i];
        failed += j->failed;
        if (j->first_ns == 0) continue;
        ttft[count] = (float)(j->first_ns - j->arrival_ns - 2 * SEC) / 1e6f;
        sum += (double)ttft[count++];
        prompt += j->token_count;
        cached += j->cached;
    }
    qsort(ttft, count, sizeof(float), by_value);
    qsort(w->gaps, w->gap_count, sizeof(float), by_value);
    bt_router_stats s;
    bt_router_core_stats(w->router, &s);
    char name[64];
    snprintf(name, sizeof(name), local_max > 0 ? "%s, local ≤ %u" : "%s", policy, local_max);
    printf("| %s | %.0f | %.0f | %.0f | %.0f | %.1f | %.1f %% | %.1f %% | %.0f %% | %u |\n", name,
           sum / count, (double)percentile(ttft, count, 0.5), (double)percentile(ttft, count, 0.9),
           (double)percentile(ttft, count, 0.99), (double)percentile(w->gaps, w->gap_count, 0.99),
           100.0 * (double)cached / (double)prompt,
           100.0 * (double)s.decided_total[BT_DECIDED_LOCAL] / w->job_count,
           s.actual_ns_total == 0 ? 0
                                  : 100.0 * (double)s.error_ns_total / (double)s.actual_ns_total,
           failed);
    fflush(stdout);
    free(ttft);
}

static void run(world *w, const char *policy, uint32_t local_max, uint64_t seed)
{
    job *jobs = w->jobs;
    uint32_t job_count = w->job_count;
    *w = (world){.jobs = jobs, .job_count = job_count, .open = job_count};
    the_world = w;
    bt_rng_init(&w->rng, seed + 7);
    start_router(w, policy, local_max, seed);
    for (uint32_t i = 0; i < NODES; i++) start_node(w, i);
    for (uint32_t i = 0; i < job_count; i++) {
        jobs[i].first_ns = jobs[i].last_ns = 0;
        jobs[i].cached = 0;
        jobs[i].ended = jobs[i].failed = false;
        push(w, 2 * SEC + jobs[i].arrival_ns, (event){.kind = ON_SUBMIT, .arg = i});
    }
    arm(w, ROUTER);
    while (w->open > 0) {
        event e = pop(w);
        w->now_ns = e.time_ns;
        happen(w, &e);
    }
    print_row(w, policy, local_max);
    while (w->count > 0) free(w->heap[--w->count].data);
    free(w->heap);
    free(w->gaps);
    free(w->router_memory);
    for (uint32_t i = 0; i < NODES; i++) free(w->nodes[i].memory);
}

int main(int argc, char **argv)
{
    static world w;
    const char *trace = NULL;
    uint32_t count = 2000, left_out = 0;
    double scale = 1;
    uint64_t seed = 1;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--trace") == 0) trace = argv[i + 1];
        if (strcmp(argv[i], "--requests") == 0) count = (uint32_t)atoi(argv[i + 1]);
        if (strcmp(argv[i], "--scale") == 0) scale = atof(argv[i + 1]);
        if (strcmp(argv[i], "--seed") == 0) seed = strtoull(argv[i + 1], NULL, 10);
    }
    if (argc % 2 == 0 || count == 0 || count > REQUESTS_MAX || !(scale > 0)) {
        fprintf(stderr,
                "usage: bench_policy [--trace FILE] [--requests N <= %u] [--scale X] "
                "[--seed S]\n",
                REQUESTS_MAX);
        return 2;
    }
    for (uint32_t t = 0; t < BT_RUN_TOKENS; t++) probe_tokens[t] = t;
    w.jobs = calloc(count, sizeof(job));
    assert(w.jobs != NULL);
    if (trace != NULL)
        left_out = read_trace(&w, trace, count, scale);
    else
        draw_synthetic(&w, count, scale, seed);
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < w.job_count; i++) tokens += w.jobs[i].token_count;
    if (w.job_count == 0) return 1;
    printf(
        "%u requests, %.0f prompt tokens each, in %.0f s; %u longer than %u left out; %u prefill "
        "daemons (every second half as fast), %u decode daemons\n\n",
        w.job_count, (double)tokens / w.job_count, (double)w.jobs[w.job_count - 1].arrival_ns / 1e9,
        left_out, CONTEXT, PREFILLS, DECODES);
    printf("| policy | TTFT mean, ms | p50 | p90 | p99 | gap p99, ms | cached | local | error | "
           "failed |\n|---|---|---|---|---|---|---|---|---|---|\n");
    for (uint32_t i = 0; i < bt_router_policy_count; i++)
        run(&w, bt_router_policies[i]->name, 0, seed);
    run(&w, "predicted_ttft", 256, seed);
    for (uint32_t i = 0; i < w.job_count; i++) free(w.jobs[i].tokens);
    free(w.jobs);
    return 0;
}
