#include "router/completion.h"

#include "common/base/crypto.h"
#include "common/text/detok.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TEXT_BYTES_MAX (BT_DETOK_BYTES_MAX + BT_STOP_BYTES_MAX)
#define ANSWER_MAX (64u << 20)

typedef struct {
    bt_completion *job;
    uint32_t index;
    bt_detok detok;
    bt_stop stop;
    uint64_t started_ns, last_token_ns;
    char *text;    /* not streamed: all of it */
    uint32_t *ids; /* the same, if asked for */
    size_t text_bytes, text_capacity;
    uint32_t id_count, id_capacity;
    uint32_t prompt_tokens, output_tokens, cached_tokens;
    bt_finish_reason finish;
    bool ended;
} choice;

struct bt_completion {
    bt_completions *owner;
    bt_completion *previous, *next; /* of the owner's list */
    bt_http_exchange *exchange;     /* NULL once it is over */
    bt_completion_request request;
    char id[40];
    time_t created;
    bool begun; /* the stream's head is out */
    bool failed;
    bool held;           /* one of our calls goes on with it: nobody may free the job */
    bt_json_out pending; /* events that the client has not taken */
    size_t pending_sent;
    uint32_t choices_left;
    uint32_t choice_count;
    choice choices[BT_PROMPTS_MAX];
};

static const char *finish_text(bt_finish_reason finish)
{
    switch (finish) {
    case BT_FINISH_STOP: return "stop";
    case BT_FINISH_LENGTH: return "length";
    default: return NULL;
    }
}

/* ---- errors ---- */

static void write_error(bt_json_out *json, const bt_api_error *error)
{
    bt_json_begin(json, '{');
    bt_json_key(json, "error");
    bt_json_begin(json, '{');
    bt_json_key(json, "message");
    bt_json_text(json, error->message);
    bt_json_key(json, "type");
    bt_json_text(json, error->type);
    bt_json_key(json, "param");
    bt_json_text(json, error->param[0] != '\0' ? error->param : NULL);
    bt_json_key(json, "code");
    bt_json_text(json, error->code);
    bt_json_end(json, '}');
    bt_json_end(json, '}');
}

void bt_api_error_reply(bt_http_exchange *exchange, bt_json_out *json, const bt_api_error *error)
{
    bt_json_reset(json);
    write_error(json, error);
    char fields[64] = "";
    if (error->http_status == 429 || error->http_status == 503)
        snprintf(fields, sizeof(fields), "Retry-After: 1\r\n");
    else if (error->allow != NULL)
        snprintf(fields, sizeof(fields), "Allow: %s\r\n", error->allow);
    bt_http_reply(exchange, error->http_status, "application/json", fields[0] ? fields : NULL,
                  json->data, json->bytes);
}

static void fail_job(bt_completion *job, const bt_api_error *error);

/* ---- life ---- */

static void free_job(bt_completion *job)
{
    for (uint32_t i = 0; i < job->choice_count; i++) {
        free(job->choices[i].text);
        free(job->choices[i].ids);
    }
    bt_json_finish(&job->pending);
    bt_completion_request_finish(&job->request);
    bt_completions *owner = job->owner;
    if (job->previous != NULL)
        job->previous->next = job->next;
    else
        owner->first = job->next;
    if (job->next != NULL) job->next->previous = job->previous;
    owner->jobs--;
    free(job);
}

static void release(bt_completion *job)
{
    if (job->choices_left == 0 && job->exchange == NULL && !job->held) free_job(job);
}

static void cancel_choices(bt_completion *job)
{
    bool held = job->held;
    job->held = true; /* cancel ends choices, and the last end would free the job under us */
    for (uint32_t i = 0; i < job->choice_count; i++) {
        if (!job->choices[i].ended)
            bt_router_core_cancel(job->owner->core, (uint64_t)(uintptr_t)&job->choices[i],
                                  job->owner->now_ns());
    }
    job->held = held;
}

/* ---- output ---- */

static void event_head(bt_completion *job, bt_json_out *json)
{
    bt_json_raw(json, "data: ");
    bt_json_begin(json, '{');
    bt_json_key(json, "id");
    bt_json_text(json, job->id);
    bt_json_key(json, "object");
    bt_json_text(json, "text_completion");
    bt_json_key(json, "created");
    bt_json_u64(json, (uint64_t)job->created);
    bt_json_key(json, "model");
    bt_json_text(json, job->owner->model);
    bt_json_key(json, "choices");
    bt_json_begin(json, '[');
}

