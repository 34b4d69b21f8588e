// What a block of a cluster holds of 64 rows, and how the rows get there: half of the columns of latents of 512 + 64 values,
// in bf16 or packed.
#pragma once

#include "fp8.cuh"
#include "keys.cuh"
#include "sm90_mla_list.cuh"

namespace sm90_mla {

constexpr int BLOCKS = 2; // of a cluster
constexpr int HALF = LATENT / BLOCKS, HALF_ROPE = ROPE / BLOCKS;

// 64 rows of a block's columns: 4 panels of 64 columns (rows of 128 bytes), then one of 32 (rows of 64 bytes).
constexpr int PANEL_COLUMNS = 64, PANELS = HALF / PANEL_COLUMNS;
constexpr int PANEL_BYTES = TILE * PANEL_COLUMNS * 2;
constexpr int TILE_BYTES = PANELS * PANEL_BYTES + TILE * HALF_ROPE * 2;

template <class Keys> struct Arguments {
    const bf16* q;
    long long q_row, q_head;
    const Keys* kv;
    long long kv_stride;
    const void* indices;
    bf16* out;         // [tokens, heads, 512]
    float* lse;        // [tokens, heads]
    float* part_out;   // [tokens, heads, splits, 512]
    float* part_lse;   // [tokens, heads, splits]
    int items, heads, slots, k, is_i64, splits; // items: pieces of work
    float scale;
};

// Where chunk c of 16 bytes of a row lies.
__device__ __forceinline__ uint32_t panel_chunk(int row, int c) { return row * 128 + ((c ^ (row & 7)) << 4); }
__device__ __forceinline__ uint32_t rope_chunk(int row, int c) {
    return PANELS * PANEL_BYTES + row * 64 + ((c ^ (row >> 1 & 3)) << 4);
}

// Copies this block's columns of 64 rows of DIM numbers; `row(first, i)` is the address of row first + i, null for zeros.
template <class Row> __device__ __forceinline__ void gather(uint32_t to, int block, int thread, Row row) {
    int chunk = thread % 8, first = thread / 8;
#pragma unroll
    for (int i = 0; i < TILE; i += WARPGROUP / 8) {
        const uint8_t* from = row(first, i);
        uint32_t bytes = from ? 16 : 0;
#pragma unroll
        for (int p = 0; p < PANELS; p++) {
            copy16(
                to + p * PANEL_BYTES + panel_chunk(first + i, chunk),
                from + block * HALF * 2 + p * 128 + chunk * 16, bytes);
        }
    }
    chunk = thread % 4, first = thread / 4;
#pragma unroll
    for (int i = 0; i < TILE; i += WARPGROUP / 4) {
        const uint8_t* from = row(first, i);
        copy16(to + rope_chunk(first + i, chunk), from + (LATENT + block * HALF_ROPE) * 2 + chunk * 16, from ? 16 : 0);
    }
}

// Gathers tiles of rows in bf16.
struct PlainTile {
    // Begins with a work's first tile.
    __device__ __forceinline__ void begin(const Arguments<bf16>& a, const Listed& listed, int block, int thread) {}

    // Fills a tile, and begins with the next.
    __device__ __forceinline__ void fill(
        const Arguments<bf16>& a, const Listed& listed, const Listed& next, int block, int thread, uint32_t to) {
        gather(to, block, thread, [&](int first, int i) {
            int row = listed.row(first, i);
            return row < 0 ? nullptr : reinterpret_cast<const uint8_t*>(a.kv + row * a.kv_stride);
        });
    }
};

// Eight e4m3 codes times a scale, in bf16.
__device__ __forceinline__ uint4 widen(uint32_t low, uint32_t high, float scale) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint16_t codes = (i < 2 ? low : high) >> (i % 2 * 16);
        uint32_t halves;
        asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(codes));
        float2 two = __half22float2(*reinterpret_cast<__half2*>(&halves));
        words[i] = two_bf16(two.x * scale, two.y * scale);
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

// Gathers tiles of packed rows: 512 codes, 4 scales, 64 values in bf16.
struct PackedTile {
    static constexpr int SCALES = LATENT, PLAIN = LATENT + 4 * (LATENT / GROUP);
    static constexpr int PASSES = TILE * HALF / 16 / WARPGROUP;
    static constexpr int KEYS_A_PASS = WARPGROUP / 16;
    uint4 codes[PASSES]; // eight threads a group of 128 codes
    float scale; // lane i: of pass i % 8 of the lanes i / 8 * 8 .. + 8

    __device__ __forceinline__ void load_codes(
        const Arguments<packed>& a, const Listed& listed, int block, int thread, int pass) {
        int row = listed.row(thread / 16, pass * KEYS_A_PASS);
        codes[pass] = make_uint4(0, 0, 0, 0);
        if (row >= 0) {
            const packed* from = a.kv + row * a.kv_stride + block * HALF + thread / 8 % 2 * GROUP + thread % 8 * 16;
            codes[pass] = __ldg(reinterpret_cast<const uint4*>(from));
        }
    }
    __device__ __forceinline__ float load_scale(const Arguments<packed>& a, const Listed& listed, int block, int thread) {
        int pass = thread % 8, key = thread / 16 + pass % (PASSES / 2) * KEYS_A_PASS;
        int low = listed.row(key, 0), high = listed.row(key, WARP), row = pass < PASSES / 2 ? low : high;
        const packed* from = a.kv + row * a.kv_stride + SCALES + (block * 2 + thread / 8 % 2) * 4;
        return row < 0 ? 0.f : __ldg(reinterpret_cast<const float*>(from));
    }

    __device__ __forceinline__ void begin(const Arguments<packed>& a, const Listed& listed, int block, int thread) {
#pragma unroll
        for (int i = 0; i < PASSES; i++) load_codes(a, listed, block, thread, i);
        scale = load_scale(a, listed, block, thread);
    }

    __device__ __forceinline__ void fill(
        const Arguments<packed>& a, const Listed& listed, const Listed& next, int block, int thread, uint32_t to) {
        int chunk = thread % 4, first = thread / 4;
#pragma unroll
        for (int i = 0; i < TILE; i += WARPGROUP / 4) {
            int row = listed.row(first, i);
            const packed* from = a.kv + row * a.kv_stride + PLAIN + block * HALF_ROPE * 2 + chunk * 16;
            copy16(to + rope_chunk(first + i, chunk), from, row < 0 ? 0 : 16);
        }
        float next_scale = load_scale(a, next, block, thread);
        // The threads of a row's second panel store their odd chunk first, so that eight threads meet no bank twice.
        int part = thread % 8, second = part / 4, even = part % 4 * 2;
        uint32_t panel = to + (thread / 8 % 2 * 2 + second) * PANEL_BYTES;
#pragma unroll
        for (int i = 0; i < PASSES; i++) {
            int key = thread / 16 + i * KEYS_A_PASS;
            float its = __shfl_sync(ALL_LANES, scale, i, 8);
            uint4 low = widen(codes[i].x, codes[i].y, its), high = widen(codes[i].z, codes[i].w, its);
            load_codes(a, next, block, thread, i);
            store16(panel + panel_chunk(key, even + second), second ? high : low);
            store16(panel + panel_chunk(key, even + 1 - second), second ? low : high);
        }
        scale = next_scale;
        fence_products();
    }
};

template <class Keys> struct TileOf;
template <> struct TileOf<bf16> { using Tile = PlainTile; };
template <> struct TileOf<packed> { using Tile = PackedTile; };

} // namespace sm90_mla
