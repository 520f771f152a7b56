/* config.h - a daemon's configuration: one table of keys, from which come the parser, the checks,
 * --dump-config and the reference text.
 *
 * FLOW    defaults, then the file, then FILE.d/<name>.conf in the order of their names, then --set;
 *         later ones override. Within one file a key may stand once. See ini.h for the syntax.
 * ADD ONE A field in the daemon's struct and a row in its table:
 *
 *     static const bt_config_key keys[] = {
 *         {"listen", "port", BT_CONFIG_U32, BT_CONFIG_FIELD(router_config, port),
 *          .default_text = "8000", .max = 65535, .doc = "TCP port of the HTTP endpoint; 0: any."},
 *         ...
 *     };
 *
 * OWNER   The struct is plain data without pointers: it may be copied, compared and forgotten.
 * SECRETS Config holds paths of secrets, never secrets: BT_CONFIG_SECRET names a file, and
 *         bt_config_read_secret reads it. `${CREDENTIALS_DIRECTORY}` at the start of a PATH or
 *         SECRET is the directory where systemd put the service's credentials; nothing else is
 *         ever substituted.
 * BOUNDS  BT_CONFIG_FILE_BYTES_MAX a file, BT_CONFIG_DROPINS_MAX drop-ins, more is an error. */
#ifndef BT_COMMON_CONFIG_CONFIG_H
#define BT_COMMON_CONFIG_CONFIG_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define BT_CONFIG_FILE_BYTES_MAX (256u * 1024u)
#define BT_CONFIG_DROPINS_MAX 64u
#define BT_CONFIG_KEYS_MAX 128u
#define BT_CONFIG_CHOICES_MAX 8u
#define BT_CONFIG_PATH_BYTES_MAX 1024u

/* What a value is, and the type of its field. */
typedef enum {
    BT_CONFIG_STRING,   /* char[]: any text that fits */
    BT_CONFIG_PATH,     /* char[]: a file or folder */
    BT_CONFIG_SECRET,   /* char[]: a file with a secret */
    BT_CONFIG_U32,      /* uint32_t */
    BT_CONFIG_U64,      /* uint64_t */
    BT_CONFIG_BYTES,    /* uint64_t: 64MiB */
    BT_CONFIG_DURATION, /* uint64_t in ns: 10s */
    BT_CONFIG_DOUBLE,   /* double */
    BT_CONFIG_BOOL,     /* bool */
    BT_CONFIG_ENUM,     /* uint32_t: index into choices */
    BT_CONFIG_LIST,     /* bt_config_list: some of choices, in order of preference */
} bt_config_type;

/* Value of a LIST: `raw, fp8` is indices into the key's choices, each at most once. */
typedef struct {
    uint32_t count;
    uint32_t index[BT_CONFIG_CHOICES_MAX];
} bt_config_list;

typedef struct {
    const char *section;
    const char *name;
    bt_config_type type;
    size_t offset; /* of the field, and its size: BT_CONFIG_FIELD */
    size_t size;
    const char *default_text;      /* as it would stand in the file; NULL: the key is required */
    uint64_t min, max;             /* of U32 .. DURATION; max 0: as large as the type */
    double min_double, max_double; /* of DOUBLE; both 0: any */
    const char *const *choices;    /* of ENUM and LIST, NULL at the end */
    bool reloadable;               /* a running daemon may take a new value (SIGHUP) */
    const char *doc;               /* one sentence */
} bt_config_key;

#define BT_CONFIG_FIELD(type, field)                                                               \
    .offset = offsetof(type, field), .size = sizeof(((type *)0)->field)

typedef struct {
    const bt_config_key *keys;
    uint32_t key_count;
    size_t struct_bytes;
    /* What no single key can tell: relations between keys. May be NULL. The error names the keys.
     */
    bt_status (*check)(const void *config, bt_err *err);
} bt_config_table;

typedef struct {
    const char *file;        /* NULL: defaults and sets only */
    const char *const *sets; /* "section.key=value" */
    uint32_t set_count;
    const char *credentials_dir; /* $CREDENTIALS_DIRECTORY, or NULL */
} bt_config_source;

/* *ret_config is a struct of table->struct_bytes. Errors: ERR_ARGUMENT, ERR_FORMAT or ERR_LIMIT
 * with `file:line: reason` (or `--set section.key: reason`), ERR_OS. */
bt_status bt_config_load(const bt_config_table *table, const bt_config_source *source,
                         void *ret_config, bt_err *err);

/* The same from memory, as if text were the only file, called name. source->file is not read. */
bt_status bt_config_load_text(const bt_config_table *table, const bt_config_source *source,
                              const char *name, const char *text, size_t bytes, void *ret_config,
                              bt_err *err);

/* A running daemon has `present` and read `next`: OK if they differ in reloadable keys only.
 * Errors: ERR_ARGUMENT naming the key that needs a restart. */
bt_status bt_config_check_reload(const bt_config_table *table, const void *present,
                                 const void *next, bt_err *err);

/* A config file that says what config says, each key under its documentation. With config NULL it
 * is the reference: the defaults, required keys commented out. */
void bt_config_dump(const bt_config_table *table, const void *config, FILE *out);

/* Every key as a row of a Markdown table, a table for each section: name, kind, default, meaning. */
void bt_config_reference(const bt_config_table *table, FILE *out);

/* The value of one key as it would stand in a file, cut to capacity. Returns ret_text. */
const char *bt_config_value_text(const bt_config_key *key, const void *config, char *ret_text,
                                 size_t capacity);

/* The content of a file with a secret, without a newline at its end, and a NUL. Refused if others
 * than its owner and group may read it, if it is empty, or if it does not fit into capacity.
 * The caller wipes it. Errors: ERR_OS, ERR_LIMIT, ERR_ARGUMENT. */
bt_status bt_config_read_secret(const char *path, char *ret_secret, size_t capacity, bt_err *err);

#endif
