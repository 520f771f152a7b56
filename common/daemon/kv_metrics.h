/* kv_metrics.h - the series of a KV pool, the same of both workers: blocks by state, bytes of a token, tokens it holds. */
#ifndef BT_COMMON_DAEMON_KV_METRICS_H
#define BT_COMMON_DAEMON_KV_METRICS_H

#include "common/base/metrics.h"
#include "kernels/kv.h"

#define BT_KV_BLOCK_STATES 4u /* free, cached, held, quarantined */

typedef struct {
    bt_gauge *blocks[BT_KV_BLOCK_STATES];
} bt_kv_metrics;

/* role: the label's value. */
void bt_kv_metrics_open(bt_kv_metrics *metrics, bt_metrics *registry, const char *role,
                        const bt_kv_shape *kv);
/* blocks in the order of the states. */
void bt_kv_metrics_update(bt_kv_metrics *metrics, const uint32_t blocks[BT_KV_BLOCK_STATES]);

#endif
