// Causal attention with a key and a value per head, over the contexts laid end to end: one warp a head of a row.
#include "attention.cuh"
#include "layout.cuh"

template <int Q_LANE, int V_LANE, class TQ, class TK>
__device__ void mha(
    const TQ* q, long long q_row, long long q_head, const TK* k, long long k_row, long long k_head, const TK* v,
    long long v_row, long long v_head, Layout layout, TQ* out, float* lse, long long pairs, int heads, int dim,
    int value_dim, float scale) {
    long long pair = (long long)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (pair >= pairs) return;
    // The warps of a block take neighbouring rows of one head, which read the same keys.
    long long rows = pairs / heads, t = pair % rows, head = pair / rows, place = t * heads + head;
    Seen seen(layout, t);
    auto row = [&](int i) { return (long long)i; };
    attend<Q_LANE, V_LANE>(
        q + t * q_row + head * q_head, dim, k + seen.base * k_row + head * k_head, k_row,
        v + seen.base * v_row + head * v_head, v_row, value_dim, seen.position + 1, row, scale, out + place * value_dim,
        lse + place);
}

#define ATTENTION(QD, Q, KD, K, name, ...)                                                                           \
    extern "C" __global__ void __launch_bounds__(256, 2) mha_##QD##_##KD##_##name(                                      \
        const Q* q, long long q_row, long long q_head, const K* k, long long k_row, long long k_head, const K* v,    \
        long long v_row, long long v_head, const uint4* spans, const unsigned* pages, int count, Q* out, float* lse, \
        long long pairs, int heads, int dim, int value_dim, float scale) {                                           \
        mha<__VA_ARGS__>(                                                                                            \
            q, q_row, q_head, k, k_row, k_head, v, v_row, v_head, Layout{spans, pages, count}, out, lse, pairs,      \
            heads, dim, value_dim, scale);                                                                           \
    }
FOR_ATTENTION
