#include "ops/cli/bench/stream.h"

#include "common/base/parse.h"

#include <jansson.h>
#include <string.h>

static bt_status on_event(void *arg, const char *data, size_t bytes, bt_err *err);

void bt_stream_init(bt_stream *stream)
{
    *stream = (bt_stream){0};
    bt_sse_init(&stream->sse, on_event, stream);
}

void bt_stream_finish(bt_stream *stream)
{
    bt_sse_finish(&stream->sse);
    bt_samples_finish(&stream->gaps);
}

void bt_stream_begin(bt_stream *stream)
{
    bt_sse sse = stream->sse;
    bt_samples gaps = stream->gaps;
    bt_sse_reset(&sse);
    gaps.count = 0;
    *stream = (bt_stream){.sse = sse, .gaps = gaps};
}

static void error_text(const json_t *answer, const char *bytes, size_t count, char *ret_text,
                       size_t capacity)
{
    const json_t *error = json_object_get(answer, "error");
    const json_t *message = json_object_get(json_is_object(error) ? error : answer, "message");
    if (json_is_string(error)) message = error;
    if (json_is_string(message)) {
        bytes = json_string_value(message);
        count = json_string_length(message);
    }
    bt_escape(bytes, count, ret_text, capacity);
}

void bt_openai_error_text(const char *bytes, size_t count, char *ret_text, size_t capacity)
{
    json_t *answer = json_loadb(bytes, count, 0, NULL);
    error_text(answer, bytes, count, ret_text, capacity);
    json_decref(answer);
}

static bool read_count(const json_t *usage, const char *key, uint32_t *ret_count)
{
    const json_t *value = json_object_get(usage, key);
    if (!json_is_integer(value)) return false;
    json_int_t count = json_integer_value(value);
    if (count < 0 || count > (json_int_t)BT_STREAM_TOKENS_MAX) return false;
    *ret_count = (uint32_t)count;
    return true;
}

static bt_status take_usage(bt_stream *stream, const json_t *usage, bt_err *err)
{
    if (!json_is_object(usage)) return BT_OK; /* null until the end, or absent */
    if (!read_count(usage, "prompt_tokens", &stream->prompt_tokens) ||
        !read_count(usage, "completion_tokens", &stream->output_tokens))
        return BT_FAIL(err, BT_ERR_FORMAT, "usage without counts of tokens");
    const json_t *details = json_object_get(usage, "prompt_tokens_details");
    uint32_t cached;
    if (read_count(details, "cached_tokens", &cached)) stream->cached_tokens = cached;
    stream->usage_seen = true;
    return BT_OK;
}

static bool has_text(const json_t *object, const char *key)
{
    return json_string_length(json_object_get(object, key)) > 0;
}

/* How many tokens an event with this choice brings. */
static uint32_t tokens_of(bt_stream *stream, const json_t *choice, bool usage_here)
{
    const json_t *ids = json_object_get(choice, "token_ids");
    if (json_is_array(ids)) {
        stream->counted = BT_COUNTED_IDS;
        return (uint32_t)json_array_size(ids);
    }
    if (stream->counted == BT_COUNTED_IDS) return 0;
    if (usage_here) {
        stream->counted = BT_COUNTED_USAGE;
        return stream->output_tokens > stream->tokens ? stream->output_tokens - stream->tokens : 0;
    }
    if (stream->counted == BT_COUNTED_USAGE) return 0;
    const json_t *delta = json_object_get(choice, "delta");
    return has_text(choice, "text") || has_text(delta, "content") ||
           has_text(delta, "reasoning_content");
}

static bt_status add_tokens(bt_stream *stream, uint32_t count, bt_err *err)
{
    if (count == 0) return BT_OK;
    if (count > BT_STREAM_TOKENS_MAX - stream->tokens)
        return BT_FAIL(err, BT_ERR_LIMIT, "more than %u tokens", BT_STREAM_TOKENS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        bool first = stream->tokens + i == 0;
        uint64_t gap = i == 0 && !first ? stream->now_ns - stream->last_ns : 0;
        bt_status status = first ? BT_OK : bt_samples_add(&stream->gaps, gap, err);
        if (status != BT_OK) return status;
    }
    if (stream->tokens == 0) stream->first_ns = stream->now_ns;
    stream->last_ns = stream->now_ns;
    stream->tokens += count;
    stream->token_events++;
    return BT_OK;
}

static bt_status take_object(bt_stream *stream, const json_t *event, const char *data, size_t bytes,
                             bt_err *err)
{
    const json_t *choices = json_object_get(event, "choices");
    const json_t *error = json_object_get(event, "error");
    if ((error && !json_is_null(error)) || !json_is_array(choices)) {
        char text[160];
        error_text(event, data, bytes, text, sizeof(text));
        stream->refused = error != NULL;
        return BT_FAIL(err, error ? BT_ERR_PEER_LOST : BT_ERR_FORMAT, "%s%s",
                       error ? "" : "an event without choices: ", text);
    }
    const json_t *usage = json_object_get(event, "usage");
    bt_status status = take_usage(stream, usage, err);
    if (status != BT_OK || json_array_size(choices) == 0) return status;
    const json_t *choice = json_array_get(choices, 0);
    return add_tokens(stream, tokens_of(stream, choice, json_is_object(usage)), err);
}

static bt_status on_event(void *arg, const char *data, size_t bytes, bt_err *err)
{
    bt_stream *stream = arg;
    if (stream->done) return BT_FAIL(err, BT_ERR_FORMAT, "the server sent an event after [DONE]");
    if (bytes == 6 && memcmp(data, "[DONE]", 6) == 0) {
        stream->done = true;
        return BT_OK;
    }
    json_error_t error;
    json_t *event = json_loadb(data, bytes, 0, &error);
    if (!json_is_object(event)) {
        char shown[64];
        bt_escape(data, bytes < 48 ? bytes : 48, shown, sizeof(shown));
        json_decref(event);
        return BT_FAIL(err, BT_ERR_FORMAT, "an event that is no JSON object: '%s'", shown);
    }
    bt_status status = take_object(stream, event, data, bytes, err);
    json_decref(event);
    return status;
}

bt_status bt_stream_feed(bt_stream *stream, const char *bytes, size_t count, uint64_t now_ns,
                         bt_err *err)
{
    stream->now_ns = now_ns;
    return bt_sse_feed(&stream->sse, bytes, count, err);
}

bt_status bt_stream_end(bt_stream *stream, bt_err *err)
{
    bt_status status = bt_sse_end(&stream->sse, err);
    if (status != BT_OK) return status;
    if (!stream->done) return BT_FAIL(err, BT_ERR_FORMAT, "the answer ended without [DONE]");
    if (stream->tokens == 0) return BT_FAIL(err, BT_ERR_FORMAT, "an answer without a token");
    if (!stream->usage_seen) stream->output_tokens = stream->tokens;
    stream->gaps_inexact = stream->counted == BT_COUNTED_EVENTS &&
                           (!stream->usage_seen || stream->output_tokens != stream->tokens);
    return BT_OK;
}
