#include "common/config/config.h"
#include "common/base/parse.h"
#include "common/config/ini.h"
#include "common/config/value.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PLACE_BYTES 100u /* "file:line" in messages; a longer path loses its start */

/* One load: where it stands and what it has seen. */
typedef struct {
    const bt_config_table *table;
    const char *credentials_dir;
    void *config;
    bool known[BT_CONFIG_KEYS_MAX];    /* set by any source so far */
    uint32_t line[BT_CONFIG_KEYS_MAX]; /* of the file at hand; 0: not in it */
} loader;

/* The reason behind `place: `; err and reason may be the same object's outcome of a callee. */
static bt_status fail_at(const char *place, uint32_t line, const bt_err *reason, bt_err *err)
{
    char where[PLACE_BYTES], number[16] = "";
    if (line > 0) snprintf(number, sizeof(number), ":%u", line);
    size_t bytes = strlen(place), room = sizeof(where) - 1 - strlen(number);
    bool cut = bytes > room;
    if (cut) place += bytes - (room - 3);
    snprintf(where, sizeof(where), "%s%s%s", cut ? "..." : "", place, number);
    return BT_FAIL(err, reason->status, "%s: %s", where, reason->message);
}

/* The row of [section] name. Errors: ERR_ARGUMENT with the reason only. */
static bt_status find_key(const bt_config_table *table, const char *section, const char *name,
                          uint32_t *ret_index, bt_err *err)
{
    bool section_known = false;
    for (uint32_t i = 0; i < table->key_count; i++) {
        if (strcmp(table->keys[i].section, section) != 0) continue;
        section_known = true;
        if (strcmp(table->keys[i].name, name) != 0) continue;
        *ret_index = i;
        return BT_OK;
    }
    if (!section_known) return BT_FAIL(err, BT_ERR_ARGUMENT, "unknown section [%.40s]", section);
    return BT_FAIL(err, BT_ERR_ARGUMENT, "unknown key '%.40s' in [%.40s]", name, section);
}

static bt_status apply_entry(loader *load, const bt_ini *ini, const bt_ini_entry *entry,
                             bt_err *err)
{
    uint32_t index = 0;
    bt_status status = find_key(load->table, entry->section, entry->key, &index, err);
    if (status != BT_OK) return status;
    if (load->line[index] != 0)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "'%s' is already set in line %u", entry->key,
                       load->line[index]);
    load->line[index] = ini->line;
    load->known[index] = true;
    const bt_config_key *key = &load->table->keys[index];
    bt_err reason;
    status = bt_config_value_set(key, entry->value, load->credentials_dir, load->config, &reason);
    if (status != BT_OK)
        return BT_FAIL(err, status, "%s.%s: %s", key->section, key->name, reason.message);
    return BT_OK;
}

/* text[bytes] is writable. place names it in messages. */
static bt_status apply_text(loader *load, const char *place, char *text, size_t bytes, bt_err *err)
{
    memset(load->line, 0, sizeof(load->line));
    bt_ini ini;
    bt_ini_init(&ini, text, bytes);
    for (;;) {
        bt_ini_entry entry;
        bt_err reason;
        bt_status status = bt_ini_next(&ini, &entry, &reason);
        if (status == BT_OK && entry.key == NULL) return BT_OK;
        if (status == BT_OK) status = apply_entry(load, &ini, &entry, &reason);
        if (status != BT_OK) return fail_at(place, ini.line, &reason, err);
    }
}

/* Reads all of fd, at most capacity - 1 bytes. */
static bt_status read_all(int fd, char *buffer, size_t capacity, size_t *ret_bytes, bt_err *err)
{
    size_t used = 0;
    for (;;) {
        ssize_t bytes = read(fd, buffer + used, capacity - used);
        if (bytes < 0 && errno == EINTR) continue;
        if (bytes < 0) return BT_FAIL(err, BT_ERR_OS, "%s", strerror(errno));
        if (bytes == 0) break;
        used += (size_t)bytes;
        if (used == capacity)
            return BT_FAIL(err, BT_ERR_LIMIT, "larger than %zu bytes", capacity - 1);
    }
    *ret_bytes = used;
    return BT_OK;
}

