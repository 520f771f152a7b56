#include "router/completion.h"

#include "common/base/crypto.h"
#include "router/openai_json.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ESCAPED_MAX 6u /* bytes of JSON for one of text */

static const uint32_t no_ids; /* an empty list that is not NULL */

typedef struct {
    bt_completion *job;
    uint32_t index;
    bt_choice_text text;
    uint64_t started_ns, last_token_ns;
    char *answer;  /* not streamed: all of the text */
    uint32_t *ids; /* the same, if asked for */
    size_t answer_bytes, answer_capacity;
    uint32_t id_count, id_capacity;
    uint32_t output_tokens, cached_tokens;
    bt_finish_reason finish;
    uint32_t stop_id; /* if stopped_by_id */
    bool begun;       /* the first token came */
    bool submitted;
    bool ended, stopped_by_id;
} choice;

struct bt_completion {
    bt_completions *owner;
    bt_completion *previous, *next; /* of the owner's list */
    bt_http_exchange *exchange;     /* NULL once it is over */
    bt_api_request request;
    char id[48];
    time_t created;
    bool begun; /* the stream's head is out */
    bool failed;
    bool due;            /* a prompt was computed: choices may wait to be submitted */
    bool held;           /* one of our calls goes on with it: nobody may free the job */
    bt_json_out pending; /* events that the client has not taken */
    size_t pending_sent, pending_counted; /* of owner->waiting */
    uint32_t choices_left;
    uint32_t choice_count;
    choice choices[];
};

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
        bt_choice_text_close(&job->choices[i].text);
        free(job->choices[i].answer);
        free(job->choices[i].ids);
    }
    bt_completions *owner = job->owner;
    owner->waiting -= job->pending_counted;
    bt_json_finish(&job->pending);
    bt_api_request_finish(&job->request);
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
        choice *c = &job->choices[i];
        if (c->ended) continue;
        if (c->submitted) {
            bt_router_core_cancel(job->owner->core, (uint64_t)(uintptr_t)c, job->owner->now_ns());
            continue;
        }
        c->ended = true;
        job->choices_left--;
        bt_router_core_unreserve(job->owner->core, 1);
    }
    job->held = held;
}

/* ---- output ---- */

static const bt_request_prompt *prompt_of(const choice *c)
{
    return &c->job->request.prompts[c->index / c->job->request.n];
}

static bt_openai_head head_of(const bt_completion *job)
{
    return (bt_openai_head){.chat = job->request.chat,
                            .chunk = job->request.stream,
                            .id = job->id,
                            .model = job->owner->model,
                            .fingerprint = job->owner->fingerprint,
                            .created = job->created,
                            .tokenizer = job->owner->tokenizer};
}

/* So far. A prompt counts once, however many choices it has. */
static bt_openai_usage usage_of(const bt_completion *job)
{
    bt_openai_usage usage = {0};
    for (uint32_t i = 0; i < job->request.prompt_count; i++) {
        usage.prompt_tokens += job->request.prompts[i].token_count;
        usage.cached_tokens += job->choices[i * job->request.n].cached_tokens;
    }
    for (uint32_t i = 0; i < job->choice_count; i++)
        usage.output_tokens += job->choices[i].output_tokens;
    return usage;
}

