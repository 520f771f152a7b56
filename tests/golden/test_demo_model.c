/* test_demo_model.c - the demo model against Hugging Face transformers in f32: logits of every
 * prompt, greedy tokens identical, alone and through a handoff that loses nothing.
 *
 * Measured: the largest error of a logit is 1.6e-5, where the reference's own two runs on
 * different CPUs differ by 1.1e-5 and no two best logits are nearer than 1.5e-3. */
#include "tests/golden/reference.h"

#include "kernels/dispatch.h"

#define LOGITS_TOLERANCE 1e-4
#define MODEL "ops/model"

static bt_model *model;
static json_t *reference;

static int open_model(void **state)
{
    (void)state;
    model = reference_model(MODEL);
    reference = reference_load(MODEL);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    json_decref(reference);
    bt_model_close(model);
    return 0;
}

static void check_greedy(const bt_generator_config *config)
{
    bt_generator *generator = reference_generator(model, config);
    const json_t *prompt;
    size_t index;
    json_array_foreach(json_object_get(reference, "prompts"), index, prompt)
    {
        static uint32_t ids[REFERENCE_IDS_MAX];
        uint32_t prompt_count = (uint32_t)json_array_size(json_object_get(prompt, "ids"));
        uint32_t count = reference_ids(json_object_get(prompt, "greedy"), ids);
        reference_check_greedy(generator, ids, prompt_count, count);
    }
    bt_generator_destroy(generator);
}

static void test_logits_of_every_prompt(void **state)
{
    (void)state;
    bt_generator *generator = reference_generator(
        model, &(bt_generator_config){.kv_dtype = BT_DTYPE_F32, .block_tokens = 16, .threads = 2});
    const json_t *prompts = json_object_get(reference, "prompts"), *prompt;
    size_t index;
    assert_true(json_array_size(prompts) > 0);
    json_array_foreach(prompts, index, prompt)
    {
        static uint32_t ids[REFERENCE_IDS_MAX];
        uint32_t count = reference_ids(json_object_get(prompt, "ids"), ids);
        double error =
            reference_logits_error(generator, ids, count, json_object_get(prompt, "last_logits"));
        printf("prompt %zu: largest error of a logit %.2g\n", index, error);
        assert_true(error <= LOGITS_TOLERANCE);
    }
    bt_generator_destroy(generator);
}

static void test_greedy_tokens_of_every_prompt(void **state)
{
    (void)state;
    check_greedy(
        &(bt_generator_config){.kv_dtype = BT_DTYPE_F32, .block_tokens = 32, .threads = 2});
}

static void test_greedy_tokens_after_a_handoff(void **state)
{
    (void)state;
    check_greedy(&(bt_generator_config){.kv_dtype = BT_DTYPE_F32,
                                        .block_tokens = 16,
                                        .threads = 2,
                                        .handoff = true,
                                        .prefill_block_tokens = 64});
}

/* Logits after every prompt, of one row of kernels and one compute, to be freed. Prints and returns
 * the largest error. */
static float *logits_of(const char *kernels, bt_compute compute, double *ret_error)
{
    uint32_t vocab = bt_model_config_of(model)->vocab;
    const json_t *prompts = json_object_get(reference, "prompts"), *prompt;
    float *all = malloc(json_array_size(prompts) * vocab * sizeof(float));
    bt_generator *generator =
        reference_generator(model, &(bt_generator_config){.kernels = kernels,
                                                          .compute = compute,
                                                          .kv_dtype = BT_DTYPE_F32,
                                                          .block_tokens = 16,
                                                          .threads = 2});
    size_t index;
    *ret_error = 0;
    assert_non_null(all);
    json_array_foreach(prompts, index, prompt)
    {
        static uint32_t ids[REFERENCE_IDS_MAX];
        uint32_t count = reference_ids(json_object_get(prompt, "ids"), ids);
        const json_t *expected = json_object_get(prompt, "last_logits");
        double error = reference_logits_error(generator, ids, count, expected);
        if (!(error <= *ret_error)) *ret_error = error;
        const float *logits;
        const bt_prompt again = {.ids = ids, .count = count};
        assert_int_equal(bt_generate_logits(generator, &again, &logits, NULL), BT_OK);
        memcpy(all + index * vocab, logits, vocab * sizeof(float));
    }
    printf("%s, computed in %s: largest error of a logit %.2g\n", kernels,
           bt_compute_names[compute], *ret_error);
    bt_generator_destroy(generator);
    return all;
}

/* Logits are of the order of 10. */
static void test_every_kind_of_cpu_gives_the_same_bits(void **state)
{
    (void)state;
    static const double tolerance[BT_COMPUTE_COUNT] = {LOGITS_TOLERANCE, 0.05, 0.5};
    size_t bytes = json_array_size(json_object_get(reference, "prompts")) *
                   bt_model_config_of(model)->vocab * sizeof(float);
    for (int compute = 0; compute < BT_COMPUTE_COUNT; compute++) {
        float *first = NULL;
        for (unsigned i = 0; i < bt_kernels_row_count; i++) {
            const bt_kernels *row = bt_kernels_rows[i];
            if (!row->supported() || strcmp(row->name, "ref") == 0) continue;
            double error;
            float *logits = logits_of(row->name, (bt_compute)compute, &error);
            assert_true(error <= tolerance[compute]);
            if (first) assert_memory_equal(logits, first, bytes);
            free(first);
            first = logits;
        }
        free(first);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_of_every_prompt),
        cmocka_unit_test(test_greedy_tokens_of_every_prompt),
        cmocka_unit_test(test_greedy_tokens_after_a_handoff),
        cmocka_unit_test(test_every_kind_of_cpu_gives_the_same_bits),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
