// The columns (or slots) of the k largest entries of every row, in ascending order of the column: one pass over the row.
// A sample of the row gives a threshold that a little more than k entries exceed; the entries above it are kept in shared
// memory in their order, and histograms over their range find the k-th largest exactly. Where the buffer overflows, it is
// cut to its k best and the threshold rises; where the sample led to fewer than k entries, the row is read again without
// it. Short rows stay in the registers of a block and need neither. A long row is the work of one block, or of the blocks
// of a cluster, which share out its columns and hand what they kept to the first of them. Hopper; k up to 4096.
#include <cooperative_groups.h>

#include "layout.cuh"
#include "reduce.cuh"

namespace cg = cooperative_groups;

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
template <int THREADS, int LOADS, int KEPT, int CLUSTER> struct Row {
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

    // A row in the registers of a block.
    __device__ __forceinline__ void in_registers(const Part& part, int k, const Output& output) {
        float x[LOADS][4];
        load(part, 0, x);
        float low = INFINITY, high = -INFINITY;
        bool is_nan = false;
        Range own;
#pragma unroll
        for (int j = 0; j < LOADS; j++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                is_nan |= x[j][i] != x[j][i];
                high = fmaxf(high, x[j][i]);
                if (x[j][i] > -INFINITY) {
                    low = fminf(low, x[j][i]);
                    own.found++;
                }
            }
        }
        if (own.found > 0) own.low = key_of(low), own.high = key_of(high);
        // A NaN is more than all entries of a row are.
        if (is_nan) own.found = 2 * TILE;
        Range range = gather(own);
        int chosen = range.found > TILE ? 0 : min(k, range.found);
        if (chosen > 0) {
            Threshold t = select(range, chosen, [&](auto f) {
#pragma unroll
                for (int j = 0; j < LOADS; j++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) f(x[j][i]);
                }
            });
            float threshold = number_of(t.key);
            unsigned above = 0, tied = 0, aboves, ties = 0;
#pragma unroll
            for (int j = 0; j < LOADS; j++) {
#pragma unroll
                for (int i = 0; i < 4; i++) above += (unsigned)(x[j][i] > threshold) << (8 * j);
            }
            aboves = places(above);
            if (t.ties > 0) {
#pragma unroll
                for (int j = 0; j < LOADS; j++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) tied += (unsigned)(x[j][i] == threshold) << (8 * j);
                }
                ties = places(tied);
            }
            unsigned before = before_warp(both(sum_of_bytes(aboves), sum_of_bytes(ties)), 1).x;
            int above_seen = before & 0xffff, tied_seen = before >> 16;
            int first = warp * WARP_TILE + lane * 4 - part.skipped;
