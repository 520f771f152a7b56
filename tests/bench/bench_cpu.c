/* The matrix kernels of each kind of CPU, against what this machine can do in the same run:
 *
 *   gemv  one row of x (decode): GB/s of weights read, and beside it a loop that only reads the
 *         same bytes on the same threads. A footprint of 24 MiB is beyond second-level caches and
 *         within a large third; one of 1 GiB comes from memory unless the last cache is larger.
 *         int8 weights have scales of f32 among them, which count as bytes read.
 *   gemm  many rows (prefill): GFLOP/s, packing of x included, and beside it sgemm of OpenBLAS on
 *         the same f32 operands and threads, which packs both operands in each call as BLAS does.
 *         OpenBLAS is told to use the same instructions: Haswell for avx2, else SkylakeX, unless
 *         OPENBLAS_CORETYPE is set.
 *
 * Usage: bench_cpu [--row NAME] [--threads N] [--openblas PATH] [--quick]
 * Every row this CPU has (kernels/dispatch.h) runs in a process of its own. Passes of ours and of
 * the reference alternate for a second (--quick: a tenth, and fewer shapes); each keeps its best, since the machine
 * may be shared. */
#include "common/base/clock.h"
#include "common/base/rng.h"
#include "common/engine/team.h"
#include "kernels/dispatch.h"
#include "kernels/numerics.h"

#include <dlfcn.h>
#include <immintrin.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define CACHE_BYTES ((size_t)24 << 20)
#define MEMORY_BYTES ((size_t)1 << 30)
#define CHUNKS_PER_THREAD 4u
#define ROUNDS_MIN 3
#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

typedef void sgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                      const float *a, int lda, const float *b, int ldb, float beta, float *c,
                      int ldc);

typedef struct {
    const char *row; /* NULL: all */
    const char *openblas;
    uint32_t threads;
    bool quick;
} options;

typedef struct {
    const bt_kernels *kernels;
    bt_team *team;
    uint32_t threads;
    sgemm_fn *sgemm; /* NULL: no OpenBLAS */
    void *scratch;   /* [threads] */
    double seconds;  /* of one measurement */
} bench;

static void *map_bytes(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        fprintf(stderr, "bench_cpu: no memory for %zu bytes\n", bytes);
        exit(1);
    }
    (void)madvise(memory, bytes, MADV_HUGEPAGE);
    return memory;
}

static double seconds_since(uint64_t start_ns)
{
    return (double)(bt_monotonic_ns() - start_ns) * 1e-9;
}

static void keep_best(double *best, double seconds)
{
    if (*best == 0 || seconds < *best) *best = seconds;
}

/* --- reading alone --- */

typedef struct {
    const uint8_t *data;
    size_t chunk_bytes;
} read_job;

/* Adds up a chunk as integers, four streams at a time. */
__attribute__((target("avx2"))) static void read_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    (void)worker;
    const read_job *job = arg;
    size_t quarter = job->chunk_bytes / 4 & ~(size_t)63;
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

static void read_all(const bench *b, const void *data, size_t bytes)
{
    uint32_t chunks = b->threads * 8;
    read_job job = {.data = data, .chunk_bytes = bytes / chunks & ~(size_t)255};
    bt_team_run(b->team, read_chunk, &job, chunks);
}

/* --- one matrix over the team, as the engine does it --- */

typedef struct {
    const bench *b;
    const float *x;
    void *packed;
    const bt_linear *op;
    const bt_linear_ops *ops;
    uint32_t x_stride, chunk_panels, panels, chunk_tiles;
} linear_job;

static void pack_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    (void)worker;
    const linear_job *job = arg;
    uint32_t first = chunk * job->chunk_tiles, tiles = bt_linear_tiles(job->ops, job->op->m);
    uint32_t end = first + job->chunk_tiles < tiles ? first + job->chunk_tiles : tiles;
    job->ops->pack_x(job->x, job->x_stride, job->op->m, job->op->w->k, first, end, job->packed);
}

static void linear_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    const linear_job *job = arg;
    uint32_t first = chunk * job->chunk_panels;
    uint32_t end =
        first + job->chunk_panels < job->panels ? first + job->chunk_panels : job->panels;
    job->ops->run(job->op, first, end,
                  (uint8_t *)job->b->scratch + worker * BT_LINEAR_SCRATCH_BYTES);
}

static void linear_all(const bench *b, bt_compute compute, const float *x, void *packed,
                       const bt_linear *op)
{
    linear_job job = {.b = b,
                      .x = x,
                      .packed = packed,
                      .op = op,
                      .ops = b->kernels->linear[compute],
                      .x_stride = op->w->k,
                      .panels = bt_linear_panels(op->w->n)};
    uint32_t tiles = bt_linear_tiles(job.ops, op->m), chunks = b->threads * CHUNKS_PER_THREAD;
    job.chunk_tiles = (tiles + chunks - 1) / chunks;
    bt_team_run(b->team, pack_chunk, &job, (tiles + job.chunk_tiles - 1) / job.chunk_tiles);
    job.chunk_panels = ((job.panels + chunks - 1) / chunks + 3) & ~3u;
    bt_team_run(b->team, linear_chunk, &job,
                (job.panels + job.chunk_panels - 1) / job.chunk_panels);
}

