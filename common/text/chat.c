#include "common/text/chat.h"

#include "common/text/chat_detect.h"
#include "common/text/chat_input.h"
#include "common/text/json.h"
#include "common/text/template/native.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CONFIG_BYTES_MAX ((size_t)16 << 20) /* of tokenizer_config.json */
#define PATH_BYTES_MAX 4096u
#define VARIABLES_MAX 64u
#define VARIABLE_BYTES_MAX 64u

/* Put behind the message to continue, to find where it ends. */
#define TAIL "<<the message goes on from here>>"

typedef struct {
    bt_template *tpl; /* NULL: there is none of this kind */
    bt_chat_shape shape;
} variant;

struct bt_chat_template {
    variant plain, with_tools;
    json_t *special; /* bos_token, … */
};

/* Files. */

/* *ret_text is NULL if the file is not there. */
static bt_status read_file(const char *path, size_t most, char **ret_text, size_t *ret_bytes,
                           bt_err *err)
{
    struct stat about;
    *ret_text = NULL;
    bool known = stat(path, &about) == 0;
    if (!known && errno == ENOENT) return BT_OK;
    bool regular = known && S_ISREG(about.st_mode);
    FILE *file = regular ? fopen(path, "rb") : NULL;
    if (file == NULL)
        return BT_FAIL(err, BT_ERR_OS, "%s: cannot open: %s", bt_json_show(path).text,
                       known && !regular ? "it is no file" : strerror(errno));
    char *text = about.st_size >= 0 && (size_t)about.st_size <= most
                     ? malloc((size_t)about.st_size + 1)
                     : NULL;
    bt_status status = BT_OK;
    if (text == NULL)
        status =
            BT_FAIL(err, BT_ERR_LIMIT, "%s has more than %zu bytes", bt_json_show(path).text, most);
    else if (fread(text, 1, (size_t)about.st_size, file) != (size_t)about.st_size)
        status = BT_FAIL(err, BT_ERR_OS, "%s: cannot read", bt_json_show(path).text);
    fclose(file);
    if (status != BT_OK) {
        free(text);
        return status;
    }
    *ret_text = text;
    *ret_bytes = (size_t)about.st_size;
    return BT_OK;
}

static bt_status join_path(const char *folder, const char *name, char ret_path[PATH_BYTES_MAX],
                           bt_err *err)
{
    int bytes = snprintf(ret_path, PATH_BYTES_MAX, "%s/%s", folder, name);
    if (bytes > 0 && (size_t)bytes < PATH_BYTES_MAX) return BT_OK;
    return BT_FAIL(err, BT_ERR_LIMIT, "the path of %s is too long", name);
}

/* *ret_json is NULL if the file is not there. */
static bt_status read_json(const char *folder, const char *name, json_t **ret_json, bt_err *err)
{
    char path[PATH_BYTES_MAX], *text;
    size_t bytes;
    *ret_json = NULL;
    bt_status status = join_path(folder, name, path, err);
    if (status == BT_OK) status = read_file(path, CONFIG_BYTES_MAX, &text, &bytes, err);
    if (status != BT_OK || text == NULL) return status;
    json_error_t problem;
    json_t *json = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &problem);
    free(text);
    if (json == NULL)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s:%d: %.100s", name, problem.line, problem.text);
    if (json_is_object(json)) {
        *ret_json = json;
        return BT_OK;
    }
    json_decref(json);
    return BT_FAIL(err, BT_ERR_FORMAT, "%s is not an object", name);
}

/* Opening. */

static bt_status add_variant(const char *text, size_t bytes, const char *label, variant *into,
                             bt_err *err)
{
    bt_template_close(into->tpl);
    into->tpl = NULL;
    bt_status status = bt_template_parse(text, bytes, label, &into->tpl, err);
    if (status != BT_OK) return status;
    bt_chat_use content = bt_chat_detect(into->tpl, "content");
    bt_chat_use arguments = bt_chat_detect(into->tpl, "arguments");
    into->shape.lists = content.walks;
    into->shape.wrap = content.walks && !content.asks && !content.prints;
    into->shape.arguments =
        !arguments.prints || arguments.walks || arguments.asks || arguments.dumps;
    return BT_OK;
}

