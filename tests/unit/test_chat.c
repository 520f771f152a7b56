/* Chat templates of a model folder: which one is found, what it sees, the shape of the messages it
 * is given, and what is refused. */
#include "common/text/chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/baton-chat-XXXXXX";
static const char *const files[] = {"chat_template.jinja", "chat_template.json",
                                    "tokenizer_config.json", "special_tokens_map.json",
                                    "other.jinja"};

static const char *path_of(const char *name)
{
    static char path[128];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static void put(const char *name, const char *text)
{
    FILE *file = fopen(path_of(name), "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static int remove_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) unlink(path_of(files[i]));
    return 0;
}

static bt_chat_template *open_folder(void)
{
    bt_chat_template *chat;
    bt_err err;
    if (bt_chat_template_open(folder, &chat, &err) != BT_OK) fail_msg("%s", err.message);
    return chat;
}

static bt_status render(const char *request, bool continues, bt_template_output *output,
                        bt_err *err)
{
    bt_chat_template *chat = open_folder();
    assert_non_null(chat);
    json_error_t problem;
    json_t *json = json_loads(request, 0, &problem);
    if (json == NULL) fail_msg("%s: %s", request, problem.text);
    json_t *before = json_deep_copy(json);
    bt_chat_options options = {.continue_final_message = continues,
                               .variables = json_object_get(json, "kwargs")};
    bt_status status = bt_chat_render(chat, json_object_get(json, "messages"),
                                      json_object_get(json, "tools"), &options, output, err);
    assert_true(json_equal(json, before));
    json_decref(before);
    json_decref(json);
    bt_chat_template_close(chat);
    return status;
}

static void assert_renders(const char *request, const char *expected)
{
    bt_template_output output = {0};
    bt_err err;
    if (render(request, false, &output, &err) != BT_OK) fail_msg("%s: %s", request, err.message);
    assert_string_equal(output.text, expected);
    bt_template_output_finish(&output);
}

static void assert_refused(const char *request, const char *message)
{
    bt_template_output output = {0};
    bt_err err;
    assert_int_equal(render(request, false, &output, &err), BT_ERR_ARGUMENT);
    if (strstr(err.message, message) == NULL) fail_msg("%s: '%s'", request, err.message);
}

#define HI "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}"
#define HI_TOOLS "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}], \"tools\": [{}]}"

static void test_a_model_may_have_no_template(void **state)
{
    (void)state;
    assert_null(open_folder());
    put("tokenizer_config.json", "{\"bos_token\": \"<s>\", \"chat_template\": null}");
    assert_null(open_folder());
}

static void test_files_are_found_in_order(void **state)
{
    (void)state;
    put("tokenizer_config.json", "{\"chat_template\": \"config {{ bos_token }}\","
                                 " \"bos_token\": {\"content\": \"<s>\", \"lstrip\": false}}");
    assert_renders(HI, "config <s>");
    put("chat_template.json", "{\"chat_template\": \"json {{ bos_token }}\"}");
    assert_renders(HI, "json <s>");
    put("chat_template.jinja", "jinja {{ bos_token }}\n");
    assert_renders(HI, "jinja <s>");
}

static void test_lists_of_templates(void **state)
{
    (void)state;
    put("tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"default\", \"template\": \"plain\"}, {\"name\": \"rag\","
        " \"template\": \"{% nonsense\"}, {\"name\": \"tool_use\", \"template\": \"tools\"}]}");
    assert_renders(HI, "plain");
    assert_renders(HI_TOOLS, "tools");
    put("tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"tools\"}]}");
    assert_renders(HI_TOOLS, "tools");
    assert_refused(HI, "for requests with tools only");
}

static void test_the_context_is_hugging_faces(void **state)
{
    (void)state;
    put("special_tokens_map.json",
        "{\"bos_token\": \"<other>\", \"eos_token\": \"</s>\","
        " \"additional_special_tokens\": [\"<a>\", {\"content\": \"<b>\"}]}");
    put("tokenizer_config.json", "{\"bos_token\": \"<s>\", \"pad_token\": null}");
    put("chat_template.jinja",
        "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}{{ additional_special_tokens }}"
        "{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}{{ level }}");
    assert_renders(
        "{\"messages\": [{\"role\": \"user\", \"content\": \"\"}], \"kwargs\": {\"level\":"
        " \"high\"}}",
        "<s></s>False['<a>', '<b>']TrueTrueFalsehigh");
}

static void test_variables_that_are_not_the_requests(void **state)
{
    (void)state;
    put("chat_template.jinja", "x");
    static const char *const names[] = {"messages",
                                        "tools",
                                        "chat_template",
                                        "bos_token",
                                        "eos_token",
                                        "image_token",
                                        "strftime_now",
                                        "range",
                                        "raise_exception",
                                        "namespace",
                                        "tokenize",
                                        "dict",
                                        "add_generation_prompt"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char request[256];
        snprintf(request, sizeof(request),
                 "{\"messages\": [{\"role\": \"user\"}], \"kwargs\": {\"%s\": 1}}", names[i]);
        assert_refused(request, "chat_template_kwargs may not set");
    }
    assert_refused("{\"messages\": [{\"role\": \"user\"}], \"kwargs\": []}", "is not an object");
}

#define PARTS                                                                                      \
    "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"},"    \
    " {\"type\": \"text\", \"text\": \"b\"}]}]}"

static void test_parts_take_the_templates_shape(void **state)
{
    (void)state;
    put("chat_template.jinja", "{% for m in messages %}[{{ m.content }}]{% endfor %}");
    assert_renders(HI, "[hi]");
    assert_renders(PARTS, "[a\nb]");
    put("chat_template.jinja", "{% for m in messages %}{% for c in m['content'] %}[{{ c.text }}]"
                               "{% endfor %}{% endfor %}");
    assert_renders(HI, "[hi]");
    assert_renders(PARTS, "[a][b]");
    put("chat_template.jinja",
        "{% for m in messages %}{% if m.content is string %}<{{ m.content }}>{% else %}"
        "{% for c in m.content %}[{{ c.text }}]{% endfor %}{% endif %}{% endfor %}");
    assert_renders(HI, "<hi>");
    assert_renders(PARTS, "[a][b]");
    put("chat_template.jinja", "{% for m in messages %}{{ m.content is none }}{% endfor %}");
    assert_renders("{\"messages\": [{\"role\": \"assistant\", \"content\": null}]}", "True");
}

#define CALL                                                                                       \
    "{\"messages\": [{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"name\": \"f\","  \
    " \"arguments\": \"{\\\"a\\\": 1}\"}}]}]}"

static void test_arguments_take_the_templates_shape(void **state)
{
    (void)state;
    static const struct {
        const char *print, *expected;
    } cases[] = {{"{{ f.arguments|tojson }}", "{\"a\": 1}"},
                 {"{{ f.arguments.a }}", "1"},
                 {"{% for k, v in f.arguments.items() %}{{ k }}{{ v }}{% endfor %}", "a1"},
                 {"{% for k, v in f.arguments|items %}{{ k }}{{ v }}{% endfor %}", "a1"},
                 {"{{ '<' + f['arguments'] + '>' }}", "<{\"a\": 1}>"},
                 {"{{ f.arguments }}", "{\"a\": 1}"},
                 {"{{ f.arguments if f.arguments is string else f.arguments|tojson(indent=1) }}",
                  "{\n \"a\": 1\n}"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char source[256];
        snprintf(source, sizeof(source), "{%% set f = messages[0].tool_calls[0].function %%}%s",
                 cases[i].print);
        put("chat_template.jinja", source);
        assert_renders(CALL, cases[i].expected);
    }
}

static void test_messages_that_are_none(void **state)
{
    (void)state;
    put("chat_template.jinja",
        "{{ messages[0].tool_calls|tojson }}{{ raise_exception('never me') }}");
    assert_refused("{\"messages\": []}", "messages is not a list of at least one");
    assert_refused("{\"messages\": {}}", "messages is not a list");
    assert_refused("{}", "messages is not a list");
    assert_refused("{\"messages\": [1]}", "messages[0] is not an object");
    assert_refused("{\"messages\": [{\"content\": \"a\"}]}", "messages[0].role is not a string");
    assert_refused("{\"messages\": [{\"role\": \"user\", \"content\": 1}]}",
                   "messages[0].content is");
    assert_refused(
        "{\"messages\": [{\"role\": \"user\"}, {\"role\": \"user\", \"content\": [{\"type\":"
        " \"image_url\"}]}]}",
        "messages[1].content[0] is of type 'image_url'; only text");
    assert_refused("{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]}",
                   "messages[0].content[0].text is not a string");
    assert_refused("{\"messages\": [{\"role\": \"user\", \"content\": [{}]}]}", "has no type");
    assert_refused(
        "{\"messages\": [{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"name\":"
        " \"f\", \"arguments\": \"{\"}}]}]}",
        "messages[0].tool_calls[0].function.arguments is not JSON");
    assert_refused("{\"messages\": [{\"role\": \"assistant\", \"tool_calls\": [{}]}]}",
                   "has no name");
    assert_refused("{\"messages\": [{\"role\": \"user\"}], \"tools\": {}}", "tools is not a list");
    assert_refused(HI, "chat_template.jinja:1: Object of type Undefined is not JSON serializable");
}

static void assert_continues(const char *source, const char *content, const char *expected)
{
    char request[256];
    bt_template_output output = {0};
    bt_err err;
    put("chat_template.jinja", source);
    snprintf(request, sizeof(request),
             "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\","
             " \"content\": %s}]}",
             content);
    if (render(request, true, &output, &err) != BT_OK) fail_msg("%s", err.message);
    assert_string_equal(output.text, expected);
    assert_int_equal(output.bytes, strlen(expected));
    for (size_t i = 0; i < output.plain_count; i++)
        assert_true(output.plain[i].end <= output.bytes);
    bt_template_output_finish(&output);
}

static void test_the_last_message_goes_on(void **state)
{
    (void)state;
    const char *kept = "{% for m in messages %}<{{ m.content }}>{% endfor %}end";
    const char *stripped = "{% for m in messages %}<{{ m.content|trim }}>{% endfor %}end";
    const char *walked = "{% for m in messages %}{% for c in m.content %}<{{ c.text }}>{% endfor %}"
                         "{% endfor %}end";
    assert_continues(kept, "\"It is\"", "<q><It is");
    assert_continues(kept, "\"It is \"", "<q><It is ");
    assert_continues(stripped, "\"It is \"", "<q><It is");
    assert_continues(walked,
                     "[{\"type\": \"text\", \"text\": \"a\"}, {\"type\": \"text\", \"text\":"
                     " \"b\"}]",
                     "<q><a><b");
    bt_template_output output = {0};
    bt_err err;
    put("chat_template.jinja", "{{ messages[0].content }}");
    assert_int_equal(render("{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\":"
                            " \"assistant\", \"content\": \"a\"}]}",
                            true, &output, &err),
                     BT_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "does not print the message to continue"));
    bt_template_output_finish(&output);
}

static void test_files_that_are_wrong(void **state)
{
    (void)state;
    bt_chat_template *chat;
    bt_err err;
    put("tokenizer_config.json", "{\n\"chat_template\": }");
    assert_int_equal(bt_chat_template_open(folder, &chat, &err), BT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "tokenizer_config.json:2: "));
    put("tokenizer_config.json", "{\"chat_template\": 1}");
    assert_int_equal(bt_chat_template_open(folder, &chat, &err), BT_ERR_FORMAT);
    put("tokenizer_config.json", "{\"chat_template\": \"\\n{% if %}\"}");
    assert_int_equal(bt_chat_template_open(folder, &chat, &err), BT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "tokenizer_config.json:2: an expression is missing"));
    assert_int_equal(bt_chat_template_open_file(path_of("absent"), NULL, &chat, &err), BT_ERR_OS);
    assert_int_equal(bt_chat_template_open_file(folder, NULL, &chat, &err), BT_ERR_OS);
    assert_int_equal(symlink("chat_template.jinja", path_of("chat_template.jinja")), 0);
    assert_int_equal(bt_chat_template_open(folder, &chat, &err), BT_ERR_OS);
    assert_non_null(strstr(err.message, "symbolic links"));
    unlink(path_of("chat_template.jinja"));
    put("tokenizer_config.json", "{\"bos_token\": \"<s>\"}");
    put("other.jinja", "{{ bos_token }}");
    char path[128];
    snprintf(path, sizeof(path), "%s", path_of("other.jinja"));
    assert_int_equal(bt_chat_template_open_file(path, folder, &chat, &err), BT_OK);
    bt_chat_template_close(chat);
}

#define EACH(test) cmocka_unit_test_teardown(test, remove_files)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(test_a_model_may_have_no_template),
        EACH(test_files_are_found_in_order),
        EACH(test_lists_of_templates),
        EACH(test_the_context_is_hugging_faces),
        EACH(test_variables_that_are_not_the_requests),
        EACH(test_parts_take_the_templates_shape),
        EACH(test_arguments_take_the_templates_shape),
        EACH(test_messages_that_are_none),
        EACH(test_the_last_message_goes_on),
        EACH(test_files_that_are_wrong),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
