/* work_gpu.cu - layers that spin, and frames by kernels/kv_pack, each on a stream. */
#include "tests/gpu/handoff/work.h"

extern "C" {
#include "kernels/kv_pack/kv_pack_cuda.h"
#include "kernels/notice.h"
}

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include <cuda_bf16.h>

namespace
{

constexpr int CALIBRATION_ROUNDS = 300;
constexpr uint64_t TILE_NS = 20000;

void ok(cudaError_t error, const char *what)
{
    if (error != cudaSuccess) fprintf(stderr, "gpu-handoff: %s: ", cudaGetErrorString(error));
    must(error == cudaSuccess, what);
}

__device__ uint64_t gpu_ns()
{
    uint64_t t;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
    return t;
}

__global__ void spin(uint64_t ns, volatile uint64_t *ret_end)
{
    uint64_t start = gpu_ns();
    while (gpu_ns() - start < ns)
        ;
    *ret_end = gpu_ns();
    __threadfence_system();
}

/* As a matrix product does, it leaves no room on any SM, but not for long. */
__global__ void __launch_bounds__(1024) spin_all(uint64_t ns, volatile uint64_t *ret_end)
{
    uint64_t start = gpu_ns();
    while (gpu_ns() - start < ns)
        ;
    if (threadIdx.x == 0 && blockIdx.x == 0) *ret_end = gpu_ns();
    __threadfence_system();
}

/* Answers each number that the CPU writes with the time. */
__global__ void answer(const volatile uint32_t *asked, volatile uint64_t *ret_times, int rounds)
{
    for (int i = 1; i <= rounds; i++) {
        while (*asked != (uint32_t)i)
            ;
        ret_times[i] = gpu_ns();
        __threadfence_system();
    }
}

__device__ uint32_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return (uint32_t)((x ^ (x >> 31)) >> 16);
}

__global__ void fill_words(uint32_t *out, size_t count, uint32_t seed)
{
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (size_t)gridDim.x * blockDim.x)
        out[i] = mix(((uint64_t)seed << 40) + i);
}

__global__ void fill_bf16(__nv_bfloat16 *out, size_t count)
{
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (size_t)gridDim.x * blockDim.x)
        out[i] = __float2bfloat16(((float)(mix(i) & 0xffff) - 32768.0f) * 1e-4f);
}

__global__ void sum_words(const uint32_t *words, size_t count, unsigned long long *ret_sum)
{
    unsigned long long sum = 0;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (size_t)gridDim.x * blockDim.x)
        sum += (unsigned long long)words[i] * (2 * i + 1);
    atomicAdd(ret_sum, sum);
}

__global__ void __launch_bounds__(512) copy_words(const uint4 *from, uint4 *to, size_t count)
{
    size_t stride = (size_t)gridDim.x * blockDim.x,
           i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    for (; i + 3 * stride < count; i += 4 * stride) {
        uint4 words[4];
        for (int j = 0; j < 4; j++) words[j] = __ldcs(from + i + j * stride);
        for (int j = 0; j < 4; j++) __stcs(to + i + j * stride, words[j]);
    }
    for (; i < count; i += stride) to[i] = from[i];
}

struct work_gpu final : work {
    cudaDeviceProp card;
    cudaStream_t compute, pack;
    cudaEvent_t computed;
    bt_notice *notice;
    uint64_t *ends; /* [LAYERS], pinned: when each ended, by the GPU's clock */
    int64_t clock_offset_ns;
    uint64_t
        *clock_times; /* [CALIBRATION_ROUNDS + 1], pinned; kept, as UCX watches every allocation */
    uint32_t *clock_asked;
    uint8_t key[BT_KEY_BYTES];
    struct {
        bt_dtype wire = BT_DTYPE_NONE;
        bt_kv_digest_key host;
        uint32_t *words = nullptr;
    } digest_key;
    bt_kv_pack_cuda_work *pack_work;
    bt_kv_view kv = {};
    uint32_t *blocks = nullptr;

