// The indexer's scores of an FP8 cache on Hopper: q in e4m3 with its scale in the head weights, keys of 128 codes and a
// scale. Keys are the rows of the products and (row of q, head) their columns, so that a lane has all heads of a key and
// sums them in registers.
//
// A block of QUERIES rows of one sequence shares a page of keys. The blocks' pages, one block after the other, are dealt
// out evenly to the GPU's multiprocessors. There one warp brings whole pages into shared memory as they lie in the cache,
// three warps the rows of q, and two warpgroups take turns: while one multiplies, the other sums up. A row of the cache
// is 132 bytes, which the tensor cores do not read from shared memory: the keys go through registers. The products' summed
// dimension is permuted so that a lane has 32 bytes in a row; q is laid out to match.
#include <type_traits>

#include "layout.cuh"
#include "reduce.cuh"
#include "sm90_e4m3.cuh"

using namespace sm90;

constexpr int DIM = 128;
constexpr int HEADS = 64;
constexpr int ROW_BYTES = DIM + 4;
constexpr int PAGE_BYTES = PAGE_SIZE * ROW_BYTES;
constexpr int STAGES = 12;
constexpr int CONSUMERS = 2;
constexpr int LOADERS = 3 * WARP;
// Numbers of head weights for each row of q: a little more than HEADS, so that rows lie in different banks.
constexpr int WEIGHTS = HEADS + 4;

constexpr std::integral_constant<int, 1> MORE;
constexpr std::integral_constant<int, 0> LAST;

template <int QUERIES> struct Shared {
    alignas(1024) uint8_t q[2][QUERIES * HEADS * DIM];
    alignas(128) uint8_t pages[STAGES][PAGE_BYTES];
    alignas(16) float weights[2][QUERIES * WEIGHTS];
    uint64_t page_full[STAGES], page_empty[STAGES], q_full[2], q_empty[2];
};

// Known to `mqa_logits/cuda.rs`.
static_assert(sizeof(Shared<1>) == 118784 && sizeof(Shared<2>) == 136192 && sizeof(Shared<4>) == 169984);

struct Arguments {
    const uint8_t* q;
    long long q_row, q_head;
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

// Brings the pages.
template <int QUERIES> __device__ __forceinline__ void bring_pages(const Arguments& a, Shared<QUERIES>& shared) {
    int lane = threadIdx.x % WARP, stage = 0, phase = 0;
    for (Walk<QUERIES> walk(a); walk.left > 0; walk.advance()) {
        const unsigned* table = a.layout.pages + walk.sequence.table + walk.page;
        int run = walk.run();
        for (int first = 0; first < run; first += WARP) {
            unsigned page = first + lane < run ? table[first + lane] : 0;
            for (int i = 0; i < min(WARP, run - first); i++) {
                unsigned from = __shfl_sync(ALL_LANES, page, i);
                if (lane == 0) {
                    uint32_t full = shared_address(&shared.page_full[stage]);
                    wait(shared_address(&shared.page_empty[stage]), phase ^ 1);
                    arrive_expecting(full, PAGE_BYTES);
                    copy_bulk(shared_address(shared.pages[stage]), a.keys + (long long)from * PAGE_BYTES, PAGE_BYTES, full);
                }
                if (++stage == STAGES) stage = 0, phase ^= 1;
            }
        }
    }
}

// Brings rows of q. Columns 2 l and 2 l + 1 of every eight are the same row's for the lanes l that share it.
template <int QUERIES> __device__ __forceinline__ void bring_q(const Arguments& a, Shared<QUERIES>& shared) {
    constexpr int SHARE = 4 / QUERIES; // Lanes that share a row's heads.
    int thread = threadIdx.x % WARPGROUP - WARP, buffer = 0, phase = 0;
    for (Walk<QUERIES> walk(a); walk.left > 0; walk.advance()) {
        wait(shared_address(&shared.q_empty[buffer]), phase ^ 1);
        uint8_t* to = shared.q[buffer];
        int row = walk.sequence.row + walk.block * QUERIES;
        int rows = min(QUERIES, (int)walk.sequence.tokens - walk.block * QUERIES);
        // A thread takes 32 bytes of a row, the part of one lane of the products; eight neighbours take eight rows. Several
        // loads are in flight.
        constexpr int BATCH = 4, PARTS = QUERIES * HEADS * 4;
        for (int first = thread; first < PARTS; first += LOADERS * BATCH) {
            uint4 codes[BATCH][2];
#pragma unroll
            for (int k = 0; k < BATCH; k++) {
                int i = first + k * LOADERS, n = i / 32 * 8 + i % 8, part = i / 8 % 4;
                int query = n / 2 % 4 / SHARE, head = n / 8 * 2 * SHARE + n / 2 % SHARE * 2 + n % 2;
                codes[k][0] = codes[k][1] = make_uint4(0, 0, 0, 0);
                if (i < PARTS && query < rows && head < a.heads) {
                    const uint4* from =
                        reinterpret_cast<const uint4*>(a.q + (row + query) * a.q_row + head * a.q_head + part * 32);
                    codes[k][0] = from[0], codes[k][1] = from[1];
                }
            }
#pragma unroll
            for (int k = 0; k < BATCH; k++) {
                int i = first + k * LOADERS, n = i / 32 * 8 + i % 8, part = i / 8 % 4;
                if (i >= PARTS) break;
                uint8_t* at = to + n * DIM + part * 4;
                uint32_t words[8] = {codes[k][0].x, codes[k][0].y, codes[k][0].z, codes[k][0].w,
                                     codes[k][1].x, codes[k][1].y, codes[k][1].z, codes[k][1].w};
#pragma unroll
                for (int j = 0; j < 8; j++) *reinterpret_cast<uint32_t*>(at + (j ^ (n % 8)) * 16) = words[j];
            }
        }
        for (int i = thread; i < QUERIES * HEADS; i += LOADERS) {
            int query = i / HEADS, head = i % HEADS;
            // x + |x| is twice the relu of x, and NaN if x is.
            float weight = query < rows && head < a.heads ? 0.5f * a.weights[(long long)(row + query) * a.heads + head] : 0.f;
            shared.weights[buffer][query * WEIGHTS + head] = weight;
        }
        fence_products();
        arrive(shared_address(&shared.q_full[buffer]));
        if (++buffer == 2) buffer = 0, phase ^= 1;
    }
}

// Keys of a page as a warp multiplies them, and the scales of the lane's two.
struct Keys {
    uint32_t codes[DIM / 32][4];
    float scales[2];

