/* core.c - daemons, pairs and time of the router; requests are in attempts.c. */
#include "router/core.h"

#include "common/kv/probe.h"
#include "router/state.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define BUCKETS_MIN 16u
#define ASKS_DOUBLED 6u

/* -- memory ------------------------------------------------------------------------------------ */

/* Whether anything reads the prefix index. */
static bool wants_prefixes(const bt_router_config *config)
{
    const bt_router_policy *policy = bt_router_policy_find(config->policy);
    return config->prefix_entries > 0 &&
           ((policy != NULL && policy->uses_prefixes) || config->local_prefill_max > 0);
}

static bt_router_core *carve(bt_arena *arena, const bt_router_config *config)
{
    uint32_t buckets = BUCKETS_MIN;
    while (buckets < config->requests_max && buckets < 1u << 30) buckets *= 2;
    size_t pairs = (size_t)BT_DAEMONS_MAX * BT_DAEMONS_MAX;
    bt_router_core *core = BT_ARENA_NEW(arena, bt_router_core, 1);
    bt_router_pair *pair = BT_ARENA_NEW(arena, bt_router_pair, pairs);
    bt_router_ask *asks = BT_ARENA_NEW(arena, bt_router_ask, pairs);
    bt_router_choice *choices = BT_ARENA_NEW(arena, bt_router_choice, pairs);
    bt_request_id *renew_ids = BT_ARENA_NEW(arena, bt_request_id, BT_MSG_RENEW_MAX);
    bt_router_entry *entries = BT_ARENA_NEW(arena, bt_router_entry, config->requests_max);
    uint32_t *id_buckets = BT_ARENA_NEW(arena, uint32_t, buckets);
    uint32_t *user_buckets = BT_ARENA_NEW(arena, uint32_t, buckets);
    size_t tokens_bytes = (size_t)config->tokens_max * sizeof(uint32_t);
    uint32_t *tokens = bt_arena_take(arena, config->requests_max, tokens_bytes);
    bt_logit_bias *bias =
        BT_ARENA_NEW(arena, bt_logit_bias, (size_t)config->requests_max * BT_LOGIT_BIAS_MAX);
    uint32_t runs_max = config->tokens_max / BT_RUN_TOKENS;
    bool wants_names = wants_prefixes(config);
    bt_prefix_name *names = NULL;
    bt_prefix_index *index = NULL;
    if (wants_names) {
        names = BT_ARENA_NEW(arena, bt_prefix_name, (size_t)config->requests_max * runs_max);
        index = bt_prefix_index_carve(arena, config->prefix_entries);
    }
    if (core == NULL) return NULL;
    core->wants_names = wants_names;
    core->index = index;
    core->pairs = pair;
    core->asks = asks;
    core->choices = choices;
    core->renew_ids = renew_ids;
    core->entries = entries;
    core->id_buckets = id_buckets;
    core->user_buckets = user_buckets;
    core->bucket_mask = buckets - 1;
    for (uint32_t i = 0; i < config->requests_max; i++) {
        entries[i].tokens = tokens + (size_t)i * config->tokens_max;
        entries[i].bias = bias + (size_t)i * BT_LOGIT_BIAS_MAX;
        if (wants_names) entries[i].names = names + (size_t)i * runs_max;
    }
    return core;
}

size_t bt_router_core_bytes(const bt_router_config *config)
{
    bt_arena arena;
    bt_arena_init(&arena, NULL, 0);
    carve(&arena, config);
    return arena.used_bytes;
}

bt_router_core *bt_router_core_init(void *memory, const bt_router_config *config,
                                    const bt_router_io *io, uint64_t now_ns)
{
    assert(config->requests_max > 0 && config->attempts_max > 0);
    assert(config->tokens_max > 1 && config->tokens_max <= BT_CONTEXT_TOKENS_MAX);
    assert(config->eos_count <= BT_EOS_IDS_MAX);
    assert(config->progress_ns > 0 && config->heartbeat_ns > 0);
    assert(config->daemon_timeout_ns > 0 && config->renew_ns > 0);
    bt_arena arena;
    bt_arena_init(&arena, memory, bt_router_core_bytes(config));
    bt_router_core *core = carve(&arena, config);
    core->config = *config;
    core->io = *io;
    core->policy = bt_router_policy_find(config->policy);
    assert(core->policy != NULL);
    core->config.policy = core->policy->name;
    bt_rng_init(&core->policy_state.rng, config->incarnation);
    core->heartbeat_next_ns = now_ns + config->heartbeat_ns;
    core->renew_next_ns = now_ns + config->renew_ns;
    core->deadline_ns = core->heartbeat_next_ns < core->renew_next_ns ? core->heartbeat_next_ns
                                                                      : core->renew_next_ns;
    bt_router_requests_init(core);
    return core;
}

