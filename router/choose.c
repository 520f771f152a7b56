/* choose.c - where an attempt goes: the pairs that may take it, what their caches hold, the policy's
 * pick, and whether the decode daemon computes the prompt itself.
 *
 * LOCAL   A prompt with few tokens that are not cached costs less where it is decoded: no queue at P,
 *         no handoff. But it delays what runs there. So, with the model of router/policies/predict.h,
 *         D computes it if
 *             ttft at D + the delay of all sequences that run there  <  ttft of the pair + its handoff
 *         and no more than local_prefill_max tokens are not cached at D. Never where D's cost is not
 *         measured, for one that wants its prompt's logprobs, that failed so once, for its last token (then no D is needed at
 *         all), or where D has no ready pair: the pairing probe is what tells us that D's weights are
 *         those of the fleet.
 * ALONE   With local_when_no_prefill and no ready pair at all D computes every prompt it can hold,
 *         unless a pair of it was refused. */
#include "common/kv/wire.h"
#include "router/policies/predict.h"
#include "router/state.h"

#include <assert.h>
#include <string.h>

typedef struct {
    const bt_router_entry *r;
    uint32_t fixed_prefill; /* NONE = any */
    bt_router_terms terms;
    uint32_t prompt_tokens, total_tokens, minor;
} selection;

static selection select_for(const bt_router_entry *r, uint32_t fixed_prefill, bt_router_terms terms)
{
    return (selection){.r = r,
                       .fixed_prefill = fixed_prefill,
                       .terms = terms,
                       .prompt_tokens = terms.any_size ? 0 : r->prompt_count + r->committed,
                       .total_tokens = terms.any_size ? 0 : r->prompt_count + r->max_tokens,
                       .minor = terms.any_minor ? 0 : bt_router_minor(r)};
}

static bool avoids(const selection *s, uint32_t daemon)
{
    return !s->terms.any_daemon && bt_router_avoided(s->r, daemon);
}

/* ---- what is cached -------------------------------------------------------------------------- */

static uint32_t path_of(const bt_sha256 *weights, bt_dtype producer, bt_dtype wire)
{
    uint32_t word;
    memcpy(&word, weights->bytes, sizeof(word));
    return word ^ ((uint32_t)producer << 8 | (uint32_t)wire) * 0x9e3779b1u;
}

static bt_prefix_owner owner_alone(const bt_router_core *core, uint32_t daemon)
{
    const bt_hello *h = &core->daemons[daemon].hello;
    return (bt_prefix_owner){daemon, path_of(&h->weights_digest, h->kv_dtype, BT_DTYPE_NONE)};
}

/* KV from p in d. What crosses without conversion between equal weights goes by the name of d's own
 * (as_own, decoded/core_grants.c). */
static bt_prefix_owner owner_pushed(const bt_router_core *core, uint32_t p, uint32_t d)
{
    const bt_hello *hp = &core->daemons[p].hello, *hd = &core->daemons[d].hello;
    bt_dtype wire = core->pairs[p * BT_DAEMONS_MAX + d].wire;
    bool as_own =
        memcmp(&hp->weights_digest, &hd->weights_digest, sizeof(hp->weights_digest)) == 0 &&
        hp->kv_dtype == hd->kv_dtype && wire == hd->kv_dtype;
    if (as_own) return owner_alone(core, d);
    return (bt_prefix_owner){d, path_of(&hp->weights_digest, hp->kv_dtype, wire)};
}

static uint32_t cached(const bt_router_core *core, const selection *s, bt_prefix_owner owner,
                       uint32_t runs_max)
{
    if (s->r->name_count == 0) return 0;
    uint32_t runs = s->r->name_count < runs_max ? s->r->name_count : runs_max;
    return BT_RUN_TOKENS * bt_prefix_index_match(core->index, owner, s->r->names, runs);
}

void bt_router_names_update(bt_router_core *core, bt_router_entry *r)
{
    if (!core->wants_names) return;
    r->name_count = bt_prefix_names(r->tenant_salt, r->tokens, r->prompt_count + r->committed,
                                    r->name_count, &r->chain, r->names);
}

