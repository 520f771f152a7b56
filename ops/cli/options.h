/* options.h - the command line of a `baton` command as a table: every option is a row, everything
 * else is an error. "--name value" and "--name=value"; the last one given counts, but for
 * TEXTS.
 *
 * The kind says what value points to and how its text is read (common/base/parse.h): */
#ifndef BT_OPS_CLI_OPTIONS_H
#define BT_OPS_CLI_OPTIONS_H

#include <stdbool.h>

typedef enum {
    BT_OPTION_FLAG,     /* bool, set to true; takes no value */
    BT_OPTION_TEXT,     /* const char * into argv */
    BT_OPTION_TEXTS,    /* bt_option_texts: may be given more than once */
    BT_OPTION_U32,      /* uint32_t in [min, max] */
    BT_OPTION_U64,      /* uint64_t, any */
    BT_OPTION_FLOAT,    /* float in [min, max] */
    BT_OPTION_DOUBLE,   /* double in [min, max] */
    BT_OPTION_DURATION, /* uint64_t in ns: "10s", "250ms" */
    BT_OPTION_KV,       /* bt_dtype of a KV pool or the wire: f32, bf16, fp8, int8 */
    BT_OPTION_COMPUTE,  /* bt_compute: f32, bf16, int8 */
    BT_OPTION_CHOICE,   /* bt_option_choice */
} bt_option_kind;

#define BT_OPTION_TEXTS_MAX 64u

typedef struct {
    const char *items[BT_OPTION_TEXTS_MAX]; /* into argv, in their order */
    unsigned count;
} bt_option_texts;

typedef struct {
    const char *const *choices; /* ended by NULL */
    const char *value;          /* one of them, or what it was before */
} bt_option_choice;

typedef struct {
    const char *name; /* with its dashes */
    bt_option_kind kind;
    void *value;
    double min, max; /* of U32, FLOAT and DOUBLE */
} bt_option;

/* argv[0] is the command's name. Returns BT_EXIT_OK, or BT_EXIT_USAGE after one line on stderr. */
int bt_options_parse(int argc, char **argv, const bt_option *options, unsigned count);

/* One line on stderr, "baton COMMAND: message; … --help …". Returns BT_EXIT_USAGE. */
int bt_options_fail(const char *command, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
