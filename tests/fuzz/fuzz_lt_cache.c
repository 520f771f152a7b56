/* fuzz_lt_cache.c - any bytes, with their digest set right, as a file of algorithms: refused with a
 * reason, or a table that is written as the same bytes. */
#include "kernels/linear/linear_lt_cache.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const bt_lt_card card = {"NVIDIA H100 80GB HBM3", 90, 132, 130100};
    bt_lt_cache *cache = bt_lt_cache_create(&card);
    uint8_t *file = malloc(bytes + 8), *again = malloc(BT_LT_FILE_BYTES_MAX);
    assert(cache && file && again);
    if (bytes > 0) memcpy(file, data, bytes);
    uint64_t digest = bt_lt_cache_digest(file, bytes);
    for (int i = 0; i < 8; i++) file[bytes + i] = (uint8_t)(digest >> 8 * i);
    bt_err err = {0};
    if (bt_lt_cache_parse(cache, file, bytes + 8, &err) == BT_OK) {
        assert(bt_lt_cache_format(cache, again) == bytes + 8);
        assert(memcmp(file, again, bytes) == 0);
    } else {
        assert(err.message[0] != 0 && cache->count == 0);
    }
    free(cache);
    free(file);
    free(again);
    return 0;
}
