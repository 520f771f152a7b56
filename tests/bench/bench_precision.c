/* bench_precision.c - what computing in bf16 or int8 costs in quality, against f32, on a text:
 *
 *     bench_precision MODEL_DIR TEXT_FILE [WINDOWS]
 *
 * Windows of 256 tokens from across the text are scored token by token (KV pool in f32, so that
 * only the products differ). A Markdown table: perplexity and its ratio to f32's, how often the
 * most likely token is the same, the error of a logit relative to the spread of the logits (root
 * mean square), and the worst relative L2 distance of K or V of a head over 64 tokens, which is what
 * the pairing probe bounds (docs/probe-bounds.md). */
#include "common/engine/engine.h"
#include "common/text/tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW 256u
#define SEQS 16u
#define BLOCK 16u
#define BLOCKS (WINDOW / BLOCK)
#define PROBE_TOKENS 64u

typedef struct {
    double loss, square, spread; /* sums over positions */
    uint64_t positions, agree;
    double kv_distance;
} score;

typedef struct {
    bt_engine *engines[BT_COMPUTE_COUNT];
    uint32_t vocab;
    score scores[BT_COMPUTE_COUNT];
} bench;

static void must(bt_status status, const bt_err *err)
{
    if (status == BT_OK) return;
    fprintf(stderr, "bench_precision: %s\n", err->message);
    exit(1);
}

/* One token of every sequence; the logits stay in the engine. */
static void step(bt_engine *engine, const uint32_t *tokens[SEQS], uint32_t seqs, uint32_t position)
{
    static uint32_t blocks[SEQS * BLOCKS];
    bt_engine_seq seq[SEQS];
    for (uint32_t i = 0; i < seqs; i++) {
        for (uint32_t b = 0; b < BLOCKS; b++) blocks[i * BLOCKS + b] = i * BLOCKS + b;
        seq[i] = (bt_engine_seq){.handle = i,
                                 .position = position,
                                 .token_count = 1,
                                 .tokens = tokens[i] + position,
                                 .blocks = blocks + i * BLOCKS,
                                 .block_count = BLOCKS,
                                 .sample = true,
                                 .sampling = {.top_p = 1}};
    }
    bt_err err;
    const bt_engine_batch batch = {.seq_count = seqs, .seqs = seq};
    must(bt_engine_submit(engine, &batch, &err), &err);
    for (bt_engine_event event = {0}; event.kind != BT_ENGINE_BATCH_DONE;)
        if (bt_engine_poll(engine, &event, 1) == 0) bt_engine_wait(engine);
}

static uint32_t best_of(const float *logits, uint32_t vocab)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

static double loss_of(const float *logits, uint32_t vocab, uint32_t next)
{
    double highest = logits[best_of(logits, vocab)], total = 0;
    for (uint32_t i = 0; i < vocab; i++) total += exp(logits[i] - highest);
    return highest + log(total) - logits[next];
}

static void compare(const bench *b, uint32_t seq, uint32_t next, score scores[BT_COMPUTE_COUNT])
{
    const float *exact = bt_engine_logits(b->engines[0], seq);
    double mean = 0, variance = 0;
    for (uint32_t i = 0; i < b->vocab; i++) mean += exact[i];
    mean /= b->vocab;
    for (uint32_t i = 0; i < b->vocab; i++) variance += (exact[i] - mean) * (exact[i] - mean);
    for (int c = 0; c < BT_COMPUTE_COUNT; c++) {
        const float *logits = bt_engine_logits(b->engines[c], seq);
        score *s = &scores[c];
        for (uint32_t i = 0; i < b->vocab; i++) {
            double error = (double)logits[i] - exact[i];
            s->square += error * error;
        }
        s->spread += variance;
        s->loss += loss_of(logits, b->vocab, next);
        s->agree += best_of(logits, b->vocab) == best_of(exact, b->vocab);
        s->positions++;
    }
}

/* The worst relative L2 distance of two f32 pools over the first tokens of sequence 0. */
static double kv_distance(const bt_kv_view *a, const bt_kv_view *b)
{
    double worst = 0;
    for (uint32_t layer = 0; layer < a->shape.layers; layer++) {
        for (int part = 0; part < 2; part++) {
            for (uint32_t head = 0; head < a->shape.kv_heads; head++) {
                double square = 0, total = 0;
                for (uint32_t block = 0; block < PROBE_TOKENS / BLOCK; block++) {
                    const float *x =
                        (const float *)bt_kv_at(a, block, layer, (bt_kv_part)part, head);
                    const float *y =
                        (const float *)bt_kv_at(b, block, layer, (bt_kv_part)part, head);
                    for (uint32_t i = 0; i < BLOCK * a->shape.head_dim; i++) {
                        square += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
                        total += (double)x[i] * x[i];
                    }
                }
                if (sqrt(square / total) > worst) worst = sqrt(square / total);
            }
        }
    }
    return worst;
}

