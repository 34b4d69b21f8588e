// The mixture of experts as grouped products over the stacked weights: a plan sorts the (token, choice) pairs by expert
// into tiles, then one block multiplies a tile of pairs with a tile of its expert's weights, in f32, and the outputs of a
// token's choices are added in order. Nothing depends on the order in which pairs come to lie in tiles.
#include "fp8.cuh"
#include "reduce.cuh"
#include "types.cuh"

// Pairs and output columns of a tile, and how much of the inner dimension is in shared memory at a time; PAIRS must match
// `TILE_PAIRS` in src/ops/moe/cuda.rs.
constexpr int PAIRS = 32;
constexpr int COLUMNS = 64;
constexpr int INNER = 32;
constexpr int THREADS = 128;
// Results of a thread: PER pairs times PER columns.
constexpr int PER = 4;
constexpr int BLOCK = 128;

// `order` gets the pairs by expert, `tiles` (expert, first place in order, pairs) of each tile; unused ones have no pairs.
// One block; shared memory: 2 * experts ints. A choice that is out of range is in no tile.
extern "C" __global__ void __launch_bounds__(1024) moe_plan(
    const unsigned* choices, int* order, int* tiles, int pairs, int experts, int most_tiles) {
    extern __shared__ int shared[];
    int *counts = shared, *places = shared + experts;
    for (int e = threadIdx.x; e < experts; e += blockDim.x) counts[e] = 0;
    __syncthreads();
    for (int p = threadIdx.x; p < pairs; p += blockDim.x) {
        if (choices[p] < experts) atomicAdd(&counts[choices[p]], 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        int place = 0, tile = 0;
        for (int e = 0; e < experts; e++) {
            places[e] = place;
            for (int first = 0; first < counts[e]; first += PAIRS, tile++) {
                tiles[3 * tile] = e;
                tiles[3 * tile + 1] = place + first;
                tiles[3 * tile + 2] = min(PAIRS, counts[e] - first);
            }
            place += counts[e];
        }
        for (; tile < most_tiles; tile++) tiles[3 * tile + 2] = 0;
    }
    __syncthreads();
    for (int p = threadIdx.x; p < pairs; p += blockDim.x) {
        if (choices[p] < experts) order[atomicAdd(&places[choices[p]], 1)] = p;
    }
}

// A stack of weights [experts, n, k] and, for e4m3, the scales [experts, ceil(n/128), ceil(k/128)].
template <class T> struct Stack {
    const T* weights;
    const float* scales;
    int n, k;

    __device__ __forceinline__ float at(int expert, int row, int column) const {
        if (row >= n || column >= k) return 0.f;
        float value = to_float(weights[((long long)expert * n + row) * k + column]);
        if (!scales) return value;
        int rows = (n + BLOCK - 1) / BLOCK, columns = (k + BLOCK - 1) / BLOCK;
        return value * scales[((long long)expert * rows + row / BLOCK) * columns + column / BLOCK];
    }
};

// sums += inputs · weightsᵀ of each stack, for a tile; `input(pair, column)` reads an input.
template <int STACKS, class T, class Input>
__device__ __forceinline__ void multiply(
    const Stack<T> (&stacks)[STACKS], int expert, const int* pairs, int count, int column0, Input input,
    float (&sums)[STACKS][PER][PER]) {
    __shared__ float a[INNER][PAIRS + 1], b[STACKS][INNER][COLUMNS + 1];
    int tx = threadIdx.x % (COLUMNS / PER), ty = threadIdx.x / (COLUMNS / PER), inner = stacks[0].k;
    for (int s = 0; s < STACKS; s++)
        for (int i = 0; i < PER; i++)
            for (int j = 0; j < PER; j++) sums[s][i][j] = 0.f;
    for (int k0 = 0; k0 < inner; k0 += INNER) {
        for (int i = threadIdx.x; i < PAIRS * INNER; i += THREADS) {
            int row = i / INNER, k = i % INNER;
            a[k][row] = row < count && k0 + k < inner ? input(pairs[row], k0 + k) : 0.f;
        }
        for (int i = threadIdx.x; i < COLUMNS * INNER; i += THREADS) {
            int row = i / INNER, k = i % INNER;
#pragma unroll
            for (int s = 0; s < STACKS; s++) b[s][k][row] = stacks[s].at(expert, column0 + row, k0 + k);
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < INNER; k++) {
            float left[PER];
#pragma unroll
            for (int i = 0; i < PER; i++) left[i] = a[k][ty * PER + i];
#pragma unroll
            for (int s = 0; s < STACKS; s++) {
#pragma unroll
                for (int j = 0; j < PER; j++) {
                    float right = b[s][k][tx + j * (COLUMNS / PER)];
#pragma unroll
                    for (int i = 0; i < PER; i++) sums[s][i][j] += left[i] * right;
                }
            }
        }
        __syncthreads();
    }
}

// hidden[pair] = silu(gate · x) · (up · x), [pairs, width] f32, with x the row of the pair's token.
template <class TX, class TW>
__device__ void up(
    const TX* x, const int* order, const int* tiles, Stack<TW> gate, Stack<TW> up, float* hidden, int k) {
    int count = tiles[3 * blockIdx.x + 2], column0 = blockIdx.y * COLUMNS;
    if (count == 0) return;
    const int* pairs = order + tiles[3 * blockIdx.x + 1];
    Stack<TW> stacks[2] = {gate, up};
    float sums[2][PER][PER];
    auto input = [&](int pair, int column) { return to_float(x[(long long)(pair / k) * gate.k + column]); };
    multiply(stacks, tiles[3 * blockIdx.x], pairs, count, column0, input, sums);
    int tx = threadIdx.x % (COLUMNS / PER), ty = threadIdx.x / (COLUMNS / PER);
    for (int i = 0; i < PER; i++) {
        for (int j = 0; j < PER; j++) {
            int row = ty * PER + i, column = column0 + tx + j * (COLUMNS / PER);
            if (row >= count || column >= gate.n) continue;
            float g = sums[0][i][j];
            hidden[(long long)pairs[row] * gate.n + column] = g / (1.f + expf(-g)) * sums[1][i][j];
        }
    }
}

// outputs[pair] = down · hidden[pair], [pairs, hidden size] f32.
template <class TW>
__device__ void down(const float* hidden, const int* order, const int* tiles, Stack<TW> down, float* outputs) {
    int count = tiles[3 * blockIdx.x + 2], column0 = blockIdx.y * COLUMNS;
    if (count == 0) return;
    const int* pairs = order + tiles[3 * blockIdx.x + 1];
    Stack<TW> stacks[1] = {down};
    float sums[1][PER][PER];
    auto input = [&](int pair, int column) { return hidden[(long long)pair * down.k + column]; };
    multiply(stacks, tiles[3 * blockIdx.x], pairs, count, column0, input, sums);
    int tx = threadIdx.x % (COLUMNS / PER), ty = threadIdx.x / (COLUMNS / PER);
    for (int i = 0; i < PER; i++) {
        for (int j = 0; j < PER; j++) {
            int row = ty * PER + i, column = column0 + tx + j * (COLUMNS / PER);
            if (row < count && column < down.n) outputs[(long long)pairs[row] * down.n + column] = sums[0][i][j];
        }
    }
}

// y[token] = Σ weights[token, choice] · outputs[token, choice], in the order of the choices.
template <class TX>
__device__ void combine(
    const float* outputs, const unsigned* choices, const float* weights, TX* y, int k, int experts, int width,
    long long elements) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= elements) return;
    long long token = at / width;
    float sum = 0.f;
    for (int j = 0; j < k; j++) {
        long long pair = token * k + j;
        // Rounded twice, as on CPU.
        if (choices[pair] < experts) sum = __fadd_rn(sum, __fmul_rn(outputs[pair * width + at % width], weights[pair]));
    }
    y[at] = from_float<TX>(sum);
}

