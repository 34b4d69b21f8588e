// Products of a few rows with weights that are read once, at the speed of memory: a linear layer, or the experts of a
// stack whose rows `moe_tiles` sorted into tiles of up to 16. A warp takes 32 rows of weights, which each lane
// copies to shared memory ahead of their turn and takes from there for `mma.sync`: the summed dimension is permuted so that a lane reads 16 bytes at a time, and the rows
// of x are read in the same order. Codes become f16 (exact) to meet codes, bf16 (exact) to meet bf16; sums of 128 products
// of codes are scaled and added in f32.
#include "fp8.cuh"
#include "reduce.cuh"
#include "types.cuh"

constexpr int TILE = 16;
constexpr int STRIP = 32; // rows of weights of a warp
constexpr int BYTES = 128; // of a row of weights that a warp takes in a step
constexpr int GATED_WARPS = 8, GATED_COLUMNS = GATED_WARPS * 16;
constexpr int MOST_WARPS = 16;

// Expert and number of rows of a tile, as `moe_tiles` writes them; without a table, `rows` rows of one expert.
struct Tiles {
    const int* table;
    int rows;

    __device__ __forceinline__ int expert(int tile) const { return table ? table[3 + 2 * tile] : 0; }
    __device__ __forceinline__ int count(int tile) const { return table ? table[4 + 2 * tile] : min(TILE, rows - tile * TILE); }
};

template <class W, class X> struct Arguments {
    Tiles tiles;
    const int* order; // the pair of each row, whose row of x is pair / choices; without it, row r is row r of x
    int choices;
    const X* x;              // [.., k]
    const float* x_scales;   // of codes: [.., k / 128]
    const W *first, *second; // [experts, n, k]; the same unless gated
    const float *first_scales, *second_scales; // of codes: [experts, ceil(n / 128), k / 128]
    int n, k;
};

// Weights on their way: steps of a warp, of which a lane reads only what it copied itself, so that no warp waits for another.
constexpr int STAGES = 3;
constexpr int STAGE_BYTES = STRIP * BYTES;
constexpr int WARP_BYTES = STAGES * STAGE_BYTES;

__device__ __forceinline__ void copy16(uint32_t to, const uint8_t* from) {
    asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most N of the groups that were committed are not done.
template <int N> __device__ __forceinline__ void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

__device__ __forceinline__ uint4 load16(uint32_t from) {
    uint4 x;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "r"(from) : "memory");
    return x;
}

__device__ __forceinline__ uint32_t word(const uint4& x, int i) { return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w; }

// Two codes as two f16.
__device__ __forceinline__ uint32_t halves(uint32_t codes) {
    __half2_raw two = __nv_cvt_fp8x2_to_halfraw2((__nv_fp8x2_storage_t)codes, __NV_E4M3);
    return (uint32_t)two.y << 16 | two.x;
}

// Two codes as two bf16.
__device__ __forceinline__ uint32_t wide(uint32_t codes) {
    uint32_t two = halves(codes);
    float2 values = __half22float2(*reinterpret_cast<__half2*>(&two));
    __nv_bfloat162 out = __floats2bfloat162_rn(values.x, values.y);
    return *reinterpret_cast<uint32_t*>(&out);
}

