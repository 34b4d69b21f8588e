// Grouped products on Hopper's tensor cores: rows that belong to one expert of a stack times its weights, with the gated
// activation of the experts' first layer fused; a plain linear layer is a group of its own.
//
// Rows lie in tiles of 128, an expert's rows in tiles of their own (`moe_tiles`). `moe_rows` brings them into that order,
// quantized or not, in panels as shared memory holds them: a panel is 128 bytes of each row of a tile, with its chunks
// exchanged as the tensor cores want them, so that one copy of 16 KB brings it. A block multiplies a tile with 256 rows of
// weights, 128 of the gate's and the same 128 of the other matrix, or 256 of one. Two blocks of a cluster take two tiles of
// an expert and share the weights, or, for the last tile of an odd number, share the tile: what they share, each brings half
// of and sends to both. One thread of a block copies, two warpgroups multiply 64 rows of the tile each.
//
// In e4m3, sums of 128 products are scaled and added in f32 registers.
#include "fp8.cuh"
#include "reduce.cuh"
#include "sm90_clusters.cuh"
#include "types.cuh"

using namespace sm90;

constexpr int TILE = 128;
constexpr int PANEL = 128; // bytes of a row in a panel
constexpr int PANEL_BYTES = TILE * PANEL;
constexpr int STAGES = 4;
constexpr int CONSUMERS = 2;
constexpr int COLUMNS = 256; // rows of weights of a block
constexpr int GROUP_COLUMNS = 128;
constexpr int STAGING_BYTES = 64 * PANEL;

// Rows and weights in e4m3; both in bf16; rows in bf16 and weights in e4m3, which the copying warpgroups widen to bf16.
enum Kind { E4M3, BF16, WIDE };

// Warpgroups that copy.
template <Kind KIND> constexpr int COPIERS = KIND == WIDE ? 2 : 1;
// Registers of the warpgroups that copy and of those that multiply.
template <Kind KIND> constexpr int COPY_REGISTERS = KIND == WIDE ? 80 : 40;
template <Kind KIND> constexpr int PRODUCT_REGISTERS = KIND == WIDE ? 176 : 232;
// Blocks of a cluster; they share what they copy.
template <Kind KIND> constexpr int CLUSTER = KIND == WIDE ? 1 : 2;

struct Shared {
    alignas(1024) uint8_t rows[STAGES][PANEL_BYTES];
    alignas(1024) uint8_t weights[STAGES][2 * PANEL_BYTES];
    alignas(1024) uint8_t staging[CONSUMERS][STAGING_BYTES];
    uint64_t full[STAGES], empty[STAGES];
};

// Must match `SHARED` in src/ops/cuda/grouped.rs.
static_assert(sizeof(Shared) == 214016, "shared memory of a block");

// The tiles, as `moe_tiles` writes them: three numbers, then expert and rows of each tile, then the first tiles of pairs
// of tiles of one expert, then the tiles without a partner. Without a table, `rows` rows of one expert.
struct Tiles {
    const int* table;
    int most, rows;

    __device__ __forceinline__ int pairs() const { return table ? table[0] : (rows + TILE - 1) / TILE / 2; }
    __device__ __forceinline__ int singles() const { return table ? table[1] : (rows + TILE - 1) / TILE % 2; }
    __device__ __forceinline__ int all() const { return table ? table[2] : (rows + TILE - 1) / TILE; }
    __device__ __forceinline__ int expert(int tile) const { return table ? table[3 + 2 * tile] : 0; }
    __device__ __forceinline__ int count(int tile) const {
        return table ? table[4 + 2 * tile] : min(TILE, rows - tile * TILE);
    }
    __device__ __forceinline__ int pair(int i) const { return table ? table[3 + 2 * most + i] : 2 * i; }
    __device__ __forceinline__ int single(int i) const { return table ? table[3 + 2 * most + most / 2 + i] : 2 * pairs(); }
};

// What a block multiplies: a tile, and from which rows of an expert's weights on.
struct Item {
    int tile, expert, column;
    bool shares_weights;
};

