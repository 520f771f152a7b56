/* fuzz_template_input.c - any JSON as the messages, tools and variables of a request, rendered by
 * templates that look at every part of it. */
#include "common/base/utf8.h"
#include "common/text/chat.h"
#include "common/text/chat_input.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const char *const sources[] = {
    "{% for m in messages %}<|{{ m.role }}|>{{ m['content']|trim }}{% for c in m.tool_calls %}"
    "{{ c.function.name }}{{ c|tojson(indent=2) }}{% endfor %}{% endfor %}{{ tools|tojson }}",
    "{% for m in messages|sort(attribute='role') %}{% for p in m.content %}{{ p.text|title|indent "
    "}}"
    "{{ p|string|replace('a', '<s>')|upper }}{% endfor %}{{ loop.nextitem }}{% endfor %}"
    "{{ messages|groupby('role')|list }}{{ x }}{{ messages == tools }}{{ tools|map('length')|list "
    "}}",
    "{{ messages }}{{ tools }}{{ messages[0].content.split()|join('-') }}{{ messages[::-1] }}"
    "{{ x|dictsort if x is mapping else x|string|wordcount }}{{ '%s %r' % (x, x) }}{{ x ~ x }}",
};

static void render(const char *source, const json_t *input)
{
    bt_template *tpl;
    bt_err err;
    bt_status status = bt_template_parse(source, strlen(source), "fuzz", &tpl, &err);
    assert(status == BT_OK);
    bt_template_limits limits = {.steps = 100000, .memory_bytes = (size_t)16 << 20};
    bt_template_context context = {.input = input, .roles = true};
    bt_template_output output = {0};
    if (bt_template_render(tpl, &context, &limits, &output, &err) == BT_OK)
        assert(bt_utf8_valid(output.text, output.bytes));
    else
        assert(err.message[0] != '\0');
    bt_template_output_finish(&output);
    bt_template_close(tpl);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    json_t *input = json_loadb((const char *)data, bytes, JSON_ALLOW_NUL, NULL);
    if (!json_is_object(input)) {
        json_decref(input);
        return 0;
    }
    for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) render(sources[i], input);
    for (unsigned bits = 0; bits < 16; bits++) {
        bt_chat_shape shape = {.lists = bits & 1, .wrap = bits & 2, .arguments = bits & 4};
        json_t *shaped;
        bt_err err;
        if (bt_chat_messages(json_object_get(input, "messages"), &shape,
                             (bits & 8) != 0 ? "tail" : NULL, &shaped, &err) == BT_OK)
            json_decref(shaped);
    }
    json_decref(input);
    return 0;
}
