/* cpu.c - the decoder graph on the CPU, over the kernels of kernels/dispatch.h.
 *
 * ROWS    A batch is flattened to rows: the new tokens of all sequences, one after the other.
 *         Everything but attention treats rows alike, so prefill chunks and decodes mix freely.
 * FLOW    for each layer: norm -> q,k,v -> rope -> append to the pool -> LAYER_DONE -> attention
 *         over the pool -> o -> norm -> gate,up,swiglu -> down. The residual is added by the norm
 *         that follows. The head is computed for the rows that sample only. What a model may have
 *         besides (common/engine/arch.h): a bias after any of these products, a norm of each head of
 *         q and k before rope, layers without rope, layers whose attention has a window.
 * MEMORY  One arena of activations, one mapping for the pool and one for the packed matrices, all
 *         made in create. Matrices keep their dtype unless they are computed in another
 *         (kernels/linear/linear.h); their pages of the checkpoint's mapping are given back as they
 *         are packed, so that loading takes hardly more than the packed ones. Embedding and norms
 *         are read in place. (A checkpoint file below 64 MiB is in memory, and stays.)
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
/* Elements of x that one chunk packs: about as long as the wake-up it may cost. */
#define PACK_ELEMENTS_MIN 32768u
/* Panels of weights that one chunk packs at load. */
#define PACK_PANELS 16u
#define HUGE_PAGE_BYTES ((size_t)2 << 20)
#define CHUNKS_PER_THREAD 4u

/* Up to 16 queries of one sequence that go through attention together. */
typedef struct {
    uint32_t seq, row, position, count;
} query_block;

/* The matrices of a layer as packed; gate and up share their columns. */
typedef struct {
    bt_linear_weights qkv, o, gate, up, down;
} packed_layer;

typedef struct {
    bt_model_config model;
    bt_engine_config config;
    bt_weights weights;
    packed_layer *packed; /* [layers] */
    bt_linear_weights head;
    uint8_t *panels; /* of all of them */
    size_t panels_bytes;
    const bt_kernels *kernels;
    const bt_linear_ops *linear; /* of the kernels, for config.compute */
    bt_team *team;
    bt_kv_view kv;
    size_t kv_bytes;
    void *memory; /* of the arena of everything below */

    double *rope_frequencies; /* [rope.dims / 2] */
    uint32_t *positions;      /* [rows] */
    float *rope_table;        /* [rows][rope.dims] */
    float *x, *delta, *y;     /* [rows][hidden] residual stream, what to add to it, normalized */
    float *qkv;               /* [rows][q, k, v heads][head_dim] */
    float *attended;          /* [rows][q heads][head_dim] */
    float *gate, *up;         /* [rows][mlp] */
    void *packed_x;           /* [rows] of the widest x */
    query_block *query_blocks;
    uint32_t *sampled;                /* [seqs] sequences that sample */
    uint32_t *kept_first, *kept_last; /* [seqs] rows of each that are left for the head */
    float *logits;                    /* [seqs][vocab] */
    bt_token *tokens;                 /* [seqs] */
    bool *broken;                     /* [seqs] no token came of these logits */
    bt_token *scores;                 /* [rows] */
    uint8_t *scratch;                 /* [threads][scratch_bytes] */
    size_t scratch_bytes;

    /* The batch being computed. */
    const bt_engine_batch *batch;
    uint32_t row_count, query_block_count, sampled_count, layer;
} cpu;

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* --- loops shared by the team --- */

typedef struct {
    cpu *self;
    const float *x;
    uint32_t x_stride, rows, k, tiles, chunk_tiles;
} pack_job;

static void pack_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    (void)worker;
    const pack_job *job = arg;
    uint32_t first = chunk * job->chunk_tiles;
    job->self->linear->pack_x(job->x, job->x_stride, job->rows, job->k, first,
                              min_u32(first + job->chunk_tiles, job->tiles), job->self->packed_x);
}