// The items of a block.
template <Kind KIND, bool GATED> struct Items {
    // Rows of each matrix of weights that a block takes.
    static constexpr int STEP = GATED ? GROUP_COLUMNS : COLUMNS;
    const Tiles& tiles;
    int pairs, blocks, end, rank;

    __device__ __forceinline__ Items(const Tiles& tiles, int n)
        : tiles(tiles), pairs(tiles.pairs()), blocks((n + STEP - 1) / STEP), rank(cluster_block()) {
        end = CLUSTER<KIND> == 2 ? pairs * blocks + tiles.singles() * ((blocks + 1) / 2) : tiles.all() * blocks;
    }

    __device__ __forceinline__ static int first() { return blockIdx.x / CLUSTER<KIND>; }
    __device__ __forceinline__ static int step() { return gridDim.x / CLUSTER<KIND>; }

    __device__ __forceinline__ Item at(int i) const {
        Item item;
        item.shares_weights = i < pairs * blocks;
        if (CLUSTER<KIND> == 1) {
            item.tile = i / blocks, item.column = i % blocks * STEP;
        } else if (item.shares_weights) {
            item.tile = tiles.pair(i / blocks) + rank;
            item.column = i % blocks * STEP;
        } else {
            int halves = (blocks + 1) / 2;
            i -= pairs * blocks;
            item.tile = tiles.single(i / halves);
            // The last of an odd number is multiplied twice.
            item.column = min(i % halves * 2 + rank, blocks - 1) * STEP;
        }
        item.expert = tiles.expert(item.tile);
        return item;
    }
};

struct Arguments {
    Tiles tiles;
    const TensorMap *first, *second; // of the weights [experts * n, k]; the same unless gated
    const uint8_t *first_codes, *second_codes; // the weights, where they are widened
    const float *first_scales, *second_scales; // [experts, ceil(n / 128), ceil(k / 128)]
    const uint8_t* rows;                       // [tiles, panels, PANEL_BYTES]
    const float* row_scales;                   // [tiles, panels, TILE]
    uint8_t* out;
    float* out_scales;
    int n, panels, ue8m0;
};

template <Kind KIND, bool GATED> __device__ __forceinline__ void bring(const Arguments& a, Shared& shared) {
    constexpr int SECOND = GATED ? 0 : GROUP_COLUMNS;
    // Elements of a row in a panel.
    constexpr int WIDTH = KIND == E4M3 ? PANEL : PANEL / 2;
    constexpr int BYTES = 3 * PANEL_BYTES;
    int rank = cluster_block(), stage = 0, phase = 0;
    prefetch_map(a.first);
    prefetch_map(a.second);
    Items<KIND, GATED> items(a.tiles, a.n);
    for (int i = items.first(); i < items.end; i += items.step()) {
        Item item = items.at(i);
        const uint8_t* rows = a.rows + (long long)item.tile * a.panels * PANEL_BYTES;
        int row = item.expert * a.n + item.column;
        for (int panel = 0; panel < a.panels; panel++) {
            uint32_t full = shared_address(&shared.full[stage]);
            uint32_t to_rows = shared_address(shared.rows[stage]), to_weights = shared_address(shared.weights[stage]);
            const uint8_t* from = rows + (long long)panel * PANEL_BYTES;
            wait(shared_address(&shared.empty[stage]), phase ^ 1);
            arrive_expecting(full, BYTES);
            if (item.shares_weights) {
                copy_box_to_both(
                    to_weights + rank * PANEL_BYTES, rank ? a.second : a.first, row + rank * SECOND, panel * WIDTH, full);
                copy_bulk(to_rows, from, PANEL_BYTES, full);
            } else {
                copy_box(to_weights, a.first, row, panel * WIDTH, full);
                copy_box(to_weights + PANEL_BYTES, a.second, row + SECOND, panel * WIDTH, full);
                int half = rank * (PANEL_BYTES / 2);
                copy_bulk_to_both(to_rows + half, from + half, PANEL_BYTES / 2, full);
            }
            if (++stage == STAGES) stage = 0, phase ^= 1;
        }
    }
}

__device__ __forceinline__ uint32_t two_bf16(float low, float high) {
    __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t*>(&two);
}

__device__ __forceinline__ uint16_t two_e4m3(float low, float high) {
    return __nv_cvt_float2_to_fp8x2(make_float2(low, high), __NV_SATFINITE, __NV_E4M3);
}

// Where byte `byte` of row `row` lies in a panel.
__device__ __forceinline__ uint32_t panel_offset(int row, int byte) {
    return row * PANEL + ((byte / 16 ^ row % 8) * 16) + byte % 16;
}

