// Attention in MQA mode of few rows: one block a head of a row, whose warps share the keys; the slots that each row names, or
// whole contexts. Any GPU.
#include "attention.cuh"
#include "layout.cuh"

constexpr int WARPS = 8;

#define ATTENTION(QD, Q, KD, K, name, ...)                                                                           \
    extern "C" __global__ void __launch_bounds__(WARPS * WARP) sparse_mla_rows_##QD##_##KD##_##name(                 \
        const Q* q, long long q_row, long long q_head, const K* kv, long long kv_stride, const void* indices, Q* out, \
        float* lse, long long pairs, int heads, int dim, int value_dim, int slots, int k, int is_i64, float scale) {  \
        long long pair = blockIdx.x, t = pair / heads;                                                               \
        auto row = [&](int i) { return named_row(index_at(indices, is_i64, t * k + i), slots); };                    \
        attend_by_block<__VA_ARGS__, WARPS>(                                                                         \
            q + t * q_row + pair % heads * q_head, dim, kv, kv_stride, kv, kv_stride, value_dim, k, row, scale,      \
            out + pair * value_dim, lse + pair);                                                                     \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(WARPS * WARP) dense_mla_rows_##QD##_##KD##_##name(                  \
        const Q* q, long long q_row, long long q_head, const K* kv, long long kv_stride, const uint4* spans,         \
        const unsigned* pages, int count, Q* out, float* lse, long long pairs, int heads, int dim, int value_dim,    \
        float scale) {                                                                                               \
        long long pair = blockIdx.x, t = pair / heads;                                                               \
        Seen seen(Layout{spans, pages, count}, t);                                                                   \
        auto row = [&](int i) { return (long long)seen.slot(i); };                                                   \
        attend_by_block<__VA_ARGS__, WARPS>(                                                                         \
            q + t * q_row + pair % heads * q_head, dim, kv, kv_stride, kv, kv_stride, value_dim, seen.position + 1,  \
            row, scale, out + pair * value_dim, lse + pair);                                                         \
    }
FOR_ATTENTION
FOR_PACKED_ATTENTION
