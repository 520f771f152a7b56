/* rope.h - how a model turns its queries and keys by their position: what config.json says, as
 * numbers. kernels/rope computes with it; common/weights/config.h reads it; the fingerprint of a
 * model covers every field. */
#ifndef BT_COMMON_BASE_ROPE_H
#define BT_COMMON_BASE_ROPE_H

#include <stdbool.h>
#include <stdint.h>

/* The values are part of the fingerprint: never renumber. */
typedef enum {
    BT_ROPE_DEFAULT = 0,
    BT_ROPE_LINEAR = 1,
    BT_ROPE_DYNAMIC = 2, /* "dynamic NTK" */
    BT_ROPE_LLAMA3 = 3,
    BT_ROPE_YARN = 4,
    BT_ROPE_KIND_COUNT
} bt_rope_kind;

/* What a kind does not use is 0. */
typedef struct {
    bt_rope_kind kind;
    uint32_t dims; /* of each head that are turned, the first ones; even, at most head_dim */
    double theta;
    double factor;                            /* every kind but default; >= 1 */
    double original_tokens;                   /* dynamic, llama3, yarn: the context trained with */
    double low_freq_factor, high_freq_factor; /* llama3; low < high */
    double beta_fast, beta_slow;              /* yarn; fast > slow > 0 */
    bool truncate;                            /* yarn: the ends of its ramp are whole pairs */
    double magnitude;                         /* of cosines and sines: 1, yarn's attention factor */
} bt_rope;

#endif
