#include "ops/cli/options.h"

#include "common/base/dtype.h"
#include "common/base/parse.h"
#include "kernels/linear/linear.h"
#include "ops/cli/command.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int bt_options_fail(const char *command, const char *fmt, ...)
{
    va_list args;
    char message[512], line[1024];
    va_start(args, fmt);
    vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    bt_escape(message, strlen(message), line, sizeof(line));
    fprintf(stderr, "baton %s: %s; `baton %s --help` tells the options\n", command, line, command);
    return BT_EXIT_USAGE;
}

static const bt_option *find(const bt_option *options, unsigned count, const char *text,
                             size_t bytes)
{
    for (unsigned i = 0; i < count; i++)
        if (strlen(options[i].name) == bytes && memcmp(options[i].name, text, bytes) == 0)
            return &options[i];
    return NULL;
}

static bool in_range(const bt_option *option, double number)
{
    return number >= option->min && number <= option->max;
}

static bool read_value(const bt_option *option, const char *text)
{
    double number;
    uint32_t word;
    bt_dtype dtype;
    bt_option_texts *texts;
    bt_option_choice *choice;
    switch (option->kind) {
    case BT_OPTION_FLAG: return false;
    case BT_OPTION_TEXT: *(const char **)option->value = text; return true;
    case BT_OPTION_TEXTS:
        texts = option->value;
        if (texts->count == BT_OPTION_TEXTS_MAX) return false;
        texts->items[texts->count++] = text;
        return true;
    case BT_OPTION_U32:
        if (bt_parse_u32(text, UINT32_MAX, &word, NULL) != BT_OK || !in_range(option, word))
            return false;
        *(uint32_t *)option->value = word;
        return true;
    case BT_OPTION_U64: return bt_parse_u64(text, option->value, NULL) == BT_OK;
    case BT_OPTION_FLOAT:
        if (bt_parse_double(text, &number, NULL) != BT_OK || !in_range(option, number))
            return false;
        *(float *)option->value = (float)number;
        return true;
    case BT_OPTION_DOUBLE:
        if (bt_parse_double(text, &number, NULL) != BT_OK || !in_range(option, number))
            return false;
        *(double *)option->value = number;
        return true;
    case BT_OPTION_DURATION: return bt_parse_duration_ns(text, option->value, NULL) == BT_OK;
    case BT_OPTION_KV:
        dtype = bt_dtype_find(text);
        if (dtype == BT_DTYPE_NONE || dtype == BT_DTYPE_F16) return false;
        *(bt_dtype *)option->value = dtype;
        return true;
    case BT_OPTION_COMPUTE:
        for (int compute = 0; compute < BT_COMPUTE_COUNT; compute++) {
            if (strcmp(text, bt_compute_names[compute]) != 0) continue;
            *(bt_compute *)option->value = (bt_compute)compute;
            return true;
        }
        return false;
    case BT_OPTION_CHOICE:
        choice = option->value;
        for (unsigned i = 0; choice->choices[i]; i++) {
            if (strcmp(text, choice->choices[i]) != 0) continue;
            choice->value = choice->choices[i];
            return true;
        }
        return false;
    }
    return false;
}

static void list_choices(const char *const *choices, char *ret_text, size_t capacity)
{
    size_t used = 0;
    for (unsigned i = 0; choices[i] && used < capacity; i++)
        used += (size_t)snprintf(ret_text + used, capacity - used, "%s%s", i > 0 ? ", " : "one of ",
                                 choices[i]);
}

/* What the option takes, for the message that refuses something else. */
static const char *wanted(const bt_option *option, char *ret_text, size_t capacity)
{
    switch (option->kind) {
    case BT_OPTION_FLAG:
    case BT_OPTION_TEXT: break;
    case BT_OPTION_TEXTS:
        snprintf(ret_text, capacity, "given %u times at most", BT_OPTION_TEXTS_MAX);
        break;
    case BT_OPTION_U32:
        snprintf(ret_text, capacity, "a whole number from %.0f to %.0f", option->min, option->max);
        break;
    case BT_OPTION_U64: snprintf(ret_text, capacity, "a whole number"); break;
    case BT_OPTION_FLOAT:
    case BT_OPTION_DOUBLE:
        snprintf(ret_text, capacity, "a number from %g to %g", option->min, option->max);
        break;
    case BT_OPTION_DURATION: snprintf(ret_text, capacity, "a time like 10s or 250ms"); break;
    case BT_OPTION_KV: snprintf(ret_text, capacity, "one of f32, bf16, fp8, int8"); break;
    case BT_OPTION_COMPUTE: snprintf(ret_text, capacity, "one of f32, bf16, int8"); break;
    case BT_OPTION_CHOICE:
        list_choices(((const bt_option_choice *)option->value)->choices, ret_text, capacity);
        break;
    }
    return ret_text;
}

static int refuse_value(const char *command, const bt_option *option, const char *value)
{
    char text[128] = "";
    return bt_options_fail(command, "%s is %s, not '%.64s'", option->name,
                           wanted(option, text, sizeof(text)), value);
}

int bt_options_parse(int argc, char **argv, const bt_option *options, unsigned count)
{
    const char *command = argv[0];
    for (int i = 1; i < argc; i++) {
        const char *equals = strchr(argv[i], '=');
        size_t bytes = equals ? (size_t)(equals - argv[i]) : strlen(argv[i]);
        const bt_option *option = find(options, count, argv[i], bytes);
        if (!option) return bt_options_fail(command, "unknown argument '%s'", argv[i]);
        if (option->kind == BT_OPTION_FLAG) {
            if (equals) return bt_options_fail(command, "%s takes no value", option->name);
            *(bool *)option->value = true;
            continue;
        }
        if (!equals && i + 1 >= argc)
            return bt_options_fail(command, "%s needs a value", option->name);
        const char *value = equals ? equals + 1 : argv[++i];
        if (!read_value(option, value)) return refuse_value(command, option, value);
    }
    return BT_EXIT_OK;
}
