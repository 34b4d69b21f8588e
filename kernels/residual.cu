// What happens between the parts of a layer: sums with the residual stream, alone or with the norm that follows, and the
// search for numbers that overflowed.
#include "reduce.cuh"
#include "rows.cuh"
#include "types.cuh"

// x + (a + b), or x + a without b, each sum rounded to T.
template <class T> __device__ __forceinline__ T sum_of(const T* x, const T* a, const T* b, long long at) {
    float part = to_float(a[at]);
    if (b) part = to_float(from_float<T>(__fadd_rn(part, to_float(b[at]))));
    return from_float<T>(__fadd_rn(to_float(x[at]), part));
}

// The sum and its RMS norm: one block a row, as in rms_norm.cu.
template <class T>
__device__ void add_rms_norm(const T* x, const T* a, const float* weight, T* sum, T* out, int width, float eps) {
    long long first = (long long)blockIdx.x * width;
    float squares = 0.f;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        T rounded = sum_of<T>(x, a, nullptr, first + i);
        sum[first + i] = rounded;
        float value = to_float(rounded);
        squares += value * value;
    }
    float factor = 1.f / sqrtf(block_sum(squares) / width + eps);
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        out[first + i] = from_float<T>(to_float(sum[first + i]) * factor * weight[i]);
    }
}

#define KERNELS(dtype, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(1024) add_rms_norm_##dtype(                                         \
        const T* x, const T* a, const float* weight, T* sum, T* out, int width, float eps) {                         \
        add_rms_norm<T>(x, a, weight, sum, out, width, eps);                                                         \
    }                                                                                                                \
    extern "C" __global__ void add_##dtype(const T* x, const T* a, const T* b, T* out, long long elements) {         \
        long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;                                             \
        if (at < elements) out[at] = sum_of<T>(x, a, b, at);                                                         \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(1024) first_not_finite_##dtype(                                     \
        const T* x, Rows rows, unsigned long long* first, int width, unsigned index) {                               \
        const T* row = x + rows.offset(blockIdx.x);                                                                  \
        bool bad = false;                                                                                            \
        for (int i = threadIdx.x; i < width; i += blockDim.x) bad |= !isfinite(to_float(row[(long long)i * rows.step])); \
        if (bad) atomicMin(first, (unsigned long long)index << 32 | blockIdx.x);                                     \
    }
FOR_FLOATS(KERNELS)