static void score_windows(bench *b, const uint32_t *ids, size_t count, uint32_t windows)
{
    for (uint32_t done = 0; done < windows; done += SEQS) {
        uint32_t seqs = windows - done < SEQS ? windows - done : SEQS;
        const uint32_t *tokens[SEQS];
        for (uint32_t i = 0; i < seqs; i++)
            tokens[i] = ids + (size_t)(done + i) * ((count - WINDOW) / windows);
        for (uint32_t position = 0; position + 1 < WINDOW; position++) {
            for (int c = 0; c < BT_COMPUTE_COUNT; c++) step(b->engines[c], tokens, seqs, position);
            for (uint32_t i = 0; i < seqs; i++) compare(b, i, tokens[i][position + 1], b->scores);
        }
        for (int c = 1; c < BT_COMPUTE_COUNT; c++) {
            double far = kv_distance(bt_engine_kv(b->engines[0]), bt_engine_kv(b->engines[c]));
            if (far > b->scores[c].kv_distance) b->scores[c].kv_distance = far;
        }
    }
}

static size_t read_ids(const char *model_dir, const char *text_file, uint32_t **ret_ids)
{
    char path[4096];
    bt_tokenizer *tokenizer;
    bt_err err;
    snprintf(path, sizeof(path), "%s/tokenizer.json", model_dir);
    must(bt_tokenizer_open(path, &tokenizer, &err), &err);
    FILE *file = fopen(text_file, "rb");
    char *text = malloc(BT_TEXT_BYTES_MAX);
    uint32_t *ids = malloc(BT_TEXT_BYTES_MAX * sizeof(uint32_t));
    if (!file || !text || !ids) {
        fprintf(stderr, "bench_precision: cannot read %s\n", text_file);
        exit(1);
    }
    size_t bytes = fread(text, 1, BT_TEXT_BYTES_MAX, file);
    while (bytes > 0 && (text[bytes - 1] & 0xc0) == 0x80) bytes--; /* whole characters */
    if (bytes > 0 && (text[bytes - 1] & 0x80)) bytes--;
    fclose(file);
    bt_tokens tokens = {.ids = ids, .capacity = BT_TEXT_BYTES_MAX};
    must(bt_tokenizer_encode(tokenizer, text, bytes, BT_ENCODE_BARE, &tokens, &err), &err);
    bt_tokenizer_close(tokenizer);
    free(text);
    *ret_ids = ids;
    return tokens.count;
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: bench_precision MODEL_DIR TEXT_FILE [WINDOWS]\n");
        return 2;
    }
    uint32_t windows = argc > 3 ? (uint32_t)atoi(argv[3]) : 64;
    bench b = {0};
    bt_model *model;
    bt_err err;
    uint32_t *ids;
    size_t count = read_ids(argv[1], argv[2], &ids);
    must(bt_model_open(argv[1], &model, &err), &err);
    if (windows == 0 || count < 2 * WINDOW) {
        fprintf(stderr, "bench_precision: %s has %zu tokens\n", argv[2], count);
        return 1;
    }
    b.vocab = bt_model_config_of(model)->vocab;
    for (int c = 0; c < BT_COMPUTE_COUNT; c++) {
        const bt_engine_config config = {.backend = "cpu",
                                         .kv_dtype = BT_DTYPE_F32,
                                         .block_tokens = BLOCK,
                                         .pool_blocks = SEQS * BLOCKS,
                                         .batch_seqs_max = SEQS,
                                         .batch_tokens_max = SEQS,
                                         .compute = (bt_compute)c};
        must(bt_engine_create(model, &config, &b.engines[c], &err), &err);
    }
    score_windows(&b, ids, count, windows);
    printf(
        "| compute | perplexity | ratio | most likely token is f32's | error of a logit | K, V |\n"
        "|---|---|---|---|---|---|\n");
    for (int c = 0; c < BT_COMPUTE_COUNT; c++) {
        const score *s = &b.scores[c];
        printf("| %s | %.4f | %.5f | %.2f %% | %.2e | %.2e |\n", bt_compute_names[c],
               exp(s->loss / (double)s->positions),
               exp((s->loss - b.scores[0].loss) / (double)s->positions),
               100.0 * (double)s->agree / (double)s->positions, sqrt(s->square / s->spread),
               s->kv_distance);
        bt_engine_destroy(b.engines[c]);
    }
    bt_model_close(model);
    free(ids);
    return 0;
}
