/* bench_probe.c - how far the pairing probe's KV lies from the receiver's own, for every triple of prefill pool, wire and
 * decode pool, on one model; and for a model of the same shape with other weights, if one is given.
 *
 *     bench_probe MODEL_DIR [OTHER_MODEL_DIR]
 *
 * Prints a Markdown table of the worst relative L2 error over parts, layers and heads: the measured half of
 * docs/probe-bounds.md. The bounds in decoded/probe_bounds.c are twice these figures. */
#include "common/engine/engine.h"
#include "common/kv/probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const bt_dtype dtypes[] = {BT_DTYPE_F32, BT_DTYPE_BF16, BT_DTYPE_FP8_E4M3, BT_DTYPE_INT8};
#define DTYPES 4u
#define BLOCK 16u
#define BLOCKS (2 * BT_PROBE_TOKENS / BLOCK)

static void die(const bt_err *err)
{
    fprintf(stderr, "bench_probe: %s\n", err->message);
    exit(1);
}

/* An engine whose blocks 0 .. 3 hold its own probe KV; 4 .. 7 are free for a peer's. */
static bt_engine *probe_engine(const bt_model *model, bt_dtype kv_dtype)
{
    bt_engine_config config = {.backend = "cpu",
                               .kv_dtype = kv_dtype,
                               .block_tokens = BLOCK,
                               .pool_blocks = BLOCKS,
                               .batch_seqs_max = 1,
                               .batch_tokens_max = BT_PROBE_TOKENS};
    bt_engine *engine = NULL;
    bt_err err;
    if (bt_engine_create(model, &config, &engine, &err) != BT_OK) die(&err);
    uint32_t tokens[BT_PROBE_TOKENS], blocks[BLOCKS];
    bt_probe_tokens(bt_model_config_of(model)->vocab, tokens);
    for (uint32_t i = 0; i < BLOCKS; i++) blocks[i] = i;
    bt_engine_seq seq = {.token_count = BT_PROBE_TOKENS,
                         .tokens = tokens,
                         .blocks = blocks,
                         .block_count = BLOCKS / 2};
    bt_engine_batch batch = {.batch = 1, .seq_count = 1, .seqs = &seq};
    if (bt_engine_submit(engine, &batch, &err) != BT_OK) die(&err);
    for (bt_engine_event event = {0}; event.kind != BT_ENGINE_BATCH_DONE;) {
        if (bt_engine_poll(engine, &event, 1) == 0) bt_engine_wait(engine);
    }
    return engine;
}

static void push(bt_engine *from, bt_engine *to, bt_dtype wire_dtype, uint8_t *frame_bytes)
{
    const bt_kv_shape *shape = &bt_engine_kv(from)->shape;
    bt_wire_shape wire = {.dtype = wire_dtype, .head_dim = shape->head_dim};
    static const uint8_t key[BT_KEY_BYTES] = {1};
    static const uint32_t own[] = {0, 1, 2, 3}, pushed[] = {4, 5, 6, 7};
    bt_kv_digest sent, got;
    bt_err err;
    for (uint32_t layer = 0; layer < shape->layers; layer++) {
        bt_frame frame = {.layer = layer,
                          .run_count = 1,
                          .head_count = shape->kv_heads,
                          .token_end = BT_PROBE_TOKENS};
        if (bt_engine_pack(from, &wire, &frame, own, key, frame_bytes, &sent, &err) != BT_OK)
            die(&err);
        if (bt_engine_unpack(to, &wire, &frame, pushed, key, frame_bytes, &got, &err) != BT_OK)
            die(&err);
        if (memcmp(&sent, &got, sizeof(sent)) != 0) {
            fprintf(stderr, "bench_probe: digests differ\n");
            exit(1);
        }
    }
}

static double distance(bt_engine *engine)
{
    static const uint32_t own[] = {0, 1, 2, 3}, pushed[] = {4, 5, 6, 7};
    bt_kv_part part;
    uint32_t layer, head;
    double error;
    bt_engine_kv_distance(engine, own, pushed, BT_PROBE_TOKENS, &part, &layer, &head, &error);
    return error;
}

static bt_model *open_model(const char *dir)
{
    bt_model *model = NULL;
    bt_err err;
    if (bt_model_open(dir, &model, &err) != BT_OK) die(&err);
    return model;
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: bench_probe MODEL_DIR [OTHER_MODEL_DIR]\n");
        return 2;
    }
    bt_model *model = open_model(argv[1]), *other = argc == 3 ? open_model(argv[2]) : NULL;
    bt_engine *prefill[DTYPES], *decode[DTYPES], *wrong[DTYPES];
    for (uint32_t i = 0; i < DTYPES; i++) {
        prefill[i] = probe_engine(model, dtypes[i]);
        decode[i] = probe_engine(model, dtypes[i]);
        wrong[i] = other != NULL ? probe_engine(other, dtypes[i]) : NULL;
    }
    uint8_t *frame = malloc(1u << 24);
    if (frame == NULL) return 1;
    printf("| prefill pool | wire | decode pool | error |%s\n|---|---|---|---|%s\n",
           other ? " other weights |" : "", other ? "---|" : "");
    for (uint32_t p = 0; p < DTYPES; p++) {
        for (uint32_t w = 0; w < DTYPES; w++) {
            for (uint32_t d = 0; d < DTYPES; d++) {
                push(prefill[p], decode[d], dtypes[w], frame);
                printf("| %s | %s | %s | %.2e |", bt_dtype_name(dtypes[p]),
                       bt_dtype_name(dtypes[w]), bt_dtype_name(dtypes[d]), distance(decode[d]));
                if (other != NULL) {
                    push(wrong[p], decode[d], dtypes[w], frame);
                    printf(" %.2e |", distance(decode[d]));
                }
                putchar('\n');
            }
        }
    }
    free(frame);
    for (uint32_t i = 0; i < DTYPES; i++) {
        bt_engine_destroy(prefill[i]);
        bt_engine_destroy(decode[i]);
        bt_engine_destroy(wrong[i]);
    }
    bt_model_close(model);
    bt_model_close(other);
    return 0;
}