/* "chat_template" of a config: a text, or a list of {name, template}. */
static bt_status add_from_config(bt_chat_template *chat, const json_t *config, const char *file,
                                 bt_err *err)
{
    const json_t *found = bt_json_member(config, "chat_template");
    if (found == NULL) return BT_OK;
    if (json_is_string(found))
        return add_variant(json_string_value(found), json_string_length(found), file, &chat->plain,
                           err);
    if (!json_is_array(found))
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: chat_template is not a string or a list", file);
    for (size_t i = 0; i < json_array_size(found); i++) {
        const json_t *row = json_array_get(found, i), *text = json_object_get(row, "template");
        const char *name = json_string_value(json_object_get(row, "name"));
        if (name == NULL || !json_is_string(text))
            return BT_FAIL(err, BT_ERR_FORMAT, "%s: chat_template[%zu] has no name or template",
                           file, i);
        bool tools = strcmp(name, "tool_use") == 0;
        if (!tools && strcmp(name, "default") != 0) continue;
        bt_status status = add_variant(json_string_value(text), json_string_length(text), file,
                                       tools ? &chat->with_tools : &chat->plain, err);
        if (status != BT_OK) return status;
    }
    return BT_OK;
}

static const char *const special_names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                            "pad_token", "cls_token", "mask_token"};
#define SPECIAL_NAMES (sizeof(special_names) / sizeof(special_names[0]))

/* A special token is a text or {"content": text}. */
static const json_t *token_text(const json_t *token)
{
    if (json_is_object(token)) token = json_object_get(token, "content");
    return json_is_string(token) ? token : NULL;
}

static bt_status add_special(json_t *special, const json_t *config, bt_err *err)
{
    bool fine = true;
    for (size_t i = 0; i < SPECIAL_NAMES; i++) {
        const json_t *text = token_text(json_object_get(config, special_names[i]));
        if (text == NULL || json_object_get(special, special_names[i]) != NULL) continue;
        fine &= json_object_set(special, special_names[i], (json_t *)(uintptr_t)text) == 0;
    }
    const json_t *more = json_object_get(config, "additional_special_tokens");
    if (json_is_array(more) && json_object_get(special, "additional_special_tokens") == NULL) {
        json_t *list = json_array();
        for (size_t i = 0; i < json_array_size(more); i++) {
            const json_t *text = token_text(json_array_get(more, i));
            if (text != NULL) fine &= json_array_append(list, (json_t *)(uintptr_t)text) == 0;
        }
        fine &= json_object_set_new(special, "additional_special_tokens", list) == 0;
    }
    return fine ? BT_OK : BT_FAIL(err, BT_ERR_NO_MEMORY, "out of memory");
}

static bt_status add_template_file(bt_chat_template *chat, const char *path, const char *label,
                                   bool *ret_found, bt_err *err)
{
    char *text;
    size_t bytes;
    bt_status status = read_file(path, BT_TEMPLATE_BYTES_MAX, &text, &bytes, err);
    *ret_found = status == BT_OK && text != NULL;
    if (*ret_found) status = add_variant(text, bytes, label, &chat->plain, err);
    free(text);
    return status;
}

