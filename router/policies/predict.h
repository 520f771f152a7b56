/* predict.h - how long a request would wait for its first token: the model of predicted_ttft and of
 * the choice between a prefill daemon and the decode daemon itself (router/local.c).
 *
 *     ttft  = queue + own
 *     queue = what we sent to that daemon and is not computed yet, as predicted when it was sent,
 *             less the time since the last of it was done; or, if more, what the heartbeat tells
 *             (another router's work), less the heartbeat's age
 *     own   = cost of the tokens that are not cached, in chunks (common/base/cost.h)
 *     score = ttft + handoff of the last layer + one decode step of D with this sequence more
 *
 * P says its first token before the handoff ends, so the handoff is no part of TTFT: it delays the
 * second token. Left out: the batch that runs when the request comes, messages, blocks that are not
 * free, and that P computes chunks of several prompts in one batch.
 * A daemon whose cost is not measured yet is taken for the mean of those that are; with none
 * measured a token counts 1 ns, which compares queues. Pure. */
#ifndef BT_ROUTER_POLICIES_PREDICT_H
#define BT_ROUTER_POLICIES_PREDICT_H

#include "router/policies/policy.h"

/* Of the prompt alone, on an idle P. */
double bt_predict_own_ns(const bt_cost *cost, const bt_router_daemon *daemon, uint32_t cached,
                         uint32_t tokens);
double bt_predict_queue_ns(const bt_cost *cost, const bt_router_daemon *daemon, uint64_t now_ns);
/* The cost of a daemon, or what stands for it among the prefill daemons of the view. */
bt_cost bt_predict_cost(const bt_router_view *view, uint32_t daemon);

double bt_predict_ttft_ns(const bt_router_view *view, const bt_router_choice *choice);
double bt_predict_score_ns(const bt_router_view *view, const bt_router_choice *choice);

/* The same prompt computed by decode daemon `daemon` in its chunks, each with a decode step of what
 * runs there. ret_harm_ns: the time by which all of its running sequences together are delayed. */
double bt_predict_local_ns(const bt_router_daemon *daemon, uint32_t cached, uint32_t tokens,
                           uint64_t now_ns, double *ret_harm_ns);

#endif
