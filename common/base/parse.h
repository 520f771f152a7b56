/* parse.h - text from outside into numbers, strictly: the whole text or nothing, no blanks, no
 * silent wrap, no locale. Used for config values, command lines and header fields.
 *
 * Errors: ERR_ARGUMENT, with a message that quotes the text (cut and escaped). Pure. */
#ifndef BT_COMMON_BASE_PARSE_H
#define BT_COMMON_BASE_PARSE_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decimal digits only, 0 .. 2^64-1. */
bt_status bt_parse_u64(const char *text, uint64_t *ret_value, bt_err *err);

/* Decimal digits only, 0 .. max. */
bt_status bt_parse_u32(const char *text, uint32_t max, uint32_t *ret_value, bt_err *err);

/* Decimal number with optional sign, fraction and exponent; finite. No hexadecimal, inf or nan. */
bt_status bt_parse_double(const char *text, double *ret_value, bt_err *err);

/* A whole number with an optional unit B, KiB, MiB, GiB or TiB: "64MiB". Units of 1000 are refused,
 * so that nobody has to guess. */
bt_status bt_parse_bytes(const char *text, uint64_t *ret_bytes, bt_err *err);

/* A whole number with a unit ns, us, ms, s, min, h or d: "10s". Only 0 may go without. */
bt_status bt_parse_duration_ns(const char *text, uint64_t *ret_ns, bt_err *err);

/* true, yes, on, 1 or false, no, off, 0. */
bt_status bt_parse_bool(const char *text, bool *ret_value, bt_err *err);

/* The shortest text that the parser above reads back to the same value; returns ret_text.
 * BT_UNIT_TEXT_BYTES are always enough. */
#define BT_UNIT_TEXT_BYTES 32u
const char *bt_format_bytes(uint64_t bytes, char ret_text[BT_UNIT_TEXT_BYTES]);
const char *bt_format_duration_ns(uint64_t ns, char ret_text[BT_UNIT_TEXT_BYTES]);

/* text as it can safely stand in one line of a log or a terminal, cut to capacity with a NUL:
 * control characters, line separators, direction overrides, bytes that are not UTF-8 and the
 * backslash become \n, \t, \xNN or \\. Returns ret_text. capacity > 4. */
const char *bt_escape(const char *text, size_t bytes, char *ret_text, size_t capacity);

#endif
