/* ini.h - the syntax of config files: walks `[section]`, `key=value` and comment lines of a text.
 *
 *     # comment            a line whose first character that is no blank is # or ;
 *     [listen]             section: a-z, 0-9, _ and -
 *     port = 8000          key=value: blanks around both are dropped, everything else is the value
 *
 * Knows no key. Refuses what other readers guess at: text that is not UTF-8, control characters
 * (NUL, CR), lines over BT_INI_LINE_BYTES_MAX, a key before any section, a line without `=`, an
 * empty key, a trailing backslash (lines do not continue). Quotes have no meaning. Pure.
 *
 * The text is borrowed and cut up in place: names and values point into it. */
#ifndef BT_COMMON_CONFIG_INI_H
#define BT_COMMON_CONFIG_INI_H

#include "common/base/status.h"

#include <stddef.h>
#include <stdint.h>

#define BT_INI_LINE_BYTES_MAX 4096u

typedef struct {
    char *text;
    size_t bytes;
    size_t at;
    uint32_t line;       /* of the last entry, counted from 1 */
    const char *section; /* of the last entry, or NULL */
} bt_ini;

typedef struct {
    const char *section;
    const char *key; /* NULL: the text is over */
    const char *value;
} bt_ini_entry;

/* text[bytes] must be writable: the last line is ended there. */
void bt_ini_init(bt_ini *ini, char *text, size_t bytes);

/* The next key=value. Errors: ERR_FORMAT, with the reason only; ini->line is where. */
bt_status bt_ini_next(bt_ini *ini, bt_ini_entry *ret_entry, bt_err *err);

#endif
