// y = x · weightᵀ in f32 for up to 64 rows of x: one block all rows and 16 columns, sums in the order of the inner dimension, so
// that a row's bits do not depend on the others. Weights may be bf16.
#include "types.cuh"

constexpr int ROWS = 64;
constexpr int COLUMNS = 16;
constexpr int INNER = 64;
constexpr int THREADS = 128;
// Rows and columns of a thread's results.
constexpr int TALL = 4;
constexpr int WIDE = 2;
// Fours of a chunk that a thread loads, of x and of the weight.
constexpr int LOADS = ROWS * INNER / 4 / THREADS;
constexpr int LOADS_B = COLUMNS * INNER / 4 / THREADS;

// Four neighbours from `at` on of a row of `k`; zeros beyond its end.
__device__ __forceinline__ float4 four_of(const float* from) { return *reinterpret_cast<const float4*>(from); }
__device__ __forceinline__ float4 four_of(const bf16* from) {
    uint2 bits = *reinterpret_cast<const uint2*>(from);
    return make_float4(
        __uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000u), __uint_as_float(bits.y << 16),
        __uint_as_float(bits.y & 0xffff0000u));
}
template <bool VECTOR, class T> __device__ __forceinline__ float4 quarter(const T* row, int at, int k) {
    float4 four = make_float4(0.f, 0.f, 0.f, 0.f);
    if (VECTOR) return at < k ? four_of(row + at) : four;
    if (at < k) four.x = to_float(row[at]);
    if (at + 1 < k) four.y = to_float(row[at + 1]);
    if (at + 2 < k) four.z = to_float(row[at + 2]);
    if (at + 3 < k) four.w = to_float(row[at + 3]);
    return four;
}

template <bool VECTOR, class W>
__device__ __forceinline__ void linear_tile(const float* x, const W* weight, float* y, int m, int n, int k) {
    __shared__ __align__(16) float a[INNER][ROWS + 4];
    __shared__ __align__(16) float b[INNER][COLUMNS + 2];
    int thread = threadIdx.x, first = blockIdx.x * COLUMNS;
    int tx = thread % (COLUMNS / WIDE), ty = thread / (COLUMNS / WIDE);
    // Neighbouring threads take neighbouring rows, which lie side by side in shared memory.
    int row = thread % ROWS, part = thread / ROWS * 4, column = thread % COLUMNS, part_b = thread / COLUMNS * 4;
    constexpr int STEP = THREADS / ROWS * 4, STEP_B = THREADS / COLUMNS * 4;
    float4 next[LOADS], next_b[LOADS_B];
    const float4 zeros = make_float4(0.f, 0.f, 0.f, 0.f);
    auto load = [&](int k0) {
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            next[i] = row < m ? quarter<VECTOR>(x + (long long)row * k, k0 + part + i * STEP, k) : zeros;
        }
#pragma unroll
        for (int i = 0; i < LOADS_B; i++) {
            const W* from = weight + (long long)(first + column) * k;
            next_b[i] = first + column < n ? quarter<VECTOR>(from, k0 + part_b + i * STEP_B, k) : zeros;
        }
    };
    float sums[TALL][WIDE];
#pragma unroll
    for (int i = 0; i < TALL; i++) {
#pragma unroll
        for (int j = 0; j < WIDE; j++) sums[i][j] = 0.f;
    }
    load(0);
    for (int k0 = 0; k0 < k; k0 += INNER) {
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            int at = part + i * STEP;
            a[at][row] = next[i].x;
            a[at + 1][row] = next[i].y;
            a[at + 2][row] = next[i].z;
            a[at + 3][row] = next[i].w;
        }
#pragma unroll
        for (int i = 0; i < LOADS_B; i++) {
            int at = part_b + i * STEP_B;
            b[at][column] = next_b[i].x;
            b[at + 1][column] = next_b[i].y;
            b[at + 2][column] = next_b[i].z;
            b[at + 3][column] = next_b[i].w;
        }
        __syncthreads();
        if (k0 + INNER < k) load(k0 + INNER);
#pragma unroll 16
        for (int i = 0; i < INNER; i++) {
            float4 left = *reinterpret_cast<const float4*>(&a[i][ty * TALL]);
            float2 right = *reinterpret_cast<const float2*>(&b[i][tx * WIDE]);
            float lefts[TALL] = {left.x, left.y, left.z, left.w}, rights[WIDE] = {right.x, right.y};
#pragma unroll
            for (int r = 0; r < TALL; r++) {
#pragma unroll
                for (int c = 0; c < WIDE; c++) sums[r][c] += lefts[r] * rights[c];
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < TALL; r++) {
#pragma unroll
        for (int c = 0; c < WIDE; c++) {
            int to = ty * TALL + r, at = first + tx * WIDE + c;
            if (to < m && at < n) y[(long long)to * n + at] = sums[r][c];
        }
    }
}

// `vector`: rows of x and of the weight begin at multiples of 16 bytes and hold whole vectors.
#define KERNEL(WD, W)                                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS) linear_tile_f32_##WD(                                      \
        const float* x, const W* weight, float* y, int m, int n, int k, int vector) {                                \
        if (vector) linear_tile<true>(x, weight, y, m, n, k);                                                        \
        else linear_tile<false>(x, weight, y, m, n, k);                                                              \
    }
FOR_FLOATS(KERNEL)
