// Attention in MQA mode over the slots that each row names, for narrow f32 keys and many rows: one block a row and eight heads,
// which share the keys. A tile of keys at a time: one thread a key and four heads for the scores, then one thread a value column
// and two heads for the sums, with an online softmax.
#include "attention.cuh"

constexpr int THREADS = 256;
constexpr int TILE = 128;
constexpr int HEADS = 8;
// Heads of a thread's scores, and of its sums.
constexpr int SCORES = HEADS * TILE / THREADS;
// The widest keys and values.
constexpr int DIM = 128;
constexpr int VALUES = 64;
constexpr int SUMS = HEADS * VALUES / THREADS;

extern "C" __global__ void __launch_bounds__(THREADS) sparse_mla_narrow_f32(
    const float* q, long long q_row, long long q_head, const float* kv, long long kv_stride, const void* indices,
    float* out, float* lse, int heads, int dim, int value_dim, int slots, int k, int is_i64, float scale) {
    __shared__ __align__(16) float query[HEADS][DIM];
    __shared__ float scores[HEADS][TILE + 1];
    __shared__ int rows[TILE];
    __shared__ float shrink[HEADS], largest[HEADS], total[HEADS];
    __shared__ int bad[HEADS];
    long long t = blockIdx.x;
    int head0 = blockIdx.y * HEADS, thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
    for (int i = thread; i < HEADS * DIM; i += THREADS) {
        int head = i / DIM, at = i % DIM;
        query[head][at] = head0 + head < heads && at < dim ? q[t * q_row + (head0 + head) * q_head + at] : 0.f;
    }
    if (thread < HEADS) {
        largest[thread] = -INFINITY;
        total[thread] = 0.f;
        bad[thread] = 0;
    }
    int column = thread % VALUES, group = thread / VALUES * SUMS;
    float sums[SUMS];
#pragma unroll
    for (int s = 0; s < SUMS; s++) sums[s] = 0.f;
    for (int first = 0; first < k; first += TILE) {
        __syncthreads(); // The last tile has been summed up.
        if (thread < TILE) {
            long long row = first + thread < k ? named_row(index_at(indices, is_i64, t * k + first + thread), slots) : NO_ROW;
            if (row == BAD_ROW) {
                for (int head = 0; head < HEADS; head++) bad[head] = 1;
            }
            rows[thread] = row < 0 ? -1 : (int)row;
        }
        __syncthreads();
        {
            int key = thread % TILE, part = thread / TILE * SCORES, row = rows[key];
            float dots[SCORES];
#pragma unroll
            for (int s = 0; s < SCORES; s++) dots[s] = 0.f;
            if (row >= 0) {
                const float* from = kv + (long long)row * kv_stride;
                if (dim % 4 == 0 && kv_stride % 4 == 0 && (uintptr_t)kv % 16 == 0) {
#pragma unroll 4
                    for (int at = 0; at < dim; at += 4) {
                        float4 value = *reinterpret_cast<const float4*>(from + at);
#pragma unroll
                        for (int s = 0; s < SCORES; s++) {
                            float4 own = *reinterpret_cast<const float4*>(&query[part + s][at]);
                            dots[s] += own.x * value.x;
                            dots[s] += own.y * value.y;
                            dots[s] += own.z * value.z;
                            dots[s] += own.w * value.w;
                        }
                    }
                } else {
                    for (int at = 0; at < dim; at++) {
                        float value = from[at];
#pragma unroll
                        for (int s = 0; s < SCORES; s++) dots[s] += query[part + s][at] * value;
                    }
                }
            }
#pragma unroll
            for (int s = 0; s < SCORES; s++) {
                if (dots[s] != dots[s]) bad[part + s] = 1;
                scores[part + s][key] = row >= 0 ? dots[s] * scale : -INFINITY;
            }
        }
        __syncthreads();
        {
            // One warp a head.
            float peak = largest[warp];
#pragma unroll
            for (int i = 0; i < TILE / WARP; i++) peak = fmaxf(peak, scores[warp][lane + WARP * i]);
            peak = warp_max(peak);
            float sum = 0.f;
#pragma unroll
            for (int i = 0; i < TILE / WARP; i++) {
                float score = scores[warp][lane + WARP * i];
                float p = score == -INFINITY ? 0.f : expf(score - peak);
                scores[warp][lane + WARP * i] = p;
                sum += p;
            }
            sum = warp_sum(sum);
            if (lane == 0) {
                float factor = peak == -INFINITY ? 1.f : expf(largest[warp] - peak);
                shrink[warp] = factor;
                total[warp] = total[warp] * factor + sum;
                largest[warp] = peak;
            }
        }
        __syncthreads();
#pragma unroll
        for (int s = 0; s < SUMS; s++) sums[s] *= shrink[group + s];
        if (column < value_dim) {
#pragma unroll 8
            for (int key = 0; key < TILE; key++) {
                int row = rows[key];
                float value = row >= 0 ? kv[(long long)row * kv_stride + column] : 0.f;
#pragma unroll
                for (int s = 0; s < SUMS; s++) sums[s] += scores[group + s][key] * value;
            }
        }
    }
    __syncthreads();
#pragma unroll
    for (int s = 0; s < SUMS; s++) {
        int head = head0 + group + s;
        if (head >= heads || column >= value_dim) continue;
        float divisor = bad[group + s] ? NAN : total[group + s] > 0.f ? total[group + s] : 1.f;
        out[(t * heads + head) * value_dim + column] = sums[s] / divisor;
    }
    if (thread < HEADS && head0 + thread < heads) {
        lse[t * heads + head0 + thread] = bad[thread] ? NAN : largest[thread] + logf(total[thread]);
    }
}
