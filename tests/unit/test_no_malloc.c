/* test_no_malloc.c - after start-up the data path allocates nothing: engine steps, pack, digest, unpack, codec and seal.
 *
 * The test's own malloc family counts, from every thread, and passes on to libc. A sanitizer brings its own: there the
 * path runs and nothing is counted. */
#include "common/base/crypto.h"
#include "common/engine/engine.h"
#include "proto/seal.h"
#include "tests/unit/tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BLOCK 16u
#define BLOCKS 32u
#define PROMPT 100u
#define STEPS 20u

static atomic_uint allocations;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTED false
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define COUNTED false
#endif
#endif
#ifndef COUNTED
#define COUNTED true
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *data, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

void *malloc(size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_calloc(count, bytes);
}

void *realloc(void *data, size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_realloc(data, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_memalign(alignment, bytes);
}
#endif

typedef struct {
    bt_engine *prefill, *decode;
    bt_codec *codec;
    bt_seal p, d;
    uint32_t prompt[PROMPT], blocks[BLOCKS];
    uint8_t *frame;
    uint8_t *sealed;
} path;

static bt_engine *engine_of(const bt_model *model, bt_dtype kv_dtype)
{
    const bt_engine_config config = {.backend = "cpu",
                                     .kv_dtype = kv_dtype,
                                     .block_tokens = BLOCK,
                                     .pool_blocks = BLOCKS,
                                     .batch_seqs_max = 2,
                                     .batch_tokens_max = 128,
                                     .threads = 2};
    bt_engine *engine = NULL;
    bt_err err;
    if (bt_engine_create(model, &config, &engine, &err) != BT_OK) fail_msg("%s", err.message);
    return engine;
}

static uint32_t step(bt_engine *engine, const bt_engine_seq *seq)
{
    bt_engine_batch batch = {.batch = 1, .seq_count = 1, .seqs = seq};
    bt_err err;
    assert_int_equal(bt_engine_submit(engine, &batch, &err), BT_OK);
    uint32_t token = 0;
    for (bt_engine_event event = {0}; event.kind != BT_ENGINE_BATCH_DONE;) {
        if (bt_engine_poll(engine, &event, 1) == 0) bt_engine_wait(engine);
        if (event.kind == BT_ENGINE_TOKEN) token = event.token.id;
    }
    return token;
}

/* A Sealed from P to D, through seal and codec. */
static void send_sealed(path *p, const bt_frame *frame, const bt_kv_digest *digest)
{
    bt_msg msg = {.kind = BT_MSG_SEALED};
    memset(&msg.fence.request, 7, sizeof(msg.fence.request));
    msg.fence.attempt = msg.fence.generation = 1;
    msg.fence.p_incarnation = 3;
    msg.fence.d_incarnation = 5;
    msg.sealed.frame = *frame;
    msg.sealed.digest = *digest;
    size_t bytes;
    bt_err err;
    if (bt_seal_write(&p->p, &msg, p->sealed, BT_SEAL_BYTES_MAX, &bytes, &err) != BT_OK)
        fail_msg("%s", err.message);
    bt_msg got;
    if (bt_seal_open(&p->d, p->sealed, bytes, p->codec, &got, &err) != BT_OK)
        fail_msg("%s", err.message);
    assert_memory_equal(&got.sealed.digest, digest, sizeof(*digest));
}

static void hand_off(path *p)
{
    const bt_kv_shape *shape = &bt_engine_kv(p->prefill)->shape;
    bt_wire_shape wire = {.dtype = BT_DTYPE_FP8_E4M3, .head_dim = shape->head_dim};
    for (uint32_t layer = 0; layer < shape->layers; layer++) {
        bt_frame frame = {.frame = layer,
                          .layer = layer,
                          .run_count = 2,
                          .head_count = shape->kv_heads,
                          .token_end = PROMPT};
        bt_kv_digest sent, got;
        bt_err err;
        assert_int_equal(bt_engine_pack(p->prefill, &wire, &frame, p->blocks, p->p.digest_key,
                                        p->frame, &sent, &err),
                         BT_OK);
        send_sealed(p, &frame, &sent);
        assert_int_equal(bt_engine_unpack(p->decode, &wire, &frame, p->blocks, p->d.digest_key,
                                          p->frame, &got, &err),
                         BT_OK);
        assert_memory_equal(&sent, &got, sizeof(sent));
    }
}

static void one_request(path *p)
{
    static const bt_logit_bias rows[] = {{5, 1}, {9, -1}};
    uint32_t history[PROMPT + STEPS + 1];
    memcpy(history, p->prompt, sizeof(p->prompt));
    bt_sampling sampling = {.temperature = 0.8f,
                            .top_p = 0.9f,
                            .top_k = 20,
                            .min_p = 0.01f,
                            .repetition_penalty = 1.1f,
                            .frequency_penalty = 0.2f,
                            .min_tokens = 3,
                            .bias = rows,
                            .bias_count = 2,
                            .seed = 1,
                            .top_logprobs = 5};
    bt_engine_seq seq = {.tokens = p->prompt,
                         .token_count = PROMPT,
                         .blocks = p->blocks,
                         .block_count = BLOCKS,
                         .sample = true,
                         .sampling = sampling,
                         .history = history,
                         .prompt_count = PROMPT,
                         .score_next = p->prompt + 1,
                         .score_count = PROMPT - 1};
    uint32_t token = step(p->prefill, &seq);
    hand_off(p);
    seq.score_count = 0;
    for (uint32_t i = 0; i < STEPS; i++) {
        seq.position = PROMPT + i;
        seq.token_count = 1;
        seq.tokens = &token;
        history[PROMPT + i] = token;
        token = step(p->decode, &seq);
    }
}

static void test_data_path_allocates_nothing(void **state)
{
    (void)state;
    bt_err err;
    assert_int_equal(bt_crypto_start(&err), BT_OK);
    bt_model *model = tiny_model(&(tiny_options){.seed = 11, .dtype = BT_DTYPE_BF16});
    path p = {.prefill = engine_of(model, BT_DTYPE_BF16),
              .decode = engine_of(model, BT_DTYPE_INT8)};
    p.codec = bt_codec_init(aligned_alloc(64, (bt_codec_bytes() + 63) & ~(size_t)63));
    p.frame = malloc(1u << 22);
    p.sealed = malloc(BT_SEAL_BYTES_MAX);
    assert_non_null(p.frame);
    assert_non_null(p.sealed);
    const uint8_t secret[BT_KEY_BYTES] = {9};
    bt_seal_init(&p.p, secret, BT_ROLE_PREFILL);
    bt_seal_init(&p.d, secret, BT_ROLE_DECODE);
    for (uint32_t i = 0; i < PROMPT; i++) p.prompt[i] = (i * 7 + 1) % TINY_VOCAB;
    for (uint32_t i = 0; i < BLOCKS; i++) p.blocks[i] = i;
    one_request(&p); /* what a library does once it does here */
    unsigned before = atomic_load(&allocations);
    assert_true(before > 0 || !COUNTED);
    for (int i = 0; i < 3; i++) one_request(&p);
    assert_int_equal(atomic_load(&allocations), before);
    bt_engine_destroy(p.prefill);
    bt_engine_destroy(p.decode);
    free(p.codec);
    free(p.frame);
    free(p.sealed);
    bt_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_data_path_allocates_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
