/* notice.cu - stream memory operations of the driver, found at run time so that nothing links libcuda. */
extern "C" {
#include "kernels/notice.h"
}

#include <cassert>
#include <cstdlib>

#include <cuda.h>

typedef CUresult (*write_value)(CUstream, CUdeviceptr, cuuint32_t, unsigned);

struct line {
    alignas(16) uint32_t value;
    uint32_t unused[3];
    uint8_t data[BT_NOTICE_DATA_BYTES];
};

static_assert(sizeof(line) == 64, "a cache line for each slot");

struct bt_notice {
    uint32_t slots;
    line *lines;
    write_value write;
};

extern "C" bt_status bt_notice_create(uint32_t slots, bt_notice **ret_notice, bt_err *err)
{
    assert(slots > 0 && slots <= BT_NOTICE_SLOTS_MAX);
    bt_notice *notice = (bt_notice *)calloc(1, sizeof(*notice));
    if (!notice) return BT_FAIL(err, BT_ERR_NO_MEMORY, "notices");
    notice->slots = slots;
    cudaError_t error = cudaHostAlloc((void **)&notice->lines, slots * sizeof(line),
                                      cudaHostAllocPortable | cudaHostAllocMapped);
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    if (error == cudaSuccess)
        error = cudaGetDriverEntryPointByVersion("cuStreamWriteValue32", (void **)&notice->write,
                                                 12000, cudaEnableDefault, &found);
    if (error == cudaSuccess && found != cudaDriverEntryPointSuccess) error = cudaErrorNotSupported;
    if (error != cudaSuccess) {
        bt_notice_destroy(notice);
        return bt_cuda_status(error, "notices", err);
    }
    for (uint32_t i = 0; i < slots; i++) notice->lines[i] = {};
    *ret_notice = notice;
    return BT_OK;
}

extern "C" void bt_notice_destroy(bt_notice *notice)
{
    if (!notice) return;
    if (notice->lines) cudaFreeHost(notice->lines);
    free(notice);
}

extern "C" bt_status bt_notice_mark(bt_notice *notice, uint32_t slot, uint32_t value,
                                    cudaStream_t stream, bt_err *err)
{
    assert(slot < notice->slots);
    CUresult result = notice->write((CUstream)stream, (CUdeviceptr)&notice->lines[slot].value,
                                    value, CU_STREAM_WRITE_VALUE_DEFAULT);
    if (result == CUDA_SUCCESS) return BT_OK;
    return BT_FAIL(err, BT_ERR_DEVICE, "cuStreamWriteValue32: error %d", (int)result);
}

extern "C" uint32_t bt_notice_read(const bt_notice *notice, uint32_t slot)
{
    assert(slot < notice->slots);
    return __atomic_load_n(&notice->lines[slot].value, __ATOMIC_ACQUIRE);
}

extern "C" void *bt_notice_data(bt_notice *notice, uint32_t slot)
{
    assert(slot < notice->slots);
    return notice->lines[slot].data;
}
