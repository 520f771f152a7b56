/* common/weights/config.h: what the config.json of each family says, and what is refused by name. */
#include "common/weights/config.h"
#include "common/weights/quantized.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <dirent.h>

#define BASE                                                                                       \
    "\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":64,\"intermediate_size\":172,"       \
    "\"num_hidden_layers\":2,\"num_attention_heads\":8,\"vocab_size\":512,"                        \
    "\"max_position_embeddings\":256"
#define CONFIG(rest) "{" BASE rest "}"

static bt_status parse(const char *config, const char *generation, bt_model_config *ret_config,
                       bt_err *err)
{
    return bt_config_parse(config, strlen(config), generation,
                           generation != NULL ? strlen(generation) : 0, ret_config, err);
}

static bt_model_config read_good(const char *config, const char *generation)
{
    bt_model_config read;
    bt_err err;
    if (parse(config, generation, &read, &err) != BT_OK) fail_msg("%s\n%s", err.message, config);
    return read;
}

static void test_defaults(void **state)
{
    (void)state;
    bt_model_config c = read_good(CONFIG(""), NULL);
    assert_string_equal(c.architecture, "LlamaForCausalLM");
    assert_int_equal(c.hidden, 64);
    assert_int_equal(c.mlp, 172);
    assert_int_equal(c.layers, 2);
    assert_int_equal(c.q_heads, 8);
    assert_int_equal(c.kv_heads, 8);
    assert_int_equal(c.head_dim, 8);
    assert_int_equal(c.vocab, 512);
    assert_int_equal(c.context_tokens_max, 256);
    assert_true(c.rms_eps == 1e-6f);
    assert_true(c.rope.theta == 10000.0);
    assert_false(c.tied_embeddings);
    assert_int_equal(c.bos_id, UINT32_MAX);
    assert_int_equal(c.eos_count, 0);
}

#define MISTRAL(rest)                                                                              \
    "{\"architectures\":[\"MistralForCausalLM\"],\"hidden_size\":128,"                             \
    "\"intermediate_size\":172,\"num_hidden_layers\":2,\"num_attention_heads\":16,"                \
    "\"vocab_size\":512,\"max_position_embeddings\":8192" rest "}"

/* Mistral's defaults are not Llama's, and null is not absent: a window of 4,096 and 8 KV heads. */
static void test_defaults_of_mistral(void **state)
{
    (void)state;
    bt_model_config config = read_good(MISTRAL(""), NULL);
    assert_int_equal(config.window_tokens, 4096);
    config = read_good(MISTRAL(",\"sliding_window\":null"), NULL);
    assert_int_equal(config.window_tokens, 0);
    assert_int_equal(config.kv_heads, 8);
    config = read_good(MISTRAL(",\"sliding_window\":null,\"num_key_value_heads\":null"), NULL);
    assert_int_equal(config.kv_heads, 16);
}

static void test_members(void **state)
{
    (void)state;
    bt_model_config c = read_good(
        CONFIG(
            ",\"num_key_value_heads\":2,\"head_dim\":16,\"rms_norm_eps\":1e-05,\"rope_theta\":5e5,"
            "\"tie_word_embeddings\":true,\"bos_token_id\":1,\"eos_token_id\":2"),
        NULL);
    assert_int_equal(c.kv_heads, 2);
    assert_int_equal(c.head_dim, 16);
    assert_true(c.rms_eps == 1e-5f);
    assert_true(c.rope.theta == 5e5);
    assert_true(c.tied_embeddings);
    assert_int_equal(c.bos_id, 1);
    assert_int_equal(c.eos_ids[0], 2);
    /* null is absent; the newer place of theta; a list of BOS ids has a first one. */
    c = read_good(
        CONFIG(",\"num_key_value_heads\":null,\"rope_scaling\":null,\"rope_parameters\":"
               "{\"rope_type\":\"default\",\"rope_theta\":1000000},\"bos_token_id\":[7,8]"),
        NULL);
    assert_int_equal(c.kv_heads, 8);
    assert_true(c.rope.theta == 1e6);
    assert_int_equal(c.bos_id, 7);
    /* A window that is not active, in each way of saying so. */
    read_good(CONFIG(",\"sliding_window\":null"), NULL);
    read_good(CONFIG(",\"sliding_window\":256"), NULL);
    read_good(CONFIG(",\"sliding_window\":16,\"use_sliding_window\":false"), NULL);
    read_good(CONFIG(",\"layer_types\":[\"full_attention\",\"full_attention\"]"), NULL);
}

