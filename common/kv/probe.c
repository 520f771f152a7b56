#include "common/kv/probe.h"

const bt_request_id bt_probe_request_id = {
    {'b', 'a', 't', 'o', 'n', ' ', 'p', 'a', 'i', 'r', ' ', 'p', 'r', 'o', 'b', 'e'}};