static bt_status apply_file(loader *load, const char *path, bt_err *err)
{
    bt_err reason;
    char *text = malloc(BT_CONFIG_FILE_BYTES_MAX + 1);
    if (text == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory to read %.100s", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    size_t bytes = 0;
    bt_status status;
    if (fd < 0) {
        status = BT_FAIL(&reason, BT_ERR_OS, "%s", strerror(errno));
    } else {
        status = read_all(fd, text, BT_CONFIG_FILE_BYTES_MAX + 1, &bytes, &reason);
        close(fd);
    }
    status =
        status != BT_OK ? fail_at(path, 0, &reason, err) : apply_text(load, path, text, bytes, err);
    free(text);
    return status;
}

static int is_dropin(const struct dirent *entry)
{
    size_t bytes = strlen(entry->d_name);
    return entry->d_name[0] != '.' && bytes > 5 && strcmp(entry->d_name + bytes - 5, ".conf") == 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name,
                  (*b)->d_name); /* not by locale: the order is part of the contract */
}

/* FILE.d/<name>.conf in the order of their names; no folder is no drop-in. */
static bt_status apply_dropins(loader *load, const char *file, bt_err *err)
{
    char folder[BT_CONFIG_PATH_BYTES_MAX], path[BT_CONFIG_PATH_BYTES_MAX];
    if (snprintf(folder, sizeof(folder), "%s.d", file) >= (int)sizeof(folder))
        return BT_FAIL(err, BT_ERR_LIMIT, "the path of the config file is too long");
    struct dirent **entries;
    int count = scandir(folder, &entries, is_dropin, by_name);
    if (count < 0) {
        if (errno == ENOENT || errno == ENOTDIR) return BT_OK;
        return BT_FAIL(err, BT_ERR_OS, "%.100s: %s", folder, strerror(errno));
    }
    bt_status status = BT_OK;
    if ((unsigned)count > BT_CONFIG_DROPINS_MAX)
        status = BT_FAIL(err, BT_ERR_LIMIT, "%.100s: more than %u drop-ins", folder,
                         BT_CONFIG_DROPINS_MAX);
    for (int i = 0; i < count; i++) {
        if (status == BT_OK) {
            int bytes = snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
            status = bytes < (int)sizeof(path)
                         ? apply_file(load, path, err)
                         : BT_FAIL(err, BT_ERR_LIMIT, "%.100s: a path is too long", folder);
        }
        free(entries[i]);
    }
    free(entries);
    return status;
}

/* `section.key=value` becomes the two lines that a file would have, so that it is held to the same
 * rules. */
static bt_status apply_set(loader *load, const char *set, bt_err *err)
{
    char text[BT_INI_LINE_BYTES_MAX], place[64], quoted[48];
    const char *equals = strchr(set, '=');
    const char *dot = equals != NULL ? memchr(set, '.', (size_t)(equals - set)) : NULL;
    bt_escape(set, equals != NULL ? (size_t)(equals - set) : strlen(set), quoted, sizeof(quoted));
    if (dot == NULL || strpbrk(set, "\r\n") != NULL)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "--set %s: write section.key=value", quoted);
    snprintf(place, sizeof(place), "--set %s", quoted);
    int bytes = snprintf(text, sizeof(text), "[%.*s]\n%s", (int)(dot - set), set, dot + 1);
    if (bytes < 0 || (size_t)bytes >= sizeof(text))
        return BT_FAIL(err, BT_ERR_LIMIT, "%s: longer than %u bytes", place, BT_INI_LINE_BYTES_MAX);
    memset(load->line, 0, sizeof(load->line));
    bt_ini ini;
    bt_ini_init(&ini, text, (size_t)bytes);
    bt_ini_entry entry;
    bt_err reason;
    bt_status status = bt_ini_next(&ini, &entry, &reason);
    if (status == BT_OK && entry.key == NULL)
        return BT_FAIL(err, BT_ERR_ARGUMENT, "%s: write section.key=value", place);
    if (status == BT_OK) status = apply_entry(load, &ini, &entry, &reason);
    return status == BT_OK ? BT_OK : fail_at(place, 0, &reason, err);
}

