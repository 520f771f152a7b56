/* template.h - a sandboxed Jinja: the text of a chat template and the values of one request to the
 * prompt, byte for byte as Python's jinja2 gives it with Hugging Face's settings.
 *
 * FLOW    parse once -> render from any thread, as often as wanted -> close
 * SUBSET  docs/chat-templates.md lists what is supported. What is not (include, import, extends,
 *         block, random, …) is refused by name: a template that is nearly right is worse than none.
 * MARKS   Strings of the input, and whatever is made of them, are marked through every operator,
 *         filter and method. The output names the bytes that came from them, so that a special
 *         token spelled out by a user stays text (bt_tokenizer_encode_marked).
 * TRUST   The template is the operator's, the input is hostile. A template sees the variables it is
 *         given and nothing else: no files, no environment, no objects of the host.
 * BOUNDS  Work is counted in steps (nodes evaluated, plus one for 64 bytes or 8 items moved),
 *         memory comes from one budget, recursion has a depth. At a bound the render ends with
 *         ERR_LIMIT, which names the line.
 * CLOCK   Only strftime_now reads one, and only if the template calls it. */
#ifndef BT_COMMON_TEXT_TEMPLATE_H
#define BT_COMMON_TEXT_TEMPLATE_H

#include "common/base/status.h"
#include "common/text/tokenizer.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BT_TEMPLATE_BYTES_MAX (1u << 20) /* of a template's source */

typedef struct bt_template bt_template;

/* 0 stands for the default. */
typedef struct {
    uint64_t steps;      /* 20 million, well under a second */
    uint32_t depth;      /* 200: macros, recursive loops and nested values; expressions: 4 times */
    size_t memory_bytes; /* 128 MiB of scratch, everything included */
    size_t output_bytes; /* 4 MiB */
    size_t string_bytes; /* 16 MiB: the longest string on the way */
    size_t list_items;   /* 100,000: the longest list on the way, and of range() */
} bt_template_limits;

/* The variables of a render, two JSON objects; each may be NULL. A name in both is the input's. */
typedef struct {
    const json_t *trusted; /* the operator's: strings are not marked */
    const json_t *input;   /* the request's: strings are marked */
    /* A member "role" of the input that is system, user, assistant, tool, developer or function is
     * not marked: templates put it inside special tokens. */
    bool roles;
} bt_template_context;

/* The caller's: zero it first, finish it last. render replaces what it held. */
typedef struct {
    char *text; /* bytes of UTF-8 and one NUL */
    size_t bytes;
    bt_text_range *plain; /* the bytes that came from the input; sorted, disjoint, not touching */
    size_t plain_count;
    uint64_t steps; /* what the render took of the limits, for tests of bounds */
    size_t memory_bytes;
} bt_template_output;

/* label names the template in errors: "chat_template.jinja". Errors: ERR_FORMAT (with the line),
 * ERR_LIMIT (source or nesting too large), ERR_NO_MEMORY. */
bt_status bt_template_parse(const char *text, size_t bytes, const char *label,
                            bt_template **ret_template, bt_err *err);
void bt_template_close(bt_template *tpl);

/* limits may be NULL. Errors, "label:line: why": ERR_ARGUMENT (the template raised an exception, or
 * did what Python does not allow, such as a field of an undefined variable), ERR_LIMIT,
 * ERR_NO_MEMORY. */
bt_status bt_template_render(const bt_template *tpl, const bt_template_context *context,
                             const bt_template_limits *limits, bt_template_output *ret_output,
                             bt_err *err);
void bt_template_output_finish(bt_template_output *output);

#endif
