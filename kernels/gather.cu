// Rows of a table by index, one block a row; an index outside the table gives NaN, in bytes zeros.
#include "types.cuh"

__device__ __forceinline__ float none(float) { return NAN; }
__device__ __forceinline__ bf16 none(bf16) { return from_float<bf16>(NAN); }
__device__ __forceinline__ uint8_t none(uint8_t) { return 0; }

template <class T> __device__ __forceinline__ T convert(T x, T) { return x; }
__device__ __forceinline__ bf16 convert(float x, bf16) { return from_float<bf16>(x); }
__device__ __forceinline__ float convert(bf16 x, float) { return to_float(x); }

template <class W, class T>
__device__ void gather(const W* table, const unsigned* indices, T* out, int width, unsigned count) {
    unsigned index = indices[blockIdx.x];
    const W* row = table + (long long)index * width;
    out += (long long)blockIdx.x * width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) out[i] = index < count ? convert(row[i], T{}) : none(T{});
}

#define KERNEL(WD, W, XD, X)                                                                                         \
    extern "C" __global__ void __launch_bounds__(256) gather_##WD##_##XD(                                            \
        const W* table, const unsigned* indices, X* out, int width, int count) {                                     \
        gather<W, X>(table, indices, out, width, count);                                                             \
    }
FOR_FLOAT_PAIRS(KERNEL)
KERNEL(u8, uint8_t, u8, uint8_t)
