/* cpu.c - the decoder graph on the CPU, over the kernels of kernels/dispatch.h.
 *
 * ROWS    A batch is flattened to rows: the new tokens of all sequences, one after the other.
 *         Everything but attention treats rows alike, so prefill chunks and decodes mix freely.
 * FLOW    for each layer: norm -> q,k,v -> rope -> append to the pool -> LAYER_DONE -> attention
 *         over the pool -> o -> norm -> gate,up,swiglu -> down. The residual is added by the norm
 *         that follows. The head is computed for the rows that sample only.
 * MEMORY  One arena of activations and one mapping for the pool, both made in create. Weights are
 *         read in place from the checkpoint's mapping, in their own dtype.
 * VALUES  Work is cut by columns, rows or (queries, KV head), never along a sum. */
#include "common/base/arena.h"
#include "common/engine/arch.h"
#include "common/engine/backend.h"
#include "common/engine/team.h"
#include "kernels/dispatch.h"
#include "kernels/embedding/embedding.h"
#include "kernels/kv_append/kv_append.h"
#include "kernels/rope/rope.h"
#include "kernels/sample/sample.h"

#include <assert.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* A chunk of a loop should outlast its claim by far: some microseconds of work. And a loop that is shared should
 * outlast the wake-up of a sleeping thread by far: below, about 50 us of work, the engine thread does it alone. On a machine
 * whose cores the daemon's loop wants too (it packs while the last rows of a prompt are computed), a helper that
 * loses its core with a chunk in hand costs more than all of such a loop. */
#define CHUNK_MACS_MIN 65536u
#define SHARED_MACS_MIN 524288u
#define CHUNK_ROWS 16u
#define CHUNKS_PER_THREAD 4u

/* Up to 16 queries of one sequence that go through attention together. */
typedef struct {
    uint32_t seq, row, position, count;
} query_block;

typedef struct {
    bt_model_config model;
    bt_engine_config config;
    bt_weights weights;
    const bt_kernels *kernels;
    bt_team *team;
    bt_kv_view kv;
    size_t kv_bytes;
    void *memory; /* of the arena of everything below */

    double *rope_frequencies; /* [head_dim / 2] */
    uint32_t *positions;      /* [rows] */
    float *rope;              /* [rows][head_dim] */
    float *x, *delta, *y;     /* [rows][hidden] residual stream, what to add to it, normalized */
    float *qkv;               /* [rows][q, k, v heads][head_dim] */
    float *attended;          /* [rows][q heads][head_dim] */
    float *gate, *up;         /* [rows][mlp] */
    query_block *query_blocks;
    uint32_t *sampled; /* [seqs] sequences that sample */
    float *logits;     /* [seqs][vocab] */
    bt_token *tokens;  /* [seqs] */
    uint8_t *scratch;  /* [threads][scratch_bytes] */
    size_t scratch_bytes;

    /* The batch being computed. */
    const bt_engine_batch *batch;
    uint32_t row_count, query_block_count, sampled_count, layer;
    _Atomic bool broken_logits;
} cpu;

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* --- loops shared by the team --- */

typedef struct {
    const cpu *self;
    const bt_matmul *ops; /* of the same x: their columns are taken as one range */
    uint32_t op_count, columns, chunk_columns;
} matmul_job;

static uint32_t chunk_columns(const cpu *self, uint64_t macs_per_column, uint32_t columns)
{
    uint64_t macs = macs_per_column * columns, chunks = macs / CHUNK_MACS_MIN;
    uint64_t chunks_max = (uint64_t)bt_team_threads(self->team) * CHUNKS_PER_THREAD;
    if (bt_team_threads(self->team) == 1 || macs < SHARED_MACS_MIN) return columns;
    if (chunks > chunks_max) chunks = chunks_max;
    uint32_t wanted = (uint32_t)((columns + chunks - 1) / chunks);
    return (wanted + 7u) & ~7u;
}

