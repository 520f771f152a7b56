/* cost.h - what a batch of the engine costs, fitted online from the batches that ran.
 *
 * MODEL   ns(batch) = batch_ns + token_ns * tokens + pair_ns * pairs
 *             tokens  new tokens of all sequences: chunks of prompts, and 1 for each decoded one
 *             pairs   (query, key) pairs of attention: a sequence with n new tokens after c known
 *                     ones has n * (c + n / 2)
 *         The form of DistServe's and Splitwise's latency models, prefill and decode in one: weights
 *         are read once a batch, every token costs its multiplications, every pair its attention.
 *         What it leaves out: a batch that is bound by memory below some size and by arithmetic above
 *         it is a bent line, and here a straight one.
 * FIT     A sample goes into the cell of (log2 tokens, log4 of the mean context); a cell is an
 *         exponential mean of its samples. The fit is least squares over the cells, each weighted by
 *         1 / its time squared (relative errors count), with no coefficient below 0. So a size that
 *         comes often does not drown another, and one that has not come for long is not forgotten.
 * Pure; fixed memory; no errors. */
#ifndef BT_COMMON_BASE_COST_H
#define BT_COMMON_BASE_COST_H

#include <stdbool.h>
#include <stdint.h>

/* All 0: nothing was measured. Floats, since it travels (proto/msg.h). */
typedef struct {
    float batch_ns, token_ns, pair_ns;
} bt_cost;

#define BT_COST_SIZES 18u    /* 2^17 tokens and more */
#define BT_COST_CONTEXTS 10u /* 4^9 tokens and more */

typedef struct {
    float tokens, pairs, ns; /* means */
    uint32_t count;
} bt_cost_cell;

typedef struct {
    bt_cost_cell cells[BT_COST_SIZES][BT_COST_CONTEXTS];
} bt_cost_fit;

/* Pairs of a sequence with `tokens` new ones after `known`. */
double bt_cost_pairs(uint32_t known, uint32_t tokens);

/* A zeroed fit is empty. One batch that took ns; tokens 0 or ns 0 is no sample. */
void bt_cost_add(bt_cost_fit *fit, uint32_t tokens, double pairs, uint64_t ns);
bt_cost bt_cost_solve(const bt_cost_fit *fit);

bool bt_cost_known(const bt_cost *cost);
/* Finite and in range, as it comes from outside. */
bool bt_cost_valid(const bt_cost *cost);

/* Nanoseconds of a prompt of `tokens` new ones after `known`, computed in chunks (0: in one). */
double bt_cost_prompt_ns(const bt_cost *cost, uint32_t known, uint32_t tokens, uint32_t chunk);
/* Nanoseconds of a decode step of `seqs` sequences that know `context` tokens together. */
double bt_cost_step_ns(const bt_cost *cost, uint32_t seqs, uint64_t context);

#endif
