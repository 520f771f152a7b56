/* test_generate.c - the oracle of disaggregated serving: a handoff that loses nothing changes nothing,
 * and one that quantizes gives the same tokens whatever the chunks, block sizes and threads. */
#include "common/engine/generate.h"

#include "tests/unit/tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define SEED 20261123u
#define PROMPT 130u
#define TOKENS 40u

static const bt_dtype dtypes[] = {BT_DTYPE_F32, BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3, BT_DTYPE_INT8};
static bt_model *model;
static uint32_t prompt[TINY_CONTEXT + 1];

static int open_model(void **state)
{
    (void)state;
    bt_rng rng;
    bt_rng_init(&rng, SEED);
    for (uint32_t i = 0; i <= TINY_CONTEXT; i++)
        prompt[i] = (uint32_t)bt_rng_below(&rng, TINY_VOCAB);
    model = tiny_model(&(tiny_options){.seed = 8, .dtype = BT_DTYPE_BF16, .tied = true});
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    bt_model_close(model);
    return 0;
}

static bt_generator *generator_of(const bt_generator_config *config)
{
    bt_generator *generator = NULL;
    bt_err err;
    if (bt_generator_create(model, config, &generator, &err) != BT_OK) fail_msg("%s", err.message);
    return generator;
}

/* Seeded sampling: a difference in any logit soon shows. */
static void generate(const bt_generator_config *config, bt_token tokens[TOKENS])
{
    bt_generator *generator = generator_of(config);
    const bt_prompt ids = {.ids = prompt, .count = PROMPT};
    const bt_generate_options options = {
        .sampling = {.temperature = 1.5f, .top_p = 1, .logprobs = true, .seed = 99},
        .max_tokens = TOKENS,
        .ignore_eos = true};
    uint32_t count = 0;
    memset(tokens, 0, TOKENS * sizeof(bt_token));
    assert_int_equal(bt_generate(generator, &ids, &options, tokens, &count, NULL), BT_OK);
    assert_int_equal(count, TOKENS);
    bt_generator_destroy(generator);
}

static void assert_same(const bt_token *a, const bt_token *b)
{
    for (uint32_t i = 0; i < TOKENS; i++) {
        assert_int_equal(a[i].id, b[i].id);
        assert_true(a[i].logprob == b[i].logprob);
    }
}

static void test_a_lossless_handoff_changes_nothing(void **state)
{
    (void)state;
    bt_token alone[TOKENS], handed[TOKENS];
    for (int d = 0; d < 4; d++) {
        generate(&(bt_generator_config){.kv_dtype = dtypes[d], .block_tokens = 16, .threads = 1},
                 alone);
        generate(&(bt_generator_config){.kv_dtype = dtypes[d],
                                        .block_tokens = 16,
                                        .threads = 2,
                                        .chunk_tokens = 64,
                                        .handoff = true,
                                        .prefill_kv_dtype = dtypes[d],
                                        .prefill_block_tokens = 64,
                                        .wire = dtypes[d]},
                 handed);
        assert_same(alone, handed);
    }
}

static void test_any_formats_give_the_same_whatever_the_shapes(void **state)
{
    (void)state;
    bt_token first[TOKENS], second[TOKENS];
    for (int combination = 0; combination < 64; combination++) {
        bt_generator_config config = {.kv_dtype = dtypes[combination % 4],
                                      .block_tokens = 64,
                                      .threads = 1,
                                      .handoff = true,
                                      .prefill_kv_dtype = dtypes[combination / 4 % 4],
                                      .prefill_block_tokens = 16,
                                      .wire = dtypes[combination / 16]};
        generate(&config, first);
        config.block_tokens = 32;
        config.prefill_block_tokens = 64;
        config.chunk_tokens = 37;
        config.threads = 2;
        generate(&config, second);
        assert_same(first, second);
    }
}

static double log_softmax(const float *logits, uint32_t id)
{
    double total = 0;
    for (uint32_t i = 0; i < TINY_VOCAB; i++) total += exp((double)logits[i] - (double)logits[id]);
    return -log(total);
}

