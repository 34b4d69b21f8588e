// The indexer's scores on Hopper, as far as they are the same for every form of keys.
//
// Keys are the rows of the products and (row of q, head) their columns, so that a lane has all heads of a key and sums them
// in registers. A block of QUERIES rows of one sequence shares a page of keys. The blocks' pages, one block after the
// other, are dealt out evenly to the GPU's multiprocessors. There some warps bring the pages, others the rows of q, and two
// warpgroups take turns: while one multiplies, the other sums up.
//
// A file includes its instructions before this one: `sm90_e4m3.cuh` or `sm90_wgmma.cuh`.
#pragma once

#include <type_traits>

#include "layout.cuh"
#include "reduce.cuh"

using namespace sm90;

constexpr int DIM = 128;
constexpr int HEADS = 64;
constexpr int CONSUMERS = 2;
constexpr int LOADERS = 3 * WARP;
// Numbers of head weights for each row of q: a little more than HEADS, so that rows lie in different banks.
constexpr int WEIGHTS = HEADS + 4;

constexpr std::integral_constant<int, 1> MORE;
constexpr std::integral_constant<int, 0> LAST;

struct Arguments {
    const uint8_t* q;
    long long q_row, q_head; // in bytes
    const uint8_t* keys;
    const float* weights;
    Layout layout;
    float* out;
    long long out_stride;
    int rows, heads, columns, skipped, fill;
};

// The sum of t / 16 over t < x.
__device__ __forceinline__ long long sum_of_sixteenths(long long x) {
    long long y = x / 16;
    return 8 * y * (y - 1) + y * (x - 16 * y);
}

// The blocks of a sequence's rows that need scores, and their pages.
template <int QUERIES> struct Sequence {
    unsigned row, start, tokens, table;
    int first, blocks;

    __device__ __forceinline__ Sequence(const Arguments& a, int at) {
        uint4 span = a.layout.spans[at];
        row = span.x, start = span.y, table = span.z;
        tokens = (at + 1 < a.layout.count ? a.layout.spans[at + 1].x : a.rows) - row;
        blocks = (tokens + QUERIES - 1) / QUERIES;
        // Blocks whose last row sees no more than `skipped` positions.
        first = max(0, (a.skipped - (int)start) / QUERIES);
        if (start + tokens <= a.skipped) first = blocks;
        first = min(first, blocks);
    }

    __device__ __forceinline__ int last_position(int block) const {
        return start + min((block + 1) * QUERIES, (int)tokens) - 1;
    }
    __device__ __forceinline__ int pages(int block) const { return last_position(block) / PAGE_SIZE + 1; }

    // Pages of the blocks first..block.
    __device__ __forceinline__ long long before(int block) const {
        if (block <= first) return 0;
        // Block b has (start + QUERIES (b + 1) - 1) / PAGE_SIZE + 1 pages, the last one what its last row has.
        int whole = min(block, blocks - 1);
        long long sum = whole - first;
        if constexpr (PAGE_SIZE / QUERIES == 16) {
            int from = (start + QUERIES - 1) / QUERIES;
            sum += sum_of_sixteenths(from + whole) - sum_of_sixteenths(from + first);
        } else {
            for (int b = first; b < whole; b++) sum += (start + QUERIES * (b + 1) - 1) / PAGE_SIZE;
        }
        return whole < block ? sum + pages(whole) : sum;
    }
};

// The pages that this block of threads takes, in order: runs of pages of one block of rows.
template <int QUERIES> struct Walk {
    const Arguments& a;
    Sequence<QUERIES> sequence;
    int at, block, page, left;

    __device__ __forceinline__ Walk(const Arguments& a) : a(a), sequence(a, 0), at(0), block(0), page(0) {
        int lane = threadIdx.x % WARP;
        long long total = 0;
        for (int first = 0; first < a.layout.count; first += WARP) {
            long long own = 0;
            if (first + lane < a.layout.count) {
                Sequence<QUERIES> one(a, first + lane);
                own = one.before(one.blocks);
            }
#pragma unroll
            for (int lanes = WARP / 2; lanes > 0; lanes /= 2) own += __shfl_xor_sync(ALL_LANES, own, lanes);
            total += own;
        }
        long long begin = total * blockIdx.x / gridDim.x;
        left = total * (blockIdx.x + 1) / gridDim.x - begin;
        if (left == 0) return;
        for (int first = 0;; first += WARP) {
            long long own = 0;
            if (first + lane < a.layout.count) {
                Sequence<QUERIES> one(a, first + lane);
                own = one.before(one.blocks);
            }
            long long upto = own;
#pragma unroll
            for (int lanes = 1; lanes < WARP; lanes *= 2) {
                long long other = __shfl_up_sync(ALL_LANES, upto, lanes);
                if (lane >= lanes) upto += other;
            }
            unsigned after = __ballot_sync(ALL_LANES, upto > begin);
            if (after) {
                int found = __ffs(after) - 1;
                at = first + found;
                begin -= __shfl_sync(ALL_LANES, upto - own, found);
                break;
            }
            begin -= __shfl_sync(ALL_LANES, upto, WARP - 1);
        }
        sequence = Sequence<QUERIES>(a, at);
        int low = sequence.first, high = sequence.blocks;
        while (high - low > 1) {
            int middle = (low + high) / 2;
            if (sequence.before(middle) <= begin) low = middle; else high = middle;
        }
        block = low;
        page = begin - sequence.before(block);
    }

    // How many pages of the present block of rows are taken, from `page` on.
    __device__ __forceinline__ int run() const { return min(sequence.pages(block) - page, left); }

    __device__ __forceinline__ void advance() {
        left -= run();
        page = 0;
        if (left == 0 || ++block < sequence.blocks) return;
        do sequence = Sequence<QUERIES>(a, ++at); while (sequence.first == sequence.blocks);
        block = sequence.first;
    }
};

