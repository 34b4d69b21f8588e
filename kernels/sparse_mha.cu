// Attention with a key and a value per head over the rows that each query row names: one warp a head of a row.
#include "attention.cuh"

template <int Q_LANE, int V_LANE, class TQ, class TK>
__device__ void sparse_mha(
    const TQ* q, long long q_row, long long q_head, const TK* k, long long k_row, long long k_head, const TK* v,
    long long v_row, long long v_head, const void* indices, TQ* out, float* lse, long long pairs, int heads, int dim,
    int value_dim, int keys, int chosen, int is_i64, float scale) {
    long long pair = (long long)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (pair >= pairs) return;
    long long t = pair / heads, head = pair % heads;
    auto row = [&](int i) { return named_row(index_at(indices, is_i64, t * chosen + i), keys); };
    attend<Q_LANE, V_LANE>(
        q + t * q_row + head * q_head, dim, k + head * k_head, k_row, v + head * v_head, v_row, value_dim, chosen, row,
        scale, out + pair * value_dim, lse + pair);
}

#define ATTENTION(QD, Q, KD, K, name, ...)                                                                           \
    extern "C" __global__ void __launch_bounds__(256, 2) sparse_mha_##QD##_##KD##_##name(                               \
        const Q* q, long long q_row, long long q_head, const K* k, long long k_row, long long k_head, const K* v,    \
        long long v_row, long long v_head, const void* indices, Q* out, float* lse, long long pairs, int heads,      \
        int dim, int value_dim, int keys, int chosen, int is_i64, float scale) {                                     \
        sparse_mha<__VA_ARGS__>(                                                                                     \
            q, q_row, q_head, k, k_row, k_head, v, v_row, v_head, indices, out, lse, pairs, heads, dim, value_dim,   \
            keys, chosen, is_i64, scale);                                                                            \
    }
FOR_ATTENTION