/* -- pairs ------------------------------------------------------------------------------------- */

bt_router_pair *bt_router_pair_at(bt_router_core *core, uint32_t prefill, uint32_t decode)
{
    return &core->pairs[(size_t)prefill * BT_DAEMONS_MAX + decode];
}

static bool is_up(const bt_router_core *core, uint32_t daemon, bt_role role)
{
    return core->daemons[daemon].up && core->daemons[daemon].hello.role == role;
}

uint32_t bt_router_daemon_capacity(const bt_router_daemon *daemon)
{
    const bt_hello *h = &daemon->hello;
    uint64_t pool = (uint64_t)h->pool_blocks * h->block_tokens;
    uint64_t capacity = UINT32_MAX;
    if (pool > 0 && pool < capacity) capacity = pool;
    if (h->context_tokens_max > 0 && h->context_tokens_max < capacity)
        capacity = h->context_tokens_max;
    return (uint32_t)capacity;
}

static void send_pair(bt_router_core *core, bt_msg_kind kind, uint32_t prefill,
                      const bt_hello *decode)
{
    bt_msg msg = {.kind = kind};
    msg.pair.d_incarnation = decode->incarnation;
    memcpy(msg.pair.name, decode->name, sizeof(msg.pair.name));
    memcpy(msg.pair.endpoint, decode->pair_endpoint, sizeof(msg.pair.endpoint));
    memcpy(msg.pair.curve_public, decode->curve_public, sizeof(msg.pair.curve_public));
    core->io.send(core->io.ctx, prefill, &msg);
}

static bt_router_ask *ask_at(bt_router_core *core, uint32_t prefill, uint32_t decode)
{
    return &core->asks[(size_t)prefill * BT_DAEMONS_MAX + decode];
}

static void ask_pair(bt_router_core *core, uint32_t prefill, uint32_t decode, uint64_t now_ns)
{
    bt_router_pair *pair = bt_router_pair_at(core, prefill, decode);
    bt_router_ask *ask = ask_at(core, prefill, decode);
    if (pair->state == BT_PAIR_NONE) {
        pair->state = BT_PAIR_ASKED;
        *ask = (bt_router_ask){0};
    }
    if (pair->state != BT_PAIR_ASKED || now_ns < ask->next_ns) return;
    ask->next_ns = now_ns + (core->config.renew_ns << ask->count);
    if (ask->count < ASKS_DOUBLED) ask->count++;
    send_pair(core, BT_MSG_PAIR, prefill, &core->daemons[decode].hello);
}

/* Asks for every pair that this daemon makes with the others and that is not decided yet. */
static void ask_pairs_of(bt_router_core *core, uint32_t daemon, uint64_t now_ns)
{
    for (uint32_t other = 0; other < BT_DAEMONS_MAX; other++) {
        if (is_up(core, daemon, BT_ROLE_PREFILL) && is_up(core, other, BT_ROLE_DECODE))
            ask_pair(core, daemon, other, now_ns);
        if (is_up(core, daemon, BT_ROLE_DECODE) && is_up(core, other, BT_ROLE_PREFILL))
            ask_pair(core, other, daemon, now_ns);
    }
}

static void forget_pairs_of(bt_router_core *core, uint32_t daemon)
{
    for (uint32_t other = 0; other < BT_DAEMONS_MAX; other++) {
        memset(bt_router_pair_at(core, daemon, other), 0, sizeof(bt_router_pair));
        memset(bt_router_pair_at(core, other, daemon), 0, sizeof(bt_router_pair));
    }
}

