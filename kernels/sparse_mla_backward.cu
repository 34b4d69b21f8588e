// The gradient of attention over listed rows, without atomic additions: the same call gives the same bits. Any GPU, any
// number of heads.
//
// With p = exp(score - lse): d_score = p (d_out . value - shift) softmax_scale; d_q sums d_score key over the keys, and the
// gradient of a key sums d_score q and, for its value, p d_out over the heads and the rows that list it.
#include "attention.cuh"

// shift = out . d_out: one warp a pair of a row and a head.
template <class T>
__device__ void shifts(const T* out, const T* d_out, float* shift, long long pairs, int value_dim) {
    long long pair = (long long)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (pair >= pairs) return;
    float sum = 0.f;
    for (int c = threadIdx.x % WARP; c < value_dim; c += WARP) {
        sum += to_float(out[pair * value_dim + c]) * to_float(d_out[pair * value_dim + c]);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) shift[pair] = sum;
}

#define SHIFTS(dtype, T)                                                                                             \
    extern "C" __global__ void __launch_bounds__(256) sparse_mla_shifts_##dtype(                                     \
        const T* out, const T* d_out, float* shift, long long pairs, int value_dim) {                                \
        shifts(out, d_out, shift, pairs, value_dim);                                                                 \
    }
FOR_FLOATS(SHIFTS)

// The gradient of the queries, and p and d_score [tokens, heads, k], 0 where an entry names nothing: one warp a head of a
// row.
template <int Q_LANE, int V_LANE, class TQ, class TK>
__device__ void scores(
    const TQ* q, long long q_row, long long q_head, const TK* kv, long long kv_stride, const void* indices,
    const TQ* d_out, const float* lse, const float* shift, TQ* d_q, float* p, float* d_scores, long long pairs, int heads,
    int dim, int value_dim, int slots, int k, int is_i64, float scale) {
    long long pair = (long long)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (pair >= pairs) return;
    int lane = threadIdx.x % WARP;
    long long t = pair / heads;
    q += t * q_row + pair % heads * q_head;
    d_out += pair * value_dim;
    float query[Q_LANE], gradient[V_LANE], sum[Q_LANE];
#pragma unroll
    for (int c = 0; c < Q_LANE; c++) {
        query[c] = lane + WARP * c < dim ? to_float(q[lane + WARP * c]) : 0.f;
        sum[c] = 0.f;
    }
#pragma unroll
    for (int c = 0; c < V_LANE; c++) gradient[c] = lane + WARP * c < value_dim ? to_float(d_out[lane + WARP * c]) : 0.f;
    float own_lse = lse[pair], own_shift = shift[pair];
    bool bad = false;
    for (int i = 0; i < k; i++) {
        long long row = named_row(index_at(indices, is_i64, t * k + i), slots);
        bad |= row == BAD_ROW;
        float weight = 0.f, d_score = 0.f;
        if (row >= 0) {
            const TK* key = kv + row * kv_stride;
            float dot = 0.f, d_weight = 0.f, elements[Q_LANE];
#pragma unroll
            for (int c = 0; c < Q_LANE; c++) {
                elements[c] = lane + WARP * c < dim ? to_float(key[lane + WARP * c]) : 0.f;
                dot += query[c] * elements[c];
                if (c < V_LANE && lane + WARP * c < value_dim) d_weight += gradient[c] * elements[c];
            }
            weight = expf(warp_sum(dot) * scale - own_lse);
            d_score = weight * (warp_sum(d_weight) - own_shift) * scale;
#pragma unroll
            for (int c = 0; c < Q_LANE; c++) sum[c] += d_score * elements[c];
        }
        if (lane == 0) p[pair * k + i] = weight, d_scores[pair * k + i] = d_score;
    }
#pragma unroll
    for (int c = 0; c < Q_LANE; c++) {
        if (lane + WARP * c < dim) d_q[pair * dim + lane + WARP * c] = from_float<TQ>(bad ? NAN : sum[c]);
    }
}

#define ATTENTION(QD, Q, KD, K, name, ...)                                                                           \
    extern "C" __global__ void __launch_bounds__(256) sparse_mla_scores_##QD##_##KD##_##name(                        \
        const Q* q, long long q_row, long long q_head, const K* kv, long long kv_stride, const void* indices,        \
        const Q* d_out, const float* lse, const float* shift, Q* d_q, float* p, float* d_scores, long long pairs,    \
        int heads, int dim, int value_dim, int slots, int k, int is_i64, float scale) {                              \
        scores<__VA_ARGS__>(                                                                                         \
            q, q_row, q_head, kv, kv_stride, indices, d_out, lse, shift, d_q, p, d_scores, pairs, heads, dim,        \
            value_dim, slots, k, is_i64, scale);                                                                     \
    }
FOR_ATTENTION

// Columns that a lane sums up together.
constexpr int COLUMNS = 4;

