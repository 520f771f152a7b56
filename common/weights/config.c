#include "common/weights/config.h"

#include "common/weights/family.h"
#include "common/weights/file.h"
#include "common/weights/members.h"
#include "common/weights/quantized.h"
#include "common/weights/rope_config.h"

#include <jansson.h>
#include <string.h>

#define SHOW(name) bt_show(name).text
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bt_status load(const char *label, const char *text, size_t bytes, json_t **ret_root,
                      bt_err *err)
{
    if (bytes > BT_CONFIG_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: has %zu bytes, the limit is %u", label, bytes,
                       BT_CONFIG_BYTES_MAX);
    json_error_t problem;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &problem);
    if (root == NULL)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: line %d: %s", label, problem.line,
                       SHOW(problem.text));
    if (!json_is_object(root)) {
        json_decref(root);
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: is not a JSON object", label);
    }
    *ret_root = root;
    return BT_OK;
}

/* What no row of ours has, whatever the architecture is called. */
static bt_status refuse_parts(const json_t *root, bt_err *err)
{
    static const struct {
        const char *key, *reason;
    } parts[] = {
        {"vision_config", "vision beside text"},       {"audio_config", "audio beside text"},
        {"num_local_experts", "a mixture of experts"}, {"num_experts", "a mixture of experts"},
        {"n_routed_experts", "a mixture of experts"},
    };
    for (size_t i = 0; i < COUNT(parts); i++) {
        const json_t *value = bt_member(root, parts[i].key);
        if (value == NULL || (json_is_integer(value) && json_integer_value(value) == 0)) continue;
        return BT_FAIL(err, BT_ERR_ARGUMENT, "config.json: %s: %s is not supported", parts[i].key,
                       parts[i].reason);
    }
    return BT_OK;
}

static bt_status read_family(const json_t *root, const bt_family **ret_family, bt_err *err)
{
    const char *name = json_string_value(json_array_get(bt_member(root, "architectures"), 0));
    const char *type = json_string_value(bt_member(root, "model_type"));
    if (name == NULL && type == NULL)
        return BT_FAIL(
            err, BT_ERR_FORMAT,
            "config.json: architectures names no architecture, and there is no model_type");
    const bt_family *family = bt_family_find(name, type);
    if (family == NULL) {
        const char *reason = bt_family_refusal(name, type);
        return BT_FAIL(err, BT_ERR_ARGUMENT, "config.json: %s '%s' is not supported%s%s",
                       name ? "architecture" : "model_type", SHOW(name ? name : type),
                       reason ? ": it has " : "", reason ? reason : "");
    }
    if (type != NULL && strcmp(type, family->model_type) != 0)
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "config.json: architecture %s with model_type '%s' is not supported",
                       family->architecture, SHOW(type));
    bt_status status = refuse_parts(root, err);
    if (status == BT_OK) *ret_family = family;
    return status;
}

static bt_status refuse_variants(const json_t *root, bt_err *err)
{
    const char *act = NULL;
    bt_status status = bt_member_text(root, "hidden_act", &act, err);
    if (status != BT_OK) return status;
    if (act != NULL && strcmp(act, "silu") != 0)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "config.json: hidden_act '%s' is not supported",
                       SHOW(act));
    const json_t *quantization = bt_member(root, "quantization_config");
    if (quantization != NULL)
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "config.json: quantized weights (%s) are not supported yet",
                       bt_quantized_name(quantization).text);
    return BT_OK;
}

