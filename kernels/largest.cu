// The largest logit of each row: one block a row. Of equals the smallest id; the first NaN or +inf beats all.
#include "reduce.cuh"
#include "types.cuh"

struct Largest {
    float logit;
    unsigned id;
};

__device__ __forceinline__ bool is_fault(float x) { return x != x || x == INFINITY; }

// Whether a comes before b.
__device__ __forceinline__ bool before(Largest a, Largest b) {
    bool fault = is_fault(a.logit), other = is_fault(b.logit);
    if (fault || other) return fault && (!other || a.id < b.id);
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

__device__ __forceinline__ Largest warp_first(Largest best) {
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
        Largest other = {__shfl_xor_sync(ALL_LANES, best.logit, lanes), __shfl_xor_sync(ALL_LANES, best.id, lanes)};
        if (before(other, best)) best = other;
    }
    return best;
}

// largest[row] = (id, bits of the logit).
extern "C" __global__ void __launch_bounds__(1024) largest_f32(
    const float* logits, long long stride, unsigned* largest, int columns) {
    __shared__ Largest parts[WARP];
    const float* row = logits + blockIdx.x * stride;
    Largest best = {-INFINITY, 0xffffffffu};
    for (unsigned i = threadIdx.x; i < columns; i += blockDim.x) {
        Largest own = {row[i], i};
        if (before(own, best)) best = own;
    }
    best = warp_first(best);
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = best;
    __syncthreads();
    if (threadIdx.x >= WARP) return;
    best = warp_first(threadIdx.x < blockDim.x / WARP ? parts[threadIdx.x] : Largest{-INFINITY, 0xffffffffu});
    if (threadIdx.x == 0) {
        largest[2 * blockIdx.x] = best.id;
        largest[2 * blockIdx.x + 1] = __float_as_uint(best.logit);
    }
}
