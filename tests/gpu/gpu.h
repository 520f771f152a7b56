/* gpu.h - the bench and the tests of the CUDA kernels: one program, one table, for a machine with a GPU.
 *
 * ADD ONE  tests/gpu/gpu_<op>.cu with one GPU_UNIT(op, check, bench). check compares with the reference
 *          (kernels/<op>/<op>_ref.c, on this machine's CPU) over fresh random inputs: small, ragged and
 *          real shapes, shuffled tables, poisoned outputs; bench times the shapes that matter, from a
 *          cold L2, beside the limit that bounds them, measured in the same run.
 * MEMORY   gpu_alloc gives poisoned memory (0xff: NaN in every float format, an id out of range) that
 *          lives to the end of the check or bench.
 * STREAM   Everything is on g->stream, which does not wait for the default stream: cudaMemset and
 *          cudaMemcpy to the device may be done after a kernel that was launched later.
 * ERRORS   Any CUDA error ends the program with the call's name. */
#ifndef BT_TESTS_GPU_GPU_H
#define BT_TESTS_GPU_GPU_H

extern "C" {
#include "common/base/dtype.h"
#include "common/base/rng.h"
#include "kernels/cuda.h"
#include "kernels/numerics.h"
}

#include <functional>
#include <string>
#include <vector>

struct gpu {
    cudaDeviceProp card;
    int arch;         /* bt_cuda_arch() */
    double copy_rate; /* bytes/s of a device-to-device copy, read and written bytes counted; cold */
    double read_rate; /* bytes/s of a kernel that only reads 2 GiB */
    cudaStream_t stream;
    bt_rng rng;
};

struct gpu_unit {
    const char *name;
    void (*check)(gpu *g); /* or NULL */
    void (*bench)(gpu *g); /* or NULL */
};

void gpu_register(const gpu_unit *unit);

#define GPU_UNIT(op, check, bench)                                                                 \
    static const gpu_unit unit_##op = {#op, check, bench};                                         \
    __attribute__((constructor)) static void register_##op()                                       \
    {                                                                                              \
        gpu_register(&unit_##op);                                                                  \
    }

#define GPU_OK(call) gpu_must((call), #call, __FILE__, __LINE__)
void gpu_must(cudaError_t error, const char *call, const char *file, int line);
/* The same for our own launchers: GPU_RUN(bt_x_cuda(&args, g->stream, &err)) with a bt_err named err. */
#define GPU_RUN(call)                                                                              \
    do {                                                                                           \
        bt_err err = {};                                                                           \
        gpu_must_run((call), &err, #call, __FILE__, __LINE__);                                     \
    } while (0)
void gpu_must_run(bt_status status, const bt_err *err, const char *call, const char *file,
                  int line);

/* ---- memory and values ---- */
void *gpu_alloc(gpu *g, size_t bytes);
template <typename T> T *gpu_upload(gpu *g, const std::vector<T> &host)
{
    T *device = (T *)gpu_alloc(g, host.size() * sizeof(T));
    GPU_OK(cudaMemcpyAsync(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice,
                           g->stream));
    GPU_OK(cudaStreamSynchronize(g->stream));
    return device;
}
/* Waits for the stream first. */
template <typename T> std::vector<T> gpu_download(gpu *g, const void *device, size_t count)
{
    std::vector<T> host(count);
    GPU_OK(cudaStreamSynchronize(g->stream));
    GPU_OK(cudaMemcpy(host.data(), device, count * sizeof(T), cudaMemcpyDeviceToHost));
    return host;
}
std::vector<float> gpu_normals(gpu *g, size_t count, float deviation);
std::vector<uint16_t> gpu_to_bf16(const std::vector<float> &values);
std::vector<float> gpu_from_bf16(const std::vector<uint16_t> &codes);
/* 0 .. count-1 in random order: block tables. */
std::vector<uint32_t> gpu_shuffled(gpu *g, uint32_t count);
/* count N(0, deviation) values of F32, F16, BF16 or FP8_E4M3, or uniform bytes for INT8, made on the device. */
void gpu_fill(gpu *g, void *device, bt_dtype dtype, size_t count, float deviation);

/* ---- verdicts: each prints one line; a failure makes the program exit 1 ---- */
/* error = ||got - expected|| / ||expected||; fails above bound, and for anything not finite. */
void gpu_expect(gpu *g, const std::string &what, const std::vector<float> &expected,
                const std::vector<float> &got, double bound);
/* Bit for bit; says where the first difference is. */
void gpu_expect_equal(gpu *g, const std::string &what, const void *expected, const void *got,
                      size_t bytes);
void gpu_expect_true(gpu *g, const std::string &what, bool holds);

/* ---- time ---- */
/* How many sets of inputs of that size do not fit in the L2 together, four times over. 2 .. 64. */
unsigned gpu_cold_sets(const gpu *g, size_t bytes_of_one);
/* Median microseconds of one launch: a graph of many launches, each with the next set, replayed. */
double gpu_time(gpu *g, unsigned sets, const std::function<void(unsigned set)> &launch);

enum gpu_limit { GPU_READ, GPU_COPY, GPU_FLOPS, GPU_NONE };
/* One row of the table. amount: bytes for READ and COPY (read and written counted), flops for FLOPS.
 * reference: for FLOPS the flop/s to compare with (0 for none); ignored for READ and COPY, whose limits
 * are the card's as measured. target: percent that the row must reach; 0 for no target. */
void gpu_row(gpu *g, const std::string &what, double microseconds, gpu_limit limit, double amount,
             double reference, double target);
/* A row that is no rate: a time with a bound in microseconds, 0 for none. */
void gpu_row_time(gpu *g, const std::string &what, double microseconds, double bound);

#endif
