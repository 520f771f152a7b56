#include "ops/cli/bench/load.h"

#include <stdlib.h>
#include <string.h>

/* What bt_draw_seed's stream tells apart. */
enum { STREAM_ARRIVALS, STREAM_LENGTHS, STREAM_PREFIX, STREAM_BLOCK, STREAM_REST, STREAM_WARM };

static bt_status draw_arrivals(bt_load *load, uint32_t count, uint64_t duration_ns, bt_err *err)
{
    bt_arrivals arrivals;
    bt_arrivals_init(&arrivals, load->options.rate, load->options.burstiness,
                     bt_draw_seed(load->options.seed, STREAM_ARRIVALS, 0));
    uint32_t capacity = 0;
    while (load->arrival_count < count) {
        uint64_t at_ns = bt_arrivals_next_ns(&arrivals);
        if (at_ns >= duration_ns) break;
        if (load->arrival_count == capacity) {
            if (capacity >= BT_LOAD_ARRIVALS_MAX)
                return BT_FAIL(err, BT_ERR_LIMIT, "more than %u requests", BT_LOAD_ARRIVALS_MAX);
            capacity = capacity > 0 ? 2 * capacity : 1024;
            uint64_t *grown = realloc(load->at_ns, capacity * sizeof(*grown));
            if (!grown) return BT_FAIL(err, BT_ERR_NO_MEMORY, "%u arrivals", capacity);
            load->at_ns = grown;
        }
        load->at_ns[load->arrival_count++] = at_ns;
    }
    return BT_OK;
}

static bt_status copy_arrivals(bt_load *load, uint32_t count, uint64_t duration_ns, bt_err *err)
{
    const bt_trace *trace = load->options.trace;
    uint32_t most = count < trace->count ? count : trace->count;
    load->at_ns = malloc(most * sizeof(*load->at_ns));
    if (!load->at_ns) return BT_FAIL(err, BT_ERR_NO_MEMORY, "%u arrivals", most);
    for (uint32_t i = 0; i < most; i++) {
        double at_ns = (double)trace->requests[i].at_ns / load->options.speed;
        if (at_ns >= (double)duration_ns || at_ns >= 9e18) break;
        load->at_ns[load->arrival_count++] = (uint64_t)at_ns;
    }
    return BT_OK;
}

bt_status bt_load_open(const bt_load_options *options, bool open_loop, uint32_t count,
                       uint64_t duration_ns, bt_load *ret_load, bt_err *err)
{
    bt_load load = {.options = *options};
    bt_status status = BT_OK;
    if (open_loop && options->rate > 0)
        status = draw_arrivals(&load, count, duration_ns, err);
    else if (open_loop)
        status = copy_arrivals(&load, count, duration_ns, err);
    if (status == BT_OK && open_loop && load.arrival_count == 0)
        status = BT_FAIL(err, BT_ERR_ARGUMENT, "no request arrives in this time");
    if (status != BT_OK) {
        bt_load_close(&load);
        return status;
    }
    *ret_load = load;
    return BT_OK;
}

void bt_load_close(bt_load *load)
{
    free(load->at_ns);
    *load = (bt_load){0};
}

static const bt_trace_request *trace_request(const bt_load *load, uint32_t index)
{
    const bt_trace *trace = load->options.trace;
    return trace ? &trace->requests[index % trace->count] : NULL;
}

bt_load_item bt_load_item_of(const bt_load *load, bool warmup, uint32_t index)
{
    (void)warmup; /* its lengths are those of the first requests */
    const bt_load_options *o = &load->options;
    const bt_trace_request *recorded = trace_request(load, index);
    if (recorded) return (bt_load_item){recorded->input_tokens, recorded->output_tokens};
    bt_rng rng;
    bt_rng_init(&rng, bt_draw_seed(o->seed, STREAM_LENGTHS, index));
    bt_load_item item;
    item.input_tokens = bt_length_draw(&o->input, &rng);
    item.output_tokens = bt_length_draw(&o->output, &rng);
    if (o->prefix_tokens >= item.input_tokens) item.input_tokens = o->prefix_tokens + 1;
    if (o->prompts) {
        const bt_prompt_line *line = &o->prompts->lines[index % o->prompts->count];
        item.input_tokens = 0;
        if (line->output_tokens > 0) item.output_tokens = line->output_tokens;
    }
    return item;
}

/* ---- prompts ---- */

typedef struct {
    bt_json_out *json;
    const bt_vocab *vocab;
    bool ids;
    uint32_t written; /* tokens */
} prompt_writer;

static unsigned append_number(char *text, uint32_t number)
{
    char digits[10];
    unsigned count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    for (unsigned i = 0; i < count; i++) text[i] = digits[count - 1 - i];
    return count;
}

/* Tokens of one piece, in runs, since a call of the JSON writer for each token would cost more than
 * the token. A text begins with the same word always, since a template may cut the space before it and
 * make it another number of tokens: that is then part of the overhead that the probe found. */
