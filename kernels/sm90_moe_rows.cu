// What surrounds the grouped products of `sm90_grouped.cu` and `sm90_few_rows.cu`: the (token, choice) pairs sorted by
// expert into tiles, rows brought into the tiles' order, and the weighted sum of a token's outputs. Nothing depends on the
// order in which an expert's pairs come to lie in its tiles.
#include "fp8.cuh"
#include "reduce.cuh"
#include "types.cuh"

constexpr int TILE = 128;
constexpr int PANEL = 128; // bytes of a row in a panel; rows of x are whole panels

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

// Brings rows of x [tokens, width] into tiles of panels: the first `tokens` blocks a token each to the places of its k
// choices, the others zeros to the rows that a tile's last half lacks; a half without rows is never read. Without places,
// token t is row t. A lane has 16 bytes of a panel, eight lanes a panel.
template <bool CODES>
__device__ __forceinline__ void tile_rows(
    const bf16* x, const int* table, const int* places, uint8_t* rows, float* scales, int tokens, int width, int k,
    int panels, int ue8m0) {
    constexpr int WIDTH = CODES ? 16 : 8, LANES = PANEL / 16;
    int chunk = threadIdx.x % LANES, first = threadIdx.x / LANES, step = blockDim.x / LANES;
    auto at = [&](int place, int panel) {
        long long of_tile = (long long)(place / TILE) * panels + panel;
        int row = place % TILE;
        return reinterpret_cast<uint4*>(rows + (of_tile * TILE + row) * PANEL + (chunk ^ row % 8) * 16);
    };
    auto scale_at = [&](int place, int panel) { return scales + ((long long)(place / TILE) * panels + panel) * TILE + place % TILE; };
    if (blockIdx.x >= tokens) {
        int tile = blockIdx.x - tokens;
        int count = table ? table[4 + 2 * tile] : min(TILE, tokens - tile * TILE);
        int end = (count + TILE / 2 - 1) / (TILE / 2) * (TILE / 2);
        for (int row = count; row < end; row++) {
            for (int panel = first; panel < panels; panel += step) {
                *at(tile * TILE + row, panel) = make_uint4(0, 0, 0, 0);
                if (CODES && chunk == 0) *scale_at(tile * TILE + row, panel) = 0.f;
            }
        }
        return;
    }
    // Whole rounds, for the lanes of a warp exchange their peaks.
    for (int panel = first; panel - first < panels; panel += step) {
        const bf16* from = x + (long long)blockIdx.x * width + panel * (LANES * WIDTH) + chunk * WIDTH;
        uint4 values[WIDTH / 8] = {};
        if (panel < panels) {
#pragma unroll
            for (int i = 0; i < WIDTH / 8; i++) values[i] = reinterpret_cast<const uint4*>(from)[i];
        }
        float scale = 0.f;
        uint4 out = values[0];
        if constexpr (CODES) {
            const __nv_bfloat162* two = reinterpret_cast<const __nv_bfloat162*>(values);
            float amax = 0.f;
#pragma unroll
            for (int i = 0; i < WIDTH / 2; i++) {
                float2 numbers = __bfloat1622float2(two[i]);
                amax = fmaxf(amax, fmaxf(fabsf(numbers.x), fabsf(numbers.y)));
            }
#pragma unroll
            for (int lanes = 1; lanes < LANES; lanes *= 2) amax = fmaxf(amax, __shfl_xor_sync(ALL_LANES, amax, lanes));
            scale = fmaxf(amax, 1e-4f) * (1.f / E4M3_MAX);
            if (ue8m0) scale = pow2_ceil(scale);
            uint16_t codes[WIDTH / 2];
#pragma unroll
            for (int i = 0; i < WIDTH / 2; i++) {
                float2 numbers = __bfloat1622float2(two[i]);
                codes[i] = __nv_cvt_float2_to_fp8x2(make_float2(numbers.x / scale, numbers.y / scale), __NV_SATFINITE, __NV_E4M3);
            }
            out = make_uint4(
                codes[0] | codes[1] << 16, codes[2] | codes[3] << 16, codes[4] | codes[5] << 16, codes[6] | codes[7] << 16);
        }
        if (panel >= panels) continue;
        for (int i = 0; i < k; i++) {
            int place = places ? places[(long long)blockIdx.x * k + i] : blockIdx.x;
            if (place < 0) continue;
            *at(place, panel) = out;
            if (CODES && chunk == 0) *scale_at(place, panel) = scale;
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
