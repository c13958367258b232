/* The hot loops, compiled for each set of instructions. */
#include "internal.h"

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif
#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)

#if LSAN_X86
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(                                                                                   \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c"))), apply_to = function \
)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")
#endif
#define LEVEL 2
#define NAME(x) JOIN(x, _avx512)
#include "kernels.inc"
#undef LEVEL
#undef NAME
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#define LEVEL 1
#define NAME(x) JOIN(x, _avx2)
#include "kernels.inc"
#undef LEVEL
#undef NAME
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

#define LEVEL 0
#define NAME(x) JOIN(x, _portable)
#include "kernels.inc"

const lsan_kernels *lsan_choose_kernels(lsan_instructions most) {
#if LSAN_X86
    __builtin_cpu_init();
    if (most >= LSAN_AVX2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        if (most >= LSAN_AVX512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni")) {
            return &lsan_kernels_avx512;
        }
        return &lsan_kernels_avx2;
    }
#endif
    (void)most;
    return &lsan_kernels_portable;
}
