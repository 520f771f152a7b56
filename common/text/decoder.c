#include "common/text/decoder.h"

#include "common/base/utf8.h"
#include "common/text/bpe.h"
#include "common/text/pretokenizer.h"

#include <string.h>

#define STRIP_MAX 1024 /* characters of one end */

static bt_status refuse_fused(const bt_decoder *decoder, const char *type, bt_err *err)
{
    if (!decoder->fused) return BT_OK;
    return BT_FAIL(err, BT_ERR_ARGUMENT, "a %s decoder after Fuse is not supported", type);
}

static bt_status read_replace(const json_t *stage, bt_decoder *decoder, bt_err *err)
{
    bt_status status = refuse_fused(decoder, "Replace", err);
    return status == BT_OK ? bt_steps_add_replace(&decoder->steps, stage, err) : status;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bt_status run_byte_fallback(const bt_step *step, const bt_buffer *from, bt_buffer *to,
                                   bt_err *err)
{
    (void)step;
    const char *text = from->data;
    if (from->bytes == 6 && memcmp(text, "<0x", 3) == 0 && text[5] == '>' &&
        hex_digit(text[3]) >= 0 && hex_digit(text[4]) >= 0) {
        char byte = (char)(hex_digit(text[3]) * 16 + hex_digit(text[4]));
        return bt_buffer_add(to, &byte, 1, err);
    }
    return bt_buffer_copy(to, from, 0, from->bytes, err);
}

static bt_status read_byte_fallback(const json_t *stage, bt_decoder *decoder, bt_err *err)
{
    (void)stage;
    bt_step *step = NULL;
    bt_status status = refuse_fused(decoder, "ByteFallback", err);
    return status == BT_OK ? bt_steps_add(&decoder->steps, run_byte_fallback, &step, err) : status;
}

static bt_status read_fuse(const json_t *stage, bt_decoder *decoder, bt_err *err)
{
    (void)stage, (void)err;
    decoder->fused = true;
    return BT_OK;
}

/* Drops up to start of the step's content from the front of a token, and up to stop at its end. */
static bt_status run_strip(const bt_step *step, const bt_buffer *from, bt_buffer *to, bt_err *err)
{
    size_t unit = strlen(step->content), begin = 0, end = from->bytes;
    for (uint32_t i = 0; i < step->start && end - begin >= unit; i++, begin += unit)
        if (memcmp(from->data + begin, step->content, unit) != 0) break;
    for (uint32_t i = 0; i < step->stop && end - begin >= unit; i++, end -= unit)
        if (memcmp(from->data + end - unit, step->content, unit) != 0) break;
    return bt_buffer_copy(to, from, begin, end - begin, err);
}

static bt_status read_strip(const json_t *stage, bt_decoder *decoder, bt_err *err)
{
    const json_t *start = bt_json_member(stage, "start"), *stop = bt_json_member(stage, "stop");
    const char *content;
    bt_status status = bt_json_member_text(stage, "content", &content, err);
    if (status != BT_OK) return status;
    if (bt_utf8_char(content, strlen(content), NULL) != strlen(content) ||
        !json_is_integer(start) || json_integer_value(start) < 0 ||
        json_integer_value(start) > STRIP_MAX || !json_is_integer(stop) ||
        json_integer_value(stop) < 0 || json_integer_value(stop) > STRIP_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT,
                       "a Strip decoder has no content of one character, or no start and stop of "
                       "0 to %d",
                       STRIP_MAX);
    if (decoder->fused) {
        if (strcmp(content, " ") != 0 || json_integer_value(stop) != 0)
            return BT_FAIL(err, BT_ERR_ARGUMENT,
                           "after Fuse, a Strip decoder is supported only for leading spaces");
        decoder->start.first_spaces += (uint32_t)json_integer_value(start);
        return BT_OK;
    }
    bt_step *step = NULL;
    status = bt_steps_add(&decoder->steps, run_strip, &step, err);
    if (status != BT_OK) return status;
    strcpy(step->content, content);
    step->start = (uint32_t)json_integer_value(start);
    step->stop = (uint32_t)json_integer_value(stop);
    return BT_OK;
}

/* A token with any character outside the alphabet stands for its own spelling. */
static bt_status run_byte_level(const bt_step *step, const bt_buffer *from, bt_buffer *to,
                                bt_err *err)
{
    (void)step;
    for (size_t at = 0; at < from->bytes;) {
        uint32_t code = 0;
        size_t length = bt_utf8_char(from->data + at, from->bytes - at, &code);
        int spelled = length > 0 ? bt_byte_spelled(code) : -1;
        if (spelled < 0) {
            to->bytes = 0;
            return bt_buffer_copy(to, from, 0, from->bytes, err);
        }
        char byte = (char)spelled;
        bt_status status = bt_buffer_add(to, &byte, 1, err);
        if (status != BT_OK) return status;
        at += length;
    }
    return BT_OK;
}

static bt_status read_byte_level(const json_t *stage, bt_decoder *decoder, bt_err *err)
{
    (void)stage;
    bt_step *step = NULL;
    if (decoder->fused || decoder->steps.count > 0)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "a ByteLevel decoder after another is not supported");
    return bt_steps_add(&decoder->steps, run_byte_level, &step, err);
}

static bt_status read_metaspace(const json_t *stage, bt_decoder *decoder, bt_err *err)
{
    const char *mark;
    bt_prepend prepend;
    bt_status status = refuse_fused(decoder, "Metaspace", err);
    if (status == BT_OK) status = bt_json_member_text(stage, "replacement", &mark, err);
    if (status == BT_OK) status = bt_prepend_read(stage, &prepend, err);
    if (status != BT_OK) return status;
    decoder->start.first_token_spaces = prepend != BT_PREPEND_NEVER;
    return bt_steps_add_exchange(&decoder->steps, mark, " ", err);
}

static const struct {
    const char *type;
    bt_status (*read)(const json_t *stage, bt_decoder *decoder, bt_err *err);
} kinds[] = {
    {"ByteLevel", read_byte_level},
    {"Replace", read_replace},
    {"ByteFallback", read_byte_fallback},
    {"Fuse", read_fuse},
    {"Strip", read_strip},
    {"Metaspace", read_metaspace},
};

static bt_status add_step(const json_t *stage, void *context, bt_err *err)
{
    const char *type;
    bt_status status = bt_json_type(stage, "decoder", &type, err);
    if (status != BT_OK) return status;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].type, type) == 0) return kinds[i].read(stage, context, err);
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
                           bt_buffer *ret_piece, bt_err *err)
{
    return bt_steps_run(&decoder->steps, text, NULL, bytes, ret_piece, err);
}