/* The scores of a prompt are its tokens' logprobs after each prefix, wherever chunks end. */
static void test_scores_are_those_of_each_prefix(void **state)
{
    (void)state;
    enum { COUNT = 90, TOP = 3 };
    static bt_token scores[3][COUNT];
    static const uint32_t chunks[] = {256, 64, 7};
    const bt_prompt ids = {.ids = prompt, .count = COUNT};
    bt_generator *generator = NULL;
    for (int c = 0; c < 3; c++) {
        bt_generator_destroy(generator);
        generator = generator_of(&(bt_generator_config){
            .block_tokens = 16, .threads = 1 + (uint32_t)c, .chunk_tokens = chunks[c]});
        assert_int_equal(bt_generate_scores(generator, &ids, TOP, scores[c], NULL), BT_OK);
        for (uint32_t i = 0; i + 1 < COUNT; i++)
            assert_true(bt_token_equal(&scores[c][i], &scores[0][i]));
    }
    for (uint32_t i = 0; i + 1 < COUNT; i += 8) {
        const float *logits;
        const bt_prompt prefix = {.ids = prompt, .count = i + 1};
        assert_int_equal(bt_generate_logits(generator, &prefix, &logits, NULL), BT_OK);
        const bt_token *score = &scores[0][i];
        assert_int_equal(score->id, prompt[i + 1]);
        assert_true(fabs((double)score->logprob - log_softmax(logits, score->id)) < 1e-5);
        assert_int_equal(score->top_count, TOP);
        for (uint32_t k = 0; k < TOP; k++) {
            uint32_t better = 0, id = score->top[k].id;
            for (uint32_t j = 0; j < TINY_VOCAB; j++) better += logits[j] > logits[id];
            assert_int_equal(better, k);
            assert_true(fabs((double)score->top[k].logprob - log_softmax(logits, id)) < 1e-5);
        }
    }
    bt_generator_destroy(generator);
}

static void test_ends(void **state)
{
    (void)state;
    static bt_token tokens[TINY_CONTEXT];
    bt_generator *generator = generator_of(
        &(bt_generator_config){.kv_dtype = BT_DTYPE_F32, .block_tokens = 16, .threads = 1});
    bt_generate_options options = {.sampling = {.temperature = 5, .top_p = 1, .seed = 1},
                                   .max_tokens = TINY_CONTEXT};
    uint32_t count = 0;
    bt_prompt ids = {.ids = prompt, .count = 3};
    assert_int_equal(bt_generate(generator, &ids, &options, tokens, &count, NULL), BT_OK);
    assert_true(count < TINY_CONTEXT - 3); /* at this temperature every token is likely */
    assert_int_equal(tokens[count - 1].id, TINY_EOS);
    for (uint32_t i = 0; i + 1 < count; i++) assert_int_not_equal(tokens[i].id, TINY_EOS);

    options.ignore_eos = true;
    assert_int_equal(bt_generate(generator, &ids, &options, tokens, &count, NULL), BT_OK);
    assert_int_equal(count, TINY_CONTEXT - 3 + 1); /* the last token needs no place in the pool */
    ids.count = TINY_CONTEXT;
    assert_int_equal(bt_generate(generator, &ids, &options, tokens, &count, NULL), BT_OK);
    assert_int_equal(count, 1);
    ids.count = TINY_CONTEXT + 1;
    assert_int_equal(bt_generate(generator, &ids, &options, tokens, &count, NULL), BT_ERR_ARGUMENT);
    ids.count = 0;
    assert_int_equal(bt_generate(generator, &ids, &options, tokens, &count, NULL), BT_ERR_ARGUMENT);
    ids.count = 1;
    options.max_tokens = 0;
    assert_int_equal(bt_generate(generator, &ids, &options, tokens, &count, NULL), BT_ERR_ARGUMENT);
    bt_generator_destroy(generator);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_lossless_handoff_changes_nothing),
        cmocka_unit_test(test_any_formats_give_the_same_whatever_the_shapes),
        cmocka_unit_test(test_scores_are_those_of_each_prefix),
        cmocka_unit_test(test_ends),
    };
    printf("seed %u\n", SEED);
    return cmocka_run_group_tests(tests, open_model, close_model);
}