static void write_usage(bt_completion *job, bt_json_out *json)
{
    uint64_t prompt = 0, output = 0, cached = 0;
    for (uint32_t i = 0; i < job->choice_count; i++) {
        prompt += job->choices[i].prompt_tokens;
        output += job->choices[i].output_tokens;
        cached += job->choices[i].cached_tokens;
    }
    bt_json_key(json, "usage");
    bt_json_begin(json, '{');
    bt_json_key(json, "prompt_tokens");
    bt_json_u64(json, prompt);
    bt_json_key(json, "completion_tokens");
    bt_json_u64(json, output);
    bt_json_key(json, "total_tokens");
    bt_json_u64(json, prompt + output);
    bt_json_key(json, "prompt_tokens_details");
    bt_json_begin(json, '{');
    bt_json_key(json, "cached_tokens");
    bt_json_u64(json, cached);
    bt_json_end(json, '}');
    bt_json_end(json, '}');
}

static void event_tail(bt_completion *job, bt_json_out *json, bool usage_event)
{
    bt_json_end(json, ']');
    if (usage_event) {
        write_usage(job, json);
    } else if (job->request.include_usage) {
        bt_json_key(json, "usage");
        bt_json_null(json);
    }
    bt_json_end(json, '}');
    bt_json_raw(json, "\n\n");
}

static void write_choice(bt_json_out *json, const choice *c, const char *text, size_t bytes,
                         const uint32_t *ids, uint32_t id_count)
{
    bt_json_begin(json, '{');
    bt_json_key(json, "index");
    bt_json_u64(json, c->index);
    bt_json_key(json, "text");
    bt_json_string(json, text, bytes);
    bt_json_key(json, "logprobs");
    bt_json_null(json);
    bt_json_key(json, "finish_reason");
    bt_json_text(json, finish_text(c->finish));
    if (c->job->request.return_token_ids) {
        bt_json_key(json, "token_ids");
        bt_json_begin(json, '[');
        for (uint32_t i = 0; i < id_count; i++) bt_json_u64(json, ids[i]);
        bt_json_end(json, ']');
    }
    bt_json_end(json, '}');
}

/* Sends what waits; what the client does not take yet goes on waiting. */
static void flush(bt_completion *job)
{
    while (job->exchange != NULL && job->pending_sent < job->pending.bytes) {
        size_t bytes = job->pending.bytes - job->pending_sent;
        if (bytes > 65536) bytes = 65536;
        if (bt_http_stream_write(job->exchange, job->pending.data + job->pending_sent, bytes) !=
            BT_OK)
            return;
        job->pending_sent += bytes;
    }
    bt_json_reset(&job->pending);
    job->pending_sent = 0;
    if (job->exchange == NULL || job->choices_left > 0) return;
    bt_http_exchange *exchange = job->exchange;
    job->exchange = NULL;
    bt_http_stream_end(exchange);
}

static void begin_stream(bt_completion *job)
{
    if (job->begun) return;
    job->begun = true;
    bt_http_stream_begin(job->exchange, 200, "text/event-stream", "Cache-Control: no-cache\r\n");
}

/* The client takes nothing and its share of memory is used up. */
static void check_slow(bt_completion *job)
{
    if (!job->pending.overflow || job->exchange == NULL) return;
    bt_http_exchange *exchange = job->exchange;
    job->exchange = NULL;
    bt_http_abort(exchange);
    cancel_choices(job);
}

static void stream_choice(choice *c, const char *text, size_t bytes, const uint32_t *ids,
                          uint32_t id_count)
{
    bt_completion *job = c->job;
    if (job->exchange == NULL || job->failed) return;
    begin_stream(job);
    event_head(job, &job->pending);
    write_choice(&job->pending, c, text, bytes, ids, id_count);
    event_tail(job, &job->pending, false);
    flush(job);
    check_slow(job);
}

static bool keep(choice *c, const char *text, size_t bytes, const uint32_t *id)
{
    if (c->text_bytes + bytes > c->text_capacity) {
        size_t capacity = 2 * (c->text_bytes + bytes) + 256;
        char *grown = realloc(c->text, capacity);
        if (grown == NULL) return false;
        c->text = grown;
        c->text_capacity = capacity;
    }
    if (bytes > 0) memcpy(c->text + c->text_bytes, text, bytes);
    c->text_bytes += bytes;
    if (id == NULL || !c->job->request.return_token_ids) return true;
    if (c->id_count == c->id_capacity) {
        uint32_t capacity = 2 * c->id_capacity + 64;
        uint32_t *grown = realloc(c->ids, capacity * sizeof(uint32_t));
        if (grown == NULL) return false;
        c->ids = grown;
        c->id_capacity = capacity;
    }
    c->ids[c->id_count++] = *id;
    return true;
}

static void emit(choice *c, const char *text, size_t bytes, const uint32_t *id)
{
    if (c->job->request.stream) {
        if (bytes > 0 || id != NULL) stream_choice(c, text, bytes, id, id != NULL);
        return;
    }
    if (keep(c, text, bytes, id)) return;
    const bt_api_error error = {
        .http_status = 503, .type = "server_error", .message = "out of memory"};
    fail_job(c->job, &error);
}

