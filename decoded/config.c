#include "decoded/config.h"

#define FIELD(field) BT_CONFIG_FIELD(bt_decoded_config, field)

/* clang-format off */
static const bt_config_key keys[] = {
    BT_WORKER_KEYS("decode"),
    {"decode", "pair_listen", BT_CONFIG_STRING, FIELD(pair_listen), .default_text = "tcp://127.0.0.1:0",
     .doc = "ZeroMQ endpoint where prefill daemons dial to pair; port 0: any free one."},
    {"decode", "seqs", BT_CONFIG_U32, FIELD(seqs_max), .default_text = "64", .min = 1, .max = 4096,
     .doc = "Sequences granted and decoding at once."},
    {"decode", "slots", BT_CONFIG_U32, FIELD(slots), .default_text = "16", .min = 1, .max = BT_SLOTS_MAX,
     .doc = "Landing slots: handoffs that may arrive at once."},
    {"decode", "cells", BT_CONFIG_U32, FIELD(cells), .default_text = "4", .min = 1, .max = BT_CELLS_MAX,
     .doc = "Frames of one handoff that may lie in the landing arena at once."},
    {"decode", "cell_bytes", BT_CONFIG_BYTES, FIELD(cell_bytes), .default_text = "1MiB", .min = 16384, .max = 1u << 28,
     .doc = "Room for one frame."},
    {"decode", "quarantine", BT_CONFIG_U32, FIELD(quarantine_max), .default_text = "8", .min = 1, .max = 1024,
     .doc = "Slots of one prefill daemon in quarantine beyond which it gets no tickets."},
    {"decode", "reserve_tokens", BT_CONFIG_U32, FIELD(reserve_tokens), .default_text = "256", .min = 1,
     .max = BT_CONTEXT_TOKENS_MAX, .doc = "Pool space reserved for a request's output when it is granted."},
    {"decode", "lease", BT_CONFIG_DURATION, FIELD(lease_ns), .default_text = "10s", .min = 1000000000, .max = 3600000000000,
     .doc = "A grant whose prefill daemon is silent for so long ends."},
    {"decode", "local_chunk", BT_CONFIG_U32, FIELD(local_chunk), .default_text = "64", .max = BT_CONTEXT_TOKENS_MAX,
     .doc = "Prompt tokens that one batch computes here beside decoding, for prompts that the router sends to no prefill "
            "daemon (router.local_prefill_max); 0: never."},
    {"decode", "refuse_prefill", BT_CONFIG_BOOL, FIELD(refuse_prefill), .default_text = "no",
     .doc = "Never compute a prompt here: a batch that would is an error."},
};
/* clang-format on */

static bt_status check(const void *config, bt_err *err)
{
    const bt_decoded_config *decode = config;
    if (decode->local_chunk > decode->worker.batch_tokens)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "local_chunk is at most batch_tokens, %u, not %u",
                       decode->worker.batch_tokens, decode->local_chunk);
    return bt_worker_options_check(&decode->worker, err);
}

static const bt_config_table table = {.keys = keys,
                                      .key_count = sizeof(keys) / sizeof(keys[0]),
                                      .struct_bytes = sizeof(bt_decoded_config),
                                      .check = check};

const bt_daemon_spec bt_decoded_spec = {
    .name = "baton-decoded",
    .summary = "Takes KV caches from prefill daemons, verifies them and decodes.",
    .table = &table,
};
