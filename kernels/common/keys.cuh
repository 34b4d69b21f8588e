// Keys as a cache keeps them: rows of numbers, or the packed rows of an FP8 cache.
#pragma once

#include "fp8.cuh"
#include "types.cuh"

// A byte of a packed row: `quantized` e4m3 codes, the f32 scales of their groups of 128, then values in bf16. Nothing lies
// between the parts, so that numbers may lie at any byte.
struct packed {
    uint8_t bits;
};

constexpr int GROUP = 128;

// A little-endian number of 2 or 4 bytes at any address.
template <class T> __device__ __forceinline__ T number_at(const packed* bytes) {
    if (reinterpret_cast<uintptr_t>(bytes) % sizeof(T) == 0) return *reinterpret_cast<const T*>(bytes);
    T number;
    memcpy(&number, bytes, sizeof(T));
    return number;
}

// Element `at` of a row.
template <class T> __device__ __forceinline__ float element(const T* row, int at, int quantized) {
    return to_float(row[at]);
}
template <> __device__ __forceinline__ float element<packed>(const packed* row, int at, int quantized) {
    if (at < quantized) {
        return to_float(f8e4m3{row[at].bits}) * number_at<float>(row + quantized + 4 * (at / GROUP));
    }
    int scales = (quantized + GROUP - 1) / GROUP;
    return to_float(number_at<bf16>(row + quantized + 4 * scales + 2 * (at - quantized)));
}
