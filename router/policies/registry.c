#include "router/policies/policy.h"

#include <string.h>

const bt_router_policy *const bt_router_policies[] = {
    &bt_router_least_loaded,    &bt_router_round_robin,    &bt_router_power_of_two,
    &bt_router_prefix_affinity, &bt_router_predicted_ttft,
};
const uint32_t bt_router_policy_count = sizeof(bt_router_policies) / sizeof(bt_router_policies[0]);

const char *const bt_router_policy_choices[] = {"least_loaded",    "round_robin",    "power_of_two",
                                                "prefix_affinity", "predicted_ttft", NULL};

const bt_router_policy *bt_router_policy_find(const char *name)
{
    if (name == NULL) return bt_router_policies[0];
    for (uint32_t i = 0; i < bt_router_policy_count; i++)
        if (strcmp(bt_router_policies[i]->name, name) == 0) return bt_router_policies[i];
    return NULL;
}