static void test_eos_ids_are_joined(void **state)
{
    (void)state;
    bt_model_config c = read_good(CONFIG(",\"eos_token_id\":[2,5]"), "{\"eos_token_id\":[5,9,2]}");
    assert_int_equal(c.eos_count, 3);
    assert_int_equal(c.eos_ids[0], 2);
    assert_int_equal(c.eos_ids[1], 5);
    assert_int_equal(c.eos_ids[2], 9);
    c = read_good(CONFIG(""), "{\"eos_token_id\":3}");
    assert_int_equal(c.eos_count, 1);
    bt_err err;
    assert_int_equal(parse(CONFIG(""), "{\"eos_token_id\":[1,2,3,4,5,6,7,8,9]}", &c, &err),
                     BT_ERR_ARGUMENT);
    assert_int_equal(parse(CONFIG(""), "{\"eos_token_id\":512}", &c, &err), BT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "generation_config.json"));
    assert_int_equal(parse(CONFIG(""), "[", &c, &err), BT_ERR_FORMAT);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *config, *message;
        bt_status status;
    } cases[] = {
        {"", "line 1", BT_ERR_FORMAT},
        {"[]", "not a JSON object", BT_ERR_FORMAT},
        {"{}", "architectures", BT_ERR_FORMAT},
        {"{\"architectures\":[\"LlamaForCausalLM\"]}", "hidden_size is missing", BT_ERR_FORMAT},
        {"{\"architectures\":\"LlamaForCausalLM\"}", "architectures", BT_ERR_FORMAT},
        {CONFIG(",\"vocab_size\":1"), "duplicate", BT_ERR_FORMAT},
        {CONFIG(",\"num_key_value_heads\":3"), "do not divide", BT_ERR_FORMAT},
        {CONFIG(",\"num_key_value_heads\":16"), "do not divide", BT_ERR_FORMAT},
        {CONFIG(",\"num_key_value_heads\":0"), "num_key_value_heads", BT_ERR_FORMAT},
        {CONFIG(",\"num_key_value_heads\":-1"), "num_key_value_heads", BT_ERR_FORMAT},
        {CONFIG(",\"num_key_value_heads\":2.0"), "num_key_value_heads", BT_ERR_FORMAT},
        {CONFIG(",\"num_key_value_heads\":\"2\""), "num_key_value_heads", BT_ERR_FORMAT},
        {CONFIG(",\"head_dim\":512"), "the limit is 256", BT_ERR_ARGUMENT},
        {CONFIG(",\"head_dim\":7"), "odd", BT_ERR_FORMAT},
        {CONFIG(",\"head_dim\":9223372036854775807"), "head_dim", BT_ERR_ARGUMENT},
        {CONFIG(",\"head_dim\":9223372036854775808"), "line 1", BT_ERR_FORMAT},
        {CONFIG(",\"rms_norm_eps\":0"), "rms_norm_eps", BT_ERR_FORMAT},
        {CONFIG(",\"rms_norm_eps\":true"), "rms_norm_eps", BT_ERR_FORMAT},
        {CONFIG(",\"rope_theta\":-1"), "rope_theta", BT_ERR_FORMAT},
        {CONFIG(",\"rope_theta\":1e999"), "line 1", BT_ERR_FORMAT},
        {CONFIG(",\"rope_scaling\":{\"factor\":2}"), "factor", BT_ERR_ARGUMENT},
        {CONFIG(",\"rope_scaling\":7"), "rope_scaling", BT_ERR_FORMAT},
        {CONFIG(",\"rope_parameters\":{\"rope_type\":\"yarn\"}"), "factor is missing",
         BT_ERR_FORMAT},
        {CONFIG(",\"partial_rotary_factor\":0.1"), "RoPE of 0 of the 8", BT_ERR_FORMAT},
        {CONFIG(",\"partial_rotary_factor\":0.4"), "RoPE of 3 of the 8", BT_ERR_FORMAT},
        {CONFIG(",\"partial_rotary_factor\":1.5"), "partial_rotary_factor", BT_ERR_FORMAT},
        {CONFIG(",\"sliding_window\":255"), "window of 255", BT_ERR_ARGUMENT},
        {CONFIG(",\"sliding_window\":\"x\""), "sliding_window", BT_ERR_FORMAT},
        {CONFIG(",\"layer_types\":[\"full_attention\"]"), "layer_types", BT_ERR_FORMAT},
        {CONFIG(",\"layer_types\":[\"full_attention\",\"sliding_attention\"]"),
         "'sliding_attention' of layer 1", BT_ERR_ARGUMENT},
        {CONFIG(",\"layer_types\":[\"full_attention\",\"linear_attention\"]"),
         "'linear_attention' of layer 1", BT_ERR_ARGUMENT},
        {CONFIG(",\"layer_types\":[1,1]"), "layer_types[0]", BT_ERR_FORMAT},
        {CONFIG(",\"attention_bias\":1"), "attention_bias", BT_ERR_FORMAT},
        {MISTRAL(",\"attention_bias\":true"), "attention_bias of Mistral", BT_ERR_ARGUMENT},
        {MISTRAL(",\"mlp_bias\":true"), "mlp_bias of Mistral", BT_ERR_ARGUMENT},
        {CONFIG(",\"model_type\":\"mistral\""), "model_type 'mistral'", BT_ERR_ARGUMENT},
        {CONFIG(",\"num_local_experts\":8"), "mixture of experts", BT_ERR_ARGUMENT},
        {CONFIG(",\"vision_config\":{}"), "vision", BT_ERR_ARGUMENT},
        {CONFIG(",\"mlp_bias\":1"), "mlp_bias", BT_ERR_FORMAT},
        {CONFIG(",\"hidden_act\":\"gelu\""), "'gelu'", BT_ERR_ARGUMENT},
        {CONFIG(",\"hidden_act\":\"\\u001b[2J\""), "'?[2J'", BT_ERR_ARGUMENT},
        {CONFIG(",\"quantization_config\":{\"quant_method\":\"fp8\"}"),
         "(FP8) are not supported yet", BT_ERR_ARGUMENT},
        {CONFIG(",\"quantization_config\":[]"), "quantized", BT_ERR_ARGUMENT},
        {CONFIG(",\"tie_word_embeddings\":\"yes\""), "tie_word_embeddings", BT_ERR_FORMAT},
        {CONFIG(",\"bos_token_id\":512"), "bos_token_id", BT_ERR_FORMAT},
        {CONFIG(",\"bos_token_id\":-1"), "bos_token_id", BT_ERR_FORMAT},
        {CONFIG(",\"eos_token_id\":[1,\"2\"]"), "eos_token_id", BT_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bt_model_config config;
        bt_err err = {0};
        bt_status status = parse(cases[i].config, NULL, &config, &err);
        if (status != cases[i].status || strstr(err.message, cases[i].message) == NULL)
            fail_msg("%s: status %d, '%s'", cases[i].config, status, err.message);
    }
}

