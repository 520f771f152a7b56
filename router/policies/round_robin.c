/* round_robin.c - every pair in turn, whatever its load. */
#include "router/policies/policy.h"

static uint32_t choose(const bt_router_view *view, bt_router_policy_state *state)
{
    return (uint32_t)(state->turn++ % view->choice_count);
}

const bt_router_policy bt_router_round_robin = {.name = "round_robin", .choose = choose};
