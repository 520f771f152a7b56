/* gpu.cu - `gpu-check [--only NAME,…] [--check | --bench] [--seed N] [--json FILE] [--list]`: runs the units
 * of gpu.h. Exits 1 if a check failed; a bench row below its target is told, and fails nothing: figures
 * are for people to judge. */
#include "tests/gpu/gpu.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

namespace
{

struct options {
    bool check = true, bench = true, list = false;
    const char *json = nullptr;
    std::vector<std::string> only;
    uint64_t seed = 0;
};

std::vector<const gpu_unit *> &units()
{
    static std::vector<const gpu_unit *> all;
    return all;
}

std::vector<void *> allocated;
const char *unit_name = "";
unsigned passed, failed, met, missed;
FILE *json;
bool json_began;

void json_line(const char *format, ...)
{
    if (!json) return;
    fputs(json_began ? ",\n" : "[\n", json);
    json_began = true;
    va_list list;
    va_start(list, format);
    vfprintf(json, format, list);
    va_end(list);
}

void verdict(bool holds, const std::string &what, const char *format, ...)
{
    char detail[256];
    va_list list;
    va_start(list, format);
    vsnprintf(detail, sizeof(detail), format, list);
    va_end(list);
    (holds ? passed : failed)++;
    printf("%-4s %-18s %-60s %s\n", holds ? "ok" : "FAIL", unit_name, what.c_str(), detail);
    fflush(stdout);
    json_line("{\"unit\": \"%s\", \"check\": \"%s\", \"ok\": %s, \"detail\": \"%s\"}", unit_name,
              what.c_str(), holds ? "true" : "false", detail);
}

void free_all()
{
    for (void *p : allocated) GPU_OK(cudaFree(p));
    allocated.clear();
}

__device__ uint32_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return (uint32_t)((x ^ (x >> 31)) >> 16);
}

__global__ void fill(void *out, int dtype, size_t count, float deviation, uint64_t seed)
{
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (size_t)gridDim.x * blockDim.x) {
        uint32_t a = mix(seed + 2 * i), b = mix(seed + 2 * i + 1);
        float u = (a + 1.0f) * 0x1p-32f, turn = b * 0x1p-32f;
        float x = deviation * sqrtf(-2 * logf(fminf(u, 1.0f))) * cospif(2 * turn);
        switch (dtype) {
        case BT_DTYPE_F32: ((float *)out)[i] = x; break;
        case BT_DTYPE_F16: ((__half *)out)[i] = __float2half(x); break;
        case BT_DTYPE_BF16: ((__nv_bfloat16 *)out)[i] = __float2bfloat16(x); break;
        case BT_DTYPE_FP8_E4M3:
            ((__nv_fp8_storage_t *)out)[i] = __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
            break;
        default: ((uint8_t *)out)[i] = (uint8_t)a; break;
        }
    }
}

/* Integer maximum over everything: nothing but reading. */
__global__ void __launch_bounds__(512) read_all(const uint4 *data, size_t count, uint32_t *out)
{
    uint32_t most = 0;
    size_t stride = (size_t)gridDim.x * blockDim.x;
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    for (; i + 3 * stride < count; i += 4 * stride) {
        uint4 a = data[i], b = data[i + stride], c = data[i + 2 * stride], d = data[i + 3 * stride];
        most = max(most, max(max(max(a.x, a.y), max(a.z, a.w)), max(max(b.x, b.y), max(b.z, b.w))));
        most = max(most, max(max(max(c.x, c.y), max(c.z, c.w)), max(max(d.x, d.y), max(d.z, d.w))));
    }
    for (; i < count; i += stride) most = max(most, data[i].x);
    if (most == 1) *out = most;
}

/* 16 bytes for each thread and turn, four turns in flight. */
__global__ void __launch_bounds__(512) copy_all(const uint4 *from, uint4 *to, size_t count)
{
    size_t stride = (size_t)gridDim.x * blockDim.x;
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    for (; i + 3 * stride < count; i += 4 * stride) {
        uint4 a = __ldcs(from + i), b = __ldcs(from + i + stride);
        uint4 c = __ldcs(from + i + 2 * stride), d = __ldcs(from + i + 3 * stride);
        __stcs(to + i, a);
        __stcs(to + i + stride, b);
        __stcs(to + i + 2 * stride, c);
        __stcs(to + i + 3 * stride, d);
    }
    for (; i < count; i += stride) to[i] = from[i];
}