// Lanes that share a row's heads.
template <int QUERIES> constexpr int SHARING = 4 / QUERIES;

// What column n of the products is: columns 2 l and 2 l + 1 of every eight are the same row's for the lanes l that share it.
template <int QUERIES> __device__ __forceinline__ int query_of(int n) { return n / 2 % 4 / SHARING<QUERIES>; }
template <int QUERIES> __device__ __forceinline__ int head_of(int n) {
    return n / 8 * 2 * SHARING<QUERIES> + n / 2 % SHARING<QUERIES> * 2 + n % 2;
}

// Brings the head weights of `rows` rows from `row` on.
template <int QUERIES, int THREADS = LOADERS>
__device__ __forceinline__ void bring_weights(const Arguments& a, int row, int rows, int thread, float* to) {
    for (int i = thread; i < QUERIES * HEADS; i += THREADS) {
        int query = i / HEADS, head = i % HEADS;
        // x + |x| is twice the relu of x, and NaN if x is.
        float weight = query < rows && head < a.heads ? 0.5f * a.weights[(long long)(row + query) * a.heads + head] : 0.f;
        to[query * WEIGHTS + head] = weight;
    }
}

// Adds half of the heads of a lane's two keys; the accumulators are, by fours, two heads of two keys. `weights`: those of the
// lane's first head, in shared memory.
template <int QUERIES, int N>
__device__ __forceinline__ void add_heads(const float (&x)[N], uint32_t weights, float (&sums)[2][2]) {
    constexpr int SHARE = SHARING<QUERIES>, STEP = SHARE == 1 ? 2 : 1;
#pragma unroll
    for (int j = 0; j < N / 4; j += STEP) {
        uint32_t at = weights + j * 2 * SHARE * 4;
        float w[4];
        if constexpr (SHARE == 1) {
            float4 four = load16(at);
            w[0] = four.x, w[1] = four.y, w[2] = four.z, w[3] = four.w;
        } else {
            float2 two = load8(at);
            w[0] = two.x, w[1] = two.y;
        }
#pragma unroll
        for (int i = 0; i < 4 * STEP; i++) {
            sums[i / 2 % 2][i % 2] += w[i / 4 * 2 + i % 2] * (x[4 * j + i] + fabsf(x[4 * j + i]));
        }
    }
}

// A key's sum, of the lanes that share its row.
template <int QUERIES> __device__ __forceinline__ float of_all_lanes(const float (&sums)[2]) {
    float sum = sums[0] + sums[1];
#pragma unroll
    for (int lanes = 1; lanes < SHARING<QUERIES>; lanes *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, lanes);
    return sum;
}

// Sets the scores of the positions behind the last page of a block of rows, if this run of pages ends with it.
template <int QUERIES>
__device__ __forceinline__ void hide_rest(const Arguments& a, const Walk<QUERIES>& walk, int run, int group) {
    if (!a.fill || walk.page + run != walk.sequence.pages(walk.block)) return;
    for (int row = 0; row < QUERIES && walk.block * QUERIES + row < walk.sequence.tokens; row++) {
        float* rest = a.out + (long long)(walk.sequence.row + walk.block * QUERIES + row) * a.out_stride;
        int at = (walk.page + run) * PAGE_SIZE + group * WARPGROUP + threadIdx.x % WARPGROUP;
        for (; at < a.columns; at += CONSUMERS * WARPGROUP) rest[at] = -INFINITY;
    }
}
