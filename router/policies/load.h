/* load.h - how busy a daemon is, for policies that compare loads. */
#ifndef BT_ROUTER_POLICIES_LOAD_H
#define BT_ROUTER_POLICIES_LOAD_H

#include "router/policies/policy.h"

/* Our own requests are known without delay; what the last heartbeat says beyond them is another
 * router's. */
static inline uint64_t bt_load_sequences(const bt_router_daemon *daemon)
{
    uint64_t told = (uint64_t)daemon->running + daemon->waiting;
    return told > daemon->assigned ? told : daemon->assigned;
}

/* Prompt tokens still to compute. */
static inline uint64_t bt_load_tokens(const bt_router_daemon *daemon)
{
    return daemon->queued_tokens > daemon->assigned_tokens ? daemon->queued_tokens
                                                           : daemon->assigned_tokens;
}

static inline bool bt_load_less(const bt_router_view *view, uint32_t a, uint32_t b)
{
    const bt_router_daemon *pa = &view->daemons[view->choices[a].prefill];
    const bt_router_daemon *pb = &view->daemons[view->choices[b].prefill];
    if (pa->assigned_tokens != pb->assigned_tokens)
        return pa->assigned_tokens < pb->assigned_tokens;
    if (bt_load_sequences(pa) != bt_load_sequences(pb))
        return bt_load_sequences(pa) < bt_load_sequences(pb);
    const bt_router_daemon *da = &view->daemons[view->choices[a].decode];
    const bt_router_daemon *db = &view->daemons[view->choices[b].decode];
    return bt_load_sequences(da) < bt_load_sequences(db);
}

#endif
