#include "common/daemon/handoff.h"

#include <assert.h>
#include <string.h>

static const struct {
    const char *name;
    bt_role role;
} phases[BT_HANDOFF_PHASES] = {
    [BT_HANDOFF_PACK] = {"pack", BT_ROLE_PREFILL},
    [BT_HANDOFF_PUT] = {"put", BT_ROLE_PREFILL},
    [BT_HANDOFF_ENGINE] = {"engine", BT_ROLE_PREFILL},
    [BT_HANDOFF_WAKE] = {"wake", BT_ROLE_PREFILL},
    [BT_HANDOFF_MANIFEST] = {"manifest", BT_ROLE_PREFILL},
    [BT_HANDOFF_CONFIRM] = {"confirm", BT_ROLE_PREFILL},
    [BT_HANDOFF_TOTAL] = {"total", BT_ROLE_PREFILL},
    [BT_HANDOFF_UNPACK] = {"unpack", BT_ROLE_DECODE},
    [BT_HANDOFF_ACCEPT] = {"accept", BT_ROLE_DECODE},
    [BT_HANDOFF_WAIT] = {"wait", BT_ROLE_DECODE},
    [BT_HANDOFF_STEP] = {"step", BT_ROLE_DECODE},
};

/* Six to a decade, so that a percentile is within 25 % of the truth at worst. */
static const double bounds[] = {
    1e-5,   1.5e-5, 2.2e-5, 3.3e-5, 4.7e-5, 6.8e-5, 1e-4,   1.5e-4, 2.2e-4, 3.3e-4, 4.7e-4,
    6.8e-4, 1e-3,   1.5e-3, 2.2e-3, 3.3e-3, 4.7e-3, 6.8e-3, 1e-2,   1.5e-2, 2.2e-2, 3.3e-2,
    4.7e-2, 6.8e-2, 0.1,    0.15,   0.22,   0.33,   0.47,   0.68,   1,      10,
};

void bt_handoff_open(bt_handoff *handoff, bt_metrics *metrics, bt_role role)
{
    const bt_buckets buckets = {bounds, sizeof(bounds) / sizeof(bounds[0])};
    memset(handoff, 0, sizeof(*handoff));
    for (unsigned i = 0; i < BT_HANDOFF_PHASES; i++) {
        const bt_label label = {"phase", phases[i].name};
        if (phases[i].role != role) continue;
        handoff->phases[i] = bt_metrics_histogram(metrics, "baton_handoff_seconds",
                                                  "Phases of handing a sequence from prefill to "
                                                  "decode.",
                                                  buckets, &label, 1);
    }
}

void bt_handoff_observe(bt_handoff *handoff, bt_handoff_phase phase, uint64_t begin_ns,
                        uint64_t end_ns)
{
    assert(handoff->phases[phase] != NULL);
    uint64_t ns = end_ns > begin_ns ? end_ns - begin_ns : 0;
    bt_histogram_observe(handoff->phases[phase], (double)ns / 1e9);
}

/* FNV-1a of all bytes: what of an id varies is the router's business. */
static uint32_t set_of(const bt_request_id *request)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < sizeof(request->bytes); i++)
        hash = (hash ^ request->bytes[i]) * 0x100000001b3;
    return (uint32_t)(hash >> 32) % BT_HANDOFF_SETS;
}

bt_handoff_entry *bt_handoff_find(bt_handoff *handoff, const bt_request_id *request)
{
    bt_handoff_entry *set = handoff->open[set_of(request)];
    for (uint32_t way = 0; way < BT_HANDOFF_WAYS; way++)
        if (bt_request_id_equal(&set[way].request, request)) return &set[way];
    return NULL;
}

bt_handoff_entry *bt_handoff_begin(bt_handoff *handoff, const bt_request_id *request)
{
    bt_handoff_entry *entry = bt_handoff_find(handoff, request);
    if (entry != NULL) return entry;
    uint32_t set = set_of(request);
    entry = &handoff->open[set][handoff->turn[set]++ % BT_HANDOFF_WAYS];
    *entry = (bt_handoff_entry){.request = *request};
    return entry;
}
