#include "ops/cli/command.h"

extern const bt_cli_command bt_cli_bench;
extern const bt_cli_command bt_cli_doctor;
extern const bt_cli_command bt_cli_generate;
extern const bt_cli_command bt_cli_keygen;
extern const bt_cli_command bt_cli_tokenize;
extern const bt_cli_command bt_cli_logits;
extern const bt_cli_command bt_cli_model;
extern const bt_cli_command bt_cli_ps;
extern const bt_cli_command bt_cli_render;
extern const bt_cli_command bt_cli_up;

/* clang-format off */
const bt_cli_command *const bt_cli_commands[] = {
    &bt_cli_up,
    &bt_cli_ps,
    &bt_cli_doctor,
    &bt_cli_bench,
    &bt_cli_generate,
    &bt_cli_tokenize,
    &bt_cli_logits,
    &bt_cli_render,
    &bt_cli_model,
    &bt_cli_keygen,
};
/* clang-format on */

const unsigned bt_cli_command_count = sizeof(bt_cli_commands) / sizeof(bt_cli_commands[0]);