#pragma unroll
            for (int j = 0; j < LOADS; j++) {
                int at = above_seen + byte(above, j), tie = tied_seen + byte(tied, j);
                if (t.ties > 0) {
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        bool is_above = x[j][i] > threshold, is_tie = x[j][i] == threshold;
                        if (is_above || (is_tie && tie < t.ties)) {
                            output.put(at + min(tie, t.ties), first + j * 4 * WARP + i);
                        }
                        at += is_above;
                        tie += is_tie;
                    }
                } else {
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        if (x[j][i] > threshold) output.put(at++, first + j * 4 * WARP + i);
                    }
                }
                above_seen += byte(aboves, j);
                tied_seen += byte(ties, j);
            }
        }
        pad(output, chosen, k);
    }

    // A row that is streamed; `part` is this block's part of it.
    __device__ __forceinline__ void streamed(const Part& whole, const Part& part, int k, const Output& output) {
        float threshold = whole.end - whole.begin > KEPT ? sampled(whole, k) : -INFINITY;
        int kept;
        bool is_nan;
        for (int reading = 0;; reading++) {
            kept = filter(part, k, threshold, is_nan);
            int2 all = make_int2(kept, is_nan);
            int before = 0;
            if constexpr (CLUSTER > 1) {
                auto cluster = cg::this_cluster();
                if (threadIdx.x == 0) shared.boxes[reading] = all;
                cluster.sync();
                int2 theirs = lane < CLUSTER ? *cluster.map_shared_rank(&shared.boxes[reading], lane) : make_int2(0, 0);
                before = __reduce_add_sync(ALL_LANES, lane < cluster.block_rank() ? theirs.x : 0);
                all.x = __reduce_add_sync(ALL_LANES, theirs.x);
                all.y = __any_sync(ALL_LANES, theirs.y);
            }
            is_nan = all.y;
            // Too few, though there may be more: the sample misled.
            if (all.x < k && threshold > -INFINITY && !is_nan) {
                threshold = -INFINITY;
                continue;
            }
            if constexpr (CLUSTER > 1) kept = hand_over(kept, before, all.x, reading, k);
            break;
        }
        if (CLUSTER > 1 && cg::this_cluster().block_rank() > 0) return;
        int chosen = is_nan ? 0 : min(k, kept);
        if (chosen > 0) choose(kept, chosen, output);
        pad(output, chosen, k);
    }

    // Brings what all blocks of the cluster kept, in order, to the first one, and returns how much it has then.
    __device__ __forceinline__ int hand_over(int kept, int before, int all, int reading, int k) {
        auto cluster = cg::this_cluster();
        if (all <= KEPT) {
            if (cluster.block_rank() > 0) {
                float* to_entries = cluster.map_shared_rank(entries, 0) + before;
                int* to_columns = cluster.map_shared_rank(columns, 0) + before;
                for (int i = threadIdx.x; i < kept; i += THREADS) to_entries[i] = entries[i], to_columns[i] = columns[i];
            }
            kept = all;
        } else if (cluster.block_rank() == 0) {
            for (int block = 1; block < CLUSTER; block++) {
                const float* from_entries = cluster.map_shared_rank(entries, block);
                const int* from_columns = cluster.map_shared_rank(columns, block);
                int theirs = cluster.map_shared_rank(&shared.boxes[reading], block)->x;
                for (int done = 0; done < theirs;) {
                    int taken = min(theirs - done, KEPT - kept);
                    for (int i = threadIdx.x; i < taken; i += THREADS) {
                        entries[kept + i] = from_entries[done + i], columns[kept + i] = from_columns[done + i];
                    }
                    kept += taken;
                    done += taken;
                    __syncthreads();
                    if (kept == KEPT) cut(kept, k), kept = k;
                }
            }
        }
        cluster.sync();
        return kept;
    }

    __device__ __forceinline__ Range range_of_kept(int kept) {
        Range own;
        for (int i = threadIdx.x; i < kept; i += THREADS) own.add(key_of(entries[i]));
        return gather(own);
    }

    __device__ __forceinline__ Threshold select_kept(int kept, int wanted) {
        return select(range_of_kept(kept), wanted, [&](auto f) {
            for (int i = threadIdx.x; i < kept; i += THREADS) f(entries[i]);
        });
    }

    // Writes the columns of the best kept entries.
    __device__ __forceinline__ void choose(int kept, int chosen, const Output& output) {
        Threshold t = select_kept(kept, chosen);
        float threshold = number_of(t.key);
        int step = (kept + WARPS * WARP - 1) / (WARPS * WARP) * WARP, end = min((warp + 1) * step, kept);
        int above = 0, tied = 0;
        for (int i = warp * step + lane; i - lane < end; i += WARP) {
            float x = i < end ? entries[i] : -INFINITY;
            above += __popc(__ballot_sync(ALL_LANES, x > threshold));
            if (t.ties > 0) tied += __popc(__ballot_sync(ALL_LANES, x == threshold));
        }
        unsigned before = before_warp(both(above, tied), 1).x, lower = (1u << lane) - 1;
        above = before & 0xffff, tied = before >> 16;
        for (int i = warp * step + lane; i - lane < end; i += WARP) {
            float x = i < end ? entries[i] : -INFINITY;
            unsigned aboves = __ballot_sync(ALL_LANES, x > threshold);
            unsigned ties = t.ties > 0 ? __ballot_sync(ALL_LANES, x == threshold) : 0;
            int tie = tied + __popc(ties & lower), at = above + __popc(aboves & lower) + min(tie, t.ties);
            if (x > threshold || ((ties >> lane & 1) && tie < t.ties)) output.put(at, columns[i]);
            above += __popc(aboves);
            tied += __popc(ties);
        }
    }

    // A number that a little more than k entries of the row exceed, if the row is like its sample.
    __device__ __forceinline__ float sampled(const Part& whole, int k) {
        constexpr int FOURS = SAMPLE / 4 / THREADS;
        float x[FOURS][4];
        Range own;
        int length = whole.end - whole.begin;
#pragma unroll
        for (int j = 0; j < FOURS; j++) {
            // Runs of a line, evenly over the row.
            int at = (j * THREADS + threadIdx.x) * 4;
            int place = (int)((long long)(at / RUN) * length / (SAMPLE / RUN));
            load_four(whole, place / RUN * RUN + at % RUN, x[j]);
        }
#pragma unroll
        for (int j = 0; j < FOURS; j++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if (x[j][i] > -INFINITY) own.add(key_of(x[j][i]));
            }
        }
        Range range = gather(own);
        float expected = (float)k * SAMPLE / length;
        int wanted = expected + 4.f * sqrtf(expected) + 8.f;
        if (wanted >= range.found) return -INFINITY;
        Threshold t = select(range, wanted, [&](auto f) {
#pragma unroll
            for (int j = 0; j < FOURS; j++) {
#pragma unroll
                for (int i = 0; i < 4; i++) f(x[j][i]);
            }
        });
        // All that have the key of the last may be needed.
        return number_of(t.ties > 0 ? t.key - 1 : t.key);
    }

    // Keeps the part's entries above the threshold, in order, or those of them that can be among the row's k largest.
    __device__ __forceinline__ int filter(const Part& part, int k, float threshold, bool& is_nan) {
        int kept = 0, parity = 0;
        // Whether the warp's entries of this tile are kept already.
        bool done = false;
        is_nan = false;
        for (int tile = part.first_tile(); tile < part.end;) {
            float x[LOADS][4];
            load(part, tile, x);
            unsigned counts = 0;
#pragma unroll
            for (int j = 0; j < LOADS; j++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    is_nan |= x[j][i] != x[j][i];
                    counts += (unsigned)(x[j][i] > threshold) << (8 * j);
                }
            }
            if (done) counts = 0;
            unsigned totals = places(counts);
            int own = sum_of_bytes(totals);
            parity ^= 1;
            int2 warps = before_warp(own, parity);
            int at = kept + warps.x;
            if (!done && at + own <= KEPT) {
                done = true;
                int column = tile + warp * WARP_TILE + lane * 4 - part.skipped;
#pragma unroll
                for (int j = 0; j < LOADS; j++) {
                    int place = at + byte(counts, j);
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        if (x[j][i] > threshold) {
                            entries[place] = x[j][i];
                            columns[place] = column + j * 4 * WARP + i;
                            place++;
                        }
                    }
                    at += byte(totals, j);
                }
            }
            if (kept + warps.y <= KEPT) {
                kept += warps.y;
                done = false;
                tile += TILE;
                continue;
            }
            // Only the first warps found a place; the others' entries are read again.
            int upto = lane < WARPS ? shared.warp_sums[parity][lane] : 0;
