// The indexer's scores for narrow f32 keys: one thread a key, which it keeps in registers for several rows of queries in shared
// memory. Any GPU.
#include "layout.cuh"
#include "types.cuh"

constexpr int THREADS = 128;
// Rows of a block, and the widest key.
constexpr int ROWS = 8;
constexpr int DIM = 32;

// Shared memory: ROWS * heads * (DIM + 1) floats, the queries and the heads' weights.
extern "C" __global__ void __launch_bounds__(THREADS) mqa_logits_narrow_f32(
    const float* q, long long q_row, long long q_head, const float* keys, long long key_stride, const float* weights,
    const uint4* spans, const unsigned* pages, int count, float* out, long long out_row, int tokens, int heads, int dim,
    int columns) {
    extern __shared__ __align__(16) float queries[];
    float* factors = queries + ROWS * heads * DIM;
    int first = blockIdx.x * ROWS, rows = min(ROWS, tokens - first), column = blockIdx.y * THREADS + threadIdx.x;
    Layout layout{spans, pages, count};
    for (int i = threadIdx.x; i < rows * heads * DIM; i += THREADS) {
        int at = i % DIM, head = i / DIM % heads, row = i / DIM / heads;
        queries[i] = at < dim ? q[(first + row) * q_row + head * q_head + at] : 0.f;
    }
    for (int i = threadIdx.x; i < rows * heads; i += THREADS) factors[i] = weights[(long long)first * heads + i];
    __syncthreads();
    if (column >= columns) return;
    const unsigned* loaded = nullptr;
    float key[DIM];
    for (int row = 0; row < rows; row++) {
        Seen seen(layout, first + row);
        float total = -INFINITY;
        if (column <= seen.position) {
            if (loaded != seen.pages) {
                loaded = seen.pages;
                const float* from = keys + (long long)seen.slot(column) * key_stride;
                if (dim == DIM && key_stride % 4 == 0 && (uintptr_t)keys % 16 == 0) {
#pragma unroll
                    for (int at = 0; at < DIM; at += 4) {
                        float4 four = *reinterpret_cast<const float4*>(from + at);
                        key[at] = four.x;
                        key[at + 1] = four.y;
                        key[at + 2] = four.z;
                        key[at + 3] = four.w;
                    }
                } else {
#pragma unroll
                    for (int at = 0; at < DIM; at++) key[at] = at < dim ? from[at] : 0.f;
                }
            }
            total = 0.f;
            for (int head = 0; head < heads; head++) {
                const float* query = queries + (row * heads + head) * DIM;
                float dot = 0.f;
#pragma unroll
                for (int at = 0; at < DIM; at += 4) {
                    float4 four = *reinterpret_cast<const float4*>(query + at);
                    dot += four.x * key[at];
                    dot += four.y * key[at + 1];
                    dot += four.z * key[at + 2];
                    dot += four.w * key[at + 3];
                }
                // Not fmaxf, which turns NaN into 0.
                total += factors[row * heads + head] * (dot <= 0.f ? 0.f : dot);
            }
        }
        out[(first + row) * out_row + column] = total;
    }
}
