/* What a client may ask for must be what a daemon takes: a request that parses becomes a Prefill that encodes. */
#include "proto/codec.h"
#include "router/request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(extremes_encode),
        cmocka_unit_test(no_limit_is_no_top_k),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
