// cache[slots[t]] = rows[t], byte for byte; a row whose slot lies outside the cache is not written.
#include <cstdint>

template <class T>
__device__ void cache_write(T* cache, const T* rows, const uint32_t* slots, int width, uint32_t count, long long elements) {
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= elements) return;
    uint32_t slot = slots[at / width];
    if (slot < count) cache[(long long)slot * width + at % width] = rows[at];
}

#define KERNEL(bytes, T)                                                                                             \
    extern "C" __global__ void cache_write_##bytes(                                                                  \
        T* cache, const T* rows, const uint32_t* slots, int width, int count, long long elements) {                  \
        cache_write<T>(cache, rows, slots, width, count, elements);                                                  \
    }
KERNEL(8bit, uint8_t)
KERNEL(16bit, uint16_t)
KERNEL(32bit, uint32_t)
