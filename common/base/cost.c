#include "common/base/cost.h"

#include <math.h>
#include <string.h>

#define SAMPLES_MEAN 16u /* of a cell's exponential mean */
#define COST_MAX 1e15f   /* ns; beyond is no measurement */
#define TERMS 3u

double bt_cost_pairs(uint32_t known, uint32_t tokens)
{
    return (double)tokens * ((double)known + (double)tokens / 2);
}

static uint32_t log2_floor(uint64_t value)
{
    return value == 0 ? 0 : 63u - (uint32_t)__builtin_clzll(value);
}

static uint32_t at_most(uint32_t value, uint32_t most)
{
    return value < most ? value : most;
}

void bt_cost_add(bt_cost_fit *fit, uint32_t tokens, double pairs, uint64_t ns)
{
    if (tokens == 0 || ns == 0) return;
    uint32_t size = at_most(log2_floor(tokens), BT_COST_SIZES - 1);
    uint32_t context = at_most(log2_floor((uint64_t)(pairs / tokens)) / 2, BT_COST_CONTEXTS - 1);
    bt_cost_cell *cell = &fit->cells[size][context];
    if (cell->count < SAMPLES_MEAN) cell->count++;
    float share = 1.0f / (float)cell->count;
    cell->tokens += share * ((float)tokens - cell->tokens);
    cell->pairs += share * ((float)pairs - cell->pairs);
    cell->ns += share * ((float)ns - cell->ns);
}

/* Normal equations of the relative errors: rows are (1, tokens, pairs) / ns, targets 1. */
typedef struct {
    double a[TERMS][TERMS], b[TERMS];
    double count; /* of rows, weighted: the error of all coefficients at 0 */
} equations;

static void equations_add(equations *e, const bt_cost_cell *cell)
{
    double row[TERMS] = {1.0 / cell->ns, cell->tokens / cell->ns, cell->pairs / cell->ns};
    for (uint32_t i = 0; i < TERMS; i++) {
        for (uint32_t k = 0; k < TERMS; k++) e->a[i][k] += row[i] * row[k];
        e->b[i] += row[i];
    }
    e->count += 1;
}

/* Gauss over the terms of `set`, the others 0. False if they cannot be told apart. */
static bool solve_set(const equations *e, uint32_t set, double ret_x[TERMS])
{
    double a[TERMS][TERMS + 1];
    uint32_t terms[TERMS], count = 0;
    for (uint32_t i = 0; i < TERMS; i++)
        if (set >> i & 1) terms[count++] = i;
    for (uint32_t i = 0; i < count; i++) { /* scaled so that the diagonal is 1 */
        double si = sqrt(e->a[terms[i]][terms[i]]);
        if (!(si > 0)) return false;
        for (uint32_t k = 0; k < count; k++)
            a[i][k] = e->a[terms[i]][terms[k]] / (si * sqrt(e->a[terms[k]][terms[k]]));
        a[i][count] = e->b[terms[i]] / si;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (!(a[i][i] > 1e-9)) return false;
        for (uint32_t r = 0; r < count; r++) {
            double factor = r == i ? 0 : a[r][i] / a[i][i];
            for (uint32_t k = i; k <= count; k++) a[r][k] -= factor * a[i][k];
        }
    }
    for (uint32_t i = 0; i < TERMS; i++) ret_x[i] = 0;
    for (uint32_t i = 0; i < count; i++)
        ret_x[terms[i]] = a[i][count] / a[i][i] / sqrt(e->a[terms[i]][terms[i]]);
    return true;
}

static double error_of(const equations *e, const double x[TERMS])
{
    double error = e->count;
    for (uint32_t i = 0; i < TERMS; i++) {
        error -= 2 * e->b[i] * x[i];
        for (uint32_t k = 0; k < TERMS; k++) error += e->a[i][k] * x[i] * x[k];
    }
    return error;
}

/* With three terms the best fit without negative ones is found by trying every set of terms. The
 * simplest comes first, and a richer one must be better by more than rounding. A single size tells
 * nothing of the fixed part: then all of it is taken for the tokens' (bit 1 is tried first). */
bt_cost bt_cost_solve(const bt_cost_fit *fit)
{
    static const uint32_t sets[] = {2, 1, 4, 3, 6, 5, 7};
    equations e = {0};
    for (uint32_t i = 0; i < BT_COST_SIZES; i++)
        for (uint32_t k = 0; k < BT_COST_CONTEXTS; k++)
            if (fit->cells[i][k].count > 0) equations_add(&e, &fit->cells[i][k]);
    double best[TERMS] = {0}, best_error = e.count;
    for (uint32_t s = 0; s < sizeof(sets) / sizeof(sets[0]); s++) {
        double x[TERMS];
        if (!solve_set(&e, sets[s], x) || x[0] < 0 || x[1] < 0 || x[2] < 0) continue;
        double error = error_of(&e, x);
        if (error >= best_error - 1e-9 * e.count) continue;
        best_error = error;
        memcpy(best, x, sizeof(best));
    }
    bt_cost cost = {(float)best[0], (float)best[1], (float)best[2]};
    return bt_cost_valid(&cost) ? cost : (bt_cost){0};
}

bool bt_cost_known(const bt_cost *cost)
{
    return cost->batch_ns > 0 || cost->token_ns > 0 || cost->pair_ns > 0;
}

bool bt_cost_valid(const bt_cost *cost)
{
    const float terms[TERMS] = {cost->batch_ns, cost->token_ns, cost->pair_ns};
    for (uint32_t i = 0; i < TERMS; i++)
        if (!isfinite(terms[i]) || terms[i] < 0 || terms[i] > COST_MAX) return false;
    return true;
}

double bt_cost_prompt_ns(const bt_cost *cost, uint32_t known, uint32_t tokens, uint32_t chunk)
{
    if (tokens == 0) return 0;
    uint32_t batches = chunk == 0 ? 1 : tokens / chunk + (tokens % chunk != 0);
    return (double)cost->batch_ns * batches + (double)cost->token_ns * tokens +
           (double)cost->pair_ns * bt_cost_pairs(known, tokens);
}

double bt_cost_step_ns(const bt_cost *cost, uint32_t seqs, uint64_t context)
{
    return (double)cost->batch_ns + (double)cost->token_ns * seqs +
           (double)cost->pair_ns * (double)context;
}
