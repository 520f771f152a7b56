#include "common/config/ini.h"
#include "common/base/utf8.h"

#include <stdbool.h>
#include <string.h>

#define NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyz0123456789_-"

void bt_ini_init(bt_ini *ini, char *text, size_t bytes)
{
    *ini = (bt_ini){.text = text, .bytes = bytes};
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Ends text at end and drops the blanks on both sides. */
static char *trim(char *text, char *end)
{
    while (end > text && is_blank(end[-1])) end--;
    *end = '\0';
    while (is_blank(*text)) text++;
    return text;
}

static bool is_name(const char *text)
{
    return text[0] != '\0' && text[strspn(text, NAME_CHARACTERS)] == '\0';
}

static bt_status check_characters(const char *line, size_t bytes, bt_err *err)
{
    if (bytes > BT_INI_LINE_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT, "the line is longer than %u bytes",
                       BT_INI_LINE_BYTES_MAX);
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)line[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return BT_FAIL(err, BT_ERR_FORMAT, "control character 0x%02x in column %zu", c, i + 1);
    }
    if (!bt_utf8_valid(line, bytes)) return BT_FAIL(err, BT_ERR_FORMAT, "the line is not UTF-8");
    return BT_OK;
}

/* `[section]`, trimmed. */
static bt_status take_section(bt_ini *ini, char *text, bt_err *err)
{
    size_t bytes = strlen(text);
    if (text[bytes - 1] != ']') return BT_FAIL(err, BT_ERR_FORMAT, "the section has no closing ]");
    text[bytes - 1] = '\0';
    if (!is_name(text + 1))
        return BT_FAIL(err, BT_ERR_FORMAT, "a section is named with a-z, 0-9, _ and -");
    ini->section = text + 1;
    return BT_OK;
}

/* `key=value`, trimmed; end is its NUL. */
static bt_status take_entry(const bt_ini *ini, char *text, char *end, bt_ini_entry *ret_entry,
                            bt_err *err)
{
    char *equals = strchr(text, '=');
    if (equals == NULL) return BT_FAIL(err, BT_ERR_FORMAT, "neither [section] nor key=value");
    char *value = trim(equals + 1, end);
    char *key = trim(text, equals);
    if (!is_name(key)) return BT_FAIL(err, BT_ERR_FORMAT, "a key is named with a-z, 0-9, _ and -");
    if (ini->section == NULL)
        return BT_FAIL(err, BT_ERR_FORMAT, "'%.32s' stands before any [section]", key);
    *ret_entry = (bt_ini_entry){.section = ini->section, .key = key, .value = value};
    return BT_OK;
}

bt_status bt_ini_next(bt_ini *ini, bt_ini_entry *ret_entry, bt_err *err)
{
    while (ini->at < ini->bytes) {
        char *line = ini->text + ini->at;
        char *end = memchr(line, '\n', ini->bytes - ini->at);
        if (end == NULL) end = ini->text + ini->bytes;
        ini->at = (size_t)(end - ini->text) + 1;
        ini->line++;
        bt_status status = check_characters(line, (size_t)(end - line), err);
        if (status != BT_OK) return status;
        char *text = trim(line, end);
        if (*text == '\0' || *text == '#' || *text == ';') continue;
        if (text[strlen(text) - 1] == '\\')
            return BT_FAIL(err, BT_ERR_FORMAT, "lines do not continue with a backslash");
        if (*text != '[') return take_entry(ini, text, text + strlen(text), ret_entry, err);
        status = take_section(ini, text, err);
        if (status != BT_OK) return status;
    }
    *ret_entry = (bt_ini_entry){0};
    return BT_OK;
}
