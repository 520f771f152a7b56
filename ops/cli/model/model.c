/* model.c - `baton model SUBCOMMAND …`: finds the subcommand and runs it. */
#include "ops/cli/command.h"
#include "ops/cli/model/subcommand.h"
#include "ops/cli/options.h"

#include <string.h>

extern const bt_model_subcommand bt_model_inspect;

static const bt_model_subcommand *const subcommands[] = {&bt_model_inspect};

static int run_model(int argc, char **argv)
{
    if (argc < 2) return bt_options_fail("model", "a subcommand is missing: inspect");
    for (size_t i = 0; i < sizeof(subcommands) / sizeof(subcommands[0]); i++)
        if (strcmp(argv[1], subcommands[i]->name) == 0)
            return subcommands[i]->run(argc - 1, argv + 1);
    return bt_options_fail("model", "there is no subcommand '%s': there is inspect", argv[1]);
}

const bt_cli_command bt_cli_model = {
    .name = "model",
    .summary = "look at a model folder: what it is and whether Baton runs it",
    .help =
        "usage: baton model inspect DIR [--json]\n\n"
        "Reads the Hugging Face checkpoint folder DIR (config.json, the headers of its\n"
        "safetensors, its tokenizer) and prints what is in it: architecture, sizes, RoPE, window,\n"
        "biases, dtypes, shards, bytes by kind of module, bytes of KV for a token in each KV\n"
        "dtype, tokenizer and chat template, and whether Baton runs it, or why not. Weights are\n"
        "not loaded.\n\n"
        "  --json  print one JSON object instead\n\n"
        "Exit codes: 0 Baton runs the model, 1 it does not, 2 wrong usage.\n\n"
        "Example: baton model inspect ops/model\n",
    .run = run_model,
};