/* ---- tokens ---- */

void bt_completion_token(uint64_t user, uint32_t index, const bt_token *token, bool eos)
{
    choice *c = (choice *)(uintptr_t)user;
    bt_completion *job = c->job;
    bt_completions *owner = job->owner;
    uint64_t now = owner->now_ns();
    if (index == 0 && owner->on_first_token != NULL)
        owner->on_first_token(owner->arg, now - c->started_ns);
    if (index > 0 && owner->on_token != NULL) owner->on_token(owner->arg, now - c->last_token_ns);
    c->last_token_ns = now;
    c->output_tokens = index + 1;
    char text[BT_DETOK_BYTES_MAX], safe[TEXT_BYTES_MAX];
    size_t bytes = eos && !job->request.ignore_eos ? 0 : bt_detok_push(&c->detok, token->id, text);
    size_t safe_bytes = bt_stop_push(&c->stop, text, bytes, safe);
    job->held =
        true; /* what follows may end the job: its client reads too slowly, or a stop string */
    emit(c, safe, safe_bytes, &token->id);
    if (c->stop.matched) bt_router_core_stop(owner->core, user, now);
    job->held = false;
    release(job);
}

static void answer(bt_completion *job)
{
    bt_json_out *json = &job->owner->json;
    bt_json_reset(json);
    json->capacity_max = ANSWER_MAX;
    event_head(job, json);
    json->comma = false;
    for (uint32_t i = 0; i < job->choice_count; i++) {
        const choice *c = &job->choices[i];
        write_choice(json, c, c->text, c->text_bytes, c->ids, c->id_count);
    }
    bt_json_end(json, ']');
    write_usage(job, json);
    bt_json_end(json, '}');
    size_t prefix = strlen("data: ");
    bt_http_exchange *exchange = job->exchange;
    job->exchange = NULL;
    bt_http_reply(exchange, 200, "application/json", NULL, json->data + prefix,
                  json->bytes - prefix);
}

static void fail_job(bt_completion *job, const bt_api_error *error)
{
    if (job->failed) return;
    job->failed = true;
    if (job->exchange != NULL && !job->begun) {
        bt_http_exchange *exchange = job->exchange;
        job->exchange = NULL;
        bt_api_error_reply(exchange, &job->owner->json, error);
    } else if (job->exchange != NULL) {
        bt_json_raw(&job->pending, "data: ");
        write_error(&job->pending, error);
        bt_json_raw(&job->pending, "\n\n");
    }
    cancel_choices(job);
    flush(job);
}

static void finish_job(bt_completion *job)
{
    if (job->exchange == NULL || job->failed) {
        flush(job);
        return;
    }
    if (!job->request.stream) {
        answer(job);
        return;
    }
    begin_stream(job);
    if (job->request.include_usage) {
        event_head(job, &job->pending);
        event_tail(job, &job->pending, true);
    }
    bt_json_raw(&job->pending, "data: [DONE]\n\n");
    flush(job);
}

/* Daemons that stayed full to the end are the client's cue to come back (H8); anything else is ours. */
static void failed(const bt_router_end *end, bt_api_error *ret_error)
{
    bool full = end->refused == BT_REFUSE_FULL;
    *ret_error = (bt_api_error){.http_status = full ? 429 : 503,
                                .type = full ? "rate_limit_error" : "server_error",
                                .code = full ? "rate_limit_exceeded" : "upstream_failed"};
    snprintf(ret_error->message, sizeof(ret_error->message),
             "the request failed after %u attempts: %s", end->attempts, end->text);
}

void bt_completion_ended(uint64_t user, const bt_router_end *end)
{
    choice *c = (choice *)(uintptr_t)user;
    bt_completion *job = c->job;
    bt_completions *owner = job->owner;
    assert(!c->ended && job->choices_left > 0);
    c->ended = true;
    c->prompt_tokens = end->prompt_tokens;
    c->output_tokens = end->output_tokens;
    c->cached_tokens = end->cached_tokens;
    c->finish = end->reason;
    if (owner->on_end != NULL) owner->on_end(owner->arg, end, owner->now_ns() - c->started_ns);
    if (end->reason == BT_FINISH_STOP || end->reason == BT_FINISH_LENGTH) {
        char text[BT_DETOK_BYTES_MAX], safe[TEXT_BYTES_MAX];
        size_t bytes = 0;
        if (!c->stop.matched) {
            size_t rest = bt_detok_flush(&c->detok, text);
            bytes = bt_stop_push(&c->stop, text, rest, safe);
            if (!c->stop.matched) bytes += bt_stop_flush(&c->stop, safe + bytes);
        }
        if (job->request.stream)
            stream_choice(c, safe, bytes, NULL, 0);
        else
            emit(c, safe, bytes, NULL);
    }
    job->choices_left--;
    if (end->reason == BT_FINISH_FAILED) {
        bt_api_error error;
        failed(end, &error);
        fail_job(job, &error);
    }
    if (job->choices_left == 0) finish_job(job);
    release(job);
}

