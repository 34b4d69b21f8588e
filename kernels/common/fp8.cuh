// The e4m3fn number format: 4 bits of exponent (bias 7), 3 of mantissa, largest value 448, no infinity.
#pragma once

#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cstdint>

struct f8e4m3 {
    uint8_t bits;
};

constexpr float E4M3_MAX = 448.f;

__device__ __forceinline__ float to_float(f8e4m3 x) {
#if __CUDA_ARCH__ >= 890
    // One instruction; every code is a half.
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(x.bits, __NV_E4M3)));
#else
    unsigned magnitude = x.bits & 0x7fu, sign = (unsigned)(x.bits >> 7) << 31;
    float value = magnitude < 8 ? magnitude * (1.f / 512.f) : __uint_as_float((magnitude << 20) + (120u << 23));
    if (magnitude == 0x7f) value = NAN;
    return __uint_as_float(__float_as_uint(value) | sign);
#endif
}

// The code nearest to x clamped to ±448, ties to even; NaN becomes 0x7f.
__device__ __forceinline__ f8e4m3 to_f8e4m3(float x) {
    float clamped = fminf(fabsf(x), E4M3_MAX);
    unsigned bits = __float_as_uint(clamped);
    unsigned normal = ((bits + 0x7ffffu + ((bits >> 20) & 1u)) >> 20) - (120u << 3);
    // Adding 2^14 rounds to a multiple of 2^-9, the spacing below 2^-6.
    unsigned subnormal = __float_as_uint(clamped + 16384.f) - __float_as_uint(16384.f);
    unsigned magnitude = clamped < 0.015625f ? subnormal : normal;
    if (x != x) magnitude = 0x7f;
    return f8e4m3{(uint8_t)(magnitude | (__float_as_uint(x) >> 31 << 7))};
}

// The least power of two that is not below a positive x; infinity stays.
__device__ __forceinline__ float pow2_ceil(float x) {
    unsigned bits = __float_as_uint(x);
    return __uint_as_float(((bits >> 23) + ((bits & 0x7fffffu) != 0)) << 23);
}
