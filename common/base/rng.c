#include "common/base/rng.h"

#include <assert.h>

static uint64_t rotate_left(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

void bt_rng_init(bt_rng *rng, uint64_t seed)
{
    for (unsigned i = 0; i < 4; i++) {
        seed += 0x9e3779b97f4a7c15u;
        uint64_t z = seed;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        rng->state[i] = z ^ z >> 31;
    }
}

uint64_t bt_rng_u64(bt_rng *rng)
{
    uint64_t *s = rng->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t bt_rng_below(bt_rng *rng, uint64_t bound)
{
    assert(bound > 0);
    /* Lemire's multiply-shift: reject the few low halves that would favour some results. */
    uint64_t threshold = -bound % bound;
    for (;;) {
        unsigned __int128 product = (unsigned __int128)bt_rng_u64(rng) * bound;
        if ((uint64_t)product >= threshold) return (uint64_t)(product >> 64);
    }
}

double bt_rng_double(bt_rng *rng)
{
    return (double)(bt_rng_u64(rng) >> 11) * 0x1p-53;
}
