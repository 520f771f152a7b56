/* tokenize.c - `baton tokenize`: text to tokens, and back. */
#include "common/base/parse.h"
#include "common/text/detok.h"
#include "common/text/tokenizer.h"
#include "ops/cli/command.h"
#include "ops/cli/options.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A token is a byte at least, of a normalized text that is rarely longer than the text; encode says
 * so if there are more. */
#define TOKENS_MAX (3u * BT_TEXT_BYTES_MAX + 64u)

static const char help[] =
    "usage: baton tokenize (--model DIR | --tokenizer FILE) [options] < TEXT\n\n"
    "Shows the tokens of the text on stdin, a line for each: its id, the text it stands for, and\n"
    "whether it is a special token. What the file adds around a text (BOS and the like) is "
    "there.\n\n"
    "  --model DIR       a Hugging Face checkpoint folder: its tokenizer.json, and for --decode\n"
    "                    tokenizer_config.json's clean_up_tokenization_spaces\n"
    "  --tokenizer FILE  a Hugging Face tokenizer.json\n"
    "  --text TEXT       this text, not stdin\n"
    "  --ids             print the ids only, as a JSON array\n"
    "  --json            print {\"count\", \"ids\", \"tokens\"}; tokens as the file spells them\n"
    "  --no-special      add nothing around the text\n"
    "  --parse-special   special tokens spelled out in the text become their ids;\n"
    "                    without it they are text\n"
    "  --decode          the other way: a JSON array of ids on stdin, text on stdout, special\n"
    "                    tokens left out unless --parse-special is given\n"
    "  --zero            stdin holds many texts (or arrays), each ended with a NUL byte; each\n"
    "                    gives one line of --ids or --json (or one text ended with NUL)\n\n"
    "Exit codes: 0 done, 1 the text is not UTF-8, an id is none, or the file is not usable, 2 wrong\n"
    "usage.\n\n"
    "Example: baton tokenize --model ops/model --text \"Once upon\"\n";

typedef struct {
    const char *model, *path, *text;
    uint32_t flags;
    bool ids, json;
    bool zero; /* many texts, each ended with a NUL byte */
    bool decode;
    bool clean_up;
} request;

static int fail(const char *message)
{
    fprintf(stderr, "baton tokenize: %s\n", message);
    return BT_EXIT_FAILURE;
}

static void print_ids(const bt_tokens *tokens)
{
    putchar('[');
    for (size_t i = 0; i < tokens->count; i++) printf("%s%u", i > 0 ? "," : "", tokens->ids[i]);
    putchar(']');
}

static void print_json(const bt_tokenizer *tokenizer, const bt_tokens *tokens)
{
    printf("{\"count\":%zu,\"ids\":", tokens->count);
    print_ids(tokens);
    fputs(",\"tokens\":[", stdout);
    for (size_t i = 0; i < tokens->count; i++) {
        size_t bytes;
        const char *text = bt_tokenizer_spelling(tokenizer, tokens->ids[i], &bytes);
        json_t *token = json_stringn(text, bytes);
        if (i > 0) putchar(',');
        json_dumpf(token, stdout, JSON_ENCODE_ANY);
        json_decref(token);
    }
    puts("]}");
}

static void print_lines(const bt_tokenizer *tokenizer, const bt_tokens *tokens)
{
    for (size_t i = 0; i < tokens->count; i++) {
        size_t bytes;
        char shown[4 * BT_PIECE_BYTES_MAX + 8];
        const char *piece = bt_tokenizer_piece(tokenizer, tokens->ids[i], &bytes);
        bt_escape(piece, bytes, shown, sizeof(shown));
        printf("%7u  '%s'%s\n", tokens->ids[i], shown,
               bt_tokenizer_special(tokenizer, tokens->ids[i]) ? "  special" : "");
    }
}

static int encode_text(const bt_tokenizer *tokenizer, const char *text, size_t bytes,
                       const request *asked, bt_tokens *tokens)
{
    bt_err err;
    if (bt_tokenizer_encode(tokenizer, text, bytes, asked->flags, tokens, &err) != BT_OK)
        return fail(err.message);
    if (asked->json) {
        print_json(tokenizer, tokens);
    } else if (asked->ids) {
        print_ids(tokens);
        putchar('\n');
    } else {
        print_lines(tokenizer, tokens);
    }
    return BT_EXIT_OK;
}

/* The text of the ids into out. Returns what is wrong with them, or NULL. */
static const char *decode_into(FILE *out, const bt_tokenizer *tokenizer, const json_t *ids,
                               uint32_t flags)
{
    bt_detok detok;
    bt_detok_init(&detok, tokenizer, flags);
    char text[BT_DETOK_BYTES_MAX];
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= (json_int_t)bt_tokenizer_vocab(tokenizer))
            return "stdin has an id that is not in the vocabulary";
        size_t bytes = bt_detok_push(&detok, (uint32_t)json_integer_value(id), text);
        fwrite(text, 1, bytes, out);
    }
    fwrite(text, 1, bt_detok_flush(&detok, text), out);
    return NULL;
}

