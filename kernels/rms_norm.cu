// x / sqrt(mean(x²) + eps) · weight of every row: one block a row, sums in f32.
#include "reduce.cuh"
#include "rows.cuh"
#include "types.cuh"

template <class T>
__device__ void rms_norm(const T* x, Rows rows, const float* weight, T* out, int width, float eps) {
    const T* row = x + rows.offset(blockIdx.x);
    float squares = 0.f;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float value = to_float(row[(long long)i * rows.step]);
        squares += value * value;
    }
    float factor = 1.f / sqrtf(block_sum(squares) / width + eps);
    out += (long long)blockIdx.x * width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        out[i] = from_float<T>(to_float(row[(long long)i * rows.step]) * factor * weight[i]);
    }
}

#define KERNEL(dtype, T)                                                                                             \
    extern "C" __global__ void __launch_bounds__(1024) rms_norm_##dtype(                                             \
        const T* x, Rows rows, const float* weight, T* out, int width, float eps) {                                  \
        rms_norm<T>(x, rows, weight, out, width, eps);                                                               \
    }
FOR_FLOATS(KERNEL)