// The 64 codes of 256 rows of weights that a panel of bf16 takes, a part of them in each thread: 16 codes of every 64th
// row; and the scales of both matrices' rows.
struct Codes {
    uint4 sixteen[4];
    float scales[2];
};

// Two codes times a scale, rounded to bf16.
__device__ __forceinline__ uint32_t widened(uint32_t codes, float scale) {
    __half2_raw two = __nv_cvt_fp8x2_to_halfraw2((__nv_fp8x2_storage_t)codes, __NV_E4M3);
    float2 values = __half22float2(__half2(two));
    return two_bf16(values.x * scale, values.y * scale);
}

// Two warpgroups: rows of x by the copy engine, weights through registers.
template <bool GATED> __device__ __forceinline__ void bring_wide(const Arguments& a, Shared& shared) {
    int thread = threadIdx.x - CONSUMERS * WARPGROUP, stage = 0, phase = 0;
    long long row_bytes = (long long)a.panels * 64;
    int scale_rows = (a.n + TILE - 1) / TILE, scale_columns = a.panels / 2;
    Items<WIDE, GATED> items(a.tiles, a.n);
    for (int i = items.first(); i < items.end; i += items.step()) {
        Item item = items.at(i);
        const uint8_t* from = a.rows + (long long)item.tile * a.panels * PANEL_BYTES;
        int block = item.column / TILE, other = GATED ? block : min(block + 1, scale_rows - 1);
        const float* scales[2] = {
            a.first_scales + ((long long)item.expert * scale_rows + block) * scale_columns,
            a.second_scales + ((long long)item.expert * scale_rows + other) * scale_columns};
        long long start = item.expert * a.n * row_bytes + thread % 4 * 16;
        const uint8_t *first = a.first_codes + start, *second = GATED ? a.second_codes + start : first;
        auto load = [&](Codes& codes, int panel) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                // Beyond the last row the last one is read again.
                int row = item.column + (GATED ? i % 2 : i) * 64 + thread / 4;
                const uint8_t* from = (i / 2 ? second : first) + min(row, a.n - 1) * row_bytes + panel * 64;
                codes.sixteen[i] = __ldg(reinterpret_cast<const uint4*>(from));
            }
            codes.scales[0] = scales[0][panel / 2], codes.scales[1] = scales[1][panel / 2];
        };
        auto store = [&](const Codes& codes, int panel) {
            uint32_t full = shared_address(&shared.full[stage]);
            wait(shared_address(&shared.empty[stage]), phase ^ 1);
            if (thread == 0) {
                arrive_expecting(full, PANEL_BYTES);
                copy_bulk(shared_address(shared.rows[stage]), from + (long long)panel * PANEL_BYTES, PANEL_BYTES, full);
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                uint32_t words[4] = {codes.sixteen[i].x, codes.sixteen[i].y, codes.sixteen[i].z, codes.sixteen[i].w};
                float scale = codes.scales[i / 2];
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    uint4 eight;
                    eight.x = widened(words[2 * half] & 0xffff, scale);
                    eight.y = widened(words[2 * half] >> 16, scale);
                    eight.z = widened(words[2 * half + 1] & 0xffff, scale);
                    eight.w = widened(words[2 * half + 1] >> 16, scale);
                    uint32_t to = panel_offset(i * 64 + thread / 4, thread % 4 * 32 + half * 16);
                    *reinterpret_cast<uint4*>(shared.weights[stage] + to) = eight;
                }
            }
            fence_products();
            __syncwarp();
            if (thread % WARP == 0) arrive(full);
            if (++stage == STAGES) stage = 0, phase ^= 1;
        };
        // Codes of the next panels are on their way. Each has registers of its own: to copy them would wait for them.
        constexpr int AHEAD = GATED ? 3 : 2;
        Codes codes[AHEAD];
#pragma unroll
        for (int ahead = 0; ahead < AHEAD; ahead++) {
            if (ahead < a.panels) load(codes[ahead], ahead);
        }
        for (int done = 0; done < a.panels; done += AHEAD) {
#pragma unroll
            for (int ahead = 0; ahead < AHEAD; ahead++) {
                int panel = done + ahead;
                if (panel >= a.panels) break;
                store(codes[ahead], panel);
                if (panel + AHEAD < a.panels) load(codes[ahead], panel + AHEAD);
            }
        }
    }
}

