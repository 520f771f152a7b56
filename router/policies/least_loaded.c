/* least_loaded.c - the prefill daemon with the fewest prompt tokens still to compute, and on it the
 * decode daemon with the fewest sequences. Equals take turns, so that an idle fleet warms evenly. */
#include "router/policies/load.h"

static uint32_t choose(const bt_router_view *view, bt_router_policy_state *state)
{
    uint32_t start = (uint32_t)(state->turn++ % view->choice_count), best = start;
    for (uint32_t i = 1; i < view->choice_count; i++) {
        uint32_t candidate = (start + i) % view->choice_count;
        if (bt_load_less(view, candidate, best)) best = candidate;
    }
    return best;
}

const bt_router_policy bt_router_least_loaded = {.name = "least_loaded", .choose = choose};