// The gradient of the key of every entry, rows [tokens, k, dim]: one warp an entry.
template <class T>
__device__ void rows_of_entries(
    const T* q, long long q_row, long long q_head, const T* d_out, const float* p, const float* d_scores, float* rows,
    long long entries, int heads, int dim, int value_dim, int k) {
    long long entry = (long long)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (entry >= entries) return;
    int lane = threadIdx.x % WARP;
    long long t = entry / k, first = t * heads * k + entry % k;
    for (int begin = 0; begin < dim; begin += WARP * COLUMNS) {
        float sum[COLUMNS] = {};
        for (int head = 0; head < heads; head++) {
            float weight = p[first + (long long)head * k], d_score = d_scores[first + (long long)head * k];
            const T* query = q + t * q_row + head * q_head;
            const T* gradient = d_out + (t * heads + head) * value_dim;
#pragma unroll
            for (int i = 0; i < COLUMNS; i++) {
                int c = begin + i * WARP + lane;
                if (c < dim) sum[i] += d_score * to_float(query[c]);
                if (c < value_dim) sum[i] += weight * to_float(gradient[c]);
            }
        }
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) {
            int c = begin + i * WARP + lane;
            if (c < dim) rows[entry * dim + c] = sum[i];
        }
    }
}

#define ROWS(dtype, T)                                                                                               \
    extern "C" __global__ void __launch_bounds__(256) sparse_mla_rows_##dtype(                                       \
        const T* q, long long q_row, long long q_head, const T* d_out, const float* p, const float* d_scores,        \
        float* rows, long long entries, int heads, int dim, int value_dim, int k) {                                  \
        rows_of_entries(q, q_row, q_head, d_out, p, d_scores, rows, entries, heads, dim, value_dim, k);              \
    }
FOR_FLOATS(ROWS)

// Adds the rows of entries [entries, parts, dim] to those of d_kv [slots, dim] that the entries name, in the order of the
// entries. A block has `share` slots, of which each warp has every eighth; it looks through all entries for them.
constexpr int THREADS = 256, WARPS = THREADS / WARP;
// Entries that a thread looks at in a round.
constexpr int LOOKS = 16;
// Numbers of a row that a lane has; a row has no more than 32 times as many.
constexpr int ROW_LANE = 18;

extern "C" __global__ void __launch_bounds__(THREADS, 2) sparse_mla_add_rows(
    const float* __restrict__ rows, const void* indices, float* d_kv, long long entries, int parts, int dim, int slots,
    int is_i64, int share) {
    __shared__ int found[THREADS * LOOKS], slot_of[THREADS * LOOKS], counts[WARPS];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    long long begin = (long long)blockIdx.x * share, end = min(begin + share, (long long)slots);
    for (long long round = 0; round < entries; round += THREADS * LOOKS) {
        // What this warp finds is in the order of the entries, and behind what the warps before it find.
        int own[LOOKS], count = 0;
        unsigned hits[LOOKS];
#pragma unroll
        for (int i = 0; i < LOOKS; i++) {
            long long at = round + (warp * LOOKS + i) * WARP + lane;
            long long slot = at < entries ? index_at(indices, is_i64, at) : -1;
            bool hit = begin <= slot && slot < end;
            own[i] = hit ? (int)slot : -1;
            hits[i] = __ballot_sync(ALL_LANES, hit);
            count += __popc(hits[i]);
        }
        __syncthreads(); // What the last round found has been added.
        if (lane == 0) counts[warp] = count;
        __syncthreads();
        int to = 0, all = 0;
        for (int i = 0; i < WARPS; i++) {
            if (i == warp) to = all;
            all += counts[i];
        }
#pragma unroll
        for (int i = 0; i < LOOKS; i++) {
            int at = to + __popc(hits[i] & ((1u << lane) - 1));
            if (own[i] >= 0) found[at] = (warp * LOOKS + i) * WARP + lane, slot_of[at] = own[i];
            to += __popc(hits[i]);
        }
        __syncthreads();
        for (int first = 0; first < all; first += WARP) {
            bool mine = first + lane < all && (slot_of[first + lane] - begin) % WARPS == warp;
            for (unsigned left = __ballot_sync(ALL_LANES, mine); left;) {
                // Two entries are on their way together.
                int at[2];
                float x[2][ROW_LANE];
                at[0] = first + __ffs(left) - 1, left &= left - 1;
                at[1] = left ? first + __ffs(left) - 1 : -1, left &= left - 1;
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const float* from = rows + (round + found[max(at[e], 0)]) * parts * dim + lane;
#pragma unroll
                    for (int i = 0; i < ROW_LANE; i++) x[e][i] = at[e] >= 0 && lane + i * WARP < dim ? from[i * WARP] : 0.f;
                    for (int part = 1; part < parts; part++) {
                        from += dim;
#pragma unroll
                        for (int i = 0; i < ROW_LANE; i++) {
                            if (at[e] >= 0 && lane + i * WARP < dim) x[e][i] += from[i * WARP];
                        }
                    }
                }
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    if (at[e] < 0) continue;
                    float* sum = d_kv + (long long)slot_of[at[e]] * dim + lane;
                    float before[ROW_LANE];
#pragma unroll
                    for (int i = 0; i < ROW_LANE; i++) before[i] = lane + i * WARP < dim ? sum[i * WARP] : 0.f;
#pragma unroll
                    for (int i = 0; i < ROW_LANE; i++) {
                        if (lane + i * WARP < dim) sum[i * WARP] = before[i] + x[e][i];
                    }
                }
            }
        }
    }
}