static void write_piece(prompt_writer *w, uint64_t seed, uint32_t tokens)
{
    char text[4096];
    size_t used = 0;
    bt_rng rng;
    bt_rng_init(&rng, seed);
    for (uint32_t i = 0; i < tokens; i++, w->written++) {
        if (used + BT_VOCAB_WORD_BYTES + 2 >= sizeof(text)) {
            text[used] = '\0';
            bt_json_raw(w->json, text);
            used = 0;
        }
        if (w->ids) {
            if (w->written > 0) text[used++] = ',';
            used +=
                append_number(text + used, w->vocab->ids[bt_rng_below(&rng, w->vocab->id_count)]);
        } else {
            uint64_t drawn = bt_rng_below(&rng, w->vocab->word_count);
            const char *word = w->vocab->words[w->written > 0 ? drawn : 0];
            size_t bytes = strlen(word);
            text[used++] = ' ';
            memcpy(text + used, word, bytes);
            used += bytes;
        }
    }
    text[used] = '\0';
    bt_json_raw(w->json, text);
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* tokens in all: what the server adds to a text is taken off already. */
static void write_pieces(prompt_writer *w, const bt_load *load, bool warmup, uint32_t index,
                         uint32_t tokens)
{
    const bt_load_options *o = &load->options;
    const bt_trace_request *recorded = trace_request(load, index);
    if (o->prefix_tokens > 0) {
        uint64_t which = bt_draw_seed(o->seed, STREAM_PREFIX, index) % o->prefixes;
        uint64_t seed = bt_draw_seed(o->seed, STREAM_PREFIX, UINT32_MAX + 1ull + which);
        write_piece(w, seed, least(o->prefix_tokens, tokens - w->written));
    }
    for (uint32_t i = 0; recorded && !warmup && i < recorded->hash_count; i++) {
        uint64_t hash = o->trace->hashes[recorded->first_hash + i];
        write_piece(w, bt_draw_seed(o->seed, STREAM_BLOCK, hash),
                    least(BT_TRACE_BLOCK_TOKENS, tokens - w->written));
    }
    write_piece(w, bt_draw_seed(o->seed, warmup ? STREAM_WARM : STREAM_REST, index),
                tokens - w->written);
}

static void begin_body(const bt_load_body *body, uint32_t output_tokens, bt_json_out *json)
{
    bt_json_begin(json, '{');
    bt_json_key(json, "model");
    bt_json_text(json, body->model);
    bt_json_key(json, "max_tokens");
    bt_json_u64(json, output_tokens);
    bt_json_key(json, "temperature");
    bt_json_double(json, body->temperature);
    bt_json_key(json, "stream");
    bt_json_bool(json, true);
    if (body->stream_usage) {
        bt_json_key(json, "stream_options");
        bt_json_begin(json, '{');
        bt_json_key(json, "include_usage");
        bt_json_bool(json, true);
        if (body->continuous_usage) {
            bt_json_key(json, "continuous_usage_stats");
            bt_json_bool(json, true);
        }
        bt_json_end(json, '}');
    }
    if (body->ignore_eos) {
        bt_json_key(json, "ignore_eos");
        bt_json_bool(json, true);
    }
    if (body->token_ids) {
        bt_json_key(json, "return_token_ids");
        bt_json_bool(json, true);
    }
}

static void begin_message(bt_json_out *json)
{
    bt_json_key(json, "messages");
    bt_json_begin(json, '[');
    bt_json_begin(json, '{');
    bt_json_key(json, "role");
    bt_json_text(json, "user");
    bt_json_key(json, "content");
}

static void end_message(bt_json_out *json)
{
    bt_json_end(json, '}');
    bt_json_end(json, ']');
}

/* A text of words needs no escapes: it is written between quotes as it is. */
static void write_drawn(const bt_load *load, bool warmup, uint32_t index, const bt_vocab *vocab,
                        const bt_load_body *body, uint32_t tokens, bt_json_out *json)
{
    prompt_writer w = {.json = json, .vocab = vocab, .ids = body->ids};
    if (body->chat)
        begin_message(json);
    else
        bt_json_key(json, "prompt");
    bt_json_raw(json, body->ids ? "[" : "\"");
    write_pieces(&w, load, warmup, index, tokens);
    bt_json_raw(json, body->ids ? "]" : "\"");
    json->comma = true;
    if (body->chat) end_message(json);
}

bt_status bt_load_write(const bt_load *load, bool warmup, uint32_t index, const bt_vocab *vocab,
                        const bt_load_body *body, uint32_t text_overhead, bt_json_out *json,
                        bt_err *err)
{
    const bt_load_item item = bt_load_item_of(load, warmup, index);
    const bt_prompts *prompts = load->options.prompts;
    bt_json_reset(json);
    begin_body(body, item.output_tokens, json);
    if (prompts) {
        const bt_prompt_line *line = &prompts->lines[index % prompts->count];
        if (body->chat && !line->messages) {
            begin_message(json);
            bt_json_raw(json, line->json);
            json->comma = true;
            end_message(json);
        } else {
            bt_json_key(json, line->messages ? "messages" : "prompt");
            bt_json_raw(json, line->json);
            json->comma = true;
        }
    } else {
        uint32_t overhead = body->ids ? 0 : text_overhead;
        uint32_t tokens = item.input_tokens > overhead ? item.input_tokens - overhead : 1;
        write_drawn(load, warmup, index, vocab, body, tokens, json);
    }
    bt_json_end(json, '}');
    if (json->overflow)
        return BT_FAIL(err, BT_ERR_LIMIT, "request %u is longer than %zu bytes", index,
                       json->capacity_max);
    return BT_OK;
}

void bt_load_write_prompt(const bt_load_prompt *prompt, const bt_load_body *body,
                          uint32_t output_tokens, bt_json_out *json)
{
    bt_json_reset(json);
    begin_body(body, output_tokens, json);
    if (body->chat)
        begin_message(json);
    else
        bt_json_key(json, "prompt");
    if (prompt->text) {
        bt_json_text(json, prompt->text);
    } else {
        bt_json_begin(json, '[');
        for (uint32_t i = 0; i < prompt->count; i++) bt_json_u64(json, prompt->ids[i]);
        bt_json_end(json, ']');
    }
    if (body->chat) end_message(json);
    bt_json_end(json, '}');
}
