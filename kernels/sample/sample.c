/* sample.c - see sample.h.
 *
 * SETS    What the filters leave is described by a bar: every token above it, and of those at it the
 *         ids below id_end. A filter gathers the tokens near the top, a little further down each time
 *         that they do not suffice, finds in them where it ends by partition (no sort), and sets the
 *         bar there. The last step draws from what the bar leaves. */
#include "kernels/sample/sample.h"

#include "kernels/sample/exp.h"
#include "kernels/sample/process.h"

#include <assert.h>
#include <math.h>

#define BLOCK 1024u /* tokens that a draw without filters skips at once */

typedef struct {
    float logit, weight; /* weight: relative to the most likely one */
    uint32_t id;
} candidate;

typedef struct {
    float logit;
    uint32_t id_end;
} bar;

typedef struct {
    const bt_sample_passes *passes;
    const float *logits;
    uint32_t vocab;
    float top, temperature;
    bar bar;
    candidate *list; /* [vocab] */
    uint32_t count;  /* gathered */
    double weight;   /* of those together */
    double *sums;    /* [vocab / BLOCK + 1] */
} draft;

static size_t sums_bytes(uint32_t vocab)
{
    return (vocab / BLOCK + 1) * sizeof(double);
}

static size_t edits_bytes(uint32_t vocab)
{
    return bt_logit_edits_max(vocab) * sizeof(bt_logit_edit);
}

