#include "router/fleet.h"

#include <inttypes.h>
#include <stdio.h>

static void put_text(bt_json_out *json, const char *key, const char *text)
{
    bt_json_key(json, key);
    bt_json_text(json, text);
}

static void put_u64(bt_json_out *json, const char *key, uint64_t value)
{
    bt_json_key(json, key);
    bt_json_u64(json, value);
}

static void put_bool(bt_json_out *json, const char *key, bool value)
{
    bt_json_key(json, key);
    bt_json_bool(json, value);
}

/* As text: a JSON number holds 53 bits. */
static void put_incarnation(bt_json_out *json, uint64_t incarnation)
{
    char text[24];
    snprintf(text, sizeof(text), "%016" PRIx64, incarnation);
    put_text(json, "incarnation", text);
}

static void put_version(bt_json_out *json, const char *key, uint32_t major, uint32_t minor)
{
    char text[32];
    snprintf(text, sizeof(text), "%u.%u", major, minor);
    put_text(json, key, text);
}

static void put_router(const bt_router_self *self, const bt_router_core *core, bt_json_out *json)
{
    bt_router_stats stats;
    bt_router_core_stats(core, &stats);
    bt_json_begin(json, '{');
    put_text(json, "name", self->name);
    put_text(json, "version", BT_VERSION);
    put_incarnation(json, self->incarnation);
    put_text(json, "model", self->model);
    put_u64(json, "context_tokens", self->context_tokens_max);
    put_text(json, "policy", self->policy);
    put_text(json, "http", self->http);
    put_text(json, "control", self->control);
    put_bool(json, "draining", self->draining);
    put_bool(json, "serving", bt_router_core_serving(core));
    put_u64(json, "requests", stats.requests);
    put_u64(json, "requests_total", stats.accepted_total);
    put_u64(json, "failed_total", stats.failed_total);
    put_u64(json, "refused_total", stats.refused_total);
    put_u64(json, "retries_total", stats.retries_total);
    put_u64(json, "tokens_total", stats.tokens_total);
    bt_json_end(json, '}');
}

static void put_daemon(const bt_router_daemon *daemon, uint64_t now_ns, bt_json_out *json)
{
    const bt_hello *hello = &daemon->hello;
    bt_json_begin(json, '{');
    put_text(json, "name", hello->name);
    put_text(json, "role", hello->role == BT_ROLE_PREFILL ? "prefill" : "decode");
    put_bool(json, "up", daemon->up);
    put_bool(json, "draining", daemon->draining);
    put_incarnation(json, hello->incarnation);
    put_u64(json, "pid", hello->process_pid);
    put_text(json, "model", hello->model);
    put_text(json, "kv_dtype", bt_dtype_name(hello->kv_dtype));
    put_u64(json, "block_tokens", hello->block_tokens);
    put_u64(json, "pool_blocks", hello->pool_blocks);
    put_u64(json, "blocks_free", daemon->blocks_free);
    put_u64(json, "slots_free", daemon->slots_free);
    put_u64(json, "context_tokens", hello->context_tokens_max);
    put_u64(json, "running", daemon->running);
    put_u64(json, "waiting", daemon->waiting);
    put_u64(json, "assigned", daemon->assigned);
    put_u64(json, "assigned_tokens", daemon->assigned_tokens);
    put_u64(json, "heard_ms",
            now_ns > daemon->heard_ns ? (now_ns - daemon->heard_ns) / 1000000 : 0);
    put_u64(json, "tp_size", hello->tp_size);
    put_version(json, "protocol", hello->proto_major, hello->proto_minor);
    put_version(json, "ucx", hello->ucx_major, hello->ucx_minor);
    put_text(json, "metrics", hello->metrics_url);
    bt_json_end(json, '}');
}

static void put_pair(const bt_router_daemon *prefill, const bt_router_daemon *decode,
                     const bt_router_pair *pair, bt_json_out *json)
{
    static const char *const states[] = {[BT_PAIR_NONE] = "none",
                                         [BT_PAIR_ASKED] = "pairing",
                                         [BT_PAIR_READY] = "ready",
                                         [BT_PAIR_REFUSED] = "refused"};
    bool ready = pair->state == BT_PAIR_READY, refused = pair->state == BT_PAIR_REFUSED;
    bt_json_begin(json, '{');
    put_text(json, "prefill", prefill->hello.name);
    put_text(json, "decode", decode->hello.name);
    put_text(json, "state", states[pair->state]);
    put_text(json, "wire", ready ? bt_dtype_name(pair->wire) : NULL);
    put_text(json, "transport", ready ? pair->transport : NULL);
    bt_json_key(json, "gb_per_s");
    if (ready)
        bt_json_double(json, pair->mb_per_s / 1000.0);
    else
        bt_json_null(json);
    put_text(json, "reason", refused ? pair->reason : NULL);
    bt_json_end(json, '}');
}

static bool is_up(const bt_router_daemon *daemon, bt_role role)
{
    return daemon != NULL && daemon->up && daemon->hello.role == role;
}

void bt_router_fleet_write(const bt_router_self *self, const bt_router_core *core, uint64_t now_ns,
                           bt_json_out *json)
{
    bt_json_begin(json, '{');
    bt_json_key(json, "router");
    put_router(self, core, json);
    bt_json_key(json, "daemons");
    bt_json_begin(json, '[');
    for (uint32_t i = 0; i < BT_DAEMONS_MAX; i++) {
        const bt_router_daemon *daemon = bt_router_core_daemon(core, i);
        if (daemon != NULL && daemon->hello.role != BT_ROLE_NONE) put_daemon(daemon, now_ns, json);
    }
    bt_json_end(json, ']');
    bt_json_key(json, "pairs");
    bt_json_begin(json, '[');
    for (uint32_t p = 0; p < BT_DAEMONS_MAX; p++) {
        const bt_router_daemon *prefill = bt_router_core_daemon(core, p);
        if (!is_up(prefill, BT_ROLE_PREFILL)) continue;
        for (uint32_t d = 0; d < BT_DAEMONS_MAX; d++) {
            const bt_router_daemon *decode = bt_router_core_daemon(core, d);
            const bt_router_pair *pair = bt_router_core_pair(core, p, d);
            if (is_up(decode, BT_ROLE_DECODE) && pair != NULL)
                put_pair(prefill, decode, pair, json);
        }
    }
    bt_json_end(json, ']');
    bt_json_end(json, '}');
}
