/* What the engine makes of this machine, on a checkpoint (the demo model by default):
 *
 *   stream, fma   what one pass over 512 MiB and a loop of FMAs reach on all threads, in this run
 *   prefill       tokens/s of prompts of 64, 256 and 1,000 tokens, and the part of the FMA peak
 *   decode        tokens/s of 1, 4 and 16 sequences after 128 tokens, and the part of the stream
 *                 rate that one pass over the weights for each step amounts to
 *
 * Usage: bench_engine [MODEL-DIR [THREADS]]. Best of several rounds, and beside wall time what one
 * second of one core makes: the machine may be shared. */
#include "common/base/clock.h"
#include "common/base/crypto.h"
#include "common/engine/engine.h"
#include "common/engine/team.h"
#include "kernels/dispatch.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SEQS 16u
#define PROMPT_MAX 1000u
#define ROUNDS 5
#define STREAM_BYTES ((size_t)512 << 20)
#define CHUNKS 64u

static void must(bt_status status, const bt_err *err)
{
    if (status == BT_OK) return;
    fprintf(stderr, "bench_engine: %s\n", err->message);
    exit(1);
}

static double seconds_since(uint64_t start_ns)
{
    return (double)(bt_monotonic_ns() - start_ns) * 1e-9;
}

/* Processor time of all threads so far: what a shared machine gave us. */
static double core_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* --- the machine --- */

typedef struct {
    bt_matmul_fn *matmul;
    bt_matmul op;
    uint32_t rounds;
} peak_job;

/* Dot products of one row with CHUNKS parts of a large matrix: reads it once. */
static void stream_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    (void)worker;
    const peak_job *job = arg;
    uint32_t columns = job->op.n / CHUNKS;
    job->matmul(&job->op, chunk * columns, (chunk + 1) * columns);
}

/* The matmul kernel on operands that stay in the first-level cache. */
static void fma_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    const peak_job *job = arg;
    static float results[BT_TEAM_THREADS_MAX][6 * 8];
    bt_matmul op = job->op;
    op.y = results[worker];
    for (uint32_t i = 0; i < job->rounds; i++) job->matmul(&op, 0, op.n);
    (void)chunk;
}

static double stream_rate(bt_team *team)
{
    uint32_t k = 4096, n = (uint32_t)(STREAM_BYTES / (k * sizeof(float)));
    float *w = malloc(STREAM_BYTES), *x = calloc(k, sizeof(float)), *y = malloc(n * sizeof(float));
    if (!w || !x || !y) exit(1);
    memset(w, 1, STREAM_BYTES); /* not zeros: those would be one page of the kernel */
    peak_job job = {.matmul = bt_kernels_best()->matmul,
                    .op = {.x = x,
                           .w = w,
                           .y = y,
                           .w_dtype = BT_DTYPE_F32,
                           .m = 1,
                           .n = n,
                           .k = k,
                           .x_stride = k,
                           .y_stride = n}};
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = bt_monotonic_ns();
        bt_team_run(team, stream_chunk, &job, CHUNKS);
        double rate = (double)STREAM_BYTES / seconds_since(start);
        if (rate > best) best = rate;
    }
    free(w);
    free(x);
    free(y);
    return best;
}

static double fma_rate(bt_team *team)
{
    enum { M = 6, N = 8, K = 256, INNER = 2000 };
    static float x[M * K], w[N * K];
    peak_job job = {.matmul = bt_kernels_best()->matmul,
                    .op = {.x = x,
                           .w = w,
                           .w_dtype = BT_DTYPE_F32,
                           .m = M,
                           .n = N,
                           .k = K,
                           .x_stride = K,
                           .y_stride = N},
                    .rounds = INNER};
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = bt_monotonic_ns();
        bt_team_run(team, fma_chunk, &job, 4);
        double rate = 2.0 * M * N * K * INNER * 4 / seconds_since(start);
        if (rate > best) best = rate;
    }
    return best;
}

/* --- the engine --- */

typedef struct {
    bt_engine *engine;
    bt_engine_seq seqs[SEQS];
    uint32_t tokens[PROMPT_MAX];
    uint32_t blocks[SEQS][64];
} fixture;

/* Seconds of one batch, from submit until its end was polled. */
static double run_batch(fixture *f, uint32_t seq_count)
{
    bt_err err;
    bt_engine_event event;
    uint64_t start = bt_monotonic_ns();
    const bt_engine_batch batch = {.seq_count = seq_count, .seqs = f->seqs};
    must(bt_engine_submit(f->engine, &batch, &err), &err);
    do {
        bt_engine_wait(f->engine);
        bt_engine_poll(f->engine, &event, 1);
    } while (event.kind != BT_ENGINE_BATCH_DONE);
    return seconds_since(start);
}

