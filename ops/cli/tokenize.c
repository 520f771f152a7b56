/* tokenize.c - `baton tokenize`: text on stdin to token ids on stdout. */
#include "common/text/tokenizer.h"
#include "ops/cli/command.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

/* All of stdin, at most one byte more than a text may have. */
static size_t read_stdin(char *text)
{
    return fread(text, 1, BT_TEXT_BYTES_MAX + 1, stdin);
}

static void print_ids(const bt_tokens *tokens)
{
    putchar('[');
    for (size_t i = 0; i < tokens->count; i++) printf("%s%u", i > 0 ? "," : "", tokens->ids[i]);
    puts("]");
}

static int tokenize(const char *path, uint32_t flags)
{
    bt_err err;
    bt_tokenizer *tokenizer = NULL;
    char *text = malloc(BT_TEXT_BYTES_MAX + 1);
    /* A token is a byte at least; the post-processor adds a few, a prefix one. */
    bt_tokens tokens = {.capacity = 3 * BT_TEXT_BYTES_MAX + 64};
    tokens.ids = malloc(tokens.capacity * sizeof(tokens.ids[0]));
    int code = BT_EXIT_FAILURE;
    if (text == NULL || tokens.ids == NULL) {
        fprintf(stderr, "baton tokenize: out of memory\n");
    } else if (bt_tokenizer_open(path, &tokenizer, &err) != BT_OK ||
               bt_tokenizer_encode(tokenizer, text, read_stdin(text), flags, &tokens, &err) !=
                   BT_OK) {
        fprintf(stderr, "baton tokenize: %s\n", err.message);
    } else {
        print_ids(&tokens);
        code = fflush(stdout) == 0 ? BT_EXIT_OK : BT_EXIT_FAILURE;
    }
    bt_tokenizer_close(tokenizer);
    free(tokens.ids);
    free(text);
    return code;
}

static int run_tokenize(int argc, char **argv)
{
    static const struct option options[] = {
        {"tokenizer", required_argument, NULL, 't'},
        {"no-special", no_argument, NULL, 'n'},
        {"parse-special", no_argument, NULL, 'p'},
        {NULL, 0, NULL, 0},
    };
    const char *path = NULL;
    uint32_t flags = 0;
    int option;
    optind = 1;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 't') path = optarg;
        if (option == 'n') flags |= BT_ENCODE_BARE;
        if (option == 'p') flags |= BT_ENCODE_SPECIAL;
        if (option == '?') return BT_EXIT_USAGE;
    }
    if (path == NULL || optind < argc) {
        fprintf(stderr, "baton tokenize: %s; see baton tokenize --help\n",
                path == NULL ? "--tokenizer FILE is missing" : "takes no other arguments");
        return BT_EXIT_USAGE;
    }
    return tokenize(path, flags);
}

const bt_cli_command bt_cli_tokenize = {
    .name = "tokenize",
    .summary = "turn text on stdin into token ids",
    .help = "usage: baton tokenize --tokenizer FILE [--no-special] [--parse-special] < TEXT\n\n"
            "Prints the ids of the text on stdin as a JSON array.\n\n"
            "  --tokenizer FILE  a Hugging Face tokenizer.json\n"
            "  --no-special      add nothing around the text (no BOS and the like)\n"
            "  --parse-special   special tokens spelled out in the text become their ids;\n"
            "                    without it they are text\n\n"
            "Exits 1 with one line on stderr if the text is not UTF-8 or the file is not usable.\n",
    .run = run_tokenize,
};
