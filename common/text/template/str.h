/* str.h - strings with marks: building, cutting, searching. All positions of the caller are code
 * points where a name says `char`, bytes otherwise. */
#ifndef BT_COMMON_TEXT_TEMPLATE_STR_H
#define BT_COMMON_TEXT_TEMPLATE_STR_H

#include "common/text/template/value.h"

/* Collects a string in the run's text arena. */
typedef struct {
    char *data;
    size_t bytes, capacity;
    bt_text_range *marks;
    size_t mark_count, mark_capacity;
    size_t bytes_max;
    bool markup;
} bt_tpl_builder;

void bt_tpl_build(const bt_tpl_run *run, bt_tpl_builder *builder);
bool bt_tpl_put(bt_tpl_run *run, bt_tpl_builder *builder, const char *data, size_t bytes,
                bool marked);
bool bt_tpl_put_text(bt_tpl_run *run, bt_tpl_builder *builder, const char *text); /* not marked */
bool bt_tpl_put_code(bt_tpl_run *run, bt_tpl_builder *builder, uint32_t code, bool marked);
bool bt_tpl_put_str(bt_tpl_run *run, bt_tpl_builder *builder, const bt_tpl_str *str);
bool bt_tpl_put_slice(bt_tpl_run *run, bt_tpl_builder *builder, const bt_tpl_str *str, size_t first,
                      size_t end);
bool bt_tpl_put_repeat(bt_tpl_run *run, bt_tpl_builder *builder, const bt_tpl_str *str,
                       size_t times);
bool bt_tpl_built(bt_tpl_run *run, bt_tpl_builder *builder, bt_tpl_value *ret);

/* A string of ours or of the template's: data is borrowed. */
bool bt_tpl_str_new(bt_tpl_run *run, const char *data, size_t bytes, bt_tpl_value *ret);
bool bt_tpl_str_text(bt_tpl_run *run, const char *text, bt_tpl_value *ret);
/* Bytes first … end - 1, sharing the data. */
bool bt_tpl_str_slice(bt_tpl_run *run, const bt_tpl_str *str, size_t first, size_t end,
                      bt_tpl_value *ret);
bool bt_tpl_str_concat(bt_tpl_run *run, const bt_tpl_str *left, const bt_tpl_str *right,
                       bt_tpl_value *ret);

/* The one character at a byte, a text of its own. Never changed by anyone: ASCII ones are shared. */
bool bt_tpl_str_char(bt_tpl_run *run, const bt_tpl_str *str, size_t offset, bool marked,
                     bt_tpl_value *ret);

/* Whether a byte is marked; offsets must not go down from call to call. */
typedef struct {
    const bt_tpl_str *str;
    size_t mark;
} bt_tpl_marks;
bool bt_tpl_marked(bt_tpl_marks *marks, size_t offset);

size_t bt_tpl_chars(bt_tpl_str *str);
/* The byte where a character begins; the end of the string if it is beyond. */
size_t bt_tpl_char_offset(bt_tpl_str *str, size_t index);
/* Characters of the first `offset` bytes. */
size_t bt_tpl_char_index(const bt_tpl_str *str, size_t offset);
/* The character at a byte, which must be within the string; *ret_bytes is its length. */
uint32_t bt_tpl_char_at(const bt_tpl_str *str, size_t offset, size_t *ret_bytes);
/* The one before a byte. */
uint32_t bt_tpl_char_before(const bt_tpl_str *str, size_t offset, size_t *ret_bytes);

/* Byte offset of needle within [first, end), or SIZE_MAX. */
size_t bt_tpl_find(const bt_tpl_str *str, const bt_tpl_str *needle, size_t first, size_t end);
size_t bt_tpl_rfind(const bt_tpl_str *str, const bt_tpl_str *needle, size_t first, size_t end);
bool bt_tpl_str_equal(const bt_tpl_str *left, const bt_tpl_str *right);
int bt_tpl_str_compare(const bt_tpl_str *left, const bt_tpl_str *right);

/* Python's str.isspace for one character, which is also \s of its re. */
bool bt_tpl_is_space(uint32_t code);

/* Without the characters at either end that are in chars (NULL: blanks). */
bool bt_tpl_strip(bt_tpl_run *run, const bt_tpl_str *str, const bt_tpl_str *chars, bool left,
                  bool right, bt_tpl_value *ret);

#endif
