#include "common/engine/backend.h"

extern const bt_backend bt_backend_cpu, bt_backend_cpu_ref;

const bt_backend *const bt_backends[] = {
    &bt_backend_cpu,
    &bt_backend_cpu_ref,
};

const unsigned bt_backend_count = sizeof(bt_backends) / sizeof(bt_backends[0]);