template <bool HALVES>
__device__ __forceinline__ void product(float (&x)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if constexpr (HALVES) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(x[0]), "+f"(x[1]), "+f"(x[2]), "+f"(x[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    } else {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(x[0]), "+f"(x[1]), "+f"(x[2]), "+f"(x[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
}

// `n` is a multiple of 32.
//
// sums[half][j][..] of 8 J rows of x with the 16 rows of weights from first_row on (half 0) and from second_row on (half 1);
// steps `step0`, `step0 + steps`, .. of the summed dimension.
template <int J, class W, class X>
__device__ __forceinline__ void multiply(
    const Arguments<W, X>& a, uint8_t* ring, int tile, int count, int first_row, int second_row, int step0, int steps,
    float (&sums)[2][J][4]) {
    constexpr bool CODES = sizeof(W) == 1, HALVES = CODES && sizeof(X) == 1;
    constexpr int WIDTH = BYTES / sizeof(W);    // elements of a step
    constexpr int PARTS = CODES ? 4 : 2;        // products of 16 bytes of a row
    constexpr int X_BYTES = 16 / sizeof(W) * sizeof(X), VECTORS = X_BYTES / 16;
    int lane = threadIdx.x % WARP, expert = a.tiles.expert(tile), last = a.k / WIDTH;
    long long of_row = (long long)a.k * sizeof(W);
    auto row_at = [&](const W* weights, int row) {
        const uint8_t* from = reinterpret_cast<const uint8_t*>(weights);
        return from + ((long long)expert * a.n + row + lane / 4) * of_row + lane % 4 * 16;
    };
    const uint8_t* rows[2] = {row_at(a.first, first_row), row_at(a.second, second_row)};
    auto input = [&](int i) {
        int place = tile * TILE + (i < count ? i : 0);
        return (long long)(a.order ? a.order[place] / a.choices : place);
    };
    const uint8_t* x[J];
    int x_scales[J][2];
#pragma unroll
    for (int j = 0; j < J; j++) {
        x[j] = reinterpret_cast<const uint8_t*>(a.x + input(8 * j + lane / 4) * a.k) + lane % 4 * X_BYTES;
        if constexpr (HALVES) {
#pragma unroll
            for (int i = 0; i < 2; i++) x_scales[j][i] = input(8 * j + lane % 4 * 2 + i) * last;
        }
    }
    const float* scales[2] = {nullptr, nullptr};
    if constexpr (CODES) {
        int of_expert = (a.n + 127) / 128;
        scales[0] = a.first_scales + ((long long)expert * of_expert + first_row / 128) * last;
        scales[1] = a.second_scales + ((long long)expert * of_expert + second_row / 128) * last;
    }
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int j = 0; j < J; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) sums[h][j][i] = 0.f;
    // Tiles of 16 rows, rows lane / 4 and 8 more of each, twice 16 bytes of a step.
    uint32_t own_ring = __cvta_generic_to_shared(ring) + threadIdx.x / WARP * WARP_BYTES + lane * 16;
    auto place = [&](int stage, int h, int r, int p) { return own_ring + stage * STAGE_BYTES + ((h * 2 + r) * 2 + p) * 512; };
    auto load = [&](int step, int stage) {
        if (step < last) {
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int r = 0; r < 2; r++)
#pragma unroll
                    for (int p = 0; p < 2; p++) {
                        copy16(place(stage, h, r, p), rows[h] + 8 * r * of_row + (long long)step * BYTES + p * 64);
                    }
        }
        copy_commit();
    };
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) load(step0 + i * steps, i);
    int stage = 0;
    for (int step = step0; step < last; step += steps) {
        // Into the stage that the last step has left.
        load(step + (STAGES - 1) * steps, stage == 0 ? STAGES - 1 : stage - 1);
        copy_wait<STAGES - 1>();
        float own[2][J][4];
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int j = 0; j < J; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) own[h][j][i] = CODES ? 0.f : sums[h][j][i];
#pragma unroll
        for (int p = 0; p < 2; p++) {
            uint4 values[J][VECTORS], weights[2][2];
#pragma unroll
            for (int j = 0; j < J; j++)
#pragma unroll
                for (int v = 0; v < VECTORS; v++) {
                    const uint8_t* from = x[j] + ((long long)step * 2 + p) * 4 * X_BYTES + v * 16;
                    values[j][v] = __ldg(reinterpret_cast<const uint4*>(from));
                }
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int r = 0; r < 2; r++) weights[h][r] = load16(place(stage, h, r, p));
#pragma unroll
            for (int part = 0; part < PARTS; part++) {
                uint32_t left[2][4];
#pragma unroll
                for (int h = 0; h < 2; h++)
#pragma unroll
                    for (int r = 0; r < 2; r++) {
                        const uint4& sixteen = weights[h][r];
                        if constexpr (!CODES) {
                            left[h][r] = word(sixteen, 2 * part), left[h][r + 2] = word(sixteen, 2 * part + 1);
                        } else if constexpr (HALVES) {
                            left[h][r] = halves(word(sixteen, part) & 0xffff), left[h][r + 2] = halves(word(sixteen, part) >> 16);
                        } else {
                            left[h][r] = wide(word(sixteen, part) & 0xffff), left[h][r + 2] = wide(word(sixteen, part) >> 16);
                        }
                    }
#pragma unroll
                for (int j = 0; j < J; j++) {
                    uint32_t b0, b1;
                    if constexpr (HALVES) {
                        uint32_t four = word(values[j][0], part);
                        b0 = halves(four & 0xffff), b1 = halves(four >> 16);
                    } else {
                        const uint4& eight = values[j][part / 2];
                        b0 = word(eight, part % 2 * 2), b1 = word(eight, part % 2 * 2 + 1);
                    }
#pragma unroll
                    for (int h = 0; h < 2; h++) product<HALVES>(own[h][j], left[h], b0, b1);
                }
            }
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float scale = CODES ? scales[h][step] : 1.f;
#pragma unroll
            for (int j = 0; j < J; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    if constexpr (!CODES) sums[h][j][i] = own[h][j][i];
                    else if constexpr (HALVES) sums[h][j][i] += own[h][j][i] * (a.x_scales[x_scales[j][i % 2] + step] * scale);
                    else sums[h][j][i] += own[h][j][i] * scale;
                }
        }
        if (++stage == STAGES) stage = 0;
    }
}

