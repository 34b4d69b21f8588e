// e4m3 codes with a scale for each tile of [tile_rows, tile_columns], one block a tile; and the packed rows of an FP8
// cache, one block a row.
#include "fp8.cuh"
#include "keys.cuh"
#include "reduce.cuh"
#include "rows.cuh"
#include "types.cuh"

// scale = max(amax, floor) / 448, or times 1/448 where `multiplies`, as activations have it; NaN does not count.
template <class T>
__device__ void quant(
    const T* x, Rows view, f8e4m3* codes, float* scales, int rows, int width, int tile_rows, int tile_columns,
    int multiplies, int ue8m0) {
    __shared__ float parts[WARP];
    int tiles = (width + tile_columns - 1) / tile_columns;
    int row0 = blockIdx.x / tiles * tile_rows, column0 = blockIdx.x % tiles * tile_columns;
    int height = min(tile_rows, rows - row0), breadth = min(tile_columns, width - column0);
    float amax = 0.f;
    for (int i = threadIdx.x; i < height * breadth; i += blockDim.x) {
        int column = column0 + i % breadth;
        amax = fmaxf(amax, fabsf(to_float(x[view.offset(row0 + i / breadth) + (long long)column * view.step])));
    }
    amax = warp_max(amax);
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = amax;
    __syncthreads();
    amax = warp_max(threadIdx.x % WARP < blockDim.x / WARP ? parts[threadIdx.x % WARP] : 0.f);
    float scale = fmaxf(amax, 1e-4f);
    scale = multiplies ? scale * (1.f / E4M3_MAX) : scale / E4M3_MAX;
    if (ue8m0) scale = pow2_ceil(scale);
    if (threadIdx.x == 0) scales[blockIdx.x] = scale;
    for (int i = threadIdx.x; i < height * breadth; i += blockDim.x) {
        int row = row0 + i / breadth, column = column0 + i % breadth;
        float value = to_float(x[view.offset(row) + (long long)column * view.step]);
        codes[(long long)row * width + column] = to_f8e4m3(value / scale);
    }
}

template <class T>
__device__ void dequant(
    const f8e4m3* codes, const float* scales, T* out, int width, int tile_rows, int tile_columns, long long elements) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= elements) return;
    long long row = at / width;
    int column = at % width, tiles = (width + tile_columns - 1) / tile_columns;
    float scale = scales ? scales[row / tile_rows * tiles + column / tile_columns] : 1.f;
    out[at] = from_float<T>(to_float(codes[at]) * scale);
}

// Writes a number of 2 or 4 bytes at any address.
template <class T> __device__ __forceinline__ void put(packed* bytes, T number) {
    unsigned bits = 0;
    memcpy(&bits, &number, sizeof(T));
    // ptxas 13.0 takes the store of a byte of a bf16 for a conversion of the number to an integer.
    asm volatile("" : "+r"(bits));
    for (int i = 0; i < sizeof(T); i++) bytes[i].bits = bits >> (8 * i);
}

// One warp a group of the quantized part; `bytes` is the size of a packed row.
template <class T>
__device__ void row_quant(const T* x, Rows view, packed* out, int quantized, int plain, int bytes, int ue8m0) {
    const T* row = x + view.offset(blockIdx.x);
    out += (long long)blockIdx.x * bytes;
    int lane = threadIdx.x % WARP, groups = (quantized + GROUP - 1) / GROUP;
    for (int group = threadIdx.x / WARP; group < groups; group += blockDim.x / WARP) {
        int first = group * GROUP, end = min(first + GROUP, quantized);
        float amax = 0.f;
        for (int i = first + lane; i < end; i += WARP) amax = fmaxf(amax, fabsf(to_float(row[(long long)i * view.step])));
        float scale = fmaxf(warp_max(amax), 1e-4f) * (1.f / E4M3_MAX);
        if (ue8m0) scale = pow2_ceil(scale);
        for (int i = first + lane; i < end; i += WARP) {
            out[i].bits = to_f8e4m3(to_float(row[(long long)i * view.step]) / scale).bits;
        }
        if (lane == 0) put(out + quantized + 4 * group, scale);
    }
    for (int i = threadIdx.x; i < plain; i += blockDim.x) {
        float value = to_float(row[(long long)(quantized + i) * view.step]);
        put(out + quantized + 4 * groups + 2 * i, from_float<bf16>(value));
    }
}

extern "C" __global__ void fp8_row_dequant(
    const packed* rows, long long stride, float* out, int width, int quantized, long long elements) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < elements) out[at] = element(rows + at / width * stride, at % width, quantized);
}

#define KERNELS(dtype, T)                                                                                            \
    extern "C" __global__ void __launch_bounds__(1024) fp8_quant_##dtype(                                            \
        const T* x, Rows view, f8e4m3* codes, float* scales, int rows, int width, int tile_rows, int tile_columns,   \
        int multiplies, int ue8m0) {                                                                                 \
        quant<T>(x, view, codes, scales, rows, width, tile_rows, tile_columns, multiplies, ue8m0);                   \
    }                                                                                                                \
    extern "C" __global__ void fp8_row_quant_##dtype(                                                                \
        const T* x, Rows view, packed* out, int quantized, int plain, int bytes, int ue8m0) {                        \
        row_quant<T>(x, view, out, quantized, plain, bytes, ue8m0);                                                  \
    }                                                                                                                \
    extern "C" __global__ void fp8_dequant_##dtype(                                                                  \
        const f8e4m3* codes, const float* scales, T* out, int width, int tile_rows, int tile_columns,                \
        long long elements) {                                                                                        \
        dequant<T>(codes, scales, out, width, tile_rows, tile_columns, elements);                                    \
    }
FOR_FLOATS(KERNELS)
