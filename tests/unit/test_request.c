/* What a client may ask for must be what a daemon takes: a request that parses becomes a Prefill that encodes. */
#include "proto/codec.h"
#include "router/request.h"
#include "router/request/fields.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* After the above: cmocka.h needs them. */
#include <cmocka.h>

static const bt_request_context context = {
    .model = "m", .vocab = 512, .context_tokens_max = BT_CONTEXT_TOKENS_MAX, .choices_max = 32};

static bool parse(const char *fields, bt_api_request *ret_request)
{
    char body[512];
    int bytes = snprintf(body, sizeof(body), "{\"model\": \"m\", \"prompt\": [1, 2, 3]%s%s}",
                         fields[0] != '\0' ? ", " : "", fields);
    bt_api_error error;
    bool ok = bt_completion_parse(&context, body, (size_t)bytes, ret_request, &error);
    if (!ok) print_message("%s: %s\n", fields, error.message);
    return ok;
}

static void extremes_encode(void **state)
{
    (void)state;
    static const char *const fields[] = {
        "",
        "\"top_k\": -1",
        "\"top_k\": 511",
        "\"top_k\": 512",
        "\"top_k\": 2000000",
        "\"top_k\": 2147483647",
        "\"top_p\": 0",
        "\"top_p\": 1e-45",
        "\"top_p\": 1e-300",
        "\"top_p\": 1",
        "\"temperature\": 1e-300",
        "\"temperature\": 2",
        "\"seed\": -9223372036854775808",
        "\"min_p\": 1",
        "\"presence_penalty\": -2, \"frequency_penalty\": 2",
        "\"repetition_penalty\": 0.01",
        "\"repetition_penalty\": 100",
        "\"logit_bias\": {\"511\": -100, \"0\": 100}",
        "\"stop_token_ids\": [0, 511], \"min_tokens\": 16, \"logprobs\": 20",
        "\"max_tokens\": 131069",
    };
    static uint8_t buffer[BT_CODEC_BYTES_MAX];
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        bt_api_request request;
        assert_true(parse(fields[i], &request));
        bt_msg msg = {.kind = BT_MSG_PREFILL,
                      .fence = {.attempt = 1, .p_incarnation = 1, .d_incarnation = 1}};
        msg.prefill.tokens = request.prompts[0].tokens;
        msg.prefill.token_count = request.prompts[0].token_count;
        msg.prefill.max_tokens = request.max_tokens;
        msg.prefill.sampling = request.sampling;
        size_t bytes;
        bt_err err = {0};
        bt_status status = bt_codec_encode(&msg, buffer, sizeof(buffer), &bytes, &err);
        if (status != BT_OK) fail_msg("%s: %s", fields[i], err.message);
        bt_api_request_finish(&request);
    }
}

static void no_limit_is_no_top_k(void **state)
{
    (void)state;
    static const struct {
        const char *fields;
        uint32_t top_k;
    } cases[] = {{"\"top_k\": 0", 0},
                 {"\"top_k\": 1", 1},
                 {"\"top_k\": 511", 511},
                 {"\"top_k\": 512", 0},
                 {"\"top_k\": 2147483647", 0}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bt_api_request request;
        assert_true(parse(cases[i].fields, &request));
        assert_int_equal(request.sampling.top_k, cases[i].top_k);
        bt_api_request_finish(&request);
    }
}

/* The error of a body that must be refused. */
static bt_api_error refused(const char *body, size_t bytes)
{
    bt_api_request request;
    bt_api_error error;
    assert_false(bt_completion_parse(&context, body, bytes, &request, &error));
    assert_int_equal(error.http_status, 400);
    return error;
}

/* {"model": "m", "prompt": [1], "x": OPEN…CLOSE…} with so many of each. */
static size_t nested(char *body, size_t count, bool flat)
{
    size_t used = (size_t)sprintf(body, "{\"model\": \"m\", \"prompt\": [1], \"x\": [");
    for (size_t i = 0; i < count; i++)
        used += (size_t)sprintf(body + used, flat ? (i > 0 ? ",[]" : "[]") : "[");
    for (size_t i = 0; i < count && !flat; i++) body[used++] = ']';
    body[used++] = ']';
    body[used++] = '}';
    return used;
}

