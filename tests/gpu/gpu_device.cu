/* gpu_device.cu - the conversions of cuda_device.cuh against numerics.h, bit for bit. */
#include "tests/gpu/gpu.h"

#include "kernels/cuda_device.cuh"

namespace
{

__global__ void convert(const float *x, size_t fours, uint32_t *e4m3, uint32_t *int8, uint16_t *up)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= fours) return;
    e4m3[i] = bt_e4m3x4(x + 4 * i);
    int8[i] = bt_int8x4(x + 4 * i);
    for (int k = 0; k < 4; k++) up[4 * i + k] = bt_f16_up(fabsf(x[4 * i + k]));
}

__global__ void values(uint32_t *codes, float *e4m3, float *int8)
{
    uint32_t four = codes[threadIdx.x];
    bt_store<4>(e4m3 + 4 * threadIdx.x, bt_e4m3x4_values(four));
    bt_store<4>(int8 + 4 * threadIdx.x, bt_int8x4_values(four));
}

/* One warp a row of 128. */
__global__ void rows(const float *x, uint32_t *e4m3, uint16_t *e4m3_scale, uint32_t *int8,
                     uint16_t *int8_scale)
{
    size_t at = (size_t)blockIdx.x * 32 + threadIdx.x;
    bt_floats<4> v = bt_load<4>(x + 4 * at);
    float amax = fmaxf(fmaxf(fabsf(v.v[0]), fabsf(v.v[1])), fmaxf(fabsf(v.v[2]), fabsf(v.v[3])));
    amax = bt_lanes_max(amax);
    uint16_t s8 = bt_row_scale(amax, 448.0f), s = bt_row_scale(amax, 127.0f);
    e4m3[at] = bt_row_codes_e4m3(v.v, bt_divider_of(s8));
    int8[at] = bt_row_codes_int8(v.v, bt_divider_of(s));
    e4m3_scale[blockIdx.x] = s8;
    int8_scale[blockIdx.x] = s;
}

__global__ void reduce(const float *x, float *out)
{
    float sum = x[threadIdx.x], most = fabsf(sum);
    float alone = bt_block_max(most), same = bt_block_sum(sum);
    bt_block_sum_max(&sum, &most);
    out[threadIdx.x] = sum;
    out[blockDim.x + threadIdx.x] = most - alone + (sum - same);
}

/* Every exponent, both signs, infinities, NaN, zeros and what is halfway between codes. */
std::vector<float> any_values(gpu *g, size_t count)
{
    std::vector<float> x(count);
    for (float &value : x) {
        uint32_t bits = (uint32_t)bt_rng_u64(&g->rng);
        switch (bt_rng_below(&g->rng, 4)) {
        case 0: break;                                             /* any f32 */
        case 1: bits = (bits & 0xfff80000u) | 0x3c000000u; break;  /* halfway, e4m3 */
        case 2: bits = (bits & 0xffffe000u) | (bits & 1); break;   /* f16, and just above */
        default: bits = (bits & 0x87ffffffu) | 0x38000000u; break; /* sizes that are normal codes */
        }
        value = bt_f32_of_bits(bits);
    }
    const float special[] = {0.0f,     -0.0f,     INFINITY,  -INFINITY, NAN,
                             -NAN,     448.0f,    -464.0f,   464.1f,    65504.0f,
                             65520.0f, 127.5f,    -126.5f,   0.5f,      1.5f,
                             0x1p-10f, 0x1.8p-9f, 0x1p-149f, 0x1p-24f,  0x1.000002p-25f};
    for (size_t i = 0; i < sizeof(special) / sizeof(special[0]); i++) x[i] = special[i];
    return x;
}

void check_values(gpu *g)
{
    size_t count = 1u << 20;
    std::vector<float> x = any_values(g, count);
    float *device = gpu_upload(g, x);
    void *e4m3 = gpu_alloc(g, count), *int8 = gpu_alloc(g, count), *up = gpu_alloc(g, count * 2);
    convert<<<(unsigned)(count / 4 / 256), 256, 0, g->stream>>>(device, count / 4, (uint32_t *)e4m3,
                                                                (uint32_t *)int8, (uint16_t *)up);
    GPU_OK(cudaGetLastError());
    std::vector<uint8_t> want_e4m3(count), want_int8(count);
    std::vector<uint16_t> want_up(count), got_up = gpu_download<uint16_t>(g, up, count);
    for (size_t i = 0; i < count; i++) {
        want_e4m3[i] = bt_f32_to_e4m3(x[i]);
        want_int8[i] = (uint8_t)bt_f32_to_int8(x[i]);
        want_up[i] = x[i] == x[i] ? bt_f32_to_f16_up(std::fabs(x[i])) : got_up[i];
    }
    gpu_expect_equal(g, "e4m3 of any f32", want_e4m3.data(),
                     gpu_download<uint8_t>(g, e4m3, count).data(), count);
    gpu_expect_equal(g, "int8 of any f32", want_int8.data(),
                     gpu_download<uint8_t>(g, int8, count).data(), count);
    gpu_expect_equal(g, "f16, rounded up, of any f32", want_up.data(), got_up.data(), count * 2);
}