static void count_waiting(bt_completion *job)
{
    job->owner->waiting += job->pending.capacity - job->pending_counted;
    job->pending_counted = job->pending.capacity;
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
    job->pending_sent = 0;
    if (job->pending.capacity > BT_COMPLETION_PENDING_MAX) {
        size_t most = job->pending.capacity_max;
        bt_json_finish(&job->pending);
        bt_json_init(&job->pending, most);
        count_waiting(job);
    } else {
        bt_json_reset(&job->pending);
    }
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

/* The client takes nothing, and its share of memory is used up, or everybody's. */
static void check_slow(bt_completion *job)
{
    bt_completions *owner = job->owner;
    count_waiting(job);
    bool crowded =
        owner->waiting > owner->waiting_max && job->pending.bytes > BT_COMPLETION_PENDING_MAX;
    if ((!job->pending.overflow && !crowded) || job->exchange == NULL) return;
    bt_http_exchange *exchange = job->exchange;
    job->exchange = NULL;
    bt_http_abort(exchange);
    cancel_choices(job);
}

/* One event; choice NULL: the one of the usage. */
static void send_event(bt_completion *job, const bt_openai_choice *c)
{
    if (job->exchange == NULL || job->failed) return;
    begin_stream(job);
    const bt_openai_head head = head_of(job);
    bool with_usage = c == NULL || job->request.continuous_usage;
    bt_openai_usage usage;
    if (with_usage) usage = usage_of(job);
    bt_json_raw(&job->pending, "data: ");
    bt_openai_begin(&job->pending, &head);
    if (c != NULL) bt_openai_add_choice(&job->pending, &head, c);
    bt_openai_end(&job->pending, with_usage ? &usage : NULL, job->request.include_usage);
    bt_json_raw(&job->pending, "\n\n");
}

static bt_openai_choice view_of(const choice *c, const char *text, size_t bytes)
{
    return (bt_openai_choice){.index = c->index,
                              .text = text,
                              .text_bytes = bytes,
                              .logprobs = c->job->request.sampling.logprobs,
                              .entries = c->text.entries,
                              .entry_count = c->text.ready};
}

/* The prompt's tokens, where their logprobs are wanted. */
static void view_prompt(const choice *c, bt_openai_choice *view)
{
    const bt_request_prompt *prompt = prompt_of(c);
    view->prompt_entries = prompt->entries;
    view->prompt_entry_count = prompt->entries != NULL ? prompt->token_count : 0;
}

/* Before the first token of a choice: who speaks, or the prompt. */
static void send_opening(choice *c)
{
    const bt_request_prompt *prompt = prompt_of(c);
    bt_openai_choice view = {.index = c->index,
                             .text = "",
                             .role = c->job->request.chat,
                             .logprobs = c->job->request.sampling.logprobs};
    view_prompt(c, &view);
    if (c->job->request.echo) {
        view.text = prompt->echo;
        view.text_bytes = prompt->echo_bytes;
    }
    if (c->job->request.return_token_ids) view.ids = &no_ids;
    if (view.role || view.text_bytes + view.prompt_entry_count > 0) send_event(c->job, &view);
}

static void stream_text(choice *c, const char *text, size_t bytes, const uint32_t *id)
{
    bt_completion *job = c->job;
    if (!c->begun) send_opening(c);
    bt_openai_choice view = view_of(c, text, bytes);
    if (job->request.return_token_ids) {
        view.ids = id != NULL ? id : &no_ids;
        view.id_count = id != NULL;
    }
    if (id != NULL || bytes > 0 || view.entry_count > 0) send_event(job, &view);
    bt_choice_text_took(&c->text);
    flush(job);
    check_slow(job);
}

static void set_end(const choice *c, bt_openai_choice *view)
{
    const bt_stop *stop = &c->text.stop;
    view->ended = true;
    view->finish = c->finish;
    if (stop->matched) {
        view->stop_text = stop->strings[stop->matched_index].text;
        view->stop_bytes = stop->strings[stop->matched_index].bytes;
    }
    if (c->stopped_by_id) view->stop_id = &c->stop_id;
}

/* The last event of a choice: in chat it has no text, in completions what was held back. */
static void stream_end(choice *c, const char *text, size_t bytes)
{
    bt_completion *job = c->job;
    if (job->request.chat) stream_text(c, text, bytes, NULL);
    bt_openai_choice view = view_of(c, text, job->request.chat ? 0 : bytes);
    if (job->request.return_token_ids) view.ids = &no_ids;
    set_end(c, &view);
    send_event(job, &view);
    bt_choice_text_took(&c->text);
    flush(job);
    check_slow(job);
}

static bool keep_text(choice *c, const char *text, size_t bytes)
{
    if (c->answer_bytes + bytes > c->answer_capacity) {
        size_t capacity = 2 * (c->answer_bytes + bytes) + 256;
        char *grown = realloc(c->answer, capacity);
        if (grown == NULL) return false;
        c->answer = grown;
        c->answer_capacity = capacity;
    }
    if (bytes > 0) memcpy(c->answer + c->answer_bytes, text, bytes);
    c->answer_bytes += bytes;
    return true;
}

static bool keep_id(choice *c, uint32_t id)
{
    if (c->id_count == c->id_capacity) {
        uint32_t capacity = 2 * c->id_capacity + 64;
        uint32_t *grown = realloc(c->ids, capacity * sizeof(uint32_t));
        if (grown == NULL) return false;
        c->ids = grown;
        c->id_capacity = capacity;
    }
    c->ids[c->id_count++] = id;
    return true;
}

static void fail_memory(bt_completion *job)
{
    bt_api_error error;
    bt_api_no_memory(&error);
    fail_job(job, &error);
}

static void emit(choice *c, const char *text, size_t bytes, const uint32_t *id)
{
    const bt_api_request *request = &c->job->request;
    if (request->stream) {
        stream_text(c, text, bytes, id);
        return;
    }
    const bt_request_prompt *prompt = prompt_of(c);
    bool ok = c->begun || !request->echo || keep_text(c, prompt->echo, prompt->echo_bytes);
    ok = ok && keep_text(c, text, bytes);
    if (ok && id != NULL && request->return_token_ids) ok = keep_id(c, *id);
    if (!ok) fail_memory(c->job);
}

/* ---- tokens ---- */

/* The token that ends a choice has no text; chat, whose logprobs are those of the content, does not
 * list it. */
static bt_push_kind push_kind(const choice *c, uint32_t index, bool eos)
{
    const bt_api_request *request = &c->job->request;
    bool last = (eos && !request->ignore_eos) || (c->stopped_by_id && !request->include_stop);
    if (last) return request->chat ? BT_PUSH_SILENT : BT_PUSH_HIDDEN;
    return index < request->sampling.min_tokens ? BT_PUSH_UNSTOPPED : BT_PUSH_TEXT;
}

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
    bool prompt_only = job->request.max_tokens == 0; /* the core made one all the same */
    char text[BT_CHOICE_TEXT_BYTES_MAX];
    size_t bytes = 0;
    bool known = true;
    if (!prompt_only) {
        c->output_tokens = index + 1;
        c->stopped_by_id = bt_sampling_stops(&job->request.sampling, token->id);
        if (c->stopped_by_id) c->stop_id = token->id;
        known = bt_choice_text_push(&c->text, token, push_kind(c, index, eos), text, &bytes);
    }
    /* What follows may end the job: its client reads too slowly, or the text stops. */
    job->held = true;
    if (known)
        emit(c, text, bytes, prompt_only ? NULL : &token->id);
    else
        fail_memory(job);
    c->begun = true;
    if (index == 0 && job->request.n > 1) job->due = owner->due = true;
    if (!c->ended && c->text.stop.matched) bt_router_core_stop(owner->core, user, now);
    job->held = false;
    release(job);
}

