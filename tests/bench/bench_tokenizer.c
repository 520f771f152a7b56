/* bench_tokenizer.c - how fast texts become ids.
 *
 *     bench_tokenizer TEXT… -- TOKENIZER.json…
 *
 * Encodes the first 2 MiB of each text file with each tokenizer, whole and in parts of a prompt's size (4 KiB), and
 * prints a Markdown table of MB/s of one core's time: the best of 5 runs. The references of the same run are one pass over the same text
 * that does nothing but check that it is UTF-8, and a copy of 64 MiB, which is bound by memory. */
#include "common/base/utf8.h"
#include "common/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RUNS 5
#define PART_BYTES 4096u
#define COPY_BYTES (64u << 20)

typedef struct {
    char *data;
    size_t bytes;
} text;

static void die(const char *what)
{
    fprintf(stderr, "bench_tokenizer: %s\n", what);
    exit(1);
}

/* Time of this thread on a core, which other programs do not lengthen. */
static uint64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Bytes of the text from `from` on, at most `most`, that end where a character ends. */
static size_t whole_characters(const text *t, size_t from, size_t most)
{
    size_t end = t->bytes - from > most ? from + most : t->bytes;
    while (end < t->bytes && end > from && ((uint8_t)t->data[end] & 0xC0) == 0x80) end--;
    return end - from;
}

static text load(const char *path)
{
    text t = {.data = malloc(BT_TEXT_BYTES_MAX + 4)};
    FILE *file = fopen(path, "rb");
    if (t.data == NULL || file == NULL) die(path);
    t.bytes = fread(t.data, 1, BT_TEXT_BYTES_MAX + 4, file);
    fclose(file);
    t.bytes = whole_characters(&t, 0, BT_TEXT_BYTES_MAX);
    if (!bt_utf8_valid(t.data, t.bytes)) die("a text is not UTF-8");
    return t;
}

/* Seconds of one encoding of the whole text, in parts; adds to *tokens. */
static double encode_once(const bt_tokenizer *tokenizer, const text *t, size_t part_bytes,
                          bt_tokens *tokens, size_t *ret_tokens)
{
    bt_err err;
    uint64_t start = cpu_ns();
    *ret_tokens = 0;
    for (size_t at = 0, bytes; at < t->bytes; at += bytes) {
        bytes = whole_characters(t, at, part_bytes);
        if (bt_tokenizer_encode(tokenizer, t->data + at, bytes, 0, tokens, &err) != BT_OK)
            die(err.message);
        *ret_tokens += tokens->count;
    }
    return (double)(cpu_ns() - start) / 1e9;
}

static double best_rate(const bt_tokenizer *tokenizer, const text *t, size_t part_bytes,
                        bt_tokens *tokens, size_t *ret_tokens)
{
    double best = 0;
    for (int run = 0; run < RUNS; run++) {
        double rate =
            (double)t->bytes / encode_once(tokenizer, t, part_bytes, tokens, ret_tokens) / 1e6;
        if (rate > best) best = rate;
    }
    return best;
}

static double utf8_rate(const text *t)
{
    double best = 0;
    for (int run = 0; run < RUNS; run++) {
        uint64_t start = cpu_ns();
        if (!bt_utf8_valid(t->data, t->bytes)) die("not UTF-8");
        double rate = (double)t->bytes * 1e3 / (double)(cpu_ns() - start);
        if (rate > best) best = rate;
    }
    return best;
}

static double copy_rate(void)
{
    char *from = malloc(COPY_BYTES), *to = malloc(COPY_BYTES);
    if (from == NULL || to == NULL) die("no memory");
    memset(from, 1, COPY_BYTES);
    double best = 0;
    for (int run = 0; run < RUNS; run++) {
        uint64_t start = cpu_ns();
        memcpy(to, from, COPY_BYTES);
        double rate = COPY_BYTES * 1e3 / (double)(cpu_ns() - start);
        if (rate > best && to[COPY_BYTES - 1] == 1) best = rate;
    }
    free(from);
    free(to);
    return best;
}

static void bench(const char *path, char **text_paths, int text_count, const text *texts,
                  bt_tokens *tokens)
{
    bt_tokenizer *tokenizer;
    bt_err err;
    uint64_t start = cpu_ns();
    if (bt_tokenizer_open(path, &tokenizer, &err) != BT_OK) die(err.message);
    double open_s = (double)(cpu_ns() - start) / 1e9;
    for (int i = 0; i < text_count; i++) {
        size_t count;
        double parts = best_rate(tokenizer, &texts[i], PART_BYTES, tokens, &count);
        double whole = best_rate(tokenizer, &texts[i], BT_TEXT_BYTES_MAX, tokens, &count);
        printf("| %s | %.2f | %s | %.1f | %.1f | %.2f | %.0f |\n", path, open_s, text_paths[i],
               whole, parts, (double)texts[i].bytes / (double)count, utf8_rate(&texts[i]));
        fflush(stdout);
    }
    bt_tokenizer_close(tokenizer);
}

int main(int argc, char **argv)
{
    int dashes = 1;
    while (dashes < argc && strcmp(argv[dashes], "--") != 0) dashes++;
    if (dashes == 1 || dashes + 1 >= argc)
        die("usage: bench_tokenizer TEXT... -- TOKENIZER.json...");
    int text_count = dashes - 1;
    text *texts = calloc((size_t)text_count, sizeof(*texts));
    bt_tokens tokens = {.capacity = 4u * BT_TEXT_BYTES_MAX};
    tokens.ids = malloc(tokens.capacity * sizeof(tokens.ids[0]));
    if (texts == NULL || tokens.ids == NULL) die("no memory");
    for (int i = 0; i < text_count; i++) texts[i] = load(argv[1 + i]);
    printf("Copying 64 MiB: %.0f MB/s\n\n", copy_rate());
    printf(
        "| tokenizer | opens, s | text | whole, MB/s | 4 KiB parts, MB/s | bytes a token | UTF-8 "
        "check, MB/s |\n|---|---|---|---|---|---|---|\n");
    for (int i = dashes + 1; i < argc; i++) bench(argv[i], argv + 1, text_count, texts, &tokens);
    for (int i = 0; i < text_count; i++) free(texts[i].data);
    free(texts);
    free(tokens.ids);
    return 0;
}