// What a warpgroup does with a finished tile. The sums are those of 64 rows and 256 columns; of a gated product, 128
// columns of the gate's and 128 of the other's.
struct Epilogue {
    const Arguments& a;
    uint8_t* staging;
    int group, lane, warp, row;

    __device__ __forceinline__ Epilogue(const Arguments& a, Shared& shared, int group)
        : a(a), staging(shared.staging[group]), group(group), lane(threadIdx.x % WARP), warp(threadIdx.x / WARP % 4) {
        row = warp * 16 + lane / 4;
    }

    // Before the staging area is written again: the last copy from it is over.
    __device__ __forceinline__ void begin() const {
        if (threadIdx.x % WARPGROUP == 0) store_wait();
        meet(1 + group, WARPGROUP);
    }

    // Copies the staging area to its half of a panel.
    __device__ __forceinline__ void store_panel(uint8_t* panel) const {
        fence_products();
        meet(1 + group, WARPGROUP);
        if (threadIdx.x % WARPGROUP == 0) {
            store_bulk(panel + group * STAGING_BYTES, shared_address(staging), STAGING_BYTES);
        }
    }

    __device__ __forceinline__ static void gate(float (&x)[128]) {
#pragma unroll
        for (int i = 0; i < 64; i++) x[i] = __fdividef(x[i], 1.f + __expf(-x[i])) * x[64 + i];
    }

    // silu(gate) · up, as panels of the next product's rows.
    template <Kind KIND> __device__ __forceinline__ void gated(const Item& item, float (&x)[128]) const {
        gate(x);
        int block = item.column / GROUP_COLUMNS, panels = a.n / (KIND == E4M3 ? PANEL : PANEL / 2);
        if constexpr (KIND == E4M3) {
            begin();
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float amax = 0.f;
#pragma unroll
                for (int j = 0; j < 16; j++) {
                    amax = fmaxf(amax, fmaxf(fabsf(x[4 * j + 2 * half]), fabsf(x[4 * j + 2 * half + 1])));
                }
                amax = fmaxf(amax, __shfl_xor_sync(ALL_LANES, amax, 1));
                amax = fmaxf(amax, __shfl_xor_sync(ALL_LANES, amax, 2));
                float scale = fmaxf(amax, 1e-4f) * (1.f / E4M3_MAX);
                if (a.ue8m0) scale = pow2_ceil(scale);
                float inverse = 1.f / scale;
#pragma unroll
                for (int j = 0; j < 16; j++) {
                    uint16_t codes = two_e4m3(x[4 * j + 2 * half] * inverse, x[4 * j + 2 * half + 1] * inverse);
                    *reinterpret_cast<uint16_t*>(staging + panel_offset(row + 8 * half, 8 * j + lane % 4 * 2)) = codes;
                }
                if (lane % 4 == 0) {
                    a.out_scales[((long long)item.tile * panels + block) * TILE + group * 64 + row + 8 * half] = scale;
                }
            }
            store_panel(a.out + ((long long)item.tile * panels + block) * PANEL_BYTES);
        } else {
#pragma unroll
            for (int part = 0; part < 2; part++) {
                begin();
#pragma unroll
                for (int j = 0; j < 8; j++) {
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        int at = 4 * (8 * part + j) + 2 * half;
                        *reinterpret_cast<uint32_t*>(staging + panel_offset(row + 8 * half, 16 * j + lane % 4 * 4)) =
                            two_bf16(x[at], x[at + 1]);
                    }
                }
                store_panel(a.out + ((long long)item.tile * panels + 2 * block + part) * PANEL_BYTES);
            }
        }
    }

    // The sums in bf16, [rows, n].
    __device__ __forceinline__ void plain(const Item& item, const float (&x)[128]) const {
        int count = a.tiles.count(item.tile) - group * 64;
        bf16* out = reinterpret_cast<bf16*>(a.out) + ((long long)item.tile * TILE + group * 64) * a.n;
#pragma unroll
        for (int part = 0; part < 4; part++) {
            meet(1 + group, WARPGROUP);
#pragma unroll
            for (int j = 0; j < 8; j++) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    int at = 4 * (8 * part + j) + 2 * half;
                    *reinterpret_cast<uint32_t*>(staging + panel_offset(row + 8 * half, 16 * j + lane % 4 * 4)) =
                        two_bf16(x[at], x[at + 1]);
                }
            }
            meet(1 + group, WARPGROUP);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int from = i * 16 + threadIdx.x % WARPGROUP / 8, chunk = threadIdx.x % 8;
                int column = item.column + part * 64 + chunk * 8;
                if (from < count && column < a.n) {
                    *reinterpret_cast<uint4*>(out + (long long)from * a.n + column) =
                        *reinterpret_cast<const uint4*>(staging + panel_offset(from, chunk * 16));
                }
            }
        }
    }
};

