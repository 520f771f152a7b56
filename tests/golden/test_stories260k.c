/* test_stories260k.c - the engine against an outside implementation in f64 on a small trained Llama:
 * logits of every prompt within 1e-4, greedy tokens identical, on every backend of this machine. */
#include "tests/golden/reference.h"

#define LOGITS_TOLERANCE 1e-4

static const char *const backends[] = {"cpu", "cpu-ref"};
static bt_model *model;
static json_t *reference;

static int open_model(void **state)
{
    (void)state;
    const char *data = getenv("BATON_TEST_DATA");
    if (!data) return 0;
    char dir[1024];
    snprintf(dir, sizeof(dir), "%s/models/stories260K", data);
    model = reference_model(dir);
    reference = reference_load(dir);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    json_decref(reference);
    bt_model_close(model);
    return 0;
}

static void need_data(void)
{
    if (model) return;
    printf("skipped: BATON_TEST_DATA is not set\n");
    skip();
}

static bt_generator *generator_of(const char *backend)
{
    return reference_generator(
        model, &(bt_generator_config){
                   .backend = backend, .kv_dtype = BT_DTYPE_F32, .block_tokens = 16, .threads = 2});
}

static void test_logits_of_every_prompt(void **state)
{
    (void)state;
    need_data();
    for (size_t b = 0; b < sizeof(backends) / sizeof(backends[0]); b++) {
        bt_generator *generator = generator_of(backends[b]);
        const json_t *prompts = json_object_get(reference, "prompts"), *prompt;
        size_t index;
        assert_true(json_array_size(prompts) > 0);
        json_array_foreach(prompts, index, prompt)
        {
            static uint32_t ids[REFERENCE_IDS_MAX];
            uint32_t count = reference_ids(json_object_get(prompt, "ids"), ids);
            double error = reference_logits_error(generator, ids, count,
                                                  json_object_get(prompt, "last_logits"));
            printf("%s prompt %zu: largest error of a logit %.2g\n", backends[b], index, error);
            assert_true(error <= LOGITS_TOLERANCE);
        }
        bt_generator_destroy(generator);
    }
}

static void test_greedy_tokens_of_every_prompt(void **state)
{
    (void)state;
    need_data();
    bt_generator *generator = generator_of("cpu");
    const json_t *prompt;
    size_t index;
    static uint32_t ids[REFERENCE_IDS_MAX];
    json_array_foreach(json_object_get(reference, "prompts"), index, prompt)
    {
        uint32_t prompt_count = (uint32_t)json_array_size(json_object_get(prompt, "ids"));
        uint32_t count = reference_ids(json_object_get(prompt, "greedy"), ids);
        reference_check_greedy(generator, ids, prompt_count, count);
    }
    const json_t *story = json_object_get(json_object_get(reference, "greedy_from_bos"), "tokens");
    uint32_t count = reference_ids(story, ids);
    reference_check_greedy(generator, ids, 1, count);
    bt_generator_destroy(generator);
}

/* Through pack and unpack without a loss of precision nothing may change. */
static void test_greedy_tokens_after_a_handoff(void **state)
{
    (void)state;
    need_data();
    bt_generator *generator =
        reference_generator(model, &(bt_generator_config){.kv_dtype = BT_DTYPE_F32,
                                                          .block_tokens = 64,
                                                          .threads = 2,
                                                          .handoff = true,
                                                          .prefill_kv_dtype = BT_DTYPE_F32,
                                                          .prefill_block_tokens = 16,
                                                          .wire = BT_DTYPE_F32});
    static uint32_t ids[REFERENCE_IDS_MAX];
    const json_t *story = json_object_get(json_object_get(reference, "greedy_from_bos"), "tokens");
    uint32_t count = reference_ids(story, ids);
    reference_check_greedy(generator, ids, 1, count);
    reference_check_greedy(generator, ids, 100, count);
    bt_generator_destroy(generator);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_of_every_prompt),
        cmocka_unit_test(test_greedy_tokens_of_every_prompt),
        cmocka_unit_test(test_greedy_tokens_after_a_handoff),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
