// What surrounds the grouped products of `sm90_grouped.cu` and `sm90_few_rows.cu`: the (token, choice) pairs sorted by
// expert into tiles, rows brought into the tiles' order, and the weighted sum of a token's outputs. Nothing depends on the
// order in which an expert's pairs come to lie in its tiles.
#include "fp8.cuh"
#include "reduce.cuh"
#include "types.cuh"

constexpr int TILE = 128;
constexpr int PANEL = 128; // bytes of a row in a panel

// Sums over the threads before this one, and over all, of two numbers; one block of whole warps, up to 1,024 threads.
__device__ __forceinline__ int2 sums_before(int2 own, int2& all) {
    __shared__ int2 warps[WARP];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int2 upto = own;
#pragma unroll
    for (int lanes = 1; lanes < WARP; lanes *= 2) {
        int x = __shfl_up_sync(ALL_LANES, upto.x, lanes), y = __shfl_up_sync(ALL_LANES, upto.y, lanes);
        if (lane >= lanes) upto.x += x, upto.y += y;
    }
    __syncthreads();
    if (lane == WARP - 1) warps[warp] = upto;
    __syncthreads();
    int2 before = make_int2(upto.x - own.x, upto.y - own.y);
    all = make_int2(0, 0);
    for (int i = 0; i < blockDim.x / WARP; i++) {
        if (i < warp) before.x += warps[i].x, before.y += warps[i].y;
        all.x += warps[i].x, all.y += warps[i].y;
    }
    return before;
}

// Tiles of `tile` pairs of one expert. `table` gets: how many pairs of tiles, single tiles and tiles there are; expert and
// rows of each of `most` tiles, no rows beyond the last; the first tiles of the pairs of tiles, up to most / 2; the single
// tiles. `places` gets each pair's row in the tiles, -1 for a choice that is out of range, and `order` the pair of each row.
// One block; shared memory: 2 * experts ints.
extern "C" __global__ void __launch_bounds__(1024) moe_tiles(
    const unsigned* choices, int* table, int* places, int* order, int pairs, int experts, int tile, int most) {
    extern __shared__ int shared[];
    int *counts = shared, *rows = shared + experts;
    for (int e = threadIdx.x; e < experts; e += blockDim.x) counts[e] = 0;
    __syncthreads();
    for (int p = threadIdx.x; p < pairs; p += blockDim.x) {
        if (choices[p] < experts) atomicAdd(&counts[choices[p]], 1);
    }
    __syncthreads();
    int *tiles = table + 3, *doubles = tiles + 2 * most, *singles = doubles + most / 2;
    int2 base = make_int2(0, 0); // tiles, pairs of tiles
    for (int first = 0; first < experts; first += blockDim.x) {
        int e = first + threadIdx.x, count = e < experts ? counts[e] : 0;
        int own = (count + tile - 1) / tile;
        int2 all, before = sums_before(make_int2(own, own / 2), all);
        int at = base.x + before.x, twos = base.y + before.y;
        if (e < experts) rows[e] = at * tile;
        for (int i = 0; i < own; i++) {
            tiles[2 * (at + i)] = e;
            tiles[2 * (at + i) + 1] = min(tile, count - i * tile);
        }
        for (int i = 0; i < own / 2; i++) doubles[twos + i] = at + 2 * i;
        // Every tile before is one of two or a single one.
        if (own % 2) singles[at - 2 * twos] = at + own - 1;
        base.x += all.x, base.y += all.y;
    }
    if (threadIdx.x == 0) table[0] = base.y, table[1] = base.x - 2 * base.y, table[2] = base.x;
    for (int i = base.x + threadIdx.x; i < most; i += blockDim.x) tiles[2 * i] = tiles[2 * i + 1] = 0;
    __syncthreads();
    for (int p = threadIdx.x; p < pairs; p += blockDim.x) {
        int place = choices[p] < experts ? atomicAdd(&rows[choices[p]], 1) : -1;
        places[p] = place;
        if (place >= 0) order[place] = p;
    }
}

// Where a lane's four (two) numbers of a panel's row lie, in bytes.
__device__ __forceinline__ int lane_offset(int row, int lane) {
    return row * PANEL + ((lane / 4 ^ row % 8) * 16) + lane % 4 * 4;
}

