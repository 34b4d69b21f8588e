// The choice of a token from each row of logits: one block a row, in f64 over the f32 logits as on the CPU. Sums of weights are
// in fixed point, so that they depend on no order. Selections walk down the digits of the values' keys: the largest k, the
// fewest that reach a mass, the one that a random number falls on.
#include "reduce.cuh"
#include "types.cuh"

constexpr int THREADS = 512;
constexpr int WARPS = THREADS / WARP;
constexpr int DIGITS = 256;
// Weights are at most one and have so many binary digits after the point; 2^17 of them fit 62 bits.
constexpr double ONE = 17592186044416.; // 2^44

typedef unsigned long long u64;

// Must match `Row` in src/ops/cuda/sample.rs.
struct Row {
    double temperature, top_p, min_p, uniform;
    double repetition_penalty, presence_penalty, frequency_penalty;
    // 0: all.
    int top_k;
    // Changes of this row's logits, and the words of the tokens that it may choose; -1 for all.
    int first_change, changes, first_word;
    // Whether the largest is taken; whether log-probabilities, the kept tokens are wanted.
    int greedy, logprobs, kept;
    int unused;
};

// Must match `Change` in src/ops/cuda/sample.rs.
struct Change {
    unsigned id;
    // Whether the repetition penalty sees it; how often it is in the answer; what is added.
    int repeated, count;
    float bias;
};

// Must match `Chosen` in src/ops/cuda/sample.rs.
struct Chosen {
    // The token; NONE if there is none, or `fault` is a token whose logit is NaN or +inf.
    unsigned id, fault, kept;
    float fault_logit, logprob, sampled_logprob;
};
constexpr unsigned NONE = 0xffffffffu;

// Integers in the order of the numbers; the two zeros are one.
__device__ __forceinline__ u64 key_of(double x) {
    u64 bits = __double_as_longlong(x + 0.);
    return bits ^ ((u64)((long long)bits >> 63) | 0x8000000000000000ull);
}

struct Shared {
    u64 bins[DIGITS];
    u64 parts[WARP];
    u64 result[4];
    double numbers[WARP];
    int counts[WARP];
};

__device__ u64 block_total(u64 x, Shared& shared) {
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(ALL_LANES, x, lanes);
    __syncthreads();
    if (threadIdx.x % WARP == 0) shared.parts[threadIdx.x / WARP] = x;
    __syncthreads();
    x = threadIdx.x % WARP < WARPS ? shared.parts[threadIdx.x % WARP] : 0;
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(ALL_LANES, x, lanes);
    return x;
}

__device__ double block_max(double x, Shared& shared) {
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) x = fmax(x, __shfl_xor_sync(ALL_LANES, x, lanes));
    __syncthreads();
    if (threadIdx.x % WARP == 0) shared.numbers[threadIdx.x / WARP] = x;
    __syncthreads();
    x = threadIdx.x % WARP < WARPS ? shared.numbers[threadIdx.x % WARP] : -INFINITY;
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) x = fmax(x, __shfl_xor_sync(ALL_LANES, x, lanes));
    return x;
}

__device__ double block_sum_f64(double x, Shared& shared) {
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(ALL_LANES, x, lanes);
    __syncthreads();
    if (threadIdx.x % WARP == 0) shared.numbers[threadIdx.x / WARP] = x;
    __syncthreads();
    x = threadIdx.x % WARP < WARPS ? shared.numbers[threadIdx.x % WARP] : 0.;
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(ALL_LANES, x, lanes);
    return x;
}

// Where a walk down the values ended: everything above `key`, and the first `ties` of those equal to it by id.
struct Cut {
    u64 key, ties;
};

