// silu(gate) · up, element by element, in f32.
#include "rows.cuh"
#include "types.cuh"

template <class T>
__device__ void swiglu(
    const T* gate, Rows gate_rows, const T* up, Rows up_rows, T* out, int width, long long elements) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= elements) return;
    unsigned row = at / width;
    long long column = at % width;
    float g = to_float(gate[gate_rows.offset(row) + column * gate_rows.step]);
    float u = to_float(up[up_rows.offset(row) + column * up_rows.step]);
    out[at] = from_float<T>(g / (1.f + expf(-g)) * u);
}

#define KERNEL(dtype, T)                                                                                             \
    extern "C" __global__ void swiglu_##dtype(                                                                       \
        const T* gate, Rows gate_rows, const T* up, Rows up_rows, T* out, int width, long long elements) {           \
        swiglu<T>(gate, gate_rows, up, up_rows, out, width, elements);                                               \
    }
FOR_FLOATS(KERNEL)
