// Rotary position embedding in f32: one thread a pair; or one thread an element where what is not rotated is copied too.
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

// A head's rotated part and the rest of it, side by side: [.. rest, rotated] or, `pe_first`, [rotated, .. rest].
template <class T>
__device__ void rope_join(
    const T* pe, Rows pe_rows, const T* rest, Rows rest_rows, const float* cos, const float* sin, T* out, int heads,
    int half, int rest_width, bool interleaved, bool pe_first, long long elements) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= elements) return;
    int width = 2 * half + rest_width, column = at % width;
    unsigned row = at / width;
    int i = pe_first ? column : column - rest_width;
    if (i < 0 || i >= 2 * half) {
        int from = pe_first ? column - 2 * half : column;
        out[at] = rest[rest_rows.offset(row) + (long long)from * rest_rows.step];
        return;
    }
    bool is_second = interleaved ? i % 2 : i >= half;
    int pair = interleaved ? i / 2 : i % half;
    int first = interleaved ? 2 * pair : pair, second = interleaved ? 2 * pair + 1 : pair + half;
    const T* head = pe + pe_rows.offset(row);
    float a = to_float(head[(long long)first * pe_rows.step]), b = to_float(head[(long long)second * pe_rows.step]);
    long long angle = (long long)(row / heads) * half + pair;
    float c = cos[angle], s = sin[angle];
    out[at] = from_float<T>(
        is_second ? __fadd_rn(__fmul_rn(b, c), __fmul_rn(a, s)) : __fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s)));
}

#define JOIN(dtype, T)                                                                                               \
    extern "C" __global__ void rope_join_##dtype(                                                                    \
        const T* pe, Rows pe_rows, const T* rest, Rows rest_rows, const float* cos, const float* sin, T* out,        \
        int heads, int half, int rest_width, int interleaved, int pe_first, long long elements) {                    \
        rope_join<T>(                                                                                                \
            pe, pe_rows, rest, rest_rows, cos, sin, out, heads, half, rest_width, interleaved != 0, pe_first != 0,   \
            elements);                                                                                               \
    }
FOR_FLOATS(JOIN)