void check_decode(gpu *g)
{
    std::vector<uint8_t> codes(256);
    for (int i = 0; i < 256; i++) codes[i] = (uint8_t)i;
    codes[0x7f] = codes[0xff] = 0; /* NaN payloads are not compared */
    std::vector<float> want(512);
    for (int i = 0; i < 256; i++) {
        want[i] = bt_e4m3_to_f32(codes[i]);
        want[256 + i] = (float)(int8_t)codes[i];
    }
    float *out = (float *)gpu_alloc(g, 2048);
    values<<<1, 64, 0, g->stream>>>((uint32_t *)gpu_upload(g, codes), out, out + 256);
    GPU_OK(cudaGetLastError());
    gpu_expect_equal(g, "values of e4m3 and int8 codes", want.data(),
                     gpu_download<float>(g, out, 512).data(), 2048);
}

void check_rows(gpu *g)
{
    constexpr size_t COUNT = 128, ROWS = 20000;
    std::vector<float> x = gpu_normals(g, COUNT * ROWS, 1), wild = any_values(g, COUNT * 64);
    for (size_t row = 0; row < ROWS; row++) { /* scales of every size, f16's subnormal ones too */
        float size = std::exp2((float)bt_rng_below(&g->rng, 60) - 35.0f);
        for (size_t i = 0; i < COUNT; i++) x[row * COUNT + i] *= size;
    }
    std::copy(wild.begin(), wild.end(), x.begin());
    std::fill(x.begin() + 64 * COUNT, x.begin() + 65 * COUNT, -0.0f);
    std::vector<uint8_t> want[2] = {std::vector<uint8_t>(COUNT * ROWS),
                                    std::vector<uint8_t>(COUNT * ROWS)};
    std::vector<uint16_t> want_scale[2] = {std::vector<uint16_t>(ROWS),
                                           std::vector<uint16_t>(ROWS)};
    const bt_dtype dtypes[2] = {BT_DTYPE_FP8_E4M3, BT_DTYPE_INT8};
    void *codes[2], *scales[2];
    for (int d = 0; d < 2; d++) {
        for (size_t row = 0; row < ROWS; row++)
            bt_row_encode(dtypes[d], &x[row * COUNT], COUNT, &want[d][row * COUNT],
                          &want_scale[d][row]);
        codes[d] = gpu_alloc(g, COUNT * ROWS);
        scales[d] = gpu_alloc(g, ROWS * 2);
    }
    rows<<<ROWS, 32, 0, g->stream>>>(gpu_upload(g, x), (uint32_t *)codes[0], (uint16_t *)scales[0],
                                     (uint32_t *)codes[1], (uint16_t *)scales[1]);
    GPU_OK(cudaGetLastError());
    for (int d = 0; d < 2; d++) {
        std::string name = bt_dtype_name(dtypes[d]);
        gpu_expect_equal(g, name + " scales of rows", want_scale[d].data(),
                         gpu_download<uint16_t>(g, scales[d], ROWS).data(), ROWS * 2);
        gpu_expect_equal(g, name + " codes of rows", want[d].data(),
                         gpu_download<uint8_t>(g, codes[d], COUNT * ROWS).data(), COUNT * ROWS);
    }
}

void check_reduce(gpu *g)
{
    for (unsigned threads : {32u, 96u, 1024u}) {
        std::vector<float> x = gpu_normals(g, threads, 1), want(2 * threads, 0.0f);
        double sum = 0;
        for (float &value : x) sum += value = std::fabs(value);
        std::fill(want.begin(), want.begin() + threads, (float)sum);
        float *out = (float *)gpu_alloc(g, threads * 8);
        reduce<<<1, threads, 0, g->stream>>>(gpu_upload(g, x), out);
        GPU_OK(cudaGetLastError());
        gpu_expect(g, "sum and maximum over " + std::to_string(threads) + " threads", want,
                   gpu_download<float>(g, out, 2 * threads), 2e-6);
    }
}

void check(gpu *g)
{
    check_values(g);
    check_decode(g);
    check_rows(g);
    check_reduce(g);
}

} // namespace

GPU_UNIT(device, check, NULL)
