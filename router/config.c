#include "router/config.h"

#include "common/base/log.h"
#include "common/daemon/listen.h"
#include "router/policies/policy.h"

#define FIELD(field) BT_CONFIG_FIELD(bt_router_options, field)

/* clang-format off */
static const bt_config_key keys[] = {
    {"router", "name", BT_CONFIG_STRING, FIELD(name), .default_text = "router", .doc = "Name of this daemon in logs."},
    {"router", "model", BT_CONFIG_PATH, FIELD(model),
     .doc = "Hugging Face folder: config.json and tokenizer.json are read, weights are not."},
    {"router", "model_name", BT_CONFIG_STRING, FIELD(model_name), .default_text = "",
     .doc = "Name of the model in the API; empty: the folder's."},
    {"router", "chat_template", BT_CONFIG_PATH, FIELD(chat_template), .default_text = "",
     .doc = "Chat template (Jinja) instead of the model folder's; empty: the folder's, if it has one."},
    {"router", "http_listen", BT_CONFIG_STRING, FIELD(http_listen), .default_text = "127.0.0.1:8000",
     .doc = "Address of the OpenAI endpoint; port 0: any free one."},
    {"router", "control_listen", BT_CONFIG_STRING, FIELD(control_listen), .default_text = "tcp://127.0.0.1:0",
     .doc = "ZeroMQ endpoint of the prefill and decode daemons."},
    {"router", "key_file", BT_CONFIG_SECRET, FIELD(key_file), .default_text = "",
     .doc = "Our own CURVE key pair, as `baton keygen` prints it; may be empty on loopback only."},
    {"router", "keys_file", BT_CONFIG_PATH, FIELD(keys_file), .default_text = "",
     .doc = "Who may talk to us: lines of public key, role, name."},
    {"router", "policy", BT_CONFIG_ENUM, FIELD(policy), .default_text = "least_loaded",
     .choices = bt_router_policy_choices, .doc = "How (prefill, decode) is chosen; docs/configuration.md compares them."},
    {"router", "prefix_entries", BT_CONFIG_U32, FIELD(prefix_entries), .default_text = "65536", .max = 1u << 24,
     .doc = "Runs of 64 tokens that are remembered to be cached by daemons, over all of them; 0: none."},
    {"router", "affinity_tokens", BT_CONFIG_U32, FIELD(affinity_tokens), .default_text = "4096", .max = 1u << 24,
     .doc = "prefix_affinity: a prefill daemon with so many queued tokens more than the least busy one is too busy."},
    {"router", "local_prefill_max", BT_CONFIG_U32, FIELD(local_prefill_max), .default_text = "0",
     .max = BT_CONTEXT_TOKENS_MAX,
     .doc = "Prompts with at most so many tokens that are not cached may be computed by the decode daemon itself, where "
            "that is cheaper; 0: never."},
    {"router", "local_when_no_prefill", BT_CONFIG_BOOL, FIELD(local_when_no_prefill), .default_text = "no",
     .doc = "While no pair is ready, decode daemons compute every prompt they can hold, instead of 503."},
    {"router", "requests", BT_CONFIG_U32, FIELD(requests_max), .default_text = "256", .min = 1, .max = 65536,
     .doc = "Requests in flight at once; one more is answered 429."},
    {"router", "attempts", BT_CONFIG_U32, FIELD(attempts_max), .default_text = "4", .min = 1, .max = 64,
     .doc = "How often a request is tried, the first time included."},
    {"router", "choices", BT_CONFIG_U32, FIELD(choices_max), .default_text = "32", .min = 1, .max = 1024,
     .doc = "Answers to one API request at once: its prompts times `n`. No more than `requests`."},
    {"router", "context_tokens", BT_CONFIG_U32, FIELD(context_tokens), .default_text = "0", .max = BT_CONTEXT_TOKENS_MAX,
     .doc = "Longest prompt and output together; 0: as long as the model allows."},
    {"router", "chat_tokens", BT_CONFIG_U32, FIELD(chat_tokens), .default_text = "0", .max = BT_CONTEXT_TOKENS_MAX,
     .doc = "Output of a chat that names no limit; 0: what is left of the context. Decode daemons hold KV for all of it."},
    {"router", "connections", BT_CONFIG_U32, FIELD(connections_max), .default_text = "1024", .min = 1, .max = 65536,
     .doc = "HTTP connections at once."},
    {"router", "body_bytes", BT_CONFIG_BYTES, FIELD(body_bytes_max), .default_text = "4MiB", .min = 1024, .max = 1u << 30,
     .doc = "Largest HTTP body."},
    {"router", "streams_bytes", BT_CONFIG_BYTES, FIELD(streams_bytes_max), .default_text = "256MiB", .min = 1 << 20,
     .max = 1ull << 40,
     .doc = "Output that waits for clients that read slowly, of all streams together. Beyond it a stream that holds more than "
            "1 MiB is cut when more waits for it."},
    {"router", "log_level", BT_CONFIG_ENUM, FIELD(log_level), .default_text = "info", .choices = bt_log_level_names,
     .reloadable = true, .doc = "Least important lines that are logged."},
    {"router", "progress", BT_CONFIG_DURATION, FIELD(progress_ns), .default_text = "30s", .min = 100000000,
     .max = 3600000000000, .doc = "An attempt without any message for so long has failed."},
    {"router", "heartbeat", BT_CONFIG_DURATION, FIELD(heartbeat_ns), .default_text = "500ms", .min = 10000000,
     .max = 60000000000, .doc = "Period of our heartbeat to the daemons."},
    {"router", "daemon_timeout", BT_CONFIG_DURATION, FIELD(daemon_timeout_ns), .default_text = "2500ms", .min = 100000000,
     .max = 3600000000000, .doc = "A daemon without heartbeat for so long is dead."},
    {"router", "renew", BT_CONFIG_DURATION, FIELD(renew_ns), .default_text = "2s", .min = 100000000, .max = 3600000000000,
     .doc = "Period in which leases of our requests are renewed."},
    {"router", "retry_wait", BT_CONFIG_DURATION, FIELD(retry_wait_ns), .default_text = "2s", .max = 3600000000000,
     .doc = "How long a request waits for a daemon to come back or to have room before it fails."},
    {"router", "drain_timeout", BT_CONFIG_DURATION, FIELD(drain_ns), .default_text = "2s", .max = 3600000000000,
     .doc = "On SIGTERM, time for the requests in flight to end."},
};
/* clang-format on */

static bt_status check(const void *config, bt_err *err)
{
    const bt_router_options *options = config;
    if ((options->key_file[0] == '\0') != (options->keys_file[0] == '\0'))
        return BT_FAIL(err, BT_ERR_ARGUMENT, "key_file and keys_file need each other");
    bt_listen listen;
    return bt_listen_parse(options->http_listen, &listen, err);
}

static const bt_config_table table = {.keys = keys,
                                      .key_count = sizeof(keys) / sizeof(keys[0]),
                                      .struct_bytes = sizeof(bt_router_options),
                                      .check = check};

const bt_daemon_spec bt_router_spec = {
    .name = "baton-router",
    .summary =
        "Takes prompts over HTTP, assigns prefill and decode daemons and streams the answers.",
    .table = &table,
};
