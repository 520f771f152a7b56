#include "ops/cli/bench/server.h"

#include "common/base/parse.h"
#include "ops/cli/bench/stream.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBE_WORDS 16u
#define PROBE_TOKENS 4u

bt_status bt_server_init(bt_server *server, const char *url, const char *model, bool chat,
                         bt_err *err)
{
    *server = (bt_server){0};
    bool http = strncmp(url, "http://", 7) == 0, https = strncmp(url, "https://", 8) == 0;
    size_t bytes = strlen(url);
    if ((!http && !https) || bytes <= (https ? 8u : 7u) || bytes > BT_SERVER_URL_BYTES - 64 ||
        strpbrk(url, " \t\r\n?#")) {
        char shown[96];
        bt_escape(url, bytes < 80 ? bytes : 80, shown, sizeof(shown));
        return BT_FAIL(err, BT_ERR_ARGUMENT, "'%s' is no URL like http://127.0.0.1:8000", shown);
    }
    while (bytes > 0 && url[bytes - 1] == '/') bytes--;
    if (bytes > 3 && memcmp(url + bytes - 3, "/v1", 3) == 0) bytes -= 3;
    memcpy(server->base, url, bytes);
    snprintf(server->endpoint, sizeof(server->endpoint), "%.*s/v1/%s", (int)bytes, url,
             chat ? "chat/completions" : "completions");
    if (model) {
        if (strlen(model) >= sizeof(server->model))
            return BT_FAIL(err, BT_ERR_ARGUMENT, "the name of the model is too long");
        strcpy(server->model, model);
    }
    server->body.chat = chat;
    server->body.model = server->model;
    return BT_OK;
}

/* GET base + path; *ret_json is NULL if the answer is no JSON of status 200. */
static bt_status get_json(const bt_server *server, bt_client *http, const char *path,
                          json_t **ret_json, bt_err *err)
{
    char url[BT_SERVER_URL_BYTES + 64];
    snprintf(url, sizeof(url), "%s%s", server->base, path);
    bt_client_answer answer;
    bt_status status = bt_client_fetch(http, url, NULL, 0, &answer, err);
    if (status != BT_OK) return status;
    *ret_json = answer.status == 200 ? json_loadb(answer.text, answer.bytes, 0, NULL) : NULL;
    free(answer.text);
    return BT_OK;
}

static void copy_text(const json_t *value, char *ret_text, size_t capacity)
{
    if (json_is_string(value))
        bt_escape(json_string_value(value), json_string_length(value), ret_text, capacity);
}

static bt_status ask_models(bt_server *server, bt_client *http, bt_err *err)
{
    json_t *answer = NULL;
    bt_status status = get_json(server, http, "/v1/models", &answer, err);
    if (status != BT_OK) return status;
    const json_t *list = json_object_get(answer, "data"), *found = NULL;
    for (size_t i = 0; i < json_array_size(list) && !found; i++) {
        const json_t *id = json_object_get(json_array_get(list, i), "id");
        if (!json_is_string(id)) continue;
        if (server->model[0] == '\0' && json_string_length(id) < sizeof(server->model))
            strcpy(server->model, json_string_value(id));
        if (strcmp(server->model, json_string_value(id)) == 0) found = json_array_get(list, i);
    }
    copy_text(json_object_get(found, "owned_by"), server->owner, sizeof(server->owner));
    json_int_t context = json_integer_value(json_object_get(found, "max_model_len"));
    if (context > 0 && context <= INT32_MAX) server->context_tokens = (uint32_t)context;
    if (server->model[0] == '\0')
        status = BT_FAIL(err, BT_ERR_PEER_LOST,
                         "%.80s/v1/models names no model: say which with --model", server->base);
    json_decref(answer);
    return status;
}

