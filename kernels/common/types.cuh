// The element types of the kernels, as candle spells them, and their conversions to and from f32.
#pragma once

#include <cuda_bf16.h>
#include <cstdint>

using bf16 = __nv_bfloat16;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }

template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }

// Expands M(dtype, type) for every dtype of activations.
#define FOR_FLOATS(M) M(f32, float) M(bf16, bf16)
// Expands M(first dtype, type, second dtype, type) for every pair of them.
#define FOR_FLOAT_PAIRS(M) M(f32, float, f32, float) M(f32, float, bf16, bf16) M(bf16, bf16, f32, float) M(bf16, bf16, bf16, bf16)
