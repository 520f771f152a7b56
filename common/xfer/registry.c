#include "common/xfer/transport.h"

#include <string.h>

extern const bt_xfer_ops bt_xfer_transport_ucx;
extern const bt_xfer_ops bt_xfer_transport_ucx_cuda;

static const bt_xfer_ops *const transports[] = {
    &bt_xfer_transport_ucx,
#ifdef BATON_CUDA
    &bt_xfer_transport_ucx_cuda,
#endif
};

const bt_xfer_ops *bt_xfer_transport_find(const char *name)
{
    for (size_t i = 0; i < sizeof(transports) / sizeof(transports[0]); i++) {
        if (strcmp(transports[i]->name, name) == 0) return transports[i];
    }
    return NULL;
}