/* Rows of k, side by side, into packed_x: what the next matrices take. */
static void pack_x(cpu *self, const float *x, uint32_t rows, uint32_t k)
{
    pack_job job = {.self = self,
                    .x = x,
                    .x_stride = k,
                    .rows = rows,
                    .k = k,
                    .tiles = bt_linear_tiles(self->linear, rows)};
    uint64_t chunks = (uint64_t)rows * k / PACK_ELEMENTS_MIN + 1;
    job.chunk_tiles = (uint32_t)((job.tiles + chunks - 1) / chunks);
    bt_team_run(self->team, pack_chunk, &job, (job.tiles + job.chunk_tiles - 1) / job.chunk_tiles);
}

typedef struct {
    const cpu *self;
    bt_linear op;
    uint32_t panels, chunk_panels;
} linear_job;

static uint32_t chunk_panels(const cpu *self, uint64_t macs_per_panel, uint32_t rows,
                             uint32_t panels)
{
    uint64_t macs = macs_per_panel * panels, chunks = macs / CHUNK_MACS_MIN;
    uint64_t chunks_max = (uint64_t)bt_team_threads(self->team) * CHUNKS_PER_THREAD;
    if (bt_team_threads(self->team) == 1 || macs < SHARED_MACS_MIN) return panels;
    if (chunks > chunks_max) chunks = chunks_max;
    uint32_t wanted = (uint32_t)((panels + chunks - 1) / chunks);
    uint32_t together = rows <= 3 ? 4 : rows <= 6 ? 2 : 1; /* panels that a tile may span */
    return (wanted + together - 1) & ~(together - 1);
}

static void *scratch_of(const cpu *self, uint32_t worker)
{
    return self->scratch + worker * self->scratch_bytes;
}

static void linear_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    const linear_job *job = arg;
    uint32_t first = chunk * job->chunk_panels;
    job->self->linear->run(&job->op, first, min_u32(first + job->chunk_panels, job->panels),
                           scratch_of(job->self, worker));
}

/* y = packed_x * w for rows rows. */
static void linear(const cpu *self, const bt_linear_weights *w, uint32_t rows, float *y)
{
    linear_job job = {
        .self = self,
        .op = {.w = w, .x = self->packed_x, .y = y, .m = rows, .y_stride = w->n},
        .panels = bt_linear_panels(w->n),
    };
    uint64_t macs_per_panel = (uint64_t)rows * w->k * BT_LINEAR_PANEL;
    job.chunk_panels = chunk_panels(self, macs_per_panel, rows, job.panels);
    bt_team_run(self->team, linear_chunk, &job,
                (job.panels + job.chunk_panels - 1) / job.chunk_panels);
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

static void project_qkv(cpu *self, uint32_t layer)
{
    pack_x(self, self->y, self->row_count, self->model.hidden);
    linear(self, &self->packed[layer].qkv, self->row_count, self->qkv);
}

/* Adds a bias to the columns [first, end) of rows that follow each other, if the model has it. */
static void add_bias(const cpu *self, const bt_tensor *bias, float *y, uint32_t rows,
                     uint32_t first, uint32_t end)
{
    if (!bias->data) return;
    uint32_t width = (uint32_t)bias->shape[0];
    const bt_bias op = {
        .y = y, .b = bias->data, .b_dtype = bias->dtype, .rows = rows, .stride = width};
    self->kernels->bias(&op, first, end < width ? end : width);
}

static void norm_heads(const cpu *self, const bt_tensor *w, float *x, uint32_t heads)
{
    const bt_rmsnorm op = {.x = x,
                           .w = w->data,
                           .y = x,
                           .w_dtype = w->dtype,
                           .n = self->model.head_dim,
                           .eps = self->model.rms_eps};
    self->kernels->rmsnorm(&op, 0, heads);
}

/* One row of q, k, v as projected to what attention takes: biases, norms of heads, RoPE. */
static void finish_qkv_row(const cpu *self, size_t row)
{
    const bt_model_config *m = &self->model;
    const bt_tensor *t = self->weights.layers[self->layer].tensor;
    float *q = self->qkv + row * qkv_stride(self), *k = q + (size_t)m->q_heads * m->head_dim;
    float *v = k + (size_t)m->kv_heads * m->head_dim;
    add_bias(self, &t[BT_LAYER_Q_BIAS], q, 1, 0, UINT32_MAX);
    add_bias(self, &t[BT_LAYER_K_BIAS], k, 1, 0, UINT32_MAX);
    add_bias(self, &t[BT_LAYER_V_BIAS], v, 1, 0, UINT32_MAX);
    if (m->qk_norm) {
        norm_heads(self, &t[BT_LAYER_Q_NORM], q, m->q_heads);
        norm_heads(self, &t[BT_LAYER_K_NORM], k, m->kv_heads);
    }
    if (m->layer_options[self->layer] & BT_LAYER_NO_ROPE) return;
    bt_rope_apply(self->rope_table + row * m->rope.dims, m->rope.dims, m->q_heads + m->kv_heads,
                  m->head_dim, q);
}

/* Finishes and appends a chunk of rows. The query blocks say whose rows they are. */
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
        const float *k = self->qkv + row * qkv_stride(self) + (size_t)m->q_heads * m->head_dim;
        finish_qkv_row(self, row);
        bt_kv_append(&self->kv, self->layer, seq->blocks[position / block_tokens],
                     position % block_tokens, k, k + (size_t)m->kv_heads * m->head_dim);
    }
}