// The fewest of the largest values whose shares reach `target`, which must not exceed the sum of all. `share(value)` is 0 for
// a value that takes no part.
template <class Share> __device__ Cut descend(const double* values, int count, u64 target, Share share, Shared& shared) {
    u64 prefix = 0, known = 0, above = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        for (int i = threadIdx.x; i < DIGITS; i += THREADS) shared.bins[i] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < count; i += THREADS) {
            u64 key = key_of(values[i]);
            if ((key & known) != prefix) continue;
            u64 own = share(values[i]);
            if (own) atomicAdd(&shared.bins[key >> shift & (DIGITS - 1)], own);
        }
        __syncthreads();
        if (threadIdx.x < WARP) {
            // Each lane takes a stretch of digits, from the largest on.
            constexpr int STRETCH = DIGITS / WARP;
            int lane = threadIdx.x, high = DIGITS - 1 - lane * STRETCH;
            u64 own = 0;
#pragma unroll
            for (int i = 0; i < STRETCH; i++) own += shared.bins[high - i];
            u64 upto = own;
#pragma unroll
            for (int lanes = 1; lanes < WARP; lanes *= 2) {
                u64 other = __shfl_up_sync(ALL_LANES, upto, lanes);
                if (lane >= lanes) upto += other;
            }
            u64 before = above + upto - own;
            if (before < target && (target <= before + own || lane == WARP - 1)) {
                int digit = high;
                while (digit > high - STRETCH + 1 && before + shared.bins[digit] < target) before += shared.bins[digit--];
                shared.result[0] = digit;
                shared.result[1] = before;
                shared.result[2] = shared.bins[digit];
            }
        }
        __syncthreads();
        prefix |= shared.result[0] << shift;
        known |= 0xffull << shift;
        above = shared.result[1];
        __syncthreads();
    }
    u64 total = shared.result[2];
    // All that are left are equal: each has the same share.
    long long bits = prefix >> 63 ? (long long)(prefix ^ 0x8000000000000000ull) : (long long)~prefix;
    u64 each = share(__longlong_as_double(bits));
    u64 needed = target > above ? target - above : 1;
    u64 ties = each ? (min(needed, total) + each - 1) / each : 1;
    __syncthreads();
    return Cut{prefix, max(ties, 1ull)};
}

// How many threads before this one, and of the block, have `flag`.
__device__ int2 rank_in_block(bool flag, Shared& shared) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    unsigned ballot = __ballot_sync(ALL_LANES, flag);
    __syncthreads();
    if (lane == 0) shared.counts[warp] = __popc(ballot);
    __syncthreads();
    int before = __popc(ballot & ((1u << lane) - 1)), total = 0;
    for (int other = 0; other < WARPS; other++) {
        if (other < warp) before += shared.counts[other];
        total += shared.counts[other];
    }
    return make_int2(before, total);
}

// Calls `act(id, value, place)` for each value that the cut keeps, with its place among ties (-1 above them), and `drop(id)` for
// the others.
template <class Takes, class Act, class Drop>
__device__ void apply(const double* values, int count, Cut cut, Takes takes, Act act, Drop drop, Shared& shared) {
    u64 seen = 0;
    for (int first = 0; first < count; first += THREADS) {
        int i = first + threadIdx.x;
        double value = i < count ? values[i] : 0.;
        u64 key = i < count ? key_of(value) : 0;
        bool is_tie = i < count && key == cut.key && takes(value);
        int2 rank = rank_in_block(is_tie, shared);
        bool kept = i < count && takes(value) && (key > cut.key || (is_tie && seen + rank.x < cut.ties));
        if (kept) act(i, value, is_tie ? (long long)(seen + rank.x) : -1);
        else if (i < count) drop(i);
        seen += rank.y;
    }
    __syncthreads();
}

