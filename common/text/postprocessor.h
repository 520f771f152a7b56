/* postprocessor.h - the stage of a tokenizer that adds BOS and the like around a text's ids.
 *
 * ADD ONE  a row in postprocessor.c: its type, and how its members are read. */
#ifndef BT_COMMON_TEXT_POSTPROCESSOR_H
#define BT_COMMON_TEXT_POSTPROCESSOR_H

#include "common/text/json.h"

#include <stdint.h>

#define BT_AROUND_IDS_MAX 16u /* before a text, and after it */

typedef struct {
    bool templated;
    uint32_t before_count, after_count;
    uint32_t before[BT_AROUND_IDS_MAX], after[BT_AROUND_IDS_MAX];
} bt_postprocessor;

/* stage NULL: adds nothing. */
bt_status bt_postprocessor_read(const json_t *stage, bt_postprocessor *ret_postprocessor,
                                bt_err *err);

#endif