static bt_status read_shapes(const json_t *root, const bt_family *family, bt_model_config *config,
                             uint32_t *ret_positions, bt_err *err)
{
    const struct {
        const char *key;
        uint32_t max;
        uint32_t *value;
    } counts[] = {
        {"hidden_size", BT_HIDDEN_MAX, &config->hidden},
        {"intermediate_size", BT_MLP_MAX, &config->mlp},
        {"num_hidden_layers", BT_LAYERS_MAX, &config->layers},
        {"num_attention_heads", BT_Q_HEADS_MAX, &config->q_heads},
        {"vocab_size", BT_VOCAB_MAX, &config->vocab},
        {"max_position_embeddings", 1u << 30, ret_positions},
    };
    bt_status status;
    for (size_t i = 0; i < COUNT(counts); i++) {
        status = bt_member_count(root, counts[i].key, 0, counts[i].max, counts[i].value, err);
        if (status != BT_OK) return status;
    }
    /* null is not absent here: transformers takes it for as many as there are query heads. */
    bool absent = json_object_get(root, "num_key_value_heads") == NULL;
    uint32_t usual = absent && family->kv_heads ? family->kv_heads : config->q_heads;
    status = bt_member_count(root, "num_key_value_heads", usual, BT_KV_HEADS_MAX, &config->kv_heads,
                             err);
    if (status != BT_OK) return status;
    if (config->q_heads % config->kv_heads != 0)
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: %u heads do not divide by %u KV heads",
                       config->q_heads, config->kv_heads);
    absent = bt_member(root, "head_dim") == NULL && family->head_dim == 0;
    if (absent && config->hidden % config->q_heads != 0)
        return BT_FAIL(err, BT_ERR_FORMAT,
                       "config.json: no head_dim, and hidden_size %u does not divide by %u heads",
                       config->hidden, config->q_heads);
    usual = family->head_dim ? family->head_dim : config->hidden / config->q_heads;
    status = bt_member_count(root, "head_dim", usual, BT_HEAD_DIM_MAX, &config->head_dim, err);
    if (status != BT_OK) return status;
    if (config->head_dim % 2 != 0)
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: head_dim %u is odd, RoPE needs pairs",
                       config->head_dim);
    return BT_OK;
}

static bt_status read_rope(const json_t *root, const bt_family *family, uint32_t positions,
                           bt_model_config *config, bt_err *err)
{
    const bt_rope_facts facts = {config->head_dim, positions, family->rope_theta};
    double context = 0;
    bt_status status = bt_rope_config_read(root, &facts, &config->rope, &context, err);
    if (status != BT_OK) return status;
    config->context_tokens_max =
        context < BT_CONTEXT_TOKENS_MAX ? (uint32_t)context : BT_CONTEXT_TOKENS_MAX;
    return BT_OK;
}

/* SmolLM3's flags: 1 for a layer with RoPE. Without them each interval-th layer has none. */
static bt_status read_no_rope(const json_t *root, const bt_family *family, bt_model_config *config,
                              bt_err *err)
{
    uint32_t interval;
    if (!family->no_rope_layers) return BT_OK;
    bt_status status = bt_member_count(root, "no_rope_layer_interval", 4, 1u << 30, &interval, err);
    if (status != BT_OK) return status;
    const json_t *flags = bt_member(root, "no_rope_layers");
    if (flags != NULL && json_array_size(flags) < config->layers)
        return BT_FAIL(err, BT_ERR_FORMAT,
                       "config.json: no_rope_layers has no flag for each layer");
    for (uint32_t i = 0; i < config->layers; i++) {
        const json_t *flag = json_array_get(flags, i);
        bool rope = flags != NULL ? json_integer_value(flag) == 1 : (i + 1) % interval != 0;
        if (flags != NULL && (!json_is_integer(flag) || (!rope && json_integer_value(flag) != 0)))
            return BT_FAIL(err, BT_ERR_FORMAT, "config.json: no_rope_layers[%u] is not 0 or 1", i);
        if (!rope) config->layer_options[i] |= BT_LAYER_NO_ROPE;
    }
    return BT_OK;
}

/* The window that some layers have, 0 if none has. */
static bt_status read_window_tokens(const json_t *root, const bt_family *family,
                                    uint32_t *ret_window, bt_err *err)
{
    bool used = true;
    bt_status status = BT_OK;
    if (family->window_rule != BT_WINDOW_GIVEN)
        status = bt_member_flag(root, "use_sliding_window", family->window_rule == BT_WINDOW_NEVER,
                                &used, err);
    *ret_window = 0;
    if (status != BT_OK || !used) return status;
    bool absent = json_object_get(root, "sliding_window") == NULL; /* null is no window */
    if (absent) *ret_window = family->window;
    if (bt_member(root, "sliding_window") == NULL) return BT_OK;
    return bt_member_count(root, "sliding_window", 0, 1u << 30, ret_window, err);
}

