#include "kernels/dispatch.h"

#include <cpuid.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool supports_avx2(void)
{
    __builtin_cpu_init();
    unsigned eax, ebx, ecx, edx; /* clang 14 has no name for f16c */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}

/* Cascade Lake, Ice Lake, Zen 4 and later. __builtin_cpu_supports asks the operating system too. */
static bool supports_avx512(void)
{
    return supports_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
}

/* Sapphire Rapids and later. Linux gives a process the tiles' state only if it asks, and refuses if a
 * signal stack is too small for it. */
static bool supports_amx(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    const unsigned wanted = 1u << 22 | 1u << 24; /* AMX-BF16, AMX-TILE */
    unsigned eax, ebx, ecx, edx;
    return supports_avx512() && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) &&
           (edx & wanted) == wanted && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

static bool supports_any(void)
{
    return true;
}

static const bt_kernels amx = {
    .name = "amx",
    .supported = supports_amx,
    .linear = {&bt_linear_avx512, &bt_linear_bf16_amx, &bt_linear_int8_avx512},
    .matmul = bt_matmul_avx2,
    .bias = bt_bias_avx2,
    .rmsnorm = bt_rmsnorm_avx2,
    .swiglu = bt_swiglu_avx512,
    .attention = bt_attention_avx512,
    .sample = &bt_sample_passes_avx2,
};

static const bt_kernels avx512 = {
    .name = "avx512",
    .supported = supports_avx512,
    .linear = {&bt_linear_avx512, &bt_linear_bf16_avx512, &bt_linear_int8_avx512},
    .matmul = bt_matmul_avx2,
    .rmsnorm = bt_rmsnorm_avx2,
    .swiglu = bt_swiglu_avx512,
    .attention = bt_attention_avx512,
    .bias = bt_bias_avx2,
    .sample = &bt_sample_passes_avx2,
};

static const bt_kernels avx2 = {
    .name = "avx2",
    .supported = supports_avx2,
    .linear = {&bt_linear_avx2, &bt_linear_bf16_avx2, &bt_linear_int8_avx2},
    .matmul = bt_matmul_avx2,
    .rmsnorm = bt_rmsnorm_avx2,
    .swiglu = bt_swiglu_avx2,
    .attention = bt_attention_avx2,
    .bias = bt_bias_avx2,
    .sample = &bt_sample_passes_avx2,
};

static const bt_kernels ref = {
    .name = "ref",
    .supported = supports_any,
    .linear = {&bt_linear_ref, &bt_linear_bf16_ref, &bt_linear_int8_ref},
    .matmul = bt_matmul_ref,
    .rmsnorm = bt_rmsnorm_ref,
    .swiglu = bt_swiglu_ref,
    .attention = bt_attention_ref,
    .bias = bt_bias_ref,
    .sample = &bt_sample_passes_ref,
};

const bt_kernels *const bt_kernels_rows[] = {&amx, &avx512, &avx2, &ref};
const unsigned bt_kernels_row_count = sizeof(bt_kernels_rows) / sizeof(bt_kernels_rows[0]);

const bt_kernels *bt_kernels_best(void)
{
    unsigned i = 0;
    while (!bt_kernels_rows[i]->supported()) i++; /* "ref" ends the search */
    return bt_kernels_rows[i];
}

const bt_kernels *bt_kernels_find(const char *name)
{
    for (unsigned i = 0; i < bt_kernels_row_count; i++) {
        if (strcmp(bt_kernels_rows[i]->name, name) == 0)
            return bt_kernels_rows[i]->supported() ? bt_kernels_rows[i] : NULL;
    }
    return NULL;
}
