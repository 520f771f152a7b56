#include "router/choice_text.h"

#include <stdlib.h>
#include <string.h>

void bt_choice_text_init(bt_choice_text *text, const bt_detok *detok, const bt_stop *stop,
                         uint64_t chars_before)
{
    *text = (bt_choice_text){.detok = *detok, .stop = *stop, .decoded_chars = chars_before};
}

void bt_choice_text_close(bt_choice_text *text)
{
    free(text->entries);
    text->entries = NULL;
}

/* Bytes that begin one. */
uint64_t bt_count_chars(const char *text, size_t bytes)
{
    uint64_t chars = 0;
    for (size_t i = 0; i < bytes; i++) chars += ((uint8_t)text[i] & 0xc0) != 0x80;
    return chars;
}

static bool add_entry(bt_choice_text *text, const bt_token *token)
{
    if (text->count == text->capacity) {
        uint32_t capacity = 2 * text->capacity + 16;
        bt_choice_entry *grown = realloc(text->entries, capacity * sizeof(bt_choice_entry));
        if (grown == NULL) return false;
        text->entries = grown;
        text->capacity = capacity;
    }
    text->entries[text->count++] = (bt_choice_entry){
        .token = *token, .begin = text->decoded_bytes, .offset = text->decoded_chars};
    return true;
}

/* Entries whose text is known to its end, and of these the ones whose text is released. A cut is
 * final: what begins at it or after it stays. */
static void settle(bt_choice_text *text, bool cut)
{
    if (cut || text->detok.held_bytes == 0) {
        for (; text->settled < text->count; text->settled++)
            text->entries[text->settled].end = text->decoded_bytes;
    }
    while (text->ready < text->settled) {
        const bt_choice_entry *entry = &text->entries[text->ready];
        bool whole = entry->end <= text->released_bytes;
        if (!whole && !(cut && entry->begin < text->released_bytes)) break;
        text->ready++;
    }
}

/* Passes decoded text through the stop strings. */
static size_t release(bt_choice_text *text, const char *decoded, size_t bytes, char *ret_text)
{
    size_t released = bt_stop_push(&text->stop, decoded, bytes, ret_text);
    if (text->stop.matched && text->include_stop) {
        uint32_t match = text->stop.matched_index, length = text->stop.strings[match].bytes;
        memcpy(ret_text + released, text->stop.strings[match].text, length);
        released += length;
    }
    text->decoded_bytes += bytes;
    text->decoded_chars += bt_count_chars(decoded, bytes);
    text->released_bytes += released;
    return released;
}

bool bt_choice_text_push(bt_choice_text *text, const bt_token *token, bt_push_kind kind,
                         char ret_text[BT_CHOICE_TEXT_BYTES_MAX], size_t *ret_bytes)
{
    *ret_bytes = 0;
    if (text->entries_wanted && kind != BT_PUSH_SILENT && !add_entry(text, token)) return false;
    if (kind == BT_PUSH_UNSTOPPED) {
        *ret_bytes = bt_detok_push(&text->detok, token->id, ret_text);
        text->decoded_bytes += *ret_bytes;
        text->decoded_chars += bt_count_chars(ret_text, *ret_bytes);
        text->released_bytes += *ret_bytes;
    } else {
        char decoded[BT_DETOK_BYTES_MAX];
        size_t bytes = kind == BT_PUSH_TEXT ? bt_detok_push(&text->detok, token->id, decoded) : 0;
        *ret_bytes = release(text, decoded, bytes, ret_text);
    }
    settle(text, text->stop.matched);
    return true;
}

void bt_choice_text_finish(bt_choice_text *text, char ret_text[BT_CHOICE_TEXT_BYTES_MAX],
                           size_t *ret_bytes)
{
    *ret_bytes = 0;
    if (text->stop.matched) return;
    char decoded[BT_DETOK_BYTES_MAX];
    size_t bytes = bt_detok_flush(&text->detok, decoded);
    *ret_bytes = release(text, decoded, bytes, ret_text);
    if (!text->stop.matched) {
        size_t rest = bt_stop_flush(&text->stop, ret_text + *ret_bytes);
        *ret_bytes += rest;
        text->released_bytes += rest;
    }
    settle(text, text->stop.matched);
}

void bt_choice_text_took(bt_choice_text *text)
{
    if (text->ready == 0) return;
    memmove(text->entries, text->entries + text->ready,
            (text->count - text->ready) * sizeof(bt_choice_entry));
    text->count -= text->ready;
    text->settled -= text->ready;
    text->ready = 0;
}
