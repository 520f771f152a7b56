#include "common/weights/config.h"

#include "common/weights/file.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#define SHOW(name) bt_show(name).text

/* The architectures that run as a plain Llama decoder. */
static const char *const architectures[] = {"LlamaForCausalLM", "MistralForCausalLM"};

/* What Hugging Face's MistralConfig takes for a member that is absent, but not for null. */
#define MISTRAL_WINDOW 4096u
#define MISTRAL_KV_HEADS 8u

static bool is_mistral(const bt_model_config *config)
{
    return strcmp(config->architecture, "MistralForCausalLM") == 0;
}

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

/* The member, or NULL if it is absent or null: Hugging Face's Llama means the same by both. */
static const json_t *member(const json_t *root, const char *key)
{
    const json_t *value = json_object_get(root, key);
    return json_is_null(value) ? NULL : value;
}

/* A whole number from 1 to max. fallback 0: the member is required. */
static bt_status read_count(const json_t *root, const char *key, uint32_t fallback, uint32_t max,
                            uint32_t *ret_value, bt_err *err)
{
    const json_t *value = member(root, key);
    if (value == NULL && fallback == 0)
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: %s is missing", key);
    if (value != NULL && (!json_is_integer(value) || json_integer_value(value) < 1))
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: %s is not a whole number above 0", key);
    long long number = value != NULL ? json_integer_value(value) : fallback;
    if (number > max)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "config.json: %s is %lld, the limit is %u", key,
                       number, max);
    *ret_value = (uint32_t)number;
    return BT_OK;
}

static bt_status read_real(const json_t *root, const char *key, double fallback, double min,
                           double max, double *ret_value, bt_err *err)
{
    const json_t *value = member(root, key);
    if (value != NULL && !json_is_number(value))
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: %s is not a number", key);
    double number = value != NULL ? json_number_value(value) : fallback;
    if (!(number >= min && number <= max))
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: %s is %g, not within %g to %g", key,
                       number, min, max);
    *ret_value = number;
    return BT_OK;
}

static bt_status read_flag(const json_t *root, const char *key, bool fallback, bool *ret_value,
                           bt_err *err)
{
    const json_t *value = member(root, key);
    if (value != NULL && !json_is_boolean(value))
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: %s is not true or false", key);
    *ret_value = value != NULL ? json_is_true(value) : fallback;
    return BT_OK;
}

static bt_status read_architecture(const json_t *root, bt_model_config *config, bt_err *err)
{
    const char *name = json_string_value(json_array_get(member(root, "architectures"), 0));
    if (name == NULL)
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: architectures names no architecture");
    for (size_t i = 0; i < sizeof(architectures) / sizeof(architectures[0]); i++) {
        if (strcmp(name, architectures[i]) != 0) continue;
        strcpy(config->architecture, architectures[i]);
        return BT_OK;
    }
    return BT_FAIL(err, BT_ERR_ARGUMENT, "config.json: architecture '%s' is not supported",
                   SHOW(name));
}

static bt_status read_shapes(const json_t *root, bt_model_config *config, bt_err *err)
{
    uint32_t positions = 0;
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
        {"max_position_embeddings", 1u << 30, &positions},
    };
    bt_status status;
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        status = read_count(root, counts[i].key, 0, counts[i].max, counts[i].value, err);
        if (status != BT_OK) return status;
    }
    config->context_tokens_max =
        positions < BT_CONTEXT_TOKENS_MAX ? positions : BT_CONTEXT_TOKENS_MAX;
    bool given = json_object_get(root, "num_key_value_heads") != NULL;
    status = read_count(root, "num_key_value_heads",
                        is_mistral(config) && !given ? MISTRAL_KV_HEADS : config->q_heads,
                        BT_KV_HEADS_MAX, &config->kv_heads, err);
    if (status != BT_OK) return status;
    if (config->q_heads % config->kv_heads != 0)
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: %u heads do not divide by %u KV heads",
                       config->q_heads, config->kv_heads);
    if (member(root, "head_dim") == NULL && config->hidden % config->q_heads != 0)
        return BT_FAIL(err, BT_ERR_FORMAT,
                       "config.json: no head_dim, and hidden_size %u does not divide by %u heads",
                       config->hidden, config->q_heads);
    status = read_count(root, "head_dim", config->hidden / config->q_heads, BT_HEAD_DIM_MAX,
                        &config->head_dim, err);
    if (status != BT_OK) return status;
    if (config->head_dim % 2 != 0)
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: head_dim %u is odd, RoPE needs pairs",
                       config->head_dim);
    return BT_OK;
}

/* The kind a RoPE object names, "default" if it names none. */
static const char *rope_kind(const json_t *rope)
{
    const char *kind = json_string_value(member(rope, "rope_type"));
    if (kind == NULL) kind = json_string_value(member(rope, "type"));
    return kind != NULL ? kind : "default";
}

/* RoPE is plain, or the model is refused: both the old rope_scaling and the newer rope_parameters
 * may name a scaling; the latter also carries theta. */
