/* What the engine makes of this machine, on a checkpoint (the demo model by default):
 *
 *   read, fma     what a loop that only reads as many bytes as one step reads weights reaches on all
 *                 threads, and a product whose operands stay in the first-level cache (f32), in
 *                 this run. Whether the weights come from a cache is a matter of their size.
 *   prefill       tokens/s of prompts of 64, 256 and 1,000 tokens, and the part of the FMA rate
 *   decode        tokens/s of 1, 4 and 16 sequences after 128 tokens, and the part of the reading
 *                 rate that one pass over the weights for each step amounts to
 *
 * tests/bench/random_model.py writes larger shapes than the demo model, to read weights from memory.
 * Usage: bench_engine [MODEL-DIR [THREADS [COMPUTE [KERNELS]]]], the last two as in engine.h. Best
 * of several rounds, reading between them, and beside wall time what one second of one core makes:
 * the machine may be shared. */
#include "common/base/clock.h"
#include "common/base/crypto.h"
#include "common/engine/engine.h"
#include "common/engine/team.h"
#include "kernels/dispatch.h"

#include <immintrin.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define SEQS 16u
#define PROMPT_MAX 1000u
#define ROUNDS 5
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
    const uint8_t *data;
    size_t chunk_bytes;
} read_job;

/* Adds up a chunk as integers, four streams at a time. */
__attribute__((target("avx2"))) static void read_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    (void)worker;
    const read_job *job = arg;
    size_t quarter = job->chunk_bytes / 4;
    const uint8_t *at = job->data + chunk * job->chunk_bytes;
    __m256i sum[8];
    for (int i = 0; i < 8; i++) sum[i] = _mm256_setzero_si256();
    for (size_t i = 0; i < quarter; i += 64) {
        for (int s = 0; s < 4; s++) {
            const __m256i *line = (const __m256i *)(at + s * quarter + i);
            _mm_prefetch((const char *)line + 2048, _MM_HINT_T0);
            sum[s] = _mm256_add_epi64(sum[s], _mm256_load_si256(line));
            sum[s + 4] = _mm256_add_epi64(sum[s + 4], _mm256_load_si256(line + 1));
        }
    }
    for (int i = 1; i < 8; i++) sum[0] = _mm256_add_epi64(sum[0], sum[i]);
    volatile long long sink = _mm256_extract_epi64(sum[0], 0);
    (void)sink;
}

/* Bytes/s of one pass over data, which the pass before left where it fits. */
static double read_rate(bt_team *team, const uint8_t *data, size_t bytes)
{
    read_job job = {.data = data, .chunk_bytes = bytes / CHUNKS & ~(size_t)255};
    double best = 0;
    for (int round = 0; round < 2; round++) {
        uint64_t start = bt_monotonic_ns();
        bt_team_run(team, read_chunk, &job, CHUNKS);
        double rate = (double)(job.chunk_bytes * CHUNKS) / seconds_since(start);
        if (rate > best) best = rate;
    }
    return best;
}

typedef struct {
    const bt_linear_ops *ops;
    bt_linear op;
    uint32_t rounds;
} peak_job;

/* The matrix kernel on operands that stay in the first-level cache. */
static void fma_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    (void)chunk;
    static _Alignas(64) uint8_t scratch[BT_TEAM_THREADS_MAX][64];
    static float results[BT_TEAM_THREADS_MAX][12 * 32];
    const peak_job *job = arg;
    bt_linear op = job->op;
    op.y = results[worker];
    for (uint32_t i = 0; i < job->rounds; i++) job->ops->run(&op, 0, 1, scratch[worker]);
}

static double fma_rate(bt_team *team, const bt_kernels *kernels)
{
    enum { M = 12, N = 32, K = 256, INNER = 2000 };
    static _Alignas(64) float x[M * K], w[N * K];
    const bt_linear_weights weights = {w, BT_DTYPE_F32, N, K};
    peak_job job = {.ops = kernels->linear[BT_COMPUTE_F32],
                    .op = {.w = &weights, .x = x, .m = M, .y_stride = N},
                    .rounds = INNER};
    double best = 0;
    uint32_t chunks = bt_team_threads(team) * 2;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = bt_monotonic_ns();
        bt_team_run(team, fma_chunk, &job, chunks);
        double rate = 2.0 * M * N * K * INNER * chunks / seconds_since(start);
        if (rate > best) best = rate;
    }
    return best;
}

/* --- the engine --- */

