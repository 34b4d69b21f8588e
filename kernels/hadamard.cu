// The Walsh-Hadamard transform of every row, in shared memory: one block a row, one thread a pair.
#include "rows.cuh"
#include "types.cuh"

template <class T> __device__ void hadamard(const T* x, Rows rows, T* out, int width, float scale) {
    extern __shared__ float values[];
    const T* row = x + rows.offset(blockIdx.x);
    for (int i = threadIdx.x; i < width; i += blockDim.x) values[i] = to_float(row[(long long)i * rows.step]);
    for (int half = 1; half < width; half *= 2) {
        __syncthreads();
        for (int pair = threadIdx.x; pair < width / 2; pair += blockDim.x) {
            int first = pair / half * 2 * half + pair % half;
            float a = values[first], b = values[first + half];
            values[first] = a + b;
            values[first + half] = a - b;
        }
    }
    __syncthreads();
    out += (long long)blockIdx.x * width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) out[i] = from_float<T>(values[i] * scale);
}

#define KERNEL(dtype, T)                                                                                             \
    extern "C" __global__ void __launch_bounds__(1024) hadamard_##dtype(                                             \
        const T* x, Rows rows, T* out, int width, float scale) {                                                     \
        hadamard<T>(x, rows, out, width, scale);                                                                     \
    }
FOR_FLOATS(KERNEL)