#pragma unroll
            for (int lanes = 1; lanes < WARP; lanes *= 2) {
                int other = __shfl_up_sync(ALL_LANES, upto, lanes);
                if (lane >= lanes) upto += other;
            }
            kept += __reduce_max_sync(ALL_LANES, kept + upto <= KEPT ? upto : 0);
            __syncthreads();
            threshold = cut(kept, k);
            kept = k;
        }
        is_nan = __syncthreads_or(is_nan);
        return kept;
    }

    // Leaves the k best of more than k kept entries, in their order; returns what further entries must exceed.
    __device__ __forceinline__ float cut(int kept, int k) {
        Threshold t = select_kept(kept, k);
        float threshold = number_of(t.key);
        int written = 0, tied = 0;
        for (int first = 0; first < kept; first += THREADS) {
            int i = first + threadIdx.x;
            float x = i < kept ? entries[i] : -INFINITY;
            int column = i < kept ? columns[i] : 0;
            unsigned lower = (1u << lane) - 1;
            unsigned aboves = __ballot_sync(ALL_LANES, x > threshold);
            unsigned ties = __ballot_sync(ALL_LANES, t.ties > 0 && x == threshold);
            int2 warps = before_warp(both(__popc(aboves), __popc(ties)), 1);
            int tie = tied + (warps.x >> 16) + __popc(ties & lower);
            int at = written + (warps.x & 0xffff) + __popc(aboves & lower) + min(tie, t.ties) - min(tied, t.ties);
            // What was at `at` has been read: it is not after i.
            if (x > threshold || ((ties >> lane & 1) && tie < t.ties)) entries[at] = x, columns[at] = column;
            written += (warps.y & 0xffff) + min(tied + (warps.y >> 16), t.ties) - min(tied, t.ties);
            tied += warps.y >> 16;
            __syncthreads();
        }
        return threshold;
    }
};

