/* fuzz_template.c - any bytes as a template's source: refused with a reason, or rendered over a
 * fixed request within its limits to UTF-8, or ended with a reason. */
#include "common/base/utf8.h"
#include "common/text/template.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const char request[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"h\\u00e9 <|x|>\"}, {\"role\": "
    "\"assistant\","
    " \"content\": [{\"type\": \"text\", \"text\": \"b\"}], \"tool_calls\": [{\"function\": "
    "{\"name\":"
    " \"f\", \"arguments\": {\"a\": 1.5, \"b\": [null, true]}}}]}], \"tools\": [{\"k\": {}}],"
    " \"n\": -7, \"s\": \"a b\\nc\"}";

static void check(const bt_template_output *output)
{
    assert(bt_utf8_valid(output->text, output->bytes));
    size_t at = 0;
    for (size_t i = 0; i < output->plain_count; i++) {
        bt_text_range range = output->plain[i];
        assert(range.first < range.end && range.end <= output->bytes &&
               (i == 0 || range.first > at));
        at = range.end;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    bt_template *tpl;
    bt_err err;
    if (bt_template_parse((const char *)data, bytes, "fuzz", &tpl, &err) != BT_OK) {
        assert(err.message[0] != '\0');
        return 0;
    }
    bt_template_limits limits = {.steps = 20000,
                                 .depth = 50,
                                 .memory_bytes = (size_t)8 << 20,
                                 .output_bytes = (size_t)1 << 20,
                                 .string_bytes = (size_t)1 << 20,
                                 .list_items = 5000};
    json_t *input = json_loads(request, 0, NULL);
    bt_template_context context = {.input = input, .roles = true};
    bt_template_output output = {0};
    if (bt_template_render(tpl, &context, &limits, &output, &err) == BT_OK)
        check(&output);
    else
        assert(err.message[0] != '\0');
    assert(output.memory_bytes <= limits.memory_bytes && output.steps <= limits.steps);
    bt_template_output_finish(&output);
    bt_template_close(tpl);
    json_decref(input);
    return 0;
}