static uint32_t window_of(const cpu *self)
{
    bool windowed = (self->model.layer_options[self->layer] & BT_LAYER_WINDOWED) != 0;
    return windowed ? self->model.window_tokens : 0;
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
                             .window = window_of(self),
                             .q_stride = qkv_stride(self),
                             .o_stride = o_stride};
    self->kernels->attention(&op, scratch_of(self, worker));
}

static void run_attention(cpu *self)
{
    uint32_t chunks = self->query_block_count * self->model.kv_heads;
    uint64_t macs = 0, width = 2ull * self->model.q_heads * self->model.head_dim;
    uint32_t window = window_of(self) ? window_of(self) : UINT32_MAX;
    for (uint32_t i = 0; i < self->query_block_count; i++) {
        const query_block *block = &self->query_blocks[i];
        macs += width * block->count * min_u32(block->position + block->count, window);
    }
    if (macs >= SHARED_MACS_MIN) {
        bt_team_run(self->team, attention_chunk, self, chunks);
        return;
    }
    for (uint32_t chunk = 0; chunk < chunks; chunk++) attention_chunk(self, chunk, 0);
}

typedef struct {
    const cpu *self;
    bt_linear gate, up;
    bt_swiglu swiglu;
    uint32_t panels, chunk_panels;
} mlp_job;

static void gate_up_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    const mlp_job *job = arg;
    const bt_kernels *kernels = job->self->kernels;
    const bt_tensor *t = job->self->weights.layers[job->self->layer].tensor;
    uint32_t first = chunk * job->chunk_panels, rows = job->gate.m;
    uint32_t end = min_u32(first + job->chunk_panels, job->panels);
    uint32_t column = first * BT_LINEAR_PANEL;
    uint32_t columns_end = min_u32(end * BT_LINEAR_PANEL, job->gate.w->n);
    job->self->linear->run(&job->gate, first, end, scratch_of(job->self, worker));
    job->self->linear->run(&job->up, first, end, scratch_of(job->self, worker));
    add_bias(job->self, &t[BT_LAYER_GATE_BIAS], job->gate.y, rows, column, columns_end);
    add_bias(job->self, &t[BT_LAYER_UP_BIAS], job->up.y, rows, column, columns_end);
    kernels->swiglu(&job->swiglu, column, columns_end);
}