static void matmul_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    (void)worker;
    const matmul_job *job = arg;
    uint32_t first = chunk * job->chunk_columns;
    uint32_t end = min_u32(first + job->chunk_columns, job->columns);
    uint32_t base = 0;
    for (uint32_t i = 0; i < job->op_count && base < end; i++) {
        const bt_matmul *op = &job->ops[i];
        uint32_t from = first > base ? first - base : 0, to = min_u32(end - base, op->n);
        if (from < to) job->self->kernels->matmul(op, from, to);
        base += op->n;
    }
}

static void matmuls(const cpu *self, const bt_matmul *ops, uint32_t op_count)
{
    matmul_job job = {.self = self, .ops = ops, .op_count = op_count};
    for (uint32_t i = 0; i < op_count; i++) job.columns += ops[i].n;
    job.chunk_columns = chunk_columns(self, (uint64_t)ops[0].m * ops[0].k, job.columns);
    uint32_t chunks = (job.columns + job.chunk_columns - 1) / job.chunk_columns;
    bt_team_run(self->team, matmul_chunk, &job, chunks);
}

static bt_matmul matmul_of(const float *x, uint32_t rows, const bt_tensor *w, float *y,
                           uint32_t y_stride)
{
    return (bt_matmul){.x = x,
                       .w = w->data,
                       .y = y,
                       .w_dtype = w->dtype,
                       .m = rows,
                       .n = (uint32_t)w->shape[0],
                       .k = (uint32_t)w->shape[1],
                       .x_stride = (uint32_t)w->shape[1],
                       .y_stride = y_stride};
}

/* fn over the rows of the batch, some at a time; fn gets the chunk. */
static void for_rows(cpu *self, bt_team_fn *fn, void *arg)
{
    bt_team_run(self->team, fn, arg, (self->row_count + CHUNK_ROWS - 1) / CHUNK_ROWS);
}

typedef struct {
    const cpu *self;
    bt_rmsnorm op;
} norm_job;

static void norm_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    (void)worker;
    const norm_job *job = arg;
    uint32_t first = chunk * CHUNK_ROWS;
    job->self->kernels->rmsnorm(&job->op, first, min_u32(first + CHUNK_ROWS, job->self->row_count));
}

static void norm(cpu *self, const float *delta, const bt_tensor *w)
{
    norm_job job = {.self = self,
                    .op = {.x = self->x,
                           .delta = delta,
                           .w = w->data,
                           .y = self->y,
                           .w_dtype = w->dtype,
                           .n = self->model.hidden,
                           .eps = self->model.rms_eps}};
    for_rows(self, norm_chunk, &job);
}

/* --- the parts of a layer --- */

static uint32_t qkv_stride(const cpu *self)
{
    return (self->model.q_heads + 2 * self->model.kv_heads) * self->model.head_dim;
}

static void project_qkv(cpu *self, const bt_layer *layer)
{
    uint32_t stride = qkv_stride(self), head_dim = self->model.head_dim;
    float *q = self->qkv, *k = q + (size_t)self->model.q_heads * head_dim;
    float *v = k + (size_t)self->model.kv_heads * head_dim;
    const bt_matmul ops[] = {
        matmul_of(self->y, self->row_count, &layer->tensor[BT_LAYER_Q], q, stride),
        matmul_of(self->y, self->row_count, &layer->tensor[BT_LAYER_K], k, stride),
        matmul_of(self->y, self->row_count, &layer->tensor[BT_LAYER_V], v, stride),
    };
    matmuls(self, ops, 3);
}

