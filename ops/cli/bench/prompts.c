#include "ops/cli/bench/prompts.h"

#include "ops/cli/bench/draw.h"
#include "ops/cli/bench/trace.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static bool is_ids(const json_t *value)
{
    size_t count = json_array_size(value);
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(value, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > UINT32_MAX)
            return false;
    }
    return count > 0;
}

static bool is_messages(const json_t *value)
{
    size_t count = json_array_size(value);
    for (size_t i = 0; i < count; i++) {
        const json_t *message = json_array_get(value, i);
        if (!json_is_string(json_object_get(message, "role")) ||
            !json_object_get(message, "content"))
            return false;
    }
    return count > 0;
}

static bt_status read_object(const json_t *object, bool chat, bt_prompt_line *line, bt_err *err)
{
    const json_t *prompt = json_object_get(object, "prompt");
    const json_t *messages = json_object_get(object, "messages");
    const json_t *tokens = json_object_get(object, "max_tokens");
    const json_t *value = chat && messages ? messages : prompt;
    line->messages = value != NULL && value == messages;
    bool ok = line->messages ? is_messages(value)
                             : json_string_length(value) > 0 || (!chat && is_ids(value));
    if (!ok)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s",
                       chat ? "neither \"messages\" with role and content nor a \"prompt\" of text"
                            : "no \"prompt\" of text or token ids");
    if (tokens) {
        json_int_t count = json_is_integer(tokens) ? json_integer_value(tokens) : 0;
        if (count < 1 || count > (json_int_t)BT_DRAW_TOKENS_MAX)
            return BT_FAIL(err, BT_ERR_FORMAT, "max_tokens is not 1 to %u", BT_DRAW_TOKENS_MAX);
        line->output_tokens = (uint32_t)count;
    }
    line->json = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    return line->json ? BT_OK : BT_FAIL(err, BT_ERR_NO_MEMORY, "a prompt");
}

static bt_status add_line(bt_prompts *prompts, const char *text, size_t bytes, bool chat,
                          bt_err *err)
{
    if (prompts->count == prompts->capacity) {
        uint32_t capacity = prompts->capacity > 0 ? 2 * prompts->capacity : 64;
        bt_prompt_line *grown = realloc(prompts->lines, capacity * sizeof(*grown));
        if (!grown) return BT_FAIL(err, BT_ERR_NO_MEMORY, "%u prompts", capacity);
        prompts->lines = grown;
        prompts->capacity = capacity;
    }
    json_error_t error = {0};
    json_t *object = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    bt_prompt_line line = {0};
    bt_status status = json_is_object(object)
                           ? read_object(object, chat, &line, err)
                           : BT_FAIL(err, BT_ERR_FORMAT, "not a JSON object: %.80s", error.text);
    json_decref(object);
    if (status == BT_OK) prompts->lines[prompts->count++] = line;
    return status;
}

bt_status bt_prompts_parse(const char *text, size_t bytes, const char *label, bool chat,
                           bt_prompts *ret_prompts, bt_err *err)
{
    bt_prompts prompts = {0};
    bt_status status = BT_OK;
    const char *at = text, *end = text + bytes;
    for (uint32_t number = 1; status == BT_OK && at < end; number++) {
        const char *lf = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((lf ? lf : end) - at);
        bt_err inner = {0};
        if (length > 0 && at[length - 1] == '\r') length--;
        if (length > 0) {
            status =
                prompts.count < BT_PROMPT_LINES_MAX
                    ? add_line(&prompts, at, length, chat, &inner)
                    : BT_FAIL(&inner, BT_ERR_LIMIT, "more than %u prompts", BT_PROMPT_LINES_MAX);
            if (status != BT_OK)
                BT_FAIL(err, status, "%.60s:%u: %.110s", label, number, inner.message);
        }
        at = lf ? lf + 1 : end;
    }
    if (status == BT_OK && prompts.count == 0)
        status = BT_FAIL(err, BT_ERR_FORMAT, "%.60s: there is no prompt in it", label);
    if (status != BT_OK) {
        bt_prompts_finish(&prompts);
        return status;
    }
    *ret_prompts = prompts;
    return BT_OK;
}

bt_status bt_prompts_read(const char *path, bool chat, bt_prompts *ret_prompts, bt_err *err)
{
    char *text;
    size_t bytes;
    bt_status status = bt_bench_read_file(path, BT_TRACE_BYTES_MAX, &text, &bytes, err);
    if (status != BT_OK) return status;
    status = bt_prompts_parse(text, bytes, path, chat, ret_prompts, err);
    free(text);
    return status;
}

void bt_prompts_finish(bt_prompts *prompts)
{
    for (uint32_t i = 0; i < prompts->count; i++) free(prompts->lines[i].json);
    free(prompts->lines);
    *prompts = (bt_prompts){0};
}