static bt_status read_rope(const json_t *root, bt_model_config *config, bt_err *err)
{
    const char *const keys[] = {"rope_scaling", "rope_parameters"};
    for (size_t i = 0; i < 2; i++) {
        const json_t *rope = member(root, keys[i]);
        if (rope == NULL) continue;
        if (!json_is_object(rope))
            return BT_FAIL(err, BT_ERR_FORMAT, "config.json: %s is not an object", keys[i]);
        if (strcmp(rope_kind(rope), "default") != 0)
            return BT_FAIL(err, BT_ERR_ARGUMENT, "config.json: RoPE scaling '%s' is not supported",
                           SHOW(rope_kind(rope)));
        if (member(rope, "factor") != NULL)
            return BT_FAIL(err, BT_ERR_ARGUMENT,
                           "config.json: %s has a factor but names no known scaling", keys[i]);
    }
    double partial;
    bt_status status = read_real(root, "partial_rotary_factor", 1.0, 0.0, 1.0, &partial, err);
    if (status != BT_OK) return status;
    if (partial != 1.0)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "config.json: partial RoPE (%g) is not supported",
                       partial);
    const json_t *newer = member(root, "rope_parameters");
    const json_t *where = member(newer, "rope_theta") != NULL ? newer : root;
    return read_real(where, "rope_theta", 10000.0, 1.0, 1e12, &config->rope_theta, err);
}

/* A window is active if it is given, not switched off, and shorter than the context. Mistral has
 * one of 4,096 unless the config says null. */
static bt_status refuse_window(const json_t *root, const bt_model_config *config, bt_err *err)
{
    bool used = true;
    bt_status status = read_flag(root, "use_sliding_window", true, &used, err);
    if (status != BT_OK) return status;
    bool given = json_object_get(root, "sliding_window") != NULL;
    if (used && (member(root, "sliding_window") != NULL || (is_mistral(config) && !given))) {
        uint32_t window;
        status = read_count(root, "sliding_window", MISTRAL_WINDOW, 1u << 30, &window, err);
        if (status != BT_OK) return status;
        if (window < config->context_tokens_max)
            return BT_FAIL(err, BT_ERR_ARGUMENT,
                           "config.json: a sliding window of %u tokens is not supported", window);
    }
    size_t index;
    json_t *type;
    json_array_foreach(member(root, "layer_types"), index, type)
    {
        const char *name = json_string_value(type);
        if (name == NULL)
            return BT_FAIL(err, BT_ERR_FORMAT, "config.json: layer_types[%zu] is not a string",
                           index);
        if (strcmp(name, "full_attention") != 0)
            return BT_FAIL(err, BT_ERR_ARGUMENT,
                           "config.json: layer type '%s' of layer %zu is not supported", SHOW(name),
                           index);
    }
    return BT_OK;
}

static bt_status refuse_variants(const json_t *root, bt_err *err)
{
    const char *const biases[] = {"attention_bias", "mlp_bias"};
    for (size_t i = 0; i < 2; i++) {
        bool on = false;
        bt_status status = read_flag(root, biases[i], false, &on, err);
        if (status != BT_OK) return status;
        if (on) return BT_FAIL(err, BT_ERR_ARGUMENT, "config.json: %s is not supported", biases[i]);
    }
    const json_t *act = member(root, "hidden_act");
    if (act != NULL && !json_is_string(act))
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: hidden_act is not a string");
    if (act != NULL && strcmp(json_string_value(act), "silu") != 0)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "config.json: hidden_act '%s' is not supported",
                       SHOW(json_string_value(act)));
    const json_t *quantization = member(root, "quantization_config");
    if (quantization != NULL) {
        const char *method = json_string_value(member(quantization, "quant_method"));
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "config.json: quantized weights (%s) are not supported",
                       SHOW(method != NULL ? method : "no quant_method"));
    }
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
    const json_t *value = member(root, "eos_token_id");
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
    const json_t *value = member(root, "bos_token_id");
    config->bos_id = UINT32_MAX;
    if (json_is_array(value)) value = json_array_get(value, 0);
    if (value == NULL) return BT_OK;
    return read_id(value, "config.json", "bos_token_id", config->vocab, &config->bos_id, err);
}

static bt_status parse_config(const json_t *root, bt_model_config *config, bt_err *err)
{
    double eps = 0;
    bt_status status;
    if ((status = read_architecture(root, config, err)) != BT_OK) return status;
    if ((status = refuse_variants(root, err)) != BT_OK) return status;
    if ((status = read_shapes(root, config, err)) != BT_OK) return status;
    if ((status = read_rope(root, config, err)) != BT_OK) return status;
    if ((status = refuse_window(root, config, err)) != BT_OK) return status;
    status = read_real(root, "rms_norm_eps", 1e-6, 1e-12, 0.1, &eps, err);
    if (status != BT_OK) return status;
    config->rms_eps = (float)eps;
    status = read_flag(root, "tie_word_embeddings", false, &config->tied_embeddings, err);
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
