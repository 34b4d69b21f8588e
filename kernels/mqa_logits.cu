// The indexer's scores: one block a row and a page of columns, one warp eight keys, heads in turn. Any GPU.
#include "keys.cuh"
#include "layout.cuh"
#include "reduce.cuh"
#include "types.cuh"

// Keys of a warp; a block of eight warps covers a page.
constexpr int KEYS = 8;

template <int K_LANE, class TQ, class TK>
__device__ void mqa_logits(
    const TQ* q, long long q_row, long long q_head, const TK* keys, long long key_stride, const float* weights,
    Layout layout, float* out, int heads, int dim, int columns) {
    int lane = threadIdx.x % WARP, first = (blockIdx.y * (blockDim.x / WARP) + threadIdx.x / WARP) * KEYS;
    long long t = blockIdx.x;
    Seen seen(layout, t);
    float totals[KEYS];
#pragma unroll
    for (int i = 0; i < KEYS; i++) totals[i] = 0.f;
    if (first <= seen.position) {
        float key[KEYS][K_LANE];
#pragma unroll
        for (int i = 0; i < KEYS; i++) {
            bool is_seen = first + i <= seen.position;
            const TK* row = keys + (is_seen ? (long long)seen.slot(first + i) : 0) * key_stride;
#pragma unroll
            for (int c = 0; c < K_LANE; c++) {
                key[i][c] = is_seen && lane + WARP * c < dim ? element(row, lane + WARP * c, dim) : 0.f;
            }
        }
        for (int head = 0; head < heads; head++) {
            const TQ* query = q + t * q_row + head * q_head;
            float weight = weights[t * heads + head], value[K_LANE];
#pragma unroll
            for (int c = 0; c < K_LANE; c++) value[c] = lane + WARP * c < dim ? to_float(query[lane + WARP * c]) : 0.f;
#pragma unroll
            for (int i = 0; i < KEYS; i++) {
                float dot = 0.f;
#pragma unroll
                for (int c = 0; c < K_LANE; c++) dot += value[c] * key[i][c];
                dot = warp_sum(dot);
                // Not fmaxf, which turns NaN into 0.
                totals[i] += weight * (dot <= 0.f ? 0.f : dot);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < KEYS; i++) {
        int column = first + i;
        if (lane == i && column < columns) out[t * columns + column] = column <= seen.position ? totals[i] : -INFINITY;
    }
}

#define KERNEL_OF(QD, Q, KD, K, name, lanes)                                                                         \
    extern "C" __global__ void __launch_bounds__(256) mqa_logits_##QD##_##KD##_##name(                               \
        const Q* q, long long q_row, long long q_head, const K* keys, long long key_stride, const float* weights,    \
        const uint4* spans, const unsigned* pages, int count, float* out, int heads, int dim, int columns) {         \
        mqa_logits<lanes>(                                                                                           \
            q, q_row, q_head, keys, key_stride, weights, Layout{spans, pages, count}, out, heads, dim, columns);     \
    }
#define KERNEL(QD, Q, KD, K) KERNEL_OF(QD, Q, KD, K, narrow, 4) KERNEL_OF(QD, Q, KD, K, wide, 8)
FOR_FLOAT_PAIRS(KERNEL)
KERNEL(f32, float, u8, packed)
KERNEL(bf16, bf16, u8, packed)
KERNEL(f8e4m3, f8e4m3, f32, float)
KERNEL(f8e4m3, f8e4m3, bf16, bf16)
KERNEL(f8e4m3, f8e4m3, u8, packed)