/* RoPE and append of a chunk of rows. The query blocks say whose rows they are. */
static void append_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    (void)worker;
    cpu *self = arg;
    const query_block *block = &self->query_blocks[chunk];
    const bt_engine_seq *seq = &self->batch->seqs[block->seq];
    const bt_model_config *m = &self->model;
    uint32_t block_tokens = self->config.block_tokens;
    for (uint32_t i = 0; i < block->count; i++) {
        size_t row = block->row + i;
        uint32_t position = block->position + i;
        float *q = self->qkv + row * qkv_stride(self);
        float *k = q + (size_t)m->q_heads * m->head_dim;
        bt_rope_apply(self->rope + row * m->head_dim, m->q_heads + m->kv_heads, m->head_dim, q);
        bt_kv_append(&self->kv, self->layer, seq->blocks[position / block_tokens],
                     position % block_tokens, k, k + (size_t)m->kv_heads * m->head_dim);
    }
}

static void attention_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    cpu *self = arg;
    const bt_model_config *m = &self->model;
    const query_block *block = &self->query_blocks[chunk / m->kv_heads];
    uint32_t kv_head = chunk % m->kv_heads, group = m->q_heads / m->kv_heads;
    size_t head = (size_t)kv_head * group * m->head_dim;
    uint32_t o_stride = m->q_heads * m->head_dim;
    const bt_attention op = {.kv = &self->kv,
                             .blocks = self->batch->seqs[block->seq].blocks,
                             .q = self->qkv + (size_t)block->row * qkv_stride(self) + head,
                             .o = self->attended + (size_t)block->row * o_stride + head,
                             .layer = self->layer,
                             .kv_head = kv_head,
                             .group = group,
                             .position = block->position,
                             .count = block->count,
                             .q_stride = qkv_stride(self),
                             .o_stride = o_stride};
    self->kernels->attention(&op, self->scratch + worker * self->scratch_bytes);
}

static void run_attention(cpu *self)
{
    uint32_t chunks = self->query_block_count * self->model.kv_heads;
    uint64_t macs = 0, width = 2ull * self->model.q_heads * self->model.head_dim;
    for (uint32_t i = 0; i < self->query_block_count; i++) {
        const query_block *block = &self->query_blocks[i];
        macs += width * block->count * (block->position + block->count);
    }
    if (macs >= SHARED_MACS_MIN) {
        bt_team_run(self->team, attention_chunk, self, chunks);
        return;
    }
    for (uint32_t chunk = 0; chunk < chunks; chunk++) attention_chunk(self, chunk, 0);
}

typedef struct {
    const cpu *self;
    bt_matmul gate, up;
    bt_swiglu swiglu;
    uint32_t chunk_columns;
} mlp_job;

static void gate_up_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    (void)worker;
    const mlp_job *job = arg;
    uint32_t first = chunk * job->chunk_columns;
    uint32_t end = min_u32(first + job->chunk_columns, job->gate.n);
    job->self->kernels->matmul(&job->gate, first, end);
    job->self->kernels->matmul(&job->up, first, end);
    job->self->kernels->swiglu(&job->swiglu, first, end);
}

static void mlp(cpu *self, const bt_layer *layer)
{
    uint32_t rows = self->row_count, width = self->model.mlp;
    mlp_job job = {.self = self,
                   .gate =
                       matmul_of(self->y, rows, &layer->tensor[BT_LAYER_GATE], self->gate, width),
                   .up = matmul_of(self->y, rows, &layer->tensor[BT_LAYER_UP], self->up, width),
                   .swiglu = {.gate = self->gate, .up = self->up, .rows = rows, .stride = width},
                   .chunk_columns = chunk_columns(self, 2ull * rows * self->model.hidden, width)};
    bt_team_run(self->team, gate_up_chunk, &job,
                (width + job.chunk_columns - 1) / job.chunk_columns);
    const bt_matmul down =
        matmul_of(self->gate, rows, &layer->tensor[BT_LAYER_DOWN], self->delta, self->model.hidden);
    matmuls(self, &down, 1);
}

/* Once the last layer's K and V are in the pool, only the rows that sample matter: the others leave
 * the batch. A chunk that is not a prompt's last, and most of its last chunk, so skips the last
 * layer's attention and MLP, and the first token follows the last layer's KV at once. Rows move
 * towards the front in order, so none overwrites one that is still needed. */