static void bodies_are_bounded_before_they_are_parsed(void **state)
{
    (void)state;
    static char body[1 << 20];
    bt_api_request request;
    bt_api_error error;
    size_t bytes = nested(body, BT_BODY_DEPTH_MAX - 2, false); /* beside "{" and the list of x */
    assert_true(bt_completion_parse(&context, body, bytes, &request, &error));
    bt_api_request_finish(&request);
    bytes = nested(body, BT_BODY_DEPTH_MAX - 1, false);
    assert_non_null(strstr(refused(body, bytes).message, "deeper than 64"));
    bytes = nested(body, BT_BODY_CONTAINERS_MAX - 3, true);
    assert_true(bt_completion_parse(&context, body, bytes, &request, &error));
    bt_api_request_finish(&request);
    bytes = nested(body, BT_BODY_CONTAINERS_MAX - 2, true);
    assert_non_null(strstr(refused(body, bytes).message, "more than 65536"));
    /* Brackets in texts are none, however quotes are escaped. */
    bytes = (size_t)sprintf(body, "{\"model\": \"m\", \"prompt\": [1], \"x\": \"\\\\\\\"");
    for (int i = 0; i < 70000; i++) body[bytes++] = '[';
    bytes += (size_t)sprintf(body + bytes, "\"}");
    assert_true(bt_completion_parse(&context, body, bytes, &request, &error));
    bt_api_request_finish(&request);
}

/* A template that parses arguments and then refuses; opened once. */
static bt_chat_template *refusing_template(void)
{
    static bt_chat_template *chat;
    if (chat != NULL) return chat;
    char path[] = "/tmp/baton-request-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    static const char text[] = "{% for m in messages %}{% for c in m.tool_calls %}"
                               "{{ c.function.arguments.x }}{% endfor %}{% endfor %}"
                               "{{ raise_exception('rendered') }}";
    assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
    close(fd);
    bt_err err;
    bt_status status = bt_chat_template_open_file(path, NULL, &chat, &err);
    unlink(path);
    if (status != BT_OK) fail_msg("%s", err.message);
    return chat;
}

/* A chat whose `calls` tool calls have arguments of so many lists each; side by side or in each other. */
static bt_api_error calling(uint32_t calls, uint32_t lists, bool flat)
{
    static char body[1 << 20];
    size_t used = (size_t)sprintf(body, "{\"model\": \"m\", \"messages\": [{\"role\": "
                                        "\"assistant\", \"tool_calls\": [");
    for (uint32_t i = 0; i < calls; i++) {
        used += (size_t)sprintf(body + used,
                                "%s{\"id\": \"c\", \"type\": \"function\", \"function\": "
                                "{\"name\": \"f\", \"arguments\": \"[1",
                                i > 0 ? ", " : "");
        for (uint32_t k = 1; k < lists; k++)
            used += (size_t)sprintf(body + used, flat ? ", []" : ", [1");
        for (uint32_t k = 1; k < lists && !flat; k++) body[used++] = ']';
        used += (size_t)sprintf(body + used, "]\"}}");
    }
    used += (size_t)sprintf(body + used, "]}]}");
    const bt_request_context with_template = {.model = "m",
                                              .vocab = 512,
                                              .context_tokens_max = 64,
                                              .choices_max = 32,
                                              .chat = refusing_template()};
    bt_api_request request;
    bt_api_error error;
    assert_false(bt_chat_parse(&with_template, body, used, &request, &error));
    assert_int_equal(error.http_status, 400);
    return error;
}

static void arguments_are_bounded_before_they_are_parsed(void **state)
{
    (void)state;
    static const char *const path = "messages[0].tool_calls[0].function.arguments";
    assert_non_null(strstr(calling(1, BT_BODY_DEPTH_MAX, false).message, "rendered"));
    bt_api_error error = calling(1, BT_BODY_DEPTH_MAX + 1, false);
    assert_string_equal(error.param, path);
    assert_non_null(strstr(error.message, "deeper than 64"));
    assert_non_null(strstr(calling(2, BT_BODY_CONTAINERS_MAX / 2, true).message, "rendered"));
    /* All of a request together. */
    error = calling(2, BT_BODY_CONTAINERS_MAX / 2 + 1, true);
    assert_string_equal(error.param, "messages[0].tool_calls[1].function.arguments");
    assert_non_null(strstr(error.message, "more than 65536"));
    bt_chat_template_close(refusing_template());
}

static void biases_are_sorted_and_once(void **state)
{
    (void)state;
    bt_api_request request;
    assert_true(
        parse("\"logit_bias\": {\"500\": 1.5, \"7\": -100, \"0\": 100, \"68\": 0}", &request));
    const bt_logit_bias expected[] = {{0, 100}, {7, -100}, {68, 0}, {500, 1.5f}};
    assert_int_equal(request.sampling.bias_count, 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(request.sampling.bias[i].id, expected[i].id);
        assert_true(request.sampling.bias[i].bias == expected[i].bias);
    }
    assert_null(bt_sampling_fault(&request.sampling, context.vocab));
    bt_api_request_finish(&request);
    assert_false(parse("\"logit_bias\": {\"7\": 1, \"07\": 2}", &request));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(extremes_encode),
        cmocka_unit_test(no_limit_is_no_top_k),
        cmocka_unit_test(bodies_are_bounded_before_they_are_parsed),
        cmocka_unit_test(arguments_are_bounded_before_they_are_parsed),
        cmocka_unit_test(biases_are_sorted_and_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