static void apply_defaults(loader *load)
{
    const bt_config_table *table = load->table;
    assert(table->key_count <= BT_CONFIG_KEYS_MAX);
    memset(load->config, 0, table->struct_bytes);
    for (uint32_t i = 0; i < table->key_count; i++) {
        const bt_config_key *key = &table->keys[i];
        assert(key->doc != NULL && key->offset + key->size <= table->struct_bytes);
        if (key->default_text == NULL) continue;
        bt_err err;
        bt_status status = bt_config_value_set(key, key->default_text, "", load->config, &err);
        assert(status == BT_OK); /* a default that its own key refuses is a bug in the table */
        load->known[i] = true;
    }
}

/* The --set values, then what can be told only once everything is known. */
static bt_status finish_load(loader *load, const bt_config_source *source, const char *place,
                             bt_err *err)
{
    for (uint32_t i = 0; i < source->set_count; i++) {
        bt_status status = apply_set(load, source->sets[i], err);
        if (status != BT_OK) return status;
    }
    bt_err reason;
    const bt_config_table *table = load->table;
    for (uint32_t i = 0; i < table->key_count; i++) {
        if (load->known[i]) continue;
        BT_FAIL(&reason, BT_ERR_ARGUMENT, "'%s' in [%s] is required", table->keys[i].name,
                table->keys[i].section);
        return fail_at(place, 0, &reason, err);
    }
    if (table->check == NULL || table->check(load->config, &reason) == BT_OK) return BT_OK;
    return fail_at(place, 0, &reason, err);
}