static void on_pair_status(bt_router_core *core, uint32_t prefill, const bt_msg *msg,
                           uint64_t now_ns)
{
    uint32_t decode = 0;
    while (decode < BT_DAEMONS_MAX &&
           !(is_up(core, decode, BT_ROLE_DECODE) &&
             core->daemons[decode].hello.incarnation == msg->pair_status.d_incarnation))
        decode++;
    if (decode == BT_DAEMONS_MAX || !is_up(core, prefill, BT_ROLE_PREFILL)) {
        core->stats.stale_total++;
        return;
    }
    bt_router_pair *pair = bt_router_pair_at(core, prefill, decode);
    bool was_ready = pair->state == BT_PAIR_READY;
    pair->wire = msg->pair_status.wire;
    pair->mb_per_s = msg->pair_status.mb_per_s;
    memcpy(pair->transport, msg->pair_status.transport, sizeof(pair->transport));
    memcpy(pair->reason, msg->pair_status.reason, sizeof(pair->reason));
    if (msg->pair_status.ready) {
        pair->state = BT_PAIR_READY;
        if (!was_ready) bt_router_requests_expire(core, true, now_ns);
        return;
    }
    /* Both live, and the pair that worked broke: ask again at the next renewal. */
    pair->state = was_ready ? BT_PAIR_ASKED : BT_PAIR_REFUSED;
    *ask_at(core, prefill, decode) = (bt_router_ask){.next_ns = now_ns};
    if (was_ready) bt_router_requests_pair_down(core, prefill, decode, now_ns);
}

/* -- daemons ----------------------------------------------------------------------------------- */

static void daemon_down(bt_router_core *core, uint32_t daemon, uint64_t now_ns)
{
    bt_router_daemon *d = &core->daemons[daemon];
    if (!d->up) return;
    d->up = false;
    if (d->hello.role == BT_ROLE_DECODE) {
        for (uint32_t p = 0; p < BT_DAEMONS_MAX; p++)
            if (is_up(core, p, BT_ROLE_PREFILL) &&
                bt_router_pair_at(core, p, daemon)->state != BT_PAIR_NONE)
                send_pair(core, BT_MSG_UNPAIR, p, &d->hello);
    }
    forget_pairs_of(core, daemon);
    if (core->index != NULL) bt_prefix_index_forget(core->index, daemon);
    bt_router_requests_daemon_down(core, daemon, now_ns);
}

static void daemon_up(bt_router_core *core, uint32_t daemon, uint64_t now_ns)
{
    bt_router_daemon *d = &core->daemons[daemon];
    d->up = true;
    d->heard_ns = now_ns;
    uint64_t timeout_ns = now_ns + core->config.daemon_timeout_ns;
    if (timeout_ns < core->deadline_ns) core->deadline_ns = timeout_ns;
    bt_msg welcome = {
        .kind = BT_MSG_WELCOME,
        .welcome = {core->config.incarnation, (uint32_t)(core->config.heartbeat_ns / 1000000)}};
    core->io.send(core->io.ctx, daemon, &welcome);
    for (uint32_t other = 0; other < BT_DAEMONS_MAX;
         other++) /* what was asked before may be lost */
        ask_at(core, daemon, other)->next_ns = ask_at(core, other, daemon)->next_ns = 0;
    ask_pairs_of(core, daemon, now_ns);
}

/* A Hello of another incarnation is the death of the one before, on whatever connection: the same
 * name and role is the same daemon started again. */
static void on_hello(bt_router_core *core, uint32_t daemon, const bt_msg *msg, uint64_t now_ns)
{
    const bt_hello *hello = &msg->hello;
    bool known_role = hello->role == BT_ROLE_PREFILL || hello->role == BT_ROLE_DECODE;
    if (!known_role || hello->proto_major != BT_PROTO_MAJOR || hello->incarnation == 0) {
        core->stats.stale_total++;
        return;
    }
    for (uint32_t other = 0; other < BT_DAEMONS_MAX; other++) {
        const bt_router_daemon *d = &core->daemons[other];
        if (!d->up) continue;
        bool same_start = d->hello.incarnation == hello->incarnation;
        bool same_name = hello->name[0] != 0 && d->hello.role == hello->role &&
                         strncmp(d->hello.name, hello->name, sizeof(hello->name)) == 0;
        if (other == daemon ? !same_start : same_start || same_name)
            daemon_down(core, other, now_ns);
    }
    bt_router_daemon *d = &core->daemons[daemon];
    if (!d->up) {
        assert(d->assigned == 0 && d->assigned_tokens == 0);
        *d = (bt_router_daemon){0};
    }
    d->hello = *hello;
    daemon_up(core, daemon, now_ns);
}

