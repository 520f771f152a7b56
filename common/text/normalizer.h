/* normalizer.h - the first stage of a tokenizer: text to text.
 *
 * ADD ONE  a row in normalizer.c: its type, how its members are read, how it changes text. */
#ifndef BT_COMMON_TEXT_NORMALIZER_H
#define BT_COMMON_TEXT_NORMALIZER_H

#include "common/text/json.h"
#include "common/text/tokenizer.h"

#define BT_NORMAL_BYTES_MAX (4u * BT_TEXT_BYTES_MAX) /* of normalized text */

typedef struct bt_normalizer_kind bt_normalizer_kind;

typedef struct {
    uint32_t count;
    struct bt_normalizer_step {
        const bt_normalizer_kind *kind;
        char pattern[BT_STAGE_TEXT_BYTES_MAX + 1];
        char content[BT_STAGE_TEXT_BYTES_MAX + 1];
    } steps[BT_STAGE_STEPS_MAX];
} bt_normalizer;

/* A growing text. Zero is empty; release gives its memory back. A marked text has a mark, 0 or 1,
 * for each of its bytes. */
typedef struct {
    char *data;
    uint8_t *marks; /* NULL unless marked */
    size_t bytes;
    size_t capacity;
    bool marked;
} bt_text;
/* Adds bytes that come from bytes at … at + taken - 1 of another text: their mark is set if one of
 * those is. from NULL: they come from nowhere. */
bt_status bt_text_put(bt_text *text, const char *data, size_t bytes, const bt_text *from, size_t at,
                      size_t taken, bt_err *err);
/* Adds bytes of another text as they are, with their marks. */
bt_status bt_text_copy(bt_text *text, const bt_text *from, size_t at, size_t bytes, bt_err *err);
bt_status bt_text_add(bt_text *text, const char *data, size_t bytes, bt_err *err);
void bt_text_release(bt_text *text);

/* stage NULL: changes nothing. */
bt_status bt_normalizer_read(const json_t *stage, bt_normalizer *ret_normalizer, bt_err *err);

/* Sets ret_text, which is empty, to the normalized text; marks may be NULL. ERR_LIMIT above
 * BT_NORMAL_BYTES_MAX. */
bt_status bt_normalizer_run(const bt_normalizer *normalizer, const char *text, const uint8_t *marks,
                            size_t bytes, bt_text *ret_text, bt_err *err);

#endif
