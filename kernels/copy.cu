// A tensor of any strides laid out in order, in the same or another dtype, or multiplied: one thread an element.
#include "rows.cuh"
#include "types.cuh"

#define KERNEL(FD, F, TD, T)                                                                                         \
    extern "C" __global__ void copy_##FD##_##TD(const F* from, Rows rows, T* to, int width, long long elements) {    \
        long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;                                             \
        if (at < elements) to[at] = from_float<T>(to_float(from[rows.offset(at / width) + at % width * rows.step])); \
    }
FOR_FLOAT_PAIRS(KERNEL)

// (x · factor) · by, or x · factor.
extern "C" __global__ void scale_f32(const float* x, const float* by, float* out, float factor, long long elements) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= elements) return;
    float value = __fmul_rn(x[at], factor);
    out[at] = by ? __fmul_rn(value, by[at]) : value;
}

// x as the sum of three bf16, [3, elements], the largest part first: products with bf16 are then exact in f32.
extern "C" __global__ void split_f32(const float* x, bf16* parts, long long elements) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= elements) return;
    float rest = x[at];
    bool finite = isfinite(rest);
#pragma unroll
    for (int part = 0; part < 3; part++) {
        bf16 own = from_float<bf16>(rest);
        parts[part * elements + at] = own;
        rest = finite ? rest - to_float(own) : 0.f;
    }
}
