#include "common/weights/rope_config.h"

#include "common/weights/file.h"
#include "common/weights/members.h"

#include <math.h>
#include <string.h>

#define SHOW(name) bt_show(name).text
#define FACTOR_MAX 1e6
#define THETA_MAX 1e12

static const char *const kind_names[BT_ROPE_KIND_COUNT] = {
    [BT_ROPE_DEFAULT] = "default", [BT_ROPE_LINEAR] = "linear", [BT_ROPE_DYNAMIC] = "dynamic",
    [BT_ROPE_LLAMA3] = "llama3",   [BT_ROPE_YARN] = "yarn",
};

const char *bt_rope_kind_name(bt_rope_kind kind)
{
    return kind_names[kind];
}

static bt_status read_kind(const json_t *from, const char *key, bt_rope_kind *ret_kind, bt_err *err)
{
    const char *name = NULL;
    bt_status status = bt_member_text(from, "rope_type", &name, err);
    if (status == BT_OK && name == NULL) status = bt_member_text(from, "type", &name, err);
    if (status != BT_OK) return status;
    if (name == NULL && bt_member(from, "factor") != NULL)
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "config.json: %s has a factor but names no known scaling", key);
    for (int kind = 0; kind < BT_ROPE_KIND_COUNT; kind++) {
        if (name != NULL && strcmp(name, kind_names[kind]) != 0) continue;
        *ret_kind = (bt_rope_kind)kind;
        return BT_OK;
    }
    if (strcmp(name, "longrope") == 0 || strcmp(name, "su") == 0)
        return BT_FAIL(
            err, BT_ERR_ARGUMENT,
            "config.json: RoPE scaling '%s' is not supported: it follows from the length "
            "of the whole prompt, so KV could not be reused",
            SHOW(name));
    return BT_FAIL(err, BT_ERR_ARGUMENT, "config.json: RoPE scaling '%s' is not supported",
                   SHOW(name));
}

static bt_status read_original(const json_t *from, const bt_rope_facts *facts, bt_rope *rope,
                               bt_err *err)
{
    uint32_t tokens = 0;
    bt_status status = bt_member_count(from, "original_max_position_embeddings", facts->positions,
                                       1u << 30, &tokens, err);
    rope->original_tokens = tokens;
    return status;
}

static bt_status read_factor(const json_t *from, double fallback, bt_rope *rope, bt_err *err)
{
    return bt_member_real(from, "factor", (bt_member_range){fallback, 1, FACTOR_MAX}, &rope->factor,
                          err);
}

static bt_status read_llama3(const json_t *from, const bt_rope_facts *facts, bt_rope *rope,
                             bt_err *err)
{
    const bt_member_range turns = {NAN, 1e-6, FACTOR_MAX};
    bt_status status = read_factor(from, NAN, rope, err);
    if (status == BT_OK) status = read_original(from, facts, rope, err);
    if (status == BT_OK)
        status = bt_member_real(from, "low_freq_factor", turns, &rope->low_freq_factor, err);
    if (status == BT_OK)
        status = bt_member_real(from, "high_freq_factor", turns, &rope->high_freq_factor, err);
    if (status == BT_OK && rope->low_freq_factor >= rope->high_freq_factor)
        return BT_FAIL(err, BT_ERR_FORMAT,
                       "config.json: low_freq_factor %g is not below high_freq_factor %g",
                       rope->low_freq_factor, rope->high_freq_factor);
    return status;
}

/* A number that counts as absent when it is 0, as in transformers. */
static bt_status read_or(const json_t *from, const char *key, double fallback, double *ret_value,
                         bt_err *err)
{
    bt_status status =
        bt_member_real(from, key, (bt_member_range){0, 0, FACTOR_MAX}, ret_value, err);
    if (status == BT_OK && *ret_value == 0) *ret_value = fallback;
    return status;
}

static double magnitude_of(double factor, double weight)
{
    return 0.1 * weight * log(factor) + 1;
}

static bt_status read_magnitude(const json_t *from, bt_rope *rope, bt_err *err)
{
    double mscale, all_dim, given;
    bt_status status = read_or(from, "mscale", 0, &mscale, err);
    if (status == BT_OK) status = read_or(from, "mscale_all_dim", 0, &all_dim, err);
    if (status != BT_OK) return status;
    double usual = mscale > 0 && all_dim > 0
                       ? magnitude_of(rope->factor, mscale) / magnitude_of(rope->factor, all_dim)
                       : magnitude_of(rope->factor, 1);
    status =
        bt_member_real(from, "attention_factor", (bt_member_range){usual, 1e-3, 1e3}, &given, err);
    if (status == BT_OK) rope->magnitude = given;
    return status;
}