bt_status bt_config_load(const bt_config_table *table, const bt_config_source *source,
                         void *ret_config, bt_err *err)
{
    loader load = {.table = table, .credentials_dir = source->credentials_dir};
    load.config = malloc(table->struct_bytes);
    if (load.config == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for the config");
    apply_defaults(&load);
    bt_status status = BT_OK;
    if (source->file != NULL) {
        status = apply_file(&load, source->file, err);
        if (status == BT_OK) status = apply_dropins(&load, source->file, err);
    }
    const char *place = source->file != NULL ? source->file : "command line";
    if (status == BT_OK) status = finish_load(&load, source, place, err);
    if (status == BT_OK) memcpy(ret_config, load.config, table->struct_bytes);
    free(load.config);
    return status;
}

bt_status bt_config_load_text(const bt_config_table *table, const bt_config_source *source,
                              const char *name, const char *text, size_t bytes, void *ret_config,
                              bt_err *err)
{
    if (bytes > BT_CONFIG_FILE_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "%.100s: larger than %u bytes", name,
                       BT_CONFIG_FILE_BYTES_MAX);
    loader load = {.table = table, .credentials_dir = source->credentials_dir};
    load.config = malloc(table->struct_bytes);
    char *copy = malloc(bytes + 1);
    bt_status status = BT_OK;
    if (load.config == NULL || copy == NULL)
        status = BT_FAIL(err, BT_ERR_NO_MEMORY, "no memory for the config");
    if (status == BT_OK) {
        if (bytes > 0) memcpy(copy, text, bytes);
        apply_defaults(&load);
        status = apply_text(&load, name, copy, bytes, err);
    }
    if (status == BT_OK) status = finish_load(&load, source, name, err);
    if (status == BT_OK) memcpy(ret_config, load.config, table->struct_bytes);
    free(copy);
    free(load.config);
    return status;
}

bt_status bt_config_check_reload(const bt_config_table *table, const void *present,
                                 const void *next, bt_err *err)
{
    for (uint32_t i = 0; i < table->key_count; i++) {
        const bt_config_key *key = &table->keys[i];
        if (key->reloadable || memcmp((const char *)present + key->offset,
                                      (const char *)next + key->offset, key->size) == 0)
            continue;
        return BT_FAIL(err, BT_ERR_ARGUMENT, "'%s' in [%s] changes at a restart only", key->name,
                       key->section);
    }
    return BT_OK;
}

static void dump_key(const bt_config_key *key, const void *config, FILE *out)
{
    char kind[256], value[BT_INI_LINE_BYTES_MAX];
    fprintf(out, "\n# %s\n# (%s", key->doc, bt_config_value_kind(key, kind, sizeof(kind)));
    if (key->default_text == NULL) {
        fputs("; required", out);
    } else {
        fprintf(out, "; default: %s", key->default_text[0] != '\0' ? key->default_text : "empty");
    }
    fputs(key->reloadable ? "; taken over on reload)\n" : ")\n", out);
    if (config != NULL) {
        bt_config_value_text(key, config, value, sizeof(value));
        fprintf(out, "%s=%s\n", key->name, value);
    } else if (key->default_text != NULL) {
        fprintf(out, "%s=%s\n", key->name, key->default_text);
    } else {
        fprintf(out, "#%s=\n", key->name);
    }
}

/* Keys of a section need not stand together: its first one brings them all. */
static bool first_of_section(const bt_config_table *table, uint32_t key)
{
    for (uint32_t i = 0; i < key; i++)
        if (strcmp(table->keys[i].section, table->keys[key].section) == 0) return false;
    return true;
}

void bt_config_dump(const bt_config_table *table, const void *config, FILE *out)
{
    for (uint32_t i = 0; i < table->key_count; i++) {
        const char *section = table->keys[i].section;
        if (!first_of_section(table, i)) continue;
        fprintf(out, "%s[%s]\n", i > 0 ? "\n" : "", section);
        for (uint32_t j = i; j < table->key_count; j++) {
            if (strcmp(table->keys[j].section, section) == 0)
                dump_key(&table->keys[j], config, out);
        }
    }
}

/* A bar would end the cell of a Markdown table. */
static void put_cell(const char *text, FILE *out)
{
    for (; *text != '\0'; text++) {
        if (*text == '|') fputc('\\', out);
        fputc(*text, out);
    }
}

static void put_row(const bt_config_key *key, FILE *out)
{
    char kind[256];
    fprintf(out, "| `%s` | ", key->name);
    put_cell(bt_config_value_kind(key, kind, sizeof(kind)), out);
    fputs(" | ", out);
    if (key->default_text == NULL) {
        fputs("required", out);
    } else if (key->default_text[0] == '\0') {
        fputs("empty", out);
    } else {
        fprintf(out, "`%s`", key->default_text);
    }
    fputs(" | ", out);
    put_cell(key->doc, out);
    fputs(key->reloadable ? " Taken over on reload. |\n" : " |\n", out);
}

void bt_config_reference(const bt_config_table *table, FILE *out)
{
    for (uint32_t i = 0; i < table->key_count; i++) {
        const char *section = table->keys[i].section;
        if (!first_of_section(table, i)) continue;
        fprintf(out, "\n## [%s]\n| key | value | default | meaning |\n|---|---|---|---|\n",
                section);
        for (uint32_t j = i; j < table->key_count; j++)
            if (strcmp(table->keys[j].section, section) == 0) put_row(&table->keys[j], out);
    }
}

bt_status bt_config_read_secret(const char *path, char *ret_secret, size_t capacity, bt_err *err)
{
    assert(capacity > 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) return BT_FAIL(err, BT_ERR_OS, "%.100s: %s", path, strerror(errno));
    struct stat info;
    size_t bytes = 0;
    bt_err reason;
    bt_status status;
    if (fstat(fd, &info) != 0) {
        status = BT_FAIL(&reason, BT_ERR_OS, "%s", strerror(errno));
    } else if ((info.st_mode & S_IRWXO) != 0) {
        status = BT_FAIL(&reason, BT_ERR_ARGUMENT, "a secret that everybody may read (chmod 600)");
    } else {
        status = read_all(fd, ret_secret, capacity, &bytes, &reason);
    }
    close(fd);
    if (status == BT_OK && bytes > 0 && ret_secret[bytes - 1] == '\n') bytes--;
    if (status == BT_OK && bytes == 0) status = BT_FAIL(&reason, BT_ERR_ARGUMENT, "empty");
    if (status != BT_OK) {
        explicit_bzero(ret_secret, capacity);
        return fail_at(path, 0, &reason, err);
    }
    ret_secret[bytes] = '\0';
    return BT_OK;
}
