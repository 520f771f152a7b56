#include "common/text/decoder.h"

#include "common/base/utf8.h"
#include "common/text/bpe.h"
#include "common/text/pretokenizer.h"

#include <string.h>

typedef struct bt_decoder_step step_t;

struct bt_decoder_kind {
    const char *type;
    bt_status (*read)(const json_t *stage, bt_decoder *decoder, step_t *step, bt_err *err);
    bt_status (*run)(const step_t *step, const bt_text *from, bt_text *to, bt_err *err);
};

static bt_status run_keep(const step_t *step, const bt_text *from, bt_text *to, bt_err *err)
{
    (void)step;
    return bt_text_add(to, from->data, from->bytes, err);
}

static bt_status read_replace(const json_t *stage, bt_decoder *decoder, step_t *step, bt_err *err)
{
    if (decoder->fused)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "a Replace decoder after Fuse is not supported");
    const char *pattern;
    bt_status status = bt_json_pattern(stage, &pattern, err);
    if (status != BT_OK) return status;
    const json_t *content = bt_json_member(stage, "content");
    if (!json_is_string(content) || json_string_length(content) > BT_STAGE_TEXT_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT, "content is not a string of at most %u bytes",
                       BT_STAGE_TEXT_BYTES_MAX);
    strcpy(step->pattern, pattern);
    strcpy(step->content, json_string_value(content));
    return BT_OK;
}

static bt_status run_replace(const step_t *step, const bt_text *from, bt_text *to, bt_err *err)
{
    size_t pattern_bytes = strlen(step->pattern), at = 0;
    bt_status status = BT_OK;
    while (at < from->bytes && status == BT_OK) {
        if (from->bytes - at >= pattern_bytes &&
            memcmp(from->data + at, step->pattern, pattern_bytes) == 0) {
            status = bt_text_add(to, step->content, strlen(step->content), err);
            at += pattern_bytes;
        } else {
            status = bt_text_add(to, from->data + at++, 1, err);
        }
    }
    return status;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bt_status read_byte_fallback(const json_t *stage, bt_decoder *decoder, step_t *step,
                                    bt_err *err)
{
    (void)stage, (void)step;
    if (!decoder->fused) return BT_OK;
    return BT_FAIL(err, BT_ERR_ARGUMENT, "a ByteFallback decoder after Fuse is not supported");
}

static bt_status run_byte_fallback(const step_t *step, const bt_text *from, bt_text *to,
                                   bt_err *err)
{
    const char *text = from->data;
    if (from->bytes == 6 && memcmp(text, "<0x", 3) == 0 && text[5] == '>' &&
        hex_digit(text[3]) >= 0 && hex_digit(text[4]) >= 0) {
        char byte = (char)(hex_digit(text[3]) * 16 + hex_digit(text[4]));
        return bt_text_add(to, &byte, 1, err);
    }
    return run_keep(step, from, to, err);
}

static bt_status read_fuse(const json_t *stage, bt_decoder *decoder, step_t *step, bt_err *err)
{
    (void)stage, (void)step, (void)err;
    decoder->fused = true;
    return BT_OK;
}

static bt_status read_strip(const json_t *stage, bt_decoder *decoder, step_t *step, bt_err *err)
{
    (void)step;
    const json_t *start = bt_json_member(stage, "start"), *stop = bt_json_member(stage, "stop");
    const char *content = json_string_value(bt_json_member(stage, "content"));
    if (content == NULL || !json_is_integer(start) || !json_is_integer(stop) ||
        json_integer_value(start) < 0 || json_integer_value(start) > 1024)
        return BT_FAIL(err, BT_ERR_FORMAT, "a Strip decoder has no content, start and stop");
    if (!decoder->fused || strcmp(content, " ") != 0 || json_integer_value(stop) != 0)
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "a Strip decoder is supported only for leading spaces after Fuse");
    decoder->start.first_spaces += (uint32_t)json_integer_value(start);
    return BT_OK;
}

static bt_status read_byte_level(const json_t *stage, bt_decoder *decoder, step_t *step,
                                 bt_err *err)
{
    (void)stage, (void)step;
    if (!decoder->fused && decoder->count == 1) return BT_OK;
    return BT_FAIL(err, BT_ERR_ARGUMENT, "a ByteLevel decoder after another is not supported");
}

/* A token with any character outside the alphabet stands for its own spelling. */
static bt_status run_byte_level(const step_t *step, const bt_text *from, bt_text *to, bt_err *err)
{
    for (size_t at = 0; at < from->bytes;) {
        uint32_t code = 0;
        size_t length = bt_utf8_char(from->data + at, from->bytes - at, &code);
        int spelled = length > 0 ? bt_byte_spelled(code) : -1;
        if (spelled < 0) {
            to->bytes = 0;
            return run_keep(step, from, to, err);
        }
        char byte = (char)spelled;
        bt_status status = bt_text_add(to, &byte, 1, err);
        if (status != BT_OK) return status;
        at += length;
    }
    return BT_OK;
}

static bt_status read_metaspace(const json_t *stage, bt_decoder *decoder, step_t *step, bt_err *err)
{
    const char *replacement;
    bt_prepend prepend;
    if (decoder->fused)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "a Metaspace decoder after Fuse is not supported");
    bt_status status = bt_json_member_text(stage, "replacement", &replacement, err);
    if (status == BT_OK) status = bt_prepend_read(stage, &prepend, err);
    if (status != BT_OK) return status;
    strcpy(step->pattern, replacement);
    strcpy(step->content, " ");
    decoder->start.first_token_spaces = prepend != BT_PREPEND_NEVER;
    return BT_OK;
}

static const bt_decoder_kind kinds[] = {
    {"ByteLevel", read_byte_level, run_byte_level},
    {"Replace", read_replace, run_replace},
    {"ByteFallback", read_byte_fallback, run_byte_fallback},
    {"Fuse", read_fuse, run_keep},
    {"Strip", read_strip, run_keep},
    {"Metaspace", read_metaspace, run_replace},
};

static bt_status add_step(const json_t *stage, void *context, bt_err *err)
{
    bt_decoder *decoder = context;
    const char *type;
    bt_status status = bt_json_type(stage, "decoder", &type, err);
    if (status != BT_OK) return status;
    if (decoder->count == BT_STAGE_STEPS_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "more than %u decoders", BT_STAGE_STEPS_MAX);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].type, type) != 0) continue;
        step_t *step = &decoder->steps[decoder->count++];
        step->kind = &kinds[i];
        return kinds[i].read(stage, decoder, step, err);
    }
    return BT_FAIL(err, BT_ERR_ARGUMENT, "decoder '%s' is not supported", bt_json_show(type).text);
}

bt_status bt_decoder_read(const json_t *stage, bt_decoder *ret_decoder, bt_err *err)
{
    *ret_decoder = (bt_decoder){0};
    if (stage == NULL)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "a tokenizer without a decoder is not supported");
    return bt_json_stages(stage, "decoder", "decoders", add_step, ret_decoder, err);
}

bt_status bt_decoder_piece(const bt_decoder *decoder, const char *text, size_t bytes,
                           bt_text *ret_piece, bt_err *err)
{
    bt_text from = {0};
    bt_status status = bt_text_add(&from, text, bytes, err);
    for (uint32_t i = 0; i < decoder->count && status == BT_OK; i++) {
        bt_text to = {0};
        status = decoder->steps[i].kind->run(&decoder->steps[i], &from, &to, err);
        bt_text_release(&from);
        from = to;
    }
    if (status != BT_OK) {
        bt_text_release(&from);
        return status;
    }
    *ret_piece = from;
    return BT_OK;
}
