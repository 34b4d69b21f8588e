// (x - mean) / sqrt(variance + eps) · weight + bias of every row: one block a row, sums in f32.
#include "reduce.cuh"
#include "rows.cuh"
#include "types.cuh"

template <class T>
__device__ void layer_norm(
    const T* x, Rows rows, const float* weight, const float* bias, T* out, int width, float eps) {
    const T* row = x + rows.offset(blockIdx.x);
    float sum = 0.f;
    for (int i = threadIdx.x; i < width; i += blockDim.x) sum += to_float(row[(long long)i * rows.step]);
    float mean = block_sum(sum) / width;
    float squares = 0.f;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float centred = to_float(row[(long long)i * rows.step]) - mean;
        squares += centred * centred;
    }
    float divisor = sqrtf(block_sum(squares) / width + eps);
    out += (long long)blockIdx.x * width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float centred = to_float(row[(long long)i * rows.step]) - mean;
        out[i] = from_float<T>(centred / divisor * weight[i] + bias[i]);
    }
}

#define KERNEL(dtype, T)                                                                                             \
    extern "C" __global__ void __launch_bounds__(1024) layer_norm_##dtype(                                           \
        const T* x, Rows rows, const float* weight, const float* bias, T* out, int width, float eps) {               \
        layer_norm<T>(x, rows, weight, bias, out, width, eps);                                                       \
    }
FOR_FLOATS(KERNEL)
