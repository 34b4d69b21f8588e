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

// What a warp has summed up: values weighted by exp(score - largest), and the sum of the weights.
template <int V_LANE> struct Attended {
    float sum[V_LANE];
    float largest, total;
    bool bad;
};

// `q` is [dim], key i is keys[row(i) * key_stride ..][..dim], its value values[row(i) * value_stride ..][..value_dim].
// Packed rows have value_dim quantized elements. `row(i)` gives the row, NO_ROW to leave i out, or BAD_ROW, which makes the result NaN.
// Takes the keys begin..begin + KEYS below count, and so on in steps of `step`.
template <int Q_LANE, int V_LANE, class TQ, class TK, class Row>
__device__ __forceinline__ Attended<V_LANE> attend_keys(
    const TQ* q, int dim, const TK* keys, long long key_stride, const TK* values, long long value_stride, int value_dim,
    int begin, int count, int step, Row row, float scale) {
    int lane = threadIdx.x % WARP;
    Attended<V_LANE> attended;
    float (&sum)[V_LANE] = attended.sum;
    float query[Q_LANE];
#pragma unroll
    for (int c = 0; c < Q_LANE; c++) query[c] = lane + WARP * c < dim ? to_float(q[lane + WARP * c]) : 0.f;
#pragma unroll
    for (int c = 0; c < V_LANE; c++) sum[c] = 0.f;
    float largest = -INFINITY, total = 0.f;
    bool bad = false;
    for (int first = begin; first < count; first += step) {
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
    attended.largest = largest;
    attended.total = total;
    attended.bad = bad;
    return attended;
}

// Writes out [value_dim] and lse; zeros and -inf where there was no row.
template <int V_LANE, class TQ>
__device__ __forceinline__ void write_attended(const Attended<V_LANE>& attended, int value_dim, TQ* out, float* lse) {
    int lane = threadIdx.x % WARP;
    bool bad = attended.bad;
    float divisor = bad ? NAN : attended.total > 0.f ? attended.total : 1.f;
#pragma unroll
    for (int c = 0; c < V_LANE; c++) {
        if (lane + WARP * c < value_dim) out[lane + WARP * c] = from_float<TQ>(attended.sum[c] / divisor);
    }
    if (lane == 0) *lse = bad ? NAN : attended.largest + logf(attended.total);
}

// Attention by one warp over the keys 0..count.
template <int Q_LANE, int V_LANE, class TQ, class TK, class Row>
__device__ __forceinline__ void attend(
    const TQ* q, int dim, const TK* keys, long long key_stride, const TK* values, long long value_stride, int value_dim,
    int count, Row row, float scale, TQ* out, float* lse) {
    write_attended(
        attend_keys<Q_LANE, V_LANE>(
            q, dim, keys, key_stride, values, value_stride, value_dim, 0, count, KEYS, row, scale),
        value_dim, out, lse);
}

// The same by all warps of a block, which take turns; all threads must call it. Keys that are left out at the end change
// nothing.
template <int Q_LANE, int V_LANE, int WARPS, class TQ, class TK, class Row>
__device__ __forceinline__ void attend_by_block(
    const TQ* q, int dim, const TK* keys, long long key_stride, const TK* values, long long value_stride, int value_dim,
    int count, Row row, float scale, TQ* out, float* lse) {
    __shared__ float sums[WARPS][V_LANE * WARP], largests[WARPS], totals[WARPS];
    __shared__ bool bads[WARPS];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    Attended<V_LANE> own = attend_keys<Q_LANE, V_LANE>(
        q, dim, keys, key_stride, values, value_stride, value_dim, warp * KEYS, count, WARPS * KEYS, row, scale);
#pragma unroll
    for (int c = 0; c < V_LANE; c++) sums[warp][lane + WARP * c] = own.sum[c];
    if (lane == 0) {
        largests[warp] = own.largest;
        totals[warp] = own.total;
        bads[warp] = own.bad;
    }
    __syncthreads();
    if (warp > 0) return;
    float peak = -INFINITY;
    own.bad = false;
    for (int other = 0; other < WARPS; other++) {
        peak = fmaxf(peak, largests[other]);
        own.bad |= bads[other];
    }
    own.largest = peak;
    own.total = 0.f;
#pragma unroll
    for (int c = 0; c < V_LANE; c++) own.sum[c] = 0.f;
    for (int other = 0; other < WARPS; other++) {
        float factor = largests[other] == -INFINITY ? 0.f : expf(largests[other] - peak);
        own.total += totals[other] * factor;
#pragma unroll
        for (int c = 0; c < V_LANE; c++) own.sum[c] += sums[other][lane + WARP * c] * factor;
    }
    write_attended(own, value_dim, out, lse);
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