static void keep_sampled_rows(cpu *self)
{
    size_t hidden = self->model.hidden, stride = qkv_stride(self), row = 0;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < self->batch->seq_count; i++) {
        const bt_engine_seq *seq = &self->batch->seqs[i];
        row += seq->token_count;
        if (!seq->sample) continue;
        memmove(self->x + kept * hidden, self->x + (row - 1) * hidden, hidden * sizeof(float));
        memmove(self->qkv + kept * stride, self->qkv + (row - 1) * stride, stride * sizeof(float));
        self->query_blocks[kept] = (query_block){
            .seq = i, .row = kept, .position = seq->position + seq->token_count - 1, .count = 1};
        self->sampled[kept++] = i;
    }
    self->row_count = self->query_block_count = self->sampled_count = kept;
}

static void run_layer(cpu *self, uint32_t index, const bt_backend_sink *sink)
{
    const bt_layer *layer = &self->weights.layers[index];
    self->layer = index;
    norm(self, index > 0 ? self->delta : NULL, &layer->tensor[BT_LAYER_ATTN_NORM]);
    project_qkv(self, layer);
    bt_team_run(self->team, append_chunk, self, self->query_block_count);
    sink->layer_done(sink->arg, index);
    if (index + 1 == self->model.layers) keep_sampled_rows(self);
    if (self->row_count == 0) return;
    run_attention(self);
    const bt_matmul o = matmul_of(self->attended, self->row_count, &layer->tensor[BT_LAYER_O],
                                  self->delta, self->model.hidden);
    matmuls(self, &o, 1);
    norm(self, self->delta, &layer->tensor[BT_LAYER_MLP_NORM]);
    mlp(self, layer);
}

/* --- the head --- */

static void sample_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    cpu *self = arg;
    const bt_engine_seq *seq = &self->batch->seqs[self->sampled[chunk]];
    const float *logits = self->logits + (size_t)chunk * self->model.vocab;
    if (!bt_sample(logits, self->model.vocab, &seq->sampling, seq->position + seq->token_count,
                   self->scratch + worker * self->scratch_bytes, &self->tokens[chunk]))
        atomic_store(&self->broken_logits, true);
}

static bt_status run_head(cpu *self, const bt_backend_sink *sink)
{
    uint32_t count = self->sampled_count;
    if (count == 0) return BT_OK;
    norm(self, self->delta, &self->weights.norm);
    const bt_matmul head =
        matmul_of(self->y, count, &self->weights.head, self->logits, self->model.vocab);
    matmuls(self, &head, 1);
    atomic_store(&self->broken_logits, false);
    bt_team_run(self->team, sample_chunk, self, count);
    if (atomic_load(&self->broken_logits)) return BT_ERR_FORMAT;
    for (uint32_t i = 0; i < count; i++) sink->token(sink->arg, self->sampled[i], &self->tokens[i]);
    return BT_OK;
}

/* --- one batch --- */

/* Flattens the batch to rows: positions, embeddings, query blocks. */
static void lay_out(cpu *self, const bt_engine_batch *batch)
{
    const bt_tensor *table = &self->weights.embedding;
    self->batch = batch;
    self->row_count = self->query_block_count = 0;
    for (uint32_t i = 0; i < batch->seq_count; i++) {
        const bt_engine_seq *seq = &batch->seqs[i];
        bt_embed(seq->tokens, seq->token_count, table->data, table->dtype, self->model.hidden,
                 self->x + (size_t)self->row_count * self->model.hidden);
        for (uint32_t done = 0; done < seq->token_count;) {
            uint32_t count = min_u32(seq->token_count - done, BT_ATTENTION_QUERIES_MAX);
            self->query_blocks[self->query_block_count++] =
                (query_block){.seq = i,
                              .row = self->row_count + done,
                              .position = seq->position + done,
                              .count = count};
            done += count;
        }
        for (uint32_t t = 0; t < seq->token_count; t++)
            self->positions[self->row_count++] = seq->position + t;
    }
    assert(self->row_count <= self->config.batch_tokens_max);
    bt_rope_table(self->positions, self->row_count, self->rope_frequencies, self->model.head_dim,
                  self->rope);
}

