#include "common/base/dtype.h"

#include <string.h>

static const struct {
    const char *name;
    uint8_t bytes;
    bool scaled;
} dtypes[BT_DTYPE_COUNT] = {
    [BT_DTYPE_NONE] = {"none", 0, false},   [BT_DTYPE_F32] = {"f32", 4, false},
    [BT_DTYPE_F16] = {"f16", 2, false},     [BT_DTYPE_BF16] = {"bf16", 2, false},
    [BT_DTYPE_FP8_E4M3] = {"fp8", 1, true}, [BT_DTYPE_INT8] = {"int8", 1, true},
};

size_t bt_dtype_bytes(bt_dtype dtype)
{
    return (unsigned)dtype < BT_DTYPE_COUNT ? dtypes[dtype].bytes : 0;
}

bool bt_dtype_scaled(bt_dtype dtype)
{
    return (unsigned)dtype < BT_DTYPE_COUNT && dtypes[dtype].scaled;
}

const char *bt_dtype_name(bt_dtype dtype)
{
    return (unsigned)dtype < BT_DTYPE_COUNT ? dtypes[dtype].name : dtypes[BT_DTYPE_NONE].name;
}

bt_dtype bt_dtype_find(const char *name)
{
    for (int i = BT_DTYPE_NONE + 1; i < BT_DTYPE_COUNT; i++) {
        if (strcmp(dtypes[i].name, name) == 0) return (bt_dtype)i;
    }
    return BT_DTYPE_NONE;
}
