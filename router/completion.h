/* completion.h - a request for tokens from accepted to answered, completions and chat alike: tokens
 * in, text and JSON out.
 *
 * WHAT    A job has n choices for each prompt, each a request of the core: choice i is number i % n of
 *         prompt i / n. The later ones of a prompt long enough to be cached are submitted when the
 *         first one's prompt is computed, so that the prefix cache of the prefill daemon has it; their
 *         places in the core are kept from the start. Tokens become text (choice_text.h), and what is safe to send goes out: as
 *         server-sent events, or as one answer at the end (openai_json.h).
 * ENDING  The job owns its HTTP exchange until it replied, ended the stream or was told that the
 *         client is gone. When the last choice has ended the job frees itself. One choice that fails
 *         ends them all.
 * BOUNDS  A client that reads too slowly makes its text wait here, BT_COMPLETION_PENDING_MAX at most
 *         and what it asked to echo, which with logprobs is BT_COMPLETION_ANSWER_MAX; then the job is
 *         cancelled and the connection cut. While all of them wait with more than waiting_max, those
 *         with more than BT_COMPLETION_PENDING_MAX are cut too. An answer that is not streamed has
 *         BT_COMPLETION_ANSWER_MAX bytes at most.
 * THREAD  The loop's. */
#ifndef BT_ROUTER_COMPLETION_H
#define BT_ROUTER_COMPLETION_H

#include "common/net/http_server.h"
#include "common/net/json_out.h"
#include "router/core.h"
#include "router/request.h"

#define BT_COMPLETION_PENDING_MAX (1u << 20)
#define BT_COMPLETION_ANSWER_MAX (64u << 20)

typedef struct bt_completion bt_completion;

typedef struct {
    bt_router_core *core;
    const bt_tokenizer *tokenizer;
    const char *model, *fingerprint;
    uint64_t (*now_ns)(void);
    bt_json_out json;              /* scratch of the answers */
    bt_completion *first;          /* every job, the latest first */
    uint32_t jobs;                 /* now */
    uint64_t waiting, waiting_max; /* bytes of memory for output that clients have not taken */
    bool due;                      /* choices of a job may be submitted */
    /* Called when a choice's first token was committed, and when one ended. May be NULL. */
    void *arg;
    void (*on_first_token)(void *arg, uint64_t since_ns);
    void (*on_token)(void *arg, uint64_t since_ns);
    void (*on_end)(void *arg, const bt_router_end *end, uint64_t since_ns);
} bt_completions;

/* Submits every choice; answers the exchange itself if one is refused (H8: 429, 503 or 400 at once).
 * Takes the request's memory. */
void bt_completion_start(bt_completions *completions, bt_http_exchange *exchange,
                         bt_api_request *request);
/* Submits choices that waited for their prompt. After everything that calls the core, and not from
 * within its calls. */
void bt_completions_submit_due(bt_completions *completions);
/* The io calls of the core; user is what start gave it. */
void bt_completion_token(uint64_t user, uint32_t index, const bt_token *token, bool eos);
void bt_completion_prompt_logprobs(uint64_t user, uint32_t index, const bt_token *tokens,
                                   uint32_t token_count);
void bt_completion_ended(uint64_t user, const bt_router_end *end);
/* Ends every job with an error that its client sees: the router goes. */
void bt_completions_fail_all(bt_completions *completions, const char *why);
/* Of the HTTP server. */
void bt_completion_gone(bt_completion *job);
void bt_completion_writable(bt_completion *job);

/* {"error": {…}} with the status, Retry-After for 429 and 503, Allow for 405. */
void bt_api_error_reply(bt_http_exchange *exchange, bt_json_out *json, const bt_api_error *error);

#endif
