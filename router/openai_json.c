#include "router/openai_json.h"

#include "common/base/utf8.h"

#include <stdio.h>
#include <string.h>

#define LOGPROB_LEAST (-9999.0) /* what OpenAI's servers say of what has no probability */

/* ---- tokens ---- */

size_t bt_openai_token_text(const bt_tokenizer *tokenizer, uint32_t id, const char *prefix,
                            char ret_text[BT_TOKEN_TEXT_BYTES_MAX])
{
    size_t bytes;
    const char *piece = bt_tokenizer_piece(tokenizer, id, &bytes);
    if (piece == NULL) return 0;
    if (bt_utf8_valid(piece, bytes)) {
        memcpy(ret_text, piece, bytes);
        return bytes;
    }
    size_t used = (size_t)sprintf(ret_text, "%s", prefix);
    for (size_t i = 0; i < bytes; i++)
        used += (size_t)sprintf(ret_text + used, "\\x%02x", (uint8_t)piece[i]);
    return used;
}

static void write_logprob(bt_json_out *json, float logprob)
{
    bt_json_double(json, logprob > LOGPROB_LEAST ? logprob : LOGPROB_LEAST);
}

/* {"token", "logprob", "bytes"}, not closed. */
static void begin_token(bt_json_out *json, const bt_tokenizer *tokenizer, uint32_t id,
                        float logprob)
{
    char text[BT_TOKEN_TEXT_BYTES_MAX];
    size_t bytes;
    const char *piece = bt_tokenizer_piece(tokenizer, id, &bytes);
    bt_json_begin(json, '{');
    bt_json_key(json, "token");
    bt_json_string(json, text, bt_openai_token_text(tokenizer, id, "", text));
    bt_json_key(json, "logprob");
    write_logprob(json, logprob);
    bt_json_key(json, "bytes");
    bt_json_begin(json, '[');
    for (size_t i = 0; piece != NULL && i < bytes; i++) bt_json_u64(json, (uint8_t)piece[i]);
    bt_json_end(json, ']');
}

static void chat_logprobs(bt_json_out *json, const bt_tokenizer *tokenizer,
                          const bt_openai_choice *choice)
{
    bt_json_begin(json, '{');
    bt_json_key(json, "content");
    bt_json_begin(json, '[');
    for (uint32_t i = 0; i < choice->entry_count; i++) {
        const bt_token *token = &choice->entries[i].token;
        begin_token(json, tokenizer, token->id, token->logprob);
        bt_json_key(json, "top_logprobs");
        bt_json_begin(json, '[');
        for (uint32_t k = 0; k < token->top_count; k++) {
            begin_token(json, tokenizer, token->top[k].id, token->top[k].logprob);
            bt_json_end(json, '}');
        }
        bt_json_end(json, ']');
        bt_json_end(json, '}');
    }
    bt_json_end(json, ']');
    bt_json_key(json, "refusal");
    bt_json_null(json);
    bt_json_end(json, '}');
}

static bool spelled_alike(const bt_tokenizer *tokenizer, uint32_t a, uint32_t b)
{
    size_t a_bytes, b_bytes;
    const char *first = bt_tokenizer_piece(tokenizer, a, &a_bytes),
               *second = bt_tokenizer_piece(tokenizer, b, &b_bytes);
    return a_bytes == b_bytes && (a_bytes == 0 || memcmp(first, second, a_bytes) == 0);
}

/* {"token": logprob, …} with the sampled token among them. Tokens may be spelled alike; a key stands
 * once, for the likeliest. */
static void top_map(bt_json_out *json, const bt_tokenizer *tokenizer, const bt_token *token)
{
    char text[BT_TOKEN_TEXT_BYTES_MAX];
    bt_json_begin(json, '{');
    for (uint32_t k = 0; k <= token->top_count; k++) {
        bool sampled = k == token->top_count, known = false;
        uint32_t id = sampled ? token->id : token->top[k].id;
        for (uint32_t i = 0; i < k && !known; i++)
            known = spelled_alike(tokenizer, token->top[i].id, id);
        if (known) continue;
        bt_json_key_string(json, text, bt_openai_token_text(tokenizer, id, "bytes:", text));
        write_logprob(json, sampled ? token->logprob : token->top[k].logprob);
    }
    bt_json_end(json, '}');
}

static const bt_choice_entry *entry_at(const bt_openai_choice *choice, uint32_t i)
{
    return i < choice->prompt_entry_count ? &choice->prompt_entries[i]
                                          : &choice->entries[i - choice->prompt_entry_count];
}