static void test_a_truncated_config_is_an_error(void **state)
{
    (void)state;
    const char *config = CONFIG(",\"rope_scaling\":null,\"eos_token_id\":[1,2]");
    for (size_t bytes = 0; bytes < strlen(config); bytes++) {
        char *copy = malloc(bytes + 1);
        memcpy(copy, config, bytes);
        bt_model_config read;
        assert_int_equal(bt_config_parse(copy, bytes, NULL, 0, &read, NULL), BT_ERR_FORMAT);
        free(copy);
    }
    char *nested = malloc(1 << 20);
    memset(nested, '[', 1 << 20);
    bt_model_config read;
    assert_int_equal(bt_config_parse(nested, 1 << 20, NULL, 0, &read, NULL), BT_ERR_FORMAT);
    free(nested);
}

#define FAMILY(name, type, rest)                                                                   \
    "{\"architectures\":[\"" name "ForCausalLM\"],\"model_type\":\"" type                          \
    "\",\"hidden_size\":64,\"intermediate_size\":172,\"num_hidden_layers\":4,"                     \
    "\"num_attention_heads\":8,\"vocab_size\":512,\"max_position_embeddings\":256" rest "}"

static void assert_refused(const char *config, bt_status expected, const char *message)
{
    bt_model_config read;
    bt_err err = {0};
    bt_status status = parse(config, NULL, &read, &err);
    if (status != expected || strstr(err.message, message) == NULL)
        fail_msg("%s\nstatus %d, '%s', not '%s'", config, status, err.message, message);
}

