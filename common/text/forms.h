/* forms.h - Unicode's normal forms NFC, NFD, NFKC and NFKD of a text.
 *
 * COST    Linear: text is cut where normalization cannot cross, and what may change is decomposed,
 *         its marks sorted by counting, and composed again. (utf8proc's own mapping of a text sorts
 *         marks by exchanging neighbours, which a text of marks makes quadratic.)
 * Source: Unicode Standard Annex #15. Tables: utf8proc. */
#ifndef BT_COMMON_TEXT_FORMS_H
#define BT_COMMON_TEXT_FORMS_H

#include "common/text/buffer.h"

/* NFD is neither, NFC the first, NFKD the second. */
#define BT_FORM_COMPOSED 1u
#define BT_FORM_COMPATIBLE 2u

/* Adds the normal form of `from`, which is valid UTF-8, to `to`. ERR_LIMIT, ERR_NO_MEMORY. */
bt_status bt_form_run(uint32_t form, const bt_buffer *from, bt_buffer *to, bt_err *err);

#endif
