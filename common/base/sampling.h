/* sampling.h - what a request asks of the sampler, and what the sampler answers.
 *
 * The sampler is counter-based: the random number of a token depends on (seed, position) only, so
 * any daemon continues a sequence exactly where another stopped, and no sampler state ever moves
 * between machines. */
#ifndef BT_COMMON_BASE_SAMPLING_H
#define BT_COMMON_BASE_SAMPLING_H

#include <stdint.h>

#define BT_TOP_LOGPROBS_MAX 20u

typedef struct {
    float temperature;     /* 0 is greedy */
    float top_p;           /* (0, 1], 1 is off */
    uint32_t top_k;        /* 0 is off */
    uint32_t top_logprobs; /* alternatives to report, 0 .. BT_TOP_LOGPROBS_MAX */
    uint64_t seed;
} bt_sampling;

typedef struct {
    uint32_t id;
    float logprob; /* natural log, of the unmodified distribution (temperature 1, no filters) */
} bt_token_alternative;

typedef struct {
    uint32_t id;
    float logprob;
    uint32_t top_count; /* as asked, most likely first */
    bt_token_alternative top[BT_TOP_LOGPROBS_MAX];
} bt_token;

#endif
