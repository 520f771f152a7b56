#include "common/kv/probe.h"

#include <assert.h>

const bt_request_id bt_probe_request_id = {
    {'b', 'a', 't', 'o', 'n', ' ', 'p', 'a', 'i', 'r', ' ', 'p', 'r', 'o', 'b', 'e'}};

void bt_probe_tokens(uint32_t vocab, uint32_t ret_tokens[BT_PROBE_TOKENS])
{
    assert(vocab > 0);
    for (uint32_t i = 0; i < BT_PROBE_TOKENS; i++)
        ret_tokens[i] = (uint32_t)((uint64_t)(i + 1) * 2654435761u % vocab);
}
