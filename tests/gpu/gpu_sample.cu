/* gpu_sample.cu - sample_cuda.h against bt_sample: the same tokens, the same alternatives, logprobs
 * within rounding. A draw may differ where the random number lies within 2^-40 of a token's edge, which
 * no run of this test will see. */
#include "tests/gpu/gpu.h"

#include <algorithm>
#include <cmath>
#include <cstring>

extern "C" {
#include "kernels/sample/sample.h"
#include "kernels/sample/sample_cuda.h"
}

namespace
{

constexpr double LOGPROB_BOUND = 1e-5; /* both are f64 rounded to f32: one unit of the last place */

struct sequence {
    bt_sampling sampling;
    std::vector<bt_logit_bias> bias;
    std::vector<uint32_t> history, eos;
    uint32_t position, prompt_count;
};

struct batch {
    uint32_t vocab;
    size_t stride;
    bt_dtype dtype;
    std::vector<float> logits; /* [seqs][stride] as the dtype rounds them */
    std::vector<sequence> rows;
};

uint32_t below(gpu *g, uint64_t n)
{
    return (uint32_t)bt_rng_below(&g->rng, n);
}

/* One of the shapes that logits have, by kind. */
void fill_logits(gpu *g, float *x, uint32_t vocab, uint32_t kind)
{
    static const std::vector<float> normals = gpu_normals(g, 1 << 18, 1);
    float deviation = kind == 1 ? 0.02f : kind == 2 ? 8.0f : 2.5f;
    size_t from = below(g, normals.size());
    for (uint32_t i = 0; i < vocab; i++) x[i] = normals[(from + i) % normals.size()] * deviation;
    if (kind == 3) std::fill(x, x + vocab, below(g, 2) ? 1.5f : -0.0f);
    if (kind == 4) /* a grammar leaves few */
        for (uint32_t i = 0; i < vocab; i++)
            if (below(g, 40)) x[i] = below(g, 9) ? -INFINITY : NAN;
    if (kind == 5) /* many at the top */
        for (uint32_t i = 0; i < vocab; i++) x[i] = fminf(x[i], 1.0f);
    if (kind == 6) std::fill(x, x + vocab, below(g, 2) ? NAN : -INFINITY);
    if (kind == 7 && below(g, 4) == 0) x[below(g, vocab)] = INFINITY;
    if (kind == 7) x[below(g, vocab)] = 40;
}

sequence random_row(gpu *g, uint32_t vocab, bool edits)
{
    sequence r = {};
    bt_sampling *s = &r.sampling;
    const float temperatures[] = {0, 0.3f, 0.7f, 1, 1, 1.7f, 100};
    const float top_ps[] = {1, 1, 0.9f, 0.9f, 0.5f, 0.999f, 1e-4f};
    const float min_ps[] = {0, 0, 0, 0.05f, 0.5f, 1e-6f, 1};
    const uint32_t top_ks[] = {0, 0, 1, 50, 50, 127, 700};
    s->temperature = temperatures[below(g, 7)];
    s->top_p = top_ps[below(g, 7)];
    s->min_p = min_ps[below(g, 7)];
    s->top_k = top_ks[below(g, 7)];
    s->seed = bt_rng_u64(&g->rng);
    s->logprobs = below(g, 2);
    s->top_logprobs = s->logprobs && below(g, 2) ? below(g, BT_TOP_LOGPROBS_MAX + 1) : 0;
    r.prompt_count = below(g, 300);
    r.position = r.prompt_count + below(g, 200);
    if (!edits || below(g, 4) == 0) return r;
    s->repetition_penalty = below(g, 2) ? 0 : 1.3f;
    s->frequency_penalty = below(g, 2) ? 0 : 0.4f;
    s->presence_penalty = below(g, 2) ? 0 : -0.7f;
    s->min_tokens = below(g, 200);
    for (uint32_t i = 0; i < r.position; i++)
        r.history.push_back(below(g, below(g, 2) ? std::min(vocab, 20u) : vocab));
    for (uint32_t i = 0; i < below(g, 5); i++) r.eos.push_back(below(g, vocab));
    for (uint32_t i = below(g, 5); i < vocab && r.bias.size() < below(g, 60); i += 1 + below(g, 99))
        r.bias.push_back({i, (float)below(g, 200) - 100});
    s->stop_count = below(g, 3);
    for (uint32_t i = 0; i < s->stop_count; i++) s->stop_ids[i] = below(g, vocab);
    return r;
}

batch random_batch(gpu *g, uint32_t seqs, uint32_t vocab, bt_dtype dtype, bool edits)
{
    batch b = {vocab, (vocab + 7) / 8 * 8 + 8 * (size_t)below(g, 2), dtype, {}, {}};
    b.logits.assign(seqs * b.stride, 1e30f); /* what lies beyond the vocabulary is not looked at */
    for (uint32_t i = 0; i < seqs; i++) {
        fill_logits(g, &b.logits[i * b.stride], vocab, below(g, 10));
        b.rows.push_back(random_row(g, vocab, edits));
    }
    if (dtype == BT_DTYPE_BF16) b.logits = gpu_from_bf16(gpu_to_bf16(b.logits));
    return b;
}

bt_sample_cuda_args upload(gpu *g, batch &b, int arch)
{
    std::vector<bt_sample_cuda_row> rows;
    for (sequence &r : b.rows) {
        r.sampling.bias = r.bias.data();
        r.sampling.bias_count = (uint32_t)r.bias.size();
        bt_sample_cuda_row row = bt_sample_cuda_row_of(&r.sampling, b.vocab);
        row.position = r.position;
        row.prompt_count = r.prompt_count;
        std::vector<uint32_t> bans = r.eos;
        bans.insert(bans.end(), r.sampling.stop_ids, r.sampling.stop_ids + r.sampling.stop_count);
        row.ban_count = (uint32_t)bans.size();
        row.bans = gpu_upload(g, bans);
        row.bias_count = (uint32_t)r.bias.size();
        row.bias = gpu_upload(g, r.bias);
        if (bt_sampling_needs_history(&r.sampling)) row.history = gpu_upload(g, r.history);
        rows.push_back(row);
    }
    bt_sample_cuda_args op = {};
    op.logits = b.dtype == BT_DTYPE_BF16 ? (void *)gpu_upload(g, gpu_to_bf16(b.logits))
                                         : (void *)gpu_upload(g, b.logits);
    op.dtype = b.dtype;
    op.seqs = (uint32_t)b.rows.size();
    op.vocab = b.vocab;
    op.stride = b.stride;
    op.rows = gpu_upload(g, rows);
    op.ret_tokens = (bt_token *)gpu_alloc(g, op.seqs * sizeof(bt_token));
    op.work = gpu_alloc(g, bt_sample_cuda_work_bytes(op.seqs, b.vocab, arch));
    op.arch = arch;
    return op;
}

bt_token reference(batch &b, uint32_t i, std::vector<uint64_t> &scratch)
{
    sequence &r = b.rows[i];
    bt_sample_op op = {
        &b.logits[i * b.stride], b.vocab,          &r.sampling,  r.position,
        r.prompt_count,          r.history.data(), r.eos.data(), (uint32_t)r.eos.size()};
    bt_token token = {};
    if (!bt_sample(&bt_sample_passes_ref, &op, scratch.data(), &token)) token.id = BT_SAMPLE_BROKEN;
    return token;
}

bool near(float a, float b)
{
    return std::fabs((double)a - b) <= LOGPROB_BOUND * std::max(1.0, std::fabs((double)a));
}

bool same(const bt_token &want, const bt_token &got)
{
    if (want.id != got.id) return false;
    if (want.id == BT_SAMPLE_BROKEN) return true;
    if (!near(want.logprob, got.logprob) || want.top_count != got.top_count) return false;
    for (uint32_t i = 0; i < want.top_count; i++)
        if (want.top[i].id != got.top[i].id || !near(want.top[i].logprob, got.top[i].logprob))
            return false;
    return true;
}

void tell(const sequence &r, uint32_t i, const bt_token &want, const bt_token &got)
{
    const bt_sampling *s = &r.sampling;
    printf(
        "  row %u: id %u (%g, %u listed), expected %u (%g, %u); temperature %g top_p %g min_p %g "
        "top_k %u repetition %g frequency %g presence %g logprobs %u\n",
        i, got.id, got.logprob, got.top_count, want.id, want.logprob, want.top_count,
        s->temperature, s->top_p, s->min_p, s->top_k, s->repetition_penalty, s->frequency_penalty,
        s->presence_penalty, s->top_logprobs);
}

void check_one(gpu *g, uint32_t seqs, uint32_t vocab, bt_dtype dtype, bool edits, int arch)
{
    batch b = random_batch(g, seqs, vocab, dtype, edits);
    bt_sample_cuda_args op = upload(g, b, arch);
    GPU_RUN(bt_sample_cuda(&op, g->stream, &err));
    std::vector<bt_token> got = gpu_download<bt_token>(g, op.ret_tokens, seqs);
    std::vector<uint64_t> scratch(bt_sample_scratch_bytes(vocab) / 8 + 1);
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < seqs; i++) {
        bt_token want = reference(b, i, scratch);
        if (!same(want, got[i]) && wrong++ < 4) tell(b.rows[i], i, want, got[i]);
    }
    gpu_expect_true(g,
                    "vocab " + std::to_string(vocab) + " " + bt_dtype_name(dtype) +
                        (edits ? " processed" : "") + (arch < 90 ? " without clusters" : "") +
                        ": " + std::to_string(seqs - wrong) + " of " + std::to_string(seqs),
                    wrong == 0);
}