static void mlp(cpu *self, const packed_layer *layer)
{
    uint32_t rows = self->row_count, width = self->model.mlp;
    pack_x(self, self->y, rows, self->model.hidden);
    mlp_job job = {
        .self = self,
        .gate =
            {.w = &layer->gate, .x = self->packed_x, .y = self->gate, .m = rows, .y_stride = width},
        .up = {.w = &layer->up, .x = self->packed_x, .y = self->up, .m = rows, .y_stride = width},
        .swiglu = {.gate = self->gate, .up = self->up, .rows = rows, .stride = width},
        .panels = bt_linear_panels(width),
    };
    uint64_t macs_per_panel = 2ull * rows * self->model.hidden * BT_LINEAR_PANEL;
    job.chunk_panels = chunk_panels(self, macs_per_panel, rows, job.panels);
    bt_team_run(self->team, gate_up_chunk, &job,
                (job.panels + job.chunk_panels - 1) / job.chunk_panels);
    pack_x(self, self->gate, rows, width);
    linear(self, &layer->down, rows, self->delta);
    const bt_tensor *t = self->weights.layers[self->layer].tensor;
    add_bias(self, &t[BT_LAYER_DOWN_BIAS], self->delta, rows, 0, UINT32_MAX);
}

/* Once the last layer's K and V are in the pool, only the rows that are sampled or scored matter: the
 * others leave the batch. A chunk that is not a prompt's last, and most of its last chunk, so skips
 * the last layer's attention and MLP, and the first token follows the last layer's KV at once. Rows
 * move towards the front in order, so none overwrites one that is still needed. */
static void keep_rows(cpu *self)
{
    size_t hidden = self->model.hidden, stride = qkv_stride(self);
    uint32_t kept = 0, row = 0;
    self->query_block_count = self->sampled_count = 0;
    for (uint32_t i = 0; i < self->batch->seq_count; i++) {
        const bt_engine_seq *seq = &self->batch->seqs[i];
        uint32_t count = seq->score_count > 0 ? seq->token_count : seq->sample;
        row += seq->token_count;
        if (count == 0) continue;
        size_t from = row - count;
        memmove(self->x + kept * hidden, self->x + from * hidden, count * hidden * sizeof(float));
        memmove(self->qkv + kept * stride, self->qkv + from * stride,
                count * stride * sizeof(float));
        for (uint32_t done = 0; done < count; done += BT_ATTENTION_QUERIES_MAX)
            self->query_blocks[self->query_block_count++] =
                (query_block){.seq = i,
                              .row = kept + done,
                              .position = seq->position + seq->token_count - count + done,
                              .count = min_u32(count - done, BT_ATTENTION_QUERIES_MAX)};
        self->kept_first[i] = kept;
        kept += count;
        self->kept_last[i] = kept - 1;
        if (seq->sample) self->sampled[self->sampled_count++] = i;
    }
    self->row_count = kept;
}

static void run_layer(cpu *self, uint32_t index, const bt_backend_sink *sink)
{
    const bt_layer *layer = &self->weights.layers[index];
    self->layer = index;
    norm(self, index > 0 ? self->delta : NULL, &layer->tensor[BT_LAYER_ATTN_NORM]);
    project_qkv(self, index);
    bt_team_run(self->team, append_chunk, self, self->query_block_count);
    sink->layer_done(sink->arg, index);
    if (index + 1 == self->model.layers) keep_rows(self);
    if (self->row_count == 0) return;
    run_attention(self);
    const packed_layer *packed = &self->packed[index];
    pack_x(self, self->attended, self->row_count, packed->o.k);
    linear(self, &packed->o, self->row_count, self->delta);
    add_bias(self, &layer->tensor[BT_LAYER_O_BIAS], self->delta, self->row_count, 0, UINT32_MAX);
    norm(self, self->delta, &layer->tensor[BT_LAYER_MLP_NORM]);
    mlp(self, packed);
}

/* --- the head --- */

static void sample_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    cpu *self = arg;
    const bt_engine_seq *seq = &self->batch->seqs[self->sampled[chunk]];
    const bt_sample_op op = {.logits = self->logits + (size_t)chunk * self->model.vocab,
                             .vocab = self->model.vocab,
                             .sampling = &seq->sampling,
                             .position = seq->position + seq->token_count,
                             .prompt_count = seq->prompt_count,
                             .history = seq->history,
                             .eos_ids = self->model.eos_ids,
                             .eos_count = self->model.eos_count};
    self->broken[chunk] =
        !bt_sample(self->kernels->sample, &op, scratch_of(self, worker), &self->tokens[chunk]);
}

