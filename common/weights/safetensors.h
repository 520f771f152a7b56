/* safetensors.h - one .safetensors file as a table of named, checked, read-only tensors.
 *
 * LAYOUT  offset size  meaning
 *         0      8     header bytes H, u64 little-endian
 *         8      H     JSON object: name -> {dtype, shape, data_offsets: [begin, end]}, and maybe
 *                      "__metadata__": {string: string}
 *         8 + H  D     tensor bytes; offsets count from here
 * TRUST   Every byte is hostile. H <= min(100 MB, file - 8); names are unique, printable and short;
 *         begin <= end <= D; end - begin is exactly shape x dtype, computed without wrapping; the
 *         tensors cover the D bytes without overlap and without a hole.
 * DTYPES  F32, F16 and BF16 are served. The format's other dtypes are recognised, so that a file
 *         with such a tensor opens and the tensor is named when somebody asks for it; an unknown
 *         dtype is an error.
 * MEMORY  A file up to BT_SAFETENSORS_READ_BYTES_MAX is read into memory: nothing that happens to
 *         it later matters. A larger one is mapped read-only; its size is taken once by fstat, and
 *         whoever truncates it in place while it is mapped kills the process with SIGBUS. That is
 *         accepted, as for a program's own text: replace a checkpoint by rename, never in place. */
#ifndef BT_COMMON_WEIGHTS_SAFETENSORS_H
#define BT_COMMON_WEIGHTS_SAFETENSORS_H

#include "common/base/dtype.h"
#include "common/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BT_SAFETENSORS_HEADER_BYTES_MAX 100000000u
#define BT_SAFETENSORS_TENSORS_MAX 200000u
#define BT_SAFETENSORS_RANK_MAX 8u
#define BT_SAFETENSORS_NAME_BYTES_MAX 255u /* without the NUL */
#define BT_SAFETENSORS_READ_BYTES_MAX (64u << 20)

typedef struct bt_safetensors bt_safetensors;

typedef struct {
    const char *name;       /* lives as long as the file object */
    const char *dtype_name; /* "BF16", as the format spells it; static storage */
    bt_dtype dtype;         /* NONE: recognised, not served */
    uint32_t rank;
    uint64_t shape[BT_SAFETENSORS_RANK_MAX];
    const void *data; /* any alignment */
    uint64_t bytes;
    bool mapped; /* data lies in a mapping of the file */
} bt_safetensors_entry;

/* Nobody reads these bytes soon: gives the pages of mapped data back; they come again when read. Does nothing
 * to data that is not mapped. */
void bt_safetensors_cold(const void *data, uint64_t bytes, bool mapped);

/* Errors: ERR_OS (cannot open or read; not a regular file), ERR_FORMAT, ERR_LIMIT (more tensors,
 * dimensions or name bytes than above), ERR_NO_MEMORY. */
bt_status bt_safetensors_open(const char *path, bt_safetensors **ret_file, bt_err *err);

/* The same over bytes in memory, which are borrowed until close. label names them in errors. */
bt_status bt_safetensors_parse(const void *data, size_t bytes, const char *label,
                               bt_safetensors **ret_file, bt_err *err);
void bt_safetensors_close(bt_safetensors *file);

/* Entries are sorted by name. find: NULL if absent. */
uint32_t bt_safetensors_count(const bt_safetensors *file);
const bt_safetensors_entry *bt_safetensors_at(const bt_safetensors *file, uint32_t index);
const bt_safetensors_entry *bt_safetensors_find(const bt_safetensors *file, const char *name);

#endif
