/* dtype.h - element types of weights, KV pools and the wire, and what an element of each takes.
 *
 * The numeric values are part of the wire format (proto/): never renumber. */
#ifndef BT_COMMON_BASE_DTYPE_H
#define BT_COMMON_BASE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    BT_DTYPE_NONE = 0,
    BT_DTYPE_F32 = 1,
    BT_DTYPE_F16 = 2,
    BT_DTYPE_BF16 = 3,
    BT_DTYPE_FP8_E4M3 = 4, /* as KV: codes with one f16 scale for each (token, head) */
    BT_DTYPE_INT8 = 5,     /* as KV: codes with one f16 scale for each (token, head) */
    BT_DTYPE_COUNT
} bt_dtype;

/* Bytes of one element, 0 for NONE. */
size_t bt_dtype_bytes(bt_dtype dtype);

/* True for the KV dtypes that carry an f16 scale for each (token, head). */
bool bt_dtype_scaled(bt_dtype dtype);

/* "f32", "f16", "bf16", "fp8", "int8"; "none" for the rest. Static storage. */
const char *bt_dtype_name(bt_dtype dtype);

/* The dtype of that name, or BT_DTYPE_NONE. */
bt_dtype bt_dtype_find(const char *name);

#endif