static bt_status cpu_run(void *arg, const bt_engine_batch *batch, const bt_backend_sink *sink)
{
    cpu *self = arg;
    lay_out(self, batch);
    for (uint32_t layer = 0; layer < self->model.layers; layer++) run_layer(self, layer, sink);
    return run_head(self, sink);
}

/* --- create and destroy --- */

static uint32_t core_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
    int count = CPU_COUNT(&set);
    return count < 1 ? 1 : min_u32((uint32_t)count, BT_TEAM_THREADS_MAX);
}

static void carve(cpu *self, bt_arena *arena)
{
    const bt_model_config *m = &self->model;
    size_t rows = self->config.batch_tokens_max, seqs = self->config.batch_seqs_max;
    self->rope_frequencies = BT_ARENA_NEW(arena, double, m->head_dim / 2);
    self->positions = BT_ARENA_NEW(arena, uint32_t, rows);
    self->rope = BT_ARENA_NEW(arena, float, rows * m->head_dim);
    self->x = BT_ARENA_NEW(arena, float, rows * m->hidden);
    self->delta = BT_ARENA_NEW(arena, float, rows * m->hidden);
    self->y = BT_ARENA_NEW(arena, float, rows * m->hidden);
    self->qkv = BT_ARENA_NEW(arena, float, rows *qkv_stride(self));
    self->attended = BT_ARENA_NEW(arena, float, rows * m->q_heads * m->head_dim);
    self->gate = BT_ARENA_NEW(arena, float, rows * m->mlp);
    self->up = BT_ARENA_NEW(arena, float, rows * m->mlp);
    self->query_blocks =
        BT_ARENA_NEW(arena, query_block, rows / BT_ATTENTION_QUERIES_MAX + seqs + 1);
    self->sampled = BT_ARENA_NEW(arena, uint32_t, seqs);
    self->logits = BT_ARENA_NEW(arena, float, seqs * m->vocab);
    self->tokens = BT_ARENA_NEW(arena, bt_token, seqs);
    self->scratch = BT_ARENA_NEW(arena, uint8_t, bt_team_threads(self->team) * self->scratch_bytes);
}

static bt_status take_memory(cpu *self, bt_err *err)
{
    const bt_model_config *m = &self->model;
    size_t attention = bt_attention_scratch_bytes(m->q_heads / m->kv_heads, m->head_dim);
    size_t sample = bt_sample_scratch_bytes(m->vocab);
    self->scratch_bytes = ((attention > sample ? attention : sample) + 63) & ~(size_t)63;
    bt_arena arena;
    bt_arena_init(&arena, NULL, 0);
    carve(self, &arena);
    size_t bytes = (arena.used_bytes + BT_ARENA_ALIGN) & ~(size_t)(BT_ARENA_ALIGN - 1);
    self->memory = aligned_alloc(BT_ARENA_ALIGN, bytes);
    if (!self->memory) return BT_FAIL(err, BT_ERR_NO_MEMORY, "%zu bytes of activations", bytes);
    bt_arena_init(&arena, self->memory, bytes);
    carve(self, &arena);

    self->kv.shape = (bt_kv_shape){.dtype = self->config.kv_dtype,
                                   .layers = m->layers,
                                   .kv_heads = m->kv_heads,
                                   .head_dim = m->head_dim,
                                   .block_tokens = self->config.block_tokens,
                                   .pool_blocks = self->config.pool_blocks};
    self->kv_bytes = bt_kv_pool_bytes(&self->kv.shape);
    if (self->kv_bytes == 0)
        return BT_FAIL(err, BT_ERR_LIMIT, "a KV pool of %u blocks overflows",
                       self->config.pool_blocks);
    void *pool =
        mmap(NULL, self->kv_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pool == MAP_FAILED)
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "%zu bytes of KV pool", self->kv_bytes);
    self->kv.base = pool;
    /* Touched now: a handoff would wait for the page faults of blocks that are used for the first time. */
    (void)madvise(pool, self->kv_bytes, MADV_HUGEPAGE);
    memset(pool, 0, self->kv_bytes);
    return BT_OK;
}