static void answer(bt_completion *job)
{
    bt_json_out *json = &job->owner->json;
    bt_json_reset(json);
    const bt_openai_head head = head_of(job);
    const bt_openai_usage usage = usage_of(job);
    bt_openai_begin(json, &head);
    for (uint32_t i = 0; i < job->choice_count; i++) {
        const choice *c = &job->choices[i];
        bt_openai_choice view = view_of(c, c->answer, c->answer_bytes);
        view_prompt(c, &view);
        if (job->request.return_token_ids) {
            view.ids = c->ids != NULL ? c->ids : &no_ids;
            view.id_count = c->id_count;
        }
        set_end(c, &view);
        bt_openai_add_choice(json, &head, &view);
    }
    bt_openai_end(json, &usage, false);
    if (json->overflow) {
        bt_api_error error = {
            .http_status = 500, .type = "server_error", .code = "answer_too_large"};
        snprintf(error.message, sizeof(error.message),
                 "the answer has more than %u bytes; with 'stream' there is no such limit",
                 BT_COMPLETION_ANSWER_MAX);
        fail_job(job, &error);
        return;
    }
    bt_http_exchange *exchange = job->exchange;
    job->exchange = NULL;
    bt_http_reply(exchange, 200, "application/json", NULL, json->data, json->bytes);
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
    if (job->request.include_usage) send_event(job, NULL);
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

void bt_completion_prompt_logprobs(uint64_t user, uint32_t index, const bt_token *tokens,
                                   uint32_t token_count)
{
    const choice *c = (const choice *)(uintptr_t)user;
    const bt_request_prompt *prompt = prompt_of(c);
    assert(prompt->entries != NULL && index + token_count <= prompt->token_count);
    for (uint32_t i = 0; i < token_count; i++) {
        assert(tokens[i].id == prompt->tokens[index + i]);
        prompt->entries[index + i].token = tokens[i];
        prompt->entries[index + i].unscored = false;
    }
}

void bt_completion_ended(uint64_t user, const bt_router_end *end)
{
    choice *c = (choice *)(uintptr_t)user;
    bt_completion *job = c->job;
    bt_completions *owner = job->owner;
    assert(!c->ended && job->choices_left > 0);
    c->ended = true;
    if (job->request.max_tokens > 0) c->output_tokens = end->output_tokens;
    c->cached_tokens = end->cached_tokens;
    c->finish = end->reason;
    if (owner->on_end != NULL) owner->on_end(owner->arg, end, owner->now_ns() - c->started_ns);
    if (end->reason == BT_FINISH_STOP || end->reason == BT_FINISH_LENGTH) {
        char text[BT_CHOICE_TEXT_BYTES_MAX];
        size_t bytes;
        bt_choice_text_finish(&c->text, text, &bytes);
        if (c->text.stop.matched) c->finish = BT_FINISH_STOP;
        if (job->request.max_tokens == 0) c->finish = BT_FINISH_LENGTH;
        if (job->request.stream)
            stream_end(c, text, bytes);
        else
            emit(c, text, bytes, NULL);
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
    const bt_api_request *request = &job->request;
    const bt_request_prompt *prompt = &request->prompts[i / request->n];
    bt_router_request r = {.tokens = prompt->tokens,
                           .token_count = prompt->token_count,
                           .max_tokens = request->max_tokens > 0 ? request->max_tokens : 1,
                           .prompt_logprobs = prompt->entries != NULL && i % request->n == 0,
                           .ignore_eos = request->ignore_eos,
                           .sampling = request->sampling,
                           .user = (uint64_t)(uintptr_t)c,
                           .reserved = true};
    bt_random_bytes(&r.id, sizeof(r.id));
    if (request->salted) memcpy(r.tenant_salt, request->salt.bytes, sizeof(r.tenant_salt));
    if (request->seeded)
        r.sampling.seed += i % request->n;
    else
        bt_random_bytes(&r.sampling.seed, sizeof(r.sampling.seed));
    bt_status status = bt_router_core_submit(job->owner->core, &r, job->owner->now_ns(), err);
    c->submitted = status == BT_OK;
    return status;
}

/* Its prompt is being computed for the first choice, and worth waiting for: a run is the least that a
 * prefix cache holds, and the prompt's logprobs come once. */
static bool waits(const bt_completion *job, uint32_t i)
{
    uint32_t first = i - i % job->request.n;
    const bt_request_prompt *prompt = prompt_of(&job->choices[i]);
    return i != first && !job->choices[first].begun &&
           (prompt->token_count > BT_RUN_TOKENS || prompt->entries != NULL);
}

/* Those that need not wait. The first that is refused fails the job. */
static void submit_choices(bt_completion *job)
{
    for (uint32_t i = 0; i < job->choice_count && !job->failed; i++) {
        bt_err err = {0};
        if (job->choices[i].submitted || job->choices[i].ended || waits(job, i)) continue;
        bt_status status = submit(job, i, &err);
        if (status == BT_OK) continue;
        bt_api_error error;
        refused(status, &err, &error);
        fail_job(job, &error);
    }
}

void bt_completions_submit_due(bt_completions *completions)
{
    if (!completions->due) return;
    completions->due = false;
    for (bt_completion *job = completions->first, *next; job != NULL; job = next) {
        next = job->next;
        if (!job->due) continue;
        job->due = false;
        job->held = true;
        submit_choices(job);
        job->held = false;
        release(job);
    }
}

/* A chat that does not say how much it wants takes what the daemons have room for. */
static void fit_default(bt_completion *job)
{
    bt_api_request *request = &job->request;
    if (!request->max_tokens_default) return;
    uint32_t prompt = request->prompts[0].token_count,
             room = bt_router_core_room(job->owner->core, prompt);
    uint32_t left = room > prompt ? room - prompt : 0;
    if (left > 0 && left >= request->sampling.min_tokens && left < request->max_tokens)
        request->max_tokens = left;
}

static void init_choice(bt_completion *job, uint32_t i)
{
    choice *c = &job->choices[i];
    const bt_api_request *request = &job->request;
    const bt_request_prompt *prompt = &request->prompts[i / request->n];
    c->job = job;
    c->index = i;
    c->started_ns = job->owner->now_ns();
    uint64_t chars_before = bt_count_chars(prompt->echo, prompt->echo_bytes);
    bt_choice_text_init(&c->text, &prompt->detok, &request->stop, chars_before);
    c->text.include_stop = request->include_stop;
    c->text.entries_wanted = request->sampling.logprobs;
}

/* What the client asked to echo may wait beside the rest. */
static size_t pending_max(const bt_api_request *request)
{
    size_t echo_bytes = 0;
    for (uint32_t i = 0; i < request->prompt_count; i++) {
        if (request->prompts[i].entries != NULL) return BT_COMPLETION_ANSWER_MAX;
        echo_bytes += request->n * request->prompts[i].echo_bytes;
    }
    return BT_COMPLETION_PENDING_MAX + ESCAPED_MAX * echo_bytes;
}

static bt_completion *new_job(bt_completions *completions, bt_http_exchange *exchange,
                              bt_api_request *request)
{
    uint32_t choices = request->prompt_count * request->n;
    bt_completion *job = calloc(1, sizeof(*job) + choices * sizeof(choice));
    if (job == NULL) return NULL;
    job->owner = completions;
    job->exchange = exchange;
    job->request = *request;
    job->request.sampling.bias = job->request.bias;
    fit_default(job);
    job->created = time(NULL);
    uint8_t random[16];
    bt_random_bytes(random, sizeof(random));
    int used = snprintf(job->id, sizeof(job->id), request->chat ? "chatcmpl-" : "cmpl-");
    for (size_t i = 0; i < sizeof(random); i++)
        used += snprintf(job->id + used, 3, "%02x", random[i]);
    bt_json_init(&job->pending, pending_max(request));
    job->choice_count = choices;
    for (uint32_t i = 0; i < choices; i++) init_choice(job, i);
    job->next = completions->first;
    if (job->next != NULL) job->next->previous = job;
    completions->first = job;
    completions->jobs++;
    return job;
}

void bt_completion_start(bt_completions *completions, bt_http_exchange *exchange,
                         bt_api_request *request)
{
    bt_completion *job = new_job(completions, exchange, request);
    if (job == NULL) {
        bt_api_error error;
        bt_api_no_memory(&error);
        bt_api_error_reply(exchange, &completions->json, &error);
        bt_api_request_finish(request);
        return;
    }
    bt_http_exchange_set_user(exchange, job);
    job->held = true;
    bt_err err = {0};
    bt_status status = bt_router_core_reserve(completions->core, job->choice_count, &err);
    if (status == BT_OK) {
        job->choices_left = job->choice_count;
        submit_choices(job);
    } else {
        for (uint32_t i = 0; i < job->choice_count; i++) job->choices[i].ended = true;
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
