// Two tensors side by side in the last dimension, byte for byte: one thread an element.
#include "rows.cuh"

template <class T>
__device__ void join(const T* a, Rows a_rows, const T* b, Rows b_rows, T* out, int a_width, int width, long long elements) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= elements) return;
    unsigned row = at / width;
    int column = at % width;
    out[at] = column < a_width ? a[a_rows.offset(row) + (long long)column * a_rows.step]
                               : b[b_rows.offset(row) + (long long)(column - a_width) * b_rows.step];
}

#define KERNEL(bits, T)                                                                                              \
    extern "C" __global__ void join_##bits(                                                                          \
        const T* a, Rows a_rows, const T* b, Rows b_rows, T* out, int a_width, int width, long long elements) {      \
        join<T>(a, a_rows, b, b_rows, out, a_width, width, elements);                                                \
    }
KERNEL(16bit, uint16_t)
KERNEL(32bit, uint32_t)
