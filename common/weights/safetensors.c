#include "common/weights/safetensors.h"

#include "common/weights/file.h"

#include <assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SHOW(name) bt_show(name).text
#define PREFIX_BYTES 8u
/* Values and members that a header of the largest allowed table can have; more is refused before
 * the JSON parser turns them into objects of some 100 bytes each. */
#define JSON_MARKS_MAX (20u * BT_SAFETENSORS_TENSORS_MAX)

typedef enum { MEMORY_BORROWED, MEMORY_HEAP, MEMORY_MAPPED } memory_kind;

struct bt_safetensors {
    const uint8_t *data;
    uint64_t bytes;
    memory_kind memory;
    json_t *header; /* owns the names */
    bt_safetensors_entry *entries;
    uint32_t count;
};

static const struct {
    const char *name;
    bt_dtype dtype;
    uint32_t bits;
} dtypes[] = {
    {"F32", BT_DTYPE_F32, 32},     {"F16", BT_DTYPE_F16, 16},     {"BF16", BT_DTYPE_BF16, 16},
    {"F64", BT_DTYPE_NONE, 64},    {"F8_E4M3", BT_DTYPE_NONE, 8}, {"F8_E5M2", BT_DTYPE_NONE, 8},
    {"F8_E8M0", BT_DTYPE_NONE, 8}, {"F6_E2M3", BT_DTYPE_NONE, 6}, {"F6_E3M2", BT_DTYPE_NONE, 6},
    {"F4", BT_DTYPE_NONE, 4},      {"C64", BT_DTYPE_NONE, 64},    {"BOOL", BT_DTYPE_NONE, 8},
    {"U8", BT_DTYPE_NONE, 8},      {"I8", BT_DTYPE_NONE, 8},      {"U16", BT_DTYPE_NONE, 16},
    {"I16", BT_DTYPE_NONE, 16},    {"U32", BT_DTYPE_NONE, 32},    {"I32", BT_DTYPE_NONE, 32},
    {"U64", BT_DTYPE_NONE, 64},    {"I64", BT_DTYPE_NONE, 64},
};

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const bt_safetensors_entry *)a)->name, ((const bt_safetensors_entry *)b)->name);
}

static int compare_offsets(const void *a, const void *b)
{
    const bt_safetensors_entry *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static bt_status check_name(const char *name, const char *label, bt_err *err)
{
    size_t bytes = strlen(name);
    if (bytes == 0) return BT_FAIL(err, BT_ERR_FORMAT, "%s: a tensor has no name", SHOW(label));
    if (bytes > BT_SAFETENSORS_NAME_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "%s: a tensor's name has %zu bytes, the limit is %u",
                       SHOW(label), bytes, BT_SAFETENSORS_NAME_BYTES_MAX);
    for (const char *c = name; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return BT_FAIL(err, BT_ERR_FORMAT, "%s: a tensor's name has a control character",
                           SHOW(label));
    }
    return BT_OK;
}

/* Fills rank and shape, and the number of elements. */
static bt_status parse_shape(const json_t *shape, const char *label, bt_safetensors_entry *entry,
                             uint64_t *ret_elements, bt_err *err)
{
    if (!json_is_array(shape))
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: %s: shape is not a list", SHOW(label),
                       SHOW(entry->name));
    if (json_array_size(shape) > BT_SAFETENSORS_RANK_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "%s: %s: has %zu dimensions, the limit is %u",
                       SHOW(label), SHOW(entry->name), json_array_size(shape),
                       BT_SAFETENSORS_RANK_MAX);
    uint64_t elements = 1;
    entry->rank = (uint32_t)json_array_size(shape);
    for (uint32_t i = 0; i < entry->rank; i++) {
        const json_t *dim = json_array_get(shape, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return BT_FAIL(err, BT_ERR_FORMAT, "%s: %s: dimension %u is not a whole number >= 0",
                           SHOW(label), SHOW(entry->name), i);
        entry->shape[i] = (uint64_t)json_integer_value(dim);
        if (__builtin_mul_overflow(elements, entry->shape[i], &elements))
            return BT_FAIL(err, BT_ERR_FORMAT, "%s: %s: its shape is larger than any file",
                           SHOW(label), SHOW(entry->name));
    }
    *ret_elements = elements;
    return BT_OK;
}

/* Checks data_offsets against the data and against what shape and dtype need. */
static bt_status parse_offsets(const bt_safetensors *file, const json_t *offsets, uint64_t base,
                               uint64_t need_bytes, const char *label, bt_safetensors_entry *entry,
                               bt_err *err)
{
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: %s: data_offsets is not two whole numbers",
                       SHOW(label), SHOW(entry->name));
    long long begin = json_integer_value(first), end = json_integer_value(last);
    if (begin < 0 || begin > end || (uint64_t)end > file->bytes - base)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: %s: bytes %lld to %lld are not within the %llu",
                       SHOW(label), SHOW(entry->name), begin, end,
                       (unsigned long long)(file->bytes - base));
    if ((uint64_t)(end - begin) != need_bytes)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: %s: has %lld bytes, shape and dtype need %llu",
                       SHOW(label), SHOW(entry->name), end - begin, (unsigned long long)need_bytes);
    entry->data = file->data + base + begin;
    entry->bytes = need_bytes;
    return BT_OK;
}