/* The folder's template, if wanted, and its special tokens. */
static bt_status read_folder(bt_chat_template *chat, const char *folder, bool with_template,
                             bt_err *err)
{
    char path[PATH_BYTES_MAX];
    json_t *config = NULL, *map = NULL, *other = NULL;
    bool found = !with_template;
    bt_status status = join_path(folder, "chat_template.jinja", path, err);
    if (status == BT_OK && !found)
        status = add_template_file(chat, path, "chat_template.jinja", &found, err);
    if (status == BT_OK && !found) status = read_json(folder, "chat_template.json", &other, err);
    if (other != NULL) status = add_from_config(chat, other, "chat_template.json", err);
    if (status == BT_OK) status = read_json(folder, "tokenizer_config.json", &config, err);
    if (status == BT_OK && !found && chat->plain.tpl == NULL && chat->with_tools.tpl == NULL)
        status = add_from_config(chat, config, "tokenizer_config.json", err);
    if (status == BT_OK) status = add_special(chat->special, config, err);
    if (status == BT_OK) status = read_json(folder, "special_tokens_map.json", &map, err);
    if (status == BT_OK) status = add_special(chat->special, map, err);
    json_decref(other);
    json_decref(config);
    json_decref(map);
    return status;
}

static bt_status open_chat(const char *path, const char *model_dir, bt_chat_template **ret_chat,
                           bt_err *err)
{
    bt_chat_template *chat = calloc(1, sizeof(*chat));
    if (chat == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "out of memory");
    chat->special = json_object();
    bool found = false;
    bt_status status =
        chat->special != NULL ? BT_OK : BT_FAIL(err, BT_ERR_NO_MEMORY, "out of memory");
    if (status == BT_OK && path != NULL) {
        status = add_template_file(chat, path, path, &found, err);
        if (status == BT_OK && !found)
            status = BT_FAIL(err, BT_ERR_OS, "%s: cannot open: %s", bt_json_show(path).text,
                             strerror(ENOENT));
    }
    if (status == BT_OK && model_dir != NULL)
        status = read_folder(chat, model_dir, path == NULL, err);
    bool usable = chat->plain.tpl != NULL || chat->with_tools.tpl != NULL;
    if (status != BT_OK || !usable) {
        bt_chat_template_close(chat);
        chat = NULL;
    }
    if (status == BT_OK) *ret_chat = chat;
    return status;
}

bt_status bt_chat_template_open(const char *model_dir, bt_chat_template **ret_chat, bt_err *err)
{
    return open_chat(NULL, model_dir, ret_chat, err);
}

bt_status bt_chat_template_open_file(const char *path, const char *model_dir,
                                     bt_chat_template **ret_chat, bt_err *err)
{
    return open_chat(path, model_dir, ret_chat, err);
}

void bt_chat_template_close(bt_chat_template *chat)
{
    if (chat == NULL) return;
    bt_template_close(chat->plain.tpl);
    bt_template_close(chat->with_tools.tpl);
    json_decref(chat->special);
    free(chat);
}

/* Rendering. */

static bool is_reserved(const bt_chat_template *chat, const char *name)
{
    static const char *const names[] = {"messages",
                                        "tools",
                                        "chat_template",
                                        "tokenize",
                                        "add_generation_prompt",
                                        "continue_final_message",
                                        "additional_special_tokens"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) == 0) return true;
    }
    /* bos_token and its like, whether this model has them or not. */
    size_t bytes = strlen(name), ending = strlen("_token");
    if (bytes >= ending && strcmp(name + bytes - ending, "_token") == 0) return true;
    return bt_tpl_function(name, strlen(name)) != NULL ||
           json_object_get(chat->special, name) != NULL;
}

static bt_status check_variables(const bt_chat_template *chat, const json_t *variables, bt_err *err)
{
    if (variables == NULL || json_is_null(variables)) return BT_OK;
    if (!json_is_object(variables))
        return BT_FAIL(err, BT_ERR_ARGUMENT, "chat_template_kwargs is not an object");
    if (json_object_size(variables) > VARIABLES_MAX)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "chat_template_kwargs has more than %u members",
                       VARIABLES_MAX);
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)variables, name, value)
    {
        if (strlen(name) > VARIABLE_BYTES_MAX || is_reserved(chat, name))
            return BT_FAIL(err, BT_ERR_ARGUMENT, "chat_template_kwargs may not set '%.64s'", name);
    }
    return BT_OK;
}

/* Cuts the output where the message to continue ends. A template that strips its messages has
 * stripped the tail's last blank too; then the blanks before it are not the model's to see. */
