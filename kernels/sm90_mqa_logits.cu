// The indexer's scores of an FP8 cache on Hopper: q in e4m3 with its scale in the head weights, keys of 128 codes and a
// scale (`common/sm90_indexer.cuh` says how the work is shared out).
//
// One warp brings whole pages into shared memory as they lie in the cache. A row of the cache is 132 bytes, which the
// tensor cores do not read from shared memory: the keys go through registers. The products' summed dimension is permuted
// so that a lane has 32 bytes in a row; q is laid out to match.
#include "sm90_e4m3.cuh"

#include "sm90_indexer.cuh"

using namespace sm90;

constexpr int ROW_BYTES = DIM + 4;
constexpr int PAGE_BYTES = PAGE_SIZE * ROW_BYTES;
constexpr int STAGES = 12;

template <int QUERIES> struct Shared {
    alignas(1024) uint8_t q[2][QUERIES * HEADS * DIM];
    alignas(128) uint8_t pages[STAGES][PAGE_BYTES];
    alignas(16) float weights[2][QUERIES * WEIGHTS];
    uint64_t page_full[STAGES], page_empty[STAGES], q_full[2], q_empty[2];
};

// Known to `mqa_logits/cuda.rs`.
static_assert(sizeof(Shared<1>) == 118784 && sizeof(Shared<2>) == 136192 && sizeof(Shared<4>) == 169984);

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

// Brings rows of q.
template <int QUERIES> __device__ __forceinline__ void bring_q(const Arguments& a, Shared<QUERIES>& shared) {
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
                int query = query_of<QUERIES>(n), head = head_of<QUERIES>(n);
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
        bring_weights<QUERIES>(a, row, rows, thread, shared.weights[buffer]);
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
        // Loads of shared memory come in their order: what a product, or a sum before it, waits for comes after these.
        uint32_t scale = shared_address(words + DIM / 4);
        scales[0] = load4(scale);
        scales[1] = load4(scale + 8 * ROW_BYTES);
        words += lane % 4 * 8;
#pragma unroll
        for (int step = 0; step < DIM / 32; step++) {
            codes[step][0] = words[2 * step];
            codes[step][1] = words[2 * step + 8 * (ROW_BYTES / 4)];
            codes[step][2] = words[2 * step + 1];
            codes[step][3] = words[2 * step + 1 + 8 * (ROW_BYTES / 4)];
        }
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
    // Gives the page back that was taken, once its first product is enqueued: an arrival can overtake loads of shared memory
    // that are still in flight, but a product is not enqueued before its registers are loaded.
    auto release = [&]() {
        if (!to_release) return;
        __syncwarp();
        if (lane == 0) arrive(to_release);
        to_release = 0;
    };
    Keys keys;
    take(keys);
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
        auto sum_up = [&](int half, float (&sums)[2][2]) {
            add_heads<QUERIES>(x[half], weights + half * HEADS / 2 * 4, sums);
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
            if constexpr (more) {
                multiply(0);
                release();
                // Nothing is waited for: it tells the compiler that x[1] is at rest.
                products_wait<1>();
            }
            pin(x[1]);
            sum_up(1, sums);
            if constexpr (more) multiply(1);
#pragma unroll
            for (int key = 0; key < 2; key++) {
                int at = column + 8 * key;
                float sum = of_all_lanes<QUERIES>(sums[key]) * scales[key];
                if (at <= last) out[at] = at <= position ? sum : -INFINITY;
            }
            column += CONSUMERS * PAGE_SIZE;
        };
        int pages = (run - first + CONSUMERS - 1) / CONSUMERS;
        if (pages > 0) {
            multiply(0);
            release();
            multiply(1);
            for (; pages > 1; pages--) page(MORE);
            page(LAST);
        }
        turn += run;
        hide_rest(a, walk, run, group);
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