/* Some rows of one sequence, whose logits are there. */
typedef struct {
    cpu *self;
    const bt_engine_seq *seq;
    uint32_t first; /* of its scores */
    bt_token *scores;
} score_job;

static void score_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    (void)worker;
    const score_job *job = arg;
    cpu *self = job->self;
    uint32_t i = job->first + chunk;
    self->broken[chunk] = !bt_sample_score(
        self->kernels->sample, self->logits + (size_t)chunk * self->model.vocab, self->model.vocab,
        job->seq->score_next[i], job->seq->sampling.top_logprobs, &job->scores[i]);
}

/* The head's product for as many rows at a time as there is room for logits. */
static void score_seq(cpu *self, uint32_t index, bt_token *scores, const bt_backend_sink *sink)
{
    const bt_engine_seq *seq = &self->batch->seqs[index];
    uint32_t hidden = self->model.hidden;
    bool broken = false;
    for (uint32_t first = 0; first < seq->score_count; first += self->config.batch_seqs_max) {
        uint32_t count = min_u32(seq->score_count - first, self->config.batch_seqs_max);
        score_job job = {.self = self, .seq = seq, .first = first, .scores = scores};
        pack_x(self, self->y + (size_t)(self->kept_first[index] + first) * hidden, count, hidden);
        linear(self, &self->head, count, self->logits);
        bt_team_run(self->team, score_chunk, &job, count);
        for (uint32_t i = 0; i < count; i++) broken |= self->broken[i];
    }
    sink->scores(sink->arg, index, broken ? NULL : scores);
}

static void run_head(cpu *self, const bt_backend_sink *sink)
{
    uint32_t count = self->sampled_count, hidden = self->model.hidden, scored = 0;
    if (self->row_count == 0) return;
    norm(self, self->delta, &self->weights.norm);
    for (uint32_t i = 0; i < self->batch->seq_count; i++) {
        uint32_t score_count = self->batch->seqs[i].score_count;
        if (score_count > 0) score_seq(self, i, self->scores + scored, sink);
        scored += score_count;
    }
    if (count == 0) return;
    float *last = self->y; /* the rows that are sampled, side by side */
    if (self->row_count > count) {
        last = self->delta; /* free again after the norm */
        for (uint32_t i = 0; i < count; i++)
            memcpy(last + (size_t)i * hidden,
                   self->y + (size_t)self->kept_last[self->sampled[i]] * hidden,
                   hidden * sizeof(float));
    }
    pack_x(self, last, count, hidden);
    linear(self, &self->head, count, self->logits);
    bt_team_run(self->team, sample_chunk, self, count);
    for (uint32_t i = 0; i < count; i++)
        sink->token(sink->arg, self->sampled[i], self->broken[i] ? NULL : &self->tokens[i]);
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
    bt_rope_table(&self->model.rope, self->rope_frequencies, self->positions, self->row_count,
                  self->rope_table);
}

