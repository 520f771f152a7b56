/* What the sampler costs beside the head that makes its logits, for one sequence on one thread:
 *
 *   head     the head's product in bf16, [vocab] x [hidden], of the same run: what 1.00 is
 *   raw      logprobs of a token and its 20 alternatives
 *   greedy … one token with the named parameters, logits as peaked as a model's or nearly flat
 *
 * Usage: bench_sample [VOCAB [HIDDEN]]; 152,064 and 896 by default (Qwen2.5-0.5B). Best of several
 * rounds; every row of kernels that this CPU can run. */
#include "common/base/clock.h"
#include "common/base/rng.h"
#include "kernels/dispatch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 15
#define HISTORY 4000u

typedef struct {
    const bt_kernels *kernels;
    uint32_t vocab, hidden;
    float *logits, *x, *y;
    uint16_t *head;
    uint32_t *history;
    void *scratch;
} bench;

static double head_seconds(const bench *b)
{
    const bt_matmul op = {.x = b->x,
                          .w = b->head,
                          .y = b->y,
                          .w_dtype = BT_DTYPE_BF16,
                          .m = 1,
                          .n = b->vocab,
                          .k = b->hidden,
                          .x_stride = b->hidden,
                          .y_stride = b->vocab};
    double best = INFINITY;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = bt_monotonic_ns();
        b->kernels->matmul(&op, 0, op.n);
        best = fmin(best, (double)(bt_monotonic_ns() - start) * 1e-9);
    }
    return best;
}

static double sample_seconds(const bench *b, const bt_sampling *sampling)
{
    double best = INFINITY;
    for (int round = 0; round < ROUNDS; round++) {
        bt_token token;
        const bt_sample_op op = {.logits = b->logits,
                                 .vocab = b->vocab,
                                 .sampling = sampling,
                                 .position = HISTORY,
                                 .prompt_count = HISTORY / 2,
                                 .history = b->history};
        uint64_t start = bt_monotonic_ns();
        if (!bt_sample(b->kernels->sample, &op, b->scratch, &token)) exit(1);
        best = fmin(best, (double)(bt_monotonic_ns() - start) * 1e-9);
    }
    return best;
}

static const struct {
    const char *name;
    bt_sampling sampling;
} cases[] = {
    {"greedy", {.top_p = 1}},
    {"greedy, 20 logprobs", {.top_p = 1, .logprobs = true, .top_logprobs = 20}},
    {"greedy, penalties", {.top_p = 1, .repetition_penalty = 1.1f, .presence_penalty = 0.5f}},
    {"temperature 1", {.temperature = 1, .top_p = 1}},
    {"top_p 0.95", {.temperature = 1, .top_p = 0.95f}},
    {"top_k 50", {.temperature = 1, .top_p = 1, .top_k = 50}},
    {"top_k 50, top_p 0.95", {.temperature = 1, .top_p = 0.95f, .top_k = 50}},
    {"min_p 0.05", {.temperature = 1, .top_p = 1, .min_p = 0.05f}},
    {"all of it",
     {.temperature = 0.8f,
      .top_p = 0.95f,
      .top_k = 200,
      .min_p = 0.01f,
      .repetition_penalty = 1.1f,
      .frequency_penalty = 0.3f,
      .logprobs = true,
      .top_logprobs = 20}},
};

static void run_row(bench *b, bt_rng *rng)
{
    double head = head_seconds(b);
    printf("%s\nhead matmul             %9.3f ms\n", b->kernels->name, head * 1e3);
    for (int flat = 0; flat < 2; flat++) {
        /* The sum of twelve uniform numbers is nearly normal. */
        for (uint32_t i = 0; i < b->vocab; i++) {
            double sum = -6;
            for (int j = 0; j < 12; j++) sum += bt_rng_double(rng);
            b->logits[i] = (float)(sum * (flat ? 0.1 : 2));
        }
        for (uint32_t i = 0; i < 20 && !flat; i++) /* a model is surer than chance */
            b->logits[(i * 7919 + 5) % b->vocab] = 20 - (float)i;
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            double seconds = sample_seconds(b, &cases[i].sampling);
            printf("%-6s %-22s %9.3f ms  %5.3f of the head\n", flat ? "flat" : "peaked",
                   cases[i].name, seconds * 1e3, seconds / head);
        }
    }
}

int main(int argc, char **argv)
{
    bench b = {.vocab = argc > 1 ? (uint32_t)atoi(argv[1]) : 152064,
               .hidden = argc > 2 ? (uint32_t)atoi(argv[2]) : 896};
    if (b.vocab == 0 || b.hidden == 0) return 2;
    size_t weights = (size_t)b.vocab * b.hidden;
    b.logits = malloc(b.vocab * sizeof(float));
    b.x = malloc(b.hidden * sizeof(float));
    b.y = malloc(b.vocab * sizeof(float));
    b.head = malloc(weights * sizeof(uint16_t));
    b.history = malloc(HISTORY * sizeof(uint32_t));
    b.scratch = malloc(bt_sample_scratch_bytes(b.vocab));
    if (!b.logits || !b.x || !b.y || !b.head || !b.history || !b.scratch) return 1;
    bt_rng rng;
    bt_rng_init(&rng, 1);
    memset(b.head, 0x3c, weights * sizeof(uint16_t));
    for (uint32_t i = 0; i < b.hidden; i++) b.x[i] = (float)bt_rng_double(&rng);
    for (uint32_t i = 0; i < HISTORY; i++) b.history[i] = (uint32_t)bt_rng_below(&rng, b.vocab);
    printf("vocabulary %u, hidden %u, bf16 head, one thread, history of %u tokens\n", b.vocab,
           b.hidden, HISTORY);
    for (unsigned i = 0; i < bt_kernels_row_count; i++) {
        b.kernels = bt_kernels_rows[i];
        if (b.kernels->supported()) run_row(&b, &rng);
    }
    return 0;
}
