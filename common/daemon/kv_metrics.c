#include "common/daemon/kv_metrics.h"

void bt_kv_metrics_open(bt_kv_metrics *metrics, bt_metrics *registry, const char *role,
                        const bt_kv_shape *kv)
{
    static const char *const states[BT_KV_BLOCK_STATES] = {"free", "cached", "held", "quarantined"};
    for (uint32_t i = 0; i < BT_KV_BLOCK_STATES; i++) {
        const bt_label labels[] = {{"role", role}, {"state", states[i]}};
        metrics->blocks[i] = bt_metrics_gauge(registry, "baton_kv_blocks",
                                              "KV blocks by state, recounted.", labels, 2);
    }
    bt_gauge_set(bt_metrics_gauge(registry, "baton_kv_bytes_per_token",
                                  "KV bytes of one token in the pool.", NULL, 0),
                 (double)bt_kv_token_bytes(kv));
    bt_gauge_set(bt_metrics_gauge(registry, "baton_kv_pool_tokens",
                                  "Tokens that the KV pool holds.", NULL, 0),
                 (double)kv->pool_blocks * kv->block_tokens);
}

void bt_kv_metrics_update(bt_kv_metrics *metrics, const uint32_t blocks[BT_KV_BLOCK_STATES])
{
    for (uint32_t i = 0; i < BT_KV_BLOCK_STATES; i++) bt_gauge_set(metrics->blocks[i], blocks[i]);
}