/* The best of several ways to do nothing else: a limit measured too low would flatter every row. */
void measure_limits(gpu *g)
{
    size_t bytes = (size_t)2 << 30, half = bytes / 2;
    char *a = (char *)gpu_alloc(g, bytes), *b = (char *)gpu_alloc(g, bytes);
    gpu_fill(g, a, BT_DTYPE_INT8, bytes, 0);
    double copy = gpu_time(g, 2, [&](unsigned set) {
        GPU_OK(cudaMemcpyAsync(b + set * half, a + set * half, half, cudaMemcpyDeviceToDevice,
                               g->stream));
    });
    g->copy_rate = 2.0 * half / copy * 1e6;
    for (int per_sm : {2, 4, 8, 64}) {
        int blocks = g->card.multiProcessorCount * per_sm;
        copy = gpu_time(g, 2, [&](unsigned set) {
            copy_all<<<blocks, 512, 0, g->stream>>>((const uint4 *)(a + set * half),
                                                    (uint4 *)(b + set * half), half / 16);
        });
        g->copy_rate = std::max(g->copy_rate, 2.0 * half / copy * 1e6);
        double read = gpu_time(g, 1, [&](unsigned) {
            read_all<<<blocks, 512, 0, g->stream>>>((const uint4 *)a, bytes / 16, (uint32_t *)b);
        });
        g->read_rate = std::max(g->read_rate, bytes / read * 1e6);
    }
    free_all();
}

bool chosen(const options &o, const gpu_unit *unit)
{
    return o.only.empty() || std::find(o.only.begin(), o.only.end(), unit->name) != o.only.end();
}

int usage(FILE *where)
{
    fputs("usage: gpu-check [--only NAME,...] [--check | --bench] [--seed N] [--json FILE] "
          "[--list]\n",
          where);
    return 2;
}

bool parse(int argc, char **argv, options *o)
{
    for (int i = 1; i < argc; i++) {
        std::string a = argv[i];
        bool has_value = i + 1 < argc;
        if (a == "--check") {
            o->bench = false;
        } else if (a == "--bench") {
            o->check = false;
        } else if (a == "--list") {
            o->list = true;
        } else if (a == "--json" && has_value) {
            o->json = argv[++i];
        } else if (a == "--seed" && has_value) {
            o->seed = strtoull(argv[++i], nullptr, 10);
        } else if (a == "--only" && has_value) {
            std::string names = argv[++i];
            for (size_t at = 0; at <= names.size();) {
                size_t end = std::min(names.find(',', at), names.size());
                o->only.push_back(names.substr(at, end - at));
                at = end + 1;
            }
        } else {
            fprintf(stderr, "gpu-check: cannot use argument '%s'\n", argv[i]);
            return false;
        }
    }
    for (const std::string &name : o->only) {
        bool known = std::any_of(units().begin(), units().end(),
                                 [&](const gpu_unit *u) { return name == u->name; });
        if (!known) {
            fprintf(stderr, "gpu-check: there is no unit '%s'; --list names them\n", name.c_str());
            return false;
        }
    }
    return true;
}

} // namespace

void gpu_register(const gpu_unit *unit)
{
    units().push_back(unit);
}

void gpu_must(cudaError_t error, const char *call, const char *file, int line)
{
    if (error == cudaSuccess) return;
    fflush(stdout);
    fprintf(stderr, "%s:%d: %s: %s (unit %s)\n", file, line, call, cudaGetErrorString(error),
            unit_name);
    exit(1);
}

void gpu_must_run(bt_status status, const bt_err *err, const char *call, const char *file, int line)
{
    if (status == BT_OK) return;
    fflush(stdout);
    fprintf(stderr, "%s:%d: %s: %s (unit %s)\n", file, line, call, err->message, unit_name);
    exit(1);
}

void *gpu_alloc(gpu *g, size_t bytes)
{
    void *p;
    bytes = std::max<size_t>(bytes, 16);
    GPU_OK(cudaMalloc(&p, bytes));
    GPU_OK(cudaMemsetAsync(p, 0xff, bytes, g->stream));
    allocated.push_back(p);
    return p;
}

std::vector<float> gpu_normals(gpu *g, size_t count, float deviation)
{
    std::vector<float> values(count);
    for (size_t i = 0; i < count; i++) {
        double u = 1 - bt_rng_double(&g->rng), turn = bt_rng_double(&g->rng);
        values[i] = (float)(deviation * std::sqrt(-2 * std::log(u)) * std::cos(2 * M_PI * turn));
    }
    return values;
}

std::vector<uint16_t> gpu_to_bf16(const std::vector<float> &values)
{
    std::vector<uint16_t> codes(values.size());
    for (size_t i = 0; i < values.size(); i++) codes[i] = bt_f32_to_bf16(values[i]);
    return codes;
}

