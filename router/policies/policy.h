/* policy.h - which prefill and which decode daemon take a request: one const struct per policy.
 *
 * WHAT    The core offers the pairs that may take it: ready, up, not draining, large enough, and
 *         not one that failed this request before if another is left. A policy picks one of them
 *         and knows nothing of requests in flight but what the daemons' rows say. Pure,
 *         deterministic, no state but its turn.
 * ADD ONE router/policies/<name>.c and one line in registry.c; the policy suite of
 *         tests/unit/test_router_core.c then covers it. */
#ifndef BT_ROUTER_POLICIES_POLICY_H
#define BT_ROUTER_POLICIES_POLICY_H

#include "router/core.h"

typedef struct {
    uint32_t prefill, decode; /* indexes of daemons */
} bt_router_choice;

typedef struct {
    const bt_router_daemon *daemons;
    const bt_router_choice *choices;
    uint32_t choice_count;  /* >= 1 */
    uint32_t prompt_tokens; /* of the request, committed tokens included */
} bt_router_view;

typedef struct {
    const char *name;
    /* Index of a choice. *turn starts at 0 and is the policy's own. */
    uint32_t (*choose)(const bt_router_view *view, uint64_t *turn);
} bt_router_policy;

extern const bt_router_policy bt_router_round_robin;
extern const bt_router_policy bt_router_least_loaded;

/* Every policy; the first is the default. */
extern const bt_router_policy *const bt_router_policies[];
extern const uint32_t bt_router_policy_count;

/* NULL if there is no such policy; the default for NULL. */
const bt_router_policy *bt_router_policy_find(const char *name);

#endif