/* Whether this layer has the window, by the family's rule and by layer_types, where both speak. */
static bt_status read_layer_window(const json_t *root, const bt_family *family,
                                   bt_model_config *config, uint32_t layer, bt_err *err)
{
    const json_t *types = bt_member(root, "layer_types"), *from;
    const char *name = json_string_value(json_array_get(types, layer));
    long long first = 28;
    if ((from = bt_member(root, "max_window_layers")) != NULL) {
        if (!json_is_integer(from) || json_integer_value(from) < 0)
            return BT_FAIL(err, BT_ERR_FORMAT,
                           "config.json: max_window_layers is not a whole number");
        first = json_integer_value(from);
    }
    bool windowed = config->window_tokens > 0;
    if (family->window_rule == BT_WINDOW_SWITCHED) windowed = windowed && layer >= first;
    if (family->window_rule == BT_WINDOW_NO_ROPE)
        windowed = windowed && (config->layer_options[layer] & BT_LAYER_NO_ROPE) != 0;
    if (types != NULL) {
        if (name == NULL)
            return BT_FAIL(err, BT_ERR_FORMAT, "config.json: layer_types[%u] is not a string",
                           layer);
        bool sliding = strcmp(name, "sliding_attention") == 0;
        if (!sliding && strcmp(name, "full_attention") != 0)
            return BT_FAIL(err, BT_ERR_ARGUMENT,
                           "config.json: layer type '%s' of layer %u is not supported", SHOW(name),
                           layer);
        bool free_choice = config->window_tokens > 0 && family->window_rule != BT_WINDOW_GIVEN;
        if (sliding != windowed && !free_choice)
            return BT_FAIL(
                err, BT_ERR_ARGUMENT,
                "config.json: layer type '%s' of layer %u, where the sliding window says "
                "otherwise, is not supported",
                SHOW(name), layer);
        windowed = sliding;
    }
    if (windowed) config->layer_options[layer] |= BT_LAYER_WINDOWED;
    return BT_OK;
}

/* A window that the context fits in is none. */
static bt_status read_windows(const json_t *root, const bt_family *family, bt_model_config *config,
                              bt_err *err)
{
    uint32_t window = 0;
    const json_t *types = bt_member(root, "layer_types");
    bt_status status = read_window_tokens(root, family, &window, err);
    if (status != BT_OK) return status;
    if (types != NULL && json_array_size(types) != config->layers)
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: layer_types does not name each layer");
    bool active = window > 0 && window < config->context_tokens_max;
    if (active && family->window_rule == BT_WINDOW_NEVER)
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "config.json: a sliding window of %u tokens is not supported in %s", window,
                       family->architecture);
    config->window_tokens = window;
    for (uint32_t i = 0; i < config->layers; i++) {
        status = read_layer_window(root, family, config, i, err);
        if (status != BT_OK) return status;
    }
    bool any = false;
    for (uint32_t i = 0; i < config->layers; i++) {
        if (!active) config->layer_options[i] &= (uint8_t)~BT_LAYER_WINDOWED;
        any = any || (config->layer_options[i] & BT_LAYER_WINDOWED) != 0;
    }
    if (!any) config->window_tokens = 0;
    return BT_OK;
}

static bt_status read_biases(const json_t *root, const bt_family *family, bt_model_config *config,
                             bt_err *err)
{
    bool attention = false, mlp = false;
    bt_status status = bt_member_flag(root, "attention_bias", false, &attention, err);
    if (status == BT_OK) status = bt_member_flag(root, "mlp_bias", false, &mlp, err);
    if (status != BT_OK) return status;
    if ((attention && !family->attention_bias && !family->qkv_bias) || (mlp && !family->mlp_bias))
        return BT_FAIL(err, BT_ERR_ARGUMENT, "config.json: %s of %s is not supported",
                       mlp ? "mlp_bias" : "attention_bias", family->architecture);
    config->qkv_bias = family->qkv_bias || attention;
    config->o_bias = attention && family->attention_bias;
    config->mlp_bias = mlp;
    config->qk_norm = family->qk_norm;
    return BT_OK;
}

