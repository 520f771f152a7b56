/* linear_lt_cache.h - which cuBLASLt algorithm is best for a product, kept across starts.
 *
 * WHAT    A table from (kind, dtype, epilogue, m bucket, n, k) to an algorithm as measured on one kind
 *         of card with one version of cuBLASLt, and its file. Knows nothing of CUDA: an algorithm is the
 *         nine numbers that cuBLASLt names it by. Measuring and running are linear_lt.h's.
 * BUCKETS Algorithms are measured at the values of bt_lt_bucket_m; a product of m rows uses the first
 *         bucket that is not below m, or the last. Between two buckets that is 90 to 100 % as fast as
 *         the best for just that m (H100, m of 600 to 9000): chunks had better be multiples of 128.
 * FILE    Little-endian, at most BT_LT_FILE_BYTES_MAX:
 *           offset  size  meaning
 *           0       8     "BTLTALG1"
 *           8       4     entries, at most BT_LT_ENTRIES_MAX
 *           12      4     card: compute capability, 90 for 9.0
 *           16      4     card: multiprocessors
 *           20      4     0
 *           24      8     version of cuBLASLt
 *           32      64    name of the card, zeros after it
 *           96      72e   entries: kind, y, flags, m, n, k (u32 each), workspace bytes (u64), microseconds
 *                         (f32, finite, above 0), the nine numbers of bt_lt_config (u32 each)
 *           ...     8     FNV-1a, 64 bits, of all that stands before it
 *         A file of another card or library, or one that breaks any of this, is refused whole, with the
 *         reason: its figures are measured again. The digest finds damage, not malice: whoever can write the
 *         file could give bad advice anyway, and no more than advice, as cuBLASLt builds and checks
 *         each algorithm from its numbers before it runs (linear_lt.h). */
#ifndef BT_KERNELS_LINEAR_LINEAR_LT_CACHE_H
#define BT_KERNELS_LINEAR_LINEAR_LT_CACHE_H

#include "common/base/status.h"

#include <stddef.h>
#include <stdint.h>

#define BT_LT_ENTRIES_MAX 4096u
#define BT_LT_CARD_BYTES 64u
#define BT_LT_FILE_HEAD 96u
#define BT_LT_FILE_ENTRY 72u
#define BT_LT_FILE_BYTES_MAX (BT_LT_FILE_HEAD + BT_LT_ENTRIES_MAX * BT_LT_FILE_ENTRY + 8u)

#define BT_LT_BUCKETS 46u
extern const uint32_t bt_lt_bucket_m[BT_LT_BUCKETS]; /* ascending */

/* Index of the bucket for m rows. */
uint32_t bt_lt_bucket(uint32_t m);

/* What was measured depends on these. */
typedef struct {
    char name[BT_LT_CARD_BYTES]; /* zeros after the name, one at least */
    uint32_t capability, multiprocessors;
    uint64_t library; /* cublasLtGetVersion() */
} bt_lt_card;

typedef struct {
    uint32_t kind, y, flags; /* of bt_lt_shape */
    uint32_t m, n, k;        /* m is a bucket's */
} bt_lt_key;

/* The values of CUBLASLT_ALGO_CONFIG_ID, _TILE_ID, _SPLITK_NUM and so on. */
typedef struct {
    uint32_t id, tile, splits, reduction, swizzle, custom, stages, inner, cluster;
} bt_lt_config;

typedef struct {
    bt_lt_key key;
    bt_lt_config config;
    float us;
    uint64_t workspace_bytes;
} bt_lt_entry;

typedef struct {
    bt_lt_card card;
    uint32_t count;
    bt_lt_entry entries[BT_LT_ENTRIES_MAX];
} bt_lt_cache;

/* Empty, for that card. About 330 KiB, to be freed with free(); NULL if there is no memory. */
bt_lt_cache *bt_lt_cache_create(const bt_lt_card *card);

/* NULL if it was not measured. Valid until the next put or parse. */
const bt_lt_entry *bt_lt_cache_find(const bt_lt_cache *cache, const bt_lt_key *key);

/* Adds or replaces. ERR_LIMIT if the table is full: then the measurement is not kept. */
bt_status bt_lt_cache_put(bt_lt_cache *cache, const bt_lt_entry *entry, bt_err *err);

/* Replaces the entries by those of a file's bytes; untouched on failure.
 * Errors: ERR_FORMAT; ERR_VERSION for another card or library. */
bt_status bt_lt_cache_parse(bt_lt_cache *cache, const void *data, size_t bytes, bt_err *err);

/* What stands at the end of a file whose other bytes are these. */
uint64_t bt_lt_cache_digest(const void *data, size_t bytes);

/* The bytes of the file into ret_data, of BT_LT_FILE_BYTES_MAX; returns how many. */
size_t bt_lt_cache_format(const bt_lt_cache *cache, void *ret_data);

/* As parse, from a regular file. ERR_OS if it cannot be read (os_errno is ENOENT for none there). */
bt_status bt_lt_cache_load(bt_lt_cache *cache, const char *path, bt_err *err);

/* Writes path.new and renames it. */
bt_status bt_lt_cache_save(const bt_lt_cache *cache, const char *path, bt_err *err);

#endif
