/* fuzz_api_body.c - any bytes as a body of the API, the endpoint by the first byte (c completions, m
 * chat, t tokenize, d detokenize): refused with a status and a message, or within every limit. */
#include "router/request.h"
#include "tests/unit/byte_tokenizer.h"

#include <assert.h>
#include <unistd.h>

#define VOCAB ID_COUNT
#define CONTEXT 256u
#define CHOICES 8u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Messages with their roles, tools and a variable: what the body decides about. */
static const char template[] =
    "{% for m in messages %}<s>{{ m.role }}{{ m['name'] }}:{% if m.content is string %}{{ "
    "m.content }}"
    "{% else %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}{% if m.tool_calls %}"
    "{{ m.tool_calls | tojson }}{% endif %}</s>{% endfor %}{% if tools %}{{ tools | tojson }}{% "
    "endif %}"
    "{{ extra }}{% if add_generation_prompt %}<s>assistant:{% endif %}";

static bt_chat_template *open_template(void)
{
    char path[] = "/tmp/baton-fuzz-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, template, strlen(template)) != (ssize_t)strlen(template)) abort();
    close(fd);
    bt_chat_template *chat = NULL;
    bt_err err;
    if (bt_chat_template_open_file(path, NULL, &chat, &err) != BT_OK) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    unlink(path);
    return chat;
}

static void check_error(const bt_api_error *error)
{
    assert(error->http_status == 400 || error->http_status == 404 || error->http_status == 503);
    assert(error->message[0] != '\0' && error->type != NULL);
    assert(memchr(error->param, '\0', sizeof(error->param)) != NULL);
}

static void check_request(bt_api_request *request)
{
    assert(request->prompt_count >= 1 && request->prompt_count <= BT_PROMPTS_MAX);
    assert(request->n >= 1 && request->prompt_count * request->n <= CHOICES);
    uint32_t output = request->max_tokens > 0 ? request->max_tokens : 1;
    assert(request->max_tokens >= 1 || request->echo);
    assert(request->sampling.min_tokens <= request->max_tokens);
    assert(bt_sampling_fault(&request->sampling, VOCAB) == NULL);
    assert(request->stop.count <= BT_STOP_STRINGS_MAX && !request->stop.matched);
    for (uint32_t i = 0; i < request->prompt_count; i++) {
        const bt_request_prompt *prompt = &request->prompts[i];
        assert(prompt->token_count >= 1 && prompt->token_count + output <= CONTEXT);
        for (uint32_t t = 0; t < prompt->token_count; t++) {
            assert(prompt->tokens[t] < VOCAB);
            assert(prompt->entries == NULL || prompt->entries[t].offset <= prompt->echo_bytes);
        }
    }
    bt_api_request_finish(request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static bt_request_context context = {
        .model = "m", .vocab = VOCAB, .context_tokens_max = CONTEXT, .choices_max = CHOICES};
    if (context.tokenizer == NULL) {
        context.tokenizer = byte_tokenizer();
        context.chat = open_template();
    }
    if (bytes == 0) return 0;
    const char *body = (const char *)data + 1;
    bt_api_error error;
    bt_api_request request;
    bt_tokenize_request tokens;
    char *text;
    size_t text_bytes;
    bool ok;
    switch (data[0]) {
    case 'c':
    case 'm':
        ok = (data[0] == 'c' ? bt_completion_parse : bt_chat_parse)(&context, body, bytes - 1,
                                                                    &request, &error);
        if (ok) check_request(&request);
        break;
    case 't':
        ok = bt_tokenize_parse(&context, body, bytes - 1, &tokens, &error);
        if (ok) free(tokens.tokens);
        break;
    case 'd':
        ok = bt_detokenize_parse(&context, body, bytes - 1, &text, &text_bytes, &error);
        if (ok) free(text);
        break;
    default: return 0;
    }
    if (!ok) check_error(&error);
    return 0;
}