static bt_status read_id(const json_t *value, const char *label, const char *key, uint32_t vocab,
                         uint32_t *ret_id, bt_err *err)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) >= (long long)vocab)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: %s is not a token of the vocabulary of %u", label,
                       key, vocab);
    *ret_id = (uint32_t)json_integer_value(value);
    return BT_OK;
}

static bt_status add_eos(const json_t *value, const char *label, bt_model_config *config,
                         bt_err *err)
{
    uint32_t id;
    bt_status status = read_id(value, label, "eos_token_id", config->vocab, &id, err);
    if (status != BT_OK) return status;
    for (uint32_t i = 0; i < config->eos_count; i++)
        if (config->eos_ids[i] == id) return BT_OK;
    if (config->eos_count == BT_EOS_IDS_MAX)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "%s: more than %u eos_token_id", label,
                       BT_EOS_IDS_MAX);
    config->eos_ids[config->eos_count++] = id;
    return BT_OK;
}

static bt_status join_eos(const json_t *root, const char *label, bt_model_config *config,
                          bt_err *err)
{
    const json_t *value = bt_member(root, "eos_token_id");
    if (value == NULL) return BT_OK;
    if (!json_is_array(value)) return add_eos(value, label, config, err);
    for (size_t i = 0; i < json_array_size(value); i++) {
        bt_status status = add_eos(json_array_get(value, i), label, config, err);
        if (status != BT_OK) return status;
    }
    return BT_OK;
}

static bt_status read_bos(const json_t *root, bt_model_config *config, bt_err *err)
{
    const json_t *value = bt_member(root, "bos_token_id");
    config->bos_id = UINT32_MAX;
    if (json_is_array(value)) value = json_array_get(value, 0);
    if (value == NULL) return BT_OK;
    return read_id(value, "config.json", "bos_token_id", config->vocab, &config->bos_id, err);
}

static bt_status parse_config(const json_t *root, bt_model_config *config, bt_err *err)
{
    const bt_family *family = NULL;
    uint32_t positions = 0;
    double eps = 0;
    bt_status status;
    if ((status = read_family(root, &family, err)) != BT_OK) return status;
    strcpy(config->architecture, family->architecture);
    if ((status = refuse_variants(root, err)) != BT_OK) return status;
    if ((status = read_shapes(root, family, config, &positions, err)) != BT_OK) return status;
    if ((status = read_rope(root, family, positions, config, err)) != BT_OK) return status;
    if ((status = read_no_rope(root, family, config, err)) != BT_OK) return status;
    if ((status = read_windows(root, family, config, err)) != BT_OK) return status;
    if ((status = read_biases(root, family, config, err)) != BT_OK) return status;
    const bt_member_range range = {family->rms_eps, 1e-12, 0.1};
    if ((status = bt_member_real(root, "rms_norm_eps", range, &eps, err)) != BT_OK) return status;
    config->rms_eps = (float)eps;
    status =
        bt_member_flag(root, "tie_word_embeddings", family->tied, &config->tied_embeddings, err);
    if (status != BT_OK) return status;
    if ((status = read_bos(root, config, err)) != BT_OK) return status;
    return join_eos(root, "config.json", config, err);
}

bt_status bt_config_parse(const char *config, size_t config_bytes, const char *generation,
                          size_t generation_bytes, bt_model_config *ret_config, bt_err *err)
{
    bt_model_config parsed = {.dtype = BT_DTYPE_NONE};
    json_t *root;
    bt_status status = load("config.json", config, config_bytes, &root, err);
    if (status != BT_OK) return status;
    status = parse_config(root, &parsed, err);
    json_decref(root);
    if (status != BT_OK) return status;
    if (generation != NULL) {
        status = load("generation_config.json", generation, generation_bytes, &root, err);
        if (status != BT_OK) return status;
        status = join_eos(root, "generation_config.json", &parsed, err);
        json_decref(root);
        if (status != BT_OK) return status;
    }
    *ret_config = parsed;
    return BT_OK;
}