/* Windowed layers as 1, layers without RoPE as 2, both as 3. */
static void assert_layers(const bt_model_config *c, uint32_t window, const char *options)
{
    assert_int_equal(c->window_tokens, window);
    assert_int_equal(c->layers, strlen(options));
    for (uint32_t i = 0; i < c->layers; i++)
        assert_int_equal(c->layer_options[i], options[i] - '0');
}

static void test_families(void **state)
{
    (void)state;
    bt_model_config c = read_good(FAMILY("Qwen2", "qwen2", ",\"num_key_value_heads\":2"), NULL);
    assert_true(c.qkv_bias && !c.o_bias && !c.mlp_bias && !c.qk_norm && !c.tied_embeddings);
    assert_layers(&c, 0, "0000");
    c = read_good(FAMILY("Qwen3", "qwen3", ",\"num_key_value_heads\":2"), NULL);
    assert_true(!c.qkv_bias && c.qk_norm);
    assert_int_equal(c.head_dim, 128);
    c = read_good(FAMILY("Qwen3", "qwen3", ",\"num_key_value_heads\":2,\"attention_bias\":true"),
                  NULL);
    assert_true(c.qkv_bias && c.o_bias);
    c = read_good(CONFIG(",\"attention_bias\":true,\"mlp_bias\":true"), NULL);
    assert_true(c.qkv_bias && c.o_bias && c.mlp_bias);
    c = read_good(FAMILY("Phi3", "phi3", ""), NULL);
    assert_true(c.rms_eps == 1e-5f && c.kv_heads == 8);
    c = read_good(FAMILY("SmolLM3", "smollm3", ""), NULL);
    assert_true(c.tied_embeddings && c.kv_heads == 4 && c.rope.theta == 2e6);
    assert_layers(&c, 0, "0002");
    /* The model type alone will do; no architecture and no model type will not. */
    c = read_good("{\"model_type\":\"qwen2\",\"hidden_size\":64,\"intermediate_size\":172,"
                  "\"num_hidden_layers\":2,\"num_attention_heads\":8,\"num_key_value_heads\":2,"
                  "\"vocab_size\":512,\"max_position_embeddings\":256}",
                  NULL);
    assert_string_equal(c.architecture, "Qwen2ForCausalLM");
    /* Qwen's default of 32 KV heads is more than these have. */
    assert_refused(FAMILY("Qwen2", "qwen2", ""), BT_ERR_FORMAT, "32 KV heads");
}

static void test_names_that_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name, *reason;
    } cases[] = {
        {"GemmaForCausalLM", "gelu"},
        {"Gemma2ForCausalLM", "gelu"},
        {"Gemma3ForConditionalGeneration", "vision"},
        {"MixtralForCausalLM", "mixture of experts"},
        {"Qwen2MoeForCausalLM", "mixture of experts"},
        {"Qwen3MoeForCausalLM", "mixture of experts"},
        {"DeepseekV3ForCausalLM", "latent attention"},
        {"Llama4ForConditionalGeneration", "vision"},
        {"GptOssForCausalLM", "mixture of experts"},
        {"Mistral3ForConditionalGeneration", "vision"},
        {"Qwen2_5_VLForConditionalGeneration", "vision"},
        {"Phi3VForCausalLM", "vision"},
        {"PhiForCausalLM", "LayerNorm"},
        {"NemotronHForCausalLM", "state-space"},
        {"MambaForCausalLM", "state-space"},
        {"LlamaForSequenceClassification", "generates text"},
        {"GPT2LMHeadModel", "LayerNorm"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char config[256], name[96];
        snprintf(config, sizeof(config), "{\"architectures\":[\"%s\"]}", cases[i].name);
        snprintf(name, sizeof(name), "'%s' is not supported: it", cases[i].name);
        assert_refused(config, BT_ERR_ARGUMENT, name);
        assert_refused(config, BT_ERR_ARGUMENT, cases[i].reason);
    }
    assert_refused("{\"model_type\":\"mixtral\"}", BT_ERR_ARGUMENT, "model_type 'mixtral'");
    assert_refused("{\"architectures\":[\"MyOwnForCausalLM\"]}", BT_ERR_ARGUMENT,
                   "'MyOwnForCausalLM' is not supported");
}