static void on_heartbeat(bt_router_core *core, uint32_t daemon, const bt_msg *msg, uint64_t now_ns)
{
    bt_router_daemon *d = &core->daemons[daemon];
    if (d->hello.incarnation == 0 || msg->heartbeat.incarnation != d->hello.incarnation) {
        core->stats.stale_total++;
        return;
    }
    d->running = msg->heartbeat.running;
    d->waiting = msg->heartbeat.waiting;
    d->blocks_free = msg->heartbeat.blocks_free;
    d->slots_free = msg->heartbeat.slots_free;
    d->draining = msg->heartbeat.draining;
    d->queued_tokens = msg->heartbeat.queued_tokens;
    d->context_tokens = msg->heartbeat.context_tokens;
    d->cost = msg->heartbeat.cost;
    d->told_ns = now_ns;
    /* Given up for dead, and yet it lives: it never noticed and will not say Hello again. */
    if (!d->up) daemon_up(core, daemon, now_ns);
}

/* -- entry points ------------------------------------------------------------------------------ */

void bt_router_core_message(bt_router_core *core, uint32_t daemon, const bt_msg *msg,
                            uint64_t now_ns)
{
    assert(daemon < BT_DAEMONS_MAX);
    if (msg->kind == BT_MSG_HELLO) {
        on_hello(core, daemon, msg, now_ns);
        return;
    }
    if (core->daemons[daemon].up) core->daemons[daemon].heard_ns = now_ns;
    switch (msg->kind) {
    case BT_MSG_HEARTBEAT: on_heartbeat(core, daemon, msg, now_ns); break;
    case BT_MSG_PAIR_STATUS: on_pair_status(core, daemon, msg, now_ns); break;
    case BT_MSG_FIRST_TOKEN:
    case BT_MSG_PINNED:
    case BT_MSG_ACCEPTED:
    case BT_MSG_REFUSED:
    case BT_MSG_TOKENS:
    case BT_MSG_PROMPT_LOGPROBS:
    case BT_MSG_FINISHED:
    case BT_MSG_EVICTED: bt_router_request_message(core, daemon, msg, now_ns); break;
    default: core->stats.stale_total++; break;
    }
}

void bt_router_core_daemon_lost(bt_router_core *core, uint32_t daemon, uint64_t now_ns)
{
    assert(daemon < BT_DAEMONS_MAX);
    daemon_down(core, daemon, now_ns);
}

static void send_heartbeats(bt_router_core *core)
{
    bt_msg msg = {.kind = BT_MSG_HEARTBEAT};
    msg.heartbeat.incarnation = core->config.incarnation;
    msg.heartbeat.running = core->stats.requests;
    for (uint32_t i = 0; i < BT_DAEMONS_MAX; i++)
        if (core->daemons[i].up) core->io.send(core->io.ctx, i, &msg);
}

static void send_renews(bt_router_core *core, uint32_t daemon)
{
    bt_msg msg = {.kind = BT_MSG_RENEW, .renew = {.requests = core->renew_ids}};
    for (uint32_t i = 0; i < core->config.requests_max; i++) {
        const bt_router_entry *r = &core->entries[i];
        if (!r->used || r->waiting) continue;
        if (r->decode != daemon && (r->prefill != daemon || r->accepted)) continue;
        core->renew_ids[msg.renew.request_count++] = r->id;
        if (msg.renew.request_count < BT_MSG_RENEW_MAX) continue;
        core->io.send(core->io.ctx, daemon, &msg);
        msg.renew.request_count = 0;
    }
    if (msg.renew.request_count > 0) core->io.send(core->io.ctx, daemon, &msg);
}

/* Leases of what is in flight, and the pairs whose answer has not come (a message may be lost). */
static void renew(bt_router_core *core, uint64_t now_ns)
{
    for (uint32_t i = 0; i < BT_DAEMONS_MAX; i++) {
        if (!core->daemons[i].up) continue;
        if (core->daemons[i].assigned > 0) send_renews(core, i);
        if (core->daemons[i].hello.role == BT_ROLE_PREFILL) ask_pairs_of(core, i, now_ns);
    }
}

static uint64_t exact_deadline(const bt_router_core *core)
{
    uint64_t deadline = core->heartbeat_next_ns < core->renew_next_ns ? core->heartbeat_next_ns
                                                                      : core->renew_next_ns;
    for (uint32_t i = 0; i < BT_DAEMONS_MAX; i++) {
        uint64_t at = core->daemons[i].heard_ns + core->config.daemon_timeout_ns;
        if (core->daemons[i].up && at < deadline) deadline = at;
    }
    for (uint32_t i = 0; i < core->config.requests_max; i++)
        if (core->entries[i].used && core->entries[i].deadline_ns < deadline)
            deadline = core->entries[i].deadline_ns;
    return deadline;
}

