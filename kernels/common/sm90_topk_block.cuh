// How a block finds the threshold of a row's k largest entries: from histograms over their range, exactly.
#pragma once

#include "layout.cuh"
#include "reduce.cuh"

constexpr int BINS = 2048;
constexpr int BIN_BITS = 11;
constexpr int MOST_WARPS = 32;
// Entries of a row that are looked at for its threshold, in runs of a memory line.
constexpr int SAMPLE = 4096;
constexpr int RUN = 32;
constexpr unsigned NO_KEY = 0x7fffffffu;

// Integers in the order of the numbers; the two zeros become one, and no number has NO_KEY.
__device__ __forceinline__ unsigned key_of(float x) {
    unsigned bits = __float_as_uint(x + 0.f);
    return bits ^ ((unsigned)((int)bits >> 31) | 0x80000000u);
}

// A number that is exceeded by the numbers whose keys are above `key`, and by no others; the one that has the key, if any.
__device__ __forceinline__ float number_of(unsigned key) {
    if (key == NO_KEY) key--;
    return __uint_as_float(key >> 31 ? key ^ 0x80000000u : ~key);
}

// Least and largest key of the entries above -inf, and how many there are.
struct Range {
    unsigned low = ~0u, high = 0;
    int found = 0;

    __device__ __forceinline__ void add(unsigned key) {
        low = min(low, key);
        high = max(high, key);
        found++;
    }
};

struct Shared {
    unsigned counts[BINS]; // Zero between its uses.
    unsigned warp_sums[2][MOST_WARPS];
    Range warp_ranges[MOST_WARPS];
    unsigned listed[WARP];
    int bin, above, in_bin, list_length;
    // What a block of a cluster kept, and whether it met a NaN; again for a second reading of the row.
    int2 boxes[2];
};

// The entries above `key` are chosen, and the first `ties` of those that have it.
struct Threshold {
    unsigned key;
    int ties;
};

struct Output {
    int* out;
    const unsigned* pages;
    __device__ __forceinline__ void put(int at, int column) const {
        out[at] = pages ? pages[column / PAGE_SIZE] * PAGE_SIZE + column % PAGE_SIZE : column;
    }
};

// Columns of a row, counted from the aligned address `from`; the row begins at `skipped`.
struct Part {
    const float* from;
    int begin, end, skipped;

    __device__ __forceinline__ int first_tile() const { return begin / (4 * WARP) * (4 * WARP); }
};

