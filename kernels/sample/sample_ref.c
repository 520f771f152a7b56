/* sample_ref.c - one pass for the distribution, and a heap where a filter needs an order: taking
 * the k most likely of V costs V + k log V, not a sort. Sums are f64 in a fixed order. */
#include "kernels/sample/sample.h"

#include <assert.h>
#include <math.h>

/* A candidate of the draw: a token and its weight, relative to the most likely one. */
typedef struct {
    double weight;
    uint32_t id;
} candidate;

size_t bt_sample_scratch_bytes(uint32_t vocab)
{
    return vocab * sizeof(candidate);
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

double bt_sample_uniform(uint64_t seed, uint32_t position)
{
    uint64_t x = mix(seed + 0x9e3779b97f4a7c15u);
    x = mix(x + (position + 1ull) * 0x9e3779b97f4a7c15u);
    return (double)(x >> 11) * 0x1p-53;
}

/* The most likely token, and the log of the sum of all exponentials; false if broken. */
static bool survey(const float *logits, uint32_t vocab, uint32_t *ret_best, double *ret_log_total)
{
    uint32_t best = 0;
    float highest = -INFINITY;
    for (uint32_t id = 0; id < vocab; id++) {
        if (logits[id] > highest) {
            highest = logits[id];
            best = id;
        }
    }
    if (!isfinite(highest)) return false;
    double total = 0;
    for (uint32_t id = 0; id < vocab; id++) {
        if (!isnan(logits[id])) total += (double)expf(logits[id] - highest);
    }
    *ret_best = best;
    *ret_log_total = (double)highest + log(total);
    return true;
}

/* The count most likely tokens, most likely first, by insertion: count is at most 20. */
static uint32_t list_top(const float *logits, uint32_t vocab, double log_total, uint32_t count,
                         bt_token_alternative *ret_top)
{
    uint32_t used = 0;
    for (uint32_t id = 0; id < vocab && count > 0; id++) {
        float logit = logits[id];
        if (!isfinite(logit) || (used == count && !(logit > logits[ret_top[used - 1].id])))
            continue;
        uint32_t at = used < count ? used++ : used - 1;
        for (; at > 0 && logit > logits[ret_top[at - 1].id]; at--) ret_top[at] = ret_top[at - 1];
        ret_top[at] = (bt_token_alternative){.id = id, .logprob = (float)(logit - log_total)};
    }
    return used;
}

static bool before(candidate a, candidate b)
{
    return a.weight > b.weight || (a.weight == b.weight && a.id < b.id);
}

static void sift_down(candidate *heap, uint32_t count, uint32_t at)
{
    candidate moved = heap[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count) break;
        if (child + 1 < count && before(heap[child + 1], heap[child])) child++;
        if (!before(heap[child], moved)) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

/* Puts the next most likely of the heap behind it: the heap shrinks from its end, so the candidates
 * taken so far lie behind heap[count], the first one last. */
static candidate take_best(candidate *heap, uint32_t *count)
{
    candidate best = heap[0];
    heap[0] = heap[--*count];
    heap[*count] = best;
    if (*count > 1) sift_down(heap, *count, 0);
    return best;
}

/* Leaves the filtered candidates in all[*ret_first .. vocab) and returns their total weight. */
static double filter(candidate *all, uint32_t vocab, const bt_sampling *sampling, double total,
                     uint32_t *ret_first)
{
    uint32_t limit = sampling->top_k > 0 && sampling->top_k < vocab ? sampling->top_k : vocab;
    uint32_t left = vocab;
    for (uint32_t i = vocab / 2; i-- > 0;) sift_down(all, vocab, i);
    if (limit < vocab) {
        total = 0;
        while (vocab - left < limit) total += take_best(all, &left).weight;
    }
    if (sampling->top_p >= 1.0f) {
        *ret_first = left;
        return total;
    }
    double wanted = sampling->top_p * total, kept = 0;
    uint32_t at = vocab;
    do {
        if (at == left) take_best(all, &left);
        kept += all[--at].weight;
    } while (kept < wanted && vocab - at < limit);
    *ret_first = at;
    return kept;
}

static uint32_t draw(const float *logits, uint32_t vocab, const bt_sampling *sampling,
                     uint32_t best, double uniform, candidate *all)
{
    double total = 0;
    for (uint32_t id = 0; id < vocab; id++) {
        double below = ((double)logits[id] - logits[best]) / sampling->temperature;
        all[id] = (candidate){.weight = below <= 0 ? exp(below) : 0, .id = id};
        total += all[id].weight;
    }
    uint32_t first = 0;
    if (sampling->top_p < 1.0f || (sampling->top_k > 0 && sampling->top_k < vocab))
        total = filter(all, vocab, sampling, total, &first);
    double target = uniform * total, passed = 0;
    uint32_t chosen = best;
    for (uint32_t i = vocab; i-- > first;) {
        if (all[i].weight <= 0) continue;
        chosen = all[i].id;
        passed += all[i].weight;
        if (passed > target) break;
    }
    return chosen;
}

bool bt_sample(const float *logits, uint32_t vocab, const bt_sampling *sampling, uint32_t position,
               void *scratch, bt_token *ret_token)
{
    assert(vocab > 0 && sampling->temperature >= 0 && sampling->top_p > 0);
    assert(sampling->top_logprobs <= BT_TOP_LOGPROBS_MAX);
    uint32_t id;
    double log_total;
    if (!survey(logits, vocab, &id, &log_total)) return false;
    if (sampling->temperature > 0)
        id =
            draw(logits, vocab, sampling, id, bt_sample_uniform(sampling->seed, position), scratch);
    ret_token->id = id;
    ret_token->logprob = (float)(logits[id] - log_total);
    ret_token->top_count =
        list_top(logits, vocab, log_total, sampling->top_logprobs, ret_token->top);
    return true;
}
