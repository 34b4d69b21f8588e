// The columns of the k largest entries of every row, in ascending order: one block a row. Four passes over the digits of
// the entries' keys find the k-th largest, a last one lists the columns. Any GPU, any k, any length.
#include "reduce.cuh"
#include "types.cuh"

constexpr int DIGIT_BITS = 8;
constexpr int DIGITS = 1 << DIGIT_BITS;
constexpr int MOST_WARPS = 32;

// Integers in the order of the numbers; the two zeros become one.
__device__ __forceinline__ unsigned key_of(float x) {
    unsigned bits = __float_as_uint(x + 0.f);
    return bits ^ ((unsigned)((int)bits >> 31) | 0x80000000u);
}

// How many threads before this one, and how many of the block, have `flag`.
__device__ __forceinline__ int2 rank_in_block(bool flag, int* warp_counts) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    unsigned ballot = __ballot_sync(ALL_LANES, flag);
    __syncthreads(); // The counts of the last call have been read.
    if (lane == 0) warp_counts[warp] = __popc(ballot);
    __syncthreads();
    int before = __popc(ballot & ((1u << lane) - 1)), total = 0;
    for (int other = 0; other < warps; other++) {
        if (other < warp) before += warp_counts[other];
        total += warp_counts[other];
    }
    return make_int2(before, total);
}

extern "C" __global__ void __launch_bounds__(1024) topk_radix_f32(
    const float* logits, long long stride, int* out, int columns, int k) {
    __shared__ int counts[DIGITS], warp_counts[MOST_WARPS];
    __shared__ int found, larger, has_nan;
    const unsigned lowest = key_of(-INFINITY);
    const float* row = logits + blockIdx.x * stride;
    out += (long long)blockIdx.x * k;

    // Entries that may be chosen.
    if (threadIdx.x == 0) found = has_nan = 0;
    __syncthreads();
    int own = 0;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        own += row[i] > -INFINITY;
        if (row[i] != row[i]) has_nan = 1;
    }
    atomicAdd(&found, own);
    __syncthreads();
    int chosen = has_nan ? 0 : min(k, found);

    // The key of the last chosen, and how many entries equal to it are chosen.
    unsigned threshold = lowest;
    int ties = 0;
    if (chosen > 0 && chosen < found) {
        unsigned prefix = 0, known = 0;
        int wanted = chosen;
        for (int shift = 32 - DIGIT_BITS; shift >= 0; shift -= DIGIT_BITS) {
            for (int i = threadIdx.x; i < DIGITS; i += blockDim.x) counts[i] = 0;
            __syncthreads();
            for (int i = threadIdx.x; i < columns; i += blockDim.x) {
                unsigned key = key_of(row[i]);
                if (key > lowest && (key & known) == prefix) atomicAdd(&counts[(key >> shift) % DIGITS], 1);
            }
            __syncthreads();
            if (threadIdx.x == 0) {
                int digit = DIGITS - 1, above = 0;
                while (above + counts[digit] < wanted) above += counts[digit--];
                found = digit;
                larger = above;
            }
            __syncthreads();
            prefix |= (unsigned)found << shift;
            known |= (unsigned)(DIGITS - 1) << shift;
            wanted -= larger;
            __syncthreads();
        }
        threshold = prefix;
        ties = wanted;
    }

    int written = 0, ties_seen = 0;
    for (int first = 0; first < columns && written < chosen; first += blockDim.x) {
        int i = first + threadIdx.x;
        unsigned key = i < columns ? key_of(row[i]) : 0;
        bool is_tie = i < columns && key == threshold && ties > 0;
        int2 tie = rank_in_block(is_tie, warp_counts);
        bool is_chosen = i < columns && (key > threshold || (is_tie && ties_seen + tie.x < ties));
        int2 place = rank_in_block(is_chosen, warp_counts);
        if (is_chosen) out[written + place.x] = i;
        ties_seen += tie.y;
        written += place.y;
    }
    for (int i = chosen + threadIdx.x; i < k; i += blockDim.x) out[i] = -1;
}