static bt_status cpu_run(void *arg, const bt_engine_batch *batch, const bt_backend_sink *sink)
{
    cpu *self = arg;
    lay_out(self, batch);
    for (uint32_t layer = 0; layer < self->model.layers; layer++) run_layer(self, layer, sink);
    run_head(self, sink);
    return BT_OK;
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
    self->rope_frequencies = BT_ARENA_NEW(arena, double, self->model.rope.dims / 2);
    self->positions = BT_ARENA_NEW(arena, uint32_t, rows);
    self->rope_table = BT_ARENA_NEW(arena, float, rows * self->model.rope.dims);
    self->x = BT_ARENA_NEW(arena, float, rows * m->hidden);
    self->delta = BT_ARENA_NEW(arena, float, rows * m->hidden);
    self->y = BT_ARENA_NEW(arena, float, rows * m->hidden);
    self->qkv = BT_ARENA_NEW(arena, float, rows *qkv_stride(self));
    self->attended = BT_ARENA_NEW(arena, float, rows * m->q_heads * m->head_dim);
    self->gate = BT_ARENA_NEW(arena, float, rows * m->mlp);
    self->up = BT_ARENA_NEW(arena, float, rows * m->mlp);
    size_t widest = m->hidden > m->mlp ? m->hidden : m->mlp;
    if (widest < (size_t)m->q_heads * m->head_dim) widest = (size_t)m->q_heads * m->head_dim;
    self->packed_x =
        bt_arena_take(arena, 1, self->linear->x_bytes((uint32_t)rows, (uint32_t)widest));
    self->query_blocks =
        BT_ARENA_NEW(arena, query_block, rows / BT_ATTENTION_QUERIES_MAX + seqs + 1);
    self->sampled = BT_ARENA_NEW(arena, uint32_t, seqs);
    self->logits = BT_ARENA_NEW(arena, float, seqs * m->vocab);
    self->tokens = BT_ARENA_NEW(arena, bt_token, seqs);
    self->broken = BT_ARENA_NEW(arena, bool, seqs);
    self->kept_first = BT_ARENA_NEW(arena, uint32_t, seqs);
    self->kept_last = BT_ARENA_NEW(arena, uint32_t, seqs);
    self->scores = BT_ARENA_NEW(arena, bt_token, rows);
    self->scratch = BT_ARENA_NEW(arena, uint8_t, bt_team_threads(self->team) * self->scratch_bytes);
}

static bt_status take_memory(cpu *self, bt_err *err)
{
    const bt_model_config *m = &self->model;
    size_t attention = bt_attention_scratch_bytes(m->q_heads / m->kv_heads, m->head_dim);
    size_t sample = bt_sample_scratch_bytes(m->vocab);
    size_t most = attention > sample ? attention : sample;
    if (most < BT_LINEAR_SCRATCH_BYTES) most = BT_LINEAR_SCRATCH_BYTES;
    self->scratch_bytes = (most + 63) & ~(size_t)63;
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

/* --- packing the weights --- */

/* One matrix and the tensors whose rows are its columns, side by side. */
typedef struct {
    bt_linear_weights *w;
    const bt_tensor *tensors[3];
} matrix;

typedef struct {
    const matrix *matrix;
    uint8_t *panels;
} weights_job;

/* Panels [16 chunk, +16) of one matrix. */
static void pack_weights_chunk(void *arg, uint32_t chunk, uint32_t worker)
{
    (void)worker;
    const weights_job *job = arg;
    const bt_linear_weights *w = job->matrix->w;
    uint32_t first = chunk * PACK_PANELS, column = 0;
    uint32_t end = min_u32(first + PACK_PANELS, bt_linear_panels(w->n));
    for (int t = 0; t < 3 && job->matrix->tensors[t]; t++) {
        const bt_tensor *tensor = job->matrix->tensors[t];
        uint32_t rows = (uint32_t)tensor->shape[0];
        bt_linear_pack(job->panels, w->dtype, w->k, column, tensor->data, tensor->dtype, rows,
                       first, end);
        uint32_t from = first * BT_LINEAR_PANEL, to = end * BT_LINEAR_PANEL;
        from = from > column ? min_u32(from - column, rows) : 0;
        to = to > column ? min_u32(to - column, rows) : 0;
        bt_tensor_cold(tensor, from, to);
        column += rows;
    }
}

/* Shape and dtype of a matrix, and its panels at *at, where the next begin; base of NULL only
 * measures. Tensors of several dtypes meet in f32, unless it is computed in less. */
static void take_matrix(cpu *self, const matrix *matrix, uint8_t *base, size_t *at)
{
    bt_linear_weights *w = matrix->w;
    *w = (bt_linear_weights){.dtype = matrix->tensors[0]->dtype,
                             .k = (uint32_t)matrix->tensors[0]->shape[1]};
    for (int t = 0; t < 3 && matrix->tensors[t]; t++) {
        w->n += (uint32_t)matrix->tensors[t]->shape[0];
        if (matrix->tensors[t]->dtype != w->dtype) w->dtype = BT_DTYPE_F32;
    }
    w->dtype = bt_linear_dtype(self->config.compute, w->dtype);
    if (base) {
        weights_job job = {.matrix = matrix, .panels = base + *at};
        w->panels = job.panels;
        uint32_t panels = bt_linear_panels(w->n);
        bt_team_run(self->team, pack_weights_chunk, &job, (panels + PACK_PANELS - 1) / PACK_PANELS);
    }
    *at += bt_linear_bytes(w->dtype, w->n, w->k);
}

/* All matrices, in the order a step reads them. Returns their bytes. */
static size_t take_matrices(cpu *self, uint8_t *base)
{
    size_t at = 0;
    for (uint32_t i = 0; i < self->model.layers; i++) {
        const bt_tensor *t = self->weights.layers[i].tensor;
        packed_layer *to = &self->packed[i];
        const matrix matrices[] = {
            {&to->qkv, {&t[BT_LAYER_Q], &t[BT_LAYER_K], &t[BT_LAYER_V]}},
            {&to->o, {&t[BT_LAYER_O]}},
            {&to->gate, {&t[BT_LAYER_GATE]}},
            {&to->up, {&t[BT_LAYER_UP]}},
            {&to->down, {&t[BT_LAYER_DOWN]}},
        };
        for (int m = 0; m < 5; m++) take_matrix(self, &matrices[m], base, &at);
    }
    take_matrix(self, &(matrix){&self->head, {&self->weights.head}}, base, &at);
    return at;
}

static bt_status pack_weights(cpu *self, bt_err *err)
{
    self->packed = calloc(self->model.layers, sizeof(packed_layer));
    if (!self->packed)
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "table of %u layers", self->model.layers);
    self->panels_bytes = (take_matrices(self, NULL) + HUGE_PAGE_BYTES - 1) & ~(HUGE_PAGE_BYTES - 1);
    void *panels =
        mmap(NULL, self->panels_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (panels == MAP_FAILED)
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "%zu bytes of packed weights", self->panels_bytes);
    self->panels = panels;
    (void)madvise(panels, self->panels_bytes, MADV_HUGEPAGE);
    (void)take_matrices(self, panels);
    return BT_OK;
}