    explicit work_gpu(const uint8_t key_bytes[BT_KEY_BYTES])
    {
        std::copy(key_bytes, key_bytes + BT_KEY_BYTES, key);
        ok(cudaSetDevice(0), "GPU 0");
        ok(cudaGetDeviceProperties(&card, 0), "its properties");
        int low, high;
        ok(cudaDeviceGetStreamPriorityRange(&low, &high), "priorities");
        ok(cudaStreamCreateWithPriority(&compute, cudaStreamNonBlocking, low), "stream");
        ok(cudaStreamCreateWithPriority(&pack, cudaStreamNonBlocking, high), "stream");
        ok(cudaEventCreateWithFlags(&computed, cudaEventDisableTiming), "event");
        bt_err err;
        must_ok(bt_notice_create(1 + PIECES, &notice, &err), &err, "notices");
        ok(cudaHostAlloc((void **)&ends, LAYERS * sizeof(*ends), cudaHostAllocDefault), "pinned");
        ok(cudaHostAlloc((void **)&clock_times, (CALIBRATION_ROUNDS + 1) * sizeof(*clock_times), 0),
           "pinned");
        ok(cudaHostAlloc((void **)&clock_asked, 64, 0), "pinned");
        ok(cudaMalloc((void **)&pack_work, sizeof(*pack_work)), "memory");
        ok(cudaMemset(pack_work, 0, sizeof(*pack_work)), "memory");
        calibrate();
    }

    /* The offset between the clocks, as the fastest round trip saw it. */
    void calibrate()
    {
        uint64_t *times = clock_times;
        uint32_t *asked = clock_asked;
        std::fill(times, times + CALIBRATION_ROUNDS + 1, 0);
        *asked = 0;
        answer<<<1, 1, 0, compute>>>(asked, times, CALIBRATION_ROUNDS);
        uint64_t best_ns = UINT64_MAX;
        for (int i = 1; i <= CALIBRATION_ROUNDS; i++) {
            uint64_t from_ns = bt_loop_now_ns();
            __atomic_store_n(asked, (uint32_t)i, __ATOMIC_RELEASE);
            while (__atomic_load_n(&times[i], __ATOMIC_ACQUIRE) == 0)
                ;
            uint64_t to_ns = bt_loop_now_ns();
            if (to_ns - from_ns >= best_ns) continue;
            best_ns = to_ns - from_ns;
            clock_offset_ns = (int64_t)(from_ns + best_ns / 2) - (int64_t)times[i];
        }
        ok(cudaStreamSynchronize(compute), "clock");
    }

    void fill(uint8_t *bytes, size_t count, uint32_t seed) override
    {
        fill_words<<<1024, 256, 0, compute>>>((uint32_t *)bytes, count / 4, seed);
        ok(cudaStreamSynchronize(compute), "fill");
    }

    uint64_t sum(const uint8_t *bytes, size_t count) override
    {
        unsigned long long *device, host;
        ok(cudaMalloc((void **)&device, sizeof(*device)), "memory");
        ok(cudaMemset(device, 0, sizeof(*device)), "memory");
        sum_words<<<1024, 256>>>((const uint32_t *)bytes, count / 4, device);
        ok(cudaMemcpy(&host, device, sizeof(host), cudaMemcpyDeviceToHost), "sum");
        ok(cudaFree(device), "free");
        return host;
    }

    void pool_open(bt_dtype dtype, bool random) override
    {
        kv.shape = {dtype, LAYERS, HEADS, HEAD_DIM, BLOCK_TOKENS, TOKENS_MAX / BLOCK_TOKENS};
        size_t bytes = bt_kv_pool_bytes(&kv.shape);
        ok(cudaMalloc((void **)&kv.base, bytes), "pool");
        if (random)
            fill_bf16<<<1024, 256, 0, compute>>>((__nv_bfloat16 *)kv.base, bytes / 2);
        else
            ok(cudaMemsetAsync(kv.base, 0xff, bytes, compute), "pool");
        std::vector<uint32_t> table(kv.shape.pool_blocks);
        for (uint32_t i = 0; i < table.size(); i++) table[i] = i;
        for (uint32_t i = (uint32_t)table.size(); i > 1; i--)
            std::swap(table[i - 1], table[(i * 2654435761u) % i]);
        ok(cudaMalloc((void **)&blocks, table.size() * 4), "table");
        ok(cudaMemcpy(blocks, table.data(), table.size() * 4, cudaMemcpyHostToDevice), "table");
        ok(cudaStreamSynchronize(compute), "pool");
    }

    void pool_close() override
    {
        reset();
        ok(cudaFree(kv.base), "free");
        ok(cudaFree(blocks), "free");
        kv.base = nullptr;
    }

    void raise(cudaStream_t stream, uint32_t slot, uint32_t value)
    {
        bt_err err;
        must_ok(bt_notice_mark(notice, slot, value, stream, &err), &err, "mark");
        if (bell) ok(cudaLaunchHostFunc(stream, (cudaHostFn_t)bt_loop_wake_send, bell), "callback");
    }

    void layer(uint64_t ns, uint32_t layer) override
    {
        if (!full) spin<<<1, 1, 0, compute>>>(ns, &ends[layer]);
        for (uint64_t done_ns = 0; full && done_ns < ns; done_ns += TILE_NS)
            spin_all<<<2 * card.multiProcessorCount, 1024, 0, compute>>>(TILE_NS, &ends[layer]);
        ok(cudaGetLastError(), "a layer");
        raise(compute, SLOT_LAYERS, layer + 1);
    }