std::vector<float> gpu_from_bf16(const std::vector<uint16_t> &codes)
{
    std::vector<float> values(codes.size());
    for (size_t i = 0; i < codes.size(); i++) values[i] = bt_bf16_to_f32(codes[i]);
    return values;
}

std::vector<uint32_t> gpu_shuffled(gpu *g, uint32_t count)
{
    std::vector<uint32_t> order(count);
    for (uint32_t i = 0; i < count; i++) order[i] = i;
    for (uint32_t i = count; i > 1; i--) std::swap(order[i - 1], order[bt_rng_below(&g->rng, i)]);
    return order;
}

void gpu_fill(gpu *g, void *device, bt_dtype dtype, size_t count, float deviation)
{
    fill<<<g->card.multiProcessorCount * 8, 256, 0, g->stream>>>(device, dtype, count, deviation,
                                                                 bt_rng_u64(&g->rng));
    GPU_OK(cudaGetLastError());
}

void gpu_expect(gpu *, const std::string &what, const std::vector<float> &expected,
                const std::vector<float> &got, double bound)
{
    double difference = 0, norm = 0;
    size_t broken = 0, first = 0;
    bool same = expected.size() == got.size();
    for (size_t i = 0; same && i < got.size(); i++) {
        if (!std::isfinite(got[i]) && broken++ == 0) first = i;
        double d = (double)got[i] - expected[i];
        difference += d * d;
        norm += (double)expected[i] * expected[i];
    }
    double error = norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
    if (!same)
        verdict(false, what, "%zu values, %zu expected", got.size(), expected.size());
    else if (broken)
        verdict(false, what, "%zu values are not finite, the first at %zu", broken, first);
    else
        verdict(error <= bound, what, "error %.2e (bound %.0e)", error, bound);
}

void gpu_expect_equal(gpu *, const std::string &what, const void *expected, const void *got,
                      size_t bytes)
{
    const uint8_t *a = (const uint8_t *)expected, *b = (const uint8_t *)got;
    size_t at = 0;
    while (at < bytes && a[at] == b[at]) at++;
    if (at == bytes)
        verdict(true, what, "%zu bytes equal", bytes);
    else
        verdict(false, what, "byte %zu of %zu is %02x, expected %02x", at, bytes, b[at], a[at]);
}

void gpu_expect_true(gpu *, const std::string &what, bool holds)
{
    verdict(holds, what, "");
}

unsigned gpu_cold_sets(const gpu *g, size_t bytes_of_one)
{
    size_t sets = 4 * (size_t)g->card.l2CacheSize / std::max<size_t>(bytes_of_one, 1) + 1;
    return (unsigned)std::min<size_t>(std::max<size_t>(sets, 2), 64);
}