bt_status bt_server_ask(bt_server *server, bt_client *http, bt_err *err)
{
    bt_status status = ask_models(server, http, err);
    if (status != BT_OK) return status;
    json_t *version = NULL;
    status = get_json(server, http, "/version", &version, err);
    if (status != BT_OK) return status;
    copy_text(json_object_get(version, "version"), server->version, sizeof(server->version));
    json_decref(version);
    char url[BT_SERVER_URL_BYTES + 64];
    snprintf(url, sizeof(url), "%s/metrics", server->base);
    bt_client_answer answer;
    status = bt_client_fetch(http, url, NULL, 0, &answer, err);
    if (status != BT_OK) return status;
    server->baton = answer.status == 200 && strstr(answer.text, "baton_pairs_ready") != NULL;
    free(answer.text);
    return BT_OK;
}

/* ---- counting ---- */

static bt_status count_by_tokenize(const bt_server_counter *counter, const char *text,
                                   uint32_t *ret_tokens, uint32_t *ids, uint32_t ids_max,
                                   uint32_t *ret_ids, bt_err *err)
{
    bt_json_out *json = counter->json;
    bt_json_reset(json);
    bt_json_begin(json, '{');
    bt_json_key(json, "model");
    bt_json_text(json, counter->server->model);
    bt_json_key(json, "prompt");
    bt_json_text(json, text);
    bt_json_key(json, "add_special_tokens");
    bt_json_bool(json, false);
    bt_json_end(json, '}');
    char url[BT_SERVER_URL_BYTES + 64];
    snprintf(url, sizeof(url), "%s/tokenize", counter->server->base);
    bt_client_answer answer;
    bt_status status = bt_client_fetch(counter->http, url, json->data, json->bytes, &answer, err);
    if (status != BT_OK) return status;
    json_t *object = answer.status == 200 ? json_loadb(answer.text, answer.bytes, 0, NULL) : NULL;
    free(answer.text);
    const json_t *tokens = json_object_get(object, "tokens");
    counter->server->tokenizes = json_is_array(tokens) && json_array_size(tokens) > 0;
    *ret_tokens = (uint32_t)json_array_size(tokens);
    *ret_ids = 0;
    for (size_t i = 0; ids && i < json_array_size(tokens) && i < ids_max; i++) {
        json_int_t id = json_integer_value(json_array_get(tokens, i));
        if (id >= 0 && id <= INT32_MAX) ids[(*ret_ids)++] = (uint32_t)id;
    }
    json_decref(object);
    return BT_OK;
}

/* The usage of a request that is not streamed. */
static bt_status count_by_usage(const bt_server_counter *counter, const char *text,
                                uint32_t *ret_tokens, bt_err *err)
{
    const bt_server *server = counter->server;
    bt_load_body body = {.model = server->model, .chat = server->body.chat, .stream_usage = true};
    const bt_load_prompt prompt = {.text = text};
    bt_load_write_prompt(&prompt, &body, 1, counter->json);
    bt_client_answer answer;
    bt_status status = bt_client_fetch(counter->http, server->endpoint, counter->json->data,
                                       counter->json->bytes, &answer, err);
    if (status != BT_OK) return status;
    bt_stream stream;
    bt_stream_init(&stream);
    char said[160];
    bt_openai_error_text(answer.text, answer.bytes, said, sizeof(said));
    bool ok = answer.status == 200 &&
              bt_stream_feed(&stream, answer.text, answer.bytes, 1, NULL) == BT_OK &&
              stream.usage_seen;
    *ret_tokens = stream.prompt_tokens;
    bt_stream_finish(&stream);
    free(answer.text);
    if (ok) return BT_OK;
    return BT_FAIL(err, BT_ERR_PEER_LOST, "HTTP %ld, or no usage: %.120s", answer.status, said);
}

bt_status bt_server_count(void *arg, const char *text, uint32_t *ret_tokens, uint32_t *ids,
                          uint32_t ids_max, uint32_t *ret_ids, bt_err *err)
{
    const bt_server_counter *counter = arg;
    *ret_ids = 0;
    if (counter->server->tokenizes)
        return count_by_tokenize(counter, text, ret_tokens, ids, ids_max, ret_ids, err);
    return count_by_usage(counter, text, ret_tokens, err);
}

/* ---- what it understands ---- */

typedef struct {
    char text[PROBE_WORDS * (BT_VOCAB_WORD_BYTES + 1) + 1];
    uint32_t ids[PROBE_WORDS];
} probe_prompt;