template <Kind KIND, bool GATED>
__device__ __forceinline__ void multiply(const Arguments& a, Shared& shared, int group) {
    int stage = 0, phase = 0;
    int scale_rows = (a.n + TILE - 1) / TILE;
    Epilogue epilogue(a, shared, group);
    // Each warp tells the cluster's blocks.
    int rank = cluster_block();
    auto release = [&](int stage) {
        uint32_t empty = shared_address(&shared.empty[stage]);
        __syncwarp();
        if (epilogue.lane == 0) arrive(empty);
        if (CLUSTER<KIND> == 2 && epilogue.lane == 1) arrive_in_block(empty, rank ^ 1);
    };
    Items<KIND, GATED> items(a.tiles, a.n);
    for (int i = items.first(); i < items.end; i += items.step()) {
        Item item = items.at(i);
        bool idle = a.tiles.count(item.tile) <= group * 64;
        float sums[128];
        if constexpr (KIND == E4M3) {
            int block = item.column / TILE;
            const float* first = a.first_scales + ((long long)item.expert * scale_rows + block) * a.panels;
            int other = GATED ? block : min(block + 1, scale_rows - 1);
            const float* second = a.second_scales + ((long long)item.expert * scale_rows + other) * a.panels;
#pragma unroll
            for (int i = 0; i < 128; i++) sums[i] = 0.f;
            // Of the next panel: both matrices' scales, and those of the lane's two rows.
            float next[4];
            const float* of_rows = a.row_scales + (long long)item.tile * a.panels * TILE + group * 64 + epilogue.row;
            auto ask = [&](int panel) {
                next[0] = __ldg(first + panel), next[1] = __ldg(second + panel);
                next[2] = __ldg(of_rows + panel * TILE), next[3] = __ldg(of_rows + panel * TILE + 8);
            };
            if (!idle) ask(0);
            for (int panel = 0; panel < a.panels; panel++) {
                float x[64];
                float factors[2][2] = {
                    {next[2] * next[0], next[3] * next[0]}, {next[2] * next[1], next[3] * next[1]}};
                if (panel + 1 < a.panels && !idle) ask(panel + 1);
                wait(shared_address(&shared.full[stage]), phase);
                if (!idle) {
                    Operand rows(shared_address(shared.rows[stage]) + group * (PANEL_BYTES / 2));
                    Operand weights(shared_address(shared.weights[stage]));
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        products_begin();
#pragma unroll
                        for (int step = 0; step < PANEL / 32; step++) {
                            product_e4m3(x, rows.at(step * 32), weights.at(half * PANEL_BYTES + step * 32), step > 0);
                        }
                        products_commit();
                        products_wait<0>();
                        pin(x);
                        if (half) release(stage);
#pragma unroll
                        for (int i = 0; i < 64; i++) sums[half * 64 + i] += factors[half][i / 2 % 2] * x[i];
                    }
                } else {
                    release(stage);
                }
                if (++stage == STAGES) stage = 0, phase ^= 1;
            }
        } else {
            int before = -1;
            for (int panel = 0; panel < a.panels; panel++) {
                wait(shared_address(&shared.full[stage]), phase);
                if (!idle) {
                    Operand rows(shared_address(shared.rows[stage]) + group * (PANEL_BYTES / 2));
                    Operand weights(shared_address(shared.weights[stage]));
                    products_begin();
#pragma unroll
                    for (int step = 0; step < PANEL / 32; step++) {
                        if constexpr (KIND == BF16) {
                            product_bf16(sums, rows.at(step * 32), weights.at(step * 32), panel + step > 0);
                        } else {
                            // Two of half the size: the compiler refuses the whole at the registers that 512 threads begin with.
#pragma unroll
                            for (int half = 0; half < 2; half++) {
                                product_bf16(
                                    reinterpret_cast<float(&)[64]>(sums[half * 64]), rows.at(step * 32),
                                    weights.at(half * PANEL_BYTES + step * 32), panel + step > 0);
                            }
                        }
                    }
                    products_commit();
                    products_wait<1>();
                }
                if (before >= 0) release(before);
                before = stage;
                if (++stage == STAGES) stage = 0, phase ^= 1;
            }
            products_wait<0>();
            pin(sums);
            release(before);
        }
        // The half of a tile that has no rows is never read.
        if (idle) continue;
        if constexpr (GATED) epilogue.gated<KIND>(item, sums);
        else epilogue.plain(item, sums);
    }
    if (GATED && threadIdx.x % WARPGROUP == 0) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

