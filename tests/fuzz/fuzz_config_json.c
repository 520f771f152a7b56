/* fuzz_config_json.c - any bytes as config.json, and after a NUL byte as generation_config.json:
 * refused with a message, or numbers within the limits, whose RoPE turns by finite angles. The same
 * bytes as hf_quant_config.json. */
#include "common/weights/config.h"
#include "common/weights/quantized.h"
#include "kernels/rope/rope.h"

#include <assert.h>
#include <math.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_rope(const bt_model_config *c)
{
    double frequencies[BT_HEAD_DIM_MAX / 2];
    const uint32_t positions[] = {0, c->context_tokens_max - 1};
    assert(c->rope.dims >= 2 && c->rope.dims <= c->head_dim && c->rope.dims % 2 == 0);
    assert(c->rope.magnitude > 0 && isfinite(c->rope.magnitude));
    for (int p = 0; p < 2; p++) {
        bt_rope_frequencies(&c->rope, positions[p], frequencies);
        for (uint32_t i = 0; i < c->rope.dims / 2; i++)
            assert(frequencies[i] >= 0 && frequencies[i] <= 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const char *text = (const char *)data;
    bt_err quantized = {0};
    if (bt_quantized_check(text, bytes, &quantized) != BT_OK) assert(quantized.message[0] != '\0');
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
    for (uint32_t i = 0; i < c.layers; i++)
        assert(c.window_tokens > 0 || (c.layer_options[i] & BT_LAYER_WINDOWED) == 0);
    assert(c.window_tokens == 0 || c.window_tokens < c.context_tokens_max);
    check_rope(&c);
    return 0;
}