typedef struct {
    bt_engine *engine;
    bt_team *team;    /* for reading */
    uint8_t *weights; /* as many bytes as a step reads */
    size_t weight_bytes;
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

static void bench_decode(fixture *f)
{
    static const uint32_t counts[] = {1, 4, SEQS};
    /* about half a second a round */
    uint32_t steps = (uint32_t)(1e10 / (double)f->weight_bytes / 2) + 2;
    if (steps > 100) steps = 100;
    for (int c = 0; c < 3; c++) {
        best_times best = {0};
        double reading = 0;
        for (int round = 0; round < ROUNDS; round++) {
            double rate = read_rate(f->team, f->weights, f->weight_bytes);
            if (rate > reading) reading = rate;
            double before = core_seconds(), wall = 0;
            for (uint32_t step = 0; step < steps; step++) {
                set_seqs(f, 128 + step, 1);
                wall += run_batch(f, counts[c]);
            }
            take_best(&best, wall, core_seconds() - before);
        }
        double tokens = (double)counts[c] * steps;
        double rate = (double)f->weight_bytes * steps / best.wall;
        printf(
            "decode  %4u sequences  %7.0f tokens/s %7.0f per core-second %7.2f ms  %5.1f GB/s of "
            "weights, %3.0f %% of reading (%.1f)\n",
            counts[c], tokens / best.wall, tokens / best.cores, best.wall / steps * 1e3,
            rate * 1e-9, 100 * rate / reading, reading * 1e-9);
    }
}

/* Bytes of a step's weights as the engine holds them. */
static size_t packed_bytes(const bt_model_config *m, bt_compute compute)
{
    bt_dtype dtype = bt_linear_dtype(compute, m->dtype);
    uint32_t q = m->q_heads * m->head_dim, kv = m->kv_heads * m->head_dim;
    size_t layer =
        bt_linear_bytes(dtype, q + 2 * kv, m->hidden) + bt_linear_bytes(dtype, m->hidden, q) +
        2 * bt_linear_bytes(dtype, m->mlp, m->hidden) + bt_linear_bytes(dtype, m->hidden, m->mlp);
    return m->layers * layer + bt_linear_bytes(dtype, m->vocab, m->hidden);
}

static double weight_count(const bt_model_config *m)
{
    double q = (double)m->q_heads * m->head_dim, kv = (double)m->kv_heads * m->head_dim;
    return m->layers * (2 * m->hidden * q + 2 * m->hidden * kv + 3.0 * m->hidden * m->mlp);
}

static bt_compute compute_of(const char *name)
{
    for (int compute = 0; compute < BT_COMPUTE_COUNT; compute++)
        if (strcmp(bt_compute_names[compute], name) == 0) return (bt_compute)compute;
    fprintf(stderr, "bench_engine: there is no compute '%s'\n", name);
    exit(2);
}

static void prepare(fixture *f, const bt_model *model, const bt_engine_config *config)
{
    bt_err err;
    const bt_model_config *m = bt_model_config_of(model);
    must(bt_team_create(config->threads, &f->team, &err), &err);
    must(bt_engine_create(model, config, &f->engine, &err), &err);
    f->weight_bytes = packed_bytes(m, config->compute);
    size_t room = (f->weight_bytes + ((size_t)2 << 20)) & ~(((size_t)2 << 20) - 1);
    f->weights = aligned_alloc((size_t)2 << 20, room);
    if (!f->weights) exit(1);
    (void)madvise(f->weights, room, MADV_HUGEPAGE);
    memset(f->weights, 1, room);
    for (uint32_t i = 0; i < PROMPT_MAX; i++) f->tokens[i] = i * 37 % m->vocab;
    for (uint32_t i = 0; i < SEQS * 64; i++) f->blocks[i / 64][i % 64] = i;
}

int main(int argc, char **argv)
{
    static fixture f;
    bt_err err;
    bt_model *model;
    cpu_set_t cores;
    sched_getaffinity(0, sizeof(cores), &cores);
    const char *kernels = argc > 4 ? argv[4] : bt_kernels_best()->name;
    const bt_engine_config config = {.backend = "cpu",
                                     .block_tokens = 16,
                                     .pool_blocks = SEQS * 64,
                                     .batch_seqs_max = SEQS,
                                     .batch_tokens_max = SEQS * 128,
                                     .threads = argc > 2 ? (uint32_t)atoi(argv[2])
                                                         : (uint32_t)CPU_COUNT(&cores),
                                     .compute = argc > 3 ? compute_of(argv[3]) : BT_COMPUTE_F32,
                                     .kernels = kernels};
    setvbuf(stdout, NULL, _IOLBF, 0);
    must(bt_crypto_start(&err), &err);
    must(bt_model_open(argc > 1 ? argv[1] : "ops/model", &model, &err), &err);
    const bt_model_config *m = bt_model_config_of(model);
    prepare(&f, model, &config);
    double peak = fma_rate(f.team, bt_kernels_find(kernels)), weights = weight_count(m);
    printf("%s, %.1f M weights in %s, computed in %s, kernels %s, %u threads\n",
           bt_model_name(model), (weights + (double)m->vocab * m->hidden) * 1e-6,
           bt_dtype_name(m->dtype), bt_compute_names[config.compute], kernels, config.threads);
    printf("read     %8.1f GB/s over %.0f MB\nfma      %8.1f GFLOP/s\n",
           read_rate(f.team, f.weights, f.weight_bytes) * 1e-9, (double)f.weight_bytes * 1e-6,
           peak * 1e-9);
    bench_prefill(&f, 2 * weights, peak);
    bench_decode(&f);
    bt_engine_destroy(f.engine);
    bt_team_destroy(f.team);
    bt_model_close(model);
    free(f.weights);
    return 0;
}
