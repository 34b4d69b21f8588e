// Rotary position embedding: one thread a pair, in f32.
#include "rows.cuh"
#include "types.cuh"

template <class T>
__device__ void rope(
    const T* x, Rows rows, const float* cos, const float* sin, T* out, int heads, int half, bool interleaved,
    long long pairs) {
    long long pair = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (pair >= pairs) return;
    long long row = pair / half;
    int i = pair % half;
    long long angle = row / heads * half + i;
    int first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : i + half;
    const T* head = x + rows.offset(row);
    float a = to_float(head[(long long)first * rows.step]), b = to_float(head[(long long)second * rows.step]);
    float c = cos[angle], s = sin[angle];
    out += row * 2 * half;
    // Rounded after each product, as on CPU.
    out[first] = from_float<T>(__fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s)));
    out[second] = from_float<T>(__fadd_rn(__fmul_rn(b, c), __fmul_rn(a, s)));
}

#define KERNEL(dtype, T)                                                                                             \
    extern "C" __global__ void rope_##dtype(                                                                         \
        const T* x, Rows rows, const float* cos, const float* sin, T* out, int heads, int half, int interleaved,     \
        long long pairs) {                                                                                           \
        rope<T>(x, rows, cos, sin, out, heads, half, interleaved != 0, pairs);                                       \
    }
FOR_FLOATS(KERNEL)