// hidden[row, column] = silu(gate · x) · (up · x) for 128 columns and the rows of a tile; as codes with a scale for the 128
// where x is codes.
template <int J, class W, class X>
__device__ __forceinline__ void gated(const Arguments<W, X>& a, int count, X* hidden, float* hidden_scales, int ue8m0) {
    extern __shared__ __align__(16) uint8_t ring[];
    __shared__ float peaks[GATED_WARPS][TILE];
    __shared__ __align__(16) X out[TILE][GATED_COLUMNS];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, tile = blockIdx.x;
    int row = blockIdx.y * GATED_COLUMNS + warp * 16;
    float sums[2][J][4];
    multiply<J>(a, ring, tile, count, row, row, 0, 1, sums);
#pragma unroll
    for (int j = 0; j < J; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums[0][j][i] = sums[0][j][i] / (1.f + expf(-sums[0][j][i])) * sums[1][j][i];
    if constexpr (sizeof(X) == 1) {
#pragma unroll
        for (int j = 0; j < J; j++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float peak = fmaxf(fabsf(sums[0][j][i]), fabsf(sums[0][j][i + 2]));
#pragma unroll
                for (int lanes = 4; lanes < WARP; lanes *= 2) peak = fmaxf(peak, __shfl_xor_sync(ALL_LANES, peak, lanes));
                if (lane < 4) peaks[warp][8 * j + 2 * lane + i] = peak;
            }
        __syncthreads();
    }
#pragma unroll
    for (int j = 0; j < J; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int token = 8 * j + lane % 4 * 2 + i, column = warp * 16 + lane / 4;
            if constexpr (sizeof(X) == 1) {
                float peak = 0.f;
#pragma unroll
                for (int w = 0; w < GATED_WARPS; w++) peak = fmaxf(peak, peaks[w][token]);
                float scale = fmaxf(peak, 1e-4f) * (1.f / E4M3_MAX);
                if (ue8m0) scale = pow2_ceil(scale);
                out[token][column] = to_f8e4m3(sums[0][j][i] / scale);
                out[token][column + 8] = to_f8e4m3(sums[0][j][i + 2] / scale);
                if (warp == 0 && lane / 4 == 0 && token < count) {
                    hidden_scales[((long long)tile * TILE + token) * gridDim.y + blockIdx.y] = scale;
                }
            } else {
                out[token][column] = from_float<X>(sums[0][j][i]);
                out[token][column + 8] = from_float<X>(sums[0][j][i + 2]);
            }
        }
    __syncthreads();
    constexpr int VECTORS = GATED_COLUMNS * sizeof(X) / 16;
    for (int i = threadIdx.x; i < count * VECTORS; i += blockDim.x) {
        int token = i / VECTORS;
        reinterpret_cast<uint4*>(hidden + ((long long)tile * TILE + token) * a.n + blockIdx.y * GATED_COLUMNS)[i % VECTORS] =
            reinterpret_cast<const uint4*>(out[token])[i % VECTORS];
    }
}

// y[row, column] for 32 columns and the rows of a tile; the warps of the block share the summed dimension.
template <int J, class W, class X, class Y> __device__ __forceinline__ void plain(const Arguments<W, X>& a, int count, Y* y) {
    extern __shared__ __align__(16) uint8_t ring[];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP, tile = blockIdx.x;
    int row = blockIdx.y * STRIP;
    float sums[2][J][4];
    multiply<J>(a, ring, tile, count, row, row + 16, warp, warps, sums);
    __syncwarp();
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int j = 0; j < J; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                // Where the warp's weights were: [2][J][4][WARP].
                float* parts = reinterpret_cast<float*>(ring + warp * WARP_BYTES);
                parts[((h * J + j) * 4 + i) * WARP + lane] = sums[h][j][i];
            }
    __syncthreads();
    for (int i = threadIdx.x; i < count * STRIP; i += blockDim.x) {
        int token = i / STRIP, column = i % STRIP, h = column / 16, of_half = column % 16;
        int at = ((h * J + token / 8) * 4 + of_half / 8 * 2 + token % 2) * WARP + of_half % 8 * 4 + token % 8 / 2;
        float sum = 0.f;
        for (int w = 0; w < warps; w++) sum += reinterpret_cast<const float*>(ring + w * WARP_BYTES)[at];
        y[((long long)tile * TILE + token) * a.n + row + column] = from_float<Y>(sum);
    }
}