/* What the kernels ask of shapes beyond what a config.json may say. */
static bt_status check_shapes(const bt_model *model, bt_err *err)
{
    const bt_model_config *m = bt_model_config_of(model);
    if (m->head_dim == 0 || m->head_dim % 8 != 0 || m->head_dim > BT_HEAD_DIM_MAX)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "%s: head_dim %u: allowed are multiples of 8 up to %u",
                       bt_model_dir(model), m->head_dim, BT_HEAD_DIM_MAX);
    if (m->kv_heads == 0 || m->q_heads % m->kv_heads != 0 || m->layers == 0 || m->vocab == 0)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "%s: %u query heads cannot share %u KV heads",
                       bt_model_dir(model), m->q_heads, m->kv_heads);
    return BT_OK;
}

static void cpu_destroy(void *arg)
{
    cpu *self = arg;
    if (!self) return;
    bt_team_destroy(self->team);
    bt_weights_release(&self->weights);
    if (self->kv.base) munmap(self->kv.base, self->kv_bytes);
    free(self->memory);
    free(self);
}

static bt_status create(const bt_model *model, const bt_engine_config *config,
                        const bt_kernels *kernels, void **ret_self, bt_err *err)
{
    bt_status status = check_shapes(model, err);
    if (status != BT_OK) return status;
    cpu *self = calloc(1, sizeof(*self));
    if (!self) return BT_FAIL(err, BT_ERR_NO_MEMORY, "a cpu engine");
    self->model = *bt_model_config_of(model);
    self->config = *config;
    self->kernels = kernels;
    status = bt_weights_bind(model, &self->weights, err);
    if (status == BT_OK)
        status = bt_team_create(config->threads ? config->threads : core_count(), &self->team, err);
    if (status == BT_OK) status = take_memory(self, err);
    if (status != BT_OK) {
        cpu_destroy(self);
        return status;
    }
    bt_rope_frequencies(self->model.rope_theta, self->model.head_dim, self->rope_frequencies);
    *ret_self = self;
    return BT_OK;
}

static bt_status cpu_create(const bt_model *model, const bt_engine_config *config, void **ret_self,
                            bt_err *err)
{
    return create(model, config, bt_kernels_best(), ret_self, err);
}

static bt_status cpu_ref_create(const bt_model *model, const bt_engine_config *config,
                                void **ret_self, bt_err *err)
{
    return create(model, config, bt_kernels_find("ref"), ret_self, err);
}

static bt_dtype cpu_kv_dtype_default(const bt_model_config *model)
{
    return model->dtype == BT_DTYPE_F32 ? BT_DTYPE_F32 : BT_DTYPE_BF16;
}

static const bt_kv_view *cpu_kv(const void *arg)
{
    return &((const cpu *)arg)->kv;
}

static const float *cpu_logits(const void *arg, uint32_t sampled)
{
    const cpu *self = arg;
    return self->logits + (size_t)sampled * self->model.vocab;
}

const bt_backend bt_backend_cpu = {
    .name = "cpu",
    .create = cpu_create,
    .destroy = cpu_destroy,
    .kv_dtype_default = cpu_kv_dtype_default,
    .kv = cpu_kv,
    .run = cpu_run,
    .logits = cpu_logits,
};

/* The same graph over the reference kernels: slow, and the oracle of the fast ones. */
const bt_backend bt_backend_cpu_ref = {
    .name = "cpu-ref",
    .create = cpu_ref_create,
    .destroy = cpu_destroy,
    .kv_dtype_default = cpu_kv_dtype_default,
    .kv = cpu_kv,
    .run = cpu_run,
    .logits = cpu_logits,
};