    void prepare_key(bt_dtype wire)
    {
        if (digest_key.wire == wire) return;
        size_t record = bt_kv_record_bytes(wire, HEAD_DIM);
        bt_kv_digest_key_make(key, record, &digest_key.host);
        if (!digest_key.words)
            ok(cudaMalloc((void **)&digest_key.words, sizeof(digest_key.host.words)), "key");
        ok(cudaMemcpy(digest_key.words, digest_key.host.words, sizeof(digest_key.host.words),
                      cudaMemcpyHostToDevice),
           "key");
        digest_key.wire = wire;
    }

    void frame(const frame_job &job) override
    {
        prepare_key(job.wire);
        bt_kv_frame_cuda args = {};
        args.kv = kv;
        args.wire = job.wire;
        args.layer = job.frame.layer;
        args.run_first = job.frame.run_first;
        args.run_count = job.frame.run_count;
        args.head_first = job.frame.head_first;
        args.head_count = job.frame.head_count;
        args.token_end = job.frame.token_end;
        args.blocks = blocks;
        args.records = job.records;
        args.key_words = digest_key.words;
        std::copy(digest_key.host.prf, digest_key.host.prf + 16, args.key_prf);
        args.work = pack_work;
        args.ret_digest = (uint64_t *)bt_notice_data(notice, slot_of_piece(job.piece));
        bt_err err;
        if (job.after_layers) {
            ok(cudaEventRecord(computed, compute), "event");
            ok(cudaStreamWaitEvent(pack, computed), "event");
        }
        must_ok(job.pack ? bt_kv_pack_cuda(&args, pack, &err)
                         : bt_kv_unpack_cuda(&args, pack, &err),
                &err, "frame");
        raise(pack, slot_of_piece(job.piece), job.value);
    }

    uint64_t layer_ended_ns(uint32_t layer) override
    {
        return (uint64_t)((int64_t)ends[layer] + clock_offset_ns);
    }

    uint32_t read(uint32_t slot) override
    {
        return bt_notice_read(notice, slot);
    }

    bt_kv_digest digest(uint32_t piece) override
    {
        return *(const bt_kv_digest *)bt_notice_data(notice, slot_of_piece(piece));
    }

    void reset() override
    {
        bt_loop_wake *ring = bell;
        bell = nullptr;
        ok(cudaStreamSynchronize(compute), "layers");
        ok(cudaStreamSynchronize(pack), "frames");
        for (uint32_t slot = 0; slot < 1 + PIECES; slot++) raise(compute, slot, 0);
        ok(cudaStreamSynchronize(compute), "slots");
        bell = ring;
        calibrate();
    }

    /* The best of the driver's copy and of a kernel in several sizes, as gpu-check measures it. */
    double copy_rate() override
    {
        constexpr size_t bytes = (size_t)1 << 30;
        constexpr int copies = 8;
        uint8_t *a, *b;
        cudaEvent_t from, to;
        ok(cudaMalloc((void **)&a, bytes), "memory");
        ok(cudaMalloc((void **)&b, bytes), "memory");
        ok(cudaEventCreate(&from), "event");
        ok(cudaEventCreate(&to), "event");
        fill(a, bytes, 3);
        double best = 0;
        for (int per_sm : {0, 2, 4, 8, 64}) {
            for (int i = 0; i < 2 + copies; i++) {
                if (i == 2) ok(cudaEventRecord(from, compute), "event");
                if (per_sm == 0)
                    ok(cudaMemcpyAsync(b, a, bytes, cudaMemcpyDeviceToDevice, compute), "copy");
                else
                    copy_words<<<card.multiProcessorCount * per_sm, 512, 0, compute>>>(
                        (const uint4 *)a, (uint4 *)b, bytes / 16);
            }
            float ms;
            ok(cudaEventRecord(to, compute), "event");
            ok(cudaStreamSynchronize(compute), "copy");
            ok(cudaEventElapsedTime(&ms, from, to), "time");
            best = std::max(best, 2.0 * bytes * copies / (ms * 1e-3));
        }
        ok(cudaEventDestroy(from), "event");
        ok(cudaEventDestroy(to), "event");
        ok(cudaFree(a), "free");
        ok(cudaFree(b), "free");
        return best;
    }

    const char *name() override
    {
        return card.name;
    }
};

} // namespace

work *work_gpu_open(const uint8_t key[BT_KEY_BYTES])
{
    return new work_gpu(key);
}
