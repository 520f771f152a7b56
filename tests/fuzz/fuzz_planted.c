/* fuzz_planted.c - a parser with a deliberate heap overflow. planted.sh runs it and must see a crash:
 * a fuzz lane that cannot find this one finds nothing.
 *
 * Format: "BT", a length byte, that many bytes. The bug: lengths above 15 are not refused. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ROOM 16u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes < 3 || data[0] != 'B' || data[1] != 'T') return 0;
    size_t length = data[2];
    if (length > bytes - 3) return 0;
    char *text = malloc(ROOM);
    if (text == NULL) return 0;
    memcpy(text, data + 3, length);
    text[length] = 0;
    volatile char seen = text[0];
    (void)seen;
    free(text);
    return 0;
}