static void make_prompt(probe_prompt *prompt, const bt_vocab *vocab)
{
    char *at = prompt->text;
    *at = '\0';
    for (uint32_t i = 0; i < PROBE_WORDS; i++) {
        at +=
            sprintf(at, " %s", vocab->word_count > 0 ? vocab->words[i % vocab->word_count] : "the");
        prompt->ids[i] =
            vocab->id_count > 0 ? vocab->ids[(uint64_t)i * vocab->id_count / PROBE_WORDS] : 0;
    }
}

/* One request in the form of server->body. *ret_ok: it was answered as the form asks. */
static bt_status try_form(bt_server *server, bt_client *http, const probe_prompt *prompt,
                          bt_json_out *json, bool *ret_ok, bt_stream *stream, bt_err *err)
{
    const bt_load_prompt given = {
        .text = server->body.ids ? NULL : prompt->text, .ids = prompt->ids, .count = PROBE_WORDS};
    bt_load_write_prompt(&given, &server->body, PROBE_TOKENS, json);
    bt_client_answer answer;
    bt_status status =
        bt_client_fetch(http, server->endpoint, json->data, json->bytes, &answer, err);
    if (status != BT_OK) return status;
    bt_err inner = {0};
    bt_stream_begin(stream);
    *ret_ok = answer.status == 200 &&
              bt_stream_feed(stream, answer.text, answer.bytes, 1, &inner) == BT_OK &&
              bt_stream_end(stream, &inner) == BT_OK;
    if (!*ret_ok) {
        char said[160];
        bt_openai_error_text(answer.text, answer.bytes, said, sizeof(said));
        BT_FAIL(err, BT_ERR_PEER_LOST, "%.60s answered HTTP %ld: %.110s", server->endpoint,
                answer.status, answer.status == 200 ? inner.message : said);
    }
    free(answer.text);
    return BT_OK;
}

/* From all we would like down to what every server has. */
static const struct {
    bool token_ids, continuous_usage, ignore_eos, stream_usage;
} forms[] = {
    {true, true, true, true},   {true, false, true, true},   {false, true, true, true},
    {false, false, true, true}, {false, false, false, true}, {false, false, false, false},
};

static bt_status probe_forms(bt_server *server, bt_client *http, const probe_prompt *prompt,
                             bool ignore_eos, bt_json_out *json, bt_stream *stream, bool *ret_ok,
                             bt_err *err)
{
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        server->body.token_ids = forms[i].token_ids;
        server->body.continuous_usage = forms[i].continuous_usage;
        server->body.stream_usage = forms[i].stream_usage;
        server->body.ignore_eos = forms[i].ignore_eos && ignore_eos;
        bt_status status = try_form(server, http, prompt, json, ret_ok, stream, err);
        if (status != BT_OK || *ret_ok) return status;
    }
    return BT_OK;
}

bt_status bt_server_probe(bt_server *server, bt_client *http, const bt_vocab *vocab, bool want_ids,
                          bool ignore_eos, bt_json_out *json, bt_err *err)
{
    probe_prompt prompt;
    make_prompt(&prompt, vocab);
    bt_stream stream;
    bt_stream_init(&stream);
    bool ok = false;
    bt_status status = BT_OK;
    server->body.ids = want_ids && !server->body.chat && vocab->id_count > 0;
    if (server->body.ids)
        status = probe_forms(server, http, &prompt, ignore_eos, json, &stream, &ok, err);
    if (status == BT_OK && !ok) {
        server->body.ids = false;
        status = probe_forms(server, http, &prompt, ignore_eos, json, &stream, &ok, err);
    }
    if (status == BT_OK && !ok) status = err ? err->status : BT_ERR_PEER_LOST;
    if (status == BT_OK && stream.usage_seen && !server->body.ids &&
        stream.prompt_tokens > PROBE_WORDS && vocab->word_count > 0)
        server->text_overhead = stream.prompt_tokens - PROBE_WORDS;
    /* What it was asked for and does not do is not asked for again. */
    if (status == BT_OK && stream.counted != BT_COUNTED_IDS) server->body.token_ids = false;
    bt_stream_finish(&stream);
    return status;
}
