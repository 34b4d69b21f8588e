// The indexer's scores of a bf16 cache on Hopper, with q in bf16 (`common/sm90_indexer.cuh` says how the work is shared
// out). Keys and q lie in shared memory as the tensor cores read them.
#include "sm90_wgmma.cuh"
#include "types.cuh"

#include "sm90_indexer.cuh"

constexpr int ROW_BYTES = DIM * 2;
// A row of keys or of q is cut into panels of 128 bytes.
constexpr int PANEL_ROW = 128;
constexpr int PAGE_BYTES = PAGE_SIZE * ROW_BYTES;
// Numbers of a product's summed dimension.
constexpr int STEP = 16;
// Warps that bring pages; the others of their warpgroup bring q.
constexpr int PAGERS = 2;
constexpr int Q_LOADERS = WARPGROUP - PAGERS * WARP;

template <int QUERIES> struct Shared {
    static constexpr int STAGES = QUERIES == 4 ? 6 : QUERIES == 2 ? 9 : 12;
    alignas(1024) uint8_t q[2][QUERIES * HEADS * ROW_BYTES];
    alignas(1024) uint8_t pages[STAGES][PAGE_BYTES];
    alignas(16) float weights[2][QUERIES * WEIGHTS];
    uint64_t page_full[STAGES], page_empty[STAGES], q_full[2], q_empty[2];
};

// Known to `mqa_logits/cuda.rs`.
static_assert(sizeof(Shared<1>) == 230400 && sizeof(Shared<2>) == 215040 && sizeof(Shared<4>) == 232448);

// Where chunk c of 16 bytes of a row lies, of ROWS rows.
template <int ROWS> __device__ __forceinline__ uint32_t chunk_at(int row, int c) {
    return c / 8 * (ROWS * PANEL_ROW) + row * PANEL_ROW + ((c ^ row) % 8 << 4);
}

// Brings the pages, in turns with the other warps that do.
template <int QUERIES> __device__ __forceinline__ void bring_pages(const Arguments& a, Shared<QUERIES>& shared) {
    int lane = threadIdx.x % WARP, chunk = lane % 16, stage = 0, phase = 0;
    int until_own = threadIdx.x % WARPGROUP / WARP;
    for (Walk<QUERIES> walk(a); walk.left > 0; walk.advance()) {
        const unsigned* table = a.layout.pages + walk.sequence.table + walk.page;
        int run = walk.run();
        for (int first = 0; first < run; first += WARP) {
            unsigned page = first + lane < run ? table[first + lane] : 0;
            for (int i = 0; i < min(WARP, run - first); i++) {
                const uint8_t* from =
                    a.keys + (long long)__shfl_sync(ALL_LANES, page, i) * PAGE_BYTES + lane / 16 * ROW_BYTES + chunk * 16;
                if (until_own == 0) {
                    uint32_t to = shared_address(shared.pages[stage]);
                    wait(shared_address(&shared.page_empty[stage]), phase ^ 1);
#pragma unroll 8
                    for (int row = 0; row < PAGE_SIZE; row += 2) {
                        copy16(to + chunk_at<PAGE_SIZE>(row + lane / 16, chunk), from + row * ROW_BYTES, 16);
                    }
                    arrive_after_copies(shared_address(&shared.page_full[stage]));
                    until_own = PAGERS;
                }
                until_own--;
                if (++stage == Shared<QUERIES>::STAGES) stage = 0, phase ^= 1;
            }
        }
    }
}

// Brings rows of q.
template <int QUERIES> __device__ __forceinline__ void bring_q(const Arguments& a, Shared<QUERIES>& shared) {
    constexpr int CHUNKS = ROW_BYTES / 16;
    constexpr int THREADS = Q_LOADERS;
    int thread = threadIdx.x % WARPGROUP - PAGERS * WARP, buffer = 0, phase = 0;
    for (Walk<QUERIES> walk(a); walk.left > 0; walk.advance()) {
        wait(shared_address(&shared.q_empty[buffer]), phase ^ 1);
        uint32_t to = shared_address(shared.q[buffer]), full = shared_address(&shared.q_full[buffer]);
        int row = walk.sequence.row + walk.block * QUERIES;
        int rows = min(QUERIES, (int)walk.sequence.tokens - walk.block * QUERIES);
#pragma unroll 1
        for (int i = thread; i < QUERIES * HEADS * CHUNKS; i += THREADS) {
            int n = i / CHUNKS, chunk = i % CHUNKS, query = query_of<QUERIES>(n), head = head_of<QUERIES>(n);
            bool there = query < rows && head < a.heads;
            const uint8_t* from = a.q + (there ? (row + query) * a.q_row + head * a.q_head + chunk * 16 : 0);
            copy16(to + chunk_at<QUERIES * HEADS>(n, chunk), from, there ? 16 : 0);
        }
        arrive_after_copies(full);
        bring_weights<QUERIES, THREADS>(a, row, rows, thread, shared.weights[buffer]);
        arrive(full);
        if (++buffer == 2) buffer = 0, phase ^= 1;
    }
}