#define FOR_COUNT(call)                                                                                              \
    int count = a.tiles.count(blockIdx.x);                                                                           \
    if (count == 0) return;                                                                                          \
    if (count <= 8) call(1) else call(2)

#define GATED(name, W, X)                                                                                            \
    extern "C" __global__ void __launch_bounds__(GATED_WARPS * WARP, 2) name(                                        \
        const X* x, const float* x_scales, const W* gate, const W* up, const float* gate_scales, const float* up_scales, \
        const int* table, const int* order, X* hidden, float* hidden_scales, int choices, int rows, int n, int k,     \
        int ue8m0) {                                                                                                 \
        Arguments<W, X> a{Tiles{table, rows}, order, choices, x, x_scales, gate, up, gate_scales, up_scales, n, k};     \
        FOR_COUNT(GATED_CASE)                                                                                        \
    }
#define GATED_CASE(J) { gated<J>(a, count, hidden, hidden_scales, ue8m0); }
GATED(few_rows_gated_f8e4m3_f8e4m3, f8e4m3, f8e4m3)
GATED(few_rows_gated_bf16_f8e4m3, f8e4m3, bf16)
GATED(few_rows_gated_bf16_bf16, bf16, bf16)

#define PLAIN(name, W, X, Y)                                                                                         \
    extern "C" __global__ void __launch_bounds__(MOST_WARPS * WARP, 1) name(                                         \
        const X* x, const float* x_scales, const W* weights, const float* scales, const int* table, Y* y, int rows,  \
        int n, int k) {                                                                                              \
        Arguments<W, X> a{Tiles{table, rows}, nullptr, 1, x, x_scales, weights, weights, scales, scales, n, k};      \
        FOR_COUNT(PLAIN_CASE)                                                                                        \
    }
#define PLAIN_CASE(J) { plain<J>(a, count, y); }
PLAIN(few_rows_f8e4m3_f8e4m3, f8e4m3, f8e4m3, bf16)
PLAIN(few_rows_bf16_f8e4m3, f8e4m3, bf16, bf16)
PLAIN(few_rows_bf16_bf16, bf16, bf16, bf16)