static void cpu_destroy(void *arg)
{
    cpu *self = arg;
    if (!self) return;
    bt_team_destroy(self->team);
    bt_weights_release(&self->weights);
    if (self->kv.base) munmap(self->kv.base, self->kv_bytes);
    if (self->panels) munmap(self->panels, self->panels_bytes);
    free(self->packed);
    free(self->memory);
    free(self);
}

static bt_status create(const bt_model *model, const bt_engine_config *config,
                        const bt_kernels *kernels, void **ret_self, bt_err *err)
{
    cpu *self = calloc(1, sizeof(*self));
    if (!self) return BT_FAIL(err, BT_ERR_NO_MEMORY, "a cpu engine");
    self->model = *bt_model_config_of(model);
    self->config = *config;
    self->kernels = kernels;
    self->linear = kernels->linear[config->compute];
    bt_status status = bt_weights_bind(model, &self->weights, err);
    if (status == BT_OK)
        status = bt_team_create(config->threads ? config->threads : core_count(), &self->team, err);
    if (status == BT_OK) status = take_memory(self, err);
    if (status == BT_OK) status = pack_weights(self, err);
    if (status != BT_OK) {
        cpu_destroy(self);
        return status;
    }
    bt_rope_frequencies(&self->model.rope, 0, self->rope_frequencies);
    *ret_self = self;
    return BT_OK;
}

static bt_status cpu_create(const bt_model *model, const bt_engine_config *config, void **ret_self,
                            bt_err *err)
{
    const char *name = config->kernels;
    const bt_kernels *kernels = name ? bt_kernels_find(name) : bt_kernels_best();
    if (!kernels)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "this CPU cannot run kernels '%s', or there are none",
                       name);
    return create(model, config, kernels, ret_self, err);
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
