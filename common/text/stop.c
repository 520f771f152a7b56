#include "common/text/stop.h"

#include <assert.h>
#include <string.h>

/* KMP: how many bytes of string s the text ends with, after one more byte. */
static uint32_t advance(const bt_stop *stop, uint32_t s, uint32_t state, char byte)
{
    while (state > 0 && stop->strings[s].text[state] != byte)
        state = stop->strings[s].fail[state - 1];
    return stop->strings[s].text[state] == byte ? state + 1 : 0;
}

bt_status bt_stop_init(bt_stop *stop, const bt_stop_string *strings, uint32_t count, bt_err *err)
{
    *stop = (bt_stop){0};
    if (count > BT_STOP_STRINGS_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "%u stop strings, the limit is %u", count,
                       BT_STOP_STRINGS_MAX);
    for (uint32_t s = 0; s < count; s++) {
        if (strings[s].bytes == 0)
            return BT_FAIL(err, BT_ERR_ARGUMENT, "stop string %u is empty", s);
        if (strings[s].bytes > BT_STOP_BYTES_MAX)
            return BT_FAIL(err, BT_ERR_LIMIT, "stop string %u has %zu bytes, the limit is %u", s,
                           strings[s].bytes, BT_STOP_BYTES_MAX);
        stop->strings[s].bytes = (uint32_t)strings[s].bytes;
        memcpy(stop->strings[s].text, strings[s].text, strings[s].bytes);
        for (uint32_t i = 1; i < stop->strings[s].bytes; i++)
            stop->strings[s].fail[i] =
                (uint16_t)advance(stop, s, stop->strings[s].fail[i - 1], stop->strings[s].text[i]);
    }
    stop->count = count;
    return BT_OK;
}

/* Feeds one byte to every string. Returns how many of the last bytes must be held back: the longest
 * partial match, or, after a match, the match itself. */
static uint32_t feed(bt_stop *stop, char byte)
{
    uint32_t longest = 0, matched = 0;
    for (uint32_t s = 0; s < stop->count; s++) {
        uint32_t state = advance(stop, s, stop->strings[s].state, byte);
        stop->strings[s].state = state;
        if (state > longest) longest = state;
        if (state == stop->strings[s].bytes && state > matched) {
            matched = state;
            stop->matched = true;
            stop->matched_index = s;
        }
    }
    return matched > 0 ? matched : longest;
}

size_t bt_stop_push(bt_stop *stop, const char *text, size_t bytes, char *ret_text)
{
    assert(!stop->matched);
    /* All text so far is: sent, then held, then text. ret_text takes held and text; what of it
     * must be kept is then cut off its end. */
    size_t total = stop->held_bytes;
    uint32_t keep = stop->held_bytes;
    memcpy(ret_text, stop->held, stop->held_bytes);
    for (size_t i = 0; i < bytes && !stop->matched; i++) {
        ret_text[total++] = text[i];
        keep = feed(stop, text[i]);
    }
    assert(keep <= total);
    stop->held_bytes = stop->matched ? 0 : keep;
    memcpy(stop->held, ret_text + total - keep, stop->held_bytes);
    return total - keep;
}

size_t bt_stop_flush(bt_stop *stop, char *ret_text)
{
    size_t bytes = stop->held_bytes;
    memcpy(ret_text, stop->held, bytes);
    stop->held_bytes = 0;
    return bytes;
}
