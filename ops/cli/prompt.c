#include "ops/cli/prompt.h"

#include "common/base/limits.h"
#include "common/base/parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Reads the ids of list into ret_ids, which may be NULL, and counts them. */
static bt_status read_ids(const char *list, uint32_t *ret_ids, uint32_t *ret_count, bt_err *err)
{
    uint32_t count = 0;
    for (const char *at = list;; count++) {
        char text[16] = "";
        size_t bytes = strcspn(at, ",");
        if (bytes < sizeof(text)) memcpy(text, at, bytes);
        uint32_t id = 0;
        if (bt_parse_u32(text, UINT32_MAX, &id, NULL) != BT_OK)
            return BT_FAIL(err, BT_ERR_ARGUMENT, "token ids are numbers with commas between them");
        if (count == BT_CONTEXT_TOKENS_MAX)
            return BT_FAIL(err, BT_ERR_ARGUMENT, "more than %u token ids", BT_CONTEXT_TOKENS_MAX);
        if (ret_ids) ret_ids[count] = id;
        at += bytes;
        if (*at == '\0') break;
        at++;
    }
    *ret_count = count + 1;
    return BT_OK;
}

bt_status bt_cli_ids_check(const char *list, bt_err *err)
{
    uint32_t count;
    return read_ids(list, NULL, &count, err);
}

/* Without a file the tokenizer stays NULL if it is not needed. */
static bt_status open_tokenizer(const char *dir, bool needed, bt_tokenizer **ret_tokenizer,
                                bt_err *err)
{
    char path[4096];
    *ret_tokenizer = NULL;
    int bytes = snprintf(path, sizeof(path), "%s/tokenizer.json", dir);
    if (bytes < 0 || (size_t)bytes >= sizeof(path))
        return BT_FAIL(err, BT_ERR_ARGUMENT, "the folder's path is too long");
    if (!needed && access(path, F_OK) != 0) return BT_OK;
    return bt_tokenizer_open(path, ret_tokenizer, err);
}

static bt_status encode(bt_cli_prompt *prompt, const char *text, bt_err *err)
{
    bt_tokens tokens = {.ids = prompt->ids, .capacity = BT_CONTEXT_TOKENS_MAX};
    bt_status status = bt_tokenizer_encode(prompt->tokenizer, text, strlen(text), 0, &tokens, err);
    if (status == BT_OK) prompt->count = (uint32_t)tokens.count;
    return status;
}

bt_status bt_cli_prompt_open(const char *dir, const char *text, const char *list,
                             bt_cli_prompt *ret_prompt, bt_err *err)
{
    bt_cli_prompt prompt = {0};
    bt_status status = bt_model_open(dir, &prompt.model, err);
    if (status == BT_OK) status = open_tokenizer(dir, text != NULL, &prompt.tokenizer, err);
    if (status == BT_OK) {
        prompt.ids = malloc(BT_CONTEXT_TOKENS_MAX * sizeof(uint32_t));
        if (!prompt.ids) status = BT_FAIL(err, BT_ERR_NO_MEMORY, "token ids");
    }
    if (status == BT_OK)
        status = text ? encode(&prompt, text, err) : read_ids(list, prompt.ids, &prompt.count, err);
    if (status != BT_OK) {
        bt_cli_prompt_close(&prompt);
        return status;
    }
    *ret_prompt = prompt;
    return BT_OK;
}

void bt_cli_prompt_close(bt_cli_prompt *prompt)
{
    bt_tokenizer_close(prompt->tokenizer);
    bt_model_close(prompt->model);
    free(prompt->ids);
    *prompt = (bt_cli_prompt){0};
}
