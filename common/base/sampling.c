#include "common/base/sampling.h"

#include "common/base/limits.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* False for NaN. */
static bool within(float x, float low, float high)
{
    return x >= low && x <= high;
}

const char *bt_sampling_fault(const bt_sampling *s, uint32_t vocab)
{
    if (!within(s->temperature, 0, BT_TEMPERATURE_MAX)) return "temperature";
    if (!(s->top_p > 0 && s->top_p <= 1)) return "top_p";
    if (!within(s->min_p, 0, 1)) return "min_p";
    if (s->top_k > BT_VOCAB_MAX) return "top_k";
    if (s->repetition_penalty != 0 &&
        !within(s->repetition_penalty, BT_REPETITION_PENALTY_MIN, BT_REPETITION_PENALTY_MAX))
        return "repetition_penalty";
    if (!within(s->presence_penalty, -BT_PENALTY_MAX, BT_PENALTY_MAX)) return "presence_penalty";
    if (!within(s->frequency_penalty, -BT_PENALTY_MAX, BT_PENALTY_MAX)) return "frequency_penalty";
    if (s->min_tokens > BT_CONTEXT_TOKENS_MAX) return "min_tokens";
    if (s->top_logprobs > BT_TOP_LOGPROBS_MAX) return "top_logprobs";
    if (s->stop_count > BT_STOP_IDS_MAX) return "stop_ids";
    for (uint32_t i = 0; i < s->stop_count; i++)
        if (s->stop_ids[i] >= vocab) return "stop_ids";
    if (s->bias_count > BT_LOGIT_BIAS_MAX) return "logit_bias";
    for (uint32_t i = 0; i < s->bias_count; i++) {
        const bt_logit_bias *row = &s->bias[i];
        if (row->id >= vocab || !within(row->bias, -BT_BIAS_MAX, BT_BIAS_MAX) ||
            (i > 0 && row->id <= row[-1].id))
            return "logit_bias";
    }
    return NULL;
}

bool bt_sampling_needs_history(const bt_sampling *s)
{
    return s->presence_penalty != 0 || s->frequency_penalty != 0 ||
           (s->repetition_penalty != 0 && s->repetition_penalty != 1);
}

bool bt_sampling_stops(const bt_sampling *s, uint32_t id)
{
    for (uint32_t i = 0; i < s->stop_count; i++)
        if (s->stop_ids[i] == id) return true;
    return false;
}

bool bt_sampling_equal(const bt_sampling *a, const bt_sampling *b)
{
    if (a->stop_count != b->stop_count || a->bias_count != b->bias_count) return false;
    for (uint32_t i = 0; i < a->stop_count; i++)
        if (a->stop_ids[i] != b->stop_ids[i]) return false;
    for (uint32_t i = 0; i < a->bias_count; i++)
        if (a->bias[i].id != b->bias[i].id || a->bias[i].bias != b->bias[i].bias) return false;
    return a->temperature == b->temperature && a->top_p == b->top_p && a->min_p == b->min_p &&
           a->top_k == b->top_k && a->repetition_penalty == b->repetition_penalty &&
           a->presence_penalty == b->presence_penalty &&
           a->frequency_penalty == b->frequency_penalty && a->min_tokens == b->min_tokens &&
           a->logprobs == b->logprobs && a->top_logprobs == b->top_logprobs && a->seed == b->seed;
}

bt_sampling bt_sampling_copy(const bt_sampling *sampling, bt_logit_bias *rows)
{
    bt_sampling copy = *sampling;
    assert(copy.bias_count <= BT_LOGIT_BIAS_MAX);
    if (copy.bias_count > 0) memcpy(rows, sampling->bias, copy.bias_count * sizeof(*rows));
    copy.bias = rows;
    return copy;
}
