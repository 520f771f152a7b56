/* least_loaded.c - the prefill daemon with the fewest prompt tokens still to compute, and on it the
 * decode daemon with the fewest sequences.
 *
 * Counted are our own requests, which are known without delay, and what the last heartbeat says
 * beyond them (another router's). Equals take turns, so that an idle fleet warms evenly. */
#include "router/policies/policy.h"

#include <stdbool.h>

static uint64_t sequences(const bt_router_daemon *daemon)
{
    uint64_t told = (uint64_t)daemon->running + daemon->waiting;
    return told > daemon->assigned ? told : daemon->assigned;
}

static bool less(const bt_router_view *view, uint32_t a, uint32_t b)
{
    const bt_router_daemon *pa = &view->daemons[view->choices[a].prefill];
    const bt_router_daemon *pb = &view->daemons[view->choices[b].prefill];
    if (pa->assigned_tokens != pb->assigned_tokens)
        return pa->assigned_tokens < pb->assigned_tokens;
    if (sequences(pa) != sequences(pb)) return sequences(pa) < sequences(pb);
    const bt_router_daemon *da = &view->daemons[view->choices[a].decode];
    const bt_router_daemon *db = &view->daemons[view->choices[b].decode];
    return sequences(da) < sequences(db);
}

static uint32_t choose(const bt_router_view *view, uint64_t *turn)
{
    uint32_t start = (uint32_t)((*turn)++ % view->choice_count), best = start;
    for (uint32_t i = 1; i < view->choice_count; i++) {
        uint32_t candidate = (start + i) % view->choice_count;
        if (less(view, candidate, best)) best = candidate;
    }
    return best;
}

const bt_router_policy bt_router_least_loaded = {.name = "least_loaded", .choose = choose};