void bt_router_believe(bt_router_core *core, bt_router_entry *r, const bt_router_choice *choice)
{
    r->p_believed = choice->p_cached / BT_RUN_TOKENS;
    r->d_believed = choice->d_cached / BT_RUN_TOKENS;
    r->believed_when = core->index == NULL ? 0 : bt_prefix_index_time(core->index);
}

/* Whole runs of the tokens this attempt was about. */
static uint32_t runs_of_attempt(const bt_router_entry *r)
{
    uint32_t runs = (r->prompt_count + r->base) / BT_RUN_TOKENS;
    return runs < r->name_count ? runs : r->name_count;
}

static void learn(bt_router_core *core, const bt_router_entry *r, bt_prefix_owner owner,
                  uint32_t believed, uint32_t cached_tokens)
{
    if (core->index == NULL || r->name_count == 0) return;
    core->stats.believed_tokens_total += (uint64_t)believed * BT_RUN_TOKENS;
    core->stats.cached_tokens_total += cached_tokens;
    bt_prefix_index_correct(core->index, owner, r->names, believed, cached_tokens / BT_RUN_TOKENS,
                            r->believed_when);
    bt_prefix_index_learn(core->index, owner, r->names, runs_of_attempt(r));
}

void bt_router_learn_prefill(bt_router_core *core, bt_router_entry *r, uint32_t cached_tokens)
{
    if (r->learnt) return;
    r->learnt = true;
    learn(core, r, owner_alone(core, r->prefill), r->p_believed, cached_tokens);
}

void bt_router_learn_prefill_done(bt_router_core *core, bt_router_entry *r)
{
    if (r->learnt || r->local || core->index == NULL) return;
    r->learnt = true;
    bt_prefix_index_learn(core->index, owner_alone(core, r->prefill), r->names, runs_of_attempt(r));
}

void bt_router_learn_decode(bt_router_core *core, const bt_router_entry *r, uint32_t cached_tokens)
{
    bt_prefix_owner owner =
        r->local ? owner_alone(core, r->decode) : owner_pushed(core, r->prefill, r->decode);
    learn(core, r, owner, r->d_believed, cached_tokens);
}

/* ---- pairs ----------------------------------------------------------------------------------- */

/* A draining daemon gets no new request, but a draining P still honours Retarget (H7). */
static bool may_take(const bt_router_core *core, const selection *s, uint32_t p, uint32_t d)
{
    const bt_router_daemon *prefill = &core->daemons[p], *decode = &core->daemons[d];
    if (core->pairs[p * BT_DAEMONS_MAX + d].state != BT_PAIR_READY) return false;
    if (decode->draining || (prefill->draining && s->fixed_prefill != p)) return false;
    if (s->fixed_prefill != BT_ROUTER_NONE && s->fixed_prefill != p) return false;
    if (avoids(s, d) || (s->fixed_prefill == BT_ROUTER_NONE && avoids(s, p))) return false;
    if (prefill->hello.proto_minor < s->minor || decode->hello.proto_minor < s->minor) return false;
    return s->prompt_tokens <= bt_router_daemon_capacity(prefill) &&
           s->total_tokens <= bt_router_daemon_capacity(decode);
}

static double handoff_ns(const bt_router_core *core, const selection *s, uint32_t p, uint32_t d,
                         uint32_t d_cached)
{
    const bt_router_pair *pair = &core->pairs[p * BT_DAEMONS_MAX + d];
    const bt_hello *hello = &core->daemons[d].hello;
    if (pair->mb_per_s == 0 || s->prompt_tokens <= d_cached) return 0;
    bt_wire_shape wire = {.dtype = pair->wire, .head_dim = hello->head_dim};
    uint32_t runs = (s->prompt_tokens - d_cached + BT_RUN_TOKENS - 1) / BT_RUN_TOKENS;
    return (double)bt_wire_frame_bytes(&wire, runs, hello->kv_heads) * 1e3 / pair->mb_per_s;
}