static bt_status read_yarn(const json_t *from, const bt_rope_facts *facts, bt_rope *rope,
                           bt_err *err)
{
    bt_status status = read_original(from, facts, rope, err);
    if (status != BT_OK) return status;
    double ratio = facts->positions / rope->original_tokens;
    bool stated = bt_member(from, "original_max_position_embeddings") != NULL && ratio >= 1;
    status = read_factor(from, stated ? ratio : NAN, rope, err);
    if (status == BT_OK) status = read_magnitude(from, rope, err);
    if (status == BT_OK) status = read_or(from, "beta_fast", 32, &rope->beta_fast, err);
    if (status == BT_OK) status = read_or(from, "beta_slow", 1, &rope->beta_slow, err);
    if (status == BT_OK) status = bt_member_flag(from, "truncate", true, &rope->truncate, err);
    if (status != BT_OK) return status;
    if (rope->beta_slow >= rope->beta_fast)
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: beta_slow %g is not below beta_fast %g",
                       rope->beta_slow, rope->beta_fast);
    if (rope->theta <= 1)
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: yarn needs a rope_theta above 1");
    return BT_OK;
}

/* The numbers that every kind has. */
static bt_status read_common(const json_t *root, const json_t *from, const bt_rope_facts *facts,
                             bt_rope *rope, bt_err *err)
{
    double partial;
    const json_t *where = bt_member(from, "rope_theta") != NULL ? from : root;
    const bt_member_range theta = {facts->theta, 1, THETA_MAX};
    bt_status status = bt_member_real(where, "rope_theta", theta, &rope->theta, err);
    if (status != BT_OK) return status;
    where = bt_member(from, "partial_rotary_factor") != NULL ? from : root;
    status =
        bt_member_real(where, "partial_rotary_factor", (bt_member_range){1, 0, 1}, &partial, err);
    if (status != BT_OK) return status;
    rope->dims = (uint32_t)(facts->head_dim * partial);
    if (rope->dims < 2 || rope->dims % 2 != 0)
        return BT_FAIL(err, BT_ERR_FORMAT,
                       "config.json: RoPE of %u of the %u numbers of a head, which are no pairs",
                       rope->dims, facts->head_dim);
    return BT_OK;
}

/* One spelling: from is rope_scaling or rope_parameters, NULL if there is neither. */
static bt_status read_spelling(const json_t *root, const char *key, const bt_rope_facts *facts,
                               bt_rope *ret_rope, bt_err *err)
{
    const json_t *from = bt_member(root, key);
    bt_rope rope = {.magnitude = 1};
    if (from != NULL && !json_is_object(from))
        return BT_FAIL(err, BT_ERR_FORMAT, "config.json: %s is not an object", key);
    if (json_is_object(bt_member(from, "full_attention")) ||
        json_is_object(bt_member(from, "sliding_attention")))
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "config.json: %s for each kind of layer is not supported", key);
    bt_status status = read_kind(from, key, &rope.kind, err);
    if (status == BT_OK) status = read_common(root, from, facts, &rope, err);
    if (status != BT_OK) return status;
    switch (rope.kind) {
    case BT_ROPE_DEFAULT:
    case BT_ROPE_KIND_COUNT: break;
    case BT_ROPE_LINEAR: status = read_factor(from, NAN, &rope, err); break;
    case BT_ROPE_DYNAMIC:
        rope.original_tokens = facts->positions; /* transformers looks at no other member */
        status = read_factor(from, NAN, &rope, err);
        if (status == BT_OK && rope.dims < 4)
            return BT_FAIL(err, BT_ERR_FORMAT, "config.json: dynamic RoPE needs two pairs");
        break;
    case BT_ROPE_LLAMA3: status = read_llama3(from, facts, &rope, err); break;
    case BT_ROPE_YARN: status = read_yarn(from, facts, &rope, err); break;
    }
    if (status == BT_OK) *ret_rope = rope;
    return status;
}

static bool same_rope(const bt_rope *a, const bt_rope *b)
{
    return a->kind == b->kind && a->dims == b->dims && a->theta == b->theta &&
           a->factor == b->factor && a->original_tokens == b->original_tokens &&
           a->low_freq_factor == b->low_freq_factor && a->high_freq_factor == b->high_freq_factor &&
           a->beta_fast == b->beta_fast && a->beta_slow == b->beta_slow &&
           a->truncate == b->truncate && a->magnitude == b->magnitude;
}

bt_status bt_rope_config_read(const json_t *root, const bt_rope_facts *facts, bt_rope *ret_rope,
                              double *ret_context, bt_err *err)
{
    bt_rope rope = {0}, older = {0};
    bool newer = bt_member(root, "rope_parameters") != NULL;
    bt_status status =
        read_spelling(root, newer ? "rope_parameters" : "rope_scaling", facts, &rope, err);
    if (status != BT_OK) return status;
    if (newer && bt_member(root, "rope_scaling") != NULL) {
        status = read_spelling(root, "rope_scaling", facts, &older, err);
        if (status != BT_OK) return status;
        if (!same_rope(&rope, &older))
            return BT_FAIL(err, BT_ERR_FORMAT,
                           "config.json: rope_scaling and rope_parameters do not say the same");
    }
    double context = facts->positions;
    if (rope.kind == BT_ROPE_LINEAR || rope.kind == BT_ROPE_DYNAMIC) context *= rope.factor;
    if (rope.kind == BT_ROPE_YARN) context = fmax(context, rope.original_tokens * rope.factor);
    *ret_rope = rope;
    *ret_context = context;
    return BT_OK;
}
