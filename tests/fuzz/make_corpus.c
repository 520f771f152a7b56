/* make_corpus.c - writes the seeds of fuzz_msg and fuzz_seal: every kind twice, from fixed seeds, and
 * some bytes that are wrong in a way worth starting from.
 *
 * usage: make_corpus CORPUS_DIR      (tests/fuzz/corpus, with msg/ and seal/ in it) */
#include "proto/seal.h"
#include "tests/fuzz/msg_random.h"

#include <stdlib.h>

static const char *corpus;

static void write_seed(const char *format, const char *name, const uint8_t *data, size_t bytes)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s/%s", corpus, format, name);
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0) {
        perror(path);
        exit(1);
    }
}

static void write_kind(bt_random_msg *random, bt_msg_kind kind, uint32_t variant)
{
    static uint8_t bytes[BT_CODEC_BYTES_MAX];
    char name[64];
    size_t count;
    bt_err err;
    random_msg(random, kind);
    bool tokens = kind == BT_MSG_TOKENS || kind == BT_MSG_PROMPT_LOGPROBS;
    if (tokens && random->msg.tokens.token_count > 3) random->msg.tokens.token_count = 3;
    if (bt_codec_encode(&random->msg, bytes, sizeof(bytes), &count, &err) != BT_OK) {
        fprintf(stderr, "%s: %s\n", bt_msg_name(kind), err.message);
        exit(1);
    }
    snprintf(name, sizeof(name), "%s_%u", bt_msg_name(kind), variant);
    write_seed("msg", name, bytes, count);
    if (bt_seal_allows(BT_ROLE_PREFILL, kind) || bt_seal_allows(BT_ROLE_DECODE, kind)) {
        write_seed("seal", name, bytes, count);
        if (variant == 0) {
            snprintf(name, sizeof(name), "%s_cut", bt_msg_name(kind));
            write_seed("seal", name, bytes, count / 2);
        }
    }
}

static void write_wrong(void)
{
    static const struct {
        const char *name;
        uint8_t bytes[24];
        size_t count;
    } wrong[] = {
        {"empty_envelope", {0}, 0},
        {"major_2", {0x08, 2, 0x10, 5}, 4},
        {"kind_unknown", {0x08, 1, 0xfa, 0x07, 0}, 5},
        {"two_bodies", {0x08, 1, 0xea, 0x01, 0, 0xda, 0x02, 0}, 8},
        {"group", {0x08, 1, 0xeb, 0x01, 0xec, 0x01}, 6},
        {"length_too_long", {0x08, 1, 0xea, 0x01, 0xff, 0xff, 0xff, 0xff, 0x0f}, 9},
        {"varint_too_long",
         {0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
         12},
        {"fence_short", {0x08, 1, 0x1a, 4, 0x0a, 2, 1, 2, 0xea, 0x01, 0}, 11},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        write_seed("msg", wrong[i].name, wrong[i].bytes, wrong[i].count);
        write_seed("seal", wrong[i].name, wrong[i].bytes, wrong[i].count);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: make_corpus CORPUS_DIR\n");
        return 2;
    }
    corpus = argv[1];
    bt_random_msg *random = calloc(1, sizeof(*random));
    if (random == NULL) return 1;
    random->tokens_max = 30;
    random->state = 1;
    for (int kind = 1; kind < BT_MSG_KIND_END; kind++)
        for (uint32_t variant = 0; variant < 2; variant++)
            write_kind(random, (bt_msg_kind)kind, variant);
    write_wrong();
    free(random);
    return 0;
}