/* ---- start and client ---- */

static void refused(bt_status status, const bt_err *err, bt_api_error *ret_error)
{
    *ret_error = (bt_api_error){.http_status = 503, .type = "server_error", .code = "no_capacity"};
    if (status == BT_AGAIN) {
        ret_error->http_status = 429;
        ret_error->type = "rate_limit_error";
        ret_error->code = "rate_limit_exceeded";
    } else if (status == BT_ERR_LIMIT || status == BT_ERR_ARGUMENT) {
        ret_error->http_status = 400;
        ret_error->type = "invalid_request_error";
        ret_error->code = status == BT_ERR_LIMIT ? "context_length_exceeded" : NULL;
    }
    snprintf(ret_error->message, sizeof(ret_error->message), "%s",
             status == BT_AGAIN && err->message[0] == '\0' ? "too many requests in flight"
                                                           : err->message);
}

static bt_status submit(bt_completion *job, uint32_t i, bt_err *err)
{
    choice *c = &job->choices[i];
    const bt_completion_request *request = &job->request;
    bt_router_request r = {.tokens = request->prompts[i].tokens,
                           .token_count = request->prompts[i].token_count,
                           .max_tokens = request->max_tokens,
                           .ignore_eos = request->ignore_eos,
                           .sampling = request->sampling,
                           .user = (uint64_t)(uintptr_t)c};
    bt_random_bytes(&r.id, sizeof(r.id));
    if (!request->seeded) bt_random_bytes(&r.sampling.seed, sizeof(r.sampling.seed));
    return bt_router_core_submit(job->owner->core, &r, c->started_ns, err);
}

static bt_completion *new_job(bt_completions *completions, bt_http_exchange *exchange,
                              const bt_tokenizer *tokenizer, bt_completion_request *request)
{
    bt_completion *job = calloc(1, sizeof(*job));
    if (job == NULL) return NULL;
    job->owner = completions;
    job->exchange = exchange;
    job->request = *request;
    job->created = time(NULL);
    uint8_t random[16];
    bt_random_bytes(random, sizeof(random));
    int used = snprintf(job->id, sizeof(job->id), "cmpl-");
    for (size_t i = 0; i < sizeof(random); i++)
        used += snprintf(job->id + used, 3, "%02x", random[i]);
    bt_json_init(&job->pending, BT_COMPLETION_PENDING_MAX);
    job->choice_count = request->prompt_count;
    for (uint32_t i = 0; i < job->choice_count; i++) {
        choice *c = &job->choices[i];
        c->job = job;
        c->index = i;
        c->stop = request->stop;
        c->started_ns = completions->now_ns();
        bt_detok_init(&c->detok, tokenizer, BT_DETOK_CONTINUES);
    }
    job->next = completions->first;
    if (job->next != NULL) job->next->previous = job;
    completions->first = job;
    completions->jobs++;
    return job;
}

void bt_completion_start(bt_completions *completions, bt_http_exchange *exchange,
                         const bt_tokenizer *tokenizer, bt_completion_request *request)
{
    bt_completion *job = new_job(completions, exchange, tokenizer, request);
    if (job == NULL) {
        const bt_api_error error = {
            .http_status = 503, .type = "server_error", .message = "out of memory"};
        bt_api_error_reply(exchange, &completions->json, &error);
        bt_completion_request_finish(request);
        return;
    }
    bt_http_exchange_set_user(exchange, job);
    job->held = true;
    for (uint32_t i = 0; i < job->choice_count && !job->failed; i++) {
        bt_err err = {0};
        job->choices_left++;
        bt_status status = submit(job, i, &err);
        if (status == BT_OK) continue;
        job->choices_left--;
        for (uint32_t rest = i; rest < job->choice_count; rest++) job->choices[rest].ended = true;
        bt_api_error error;
        refused(status, &err, &error);
        fail_job(job, &error);
    }
    job->held = false;
    release(job);
}

void bt_completions_fail_all(bt_completions *completions, const char *why)
{
    bt_api_error error = {.http_status = 503, .type = "server_error", .code = "shutting_down"};
    snprintf(error.message, sizeof(error.message), "%s", why);
    for (bt_completion *job = completions->first, *next; job != NULL; job = next) {
        next = job->next;
        job->held = true; /* until fail_job is through with it */
        fail_job(job, &error);
        job->held = false;
        release(job);
    }
}

void bt_completion_gone(bt_completion *job)
{
    job->exchange = NULL;
    cancel_choices(job);
    release(job);
}

void bt_completion_writable(bt_completion *job)
{
    flush(job);
    release(job);
}