#define QWEN(rest) FAMILY("Qwen2", "qwen2", ",\"num_key_value_heads\":2" rest)
#define SWITCHED ",\"use_sliding_window\":true,\"sliding_window\":16"
#define TYPES(a, b, c, d) ",\"layer_types\":[\"" a "\",\"" b "\",\"" c "\",\"" d "\"]"
#define FULL "full_attention"
#define SLIDING "sliding_attention"

static void test_windows(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        uint32_t window;
        const char *layers;
    } good[] = {
        {FAMILY("Mistral", "mistral", ",\"sliding_window\":16"), 16, "1111"},
        {FAMILY("Mistral", "mistral", ",\"sliding_window\":255"), 255, "1111"},
        {FAMILY("Mistral", "mistral", ",\"sliding_window\":256"), 0, "0000"},
        {FAMILY("Mistral", "mistral", ""), 0, "0000"}, /* 4,096 and a context of 256 */
        {FAMILY("Phi3", "phi3", ",\"sliding_window\":16"), 16, "1111"},
        {FAMILY("Phi3", "phi3", ""), 0, "0000"},
        {QWEN(",\"sliding_window\":16"), 0, "0000"},
        {QWEN(",\"use_sliding_window\":true,\"sliding_window\":null"), 0, "0000"},
        {QWEN(SWITCHED), 0, "0000"}, /* from layer 28 on */
        {QWEN(SWITCHED ",\"max_window_layers\":0"), 16, "1111"},
        {QWEN(SWITCHED ",\"max_window_layers\":3"), 16, "0001"},
        {QWEN(SWITCHED ",\"max_window_layers\":3" TYPES(SLIDING, FULL, FULL, SLIDING)), 16, "1001"},
        {QWEN(TYPES(FULL, FULL, FULL, FULL)), 0, "0000"},
        {FAMILY("SmolLM3", "smollm3", SWITCHED), 16, "0003"},
        {FAMILY("SmolLM3", "smollm3", SWITCHED ",\"no_rope_layer_interval\":2"), 16, "0303"},
        {FAMILY("SmolLM3", "smollm3", ",\"no_rope_layers\":[0,1,1,0]"), 0, "2002"},
        {FAMILY("SmolLM3", "smollm3", SWITCHED TYPES(SLIDING, FULL, FULL, FULL)), 16, "1002"},
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        bt_model_config c = read_good(good[i].config, NULL);
        assert_layers(&c, good[i].window, good[i].layers);
    }
    assert_refused(QWEN(TYPES(FULL, SLIDING, FULL, FULL)), BT_ERR_ARGUMENT, "says otherwise");
    assert_refused(
        FAMILY("Mistral", "mistral", ",\"sliding_window\":16" TYPES(FULL, SLIDING, SLIDING, FULL)),
        BT_ERR_ARGUMENT, "'full_attention' of layer 0");
    assert_refused(QWEN(",\"max_window_layers\":-1"), BT_ERR_FORMAT, "max_window_layers");
    assert_refused(QWEN(",\"max_window_layers\":\"2\""), BT_ERR_FORMAT, "max_window_layers");
    assert_refused(QWEN(",\"use_sliding_window\":1"), BT_ERR_FORMAT, "use_sliding_window");
    assert_refused(QWEN(",\"use_sliding_window\":true,\"sliding_window\":0"), BT_ERR_FORMAT,
                   "sliding_window");
    assert_refused(FAMILY("SmolLM3", "smollm3", ",\"no_rope_layers\":[0,1]"), BT_ERR_FORMAT,
                   "no_rope_layers");
    assert_refused(FAMILY("SmolLM3", "smollm3", ",\"no_rope_layers\":[0,1,1,2]"), BT_ERR_FORMAT,
                   "no_rope_layers[3]");
    assert_refused(FAMILY("SmolLM3", "smollm3", ",\"no_rope_layers\":[0,1,1,\"1\"]"), BT_ERR_FORMAT,
                   "no_rope_layers[3]");
    assert_refused(FAMILY("SmolLM3", "smollm3", ",\"no_rope_layer_interval\":0"), BT_ERR_FORMAT,
                   "no_rope_layer_interval");
}

