/* byte_tokenizer.h - a tokenizer for tests: ids 0 to 255 are the bytes, then a few words. */
#ifndef BT_TESTS_BYTE_TOKENIZER_H
#define BT_TESTS_BYTE_TOKENIZER_H

#include "common/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* <s> and </s> are special. */
enum { ID_BOS = 256, ID_EOS, ID_SPACE_A, ID_HELLO, ID_STO, ID_COUNT };

static inline bt_tokenizer *byte_tokenizer(void)
{
    static char json[16384];
    size_t at = (size_t)sprintf(json, "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,"
                                      "\"merges\":[],\"vocab\":{");
    for (unsigned i = 0; i < 256; i++) at += (size_t)sprintf(json + at, "\"<0x%02X>\":%u,", i, i);
    sprintf(json + at,
            "\"<s>\":256,\"</s>\":257,\"\\u2581a\":258,\"hello\":259,\"sto\":260}},"
            "\"added_tokens\":["
            "{\"id\":256,\"content\":\"<s>\",\"special\":true,\"normalized\":false},"
            "{\"id\":257,\"content\":\"</s>\",\"special\":true,\"normalized\":false}],"
            "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":"
            "{\"String\":\"\\u2581\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},"
            "{\"type\":\"Fuse\"}]}}");
    bt_tokenizer *tokenizer;
    bt_err err;
    if (bt_tokenizer_parse(json, strlen(json), "test", &tokenizer, &err) == BT_OK) return tokenizer;
    fprintf(stderr, "%s\n", err.message);
    abort();
}

#endif