    __device__ __forceinline__ void load(const uint8_t* page, int warp, int lane) {
        const uint32_t* words = reinterpret_cast<const uint32_t*>(page) + (warp * 16 + lane / 4) * (ROW_BYTES / 4);
        const float* scale = reinterpret_cast<const float*>(words + DIM / 4);
        words += lane % 4 * 8;
#pragma unroll
        for (int step = 0; step < DIM / 32; step++) {
            codes[step][0] = words[2 * step];
            codes[step][1] = words[2 * step + 8 * (ROW_BYTES / 4)];
            codes[step][2] = words[2 * step + 1];
            codes[step][3] = words[2 * step + 1 + 8 * (ROW_BYTES / 4)];
        }
        scales[0] = scale[0];
        scales[1] = scale[8 * (ROW_BYTES / 4)];
    }
};

template <int QUERIES> __device__ __forceinline__ void score(const Arguments& a, Shared<QUERIES>& shared, int group) {
    // Columns of a product: half of the heads.
    constexpr int SHARE = 4 / QUERIES, COLUMNS = QUERIES * HEADS / 2;
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP % 4, query = lane % 4 / SHARE;
    // Pages are counted over the whole walk; this warpgroup has every second one.
    int stage = group, phase = 0, buffer = 0, q_phase = 0, turn = 0;
    float x[2][COLUMNS / 2];
    Walk<QUERIES> walk(a);
    int ahead = walk.left - group;
    uint32_t to_release = 0;
    auto take = [&](Keys& keys) {
        if (ahead <= 0) return;
        wait(shared_address(&shared.page_full[stage]), phase);
        keys.load(shared.pages[stage], warp, lane);
        to_release = shared_address(&shared.page_empty[stage]);
        stage += CONSUMERS;
        if (stage >= STAGES) stage -= STAGES, phase ^= 1;
        ahead -= CONSUMERS;
    };
    // Gives the page back that was taken. The fence waits for what was loaded of it: an arrival can overtake loads of
    // shared memory that are still in flight.
    auto release = [&]() {
        if (!to_release) return;
        fence_products();
        __syncwarp();
        if (lane == 0) arrive(to_release);
        to_release = 0;
    };
    Keys keys;
    take(keys);
    release();
    for (; walk.left > 0; walk.advance()) {
        wait(shared_address(&shared.q_full[buffer]), q_phase);
        Matrix q(shared_address(shared.q[buffer]));
        uint32_t weights = shared_address(&shared.weights[buffer][query * WEIGHTS + lane % SHARE * 2]);
        int block_row = walk.block * QUERIES + query, run = walk.run();
        int position = walk.sequence.start + block_row;
        float* out = a.out + (long long)(walk.sequence.row + block_row) * a.out_stride;
        // The last column that this lane writes.
        int last = block_row >= walk.sequence.tokens || lane % SHARE > 0 ? -1 : a.fill ? a.columns - 1 : position;
        int first = (turn + group) & 1, column = (walk.page + first) * PAGE_SIZE + warp * 16 + lane / 4;
        auto multiply = [&](int half) {
            products_begin();
#pragma unroll
            for (int step = 0; step < DIM / 32; step++) {
                uint64_t b = q.at(half * COLUMNS * DIM + step * 32);
                product_e4m3(x[half], keys.codes[step], b, step > 0);
            }
            products_commit();
        };
        // A lane's accumulators are, by fours, two heads of two keys.
        auto sum_up = [&](int half, float (&sums)[2][2]) {
            float (&y)[COLUMNS / 2] = x[half];
            constexpr int STEP = SHARE == 1 ? 2 : 1;
#pragma unroll
            for (int j = 0; j < COLUMNS / 8; j += STEP) {
                uint32_t at = weights + (half * HEADS / 2 + j * 2 * SHARE) * 4;
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
                    sums[i / 2 % 2][i % 2] += w[i / 4 * 2 + i % 2] * (y[4 * j + i] + fabsf(y[4 * j + i]));
                }
            }
        };
        // Sums up a page: the first half between products, the second one while the next page is multiplied; meanwhile the
        // other warpgroup multiplies. The compiler serializes products if a register that one reads is loaded, or an
        // accumulator read, after another has begun.
        auto page = [&](auto more) {
            float sums[2][2] = {};
            products_wait<0>();
            float scales[2] = {keys.scales[0], keys.scales[1]};
            take(keys);
            pin(x[0]);
            sum_up(0, sums);
            release();
            if constexpr (more) {
                multiply(0);
                // Nothing is waited for: it tells the compiler that x[1] is at rest.
                products_wait<1>();
            }
            pin(x[1]);
            sum_up(1, sums);
            if constexpr (more) multiply(1);
#pragma unroll
            for (int key = 0; key < 2; key++) {
                float sum = sums[key][0] + sums[key][1];
#pragma unroll
                for (int lanes = 1; lanes < SHARE; lanes *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, lanes);
                int at = column + 8 * key;
                if (at <= last) out[at] = at <= position ? sum * scales[key] : -INFINITY;
            }
            column += CONSUMERS * PAGE_SIZE;
        };
        int pages = (run - first + CONSUMERS - 1) / CONSUMERS;
        if (pages > 0) {
            multiply(0);
            multiply(1);
            for (; pages > 1; pages--) page(MORE);
            page(LAST);
        }
        turn += run;
        if (a.fill && walk.page + run == walk.sequence.pages(walk.block)) {
            for (int row = 0; row < QUERIES && walk.block * QUERIES + row < walk.sequence.tokens; row++) {
                float* rest = a.out + (long long)(walk.sequence.row + walk.block * QUERIES + row) * a.out_stride;
                int at = (walk.page + run) * PAGE_SIZE + group * WARPGROUP + threadIdx.x % WARPGROUP;
                for (; at < a.columns; at += CONSUMERS * WARPGROUP) rest[at] = -INFINITY;
            }
        }
        __syncwarp();
        if (lane == 0) arrive(shared_address(&shared.q_empty[buffer]));
        if (++buffer == 2) buffer = 0, q_phase ^= 1;
    }
}

