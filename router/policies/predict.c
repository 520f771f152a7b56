#include "router/policies/predict.h"

#include "router/policies/load.h"

static double above_zero(double value)
{
    return value > 0 ? value : 0;
}

double bt_predict_own_ns(const bt_cost *cost, const bt_router_daemon *daemon, uint32_t cached,
                         uint32_t tokens)
{
    uint32_t known = cached < tokens ? cached : tokens - 1; /* the last token is always computed */
    return bt_cost_prompt_ns(cost, known, tokens - known, daemon->hello.chunk_tokens);
}

static double age(uint64_t then_ns, uint64_t now_ns)
{
    return now_ns > then_ns ? (double)(now_ns - then_ns) : 0;
}

double bt_predict_queue_ns(const bt_cost *cost, const bt_router_daemon *daemon, uint64_t now_ns)
{
    double ours =
        daemon->work_ns > 0 ? above_zero(daemon->work_ns - age(daemon->work_since_ns, now_ns)) : 0;
    double told =
        bt_cost_prompt_ns(cost, 0, daemon->queued_tokens, daemon->hello.chunk_tokens) -
        (double)cost->pair_ns * bt_cost_pairs(0, daemon->queued_tokens); /* of many prompts */
    told = above_zero(told - age(daemon->told_ns, now_ns));
    return ours > told ? ours : told;
}

bt_cost bt_predict_cost(const bt_router_view *view, uint32_t daemon)
{
    const bt_cost *cost = &view->daemons[daemon].cost;
    if (bt_cost_known(cost)) return *cost;
    bt_cost mean = {0};
    float count = 0;
    for (uint32_t i = 0; i < view->choice_count; i++) {
        const bt_cost *other = &view->daemons[view->choices[i].prefill].cost;
        if (!bt_cost_known(other)) continue;
        mean.batch_ns += other->batch_ns;
        mean.token_ns += other->token_ns;
        mean.pair_ns += other->pair_ns;
        count += 1;
    }
    if (count == 0) return (bt_cost){.token_ns = 1};
    return (bt_cost){mean.batch_ns / count, mean.token_ns / count, mean.pair_ns / count};
}

double bt_predict_ttft_ns(const bt_router_view *view, const bt_router_choice *choice)
{
    const bt_router_daemon *p = &view->daemons[choice->prefill];
    bt_cost cost = bt_predict_cost(view, choice->prefill);
    return bt_predict_queue_ns(&cost, p, view->now_ns) +
           bt_predict_own_ns(&cost, p, choice->p_cached, view->prompt_tokens);
}

double bt_predict_score_ns(const bt_router_view *view, const bt_router_choice *choice)
{
    const bt_router_daemon *d = &view->daemons[choice->decode];
    /* Until D has measured a step, its sequences tell. */
    bt_cost cost = bt_cost_known(&d->cost) ? d->cost : (bt_cost){.token_ns = 1};
    double step = bt_cost_step_ns(&cost, (uint32_t)bt_load_sequences(d) + 1,
                                  d->context_tokens + view->prompt_tokens);
    return bt_predict_ttft_ns(view, choice) + choice->handoff_ns + step;
}

double bt_predict_local_ns(const bt_router_daemon *daemon, uint32_t cached, uint32_t tokens,
                           uint64_t now_ns, double *ret_harm_ns)
{
    const bt_cost *cost = &daemon->cost;
    uint32_t known = cached < tokens ? cached : tokens - 1, left = tokens - known;
    uint32_t chunk = daemon->hello.chunk_tokens;
    uint32_t chunks = chunk == 0 ? 1 : left / chunk + (left % chunk != 0);
    double own = bt_cost_prompt_ns(cost, known, left, chunk);
    double added = above_zero(own - (double)cost->batch_ns * chunks); /* the batches run anyway */
    double beside =
        bt_cost_step_ns(cost, daemon->running, daemon->context_tokens) - (double)cost->batch_ns;
    *ret_harm_ns = added * daemon->running;
    return bt_predict_queue_ns(cost, daemon, now_ns) + own + beside * chunks;
}
