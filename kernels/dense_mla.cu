// Attention in MQA mode over whole contexts: one warp a head of a row, over the pages of its sequence in order.
#include "attention.cuh"
#include "layout.cuh"

template <int Q_LANE, int V_LANE, class TQ, class TK>
__device__ void dense_mla(
    const TQ* q, long long q_row, long long q_head, const TK* kv, long long kv_stride, Layout layout, TQ* out,
    float* lse, long long pairs, int heads, int dim, int value_dim, float scale) {
    long long pair = (long long)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (pair >= pairs) return;
    long long t = pair / heads;
    Seen seen(layout, t);
    auto row = [&](int i) { return (long long)seen.slot(i); };
    attend<Q_LANE, V_LANE>(
        q + t * q_row + pair % heads * q_head, dim, kv, kv_stride, kv, kv_stride, value_dim, seen.position + 1, row,
        scale, out + pair * value_dim, lse + pair);
}

#define ATTENTION(QD, Q, KD, K, name, ...)                                                                           \
    extern "C" __global__ void __launch_bounds__(256, 2) dense_mla_##QD##_##KD##_##name(                                \
        const Q* q, long long q_row, long long q_head, const K* kv, long long kv_stride, const uint4* spans,         \
        const unsigned* pages, int count, Q* out, float* lse, long long pairs, int heads, int dim, int value_dim,    \
        float scale) {                                                                                               \
        dense_mla<__VA_ARGS__>(                                                                                      \
            q, q_row, q_head, kv, kv_stride, Layout{spans, pages, count}, out, lse, pairs, heads, dim, value_dim,    \
            scale);                                                                                                  \
    }
FOR_ATTENTION
FOR_PACKED_ATTENTION
