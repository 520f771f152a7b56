/* UCX with arena and sources in the memory of one GPU: puts go device to device by cuda_ipc, messages
 * through shared memory as ever.
 *
 * MEMORY  One cudaMalloc for each region: what cudaMallocAsync or the virtual memory calls give cannot be
 *         mapped by another process. A CUDA context comes to the thread in create, and stays current.
 *
 * PUT     cuda_ipc maps the arena into the putting process at the first put, which takes up to 25 ms
 *         (pairing's measurement pays it), and then copies by a stream of its own for each lane. Puts to one
 *         peer take its lanes in turn and may end in another order than they began.
 *
 * SILENCE UCX is silent when it cannot: without libcuda or libnvidia-ml its module does not load, and
 *         a put to memory that no lane reaches is bounced through messages at 0.7 GB/s. So create
 *         refuses when UCX has no cuda_ipc, saying why, and UCX is told not to emulate: a put that no lane
 *         can make fails at once. allow_tcp=yes accepts the bounce.
 *
 * TRIED   With UCX 1.22.0 on one H100, and without any effect on rate or latency: CUDA_IPC_MAX_STREAMS 1,
 *         CUDA_IPC_MAX_POLL 1, several rkeys of one arena (they share the stream), puts without
 *         registration or memory type, sysv in place of posix, MEM_EVENTS=n. One lane: 1,030 GB/s in raw puts
 *         of 16 MiB, four at a time, where three make 1,306; through this transport one made 979 to 1,034 and
 *         three 927, but 1,372 against 1,210 at 32 MiB. Without cuda_copy UCX takes no GPU memory at all.
 *         Allocations and frees near a put pass UCX's hooks (cudaFreeHost, a thread's stack): the timed
 *         loop without them was faster by 10 us in one run, not in the next. */
#include "common/xfer/transports/ucx.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

static bt_status cuda_fail(cudaError_t error, const char *what, bt_err *err)
{
    bt_status status = BT_FAIL(err, BT_ERR_DEVICE, "%s: %s", what, cudaGetErrorString(error));
    if (err != NULL) err->cuda_error = (int)error;
    return status;
}

static bool names_transport(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = list; (at = strstr(at, name)) != NULL; at += length) {
        bool begins = at == list || at[-1] == ',';
        if (begins && (at[length] == ',' || at[length] == '\0')) return true;
    }
    return false;
}

/* cuda_ipc moves the memory, and cuda_copy is what tells UCX that it is a GPU's. */
static bt_status begin(const bt_xfer_config *config, bt_err *err)
{
    static const char *const needed[] = {"cuda_ipc", "cuda_copy"};
    bool named = config->transports != NULL && !names_transport(config->transports, "cuda");
    for (size_t i = 0; named && i < sizeof(needed) / sizeof(needed[0]); i++) {
        if (!names_transport(config->transports, needed[i]) && !(i == 0 && config->allow_tcp))
            return BT_FAIL(err, BT_ERR_ARGUMENT, "transports=%s leaves out %s", config->transports,
                           needed[i]);
    }
    cudaError_t error = cudaSetDevice((int)config->device);
    if (error == cudaSuccess) error = cudaFree(NULL); /* makes the context */
    return error == cudaSuccess ? BT_OK : cuda_fail(error, "GPU of the landing memory", err);
}

/* The libraries that UCX's CUDA module needs and that only a driver brings. */
static bt_status module_missing(bt_err *err)
{
    static const char *const libraries[] = {"libcuda.so.1", "libnvidia-ml.so.1"};
    for (size_t i = 0; i < sizeof(libraries) / sizeof(libraries[0]); i++) {
        void *library = dlopen(libraries[i], RTLD_LAZY | RTLD_LOCAL);
        if (library == NULL)
            return BT_FAIL(err, BT_ERR_DEVICE, "UCX cannot use the GPU: %s", dlerror());
        dlclose(library);
    }
    uint32_t major, minor;
    bt_xfer_version(&major, &minor);
    return BT_FAIL(
        err, BT_ERR_DEVICE,
        "UCX %u.%u cannot use the GPU: it has no module libuct_cuda (ops/setup --cuda), or "
        "UCX_MODULES or UCX_MODULE_DIR keeps it out",
        major, minor);
}

static bt_status check(ucx_xfer *xfer, const bt_xfer_config *config, bt_err *err)
{
    ucp_context_attr_t attr = {.field_mask = UCP_ATTR_FIELD_MEMORY_TYPES};
    if (ucp_context_query(xfer->context, &attr) != UCS_OK ||
        (attr.memory_types & (1ull << UCS_MEMORY_TYPE_CUDA)) == 0)
        return module_missing(err);
    char *text = ucx_text(xfer->context, NULL);
    bool found = text != NULL && strstr(text, "cuda_ipc/") != NULL;
    free(text);
    if (found || config->allow_tcp) return BT_OK;
    return BT_FAIL(
        err, BT_ERR_DEVICE,
        "UCX has no cuda_ipc on this GPU: CUDA IPC needs a Linux driver on bare metal or in a "
        "virtual machine with the whole GPU, and no MIG across instances");
}

static bt_status take(size_t bytes, uint8_t **ret_base, bt_err *err)
{
    void *base;
    cudaError_t error = cudaMalloc(&base, bytes);
    if (error == cudaErrorMemoryAllocation)
        return BT_FAIL(err, BT_ERR_NO_MEMORY, "%zu bytes of GPU memory for the handoff", bytes);
    if (error != cudaSuccess) return cuda_fail(error, "cudaMalloc", err);
    *ret_base = base;
    return BT_OK;
}

static void give(uint8_t *base)
{
    cudaFree(base);
}

static const ucx_memory cuda_memory = {
    .transports = "cuda_ipc,cuda_copy,posix,tcp",
    .type = UCS_MEMORY_TYPE_CUDA,
    .lanes = 3,
    .begin = begin,
    .check = check,
    .take = take,
    .give = give,
    .put_refused =
        "no lane reaches the GPU memory there; cuda_ipc needs one host, one PID namespace and "
        "peer access between the GPUs",
};

static bt_status create(const bt_xfer_config *config, bt_xfer **ret_xfer, bt_err *err)
{
    return ucx_create_with(&cuda_memory, config, ret_xfer, err);
}

/* With cuda_ipc among its lanes an endpoint takes that one, since nothing else moves device memory but
 * RDMA, which UCX prefers only where cuda_ipc does not reach. */
static const char *transport(bt_xfer_peer *base)
{
    ucx_peer *peer = (ucx_peer *)base;
    char *text = ucx_text(NULL, peer->lanes[0].ep);
    bool found = text != NULL && strstr(text, "cuda_ipc/") != NULL;
    free(text);
    return found ? "cuda_ipc/cuda" : ucx_transport(base);
}

const bt_xfer_ops bt_xfer_transport_ucx_cuda = {
    .name = "ucx-cuda",
    .create = create,
    .destroy = ucx_destroy,
    .fd = ucx_fd,
    .progress = ucx_progress,
    .arm = ucx_arm,
    .worker_address = ucx_worker_address,
    .arena_open = ucx_arena_open,
    .arena_rkey = ucx_arena_rkey,
    .source_open = ucx_source_open,
    .connect = ucx_connect,
    .remote_open = ucx_remote_open,
    .transport = transport,
    .disconnect = ucx_disconnect,
    .put = ucx_put_start,
    .send = ucx_send_start,
};