static bt_status cut_tail(bt_template_output *output, bt_err *err)
{
    char *at = NULL;
    for (char *from = output->text;
         (from = memmem(from, output->bytes - (size_t)(from - output->text), TAIL, strlen(TAIL))) !=
         NULL;
         from++)
        at = from;
    if (at == NULL)
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "the chat template does not print the message to continue");
    bool kept = at[strlen(TAIL)] == ' ';
    size_t bytes = (size_t)(at - output->text);
    while (!kept && bytes > 0 && strchr(" \t\n\r\v\f", output->text[bytes - 1]) != NULL) bytes--;
    output->bytes = bytes;
    output->text[bytes] = '\0';
    while (output->plain_count > 0 && output->plain[output->plain_count - 1].first >= bytes)
        output->plain_count--;
    if (output->plain_count > 0 && output->plain[output->plain_count - 1].end > bytes)
        output->plain[output->plain_count - 1].end = bytes;
    return BT_OK;
}

static const variant *choose(const bt_chat_template *chat, const json_t *tools)
{
    bool asked = tools != NULL && !json_is_null(tools);
    const variant *first = asked ? &chat->with_tools : &chat->plain;
    return first->tpl != NULL ? first : asked ? &chat->plain : NULL;
}

/* The two halves of the context. Hugging Face always passes tools and documents, as none if there
 * are none. Both are the caller's. */
static bool make_context(const bt_chat_template *chat, json_t *messages, const json_t *tools,
                         const bt_chat_options *options, json_t **ret_trusted, json_t **ret_input)
{
    json_t *trusted = json_copy(chat->special);
    json_t *input = options->variables != NULL ? json_copy((json_t *)(uintptr_t)options->variables)
                                               : json_object();
    *ret_trusted = trusted;
    *ret_input = input;
    return json_object_set_new(trusted, "add_generation_prompt",
                               json_boolean(options->add_generation_prompt)) == 0 &&
           json_object_set_new(trusted, "documents", json_null()) == 0 &&
           json_object_set(input, "messages", messages) == 0 &&
           json_object_set(input, "tools",
                           tools != NULL ? (json_t *)(uintptr_t)tools : json_null()) == 0;
}

static bt_status check(const bt_chat_template *chat, const json_t *tools,
                       const bt_chat_options *options, bt_err *err)
{
    if (tools != NULL && !json_is_null(tools) && !json_is_array(tools))
        return BT_FAIL(err, BT_ERR_ARGUMENT, "tools is not a list");
    if (choose(chat, tools) == NULL)
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "the model's chat template is for requests with tools only");
    if (options->add_generation_prompt && options->continue_final_message)
        return BT_FAIL(err, BT_ERR_ARGUMENT,
                       "continue_final_message and add_generation_prompt exclude each other");
    return check_variables(chat, options->variables, err);
}

bt_status bt_chat_render(const bt_chat_template *chat, const json_t *messages, const json_t *tools,
                         const bt_chat_options *options, bt_template_output *ret_output,
                         bt_err *err)
{
    bt_status status = check(chat, tools, options, err);
    if (status != BT_OK) return status;
    const variant *chosen = choose(chat, tools);
    json_t *shaped = NULL, *trusted = NULL, *input = NULL;
    status = bt_chat_messages(messages, &chosen->shape,
                              options->continue_final_message ? TAIL " " : NULL, &shaped, err);
    if (status == BT_OK && !make_context(chat, shaped, tools, options, &trusted, &input))
        status = BT_FAIL(err, BT_ERR_NO_MEMORY, "out of memory");
    if (status == BT_OK) {
        bt_template_context context = {.trusted = trusted, .input = input, .roles = true};
        status = bt_template_render(chosen->tpl, &context, options->limits, ret_output, err);
    }
    if (status == BT_OK && options->continue_final_message) status = cut_tail(ret_output, err);
    json_decref(shaped);
    json_decref(trusted);
    json_decref(input);
    return status;
}
