/* prompts.h - real prompts from a file of JSON lines: {"prompt": "text" or [ids]} or {"messages":
 * [{"role", "content"}, …]}, and optionally "max_tokens". Other members are ignored. The file is
 * hostile. BOUNDS  BT_PROMPT_LINES_MAX, BT_TRACE_BYTES_MAX. */
#ifndef BT_OPS_CLI_BENCH_PROMPTS_H
#define BT_OPS_CLI_BENCH_PROMPTS_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BT_PROMPT_LINES_MAX 1000000u

typedef struct {
    char *json; /* the prompt or the messages, as JSON */
    bool messages;
    uint32_t output_tokens; /* 0 = not said */
} bt_prompt_line;

typedef struct {
    bt_prompt_line *lines;
    uint32_t count, capacity;
} bt_prompts;

/* chat: prompts are texts or messages; else texts or ids. Errors: ERR_OS, ERR_FORMAT (names the
 * line), ERR_LIMIT, ERR_NO_MEMORY. */
bt_status bt_prompts_read(const char *path, bool chat, bt_prompts *ret_prompts, bt_err *err);
bt_status bt_prompts_parse(const char *text, size_t bytes, const char *label, bool chat,
                           bt_prompts *ret_prompts, bt_err *err);
void bt_prompts_finish(bt_prompts *prompts);

#endif
