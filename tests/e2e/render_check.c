/* render_check.c - renders many templates for the Python tests. Each line of stdin is a JSON object
 * {"template": text, "input": object, "trusted": object}; each answer is a line
 * {"text": …, "plain": [[first, end], …]} or {"error": …, "status": name}. */
#include "common/text/template.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static json_t *answer(const json_t *asked)
{
    const json_t *source = json_object_get(asked, "template");
    bt_template_context context = {.trusted = json_object_get(asked, "trusted"),
                                   .input = json_object_get(asked, "input")};
    bt_template_output output = {0};
    bt_template *tpl = NULL;
    bt_err err;
    bt_status status = bt_template_parse(json_string_value(source), json_string_length(source),
                                         "test", &tpl, &err);
    if (status == BT_OK) status = bt_template_render(tpl, &context, NULL, &output, &err);
    bt_template_close(tpl);
    if (status != BT_OK)
        return json_pack("{s:s, s:s}", "status", bt_status_name(status), "error", err.message);
    json_t *plain = json_array();
    for (size_t i = 0; i < output.plain_count; i++)
        json_array_append_new(plain, json_pack("[II]", (json_int_t)output.plain[i].first,
                                               (json_int_t)output.plain[i].end));
    json_t *made =
        json_pack("{s:o, s:o}", "text", json_stringn(output.text, output.bytes), "plain", plain);
    bt_template_output_finish(&output);
    return made;
}

int main(void)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t bytes;
    while ((bytes = getline(&line, &room, stdin)) > 0) {
        json_error_t problem;
        json_t *asked = json_loadb(line, (size_t)bytes, JSON_ALLOW_NUL, &problem);
        json_t *made = asked != NULL
                           ? answer(asked)
                           : json_pack("{s:s, s:s}", "status", "JSON", "error", problem.text);
        if (made == NULL) made = json_pack("{s:s, s:s}", "status", "?", "error", "not UTF-8");
        json_dumpf(made, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(made);
        json_decref(asked);
    }
    free(line);
    return 0;
}
