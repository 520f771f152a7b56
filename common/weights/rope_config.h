/* rope_config.h - the RoPE of a config.json, in every spelling: "rope_scaling" with "type" or
 * "rope_type" beside rope_theta and partial_rotary_factor, or transformers 5's "rope_parameters" that
 * holds them all. Both at once must agree.
 *
 * KINDS   default, linear, dynamic, llama3, yarn (common/base/rope.h). Any other is refused by name:
 *         longrope and "su" choose their frequencies by the length of the call, so that KV would
 *         depend on how a prompt is cut; mrope and proportional belong to models we do not run.
 * YARN    factor is taken as it stands, as transformers 5 and the paper do (transformers 4.5x takes
 *         max_position_embeddings / original_max_position_embeddings in its place); the ratio only if
 *         there is no factor.
 * CONTEXT linear and dynamic stretch max_position_embeddings by factor; yarn reaches to
 *         original_max_position_embeddings * factor if that is more; the others leave it. */
#ifndef BT_COMMON_WEIGHTS_ROPE_CONFIG_H
#define BT_COMMON_WEIGHTS_ROPE_CONFIG_H

#include "common/base/rope.h"
#include "common/base/status.h"

#include <jansson.h>

/* What RoPE's numbers follow from beside its own members. */
typedef struct {
    uint32_t head_dim, positions; /* max_position_embeddings */
    double theta;                 /* if the config has none */
} bt_rope_facts;

/* ret_context: tokens that the positions reach to, not capped. */
bt_status bt_rope_config_read(const json_t *root, const bt_rope_facts *facts, bt_rope *ret_rope,
                              double *ret_context, bt_err *err);

/* "default", "linear", … Static storage. */
const char *bt_rope_kind_name(bt_rope_kind kind);

#endif