#define OLD(rest) CONFIG(",\"rope_theta\":5e5,\"rope_scaling\":{" rest "}")
#define NEW(rest) CONFIG(",\"rope_parameters\":{\"rope_theta\":500000.0," rest "}")

/* One scaling in the three spellings. */
static bt_rope read_rope(const char *const spellings[3], uint32_t context)
{
    bt_model_config first = read_good(spellings[0], NULL);
    assert_int_equal(first.context_tokens_max, context);
    assert_true(first.rope.theta == 5e5);
    for (int i = 1; i < 3; i++) {
        bt_model_config c = read_good(spellings[i], NULL);
        assert_memory_equal(&c.rope, &first.rope, sizeof(c.rope));
        assert_int_equal(c.context_tokens_max, context);
    }
    return first.rope;
}

#define SPELLINGS(kind, rest)                                                                      \
    ((const char *const[3]){OLD("\"type\":\"" kind "\"," rest),                                    \
                            OLD("\"rope_type\":\"" kind "\"," rest),                               \
                            NEW("\"rope_type\":\"" kind "\"," rest)})

static void test_rope_scalings(void **state)
{
    (void)state;
    bt_rope rope = read_rope(SPELLINGS("linear", "\"factor\":4"), 1024);
    assert_int_equal(rope.kind, BT_ROPE_LINEAR);
    assert_true(rope.factor == 4 && rope.magnitude == 1 && rope.dims == 8);
    rope = read_rope(SPELLINGS("dynamic", "\"factor\":2.5"), 640);
    assert_true(rope.kind == BT_ROPE_DYNAMIC && rope.factor == 2.5 && rope.original_tokens == 256);
    rope =
        read_rope(SPELLINGS("llama3", "\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
                                      "\"original_max_position_embeddings\":64"),
                  256);
    assert_true(rope.kind == BT_ROPE_LLAMA3 && rope.factor == 8 && rope.original_tokens == 64 &&
                rope.low_freq_factor == 1 && rope.high_freq_factor == 4);
    /* Qwen2.5's way of yarn: max_position_embeddings is left as it was. */
    rope = read_rope(SPELLINGS("yarn", "\"factor\":4.0,\"original_max_position_embeddings\":256"),
                     1024);
    assert_true(rope.kind == BT_ROPE_YARN && rope.factor == 4 && rope.original_tokens == 256);
    assert_true(rope.beta_fast == 32 && rope.beta_slow == 1 && rope.truncate);
    assert_true(fabs(rope.magnitude - (0.1 * log(4) + 1)) < 1e-15);
    rope = read_rope(SPELLINGS("yarn", "\"factor\":null,\"original_max_position_embeddings\":64"),
                     256);
    assert_true(rope.factor == 4 && rope.original_tokens == 64);
    rope = read_rope(SPELLINGS("yarn", "\"factor\":40,\"mscale\":0.5,\"mscale_all_dim\":1.0,"
                                       "\"beta_fast\":16,\"beta_slow\":2,\"truncate\":false"),
                     10240);
    assert_true(fabs(rope.magnitude - (0.05 * log(40) + 1) / (0.1 * log(40) + 1)) < 1e-15);
    assert_true(rope.beta_fast == 16 && rope.beta_slow == 2 && !rope.truncate);
    rope =
        read_rope(SPELLINGS("yarn", "\"factor\":4,\"attention_factor\":1.25,\"mscale\":0"), 1024);
    assert_true(rope.magnitude == 1.25);
    /* A part of each head, beside the scaling or within it; a context beyond ours is cut. */
    assert_int_equal(read_good(CONFIG(",\"partial_rotary_factor\":0.5"), NULL).rope.dims, 4);
    assert_int_equal(read_good(NEW("\"partial_rotary_factor\":0.75"), NULL).rope.dims, 6);
    assert_int_equal(read_good(OLD("\"type\":\"linear\",\"factor\":1e5"), NULL).context_tokens_max,
                     BT_CONTEXT_TOKENS_MAX);
}

