// Indices of 32 bits in 64, which candle cannot convert: one thread an index.
#include "rows.cuh"

extern "C" __global__ void indices_i64(const int* from, Rows rows, long long* to, int width, long long elements) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < elements) to[at] = from[rows.offset(at / width) + at % width * rows.step];
}