/* --- gemv --- */

static void fill_panels(void *panels, bt_dtype dtype, size_t bytes)
{
    bt_rng rng;
    bt_rng_init(&rng, 1);
    uint16_t halves[4096];
    for (size_t i = 0; i < 4096; i++) {
        float x = (float)(2 * bt_rng_double(&rng) - 1);
        halves[i] = dtype == BT_DTYPE_F16 ? bt_f32_to_f16(x) : bt_f32_to_bf16(x);
    }
    for (size_t at = 0; at < bytes; at += sizeof(halves))
        memcpy((uint8_t *)panels + at, halves,
               bytes - at < sizeof(halves) ? bytes - at : sizeof(halves));
}

static void bench_gemv(const bench *b, bt_compute compute, bt_dtype dtype, uint32_t n, uint32_t k,
                       size_t footprint)
{
    size_t bytes = bt_linear_bytes(dtype, n, k), copies = (footprint + bytes - 1) / bytes;
    uint8_t *panels = map_bytes(copies * bytes);
    float *x = map_bytes(k * sizeof(float));
    size_t packed_bytes = b->kernels->linear[compute]->x_bytes(1, k);
    void *packed = map_bytes(packed_bytes);
    float *y = map_bytes(n * sizeof(float));
    fill_panels(panels, dtype, copies * bytes);
    for (uint32_t l = 0; l < k; l++) x[l] = 1.0f / (float)(l + 1);
    double ours = 0, reading = 0;
    uint64_t begin = bt_monotonic_ns();
    for (int round = 0; round < ROUNDS_MIN || seconds_since(begin) < b->seconds; round++) {
        uint64_t start = bt_monotonic_ns();
        read_all(b, panels, copies * bytes);
        keep_best(&reading, seconds_since(start));
        start = bt_monotonic_ns();
        for (size_t copy = 0; copy < copies; copy++) {
            const bt_linear_weights w = {panels + copy * bytes, dtype, n, k};
            const bt_linear op = {.w = &w, .x = packed, .y = y, .m = 1, .y_stride = n};
            linear_all(b, compute, x, packed, &op);
        }
        keep_best(&ours, seconds_since(start));
    }
    double gb = (double)(copies * bytes) * 1e-9;
    printf("%-6s gemv %-4s x %-4s n %6u k %5u  %5zu MiB  %6.1f GB/s  reading %6.1f  %3.0f %%\n",
           b->kernels->name, bt_compute_names[compute], bt_dtype_name(dtype), n, k,
           copies * bytes >> 20, gb / ours, gb / reading, 100 * reading / ours);
    munmap(panels, copies * bytes);
    munmap(x, k * sizeof(float));
    munmap(packed, packed_bytes);
    munmap(y, n * sizeof(float));
}

/* --- gemm --- */

static void bench_gemm(const bench *b, bt_compute compute, bt_dtype dtype, uint32_t m, uint32_t n,
                       uint32_t k)
{
    size_t bytes = bt_linear_bytes(dtype, n, k), rows_bytes = (size_t)n * k * sizeof(float);
    size_t x_bytes = (size_t)m * k * sizeof(float), y_bytes = (size_t)m * n * sizeof(float);
    uint8_t *panels = map_bytes(bytes);
    float *rows = map_bytes(rows_bytes), *x = map_bytes(x_bytes);
    size_t packed_bytes = b->kernels->linear[compute]->x_bytes(m, k);
    void *packed = map_bytes(packed_bytes);
    float *y = map_bytes(y_bytes);
    fill_panels(panels, dtype, bytes);
    bt_rng rng;
    bt_rng_init(&rng, 2);
    for (size_t i = 0; i < (size_t)m * k; i++) x[i] = (float)(2 * bt_rng_double(&rng) - 1);
    for (size_t i = 0; i < (size_t)n * k; i++) rows[i] = x[i % ((size_t)m * k)];
    const bt_linear_weights w = {panels, dtype, n, k};
    const bt_linear op = {.w = &w, .x = packed, .y = y, .m = m, .y_stride = n};
    double ours = 0, blas = 0, flops = 2.0 * m * n * k;
    uint64_t begin = bt_monotonic_ns();
    for (int round = 0; round < ROUNDS_MIN || seconds_since(begin) < b->seconds; round++) {
        uint64_t start = bt_monotonic_ns();
        linear_all(b, compute, x, packed, &op);
        keep_best(&ours, seconds_since(start));
        if (!b->sgemm) continue;
        start = bt_monotonic_ns();
        b->sgemm(101, 111, 112, (int)m, (int)n, (int)k, 1, x, (int)k, rows, (int)k, 0, y, (int)n);
        keep_best(&blas, seconds_since(start));
    }
    printf("%-6s gemm %-4s x %-4s m %4u n %6u k %5u  %7.1f GFLOP/s", b->kernels->name,
           bt_compute_names[compute], bt_dtype_name(dtype), m, n, k, flops / ours * 1e-9);
    if (b->sgemm) printf("  sgemm %7.1f  %4.0f %%", flops / blas * 1e-9, 100 * blas / ours);
    printf("\n");
    munmap(panels, bytes);
    munmap(rows, rows_bytes);
    munmap(x, x_bytes);
    munmap(packed, packed_bytes);
    munmap(y, y_bytes);
}