static void test_rope_that_is_refused(void **state)
{
    (void)state;
#define SCALED(rest) CONFIG(",\"rope_scaling\":{" rest "}")
    static const struct {
        const char *config, *message;
        bt_status status;
    } cases[] = {
        {SCALED("\"type\":\"longrope\",\"short_factor\":[1],\"long_factor\":[1]"), "'longrope'",
         BT_ERR_ARGUMENT},
        {SCALED("\"type\":\"su\""), "'su'", BT_ERR_ARGUMENT},
        {SCALED("\"type\":\"mrope\""), "'mrope'", BT_ERR_ARGUMENT},
        {SCALED("\"type\":7"), "type is not a string", BT_ERR_FORMAT},
        {SCALED("\"type\":\"linear\""), "factor is missing", BT_ERR_FORMAT},
        {SCALED("\"type\":\"linear\",\"factor\":0.5"), "factor is 0.5", BT_ERR_FORMAT},
        {SCALED("\"type\":\"linear\",\"factor\":\"2\""), "factor is not a number", BT_ERR_FORMAT},
        {SCALED("\"type\":\"linear\",\"factor\":1e300"), "factor", BT_ERR_FORMAT},
        {SCALED("\"type\":\"llama3\",\"factor\":8"), "low_freq_factor is missing", BT_ERR_FORMAT},
        {SCALED("\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4"),
         "not below high_freq_factor", BT_ERR_FORMAT},
        {SCALED("\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
                "\"original_max_position_embeddings\":0"),
         "original_max_position_embeddings", BT_ERR_FORMAT},
        {SCALED("\"type\":\"yarn\",\"factor\":4,\"beta_fast\":1,\"beta_slow\":2"), "beta_slow",
         BT_ERR_FORMAT},
        {SCALED("\"type\":\"yarn\",\"factor\":4,\"truncate\":1"), "truncate", BT_ERR_FORMAT},
        {SCALED("\"type\":\"yarn\",\"factor\":4,\"attention_factor\":0"), "attention_factor",
         BT_ERR_FORMAT},
        {CONFIG(",\"rope_theta\":1,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}"),
         "rope_theta above 1", BT_ERR_FORMAT},
        {CONFIG(",\"head_dim\":2,\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":4}"),
         "two pairs", BT_ERR_FORMAT},
        {CONFIG(",\"rope_parameters\":{\"full_attention\":{}}"), "each kind of layer",
         BT_ERR_ARGUMENT},
        {CONFIG(",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2},"
                "\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":4}"),
         "do not say the same", BT_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_refused(cases[i].config, cases[i].status, cases[i].message);
    /* Said twice and the same is said once. */
    read_good(CONFIG(",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2},"
                     "\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":2.0}"),
              NULL);
}

static void test_quantized_formats_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *quantization, *name;
    } cases[] = {
        {"{\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]}", "FP8 in blocks of 128x128"},
        {"{\"quant_method\":\"modelopt\",\"quant_algo\":\"NVFP4\"}", "ModelOpt NVFP4"},
        {"{\"producer\":{\"name\":\"modelopt\"},\"quant_algo\":\"FP8\"}", "ModelOpt FP8"},
        {"{\"quant_method\":\"compressed-tensors\",\"format\":\"float-quantized\"}",
         "compressed-tensors float-quantized"},
        {"{\"quant_method\":\"awq\",\"bits\":4}", "AWQ, 4 bits"},
        {"{\"quant_method\":\"gptq\",\"bits\":8}", "GPTQ, 8 bits"},
        {"{\"quant_method\":\"gptq\"}", "GPTQ"},
        {"{\"quant_method\":\"bitsandbytes\",\"bnb_4bit_quant_type\":\"nf4\"}", "bitsandbytes nf4"},
        {"{\"quant_method\":\"bitsandbytes\",\"load_in_8bit\":true}", "bitsandbytes int8"},
        {"{\"quant_method\":\"mxfp4\"}", "mxfp4"},
        {"{\"quant_method\":\"\\u001b[2Jawfully long and awfully long and awfully long and long\"}",
         "long"},
        {"{}", "no quant_method"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char config[1024], name[128];
        snprintf(config, sizeof(config), "{" BASE ",\"quantization_config\":%s}",
                 cases[i].quantization);
        snprintf(name, sizeof(name), i + 2 < sizeof(cases) / sizeof(cases[0]) ? "(%s)" : "%s",
                 cases[i].name);
        assert_refused(config, BT_ERR_ARGUMENT, name);
        assert_refused(config, BT_ERR_ARGUMENT, "not supported yet");
    }
}

/* Every published file: run, or refused by a reason that names it. Cut short it is an error. */
typedef struct {
    unsigned files, run, fp8_blocks, modelopt_fp8, modelopt_nvfp4, modelopt_other, other;
} tally;

static void count_outcome(const char *file, bt_status status, const char *message, tally *counts)
{
    static const char prefix[] = "quantized weights (";
    const char *format = strstr(message, prefix);
    printf("%-70s %s\n", file, status == BT_OK ? "runs" : message);
    counts->files++;
    if (status == BT_OK) {
        counts->run++;
        return;
    }
    assert_int_equal(status, BT_ERR_ARGUMENT);
    format = format ? format + sizeof(prefix) - 1 : "";
    if (strncmp(format, "FP8 in blocks of 128x128)", 25) == 0)
        counts->fp8_blocks++;
    else if (strncmp(format, "ModelOpt FP8)", 13) == 0)
        counts->modelopt_fp8++;
    else if (strncmp(format, "ModelOpt NVFP4)", 15) == 0)
        counts->modelopt_nvfp4++;
    else if (strncmp(format, "ModelOpt ", 9) == 0)
        counts->modelopt_other++;
    else
        counts->other++;
}

static void check_published(const char *folder, const char *name, tally *counts)
{
    static char text[BT_CONFIG_BYTES_MAX];
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t bytes = fread(text, 1, sizeof(text), file);
    fclose(file);
    bt_model_config config;
    bt_err err = {0};
    bool beside = strstr(name, "hf_quant_config.json") != NULL;
    bt_status status = beside ? bt_quantized_check(text, bytes, &err)
                              : bt_config_parse(text, bytes, NULL, 0, &config, &err);
    count_outcome(name, status, err.message, counts);
    for (size_t cut = 0; cut + 2 < bytes; cut += 1 + bytes / 40)
        assert_int_equal(beside ? bt_quantized_check(text, cut, &err)
                                : bt_config_parse(text, cut, NULL, 0, &config, &err),
                         BT_ERR_FORMAT);
}

static void test_published_configs(void **state)
{
    (void)state;
    const char *data = getenv("BATON_TEST_DATA");
    if (data == NULL) {
        printf("skipped: BATON_TEST_DATA is not set\n");
        skip();
    }
    char command[1200], folder[64], dir[] = "/tmp/baton-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    snprintf(command, sizeof(command), "tar -xJf '%s/checkpoint-configs.tar.xz' -C %s", data, dir);
    assert_int_equal(system(command), 0);
    snprintf(folder, sizeof(folder), "%s/nvfp4-cfg", dir);
    DIR *open_folder = opendir(folder);
    assert_non_null(open_folder);
    tally counts = {0};
    for (struct dirent *item; (item = readdir(open_folder)) != NULL;)
        if (strstr(item->d_name, ".json") != NULL) check_published(folder, item->d_name, &counts);
    closedir(open_folder);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
    printf("%u files: %u run, refused: FP8 in blocks %u, ModelOpt FP8 %u, NVFP4 %u, others %u\n",
           counts.files, counts.run, counts.fp8_blocks, counts.modelopt_fp8, counts.modelopt_nvfp4,
           counts.modelopt_other);
    assert_int_equal(counts.files, 33);
    /* One of them is ModelOpt's older way: its hf_quant_config.json alone says that it is quantized. */
    assert_int_equal(counts.run, 5);
    assert_int_equal(counts.fp8_blocks, 1);
    assert_int_equal(counts.modelopt_fp8, 5);
    assert_int_equal(counts.modelopt_nvfp4, 17);
    assert_int_equal(counts.modelopt_other, 5);
    assert_int_equal(counts.other, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_defaults_of_mistral),
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_eos_ids_are_joined),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_a_truncated_config_is_an_error),
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_names_that_are_refused),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_rope_scalings),
        cmocka_unit_test(test_rope_that_is_refused),
        cmocka_unit_test(test_quantized_formats_are_named),
        cmocka_unit_test(test_published_configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
