/* rng.h - repeatable random numbers for tests, the simulator and jitter. NOT for secrets: whoever
 * sees some outputs can compute the rest; keys, request ids and incarnations come from
 * bt_random_bytes (crypto.h).
 *
 * xoshiro256** (Blackman and Vigna 2018), its state filled from the seed by splitmix64. The same
 * seed gives the same numbers on every machine and for ever: simulator seeds in bug reports depend
 * on it. Pure. */
#ifndef BT_COMMON_BASE_RNG_H
#define BT_COMMON_BASE_RNG_H

#include <stdint.h>

typedef struct {
    uint64_t state[4];
} bt_rng;

/* Any seed will do, 0 too. */
void bt_rng_init(bt_rng *rng, uint64_t seed);

/* Uniform over all 64-bit numbers. */
uint64_t bt_rng_u64(bt_rng *rng);

/* Uniform over [0, bound), without bias. bound > 0. */
uint64_t bt_rng_below(bt_rng *rng, uint64_t bound);

/* Uniform over the 2^53 multiples of 2^-53 in [0, 1). */
double bt_rng_double(bt_rng *rng);

#endif