// Brings rows of x [tokens, width] into tiles of panels: the first `tokens` blocks a token each to the places of its k
// choices, the others zeros to the rows of a tile that has none. Without places, token t is row t.
template <bool CODES>
__device__ __forceinline__ void tile_rows(
    const bf16* x, const int* table, const int* places, uint8_t* rows, float* scales, int tokens, int width, int k,
    int panels, int ue8m0) {
    constexpr int PER_LANE = CODES ? 4 : 2, WIDTH = WARP * PER_LANE;
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    if (blockIdx.x >= tokens) {
        int tile = blockIdx.x - tokens;
        int count = table ? table[4 + 2 * tile] : min(TILE, tokens - tile * TILE);
        if (count == 0) return;
        for (int row = count + warp; row < TILE; row += warps) {
            for (int panel = 0; panel < panels; panel++) {
                long long at = (long long)tile * panels + panel;
                *reinterpret_cast<uint32_t*>(rows + at * TILE * PANEL + row * PANEL + lane * 4) = 0;
                if (CODES && lane == 0) scales[at * TILE + row] = 0.f;
            }
        }
        return;
    }
    const bf16* from = x + (long long)blockIdx.x * width;
    for (int panel = warp; panel < panels; panel += warps) {
        int column = panel * WIDTH + lane * PER_LANE;
        float values[PER_LANE];
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) values[i] = column + i < width ? to_float(from[column + i]) : 0.f;
        float scale = 0.f;
        uint32_t bits = 0;
        if constexpr (CODES) {
            float amax = 0.f;
#pragma unroll
            for (int i = 0; i < PER_LANE; i++) amax = fmaxf(amax, fabsf(values[i]));
            scale = fmaxf(warp_max(amax), 1e-4f) * (1.f / E4M3_MAX);
            if (ue8m0) scale = pow2_ceil(scale);
#pragma unroll
            for (int i = 0; i < PER_LANE; i++) bits |= (uint32_t)to_f8e4m3(values[i] / scale).bits << 8 * i;
        } else {
            __nv_bfloat162 two = __floats2bfloat162_rn(values[0], values[1]);
            bits = *reinterpret_cast<uint32_t*>(&two);
        }
        for (int i = 0; i < k; i++) {
            int place = places ? places[(long long)blockIdx.x * k + i] : blockIdx.x;
            if (place < 0) continue;
            long long at = (long long)(place / TILE) * panels + panel;
            *reinterpret_cast<uint32_t*>(rows + at * TILE * PANEL + lane_offset(place % TILE, lane)) = bits;
            if (CODES && lane == 0) scales[at * TILE + place % TILE] = scale;
        }
    }
}

#define TILE_ROWS(dtype, codes)                                                                                      \
    extern "C" __global__ void __launch_bounds__(256) tile_rows_bf16_##dtype(                                        \
        const bf16* x, const int* table, const int* places, uint8_t* rows, float* scales, int tokens, int width,     \
        int k, int panels, int ue8m0) {                                                                              \
        tile_rows<codes>(x, table, places, rows, scales, tokens, width, k, panels, ue8m0);                           \
    }
TILE_ROWS(f8e4m3, true)
TILE_ROWS(bf16, false)

// y[token] = Σ weights[token, choice] · outputs[place of (token, choice)], in the order of the choices; rows of whole
// vectors of eight.
extern "C" __global__ void __launch_bounds__(256) moe_combine_rows(
    const bf16* outputs, const int* places, const float* weights, bf16* y, int k, int width, long long vectors) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= vectors) return;
    int of_row = width / 8;
    long long token = at / of_row, column = at % of_row * 8;
    float sums[8] = {};
    for (int j = 0; j < k; j++) {
        int place = places[token * k + j];
        if (place < 0) continue;
        float weight = weights[token * k + j];
        uint4 eight = *reinterpret_cast<const uint4*>(outputs + (long long)place * width + column);
        const bf16* values = reinterpret_cast<const bf16*>(&eight);
#pragma unroll
        for (int i = 0; i < 8; i++) sums[i] += to_float(values[i]) * weight;
    }
    alignas(16) bf16 out[8];
#pragma unroll
    for (int i = 0; i < 8; i++) out[i] = from_float<bf16>(sums[i]);
    *reinterpret_cast<uint4*>(y + token * width + column) = *reinterpret_cast<uint4*>(out);
}
