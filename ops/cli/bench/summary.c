#include "ops/cli/bench/summary.h"

#include "common/base/parse.h"

#include <string.h>

static const struct {
    const char *key, *title;
} names[BT_MEASURES] = {
    [BT_MEASURE_TTFT] = {"ttft", "TTFT"},     [BT_MEASURE_TTFT_SENT] = {"ttft_sent", "TTFT, sent"},
    [BT_MEASURE_TPOT] = {"tpot", "TPOT"},     [BT_MEASURE_ITL] = {"itl", "ITL"},
    [BT_MEASURE_E2E] = {"e2e", "end to end"}, [BT_MEASURE_DELAY] = {"client_delay", "client delay"},
};

const char *bt_measure_key(bt_measure measure)
{
    return names[measure].key;
}

const char *bt_measure_title(bt_measure measure)
{
    return names[measure].title;
}

static bool slo_part(const char *text, size_t bytes, bt_slo *slo)
{
    static const char *const keys[] = {"ttft=", "tpot=", "e2e="};
    uint64_t *const limits[] = {&slo->ttft_ns, &slo->tpot_ns, &slo->e2e_ns};
    char value[32];
    for (unsigned i = 0; i < 3; i++) {
        size_t key = strlen(keys[i]);
        if (bytes <= key || memcmp(text, keys[i], key) != 0) continue;
        if (bytes - key >= sizeof(value) || *limits[i] != 0) return false;
        memcpy(value, text + key, bytes - key);
        value[bytes - key] = '\0';
        return bt_parse_duration_ns(value, limits[i], NULL) == BT_OK && *limits[i] > 0;
    }
    return false;
}

bt_status bt_slo_parse(const char *text, bt_slo *ret_slo, bt_err *err)
{
    bt_slo slo = {.any = true};
    for (const char *at = text;;) {
        size_t bytes = strcspn(at, ",");
        if (!slo_part(at, bytes, &slo)) {
            char shown[64];
            bt_escape(text, strnlen(text, 48), shown, sizeof(shown));
            return BT_FAIL(err, BT_ERR_ARGUMENT,
                           "'%s' is not made of ttft=, tpot=, e2e= and times like 200ms", shown);
        }
        if (at[bytes] == '\0') break;
        at += bytes + 1;
    }
    *ret_slo = slo;
    return BT_OK;
}

static void widen(uint32_t value, bool first, uint32_t *low, uint32_t *high)
{
    if (first || value < *low) *low = value;
    if (first || value > *high) *high = value;
}

static void count_lengths(bt_summary *s, const bt_record *r)
{
    bool first = s->ok == 1;
    s->output_tokens += r->output_tokens;
    s->output_off += r->output_tokens != r->output_asked;
    widen(r->output_tokens, first, &s->output_low, &s->output_high);
    s->token_events += r->token_events;
    s->cached_tokens += r->cached_tokens;
    s->gaps_inexact += r->gaps_inexact;
    if (r->input_tokens == 0) {
        s->input_unknown++;
        s->input_tokens += r->input_asked;
        return;
    }
    s->input_tokens += r->input_tokens;
    s->input_off += r->input_asked != 0 && r->input_tokens != r->input_asked;
    widen(r->input_tokens, s->input_high == 0, &s->input_low, &s->input_high);
}

static bool within(uint64_t value, uint64_t limit)
{
    return limit == 0 || value <= limit;
}

static bt_status take_record(bt_summary *s, const bt_result *result, const bt_record *r,
                             bool open_loop, const bt_slo *slo, bt_err *err)
{
    uint64_t begin_ns = open_loop ? r->due_ns : r->sent_ns;
    uint64_t ttft = r->first_ns - begin_ns, e2e = r->last_ns - begin_ns, tpot = 0;
    s->ok++;
    count_lengths(s, r);
    bt_status status = bt_samples_add(&s->samples[BT_MEASURE_TTFT], ttft, err);
    if (status == BT_OK)
        status = bt_samples_add(&s->samples[BT_MEASURE_TTFT_SENT], r->first_ns - r->sent_ns, err);
    if (status == BT_OK) status = bt_samples_add(&s->samples[BT_MEASURE_E2E], e2e, err);
    if (status == BT_OK)
        status = bt_samples_add(&s->samples[BT_MEASURE_DELAY], r->sent_ns - r->due_ns, err);
    if (status == BT_OK && r->output_tokens > 1) {
        tpot = (r->last_ns - r->first_ns) / (r->output_tokens - 1);
        status = bt_samples_add(&s->samples[BT_MEASURE_TPOT], tpot, err);
    }
    for (uint32_t i = 0; i < r->gap_count && status == BT_OK; i++)
        status =
            bt_samples_add(&s->samples[BT_MEASURE_ITL], result->gaps.values[r->first_gap + i], err);
    s->good += within(ttft, slo->ttft_ns) && within(tpot, slo->tpot_ns) && within(e2e, slo->e2e_ns);
    return status;
}

bt_status bt_summary_make(const bt_result *result, bool open_loop, const bt_slo *slo,
                          uint32_t first_block, uint32_t block_count, bt_summary *ret_summary,
                          bt_err *err)
{
    bt_summary s = {.cancelled = result->cancelled};
    for (uint32_t b = first_block; b < first_block + block_count; b++) {
        const bt_run_block *block = &result->blocks[b];
        s.window_s += (double)(block->end_ns - block->begin_ns) / 1e9;
        for (uint32_t i = 0; i < block->record_count; i++) {
            const bt_record *r = &result->records[block->first_record + i];
            if (r->outcome != BT_OUTCOME_OK) {
                s.failed++;
                continue;
            }
            bt_status status = take_record(&s, result, r, open_loop, slo, err);
            if (status != BT_OK) {
                bt_summary_finish(&s);
                return status;
            }
        }
    }
    for (unsigned m = 0; m < BT_MEASURES; m++) s.measures[m] = bt_samples_summary(&s.samples[m]);
    *ret_summary = s;
    return BT_OK;
}

void bt_summary_finish(bt_summary *summary)
{
    for (unsigned m = 0; m < BT_MEASURES; m++) bt_samples_finish(&summary->samples[m]);
}

double bt_summary_rate(const bt_summary *summary, double amount)
{
    return summary->window_s > 0 ? amount / summary->window_s : 0;
}
