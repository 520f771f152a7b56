/* fleet.h - the fleet as the router sees it, as JSON: what `GET /fleet`, `baton ps` and
 * `baton doctor --url` show.
 *
 *     {"router": {...}, "daemons": [{...}], "pairs": [{...}]}
 *
 * Every daemon that ever joined under an index is there until another takes its place, "up": false
 * if it is gone. A pair is there if both of its daemons are up. Fields: docs/api.md. */
#ifndef BT_ROUTER_FLEET_H
#define BT_ROUTER_FLEET_H

#include "common/net/json_out.h"
#include "router/core.h"

/* 64 x 64 pairs, each refused with the longest reason. */
#define BT_ROUTER_FLEET_BYTES_MAX (4u << 20)

typedef struct {
    const char *name, *model, *policy;
    const char *http, *control; /* what it listens on */
    uint64_t incarnation;
    uint32_t context_tokens_max;
    bool draining;
} bt_router_self;

void bt_router_fleet_write(const bt_router_self *self, const bt_router_core *core, uint64_t now_ns,
                           bt_json_out *json);

#endif