size_t bt_sample_scratch_bytes(uint32_t vocab)
{
    return sums_bytes(vocab) + edits_bytes(vocab) + vocab * sizeof(candidate);
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

/* --- the raw distribution --- */

/* Below every float that is not less than x. */
static float just_below(float x)
{
    return nextafterf(x, -INFINITY);
}

/* The count most likely tokens, most likely first, by insertion: count is at most 20. */
static uint32_t list_top(const bt_sample_passes *passes, const float *logits, uint32_t vocab,
                         double log_total, uint32_t count, bt_token_alternative *ret_top)
{
    uint32_t used = 0;
    if (count == 0) return 0;
    float least = -INFINITY;
    for (uint32_t id = 0; (id = passes->above(logits, vocab, id, least)) < vocab; id++) {
        uint32_t at = used < count ? used++ : used - 1;
        for (; at > 0 && logits[id] > logits[ret_top[at - 1].id]; at--)
            ret_top[at] = ret_top[at - 1];
        ret_top[at] = (bt_token_alternative){.id = id, .logprob = (float)(logits[id] - log_total)};
        if (used == count) least = logits[ret_top[used - 1].id];
    }
    return used;
}

/* --- the filters --- */

static bool kept(const draft *d, uint32_t id)
{
    return d->logits[id] > d->bar.logit || d->bar.id_end > id;
}

static float weight_of(const draft *d, uint32_t id)
{
    return bt_sample_exp((d->logits[id] - d->top) / d->temperature);
}

/* Lists the tokens above `cut` that the bar leaves, by id. */
static void gather(draft *d, float cut)
{
    d->count = 0;
    d->weight = 0;
    if (cut <= d->bar.logit) cut = just_below(d->bar.logit);
    for (uint32_t id = 0; (id = d->passes->above(d->logits, d->vocab, id, cut)) < d->vocab; id++) {
        if (!kept(d, id)) continue;
        float weight = weight_of(d, id);
        d->list[d->count++] = (candidate){d->logits[id], weight, id};
        d->weight += (double)weight;
    }
}

static bool before(candidate a, candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void swap(candidate *a, candidate *b)
{
    candidate c = *a;
    *a = *b;
    *b = c;
}

/* Moves what comes before the pivot to the front of [first, end); returns where the pivot is then,
 * and what lies before it weighs (each 1 if counting). */
static uint32_t partition(candidate *list, uint32_t first, uint32_t end, bool counting,
                          double *ret_weight)
{
    uint32_t at = first + (uint32_t)(mix(end - first) % (end - first)), front = first;
    double weight = 0;
    swap(&list[at], &list[end - 1]);
    for (uint32_t i = first; i + 1 < end; i++) {
        if (!before(list[i], list[end - 1])) continue;
        weight += counting ? 1 : (double)list[i].weight;
        swap(&list[i], &list[front++]);
    }
    swap(&list[front], &list[end - 1]);
    *ret_weight = weight;
    return front;
}

/* The last candidate of the smallest set, most likely first, whose weight (or count) reaches
 * `wanted`; the last of all if none does. */
static candidate reach(draft *d, double wanted, bool counting)
{
    uint32_t first = 0, end = d->count;
    candidate last = d->list[0];
    while (first < end) {
        double weight;
        uint32_t pivot = partition(d->list, first, end, counting, &weight);
        if (weight >= wanted) {
            end = pivot;
            continue;
        }
        last = d->list[pivot];
        wanted -= weight + (counting ? 1 : (double)last.weight);
        if (wanted <= 0) return last;
        first = pivot + 1;
    }
    return last;
}

/* Raises the bar to where the most likely tokens weigh, or count, `wanted`. scale: logits, in units
 * of which it looks down. */
static void raise_bar(draft *d, double wanted, bool counting, float scale)
{
    static const float depths[] = {4, 8, 16, 32, INFINITY};
    for (unsigned i = 0; i < sizeof(depths) / sizeof(depths[0]); i++) {
        float cut = d->top - depths[i] * scale;
        gather(d, cut);
        if (cut <= d->bar.logit || (counting ? d->count : d->weight) >= wanted) break;
    }
    candidate last = reach(d, wanted, counting);
    d->bar = (bar){.logit = last.logit, .id_end = last.id + 1};
}

/* Sums of blocks and their total, of all tokens. */
static double sum_blocks(draft *d)
{
    double total = 0;
    for (uint32_t first = 0; first < d->vocab; first += BLOCK) {
        uint32_t n = d->vocab - first < BLOCK ? d->vocab - first : BLOCK;
        double sum = d->passes->exp_sum(d->logits + first, n, d->top, d->temperature);
        d->sums[first / BLOCK] = sum;
        total += sum;
    }
    return total;
}

static void filter(draft *d, const bt_sampling *s)
{
    if (s->min_p > 0) {
        double least = (double)d->top + (double)d->temperature * log((double)s->min_p);
        d->bar = (bar){.logit = (float)least, .id_end = UINT32_MAX};
    }
    if (s->top_k > 0 && s->top_k < d->vocab) raise_bar(d, s->top_k, true, 1);
    if (s->top_p >= 1) return;
    double total;
    if (d->bar.logit == -INFINITY) {
        total = sum_blocks(d);
    } else {
        gather(d, d->bar.logit);
        total = d->weight;
    }
    raise_bar(d, (double)s->top_p * total, false, d->temperature);
}

/* --- the draw --- */

static uint32_t draw_any(draft *d, double uniform)
{
    double target = uniform * sum_blocks(d), passed = 0;
    uint32_t block = 0, blocks = (d->vocab + BLOCK - 1) / BLOCK, last = 0;
    for (uint32_t b = 0; b < blocks; b++) { /* the last block that weighs something, at most */
        if (d->sums[b] > 0) last = b;
    }
    for (; block < last && passed + d->sums[block] <= target; block++) passed += d->sums[block];
    uint32_t chosen = UINT32_MAX;
    for (uint32_t id = block * BLOCK; id < d->vocab; id++) {
        float weight = weight_of(d, id);
        if (!(weight > 0)) continue;
        chosen = id;
        passed += (double)weight;
        if (passed > target || (block < last && id + 1 == (block + 1) * BLOCK)) break;
    }
    return chosen;
}

static uint32_t draw_kept(draft *d, double uniform)
{
    gather(d, d->bar.logit);
    double target = uniform * d->weight, passed = 0;
    uint32_t chosen = d->list[0].id;
    for (uint32_t i = 0; i < d->count; i++) {
        if (!(d->list[i].weight > 0)) continue;
        chosen = d->list[i].id;
        passed += (double)d->list[i].weight;
        if (passed > target) break;
    }
    return chosen;
}

static uint32_t draw(draft *d, const bt_sampling *s, double uniform)
{
    filter(d, s);
    return d->bar.logit == -INFINITY ? draw_any(d, uniform) : draw_kept(d, uniform);
}

bool bt_sample_score(const bt_sample_passes *passes, const float *logits, uint32_t vocab,
                     uint32_t id, uint32_t top_count, bt_token *ret_token)
{
    assert(id < vocab && top_count <= BT_TOP_LOGPROBS_MAX);
    float top = passes->highest(logits, vocab);
    if (!isfinite(top)) return false;
    double log_total = (double)top + log(passes->exp_sum(logits, vocab, top, 1));
    float logprob = (float)(logits[id] - log_total);
    ret_token->id = id;
    ret_token->logprob = logprob >= BT_LOGPROB_NONE ? logprob : BT_LOGPROB_NONE;
    ret_token->top_count = list_top(passes, logits, vocab, log_total, top_count, ret_token->top);
    return true;
}

bool bt_sample(const bt_sample_passes *passes, const bt_sample_op *op, void *scratch,
               bt_token *ret_token)
{
    const bt_sampling *s = op->sampling;
    assert(op->vocab > 0 && s->temperature >= 0 && s->top_p > 0);
    assert(s->top_logprobs <= BT_TOP_LOGPROBS_MAX);
    bt_logit_edit *edits = (bt_logit_edit *)((uint8_t *)scratch + sums_bytes(op->vocab));
    candidate *list = (candidate *)((uint8_t *)edits + edits_bytes(op->vocab));
    float top = passes->highest(op->logits, op->vocab);
    if (!isfinite(top)) return false;
    double log_total = 0;
    bool logprobs = s->logprobs || s->top_logprobs > 0;
    if (logprobs) log_total = (double)top + log(passes->exp_sum(op->logits, op->vocab, top, 1));
    ret_token->top_count =
        list_top(passes, op->logits, op->vocab, log_total, s->top_logprobs, ret_token->top);

    /* The counts of penalties lie where the candidates of the draw will. */
    uint32_t edit_count = bt_logits_process(op, (uint32_t *)list, edits);
    if (edit_count > 0) top = passes->highest(op->logits, op->vocab);
    bool ok = isfinite(top);
    if (ok && s->temperature > 0) {
        draft d = {.passes = passes,
                   .logits = op->logits,
                   .vocab = op->vocab,
                   .top = top,
                   .temperature = s->temperature,
                   .bar = {.logit = -INFINITY},
                   .list = list,
                   .sums = scratch};
        ret_token->id = draw(&d, s, bt_sample_uniform(s->seed, op->position));
    } else if (ok) {
        ret_token->id = passes->above(op->logits, op->vocab, 0, just_below(top));
    }
    bt_logits_restore(op, edits, edit_count);
    if (ok) ret_token->logprob = logprobs ? (float)(op->logits[ret_token->id] - log_total) : 0;
    return ok;
}
