/* tokenize.c - `baton tokenize`: text on stdin to token ids on stdout, and back. */
#include "common/text/detok.h"
#include "common/text/tokenizer.h"
#include "ops/cli/command.h"
#include "ops/cli/options.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

/* A token is a byte at least, and the normalizers of the registry give at most 3 bytes for one; the
 * rest is for what the post-processor adds. */
#define TOKENS_MAX (3u * BT_TEXT_BYTES_MAX + 64u)

typedef struct {
    const char *path;
    uint32_t flags;
    bool zero; /* many texts, each ended with a NUL byte */
    bool decode;
} request;

static int fail(const char *message)
{
    fprintf(stderr, "baton tokenize: %s\n", message);
    return BT_EXIT_FAILURE;
}

static int encode_text(const bt_tokenizer *tokenizer, const char *text, size_t bytes,
                       const request *asked, bt_tokens *tokens)
{
    bt_err err;
    if (bt_tokenizer_encode(tokenizer, text, bytes, asked->flags, tokens, &err) != BT_OK)
        return fail(err.message);
    putchar('[');
    for (size_t i = 0; i < tokens->count; i++) printf("%s%u", i > 0 ? "," : "", tokens->ids[i]);
    puts("]");
    return BT_EXIT_OK;
}

static int decode_ids(const bt_tokenizer *tokenizer, const char *text, size_t bytes,
                      const request *asked)
{
    json_error_t problem;
    json_t *ids = json_loadb(text, bytes, 0, &problem), *id;
    if (!json_is_array(ids)) {
        json_decref(ids);
        return fail("stdin is not a JSON array of ids");
    }
    bt_detok detok;
    bt_detok_init(&detok, tokenizer,
                  (asked->flags & BT_ENCODE_SPECIAL) != 0 ? BT_DETOK_SPECIAL : 0);
    char out[BT_DETOK_BYTES_MAX];
    int code = BT_EXIT_OK;
    size_t index;
    json_array_foreach(ids, index, id)
    {
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= (json_int_t)bt_tokenizer_vocab(tokenizer)) {
            code = fail("stdin has an id that is not in the vocabulary");
            break;
        }
        uint32_t token = (uint32_t)json_integer_value(id);
        fwrite(out, 1, bt_detok_push(&detok, token, out), stdout);
    }
    fwrite(out, 1, bt_detok_flush(&detok, out), stdout);
    if (asked->zero) putchar('\0');
    json_decref(ids);
    return code;
}

/* Each text of stdin in turn: up to a NUL byte with --zero, else all of it. */
static int handle_stdin(const bt_tokenizer *tokenizer, const request *asked, bt_tokens *tokens)
{
    size_t capacity = BT_TEXT_BYTES_MAX + 2;
    char *text = malloc(capacity);
    if (text == NULL) return fail("out of memory");
    int code = BT_EXIT_OK;
    bool more = true;
    while (more && code == BT_EXIT_OK) {
        /* One byte more than a text may have is enough for encode to refuse it. */
        size_t bytes = 0;
        int byte = EOF;
        while (bytes <= BT_TEXT_BYTES_MAX && (byte = getchar()) != EOF &&
               !(asked->zero && byte == '\0'))
            text[bytes++] = (char)byte;
        more = asked->zero && byte == '\0';
        if (asked->zero && !more && bytes == 0) break;
        code = asked->decode ? decode_ids(tokenizer, text, bytes, asked)
                             : encode_text(tokenizer, text, bytes, asked, tokens);
    }
    free(text);
    return code;
}

static int tokenize(const request *asked)
{
    bt_err err;
    bt_tokenizer *tokenizer;
    if (bt_tokenizer_open(asked->path, &tokenizer, &err) != BT_OK) return fail(err.message);
    bt_tokens tokens = {.capacity = TOKENS_MAX};
    tokens.ids = malloc(tokens.capacity * sizeof(tokens.ids[0]));
    int code = tokens.ids != NULL ? handle_stdin(tokenizer, asked, &tokens) : fail("out of memory");
    if (fflush(stdout) != 0) code = fail("cannot write to stdout");
    free(tokens.ids);
    bt_tokenizer_close(tokenizer);
    return code;
}

static int run_tokenize(int argc, char **argv)
{
    request asked = {0};
    bool bare = false, special = false;
    const bt_option table[] = {
        {.name = "--tokenizer", .kind = BT_OPTION_TEXT, .value = &asked.path},
        {.name = "--no-special", .kind = BT_OPTION_FLAG, .value = &bare},
        {.name = "--parse-special", .kind = BT_OPTION_FLAG, .value = &special},
        {.name = "--decode", .kind = BT_OPTION_FLAG, .value = &asked.decode},
        {.name = "--zero", .kind = BT_OPTION_FLAG, .value = &asked.zero},
    };
    int code = bt_options_parse(argc, argv, table, sizeof(table) / sizeof(table[0]));
    if (code != BT_EXIT_OK) return code;
    if (!asked.path) return bt_options_fail(argv[0], "--tokenizer FILE is missing");
    asked.flags = (bare ? BT_ENCODE_BARE : 0) | (special ? BT_ENCODE_SPECIAL : 0);
    return tokenize(&asked);
}

const bt_cli_command bt_cli_tokenize = {
    .name = "tokenize",
    .summary = "turn text on stdin into token ids",
    .help = "usage: baton tokenize --tokenizer FILE [options] < TEXT\n\n"
            "Prints the ids of the text on stdin as a JSON array.\n\n"
            "  --tokenizer FILE  a Hugging Face tokenizer.json\n"
            "  --no-special      add nothing around the text (no BOS and the like)\n"
            "  --parse-special   special tokens spelled out in the text become their ids;\n"
            "                    without it they are text\n"
            "  --decode          the other way: ids on stdin, text on stdout, special tokens\n"
            "                    left out unless --parse-special is given\n"
            "  --zero            stdin holds many texts (or arrays), each ended with a NUL\n"
            "                    byte; each gives one line (or one text ended with NUL)\n\n"
            "Exits 1 with one line on stderr if the text is not UTF-8 or the file is not usable.\n",
    .run = run_tokenize,
};
