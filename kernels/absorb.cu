// The products with kv_b_proj in MQA mode for few rows: [T, H, ..] with each head's part of the weight, which is read as it
// is stored, once for eight rows; sums in f32, in an order that does not depend on the number of rows.
#include "fp8.cuh"
#include "reduce.cuh"
#include "types.cuh"

constexpr int BLOCK = 128;
// Rows of a block.
constexpr int ROWS = 8;

// kv_b_proj [H * per_head, latent] and the scales of its 128×128 blocks.
template <class W> struct Weight {
    const W* codes;
    const float* scales;
    int latent;

    __device__ __forceinline__ float at(int row, int column) const {
        float value = to_float(codes[(long long)row * latent + column]);
        return scales ? value * scales[(long long)(row / BLOCK) * ((latent + BLOCK - 1) / BLOCK) + column / BLOCK] : value;
    }
};

// out[t, h, l] = Σ_n q[t, h, n] · weight[h * per_head + n, l]: one thread a column; grid (columns / blockDim, H, rows / 8).
template <class X, class W>
__device__ void absorb_query(
    const X* q, long long q_row, long long q_head, Weight<W> weight, X* out, int rows, int dim, int per_head) {
    extern __shared__ float queries[]; // [dim][ROWS]
    int head = blockIdx.y / ((rows + ROWS - 1) / ROWS), first = blockIdx.y % ((rows + ROWS - 1) / ROWS) * ROWS;
    int count = min(ROWS, rows - first), heads = gridDim.y / ((rows + ROWS - 1) / ROWS);
    for (int i = threadIdx.x; i < dim * ROWS; i += blockDim.x) {
        int t = i / dim, n = i % dim;
        queries[n * ROWS + t] = t < count ? to_float(q[(first + t) * q_row + head * q_head + n]) : 0.f;
    }
    __syncthreads();
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= weight.latent) return;
    float sums[ROWS];
#pragma unroll
    for (int t = 0; t < ROWS; t++) sums[t] = 0.f;
#pragma unroll 8
    for (int n = 0; n < dim; n++) {
        float value = weight.at(head * per_head + n, column);
#pragma unroll
        for (int t = 0; t < ROWS; t++) sums[t] += queries[n * ROWS + t] * value;
    }
#pragma unroll
    for (int t = 0; t < ROWS; t++) {
        if (t < count) out[((long long)(first + t) * heads + head) * weight.latent + column] = from_float<X>(sums[t]);
    }
}

// out[t, h, v] = Σ_l latent[t, h, l] · weight[h * per_head + before + v, l]: one warp a column.
template <class X, class W>
__device__ void absorb_value(
    const X* latent, Weight<W> weight, X* out, int rows, int heads, int before, int value_dim) {
    int at = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (at >= heads * value_dim) return;
    int head = at / value_dim, v = at % value_dim, first = blockIdx.y * ROWS, count = min(ROWS, rows - first);
    int row = head * (before + value_dim) + before + v;
    float sums[ROWS];
#pragma unroll
    for (int t = 0; t < ROWS; t++) sums[t] = 0.f;
    for (int l = lane; l < weight.latent; l += WARP) {
        float value = weight.at(row, l);
#pragma unroll
        for (int t = 0; t < ROWS; t++) {
            if (t < count) sums[t] += to_float(latent[((long long)(first + t) * heads + head) * weight.latent + l]) * value;
        }
    }
#pragma unroll
    for (int t = 0; t < ROWS; t++) {
        float sum = warp_sum(sums[t]);
        if (lane == 0 && t < count) out[((long long)(first + t) * heads + head) * value_dim + v] = from_float<X>(sum);
    }
}

#define KERNELS(XD, X, WD, W)                                                                                        \
    extern "C" __global__ void __launch_bounds__(BLOCK) absorb_query_##XD##_##WD(                                    \
        const X* q, long long q_row, long long q_head, const W* weight, const float* scales, X* out, int rows,       \
        int dim, int per_head, int latent) {                                                                         \
        absorb_query<X, W>(q, q_row, q_head, Weight<W>{weight, scales, latent}, out, rows, dim, per_head);           \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(256) absorb_value_##XD##_##WD(                                      \
        const X* latent, const W* weight, const float* scales, X* out, int rows, int heads, int before,              \
        int value_dim, int latent_dim) {                                                                             \
        absorb_value<X, W>(latent, Weight<W>{weight, scales, latent_dim}, out, rows, heads, before, value_dim);      \
    }
FOR_FLOAT_PAIRS(KERNELS)
KERNELS(f32, float, f8e4m3, f8e4m3)
KERNELS(bf16, bf16, f8e4m3, f8e4m3)
