/* process.h - the processors of common/base/sampling.h, 1 to 5, on logits in place, and back.
 * Private to kernels/sample. */
#ifndef BT_KERNELS_SAMPLE_PROCESS_H
#define BT_KERNELS_SAMPLE_PROCESS_H

#include "kernels/sample/sample.h"

/* What a logit was before it was changed. */
typedef struct {
    uint32_t id;
    float logit;
} bt_logit_edit;

/* Most edits of one token: each id once by penalties, and the rest. */
static inline size_t bt_logit_edits_max(uint32_t vocab)
{
    return (size_t)vocab + BT_LOGIT_BIAS_MAX + BT_STOP_IDS_MAX + 64;
}

/* Returns the number of edits. counts [vocab] may hold anything. */
uint32_t bt_logits_process(const bt_sample_op *op, uint32_t *counts, bt_logit_edit *edits);
void bt_logits_restore(const bt_sample_op *op, const bt_logit_edit *edits, uint32_t edit_count);

#endif