template <int QUERIES> __device__ __forceinline__ void mqa_logits(const Arguments& a) {
    extern __shared__ __align__(1024) uint8_t dynamic[];
    Shared<QUERIES>& shared = *reinterpret_cast<Shared<QUERIES>*>(dynamic);
    int group = __shfl_sync(ALL_LANES, threadIdx.x / WARPGROUP, 0);
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(shared_address(&shared.page_full[i]), 1);
            barrier_init(shared_address(&shared.page_empty[i]), 4);
        }
        for (int i = 0; i < 2; i++) {
            barrier_init(shared_address(&shared.q_full[i]), LOADERS);
            barrier_init(shared_address(&shared.q_empty[i]), CONSUMERS * 4);
        }
        barrier_init_done();
    }
    __syncthreads();
    if (group == CONSUMERS) {
        give_registers<88>();
        if (threadIdx.x % WARPGROUP < WARP) bring_pages(a, shared); else bring_q(a, shared);
    } else {
        take_registers<208>();
        score<QUERIES>(a, shared, group);
    }
}

// `keys` begins with slot 0; `out` has rows of out_stride elements. Rows that see no more than `skipped` positions may be
// left out. Where `fill`, what a row does not see is set to -inf up to `columns`; else it is left alone.
#define KERNEL(name, queries)                                                                                        \
    extern "C" __global__ void __launch_bounds__((CONSUMERS + 1) * WARPGROUP, 1) name(                               \
        const uint8_t* q, long long q_row, long long q_head, const uint8_t* keys, const float* weights,              \
        const uint4* spans, const unsigned* pages, int count, float* out, long long out_stride, int rows, int heads, \
        int columns, int skipped, int fill) {                                                                        \
        mqa_logits<queries>(Arguments{                                                                               \
            q, q_row, q_head, keys, weights, Layout{spans, pages, count}, out, out_stride, rows, heads, columns,     \
            skipped, fill});                                                                                         \
    }
KERNEL(mqa_logits_f8e4m3_u8_x1, 1)
KERNEL(mqa_logits_f8e4m3_u8_x2, 2)
KERNEL(mqa_logits_f8e4m3_u8_x4, 4)