template <Kind KIND, bool GATED> __device__ __forceinline__ void grouped(const Arguments& a) {
    extern __shared__ __align__(1024) uint8_t dynamic[];
    Shared& shared = *reinterpret_cast<Shared*>(dynamic);
    int group = __shfl_sync(ALL_LANES, threadIdx.x / WARPGROUP, 0);
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(shared_address(&shared.full[i]), KIND == WIDE ? 1 + COPIERS<KIND> * WARPGROUP / WARP : 1);
            barrier_init(shared_address(&shared.empty[i]), CLUSTER<KIND> * CONSUMERS * WARPGROUP / WARP);
        }
        barrier_init_done();
    }
    cluster_sync();
    if (group >= CONSUMERS) {
        give_registers<COPY_REGISTERS<KIND>>();
        if constexpr (KIND == WIDE) {
            bring_wide<GATED>(a, shared);
        } else {
            if (threadIdx.x % WARPGROUP == 0) bring<KIND, GATED>(a, shared);
            __syncwarp();
        }
    } else {
        take_registers<PRODUCT_REGISTERS<KIND>>();
        multiply<KIND, GATED>(a, shared, group);
    }
    // What the other block sends must find this one.
    cluster_sync();
}

#define LAUNCH(kind) __launch_bounds__((CONSUMERS + COPIERS<kind>)*WARPGROUP, 1)

#define GATED_KERNEL(name, kind)                                                                                     \
    extern "C" __global__ void __cluster_dims__(2, 1, 1) LAUNCH(kind) name(                                          \
        const __grid_constant__ TensorMap gate, const __grid_constant__ TensorMap up, const float* gate_scales,      \
        const float* up_scales, const uint8_t* rows, const float* row_scales, const int* table, uint8_t* hidden,     \
        float* hidden_scales, int most, int count, int n, int panels, int ue8m0) {                                   \
        grouped<kind, true>(Arguments{Tiles{table, most, count}, &gate, &up, nullptr, nullptr, gate_scales, up_scales, \
                                      rows, row_scales, hidden, hidden_scales, n, panels, ue8m0});                   \
    }
GATED_KERNEL(grouped_gated_f8e4m3, E4M3)
GATED_KERNEL(grouped_gated_bf16, BF16)

#define PLAIN_KERNEL(name, kind)                                                                                     \
    extern "C" __global__ void __cluster_dims__(2, 1, 1) LAUNCH(kind) name(                                          \
        const __grid_constant__ TensorMap weights, const float* scales, const uint8_t* rows, const float* row_scales, \
        const int* table, uint8_t* out, int most, int count, int n, int panels) {                                    \
        grouped<kind, false>(Arguments{Tiles{table, most, count}, &weights, &weights, nullptr, nullptr, scales,      \
                                       scales, rows, row_scales, out, nullptr, n, panels, 0});                       \
    }
PLAIN_KERNEL(grouped_f8e4m3, E4M3)
PLAIN_KERNEL(grouped_bf16, BF16)

extern "C" __global__ void LAUNCH(WIDE) grouped_gated_wide(
    const uint8_t* gate, const uint8_t* up, const float* gate_scales, const float* up_scales, const uint8_t* rows,
    const int* table, uint8_t* hidden, int most, int count, int n, int k) {
    grouped<WIDE, true>(Arguments{Tiles{table, most, count}, nullptr, nullptr, gate, up, gate_scales, up_scales, rows, nullptr,
                                  hidden, nullptr, n, k / 64, 0});
}

extern "C" __global__ void LAUNCH(WIDE) grouped_wide(
    const uint8_t* weights, const float* scales, const uint8_t* rows, const int* table, uint8_t* out, int most, int count,
    int n, int k) {
    grouped<WIDE, false>(Arguments{Tiles{table, most, count}, nullptr, nullptr, weights, weights, scales, scales, rows,
                                   nullptr, out, nullptr, n, k / 64, 0});
}
