// y = x · weightᵀ for a few rows of x, at the speed at which the weight is read: one warp an output column, all rows of x
// at once, sums in f32. Weights may be e4m3 with a scale for each 128×128 block.
#include "fp8.cuh"
#include "reduce.cuh"
#include "types.cuh"

constexpr int BLOCK = 128;
constexpr int VECTOR_BYTES = 16;

// `COUNT` neighbours, read as vectors where they are aligned to them.
template <int COUNT, class T> __device__ __forceinline__ void load(const T* from, T (&to)[COUNT]) {
    if constexpr (COUNT * sizeof(T) % VECTOR_BYTES == 0) {
#pragma unroll
        for (int i = 0; i < COUNT * sizeof(T) / VECTOR_BYTES; i++) {
            reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
        }
    } else {
#pragma unroll
        for (int i = 0; i < COUNT; i++) to[i] = from[i];
    }
}

template <int M, bool VECTOR, class TX, class TW>
__device__ __forceinline__ void linear_rows(
    const TX* x, const TW* weight, const float* scales, TX* y, int n, int k) {
    constexpr int STEP = VECTOR ? VECTOR_BYTES / sizeof(TW) : 1;
    int lane = threadIdx.x % WARP;
    int column = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (column >= n) return;
    const TW* row = weight + (long long)column * k;
    const float* row_scales = scales ? scales + (long long)(column / BLOCK) * ((k + BLOCK - 1) / BLOCK) : nullptr;
    float sums[M];
#pragma unroll
    for (int m = 0; m < M; m++) sums[m] = 0.f;
    for (int i = lane * STEP; i < k; i += WARP * STEP) {
        alignas(VECTOR_BYTES) TW codes[STEP];
        load(row + i, codes);
        float scale = row_scales ? row_scales[i / BLOCK] : 1.f;
#pragma unroll
        for (int m = 0; m < M; m++) {
            alignas(VECTOR_BYTES) TX values[STEP];
            load(x + (long long)m * k + i, values);
            float part = 0.f;
#pragma unroll
            for (int j = 0; j < STEP; j++) part += to_float(values[j]) * to_float(codes[j]);
            sums[m] += part * scale;
        }
    }
#pragma unroll
    for (int m = 0; m < M; m++) {
        float sum = warp_sum(sums[m]);
        if (lane == 0) y[(long long)m * n + column] = from_float<TX>(sum);
    }
}

// `m`: 1..=8 rows, as `ROWS` in src/ops/linear/cuda.rs says. `vector`: rows of x and of the weight are aligned to
// VECTOR_BYTES and hold whole vectors of the weight.
template <class TX, class TW>
__device__ void linear_rows(
    const TX* x, const TW* weight, const float* scales, TX* y, int m, int n, int k, int vector) {
#define CASE(M)                                                                                                      \
    case M:                                                                                                          \
        if (vector) linear_rows<M, true>(x, weight, scales, y, n, k);                                                \
        else linear_rows<M, false>(x, weight, scales, y, n, k);                                                      \
        break;
    switch (m) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) }
#undef CASE
}

#define KERNEL(XD, X, WD, W)                                                                                         \
    extern "C" __global__ void __launch_bounds__(256) linear_rows_##XD##_##WD(                                       \
        const X* x, const W* weight, const float* scales, X* y, int m, int n, int k, int vector) {                   \
        linear_rows<X, W>(x, weight, scales, y, m, n, k, vector);                                                    \
    }
FOR_FLOAT_PAIRS(KERNEL)
KERNEL(f32, float, f8e4m3, f8e4m3)
KERNEL(bf16, bf16, f8e4m3, f8e4m3)
