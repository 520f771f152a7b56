/* render.c - `baton render`: a chat template and its variables to the prompt, as serving makes it. */
#include "common/text/chat.h"
#include "ops/cli/command.h"
#include "ops/cli/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INPUT_BYTES_MAX ((size_t)64 << 20)

typedef struct {
    const char *template_path, *model, *input;
    bool ranges;
} request;

static int fail(const char *message)
{
    fprintf(stderr, "baton render: %s\n", message);
    return BT_EXIT_FAILURE;
}

static int fail_at(const char *path, const char *message)
{
    fprintf(stderr, "baton render: %s: %s\n", path, message);
    return BT_EXIT_FAILURE;
}

/* The whole file, or stdin for "-"; *ret_text is the caller's. Returns an exit code. */
static int read_all(const char *path, size_t most, char **ret_text, size_t *ret_bytes)
{
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    if (file == NULL) return fail_at(path, strerror(errno));
    size_t bytes = 0, capacity = 65536;
    char *text = malloc(capacity);
    while (text != NULL) {
        bytes += fread(text + bytes, 1, capacity - bytes, file);
        if (bytes < capacity || bytes > most) break;
        char *grown = realloc(text, capacity *= 2);
        if (grown == NULL) free(text);
        text = grown;
    }
    bool broken = ferror(file) != 0;
    if (file != stdin) fclose(file);
    if (text == NULL) return fail("out of memory");
    if (broken || bytes > most) {
        free(text);
        return fail_at(path, broken ? "cannot be read" : "is too large");
    }
    *ret_text = text;
    *ret_bytes = bytes;
    return BT_EXIT_OK;
}

static int read_input(const char *path, json_t **ret_input)
{
    char *text;
    size_t bytes;
    int code = read_all(path, INPUT_BYTES_MAX, &text, &bytes);
    if (code != BT_EXIT_OK) return code;
    json_error_t problem;
    *ret_input = json_loadb(text, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &problem);
    free(text);
    if (*ret_input == NULL) {
        fprintf(stderr, "baton render: %s:%d:%d: %s\n", path, problem.line, problem.column,
                problem.text);
        return BT_EXIT_FAILURE;
    }
    if (json_is_object(*ret_input)) return BT_EXIT_OK;
    json_decref(*ret_input);
    return fail_at(path, "is not a JSON object");
}

/* The template alone: the members of the input are its variables, as they are. What a request
 * would bring is marked, the rest is the operator's. */
static int render_file(const request *asked, json_t *input, bt_template_output *output)
{
    static const char *const of_request[] = {"messages", "tools", "documents"};
    char *text;
    size_t bytes;
    int code = read_all(asked->template_path, BT_TEMPLATE_BYTES_MAX, &text, &bytes);
    if (code != BT_EXIT_OK) return code;
    bt_err err;
    bt_template *tpl = NULL;
    json_t *marked = json_object();
    for (size_t i = 0; i < sizeof(of_request) / sizeof(of_request[0]); i++) {
        json_object_set(marked, of_request[i], json_object_get(input, of_request[i]));
        json_object_del(input, of_request[i]);
    }
    bt_status status = bt_template_parse(text, bytes, asked->template_path, &tpl, &err);
    free(text);
    if (status == BT_OK) {
        bt_template_context context = {.trusted = input, .input = marked, .roles = true};
        status = bt_template_render(tpl, &context, NULL, output, &err);
    }
    bt_template_close(tpl);
    json_decref(marked);
    return status == BT_OK ? BT_EXIT_OK : fail(err.message);
}

/* Takes a flag out of the input. */
static int take_flag(json_t *input, const char *name, bool *ret_flag)
{
    const json_t *value = json_object_get(input, name);
    if (value != NULL && !json_is_boolean(value)) {
        fprintf(stderr, "baton render: %s is not true or false\n", name);
        return BT_EXIT_FAILURE;
    }
    *ret_flag = json_is_true(value);
    json_object_del(input, name);
    return BT_EXIT_OK;
}

/* As a chat request to a router that serves the model: the template of the folder, or the one
 * given, with the folder's special tokens. */