#define UP(XD, X, WD, W)                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS) moe_up_##XD##_##WD(                                        \
        const X* x, const int* order, const int* tiles, const W* gate, const float* gate_scales, const W* up_weights, \
        const float* up_scales, float* hidden, int width, int inner, int k) {                                        \
        up(x, order, tiles, Stack<W>{gate, gate_scales, width, inner},                                               \
           Stack<W>{up_weights, up_scales, width, inner}, hidden, k);                                                \
    }
FOR_FLOAT_PAIRS(UP)
UP(f32, float, f8e4m3, f8e4m3)
UP(bf16, bf16, f8e4m3, f8e4m3)

#define DOWN(WD, W)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) moe_down_##WD(                                             \
        const float* hidden, const int* order, const int* tiles, const W* weights, const float* scales,              \
        float* outputs, int width, int inner) {                                                                      \
        down(hidden, order, tiles, Stack<W>{weights, scales, width, inner}, outputs);                                \
    }
FOR_FLOATS(DOWN)
DOWN(f8e4m3, f8e4m3)

#define COMBINE(XD, X)                                                                                               \
    extern "C" __global__ void moe_combine_##XD(                                                                     \
        const float* outputs, const unsigned* choices, const float* weights, X* y, int k, int experts, int width,    \
        long long elements) {                                                                                        \
        combine<X>(outputs, choices, weights, y, k, experts, width, elements);                                       \
    }
FOR_FLOATS(COMBINE)
