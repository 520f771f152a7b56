/* fuzz_bench_files.c - any bytes as a file that `baton bench` reads: a trace, prompts for completions
 * or for chat, or a page of metrics. The first byte says which; the rest is the file. */
#include "ops/cli/bench/draw.h"
#include "ops/cli/bench/prompts.h"
#include "ops/cli/bench/scrape.h"
#include "ops/cli/bench/trace.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_trace(const char *text, size_t bytes)
{
    bt_trace trace;
    bt_err err = {0};
    if (bt_trace_parse(text, bytes, "t", UINT32_MAX, &trace, &err) != BT_OK) {
        assert(err.message[0] != '\0');
        return;
    }
    assert(trace.count > 0 && trace.requests[0].at_ns == 0);
    for (uint32_t i = 0; i < trace.count; i++) {
        const bt_trace_request *r = &trace.requests[i];
        assert(i == 0 || r->at_ns >= trace.requests[i - 1].at_ns);
        assert(r->input_tokens >= 1 && r->input_tokens <= BT_DRAW_TOKENS_MAX);
        assert(r->output_tokens >= 1 && r->output_tokens <= BT_DRAW_TOKENS_MAX);
        assert(r->hash_count == 0 || r->first_hash + r->hash_count <= trace.hash_count);
    }
    bt_trace_finish(&trace);
}

static void check_prompts(const char *text, size_t bytes, bool chat)
{
    bt_prompts prompts;
    bt_err err = {0};
    if (bt_prompts_parse(text, bytes, "p", chat, &prompts, &err) != BT_OK) {
        assert(err.message[0] != '\0');
        return;
    }
    assert(prompts.count > 0);
    for (uint32_t i = 0; i < prompts.count; i++) {
        assert(prompts.lines[i].json && prompts.lines[i].json[0] != '\0');
        assert(prompts.lines[i].output_tokens <= BT_DRAW_TOKENS_MAX);
        assert(chat || !prompts.lines[i].messages);
    }
    bt_prompts_finish(&prompts);
}

static void check_metrics(const char *text, size_t bytes)
{
    static bt_scrape scrape;
    bt_err err = {0};
    memset(&scrape, 0, sizeof(scrape));
    if (bt_scrape_add(&scrape, text, bytes, "baton_", &err) != BT_OK) {
        assert(err.message[0] != '\0');
        return;
    }
    for (uint32_t i = 0; i < scrape.count; i++) {
        assert(scrape.list[i].bucket_count <= BT_SCRAPE_BUCKETS_MAX);
        double median = bt_scrape_percentile(&scrape.list[i], 50);
        assert(median == median);
    }
    static bt_scrape same;
    same = scrape;
    bt_scrape_subtract(&same, &scrape);
    for (uint32_t i = 0; i < same.count; i++) assert(bt_scrape_count(&same.list[i]) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0) return 0;
    const char *text = (const char *)data + 1;
    switch (data[0] % 4) {
    case 0: check_trace(text, bytes - 1); break;
    case 1: check_prompts(text, bytes - 1, false); break;
    case 2: check_prompts(text, bytes - 1, true); break;
    default: check_metrics(text, bytes - 1); break;
    }
    return 0;
}
