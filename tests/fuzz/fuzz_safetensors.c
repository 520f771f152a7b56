/* fuzz_safetensors.c - any bytes as a .safetensors file: refused, or a table whose tensors lie within
 * the bytes, each of which is read. */
#include "common/weights/safetensors.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    bt_safetensors *file;
    bt_err err;
    if (bt_safetensors_parse(data, bytes, "fuzz", &file, &err) != BT_OK) {
        assert(err.message[0] != '\0');
        return 0;
    }
    uint64_t total = 0;
    volatile uint8_t sum = 0;
    for (uint32_t i = 0; i < bt_safetensors_count(file); i++) {
        const bt_safetensors_entry *entry = bt_safetensors_at(file, i);
        assert(bt_safetensors_find(file, entry->name) == entry);
        const uint8_t *at = entry->data;
        for (uint64_t b = 0; b < entry->bytes; b++) sum = (uint8_t)(sum + at[b]);
        total += entry->bytes;
    }
    assert(total <= bytes);
    bt_safetensors_close(file);
    return 0;
}
