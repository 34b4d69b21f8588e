// Attention of one query vector over listed rows, by one warp, with an online softmax.
#pragma once

#include "keys.cuh"
#include "reduce.cuh"
#include "types.cuh"

// What a list of rows may hold instead of a row.
constexpr long long NO_ROW = -1;
constexpr long long BAD_ROW = -2;

// Keys that are in flight together.
constexpr int KEYS = 4;

// Widths of keys and values that a lane's registers hold: dim <= 32 * Q_LANE, value_dim <= 32 * V_LANE.
#define NARROW 8, 4
#define WIDE 18, 16

// `q` is [dim], key i is keys[row(i) * key_stride ..][..dim], its value values[row(i) * value_stride ..][..value_dim].
// Packed rows have value_dim quantized elements. `row(i)` gives the row, NO_ROW to leave i out, or BAD_ROW, which makes the result NaN. Writes out [value_dim] and lse;
// zeros and -inf where there is no row.
template <int Q_LANE, int V_LANE, class TQ, class TK, class Row>
__device__ __forceinline__ void attend(
    const TQ* q, int dim, const TK* keys, long long key_stride, const TK* values, long long value_stride, int value_dim,
    int count, Row row, float scale, TQ* out, float* lse) {
    int lane = threadIdx.x % WARP;
    float query[Q_LANE], sum[V_LANE];
#pragma unroll
    for (int c = 0; c < Q_LANE; c++) query[c] = lane + WARP * c < dim ? to_float(q[lane + WARP * c]) : 0.f;
#pragma unroll
    for (int c = 0; c < V_LANE; c++) sum[c] = 0.f;
    float largest = -INFINITY, total = 0.f;
    bool bad = false;
    for (int first = 0; first < count; first += KEYS) {
        long long rows[KEYS];
        float scores[KEYS];
#pragma unroll
        for (int i = 0; i < KEYS; i++) {
            rows[i] = first + i < count ? row(first + i) : NO_ROW;
            bad |= rows[i] == BAD_ROW;
            float dot = 0.f;
            if (rows[i] >= 0) {
                const TK* key = keys + rows[i] * key_stride;
#pragma unroll
                for (int c = 0; c < Q_LANE; c++) {
                    if (lane + WARP * c < dim) dot += query[c] * element(key, lane + WARP * c, value_dim);
                }
            }
            scores[i] = dot;
        }
        float peak = largest;
#pragma unroll
        for (int i = 0; i < KEYS; i++) {
            scores[i] = rows[i] >= 0 ? warp_sum(scores[i]) * scale : -INFINITY;
            bad |= scores[i] != scores[i];
            peak = fmaxf(peak, scores[i]);
        }
        if (peak == -INFINITY) continue;
        float shrink = expf(largest - peak);
        largest = peak;
        total *= shrink;
#pragma unroll
        for (int c = 0; c < V_LANE; c++) sum[c] *= shrink;
#pragma unroll
        for (int i = 0; i < KEYS; i++) {
            if (rows[i] < 0) continue;
            float p = expf(scores[i] - largest);
            total += p;
            const TK* value = values + rows[i] * value_stride;
#pragma unroll
            for (int c = 0; c < V_LANE; c++) {
                if (lane + WARP * c < value_dim) sum[c] += p * element(value, lane + WARP * c, value_dim);
            }
        }
    }
    float divisor = bad ? NAN : total > 0.f ? total : 1.f;
#pragma unroll
    for (int c = 0; c < V_LANE; c++) {
        if (lane + WARP * c < value_dim) out[lane + WARP * c] = from_float<TQ>(sum[c] / divisor);
    }
    if (lane == 0) *lse = bad ? NAN : largest + logf(total);
}

// Entry j of a row's indices, i32 or i64.
__device__ __forceinline__ long long index_at(const void* indices, bool is_i64, long long at) {
    return is_i64 ? ((const long long*)indices)[at] : ((const int*)indices)[at];
}

// A row that an index names, of `count` rows.
__device__ __forceinline__ long long named_row(long long index, int count) {
    return index == -1 ? NO_ROW : index < 0 || index >= count ? BAD_ROW : index;
}

// Expands M(q dtype, type, key dtype, type, name, widths) for every pair of dtypes and every width.
#define ATTENTION_NARROW(QD, Q, KD, K) ATTENTION(QD, Q, KD, K, narrow, NARROW)
#define ATTENTION_WIDE(QD, Q, KD, K) ATTENTION(QD, Q, KD, K, wide, WIDE)
#define FOR_ATTENTION FOR_FLOAT_PAIRS(ATTENTION_NARROW) FOR_FLOAT_PAIRS(ATTENTION_WIDE)
// The same for packed keys.
#define FOR_PACKED_ATTENTION                                                                                         \
    ATTENTION_NARROW(f32, float, u8, packed) ATTENTION_WIDE(f32, float, u8, packed)                                  \
    ATTENTION_NARROW(bf16, bf16, u8, packed) ATTENTION_WIDE(bf16, bf16, u8, packed)
