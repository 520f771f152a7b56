/* process.c - sparse: only the logits that a processor names are touched, and remembered. */
#include "kernels/sample/process.h"

#include <assert.h>
#include <math.h>

#define DONE 0x80000000u /* in counts: the penalties of this token are applied */

typedef struct {
    float *logits;
    bt_logit_edit *edits;
    uint32_t count;
} editor;

static void edit(editor *e, uint32_t id, float logit)
{
    e->edits[e->count++] = (bt_logit_edit){id, e->logits[id]};
    e->logits[id] = logit;
}

static void ban(editor *e, const uint32_t *ids, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) edit(e, ids[i], -INFINITY);
}

static float penalized(const bt_sampling *s, float logit, uint32_t output_count)
{
    if (s->repetition_penalty != 0)
        logit = logit > 0 ? logit / s->repetition_penalty : logit * s->repetition_penalty;
    if (output_count == 0) return logit;
    logit -= s->frequency_penalty * (float)output_count;
    return logit - s->presence_penalty;
}

/* Each id of [first, position) of the history once; counts are of the output. */
static void penalize(const bt_sample_op *op, uint32_t *counts, editor *e)
{
    const bt_sampling *s = op->sampling;
    bool repetition = s->repetition_penalty != 0 && s->repetition_penalty != 1;
    uint32_t first = repetition ? 0 : op->prompt_count;
    for (uint32_t i = first; i < op->position; i++) {
        assert(op->history[i] < op->vocab);
        counts[op->history[i]] = 0;
    }
    for (uint32_t i = op->prompt_count; i < op->position; i++) counts[op->history[i]]++;
    for (uint32_t i = first; i < op->position; i++) {
        uint32_t id = op->history[i];
        if (counts[id] & DONE) continue;
        edit(e, id, penalized(s, op->logits[id], counts[id]));
        counts[id] |= DONE;
    }
}

uint32_t bt_logits_process(const bt_sample_op *op, uint32_t *counts, bt_logit_edit *edits)
{
    const bt_sampling *s = op->sampling;
    editor e = {.logits = op->logits, .edits = edits};
    assert(op->prompt_count <= op->position &&
           op->eos_count + s->stop_count <= BT_STOP_IDS_MAX + 64);
    if (op->position - op->prompt_count < s->min_tokens) {
        ban(&e, op->eos_ids, op->eos_count);
        ban(&e, s->stop_ids, s->stop_count);
    }
    for (uint32_t i = 0; i < s->bias_count; i++)
        edit(&e, s->bias[i].id, op->logits[s->bias[i].id] + s->bias[i].bias);
    if (bt_sampling_needs_history(s)) penalize(op, counts, &e);
    return e.count;
}

/* Backwards: an id that was edited twice gets its first logit. */
void bt_logits_restore(const bt_sample_op *op, const bt_logit_edit *edits, uint32_t edit_count)
{
    while (edit_count-- > 0) op->logits[edits[edit_count].id] = edits[edit_count].logit;
}