template <int QUERIES> __device__ __forceinline__ void score(const Arguments& a, Shared<QUERIES>& shared, int group) {
    // Columns of a product: half of the heads.
    constexpr int SHARE = SHARING<QUERIES>, COLUMNS = QUERIES * HEADS / 2, STAGES = Shared<QUERIES>::STAGES;
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP % 4, query = lane % 4 / SHARE;
    // Pages are counted over the whole walk; this warpgroup has every second one.
    int stage = group, phase = 0, buffer = 0, q_phase = 0, turn = 0;
    float x[2][COLUMNS / 2];
    for (Walk<QUERIES> walk(a); walk.left > 0; walk.advance()) {
        wait(shared_address(&shared.q_full[buffer]), q_phase);
        uint32_t q_address = shared_address(shared.q[buffer]);
        uint32_t weights = shared_address(&shared.weights[buffer][query * WEIGHTS + lane % SHARE * 2]);
        int block_row = walk.block * QUERIES + query, run = walk.run();
        int position = walk.sequence.start + block_row;
        float* out = a.out + (long long)(walk.sequence.row + block_row) * a.out_stride;
        // The last column that this lane writes.
        int last = block_row >= walk.sequence.tokens || lane % SHARE > 0 ? -1 : a.fill ? a.columns - 1 : position;
        int first = (turn + group) & 1, column = (walk.page + first) * PAGE_SIZE + warp * 16 + lane / 4;
        auto come = [&]() {
            wait(shared_address(&shared.page_full[stage]), phase);
            fence_products();
        };
        auto multiply = [&](int half) {
            // Made anew each time: the compiler would keep every product's addresses in registers.
            Matrix keys(shared_address(shared.pages[stage])), q(q_address + half * COLUMNS * PANEL_ROW);
            products_begin();
#pragma unroll
            for (int step = 0; step < DIM / STEP; step++) {
                uint32_t inside = step % 4 * 32;
                uint64_t some = keys.at<ROWS_128, 1024>(step / 4 * (PAGE_SIZE * PANEL_ROW) + inside);
                uint64_t b = q.at<ROWS_128, 1024>(step / 4 * (QUERIES * HEADS * PANEL_ROW) + inside);
                product_rows(x[half], some, b, step > 0);
            }
            products_commit();
        };
        // Gives the page back whose products are done.
        auto release = [&]() {
            if (lane == 0) arrive(shared_address(&shared.page_empty[stage]));
            stage += CONSUMERS;
            if (stage >= STAGES) stage -= STAGES, phase ^= 1;
        };
        // Sums up a page: the first half between products, the second one while the next page is multiplied; meanwhile the
        // other warpgroup multiplies.
        auto page = [&](auto more) {
            float sums[2][2] = {};
            products_wait<0>();
            release();
            pin(x[0]);
            add_heads<QUERIES>(x[0], weights, sums);
            if constexpr (more) {
                come();
                multiply(0);
                // Nothing is waited for: it tells the compiler that x[1] is at rest.
                products_wait<1>();
            }
            pin(x[1]);
            add_heads<QUERIES>(x[1], weights + HEADS / 2 * 4, sums);
            if constexpr (more) multiply(1);
#pragma unroll
            for (int key = 0; key < 2; key++) {
                int at = column + 8 * key;
                float sum = of_all_lanes<QUERIES>(sums[key]);
                if (at <= last) out[at] = at <= position ? sum : -INFINITY;
            }
            column += CONSUMERS * PAGE_SIZE;
        };
        int pages = (run - first + CONSUMERS - 1) / CONSUMERS;
        if (pages > 0) {
            come();
            multiply(0);
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
        for (int i = 0; i < Shared<QUERIES>::STAGES; i++) {
            barrier_init(shared_address(&shared.page_full[i]), WARP);
            barrier_init(shared_address(&shared.page_empty[i]), 4);
        }
        for (int i = 0; i < 2; i++) {
            barrier_init(shared_address(&shared.q_full[i]), 2 * Q_LOADERS);
            barrier_init(shared_address(&shared.q_empty[i]), CONSUMERS * 4);
        }
        barrier_init_done();
    }
    __syncthreads();
    if (group == CONSUMERS) {
        give_registers<104>();
        if (threadIdx.x % WARPGROUP < PAGERS * WARP) bring_pages(a, shared); else bring_q(a, shared);
    } else {
        take_registers<200>();
        score<QUERIES>(a, shared, group);
    }
}

// `keys` begins with slot 0, rows of 256 bytes; strides in elements; the rest is that of the kernels for codes.
#define KERNEL(name, queries)                                                                                        \
    extern "C" __global__ void __launch_bounds__((CONSUMERS + 1) * WARPGROUP, 1) name(                               \
        const bf16* q, long long q_row, long long q_head, const bf16* keys, const float* weights, const uint4* spans, \
        const unsigned* pages, int count, float* out, long long out_stride, int rows, int heads, int columns,        \
        int skipped, int fill) {                                                                                     \
        mqa_logits<queries>(Arguments{                                                                               \
            reinterpret_cast<const uint8_t*>(q), q_row * 2, q_head * 2, reinterpret_cast<const uint8_t*>(keys),      \
            weights, Layout{spans, pages, count}, out, out_stride, rows, heads, columns, skipped, fill});            \
    }
KERNEL(mqa_logits_bf16_bf16_x1, 1)
KERNEL(mqa_logits_bf16_bf16_x2, 2)
KERNEL(mqa_logits_bf16_bf16_x4, 4)