/* Fills core->choices; returns how many. */
static uint32_t offer(bt_router_core *core, const selection *s)
{
    uint32_t count = 0;
    struct {
        uint32_t path, tokens;
        bool known;
    } found[BT_DAEMONS_MAX] = {0}; /* at D: pairs of one D mostly share the path */
    bool prefixes = core->policy->uses_prefixes || core->config.local_prefill_max > 0;
    for (uint32_t p = 0; p < BT_DAEMONS_MAX; p++) {
        if (!core->daemons[p].up || core->daemons[p].hello.role != BT_ROLE_PREFILL) continue;
        uint32_t p_cached = UINT32_MAX;
        for (uint32_t d = 0; d < BT_DAEMONS_MAX; d++) {
            if (!core->daemons[d].up || core->daemons[d].hello.role != BT_ROLE_DECODE ||
                !may_take(core, s, p, d))
                continue;
            bt_router_choice *c = &core->choices[count++];
            *c = (bt_router_choice){.prefill = p, .decode = d};
            if (!prefixes || s->terms.any_size) continue;
            if (!bt_router_scores_complete(s->r))
                p_cached = 0; /* all of the prompt is computed again */
            if (p_cached == UINT32_MAX)
                p_cached =
                    cached(core, s, owner_alone(core, p), (s->prompt_tokens - 1) / BT_RUN_TOKENS);
            c->p_cached = p_cached;
            bt_prefix_owner owner = owner_pushed(core, p, d);
            if (!found[d].known || found[d].path != owner.path) {
                found[d].known = true;
                found[d].path = owner.path;
                found[d].tokens = cached(core, s, owner, UINT32_MAX);
            }
            c->d_cached = found[d].tokens;
            c->handoff_ns = handoff_ns(core, s, p, d, c->d_cached);
        }
    }
    return count;
}

/* ---- prompts that D computes ----------------------------------------------------------------- */

static bool may_compute(const bt_router_core *core, const selection *s, uint32_t d)
{
    const bt_router_daemon *decode = &core->daemons[d];
    if (!decode->up || decode->hello.role != BT_ROLE_DECODE || decode->draining) return false;
    if (decode->hello.chunk_tokens == 0 || avoids(s, d)) return false;
    if (!bt_router_scores_complete(s->r)) return false; /* P tells the prompt's logprobs */
    if (decode->hello.proto_minor < (s->minor > 1 ? s->minor : 1)) return false;
    if (memcmp(&decode->hello.fingerprint, &core->config.fingerprint, BT_SHA256_BYTES) != 0)
        return false;
    return s->total_tokens <= bt_router_daemon_capacity(decode);
}

static bool has_pair(const bt_router_core *core, uint32_t d, bt_pair_state state)
{
    for (uint32_t p = 0; p < BT_DAEMONS_MAX; p++)
        if (core->pairs[p * BT_DAEMONS_MAX + d].state == state) return true;
    return false;
}

static uint32_t own_cached(const bt_router_core *core, const selection *s, uint32_t d)
{
    return cached(core, s, owner_alone(core, d), (s->prompt_tokens - 1) / BT_RUN_TOKENS);
}

/* The cheapest decode daemon that may compute this prompt, into *plan if it beats *limit_ns. */
static bool plan_local(const bt_router_core *core, const selection *s, double limit_ns,
                       uint64_t now_ns, bt_router_plan *plan)
{
    bool better = false;
    for (uint32_t d = 0; d < BT_DAEMONS_MAX; d++) {
        const bt_router_daemon *decode = &core->daemons[d];
        if (!decode->up || !may_compute(core, s, d) || !bt_cost_known(&decode->cost) ||
            !has_pair(core, d, BT_PAIR_READY))
            continue;
        uint64_t room = (uint64_t)decode->blocks_free * decode->hello.block_tokens;
        uint32_t known = own_cached(core, s, d);
        if (s->prompt_tokens - known > core->config.local_prefill_max || s->prompt_tokens >= room)
            continue;
        double harm_ns;
        double ns = bt_predict_local_ns(decode, known, s->prompt_tokens, now_ns, &harm_ns);
        if (!(ns + harm_ns < limit_ns)) continue;
        limit_ns = ns + harm_ns;
        better = true;
        *plan = (bt_router_plan){
            .choice = {BT_ROUTER_NONE, d, 0, known, 0},
            .kind = BT_DECIDED_LOCAL,
            .ttft_ns = ns,
            .work_ns = bt_predict_own_ns(&decode->cost, decode, known, s->prompt_tokens)};
    }
    return better;
}