void bt_router_core_tick(bt_router_core *core, uint64_t now_ns)
{
    if (now_ns < core->deadline_ns) return;
    for (uint32_t i = 0; i < BT_DAEMONS_MAX; i++)
        if (core->daemons[i].up &&
            now_ns - core->daemons[i].heard_ns >= core->config.daemon_timeout_ns)
            daemon_down(core, i, now_ns);
    bt_router_requests_expire(core, false, now_ns);
    if (now_ns >= core->heartbeat_next_ns) {
        send_heartbeats(core);
        core->heartbeat_next_ns = now_ns + core->config.heartbeat_ns;
    }
    if (now_ns >= core->renew_next_ns) {
        renew(core, now_ns);
        core->renew_next_ns = now_ns + core->config.renew_ns;
    }
    core->deadline_ns = exact_deadline(core);
}

uint64_t bt_router_core_next_deadline(const bt_router_core *core)
{
    return core->deadline_ns;
}

/* -- what others see --------------------------------------------------------------------------- */

const bt_router_daemon *bt_router_core_daemon(const bt_router_core *core, uint32_t daemon)
{
    return daemon < BT_DAEMONS_MAX ? &core->daemons[daemon] : NULL;
}

const bt_router_pair *bt_router_core_pair(const bt_router_core *core, uint32_t prefill,
                                          uint32_t decode)
{
    if (prefill >= BT_DAEMONS_MAX || decode >= BT_DAEMONS_MAX) return NULL;
    return &core->pairs[(size_t)prefill * BT_DAEMONS_MAX + decode];
}

typedef struct {
    uint32_t pairs, ready, undecided;
} pair_count;

static pair_count count_pairs(const bt_router_core *core)
{
    pair_count count = {0};
    for (uint32_t p = 0; p < BT_DAEMONS_MAX; p++) {
        if (!is_up(core, p, BT_ROLE_PREFILL)) continue;
        for (uint32_t d = 0; d < BT_DAEMONS_MAX; d++) {
            if (!is_up(core, d, BT_ROLE_DECODE)) continue;
            bt_pair_state state = core->pairs[(size_t)p * BT_DAEMONS_MAX + d].state;
            count.pairs++;
            count.ready += state == BT_PAIR_READY;
            count.undecided += state == BT_PAIR_NONE || state == BT_PAIR_ASKED;
        }
    }
    return count;
}

/* Of D's pool, the KV of its probe is not to be had. */
static uint32_t decode_room(const bt_router_daemon *decode)
{
    uint64_t pool = (uint64_t)decode->hello.pool_blocks * decode->hello.block_tokens;
    uint32_t room = bt_router_daemon_capacity(decode);
    if (pool == 0) return room; /* it does not say */
    uint64_t free_pool = pool > BT_PROBE_TOKENS ? pool - BT_PROBE_TOKENS : 0;
    return free_pool < room ? (uint32_t)free_pool : room;
}

uint32_t bt_router_core_room(const bt_router_core *core, uint32_t prompt_tokens)
{
    uint32_t room = 0;
    bool alone = bt_router_alone(core);
    for (uint32_t d = 0; alone && d < BT_DAEMONS_MAX; d++) {
        if (!is_up(core, d, BT_ROLE_DECODE) || core->daemons[d].hello.chunk_tokens == 0) continue;
        uint32_t here = decode_room(&core->daemons[d]);
        if (here > room) room = here;
    }
    for (uint32_t p = 0; p < BT_DAEMONS_MAX; p++) {
        if (!is_up(core, p, BT_ROLE_PREFILL)) continue;
        if (prompt_tokens > bt_router_daemon_capacity(&core->daemons[p])) continue;
        for (uint32_t d = 0; d < BT_DAEMONS_MAX; d++) {
            if (!is_up(core, d, BT_ROLE_DECODE)) continue;
            if (bt_router_core_pair(core, p, d)->state != BT_PAIR_READY) continue;
            uint32_t here = decode_room(&core->daemons[d]);
            if (here > room) room = here;
        }
    }
    return room;
}

bool bt_router_core_serving(const bt_router_core *core)
{
    return bt_router_core_paired(core) || bt_router_alone(core);
}

bool bt_router_core_paired(const bt_router_core *core)
{
    return count_pairs(core).ready > 0;
}

bool bt_router_core_settled(const bt_router_core *core)
{
    return count_pairs(core).undecided == 0;
}

void bt_router_core_stats(const bt_router_core *core, bt_router_stats *ret_stats)
{
    *ret_stats = core->stats;
    if (core->index != NULL) ret_stats->prefix_entries = bt_prefix_index_entries(core->index);
}