static int decode_ids(const bt_tokenizer *tokenizer, const char *text, size_t bytes,
                      const request *asked)
{
    json_t *ids = json_loadb(text, bytes, 0, NULL);
    if (!json_is_array(ids)) {
        json_decref(ids);
        return fail("stdin is not a JSON array of ids");
    }
    char *out = NULL;
    size_t out_bytes = 0;
    FILE *memory = open_memstream(&out, &out_bytes);
    const char *problem = "out of memory";
    if (memory != NULL) {
        uint32_t flags = (asked->flags & BT_ENCODE_SPECIAL) != 0 ? BT_DETOK_SPECIAL : 0;
        problem = decode_into(memory, tokenizer, ids, flags);
        if (fclose(memory) != 0 && problem == NULL) problem = "out of memory";
    }
    json_decref(ids);
    if (problem == NULL) {
        if (asked->clean_up) out_bytes = bt_detok_clean_up(out, out_bytes);
        fwrite(out, 1, out_bytes, stdout);
        if (asked->zero) putchar('\0');
    }
    free(out);
    return problem == NULL ? BT_EXIT_OK : fail(problem);
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

static int handle(const bt_tokenizer *tokenizer, const request *asked)
{
    bt_tokens tokens = {.capacity = TOKENS_MAX};
    tokens.ids = malloc(tokens.capacity * sizeof(tokens.ids[0]));
    if (tokens.ids == NULL) return fail("out of memory");
    int code = asked->text != NULL
                   ? encode_text(tokenizer, asked->text, strlen(asked->text), asked, &tokens)
                   : handle_stdin(tokenizer, asked, &tokens);
    free(tokens.ids);
    if (fflush(stdout) != 0) code = fail("cannot write to stdout");
    return code;
}

static bool cleans_up(const char *dir)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/tokenizer_config.json", dir);
    json_t *config = json_load_file(path, 0, NULL);
    bool clean_up = json_is_true(json_object_get(config, "clean_up_tokenization_spaces"));
    json_decref(config);
    return clean_up;
}

static int tokenize(request *asked)
{
    bt_err err;
    bt_tokenizer *tokenizer;
    char path[4096];
    if (asked->model != NULL) {
        int bytes = snprintf(path, sizeof(path), "%s/tokenizer.json", asked->model);
        if (bytes < 0 || (size_t)bytes >= sizeof(path))
            return fail("the folder's path is too long");
        asked->path = path;
        asked->clean_up = asked->decode && cleans_up(asked->model);
    }
    if (bt_tokenizer_open(asked->path, &tokenizer, &err) != BT_OK) return fail(err.message);
    int code = handle(tokenizer, asked);
    bt_tokenizer_close(tokenizer);
    return code;
}

/* Which options do not go together; NULL: all do. */
static const char *check(const request *asked)
{
    if ((asked->model == NULL) == (asked->path == NULL))
        return "it takes one of --model DIR and --tokenizer FILE";
    if (asked->ids && asked->json) return "it takes one of --ids and --json";
    if (asked->decode && (asked->ids || asked->json || asked->text != NULL))
        return "--decode takes ids on stdin and prints text: --ids, --json and --text are not for "
               "it";
    if (asked->zero && asked->text != NULL) return "--zero is for texts on stdin, not for --text";
    if (asked->zero && !asked->decode && !asked->ids && !asked->json)
        return "--zero needs --ids or --json, which print one line for each text";
    return NULL;
}

static int run_tokenize(int argc, char **argv)
{
    request asked = {0};
    bool bare = false, special = false;
    const bt_option table[] = {
        {.name = "--model", .kind = BT_OPTION_TEXT, .value = &asked.model},
        {.name = "--tokenizer", .kind = BT_OPTION_TEXT, .value = &asked.path},
        {.name = "--text", .kind = BT_OPTION_TEXT, .value = &asked.text},
        {.name = "--ids", .kind = BT_OPTION_FLAG, .value = &asked.ids},
        {.name = "--json", .kind = BT_OPTION_FLAG, .value = &asked.json},
        {.name = "--no-special", .kind = BT_OPTION_FLAG, .value = &bare},
        {.name = "--parse-special", .kind = BT_OPTION_FLAG, .value = &special},
        {.name = "--decode", .kind = BT_OPTION_FLAG, .value = &asked.decode},
        {.name = "--zero", .kind = BT_OPTION_FLAG, .value = &asked.zero},
    };
    int code = bt_options_parse(argc, argv, table, sizeof(table) / sizeof(table[0]));
    if (code != BT_EXIT_OK) return code;
    const char *problem = check(&asked);
    if (problem != NULL) return bt_options_fail(argv[0], "%s", problem);
    asked.flags = (bare ? BT_ENCODE_BARE : 0) | (special ? BT_ENCODE_SPECIAL : 0);
    return tokenize(&asked);
}

const bt_cli_command bt_cli_tokenize = {
    .name = "tokenize",
    .summary = "show the tokens of a text, or the text of tokens",
    .help = help,
    .run = run_tokenize,
};
