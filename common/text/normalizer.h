/* normalizer.h - the first stage of a tokenizer: text to text.
 *
 * VERSION Letters and forms are those of Unicode 15, composed only as Unicode's stability policy
 *         allows; Hugging Face's tables for them are older, so compatibility forms (NFKC, NFKD) and
 *         accents of some 500 characters that came since differ.
 * ADD ONE a row in normalizer.c: its type, and how its members are read into steps. */
#ifndef BT_COMMON_TEXT_NORMALIZER_H
#define BT_COMMON_TEXT_NORMALIZER_H

#include "common/text/steps.h"

/* Reads into steps, which are empty. stage NULL: the text is kept. */
bt_status bt_normalizer_read(const json_t *stage, bt_steps *ret_steps, bt_err *err);

#endif
