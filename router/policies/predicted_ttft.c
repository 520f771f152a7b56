/* predicted_ttft.c - the pair with the smallest predicted time to the first token, to the end of its
 * handoff and to the next decode step (predict.h). Equals take turns. */
#include "router/policies/predict.h"

static uint32_t choose(const bt_router_view *view, bt_router_policy_state *state)
{
    uint32_t start = (uint32_t)(state->turn++ % view->choice_count), best = start;
    double best_ns = bt_predict_score_ns(view, &view->choices[start]);
    for (uint32_t i = 1; i < view->choice_count; i++) {
        uint32_t candidate = (start + i) % view->choice_count;
        double ns = bt_predict_score_ns(view, &view->choices[candidate]);
        if (!(ns < best_ns)) continue;
        best = candidate;
        best_ns = ns;
    }
    return best;
}

const bt_router_policy bt_router_predicted_ttft = {
    .name = "predicted_ttft", .uses_prefixes = true, .choose = choose};