extern "C" __global__ void __launch_bounds__(THREADS) sample_f32(
    const float* logits, long long stride, const Row* rows, const Change* changes, const unsigned* allowed, double* scratch,
    unsigned* kept_words, Chosen* chosen, int count) {
    __shared__ Shared shared;
    __shared__ unsigned fault, pick;
    __shared__ double picked;
    const Row row = rows[blockIdx.x];
    logits += blockIdx.x * stride;
    double* values = scratch + (long long)blockIdx.x * count;
    if (threadIdx.x == 0) {
        fault = NONE;
        pick = NONE;
        picked = 0.;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += THREADS) {
        float logit = logits[i];
        if (logit != logit || logit == INFINITY) atomicMin(&fault, i);
        values[i] = logit;
    }
    __syncthreads();
    if (fault != NONE) {
        if (threadIdx.x == 0) chosen[blockIdx.x] = Chosen{NONE, fault, 0, logits[fault], 0.f, 0.f};
        return;
    }
    for (int c = threadIdx.x; c < row.changes; c += THREADS) {
        Change change = changes[row.first_change + c];
        if (change.id >= count) continue;
        double value = values[change.id];
        if (change.repeated && isfinite(value)) {
            value = value > 0. ? value / row.repetition_penalty : value * row.repetition_penalty;
            value = fmin(fmax(value, -1.7976931348623157e308), 1.7976931348623157e308);
        }
        // Rounded after each step, as on the CPU.
        if (change.count > 0) {
            value = __dsub_rn(value, __dadd_rn(row.presence_penalty, __dmul_rn(row.frequency_penalty, (double)change.count)));
        }
        values[change.id] = __dadd_rn(value, (double)change.bias);
    }
    __syncthreads();
    double own_max = -INFINITY;
    u64 own_count = 0;
    for (int i = threadIdx.x; i < count; i += THREADS) {
        if (row.first_word >= 0 && !(allowed[row.first_word + i / 32] >> (i % 32) & 1u)) values[i] = -INFINITY;
        own_max = fmax(own_max, values[i]);
        own_count += values[i] > -INFINITY;
    }
    double largest = block_max(own_max, shared);
    u64 candidates = block_total(own_count, shared);
    if (candidates == 0) {
        if (threadIdx.x == 0) chosen[blockIdx.x] = Chosen{NONE, NONE, 0, 0.f, 0.f, 0.f};
        return;
    }
    auto is_candidate = [](double value) { return value > -INFINITY; };
    auto one_each = [](double value) { return (u64)(value > -INFINITY); };
    auto exclude = [&](int i) { values[i] = -INFINITY; };
    auto nothing = [](int, double, long long) {};

    // Greedy is the first of the largest.
    bool sorted = false;
    if (row.greedy || (row.top_k > 0 && row.top_k < candidates)) {
        Cut cut = descend(values, count, row.greedy ? 1 : row.top_k, one_each, shared);
        apply(values, count, cut, is_candidate, nothing, exclude, shared);
        sorted = true;
    }
    auto weight = [&](double value) { return row.greedy ? 1. : exp((value - largest) / row.temperature); };
    auto share = [&](double value) { return value > -INFINITY ? (u64)llrint(weight(value) * ONE) : 0ull; };
    auto total_share = [&]() {
        u64 own = 0;
        for (int i = threadIdx.x; i < count; i += THREADS) own += share(values[i]);
        return block_total(own, shared);
    };
    if (!row.greedy && row.top_p < 1.) {
        u64 target = (u64)ceil(row.top_p * (double)total_share());
        Cut cut = descend(values, count, max(target, 1ull), share, shared);
        apply(values, count, cut, is_candidate, nothing, exclude, shared);
        sorted = true;
    }
    if (!row.greedy && row.min_p > 0.) {
        for (int i = threadIdx.x; i < count; i += THREADS) {
            if (values[i] > -INFINITY && !(weight(values[i]) >= row.min_p)) values[i] = -INFINITY;
        }
        __syncthreads();
    }
    u64 total = total_share();
    u64 target = min((u64)(row.uniform * (double)total), total - 1) + 1;
    if (sorted) {
        Cut cut = descend(values, count, target, share, shared);
        // The last that the cut keeps: the last of its ties.
        auto last = [&](int i, double value, long long place) {
            if (place == (long long)cut.ties - 1) {
                pick = i;
                picked = value;
            }
        };
        apply(values, count, cut, is_candidate, last, [](int) {}, shared);
    } else {
        // By id: each thread sums a stretch of its own.
        int stretch = (count + THREADS - 1) / THREADS, begin = min((int)threadIdx.x * stretch, count), end = min(begin + stretch, count);
        u64 own = 0;
        for (int i = begin; i < end; i++) own += share(values[i]);
        u64 before = own;
        int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll
        for (int lanes = 1; lanes < WARP; lanes *= 2) {
            u64 other = __shfl_up_sync(ALL_LANES, before, lanes);
            if (lane >= lanes) before += other;
        }
        __syncthreads();
        if (lane == WARP - 1) shared.parts[warp] = before;
        __syncthreads();
        before -= own;
        for (int other = 0; other < warp; other++) before += shared.parts[other];
        if (before < target && target <= before + own) {
            for (int i = begin; i < end; i++) {
                before += share(values[i]);
                if (before >= target) {
                    pick = i;
                    picked = values[i];
                    break;
                }
            }
        }
    }
    __syncthreads();
    u64 own_kept = 0;
    for (int i = threadIdx.x; i < count; i += THREADS) own_kept += values[i] > -INFINITY;
    u64 kept = block_total(own_kept, shared);
    if (row.kept) {
        unsigned* words = kept_words + (long long)blockIdx.x * ((count + 31) / 32);
        for (int w = threadIdx.x; w < (count + 31) / 32; w += THREADS) {
            unsigned word = 0;
            for (int bit = 0; bit < 32 && w * 32 + bit < count; bit++) {
                word |= (unsigned)(values[w * 32 + bit] > -INFINITY) << bit;
            }
            words[w] = word;
        }
    }
    float logprob = 0.f, sampled = 0.f;
    if (row.logprobs) {
        double own = -INFINITY;
        for (int i = threadIdx.x; i < count; i += THREADS) own = fmax(own, (double)logits[i]);
        float top = (float)block_max(own, shared);
        double sum = 0.;
        for (int i = threadIdx.x; i < count; i += THREADS) sum += exp((double)(logits[i] - top));
        sum = block_sum_f64(sum, shared);
        if (pick != NONE) {
            logprob = (float)((double)logits[pick] - ((double)top + log(sum)));
            sampled = row.greedy ? 0.f : (float)log(weight(picked) / ((double)total / ONE));
        }
    }
    if (threadIdx.x == 0) chosen[blockIdx.x] = Chosen{pick, NONE, (unsigned)kept, 0.f, logprob, sampled};
}
