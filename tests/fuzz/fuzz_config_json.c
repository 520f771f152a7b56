/* fuzz_config_json.c - any bytes as config.json, and after a NUL byte as generation_config.json:
 * refused with a message, or numbers within the limits. */
#include "common/weights/config.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const char *text = (const char *)data;
    const char *nul = bytes > 0 ? memchr(text, '\0', bytes) : NULL;
    size_t first = nul != NULL ? (size_t)(nul - text) : bytes;
    bt_model_config c;
    bt_err err;
    if (bt_config_parse(text, first, nul != NULL ? nul + 1 : NULL,
                        nul != NULL ? bytes - first - 1 : 0, &c, &err) != BT_OK) {
        assert(err.message[0] != '\0');
        return 0;
    }
    assert(c.hidden >= 1 && c.hidden <= BT_HIDDEN_MAX && c.layers >= 1 &&
           c.layers <= BT_LAYERS_MAX);
    assert(c.kv_heads >= 1 && c.kv_heads <= BT_KV_HEADS_MAX && c.q_heads % c.kv_heads == 0);
    assert(c.head_dim >= 2 && c.head_dim <= BT_HEAD_DIM_MAX && c.head_dim % 2 == 0);
    assert(c.vocab >= 1 && c.vocab <= BT_VOCAB_MAX && c.eos_count <= BT_EOS_IDS_MAX);
    assert(c.context_tokens_max >= 1 && c.context_tokens_max <= BT_CONTEXT_TOKENS_MAX);
    for (uint32_t i = 0; i < c.eos_count; i++) assert(c.eos_ids[i] < c.vocab);
    return 0;
}