static int render_chat(const request *asked, json_t *input, bt_template_output *output)
{
    bt_err err;
    bt_chat_template *chat = NULL;
    bt_status status =
        asked->template_path != NULL
            ? bt_chat_template_open_file(asked->template_path, asked->model, &chat, &err)
            : bt_chat_template_open(asked->model, &chat, &err);
    if (status != BT_OK) return fail(err.message);
    if (chat == NULL) return fail_at(asked->model, "there is no chat template in this folder");
    bt_chat_options options = {0};
    int code = take_flag(input, "add_generation_prompt", &options.add_generation_prompt);
    if (code == BT_EXIT_OK)
        code = take_flag(input, "continue_final_message", &options.continue_final_message);
    json_t *messages = json_incref(json_object_get(input, "messages"));
    json_t *tools = json_incref(json_object_get(input, "tools"));
    json_object_del(input, "messages");
    json_object_del(input, "tools");
    options.variables = input;
    if (code == BT_EXIT_OK &&
        bt_chat_render(chat, messages, tools, &options, output, &err) != BT_OK)
        code = fail(err.message);
    json_decref(messages);
    json_decref(tools);
    bt_chat_template_close(chat);
    return code;
}

static void print_ranges(const bt_template_output *output)
{
    putchar('[');
    for (size_t i = 0; i < output->plain_count; i++)
        printf("%s[%zu,%zu]", i > 0 ? "," : "", output->plain[i].first, output->plain[i].end);
    puts("]");
}

static int render(const request *asked)
{
    json_t *input;
    int code = read_input(asked->input, &input);
    if (code != BT_EXIT_OK) return code;
    bt_template_output output = {0};
    code = asked->model != NULL ? render_chat(asked, input, &output)
                                : render_file(asked, input, &output);
    json_decref(input);
    if (code == BT_EXIT_OK && asked->ranges)
        print_ranges(&output);
    else if (code == BT_EXIT_OK)
        fwrite(output.text, 1, output.bytes, stdout);
    bt_template_output_finish(&output);
    if (fflush(stdout) != 0) return fail("cannot write to stdout");
    return code;
}

static int run_render(int argc, char **argv)
{
    request asked = {0};
    const bt_option table[] = {
        {.name = "--template", .kind = BT_OPTION_TEXT, .value = &asked.template_path},
        {.name = "--model", .kind = BT_OPTION_TEXT, .value = &asked.model},
        {.name = "--input", .kind = BT_OPTION_TEXT, .value = &asked.input},
        {.name = "--ranges", .kind = BT_OPTION_FLAG, .value = &asked.ranges},
    };
    int code = bt_options_parse(argc, argv, table, sizeof(table) / sizeof(table[0]));
    if (code != BT_EXIT_OK) return code;
    if (asked.template_path == NULL && asked.model == NULL)
        return bt_options_fail(argv[0], "--template FILE or --model DIR is missing");
    if (asked.input == NULL) return bt_options_fail(argv[0], "--input FILE is missing");
    if (asked.model != NULL && access(asked.model, R_OK) != 0)
        return fail_at(asked.model, strerror(errno));
    return render(&asked);
}

const bt_cli_command bt_cli_render = {
    .name = "render",
    .summary = "show the prompt that a chat template makes of messages",
    .help =
        "usage: baton render --template FILE --input FILE.json [--ranges]\n"
        "       baton render --model DIR [--template FILE] --input FILE.json [--ranges]\n\n"
        "Prints the prompt that a chat template makes of the messages of a JSON object:\n"
        "  {\"messages\": […], \"tools\": […], \"add_generation_prompt\": true, …}\n\n"
        "  --template FILE  the template alone: all members of the object are its variables,\n"
        "                   bos_token and the like among them\n"
        "  --model DIR      as a chat request to a router that serves this model: its template\n"
        "                   (or the one of --template) and its special tokens; what the object\n"
        "                   has beside messages, tools, add_generation_prompt and\n"
        "                   continue_final_message is what a request sends as\n"
        "                   chat_template_kwargs\n"
        "  --input FILE     the JSON object; - is stdin\n"
        "  --ranges         print the bytes of the prompt that came from the request instead, as\n"
        "                   [[first, end], …]: special tokens spelled out there stay text\n\n"
        "Exit codes: 0 done, 1 the template or the input is not usable (file and line are named),\n"
        "or the template refuses the messages, 2 wrong usage.\n\n"
        "Example: baton render --template docs/examples/chatml.jinja --input "
        "docs/examples/messages.json\n",
    .run = run_render,
};
