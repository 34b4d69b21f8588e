// The mixture of experts of few rows in f32: one warp a hidden value of a pair of a token and a choice, then one warp an output
// of a token, which adds its choices in order. Every weight is read once for each pair that needs it.
#include "reduce.cuh"
#include "types.cuh"

constexpr int WARPS = 8;

__device__ __forceinline__ float2 two_of(const float* from) { return *reinterpret_cast<const float2*>(from); }
__device__ __forceinline__ float2 two_of(const bf16* from) {
    unsigned bits = *reinterpret_cast<const unsigned*>(from);
    return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u));
}

template <class W> __device__ __forceinline__ float dot(const float* a, const W* b, int count, int lane) {
    float sum = 0.f;
    if (count % 2 == 0 && (uintptr_t)a % 8 == 0 && (uintptr_t)b % (2 * sizeof(W)) == 0) {
#pragma unroll 4
        for (int i = lane * 2; i < count; i += WARP * 2) {
            float2 x = two_of(a + i), y = two_of(b + i);
            sum += x.x * y.x;
            sum += x.y * y.y;
        }
    } else {
        for (int i = lane; i < count; i += WARP) sum += a[i] * to_float(b[i]);
    }
    return warp_sum(sum);
}

// hidden[pair] = silu(gate · x) · (up · x), [pairs, width]; a choice that is out of range gives zeros.
template <class W>
__device__ void up(
    const float* x, const unsigned* choices, const W* gate, const W* up, float* hidden, int experts, int width, int inner,
    int k) {
    int column = blockIdx.x * WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP, pair = blockIdx.y;
    if (column >= width) return;
    unsigned expert = choices[pair];
    float value = 0.f;
    if (expert < experts) {
        const float* row = x + (long long)(pair / k) * inner;
        long long at = ((long long)expert * width + column) * inner;
        float g = dot(row, gate + at, inner, lane), u = dot(row, up + at, inner, lane);
        value = g / (1.f + expf(-g)) * u;
    }
    if (lane == 0) hidden[(long long)pair * width + column] = value;
}

// y[token] = Σ weights[token, choice] · (down · hidden[token, choice]), in the order of the choices.
template <class W>
__device__ void down(
    const float* hidden, const unsigned* choices, const float* weights, const W* down, float* y, int experts, int width,
    int outputs, int k) {
    int column = blockIdx.x * WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP, token = blockIdx.y;
    if (column >= outputs) return;
    float sum = 0.f;
    for (int j = 0; j < k; j++) {
        long long pair = (long long)token * k + j;
        unsigned expert = choices[pair];
        if (expert >= experts) continue;
        float part = dot(hidden + pair * width, down + ((long long)expert * outputs + column) * width, width, lane);
        // Rounded twice, as on the CPU.
        sum = __fadd_rn(sum, __fmul_rn(part, weights[pair]));
    }
    if (lane == 0) y[(long long)token * outputs + column] = sum;
}

#define KERNELS(WD, W)                                                                                               \
    extern "C" __global__ void __launch_bounds__(WARPS * WARP) moe_rows_up_f32_##WD(                                 \
        const float* x, const unsigned* choices, const W* gate, const W* up_weights, float* hidden, int experts,     \
        int width, int inner, int k) {                                                                               \
        up(x, choices, gate, up_weights, hidden, experts, width, inner, k);                                          \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(WARPS * WARP) moe_rows_down_f32_##WD(                               \
        const float* hidden, const unsigned* choices, const float* weights, const W* down_weights, float* y,         \
        int experts, int width, int outputs, int k) {                                                                \
        down(hidden, choices, weights, down_weights, y, experts, width, outputs, k);                                 \
    }
FOR_FLOATS(KERNELS)
