/* reference.h - what the golden tests share: a reference.json, and a generator checked against it.
 *
 * A reference is {"prompts": [{"ids": [...], "greedy": [...], "last_logits": [...]}, …]}, where
 * greedy holds the prompt's ids and what follows them. */
#ifndef BT_TESTS_GOLDEN_REFERENCE_H
#define BT_TESTS_GOLDEN_REFERENCE_H

#include "common/engine/generate.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define REFERENCE_IDS_MAX 4096u

static inline bt_model *reference_model(const char *dir)
{
    bt_err err;
    bt_model *model = NULL;
    if (bt_model_open(dir, &model, &err) != BT_OK) fail_msg("%s", err.message);
    return model;
}

static inline bt_generator *reference_generator(const bt_model *model,
                                                const bt_generator_config *config)
{
    bt_err err;
    bt_generator *generator = NULL;
    if (bt_generator_create(model, config, &generator, &err) != BT_OK) fail_msg("%s", err.message);
    return generator;
}

static inline json_t *reference_load(const char *dir)
{
    char path[1100];
    json_error_t error;
    snprintf(path, sizeof(path), "%s/reference.json", dir);
    json_t *root = json_load_file(path, 0, &error);
    if (!root) fail_msg("%s: %s", path, error.text);
    return root;
}

static inline uint32_t reference_ids(const json_t *array, uint32_t ids[REFERENCE_IDS_MAX])
{
    uint32_t count = (uint32_t)json_array_size(array);
    assert_in_range(count, 1, REFERENCE_IDS_MAX);
    for (uint32_t i = 0; i < count; i++)
        ids[i] = (uint32_t)json_integer_value(json_array_get(array, i));
    return count;
}

/* Greedy generation after the first prompt_count ids must give the rest of them. */
static inline void reference_check_greedy(bt_generator *generator, const uint32_t *ids,
                                          uint32_t prompt_count, uint32_t count)
{
    static bt_token tokens[REFERENCE_IDS_MAX];
    bt_err err;
    uint32_t made = 0;
    const bt_prompt prompt = {.ids = ids, .count = prompt_count};
    const bt_generate_options options = {
        .sampling = {.top_p = 1}, .max_tokens = count - prompt_count, .ignore_eos = true};
    if (bt_generate(generator, &prompt, &options, tokens, &made, &err) != BT_OK)
        fail_msg("%s", err.message);
    assert_int_equal(made, count - prompt_count);
    for (uint32_t i = 0; i < made; i++)
        if (tokens[i].id != ids[prompt_count + i])
            fail_msg("token %u is %u, not %u", i, tokens[i].id, ids[prompt_count + i]);
}

/* The largest absolute difference of the logits after ids from the expected ones. */
static inline double reference_logits_error(bt_generator *generator, const uint32_t *ids,
                                            uint32_t count, const json_t *expected)
{
    bt_err err;
    const float *logits = NULL;
    double worst = 0;
    const bt_prompt prompt = {.ids = ids, .count = count};
    if (bt_generate_logits(generator, &prompt, &logits, &err) != BT_OK) fail_msg("%s", err.message);
    for (size_t i = 0; i < json_array_size(expected); i++) {
        double error = fabs(logits[i] - json_number_value(json_array_get(expected, i)));
        if (!(error <= worst)) worst = error; /* NaN is the worst */
    }
    return worst;
}

#endif
