// Attention in MQA mode over the slots that each row names: one warp a head of a row. Any GPU, any number of heads.
#include "attention.cuh"

template <int Q_LANE, int V_LANE, class TQ, class TK>
__device__ void sparse_mla(
    const TQ* q, long long q_row, long long q_head, const TK* kv, long long kv_stride, const void* indices, TQ* out,
    float* lse, long long pairs, int heads, int dim, int value_dim, int slots, int k, int is_i64, float scale) {
    long long pair = (long long)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (pair >= pairs) return;
    long long t = pair / heads;
    auto row = [&](int i) { return named_row(index_at(indices, is_i64, t * k + i), slots); };
    attend<Q_LANE, V_LANE>(
        q + t * q_row + pair % heads * q_head, dim, kv, kv_stride, kv, kv_stride, value_dim, k, row, scale,
        out + pair * value_dim, lse + pair);
}

#define ATTENTION(QD, Q, KD, K, name, ...)                                                                           \
    extern "C" __global__ void __launch_bounds__(256, 2) sparse_mla_##QD##_##KD##_##name(                               \
        const Q* q, long long q_row, long long q_head, const K* kv, long long kv_stride, const void* indices, Q* out, \
        float* lse, long long pairs, int heads, int dim, int value_dim, int slots, int k, int is_i64, float scale) {  \
        sparse_mla<__VA_ARGS__>(                                                                                     \
            q, q_row, q_head, kv, kv_stride, indices, out, lse, pairs, heads, dim, value_dim, slots, k, is_i64,      \
            scale);                                                                                                  \
    }
FOR_ATTENTION
FOR_PACKED_ATTENTION