static void completion_logprobs(bt_json_out *json, const bt_tokenizer *tokenizer,
                                const bt_openai_choice *choice)
{
    char text[BT_TOKEN_TEXT_BYTES_MAX];
    uint32_t count = choice->prompt_entry_count + choice->entry_count;
    bt_json_begin(json, '{');
    bt_json_key(json, "tokens");
    bt_json_begin(json, '[');
    for (uint32_t i = 0; i < count; i++) {
        uint32_t id = entry_at(choice, i)->token.id;
        bt_json_string(json, text, bt_openai_token_text(tokenizer, id, "bytes:", text));
    }
    bt_json_end(json, ']');
    bt_json_key(json, "token_logprobs");
    bt_json_begin(json, '[');
    for (uint32_t i = 0; i < count; i++) {
        if (entry_at(choice, i)->unscored)
            bt_json_null(json);
        else
            write_logprob(json, entry_at(choice, i)->token.logprob);
    }
    bt_json_end(json, ']');
    bt_json_key(json, "top_logprobs");
    bt_json_begin(json, '[');
    for (uint32_t i = 0; i < count; i++) {
        if (entry_at(choice, i)->unscored)
            bt_json_null(json);
        else
            top_map(json, tokenizer, &entry_at(choice, i)->token);
    }
    bt_json_end(json, ']');
    bt_json_key(json, "text_offset");
    bt_json_begin(json, '[');
    for (uint32_t i = 0; i < count; i++) bt_json_u64(json, entry_at(choice, i)->offset);
    bt_json_end(json, ']');
    bt_json_end(json, '}');
}

/* ---- choices ---- */

static void write_message(bt_json_out *json, const bt_openai_head *head,
                          const bt_openai_choice *choice)
{
    bt_json_key(json, head->chunk ? "delta" : "message");
    bt_json_begin(json, '{');
    if (choice->role || !head->chunk) {
        bt_json_key(json, "role");
        bt_json_text(json, "assistant");
    }
    if (choice->role || !head->chunk || !choice->ended || choice->text_bytes > 0) {
        bt_json_key(json, "content");
        bt_json_string(json, choice->text, choice->text_bytes);
    }
    if (!head->chunk) {
        bt_json_key(json, "refusal");
        bt_json_null(json);
    }
    bt_json_end(json, '}');
}

static void write_end(bt_json_out *json, const bt_openai_choice *choice)
{
    const char *finish = NULL;
    if (choice->ended) finish = choice->finish == BT_FINISH_LENGTH ? "length" : "stop";
    bt_json_key(json, "finish_reason");
    bt_json_text(json, finish);
    bt_json_key(json, "stop_reason");
    if (choice->ended && choice->stop_text != NULL)
        bt_json_string(json, choice->stop_text, choice->stop_bytes);
    else if (choice->ended && choice->stop_id != NULL)
        bt_json_u64(json, *choice->stop_id);
    else
        bt_json_null(json);
}

void bt_openai_add_choice(bt_json_out *json, const bt_openai_head *head,
                          const bt_openai_choice *choice)
{
    bt_json_begin(json, '{');
    bt_json_key(json, "index");
    bt_json_u64(json, choice->index);
    if (head->chat) {
        write_message(json, head, choice);
    } else {
        bt_json_key(json, "text");
        bt_json_string(json, choice->text, choice->text_bytes);
    }
    bt_json_key(json, "logprobs");
    if (!choice->logprobs || (head->chunk && choice->entry_count + choice->prompt_entry_count == 0))
        bt_json_null(json);
    else if (head->chat)
        chat_logprobs(json, head->tokenizer, choice);
    else
        completion_logprobs(json, head->tokenizer, choice);
    write_end(json, choice);
    if (choice->ids != NULL) {
        bt_json_key(json, "token_ids");
        bt_json_begin(json, '[');
        for (uint32_t i = 0; i < choice->id_count; i++) bt_json_u64(json, choice->ids[i]);
        bt_json_end(json, ']');
    }
    bt_json_end(json, '}');
}

/* ---- the object around them ---- */

static const char *object_name(const bt_openai_head *head)
{
    if (!head->chat) return "text_completion";
    return head->chunk ? "chat.completion.chunk" : "chat.completion";
}

void bt_openai_begin(bt_json_out *json, const bt_openai_head *head)
{
    bt_json_begin(json, '{');
    bt_json_key(json, "id");
    bt_json_text(json, head->id);
    bt_json_key(json, "object");
    bt_json_text(json, object_name(head));
    bt_json_key(json, "created");
    bt_json_u64(json, (uint64_t)head->created);
    bt_json_key(json, "model");
    bt_json_text(json, head->model);
    bt_json_key(json, "system_fingerprint");
    bt_json_text(json, head->fingerprint);
    bt_json_key(json, "choices");
    bt_json_begin(json, '[');
}

void bt_openai_end(bt_json_out *json, const bt_openai_usage *usage, bool usage_null)
{
    bt_json_end(json, ']');
    if (usage != NULL || usage_null) bt_json_key(json, "usage");
    if (usage != NULL) {
        bt_json_begin(json, '{');
        bt_json_key(json, "prompt_tokens");
        bt_json_u64(json, usage->prompt_tokens);
        bt_json_key(json, "completion_tokens");
        bt_json_u64(json, usage->output_tokens);
        bt_json_key(json, "total_tokens");
        bt_json_u64(json, usage->prompt_tokens + usage->output_tokens);
        bt_json_key(json, "prompt_tokens_details");
        bt_json_begin(json, '{');
        bt_json_key(json, "cached_tokens");
        bt_json_u64(json, usage->cached_tokens);
        bt_json_end(json, '}');
        bt_json_end(json, '}');
    } else if (usage_null) {
        bt_json_null(json);
    }
    bt_json_end(json, '}');
}
