/* prompt.h - a checkpoint and a prompt for it, as the commands that run a model on their own take
 * them: a folder, and a text or token ids. */
#ifndef BT_OPS_CLI_PROMPT_H
#define BT_OPS_CLI_PROMPT_H

#include "common/text/tokenizer.h"
#include "common/weights/model.h"

typedef struct {
    bt_model *model;
    bt_tokenizer *tokenizer; /* NULL if the folder has no tokenizer.json and none is needed */
    uint32_t *ids;
    uint32_t count;
} bt_cli_prompt;

/* Opens the model and makes ids of exactly one of text ("--prompt") and list ("--ids", "1,2,3").
 * Errors: ERR_ARGUMENT with a list that is not one, and whatever opening reports. */
bt_status bt_cli_prompt_open(const char *dir, const char *text, const char *list,
                             bt_cli_prompt *ret_prompt, bt_err *err);
void bt_cli_prompt_close(bt_cli_prompt *prompt);

/* Checks the form of an id list without a model, so that a typing error is a usage error. */
bt_status bt_cli_ids_check(const char *list, bt_err *err);

#endif