/* --- a row of the table --- */

static sgemm_fn *open_blas(const options *o, const char *row)
{
    /* Its own choice may be a core without these instructions where it does not know the CPU. */
    setenv("OPENBLAS_CORETYPE", strcmp(row, "avx2") == 0 ? "Haswell" : "SkylakeX", 0);
    const char *path = o->openblas ? o->openblas : "libopenblas.so.0";
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        printf("no OpenBLAS to compare with: %s (Debian: libopenblas0-pthread, or --openblas "
               "PATH)\n",
               dlerror());
        return NULL;
    }
    void (*set_threads)(int);
    char *(*config)(void);
    sgemm_fn *sgemm;
    *(void **)&set_threads = dlsym(library, "openblas_set_num_threads");
    *(void **)&config = dlsym(library, "openblas_get_corename");
    *(void **)&sgemm = dlsym(library, "cblas_sgemm");
    if (set_threads) set_threads((int)o->threads);
    if (config) printf("%s runs its kernels for %s\n", path, config());
    return sgemm;
}

static void bench_row(const options *o, const bt_kernels *kernels)
{
    static const uint32_t shapes[][2] = {{512, 256},   {256, 768},    {4096, 256}, {3072, 2048},
                                         {2048, 2048}, {16384, 2048}, {2048, 8192}};
    static const struct {
        bt_compute compute;
        bt_dtype dtype;
    } kinds[] = {{BT_COMPUTE_F32, BT_DTYPE_BF16},
                 {BT_COMPUTE_F32, BT_DTYPE_F32},
                 {BT_COMPUTE_BF16, BT_DTYPE_BF16},
                 {BT_COMPUTE_INT8, BT_DTYPE_INT8}};
    static const uint32_t rows[] = {64, 256, 1000};
    bench b = {.kernels = kernels, .threads = o->threads, .seconds = o->quick ? 0.1 : 1};
    bt_err err;
    if (bt_team_create(o->threads, &b.team, &err) != BT_OK) {
        fprintf(stderr, "bench_cpu: %s\n", err.message);
        exit(1);
    }
    b.scratch = map_bytes(o->threads * BT_LINEAR_SCRATCH_BYTES);
    b.sgemm = open_blas(o, kernels->name);
    size_t every = o->quick ? 3 : 1, row_counts = o->quick ? 2 : 3;
    for (size_t d = 0; d < 4; d++) {
        for (size_t s = 0; s < SHAPES; s += every)
            bench_gemv(&b, kinds[d].compute, kinds[d].dtype, shapes[s][0], shapes[s][1],
                       CACHE_BYTES);
        if (!o->quick) bench_gemv(&b, kinds[d].compute, kinds[d].dtype, 16384, 2048, MEMORY_BYTES);
        bench_gemv(&b, kinds[d].compute, kinds[d].dtype, 2048, 8192, MEMORY_BYTES);
    }
    for (size_t d = 0; d < 4; d++)
        for (size_t s = 0; s < SHAPES; s += every)
            for (size_t r = 0; r < row_counts; r++)
                bench_gemm(&b, kinds[d].compute, kinds[d].dtype, rows[r], shapes[s][0],
                           shapes[s][1]);
    bt_team_destroy(b.team);
}

static options parse(int argc, char **argv)
{
    cpu_set_t cores;
    sched_getaffinity(0, sizeof(cores), &cores);
    options o = {.threads = (uint32_t)CPU_COUNT(&cores)};
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--quick") == 0) {
            o.quick = true;
        } else if (strcmp(argv[i], "--row") == 0 && more) {
            o.row = argv[++i];
        } else if (strcmp(argv[i], "--openblas") == 0 && more) {
            o.openblas = argv[++i];
        } else if (strcmp(argv[i], "--threads") == 0 && more && atoi(argv[i + 1]) > 0) {
            o.threads = (uint32_t)atoi(argv[++i]);
        } else {
            fprintf(stderr, "usage: bench_cpu [--row NAME] [--threads N] [--openblas PATH] "
                            "[--quick]\n");
            exit(2);
        }
    }
    return o;
}

int main(int argc, char **argv)
{
    options o = parse(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    int failed = 0;
    for (unsigned i = bt_kernels_row_count; i-- > 0;) { /* avx2 first */
        const bt_kernels *row = bt_kernels_rows[i];
        if (o.row ? strcmp(o.row, row->name) != 0 : strcmp(row->name, "ref") == 0) continue;
        if (!row->supported()) {
            printf("%s: not on this CPU\n", row->name);
            continue;
        }
        pid_t child = fork(); /* OpenBLAS chooses its kernels once in a process */
        if (child == 0) {
            bench_row(&o, row);
            exit(0);
        }
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0) failed = 1;
    }
    return failed;
}
