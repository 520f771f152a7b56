/* request.h - bodies of the API, checked field by field: completions, chat, tokenize, detokenize.
 *
 * Unknown fields are ignored, as OpenAI's clients expect of compatible servers; a known field of the
 * wrong type or out of range is an error that names it; a known field whose effect we do not have is
 * refused rather than ignored.
 *
 * request/fields.h      one field at a time.       request/completion.c  prompts, echo.
 * request/common.c      what both endpoints take.  request/chat.c        messages, tools, template.
 * request/prompt.c      text and ids to tokens.    request/tokenize.c    /tokenize, /detokenize.
 * docs/api.md lists every field. */
#ifndef BT_ROUTER_REQUEST_H
#define BT_ROUTER_REQUEST_H

#include "common/base/crypto.h"
#include "common/base/limits.h"
#include "common/base/sampling.h"
#include "common/base/status.h"
#include "common/text/chat.h"
#include "common/text/detok.h"
#include "common/text/stop.h"
#include "common/text/tokenizer.h"
#include "router/choice_text.h"
#include "router/request/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BT_PROMPTS_MAX 16u
#define BT_MAX_TOKENS_DEFAULT 16u                  /* of completions; a chat may fill the context */
#define BT_SCORED_TOKENS_MAX BT_CONTEXT_TOKENS_MAX /* of all prompts of a request */
#define BT_PROMPT_TEXT_BYTES_MAX (8u << 20) /* decoded, or echoed to all choices of a request */

typedef struct {
    const bt_tokenizer *tokenizer;
    const bt_chat_template *chat; /* NULL: the model has none */
    const char *model;            /* the name we serve */
    uint32_t vocab, context_tokens_max;
    uint32_t choices_max; /* of one request: prompts times n */
    uint32_t
        chat_tokens_default; /* output of a chat that does not say; 0: the rest of the context */
} bt_request_context;

typedef struct {
    uint32_t *tokens; /* [token_count], of the request's own memory */
    uint32_t token_count;
    char *echo; /* [echo_bytes]: its text, where asked for; not terminated */
    size_t echo_bytes;
    bt_choice_entry
        *entries;   /* [token_count]: its tokens, where logprobs are to be echoed; unscored */
    bt_detok detok; /* as the output goes on with it */
} bt_request_prompt;

typedef struct {
    bool chat;
    bt_request_prompt prompts[BT_PROMPTS_MAX];
    uint32_t prompt_count;
    uint32_t n;          /* choices of each prompt */
    uint32_t max_tokens; /* 0, with echo only: the prompt and nothing more */
    bool
        max_tokens_default; /* of a chat that does not say: may be less where daemons have less room */
    bt_sampling sampling; /* its rows are bias */
    bt_logit_bias bias[BT_LOGIT_BIAS_MAX];
    bool seeded; /* the client gave a seed: choice i of a prompt has seed + i */
    bool stream, include_usage, continuous_usage;
    bool ignore_eos, return_token_ids, echo, include_stop, keep_special;
    bool salted; /* the prefix cache is shared with requests of the same salt only */
    bt_sha256 salt;
    bt_stop stop; /* fresh; copied for each choice */
} bt_api_request;

/* False with *ret_error filled. On success the request owns memory: bt_api_request_finish. */
bool bt_completion_parse(const bt_request_context *context, const char *body, size_t bytes,
                         bt_api_request *ret_request, bt_api_error *ret_error);
bool bt_chat_parse(const bt_request_context *context, const char *body, size_t bytes,
                   bt_api_request *ret_request, bt_api_error *ret_error);
void bt_api_request_finish(bt_api_request *request);

typedef struct {
    uint32_t *tokens; /* [count], to be freed */
    uint32_t count;
    bool return_strings; /* "return_token_strs" */
} bt_tokenize_request;

/* {"prompt", "add_special_tokens"} or {"messages", …}, as chat has them, to tokens. */
bool bt_tokenize_parse(const bt_request_context *context, const char *body, size_t bytes,
                       bt_tokenize_request *ret_request, bt_api_error *ret_error);
/* {"tokens"} to text, to be freed. Special tokens are spelled. */
bool bt_detokenize_parse(const bt_request_context *context, const char *body, size_t bytes,
                         char **ret_text, size_t *ret_bytes, bt_api_error *ret_error);

#endif