// LOADS: loads of four entries that a thread has in flight, up to four; a warp's loads lie side by side. KEPT: entries that
// are kept in shared memory; more than k by at least a warp's tile.
template <int THREADS, int LOADS, int KEPT, int CLUSTER> struct Block {
    static constexpr int WARPS = THREADS / WARP;
    static constexpr int WARP_TILE = LOADS * 4 * WARP;
    static constexpr int TILE = WARPS * WARP_TILE;

    Shared& shared;
    float* entries;
    int* columns;
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;

    __device__ __forceinline__ void begin() {
        for (int i = threadIdx.x; i < BINS; i += THREADS) shared.counts[i] = 0;
        __syncthreads();
    }

    // The range of what all threads of the block have.
    __device__ __forceinline__ Range gather(Range own) {
        own.low = __reduce_min_sync(ALL_LANES, own.low);
        own.high = __reduce_max_sync(ALL_LANES, own.high);
        own.found = __reduce_add_sync(ALL_LANES, own.found);
        if (lane == 0) shared.warp_ranges[warp] = own;
        __syncthreads();
        own = lane < WARPS ? shared.warp_ranges[lane] : Range();
        own.low = __reduce_min_sync(ALL_LANES, own.low);
        own.high = __reduce_max_sync(ALL_LANES, own.high);
        own.found = __reduce_add_sync(ALL_LANES, own.found);
        return own;
    }

    // Finds the bin of the entry that `wanted` - 1 others exceed, `above` of them in higher bins not counted here; writes
    // the bin and the numbers of entries above and in it. Empties the bins.
    __device__ __forceinline__ void find_bin(int above, int wanted) {
        constexpr int PER = BINS / THREADS;
        __syncthreads();
        // Thread 0 has the highest bins.
        int first = BINS - PER * (threadIdx.x + 1), sum = 0, bins[PER];
#pragma unroll
        for (int i = 0; i < PER; i++) {
            bins[i] = shared.counts[first + i];
            shared.counts[first + i] = 0;
            sum += bins[i];
        }
        int before = sum;
#pragma unroll
        for (int lanes = 1; lanes < WARP; lanes *= 2) {
            int other = __shfl_up_sync(ALL_LANES, before, lanes);
            if (lane >= lanes) before += other;
        }
        if (lane == WARP - 1) shared.warp_sums[0][warp] = before;
        if (threadIdx.x == 0) shared.list_length = 0;
        __syncthreads();
        before += above - sum + __reduce_add_sync(ALL_LANES, lane < warp ? shared.warp_sums[0][lane] : 0);
        if (before < wanted && before + sum >= wanted) {
#pragma unroll
            for (int i = PER - 1; i >= 0; i--) {
                if (before < wanted && before + bins[i] >= wanted) {
                    shared.bin = first + i;
                    shared.above = before;
                    shared.in_bin = bins[i];
                }
                before += bins[i];
            }
        }
        __syncthreads();
    }

    // The threshold of the `wanted` largest entries of a range. `each(f)` calls f with every entry of the thread; entries
    // below the range do not count.
    template <class Each> __device__ __forceinline__ Threshold select(Range range, int wanted, Each each) {
        // 2^23: adding it rounds to an integer, in the low bits.
        constexpr float INTEGER = 8388608.f;
        int above = 0;
        // First in bins of equal width, which few entries share; that may fail for numbers far apart.
        float from = number_of(range.low), scale = (BINS - 1) / (number_of(range.high) - from);
        bool is_linear = scale > 0.f && scale < INFINITY;
        auto linear_bin = [&](float x) { return __float_as_uint(__fmaf_rn(x - from, scale, INTEGER)) % BINS; };
        while (true) {
            if (above + range.found == wanted) return Threshold{range.low - 1, 0};
            if (range.low == range.high) return Threshold{range.low, wanted - above};
            unsigned width = range.high - range.low;
            int shift = max(0, WARP - __clz(width) - BIN_BITS);
            if (is_linear) {
                each([&](float x) {
                    if (x >= from) atomicAdd(&shared.counts[linear_bin(x)], 1u);
                });
            } else {
                each([&](float x) {
                    unsigned offset = key_of(x) - range.low;
                    if (offset <= width) atomicAdd(&shared.counts[offset >> shift], 1u);
                });
            }
            find_bin(above, wanted);
            unsigned bin = shared.bin;
            above = shared.above;
            range.found = shared.in_bin;
            if (!is_linear) {
                range.low += bin << shift;
                range.high = min(range.high, range.low + ((1u << shift) - 1));
            }
            if (range.found <= WARP) {
                auto list = [&](unsigned key) { shared.listed[atomicAdd(&shared.list_length, 1)] = key; };
                if (is_linear) {
                    each([&](float x) {
                        if (x >= from && linear_bin(x) == bin) list(key_of(x));
                    });
                } else {
                    each([&](float x) {
                        if (key_of(x) - range.low <= range.high - range.low) list(key_of(x));
                    });
                }
                __syncthreads();
                return select_listed(range.found, wanted - above);
            }
            if (is_linear) {
                Range rest;
                each([&](float x) {
                    if (x >= from && linear_bin(x) == bin) rest.add(key_of(x));
                });
                range = gather(rest);
                is_linear = false;
            }
        }
    }

    __device__ __forceinline__ Threshold select_listed(int found, int wanted) const {
        unsigned key = lane < found ? shared.listed[lane] : 0;
        int greater = 0, equal = 0;
        for (int i = 0; i < found; i++) {
            unsigned other = __shfl_sync(ALL_LANES, key, i);
            greater += other > key;
            equal += other == key;
        }
        bool is_last = lane < found && greater < wanted && greater + equal >= wanted;
        int last = __ffs(__ballot_sync(ALL_LANES, is_last)) - 1;
        key = __shfl_sync(ALL_LANES, key, last);
        greater = __shfl_sync(ALL_LANES, greater, last);
        equal = __shfl_sync(ALL_LANES, equal, last);
        return greater + equal == wanted ? Threshold{key - 1, 0} : Threshold{key, wanted - greater};
    }

    // Entries of a thread: four from every `WARP * 4`; -inf where the part has none.
    __device__ __forceinline__ void load(const Part& part, int tile, float (&x)[LOADS][4]) const {
        int first = tile + warp * WARP_TILE + lane * 4;
        if (tile >= part.begin && tile + TILE <= part.end) {
#pragma unroll
            for (int j = 0; j < LOADS; j++) {
                float4 four = __ldcs(reinterpret_cast<const float4*>(part.from + first + j * 4 * WARP));
                x[j][0] = four.x, x[j][1] = four.y, x[j][2] = four.z, x[j][3] = four.w;
            }
        } else {
#pragma unroll
            for (int j = 0; j < LOADS; j++) load_four(part, first + j * 4 * WARP, x[j]);
        }
    }

    __device__ __forceinline__ static void load_four(const Part& part, int at, float (&x)[4]) {
        if (at >= part.begin && at + 4 <= part.end) {
            float4 four = *reinterpret_cast<const float4*>(part.from + at);
            x[0] = four.x, x[1] = four.y, x[2] = four.z, x[3] = four.w;
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++) x[i] = at + i >= part.begin && at + i < part.end ? part.from[at + i] : -INFINITY;
        }
    }

    // Places in the order of the columns: `counts` has a byte for each load of the thread, with how many entries count.
    // Turns it into how many of the warp's entries of the same load come before, and returns how many each load has.
    __device__ __forceinline__ unsigned places(unsigned& counts) const {
        unsigned before = counts;
#pragma unroll
        for (int lanes = 1; lanes < WARP; lanes *= 2) {
            unsigned other = __shfl_up_sync(ALL_LANES, before, lanes);
            if (lane >= lanes) before += other;
        }
        counts = before - counts;
        return __shfl_sync(ALL_LANES, before, WARP - 1);
    }

    __device__ __forceinline__ static int byte(unsigned bytes, int at) { return (bytes >> (8 * at)) & 0xff; }
    __device__ __forceinline__ static int sum_of_bytes(unsigned bytes) { return __dp4a(bytes, 0x01010101u, 0u); }

    // What the warps before this one have, and what all have, of `own`, a number of the whole warp.
    __device__ __forceinline__ int2 before_warp(unsigned own, int which) {
        unsigned* sums = shared.warp_sums[which];
        if (lane == 0) sums[warp] = own;
        __syncthreads();
        unsigned theirs = lane < WARPS ? sums[lane] : 0;
        unsigned before = __reduce_add_sync(ALL_LANES, lane < warp ? theirs : 0);
        return make_int2(before, __reduce_add_sync(ALL_LANES, theirs));
    }

    // Two counts in one number: entries above the threshold, and entries that have its key.
    __device__ __forceinline__ static unsigned both(int above, int tied) { return above | tied << 16; }

    __device__ __forceinline__ static void pad(const Output& output, int chosen, int k) {
        for (int i = chosen + threadIdx.x; i < k; i += THREADS) output.out[i] = -1;
    }
};