static void set_seqs(fixture *f, uint32_t position, uint32_t tokens)
{
    for (uint32_t i = 0; i < SEQS; i++)
        f->seqs[i] = (bt_engine_seq){.handle = i,
                                     .position = position,
                                     .token_count = tokens,
                                     .tokens = f->tokens,
                                     .blocks = f->blocks[i],
                                     .block_count = 64,
                                     .sample = true,
                                     .sampling = {.top_p = 1}};
}

/* Best wall and best processor seconds of one repeated measurement. */
typedef struct {
    double wall, cores;
} best_times;

static void take_best(best_times *best, double wall, double cores)
{
    if (best->wall == 0 || wall < best->wall) best->wall = wall;
    if (best->cores == 0 || cores < best->cores) best->cores = cores;
}

static void bench_prefill(fixture *f, double flops_per_token, double peak)
{
    static const uint32_t prompts[] = {64, 256, PROMPT_MAX};
    for (int p = 0; p < 3; p++) {
        best_times best = {0};
        for (int round = 0; round < ROUNDS; round++) {
            double before = core_seconds();
            set_seqs(f, 0, prompts[p]);
            double wall = run_batch(f, 1);
            take_best(&best, wall, core_seconds() - before);
        }
        double rate = prompts[p] / best.wall;
        printf("prefill %4u tokens     %7.0f tokens/s %7.0f per core-second %7.2f ms  %3.0f %% of "
               "the FMA rate\n",
               prompts[p], rate, prompts[p] / best.cores, best.wall * 1e3,
               100 * rate * flops_per_token / peak);
    }
}

static void bench_decode(fixture *f, double weight_bytes, double stream)
{
    enum { STEPS = 100 };
    static const uint32_t counts[] = {1, 4, SEQS};
    for (int c = 0; c < 3; c++) {
        best_times best = {0};
        for (int round = 0; round < ROUNDS; round++) {
            double before = core_seconds(), wall = 0;
            for (uint32_t step = 0; step < STEPS; step++) {
                set_seqs(f, 128 + step, 1);
                wall += run_batch(f, counts[c]);
            }
            take_best(&best, wall, core_seconds() - before);
        }
        double tokens = (double)counts[c] * STEPS;
        printf("decode  %4u sequences  %7.0f tokens/s %7.0f per core-second %7.2f ms  %3.0f %% of "
               "the stream rate\n",
               counts[c], tokens / best.wall, tokens / best.cores, best.wall / STEPS * 1e3,
               100 * weight_bytes * STEPS / best.wall / stream);
    }
}

static double weight_count(const bt_model_config *m)
{
    double q = (double)m->q_heads * m->head_dim, kv = (double)m->kv_heads * m->head_dim;
    return m->layers * (2 * m->hidden * q + 2 * m->hidden * kv + 3.0 * m->hidden * m->mlp);
}

int main(int argc, char **argv)
{
    static fixture f;
    bt_err err;
    bt_model *model;
    bt_team *team;
    cpu_set_t cores;
    sched_getaffinity(0, sizeof(cores), &cores);
    uint32_t threads = argc > 2 ? (uint32_t)atoi(argv[2]) : (uint32_t)CPU_COUNT(&cores);
    must(bt_crypto_start(&err), &err);
    must(bt_model_open(argc > 1 ? argv[1] : "ops/model", &model, &err), &err);
    must(bt_team_create(threads, &team, &err), &err);
    const bt_model_config *m = bt_model_config_of(model);
    const bt_engine_config config = {.backend = "cpu",
                                     .block_tokens = 16,
                                     .pool_blocks = SEQS * 64,
                                     .batch_seqs_max = SEQS,
                                     .batch_tokens_max = SEQS * 128,
                                     .threads = threads};
    double stream = stream_rate(team), peak = fma_rate(team), weights = weight_count(m);
    double head = (double)m->vocab * m->hidden;
    bt_team_destroy(team);
    must(bt_engine_create(model, &config, &f.engine, &err), &err);
    for (uint32_t i = 0; i < PROMPT_MAX; i++) f.tokens[i] = i * 37 % m->vocab;
    for (uint32_t i = 0; i < SEQS * 64; i++) f.blocks[i / 64][i % 64] = i;

    printf("%s, %.1f M weights in %s, kernels %s, %u threads\n", bt_model_name(model),
           (weights + head) * 1e-6, bt_dtype_name(m->dtype), bt_kernels_best()->name, threads);
    printf("stream   %8.1f GB/s\nfma      %8.1f GFLOP/s\n", stream * 1e-9, peak * 1e-9);
    bench_prefill(&f, 2 * weights, peak);
    bench_decode(&f, (weights + head) * (double)bt_dtype_bytes(m->dtype), stream);
    bt_engine_destroy(f.engine);
    bt_model_close(model);
    return 0;
}
