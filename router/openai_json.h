/* openai_json.h - answers as OpenAI's clients read them: completions and chat, whole and in chunks.
 *
 * FLOW    of one object: begin -> bt_openai_choice … -> end, all into one bt_json_out
 * TOKENS  A token whose bytes are no valid UTF-8 by themselves is spelled \xE2\x96 in chat, whose
 *         `bytes` say what it is, and bytes:\xE2\x96 in completions. */
#ifndef BT_ROUTER_OPENAI_JSON_H
#define BT_ROUTER_OPENAI_JSON_H

#include "common/net/json_out.h"
#include "common/text/tokenizer.h"
#include "router/choice_text.h"
#include "router/core.h"

#include <time.h>

typedef struct {
    bool chat, chunk; /* chunk: one of a stream */
    const char *id, *model, *fingerprint;
    time_t created;
    const bt_tokenizer *tokenizer;
} bt_openai_head;

typedef struct {
    uint64_t prompt_tokens, output_tokens, cached_tokens;
} bt_openai_usage;

typedef struct {
    uint32_t index;
    bool role; /* chat: the first chunk of a choice, which says who speaks */
    const char *text;
    size_t text_bytes;
    bool logprobs;                         /* were asked for */
    const bt_choice_entry *prompt_entries; /* before the others: of the prompt that is echoed */
    uint32_t prompt_entry_count;
    const bt_choice_entry *entries;
    uint32_t entry_count;
    const uint32_t *ids; /* NULL: none were asked for */
    uint32_t id_count;
    bool ended;
    bt_finish_reason finish;
    const char *stop_text; /* the stop string that ended it, or NULL */
    size_t stop_bytes;
    const uint32_t *stop_id; /* the stop token, or NULL */
} bt_openai_choice;

void bt_openai_begin(bt_json_out *json, const bt_openai_head *head);
void bt_openai_add_choice(bt_json_out *json, const bt_openai_head *head,
                          const bt_openai_choice *choice);
/* usage may be NULL: with usage_null "usage": null, else no such field. */
void bt_openai_end(bt_json_out *json, const bt_openai_usage *usage, bool usage_null);

/* The token as answers spell it; prefix ("", "bytes:") stands before bytes that are no text. Returns
 * the bytes written. */
#define BT_TOKEN_TEXT_BYTES_MAX (4u * BT_PIECE_BYTES_MAX + 8u)
size_t bt_openai_token_text(const bt_tokenizer *tokenizer, uint32_t id, const char *prefix,
                            char ret_text[BT_TOKEN_TEXT_BYTES_MAX]);

#endif