template <int THREADS, int LOADS, int KEPT, int CLUSTER>
__device__ __forceinline__ void topk(
    const float* logits, long long stride, Layout layout, int* out, int columns, int k) {
    extern __shared__ __align__(16) char dynamic[];
    long long t = blockIdx.x / CLUSTER;
    Output output{out + t * k, nullptr};
    int length = columns;
    if (layout.spans) {
        Seen seen(layout, t);
        length = min(columns, (int)seen.position + 1);
        output.pages = seen.pages;
        if (length <= k) {
            // All of them, whatever their scores.
            for (int i = blockIdx.x % CLUSTER * THREADS + threadIdx.x; i < k; i += CLUSTER * THREADS) {
                if (i < length) output.put(i, i); else output.out[i] = -1;
            }
            return;
        }
    }
    const float* row = logits + t * stride;
    int skipped = (reinterpret_cast<uintptr_t>(row) / sizeof(float)) % 4;
    Part whole{row - skipped, skipped, skipped + length, skipped};
    float* entries = reinterpret_cast<float*>(dynamic + sizeof(Shared));
    Row<THREADS, LOADS, KEPT, CLUSTER> work{
        *reinterpret_cast<Shared*>(dynamic), entries, reinterpret_cast<int*>(entries + KEPT)};
    work.begin();
    if constexpr (KEPT == 0) {
        work.in_registers(whole, k, output);
    } else {
        int share = ((whole.end + CLUSTER - 1) / CLUSTER + 4 * WARP - 1) / (4 * WARP) * (4 * WARP);
        int first = blockIdx.x % CLUSTER * share;
        Part part{whole.from, max(first, whole.begin), min(first + share, whole.end), skipped};
        work.streamed(whole, part, k, output);
    }
}

// Known to `topk/cuda.rs`, with the numbers of threads and of kept entries.
static_assert(sizeof(Shared) == 8992);

#define KERNEL(name, threads, blocks, kept, cluster)                                                                 \
    extern "C" __global__ void __cluster_dims__(cluster, 1, 1) __launch_bounds__(threads, blocks) name(              \
        const float* logits, long long stride, const uint4* spans, const unsigned* pages, int count, int* out,       \
        int columns, int k) {                                                                                        \
        topk<threads, 4, kept, cluster>(logits, stride, Layout{spans, pages, count}, out, columns, k);               \
    }
KERNEL(topk_f32_registers, 512, 3, 0, 1)
KERNEL(topk_f32_streamed_x1, 512, 2, 8192, 1)
KERNEL(topk_f32_streamed_x2, 512, 2, 8192, 2)
KERNEL(topk_f32_streamed_x4, 512, 2, 8192, 4)
KERNEL(topk_f32_streamed_x8, 512, 2, 8192, 8)
