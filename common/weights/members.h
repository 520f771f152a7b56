/* members.h - the members of a config.json, with checks and one-line errors that name them.
 *
 * null is absent: Hugging Face means the same by both, but where config.c says otherwise. */
#ifndef BT_COMMON_WEIGHTS_MEMBERS_H
#define BT_COMMON_WEIGHTS_MEMBERS_H

#include "common/base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* The member, or NULL if it is absent or null, or object is no object. */
const json_t *bt_member(const json_t *object, const char *key);

/* A whole number from 1 to max. fallback 0: the member is required. ERR_FORMAT: no such number;
 * ERR_ARGUMENT: above max. */
bt_status bt_member_count(const json_t *object, const char *key, uint32_t fallback, uint32_t max,
                          uint32_t *ret_value, bt_err *err);

/* A number within [min, max]. fallback NAN: the member is required. */
typedef struct {
    double fallback, min, max;
} bt_member_range;
bt_status bt_member_real(const json_t *object, const char *key, bt_member_range range,
                         double *ret_value, bt_err *err);

bt_status bt_member_flag(const json_t *object, const char *key, bool fallback, bool *ret_value,
                         bt_err *err);

/* ret_text lives as long as object; NULL if absent. */
bt_status bt_member_text(const json_t *object, const char *key, const char **ret_text, bt_err *err);

#endif
