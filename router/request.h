/* request.h - the body of POST /v1/completions, checked field by field.
 *
 * Unknown fields are ignored, as OpenAI's clients expect of compatible servers; a known field of the wrong type or out of
 * range is an error that names it; a known field whose effect we do not have is refused rather than ignored. */
#ifndef BT_ROUTER_REQUEST_H
#define BT_ROUTER_REQUEST_H

#include "common/base/sampling.h"
#include "common/base/status.h"
#include "common/text/stop.h"
#include "common/text/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BT_PROMPTS_MAX 16u
#define BT_REQUEST_STOPS 4u
#define BT_MAX_TOKENS_DEFAULT 16u

typedef struct {
    const bt_tokenizer *tokenizer;
    const char *model; /* the name we serve */
    uint32_t vocab, context_tokens_max;
} bt_request_context;

typedef struct {
    uint32_t *tokens; /* [token_count], of the request's own memory */
    uint32_t token_count;
} bt_request_prompt;

typedef struct {
    bt_request_prompt prompts[BT_PROMPTS_MAX];
    uint32_t prompt_count;
    uint32_t max_tokens;
    bt_sampling sampling;
    bool seeded; /* the client gave a seed */
    bool stream, include_usage, ignore_eos, return_token_ids;
    bt_stop stop; /* fresh; copied for each choice */
} bt_completion_request;

/* What went wrong in OpenAI's terms. */
typedef struct {
    int http_status;   /* 400, 404 */
    const char *allow; /* of 405: the method that the path has */
    const char *type;  /* "invalid_request_error" */
    const char *code;  /* "context_length_exceeded", or NULL */
    char param[32];    /* field, or "" */
    char message[320];
} bt_api_error;

/* False with *ret_error filled. On success the request owns memory: bt_completion_request_finish. */
bool bt_completion_request_parse(const bt_request_context *context, const char *body, size_t bytes,
                                 bt_completion_request *ret_request, bt_api_error *ret_error);
void bt_completion_request_finish(bt_completion_request *request);

#endif