void check_greedy(gpu *g, uint32_t vocab, bt_dtype dtype, int arch)
{
    batch b = random_batch(g, 24, vocab, dtype, false);
    for (sequence &r : b.rows) {
        r.sampling = {};
        r.sampling.top_p = 1;
    }
    bt_sample_cuda_args op = upload(g, b, arch);
    op.greedy = true;
    GPU_RUN(bt_sample_cuda(&op, g->stream, &err));
    std::vector<bt_token> got = gpu_download<bt_token>(g, op.ret_tokens, op.seqs);
    std::vector<uint64_t> scratch(bt_sample_scratch_bytes(vocab) / 8 + 1);
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < op.seqs; i++) {
        bt_token want = reference(b, i, scratch);
        if (!same(want, got[i]) && wrong++ < 4) tell(b.rows[i], i, want, got[i]);
    }
    gpu_expect_true(g,
                    "greedy alone, vocab " + std::to_string(vocab) + " " + bt_dtype_name(dtype) +
                        (arch < 90 ? " without clusters" : ""),
                    wrong == 0);
}

void check(gpu *g)
{
    for (int arch : {g->arch, 80}) {
        for (uint32_t vocab : {7u, 1000u, 32000u, 50257u, 128256u})
            for (bt_dtype dtype : {BT_DTYPE_F32, BT_DTYPE_BF16}) {
                uint32_t seqs = vocab > 40000 ? 48 : 96;
                check_one(g, seqs, vocab, dtype, false, arch);
                check_one(g, seqs, vocab, dtype, true, arch);
                check_greedy(g, vocab, dtype, arch);
            }
        check_one(g, 8, 262144, BT_DTYPE_F32, true, arch);
    }
}