double gpu_time(gpu *g, unsigned sets, const std::function<void(unsigned)> &launch)
{
    constexpr int REPLAYS = 9;
    constexpr double GRAPH_US = 3000;
    cudaEvent_t from, to;
    GPU_OK(cudaEventCreate(&from));
    GPU_OK(cudaEventCreate(&to));
    for (unsigned set = 0; set < sets; set++) launch(set);
    GPU_OK(cudaEventRecord(from, g->stream));
    for (unsigned set = 0; set < sets; set++) launch(set);
    GPU_OK(cudaEventRecord(to, g->stream));
    GPU_OK(cudaStreamSynchronize(g->stream));
    float ms;
    GPU_OK(cudaEventElapsedTime(&ms, from, to));
    unsigned rounds = (unsigned)std::min(200.0, std::max(1.0, GRAPH_US / (ms * 1e3)));

    cudaGraph_t graph;
    cudaGraphExec_t exec;
    GPU_OK(cudaStreamBeginCapture(g->stream, cudaStreamCaptureModeThreadLocal));
    for (unsigned r = 0; r < rounds; r++)
        for (unsigned set = 0; set < sets; set++) launch(set);
    GPU_OK(cudaStreamEndCapture(g->stream, &graph));
    GPU_OK(cudaGraphInstantiate(&exec, graph, 0));
    std::vector<double> times;
    for (int i = 0; i < REPLAYS + 1; i++) {
        GPU_OK(cudaEventRecord(from, g->stream));
        GPU_OK(cudaGraphLaunch(exec, g->stream));
        GPU_OK(cudaEventRecord(to, g->stream));
        GPU_OK(cudaStreamSynchronize(g->stream));
        GPU_OK(cudaEventElapsedTime(&ms, from, to));
        if (i > 0) times.push_back(ms * 1e3 / rounds / sets);
    }
    GPU_OK(cudaGraphExecDestroy(exec));
    GPU_OK(cudaGraphDestroy(graph));
    GPU_OK(cudaEventDestroy(from));
    GPU_OK(cudaEventDestroy(to));
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

void gpu_row(gpu *g, const std::string &what, double microseconds, gpu_limit limit, double amount,
             double reference, double target)
{
    double rate = amount / microseconds * 1e6;
    double most = limit == GPU_READ ? g->read_rate : limit == GPU_COPY ? g->copy_rate : reference;
    double percent = limit != GPU_NONE && most > 0 ? 100 * rate / most : 0;
    const char *verdict_text = target <= 0 ? "" : percent >= target ? "met" : "MISSED";
    if (target > 0) (percent >= target ? met : missed)++;
    char of[64] = "", aim[32] = "";
    static const char *const names[] = {"reading", "copying", "the reference", ""};
    if (percent > 0) snprintf(of, sizeof(of), "%5.1f %% of %s", percent, names[limit]);
    if (target > 0) snprintf(aim, sizeof(aim), "target %.0f %s", target, verdict_text);
    printf("%-18s %-56s %9.2f us %9.1f %s  %-26s %s\n", unit_name, what.c_str(), microseconds,
           rate * (limit == GPU_FLOPS ? 1e-12 : 1e-9), limit == GPU_FLOPS ? "TFLOP/s" : "GB/s   ",
           of, aim);
    fflush(stdout);
    json_line("{\"unit\": \"%s\", \"row\": \"%s\", \"us\": %.3f, \"rate\": %.6g, \"percent\": "
              "%.2f, \"target\": %g}",
              unit_name, what.c_str(), microseconds, rate, percent, target);
}

void gpu_row_time(gpu *, const std::string &what, double microseconds, double bound)
{
    char aim[48] = "";
    if (bound > 0) {
        (microseconds <= bound ? met : missed)++;
        snprintf(aim, sizeof(aim), "at most %.0f us: %s", bound,
                 microseconds <= bound ? "met" : "MISSED");
    }
    printf("%-18s %-56s %9.2f us  %s\n", unit_name, what.c_str(), microseconds, aim);
    fflush(stdout);
    json_line("{\"unit\": \"%s\", \"row\": \"%s\", \"us\": %.3f, \"bound\": %g}", unit_name,
              what.c_str(), microseconds, bound);
}

int main(int argc, char **argv)
{
    options o;
    if (!parse(argc, argv, &o)) return usage(stderr);
    std::sort(units().begin(), units().end(),
              [](const gpu_unit *a, const gpu_unit *b) { return strcmp(a->name, b->name) < 0; });
    if (o.list) {
        for (const gpu_unit *unit : units()) puts(unit->name);
        return 0;
    }
    gpu g = {};
    cudaError_t error = cudaSetDevice(0);
    if (error != cudaSuccess) {
        fprintf(stderr, "gpu-check: no GPU can be used: %s\n", cudaGetErrorString(error));
        return 1;
    }
    GPU_OK(cudaGetDeviceProperties(&g.card, 0));
    g.arch = bt_cuda_arch();
    if (g.arch == 0) {
        fprintf(stderr, "gpu-check: no code of this build runs on %s (sm_%d%d)\n", g.card.name,
                g.card.major, g.card.minor);
        return 1;
    }
    GPU_OK(cudaStreamCreateWithFlags(&g.stream, cudaStreamNonBlocking));
    if (o.seed == 0) o.seed = (uint64_t)time(nullptr);
    bt_rng_init(&g.rng, o.seed);
    if (o.json && !(json = fopen(o.json, "w"))) {
        perror(o.json);
        return 1;
    }
    printf("%s, sm_%d%d, code for sm_%d, %d SMs, L2 %d MiB, seed %llu\n", g.card.name, g.card.major,
           g.card.minor, g.arch, g.card.multiProcessorCount, g.card.l2CacheSize >> 20,
           (unsigned long long)o.seed);
    if (o.bench) {
        measure_limits(&g);
        printf("limits: reading %.0f GB/s, copying %.0f GB/s (read and written bytes)\n",
               g.read_rate * 1e-9, g.copy_rate * 1e-9);
        json_line("{\"card\": \"%s\", \"read_rate\": %.6g, \"copy_rate\": %.6g}", g.card.name,
                  g.read_rate, g.copy_rate);
    }
    for (const gpu_unit *unit : units()) {
        if (!chosen(o, unit)) continue;
        unit_name = unit->name;
        if (o.check && unit->check) unit->check(&g);
        free_all();
        if (o.bench && unit->bench) unit->bench(&g);
        free_all();
    }
    if (json) {
        fputs("\n]\n", json);
        fclose(json);
    }
    if (o.bench) printf("%u targets met, %u missed\n", met, missed);
    if (o.check) printf("%u passed, %u failed\n", passed, failed);
    return failed > 0;
}
