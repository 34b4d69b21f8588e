// Lists of rows as a gathering warpgroup reads them on Hopper: tile by tile, a tile ahead.
#pragma once

#include "attention.cuh"
#include "sm90_wgmma.cuh"

namespace sm90_mla {

using namespace sm90;

constexpr int LATENT = 512, ROPE = 64, DIM = LATENT + ROPE;
constexpr int TILE = 64; // keys of a step, and heads of a warpgroup
constexpr float LOG2_E = 1.4426950408889634f;

// What a tile's gatherer tells about it.
constexpr uint32_t LAST = 1, BAD = 2;
struct TileNote {
    uint32_t named[2]; // bit i % 32 of word i / 32: key i takes part
    uint32_t flags;
    uint32_t unused;
};

// A position in a ring of tiles, and the parity of the phases that its barriers are in.
template <int STAGES> struct Ring {
    int stage = 0;
    uint32_t parity = 0;
    __device__ __forceinline__ void next() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
};

// The rows of a tile's keys, known to every lane of a warp: lane i holds keys i and i + 32; below 0 = none.
struct Listed {
    int rows[2];
    uint32_t named[2];
    uint32_t bad;

    __device__ __forceinline__ bool empty() const { return !(named[0] | named[1] | bad); }
    // The row of key `first + i`; `i` is known to the compiler, and `first` is below the next multiple of 32 above it.
    __device__ __forceinline__ int row(int first, int i) const {
        return __shfl_sync(ALL_LANES, rows[i / WARP], first + i % WARP);
    }
};

// Reads a list tile by tile; the entries of the tile after the one that was asked for are on their way.
template <class Arguments> struct List {
    const Arguments& a;
    long long first;
    int tile, last, entries[2];

    __device__ __forceinline__ List(const Arguments& a, int token, int first_tile, int last_tile)
        : a(a), first((long long)token * a.k), tile(first_tile), last(last_tile) {
        fetch();
    }

    __device__ __forceinline__ void fetch() {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int at = tile * TILE + i * WARP + threadIdx.x % WARP;
            entries[i] = -1;
            if (tile > last || at >= a.k) continue;
            if (a.is_i64) entries[i] = named_row(static_cast<const long long*>(a.indices)[first + at], a.slots);
            else entries[i] = static_cast<const int*>(a.indices)[first + at];
        }
    }

    __device__ __forceinline__ bool more() const { return tile <= last; }

    __device__ __forceinline__ Listed next() {
        Listed listed;
        bool outside = false;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = named_row(entries[i], a.slots);
            outside |= row == BAD_ROW;
            listed.rows[i] = row;
            listed.named[i] = __ballot_sync(ALL_LANES, row >= 0);
        }
        listed.bad = __any_sync(ALL_LANES, outside);
        tile++;
        fetch();
        return listed;
    }
};

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ uint32_t two_bf16(float low, float high) {
    __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t*>(&two);
}

} // namespace sm90_mla
