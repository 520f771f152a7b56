/* decoder.h - the last stage of a tokenizer: what bytes each token stands for.
 *
 * SPLIT   A decoder works on the list of tokens of a whole text. Here it is split in two, so that
 *         tokens can be decoded one at a time: what it does to each token is done once, on opening
 *         (bt_decoder_piece); what it does to the beginning of the text is bt_text_start, and what
 *         it does to bytes that make no character is detok.h. A decoder that does anything else is
 *         refused.
 * ADD ONE a row in decoder.c: its type, and how its members are read. */
#ifndef BT_COMMON_TEXT_DECODER_H
#define BT_COMMON_TEXT_DECODER_H

#include "common/text/steps.h"

typedef struct {
    bt_steps steps; /* of one token */
    bool fused;     /* Fuse was read: what follows sees the whole text */
    bt_text_start start;
} bt_decoder;

bt_status bt_decoder_read(const json_t *stage, bt_decoder *ret_decoder, bt_err *err);

/* Sets ret_piece, which is empty, to the bytes of a token with this spelling. */
bt_status bt_decoder_piece(const bt_decoder *decoder, const char *text, size_t bytes,
                           bt_buffer *ret_piece, bt_err *err);

#endif