bool bt_router_alone(const bt_router_core *core)
{
    if (!core->config.local_when_no_prefill) return false;
    bool any = false;
    for (uint32_t d = 0; d < BT_DAEMONS_MAX; d++) {
        if (!core->daemons[d].up || core->daemons[d].hello.role != BT_ROLE_DECODE) continue;
        if (has_pair(core, d, BT_PAIR_READY)) return false;
        any |= core->daemons[d].hello.chunk_tokens > 0 && !has_pair(core, d, BT_PAIR_REFUSED);
    }
    return any;
}

/* No pair is ready anywhere: the decode daemon with the fewest sequences. */
static bool plan_alone(const bt_router_core *core, const selection *s, bt_router_plan *plan)
{
    if (s->fixed_prefill != BT_ROUTER_NONE || !bt_router_alone(core)) return false;
    uint32_t best = BT_ROUTER_NONE;
    for (uint32_t d = 0; d < BT_DAEMONS_MAX; d++)
        if (may_compute(core, s, d) && !has_pair(core, d, BT_PAIR_REFUSED) &&
            (best == BT_ROUTER_NONE || core->daemons[d].assigned < core->daemons[best].assigned))
            best = d;
    if (best == BT_ROUTER_NONE) return false;
    *plan = (bt_router_plan){.choice = {.prefill = BT_ROUTER_NONE, .decode = best},
                             .kind = BT_DECIDED_ALONE};
    return true;
}

/* ---- both ------------------------------------------------------------------------------------ */

bool bt_router_choosable(bt_router_core *core, const bt_router_entry *r, bt_router_terms terms)
{
    selection s = select_for(r, BT_ROUTER_NONE, terms);
    bt_router_plan plan;
    return offer(core, &s) > 0 || plan_alone(core, &s, &plan);
}

bool bt_router_choose(bt_router_core *core, const bt_router_entry *r, uint32_t fixed_prefill,
                      bt_router_terms terms, uint64_t now_ns, bt_router_plan *ret_plan)
{
    selection s = select_for(r, fixed_prefill, terms);
    uint32_t count = offer(core, &s);
    if (count == 0) return plan_alone(core, &s, ret_plan);
    bt_router_view view = {.daemons = core->daemons,
                           .choices = core->choices,
                           .choice_count = count,
                           .prompt_tokens = s.prompt_tokens,
                           .affinity_tokens = core->config.affinity_tokens,
                           .now_ns = now_ns};
    uint32_t picked = core->policy->choose(&view, &core->policy_state);
    assert(picked < count);
    const bt_router_choice *choice = &core->choices[picked];
    bt_cost cost = bt_predict_cost(&view, choice->prefill);
    bool one_token = r->max_tokens - r->committed == 1;
    *ret_plan =
        (bt_router_plan){.choice = *choice,
                         .kind = one_token ? BT_DECIDED_PREFILL_ONLY : BT_DECIDED_PAIR,
                         .ttft_ns = bt_predict_ttft_ns(&view, choice),
                         .work_ns = bt_predict_own_ns(&cost, &core->daemons[choice->prefill],
                                                      choice->p_cached, s.prompt_tokens)};
    bool measured = bt_cost_known(&core->daemons[choice->prefill].cost);
    double pair_ns = ret_plan->ttft_ns + choice->handoff_ns;
    if (core->config.local_prefill_max > 0 && measured && !one_token && !r->no_local &&
        fixed_prefill == BT_ROUTER_NONE)
        (void)plan_local(core, &s, pair_ns, now_ns, ret_plan);
    if (!measured && ret_plan->kind != BT_DECIDED_LOCAL) ret_plan->ttft_ns = 0;
    return true;
}