static bt_status parse_entry(const bt_safetensors *file, const char *name, const json_t *info,
                             uint64_t base, const char *label, bt_safetensors_entry *entry,
                             bt_err *err)
{
    *entry = (bt_safetensors_entry){.name = name};
    const char *dtype_name = json_string_value(json_object_get(info, "dtype"));
    if (json_object_size(info) != 3 || dtype_name == NULL)
        return BT_FAIL(err, BT_ERR_FORMAT,
                       "%s: %s: is not an object of dtype, shape and data_offsets", SHOW(label),
                       SHOW(name));
    uint64_t bits = 0;
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
        if (strcmp(dtypes[i].name, dtype_name) != 0) continue;
        entry->dtype_name = dtypes[i].name;
        entry->dtype = dtypes[i].dtype;
        bits = dtypes[i].bits;
    }
    if (bits == 0)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: %s: unknown dtype '%s'", SHOW(label), SHOW(name),
                       SHOW(dtype_name));
    uint64_t elements = 0;
    bt_status status = parse_shape(json_object_get(info, "shape"), label, entry, &elements, err);
    if (status != BT_OK) return status;
    if (__builtin_mul_overflow(bits, elements, &bits) || bits % 8 != 0)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: %s: shape and dtype are no whole number of bytes",
                       SHOW(label), SHOW(name));
    return parse_offsets(file, json_object_get(info, "data_offsets"), base, bits / 8, label, entry,
                         err);
}

static bt_status check_metadata(const json_t *metadata, const char *label, bt_err *err)
{
    if (!json_is_object(metadata))
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: __metadata__ is not an object", SHOW(label));
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)metadata, key, value)
    {
        if (!json_is_string(value))
            return BT_FAIL(err, BT_ERR_FORMAT, "%s: __metadata__.%s is not a string", SHOW(label),
                           SHOW(key));
    }
    return BT_OK;
}

/* The tensors, in the order of their bytes, must follow each other exactly from the first byte of
 * the data to the last. */
static bt_status check_cover(bt_safetensors *file, uint64_t base, const char *label, bt_err *err)
{
    if (file->count > 0)
        qsort(file->entries, file->count, sizeof(file->entries[0]), compare_offsets);
    const uint8_t *next = file->data + base;
    for (uint32_t i = 0; i < file->count; i++) {
        const bt_safetensors_entry *entry = &file->entries[i];
        if ((const uint8_t *)entry->data != next)
            return BT_FAIL(err, BT_ERR_FORMAT, "%s: %s: %s the tensor before it", SHOW(label),
                           SHOW(entry->name),
                           (const uint8_t *)entry->data < next ? "overlaps"
                                                               : "leaves a hole after");
        next += entry->bytes;
    }
    if (next != file->data + file->bytes)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: %llu bytes after the last tensor belong to none",
                       SHOW(label), (unsigned long long)(file->data + file->bytes - next));
    if (file->count > 0) qsort(file->entries, file->count, sizeof(file->entries[0]), compare_names);
    return BT_OK;
}

static bt_status parse_entries(bt_safetensors *file, uint64_t base, const char *label, bt_err *err)
{
    size_t members = json_object_size(file->header);
    if (members > BT_SAFETENSORS_TENSORS_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "%s: has %zu tensors, the limit is %u", SHOW(label),
                       members, BT_SAFETENSORS_TENSORS_MAX);
    file->entries = calloc(members + 1, sizeof(file->entries[0]));
    if (file->entries == NULL)
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "%s: no memory for %zu tensors", SHOW(label),
                       members);
    const char *name;
    json_t *info;
    bt_status status;
    json_object_foreach(file->header, name, info)
    {
        if (strcmp(name, "__metadata__") == 0) {
            if ((status = check_metadata(info, label, err)) != BT_OK) return status;
            continue;
        }
        if ((status = check_name(name, label, err)) != BT_OK) return status;
        bt_safetensors_entry *entry = &file->entries[file->count];
        status = parse_entry(file, name, info, base, label, entry, err);
        if (status != BT_OK) return status;
        file->count++;
    }
    return check_cover(file, base, label, err);
}

/* Upper bound of the JSON values in the text: what separates them, strings included. */
static size_t count_marks(const char *text, size_t bytes)
{
    size_t marks = 0;
    for (size_t i = 0; i < bytes; i++)
        marks += text[i] == ',' || text[i] == '[' || text[i] == '{' || text[i] == ':';
    return marks;
}

