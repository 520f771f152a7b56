/* policy.h - which prefill and which decode daemon take a request: one const struct per policy.
 *
 * WHAT    The core offers the pairs that may take it: ready, up, not draining, large enough, and
 *         not one that failed this request before if another is left. A policy picks one of them
 *         from the facts of the view: what the daemons' rows say, what each is thought to have
 *         cached, how long the handoff takes. Pure and deterministic: no state but its own
 *         (bt_router_policy_state), no clock but view->now_ns. The capacity planner runs the same.
 *         Whether the prompt is computed by the decode daemon instead is the core's (local.c).
 * ADD ONE router/policies/<name>.c and one line in registry.c; the policy suite of
 *         tests/unit/test_router_core.c then covers it, and tests/bench/bench_policy.c compares it. */
#ifndef BT_ROUTER_POLICIES_POLICY_H
#define BT_ROUTER_POLICIES_POLICY_H

#include "common/base/rng.h"
#include "router/core.h"

typedef struct {
    uint32_t prefill, decode;    /* indexes of daemons */
    uint32_t p_cached, d_cached; /* prompt tokens that each holds already, as far as R knows */
    double handoff_ns; /* of what D lacks, the last layer, at the rate measured; 0 = not known */
} bt_router_choice;

typedef struct {
    const bt_router_daemon *daemons;
    const bt_router_choice *choices;
    uint32_t choice_count;    /* >= 1 */
    uint32_t prompt_tokens;   /* of the request, committed tokens included */
    uint32_t affinity_tokens; /* prefix_affinity: how much longer a queue may be */
    uint64_t now_ns;
} bt_router_view;

typedef struct {
    uint64_t turn; /* starts at 0 */
    bt_rng rng;    /* seeded by the router's incarnation */
} bt_router_policy_state;

typedef struct {
    const char *name;
    bool uses_prefixes; /* reads p_cached and d_cached, which cost a hash for each 64 tokens */
    /* Index of a choice. */
    uint32_t (*choose)(const bt_router_view *view, bt_router_policy_state *state);
} bt_router_policy;

extern const bt_router_policy bt_router_round_robin;
extern const bt_router_policy bt_router_least_loaded;
extern const bt_router_policy bt_router_power_of_two;
extern const bt_router_policy bt_router_prefix_affinity;
extern const bt_router_policy bt_router_predicted_ttft;

/* Every policy; the first is the default. */
extern const bt_router_policy *const bt_router_policies[];
extern const uint32_t bt_router_policy_count;

/* Their names in this order, NULL at the end: the choices of the config key. */
extern const char *const bt_router_policy_choices[];

/* NULL if there is no such policy; the default for NULL. */
const bt_router_policy *bt_router_policy_find(const char *name);

#endif
