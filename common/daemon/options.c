#include "common/daemon/options.h"

#include "common/daemon/listen.h"

const char *const bt_compute_choices[] = {"f32", "bf16", "int8", NULL};
const char *const bt_kv_dtype_choices[] = {"auto", "f32", "bf16", "fp8", "int8", NULL};
const char *const bt_wire_dtype_choices[] = {"auto", "raw", "f32", "bf16", "fp8", "int8", NULL};

bt_status bt_worker_options_check(const bt_worker_options *options, bt_err *err)
{
    uint32_t block = options->block_size;
    if (block != 16 && block != 32 && block != 64)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "block_size is 16, 32 or 64, not %u", block);
    if (options->pool_tokens % BT_RUN_TOKENS != 0)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "pool_tokens is a multiple of %u, not %u",
                       BT_RUN_TOKENS, options->pool_tokens);
    if (options->batch_tokens % BT_RUN_TOKENS != 0)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "batch_tokens is a multiple of %u, not %u",
                       BT_RUN_TOKENS, options->batch_tokens);
    if (options->context_tokens != 0 && options->context_tokens < BT_RUN_TOKENS)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "context_tokens is 0 or at least %u, not %u",
                       BT_RUN_TOKENS, options->context_tokens);
    if (options->router_key[0] != '\0' &&
        (options->key_file[0] == '\0' || options->keys_file[0] == '\0'))
        return BT_FAIL(err, BT_ERR_ARGUMENT, "router_key needs key_file and keys_file");
    bt_listen listen;
    return bt_listen_parse(options->metrics_listen, &listen, err);
}
