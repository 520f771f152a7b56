/* json.h - reading tokenizer.json's members with one-line errors, for the stages' row files.
 *
 * A stage is an object with a "type", or null for "nothing to do". Sequences of stages are
 * flattened as they are read, up to BT_STAGE_STEPS_MAX steps. */
#ifndef BT_COMMON_TEXT_JSON_H
#define BT_COMMON_TEXT_JSON_H

#include "common/base/status.h"

#include <jansson.h>
#include <stdbool.h>

#define BT_STAGE_STEPS_MAX 16u
#define BT_STAGE_TEXT_BYTES_MAX 63u /* of a replacement, a prefix, … */

/* The member, or NULL if it is absent or null. */
const json_t *bt_json_member(const json_t *object, const char *key);

bt_status bt_json_flag(const json_t *object, const char *key, bool fallback, bool *ret_value,
                       bt_err *err);

/* A string of 1 to BT_STAGE_TEXT_BYTES_MAX bytes. Lives as long as the object. */
bt_status bt_json_member_text(const json_t *object, const char *key, const char **ret_text,
                              bt_err *err);

/* The "type" of a stage. what ("normalizer", …) is for the message. */
bt_status bt_json_type(const json_t *stage, const char *what, const char **ret_type, bt_err *err);

/* Adds a stage, or each one of a Sequence, whose list has this key. what is for the message. */
typedef bt_status (*bt_json_add_stage)(const json_t *stage, void *context, bt_err *err);
bt_status bt_json_stages(const json_t *stage, const char *what, const char *key,
                         bt_json_add_stage add, void *context, bt_err *err);

/* A name from the file as a message may show it: at most 60 bytes, printable ASCII. */
typedef struct {
    char text[64];
} bt_json_shown;
bt_json_shown bt_json_show(const char *name);

#endif