static bt_status parse_file(bt_safetensors *file, const char *label, bt_err *err)
{
    if (file->bytes < PREFIX_BYTES)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: %llu bytes are no safetensors file", SHOW(label),
                       (unsigned long long)file->bytes);
    uint64_t header_bytes = 0;
    for (unsigned i = 0; i < PREFIX_BYTES; i++) header_bytes |= (uint64_t)file->data[i] << (8 * i);
    if (header_bytes > file->bytes - PREFIX_BYTES || header_bytes > BT_SAFETENSORS_HEADER_BYTES_MAX)
        return BT_FAIL(err, BT_ERR_FORMAT,
                       "%s: claims a header of %llu bytes, the file has %llu and the limit is %u",
                       SHOW(label), (unsigned long long)header_bytes,
                       (unsigned long long)file->bytes, BT_SAFETENSORS_HEADER_BYTES_MAX);
    const char *text = (const char *)file->data + PREFIX_BYTES;
    if (header_bytes == 0 || text[0] != '{')
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: the header does not begin with '{'", SHOW(label));
    if (count_marks(text, header_bytes) > JSON_MARKS_MAX)
        return BT_FAIL(err, BT_ERR_LIMIT, "%s: the header has more values than %u tensors need",
                       SHOW(label), BT_SAFETENSORS_TENSORS_MAX);
    json_error_t problem;
    file->header = json_loadb(text, header_bytes, JSON_REJECT_DUPLICATES, &problem);
    if (file->header == NULL)
        return BT_FAIL(err, BT_ERR_FORMAT, "%s: header byte %d: %s", SHOW(label), problem.position,
                       SHOW(problem.text));
    return parse_entries(file, PREFIX_BYTES + header_bytes, label, err);
}

bt_status bt_safetensors_parse(const void *data, size_t bytes, const char *label,
                               bt_safetensors **ret_file, bt_err *err)
{
    bt_safetensors *file = calloc(1, sizeof(*file));
    if (file == NULL) return BT_FAIL(err, BT_ERR_NO_MEMORY, "%s: no memory", SHOW(label));
    file->data = data;
    file->bytes = bytes;
    file->memory = MEMORY_BORROWED;
    bt_status status = parse_file(file, label, err);
    if (status != BT_OK) {
        bt_safetensors_close(file);
        return status;
    }
    *ret_file = file;
    return BT_OK;
}

/* Reads or maps the open file into *ret_data, whichever its size asks for. */
static bt_status load(int fd, const char *path, uint64_t bytes, const uint8_t **ret_data,
                      memory_kind *ret_memory, bt_err *err)
{
    if (bytes > BT_SAFETENSORS_READ_BYTES_MAX) {
        void *map = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED)
            return BT_FAIL(err, BT_ERR_OS, "%s: cannot be mapped: %m", SHOW(path));
        *ret_data = map;
        *ret_memory = MEMORY_MAPPED;
        return BT_OK;
    }
    /* As aligned as a mapping would be, so that both kinds serve the same files. */
    uint8_t *data = aligned_alloc(4096, (bytes / 4096 + 1) * 4096);
    if (data == NULL)
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "%s: no memory for its bytes", SHOW(path));
    bt_status status = bt_file_read_fd(fd, path, data, bytes, err);
    if (status != BT_OK) {
        free(data);
        return status;
    }
    *ret_data = data;
    *ret_memory = MEMORY_HEAP;
    return BT_OK;
}

static void unload(const uint8_t *data, uint64_t bytes, memory_kind memory)
{
    if (memory == MEMORY_MAPPED) munmap((void *)data, bytes);
    if (memory == MEMORY_HEAP) free((void *)data);
}

void bt_safetensors_cold(const void *data, uint64_t bytes, bool mapped)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)data + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)data + bytes) / page * page;
    if (mapped && end > first) (void)madvise((void *)first, end - first, MADV_DONTNEED);
}

bt_status bt_safetensors_open(const char *path, bt_safetensors **ret_file, bt_err *err)
{
    int fd;
    uint64_t bytes;
    bt_status status = bt_file_open(path, &fd, &bytes, err);
    if (status != BT_OK) return status;
    const uint8_t *data = NULL;
    memory_kind memory = MEMORY_BORROWED;
    status = load(fd, path, bytes, &data, &memory, err);
    close(fd);
    if (status != BT_OK) return status;
    bt_safetensors *file = NULL;
    status = bt_safetensors_parse(data, bytes, path, &file, err);
    if (status != BT_OK) {
        unload(data, bytes, memory);
        return status;
    }
    file->memory = memory;
    for (uint32_t i = 0; i < file->count; i++) file->entries[i].mapped = memory == MEMORY_MAPPED;
    *ret_file = file;
    return BT_OK;
}

void bt_safetensors_close(bt_safetensors *file)
{
    if (file == NULL) return;
    unload(file->data, file->bytes, file->memory);
    json_decref(file->header);
    free(file->entries);
    free(file);
}

uint32_t bt_safetensors_count(const bt_safetensors *file)
{
    return file->count;
}

const bt_safetensors_entry *bt_safetensors_at(const bt_safetensors *file, uint32_t index)
{
    assert(index < file->count);
    return &file->entries[index];
}

const bt_safetensors_entry *bt_safetensors_find(const bt_safetensors *file, const char *name)
{
    if (file->count == 0) return NULL;
    bt_safetensors_entry key = {.name = name};
    return bsearch(&key, file->entries, file->count, sizeof(key), compare_names);
}
