// The columns (or slots) of the k largest entries of every row, in ascending order of the column: one pass over the row.
// A sample of the row gives a threshold that a little more than k entries exceed; the entries above it are kept in shared
// memory in their order, and histograms over their range find the k-th largest exactly. Where the buffer overflows, it is
// cut to its k best and the threshold rises; where the sample led to fewer than k entries, the row is read again without
// it. Short rows stay in the registers of a block and need neither. A long row is the work of one block, or of the blocks
// of a cluster, which share out its columns and hand what they kept to the first of them. Hopper; k up to 4096.
#include <cooperative_groups.h>

#include "sm90_topk_block.cuh"

namespace cg = cooperative_groups;

// A row of the work of a block, or of the blocks of a cluster.
template <int THREADS, int LOADS, int KEPT, int CLUSTER> struct Row : Block<THREADS, LOADS, KEPT, CLUSTER> {
    using Base = Block<THREADS, LOADS, KEPT, CLUSTER>;
    using Base::shared, Base::entries, Base::columns, Base::lane, Base::warp;
    using Base::WARPS, Base::WARP_TILE, Base::TILE;
    using Base::begin, Base::gather, Base::find_bin, Base::select, Base::select_listed, Base::load, Base::load_four;
    using Base::places, Base::byte, Base::sum_of_bytes, Base::before_warp, Base::both, Base::pad;

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