/* --- time --- */

struct wish {
    const char *name;
    float temperature, top_p;
    uint32_t top_k, top_logprobs;
    bool greedy;
};

void bench_one(gpu *g, const wish &w, uint32_t seqs, bt_dtype dtype)
{
    constexpr uint32_t VOCAB = 128256;
    size_t bytes = (size_t)seqs * VOCAB * bt_dtype_bytes(dtype);
    std::vector<bt_sample_cuda_args> ops;
    std::vector<bt_sample_cuda_row> rows;
    for (uint32_t i = 0; i < seqs; i++) {
        bt_sampling s = {};
        s.temperature = w.temperature;
        s.top_p = w.top_p;
        s.top_k = w.top_k;
        s.top_logprobs = w.top_logprobs;
        s.seed = bt_rng_u64(&g->rng);
        rows.push_back(bt_sample_cuda_row_of(&s, VOCAB));
    }
    bt_sample_cuda_args op = {};
    op.dtype = dtype;
    op.seqs = seqs;
    op.vocab = VOCAB;
    op.stride = VOCAB;
    op.rows = gpu_upload(g, rows);
    op.ret_tokens = (bt_token *)gpu_alloc(g, seqs * sizeof(bt_token));
    op.work = gpu_alloc(g, bt_sample_cuda_work_bytes(seqs, VOCAB, g->arch));
    op.greedy = w.greedy;
    op.arch = g->arch;
    for (unsigned i = 0; i < gpu_cold_sets(g, bytes); i++) {
        void *logits = gpu_alloc(g, bytes);
        gpu_fill(g, logits, dtype, (size_t)seqs * VOCAB, 2.5f);
        op.logits = logits;
        ops.push_back(op);
    }
    double us = gpu_time(g, (unsigned)ops.size(), [&](unsigned set) {
        GPU_RUN(bt_sample_cuda(&ops[set], g->stream, &err));
    });
    gpu_row(g,
            std::string(w.name) + ", " + std::to_string(seqs) + " x 128256 " + bt_dtype_name(dtype),
            us, GPU_READ, (double)bytes, 0, 0);
}

void bench(gpu *g)
{
    const wish wishes[] = {
        {"greedy", 0, 1, 0, 0, true},
        {"top-p 0.9 top-k 50", 1, 0.9f, 50, 0, false},
        {"top-p 0.9", 1, 0.9f, 0, 0, false},
        {"temperature 0.4, top-p 0.9", 0.4f, 0.9f, 0, 0, false},
        {"temperature 1", 1, 1, 0, 0, false},
        {"top-p 0.9 top-k 50, 20 logprobs", 1, 0.9f, 50, 20, false},
    };
    for (uint32_t seqs : {1u, 16u, 64u, 256u})
        for (const wish &w : wishes) bench_one(g, w, seqs, BT_DTYPE_F32);
    bench_one(g, wishes[0], 64, BT_DTYPE_BF16);
    bench_one(g, wishes[1], 64, BT_DTYPE_BF16);
}

} // namespace

GPU_UNIT(sample, check, bench)
