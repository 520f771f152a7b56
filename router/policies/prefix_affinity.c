/* prefix_affinity.c - the pair that holds most of the prompt already, unless it is too busy.
 *
 * P's cache saves computing, D's the transfer: what P holds is compared first, then what D holds,
 * then the load; equals take turns. The guard: a pair whose P has more than affinity_tokens prompt
 * tokens more to compute than the least busy P, or whose D has more than SLACK_SEQS sequences more
 * than the least busy D, is not considered. */
#include "router/policies/load.h"

#define SLACK_SEQS 8u

typedef struct {
    uint64_t tokens, sequences;
} least;

static least find_least(const bt_router_view *view)
{
    least found = {UINT64_MAX, UINT64_MAX};
    for (uint32_t i = 0; i < view->choice_count; i++) {
        uint64_t tokens = bt_load_tokens(&view->daemons[view->choices[i].prefill]);
        uint64_t sequences = bt_load_sequences(&view->daemons[view->choices[i].decode]);
        if (tokens < found.tokens) found.tokens = tokens;
        if (sequences < found.sequences) found.sequences = sequences;
    }
    return found;
}

static bool in_balance(const bt_router_view *view, uint32_t choice, least l)
{
    const bt_router_choice *c = &view->choices[choice];
    return bt_load_tokens(&view->daemons[c->prefill]) <= l.tokens + view->affinity_tokens &&
           bt_load_sequences(&view->daemons[c->decode]) <= l.sequences + SLACK_SEQS;
}

static bool better(const bt_router_view *view, uint32_t a, uint32_t b, least l)
{
    const bt_router_choice *ca = &view->choices[a], *cb = &view->choices[b];
    bool fair_a = in_balance(view, a, l), fair_b = in_balance(view, b, l);
    if (fair_a != fair_b) return fair_a;
    if (fair_a && ca->p_cached != cb->p_cached) return ca->p_cached > cb->p_cached;
    if (fair_a && ca->d_cached != cb->d_cached) return ca->d_cached > cb->d_cached;
    return bt_load_less(view, a, b);
}

static uint32_t choose(const bt_router_view *view, bt_router_policy_state *state)
{
    least l = find_least(view);
    uint32_t start = (uint32_t)(state->turn++ % view->choice_count), best = start;
    for (uint32_t i = 1; i < view->choice_count; i++) {
        uint32_t candidate = (start + i) % view->choice_count;
        if (better(view, candidate, best, l)) best = candidate;
    }
    return best;
}

const bt_router_policy bt_router_prefix_affinity = {
    .name = "prefix_affinity", .uses_prefixes = true, .choose = choose};
