// Rows of a tensor [a, b, c, width] of any strides; must match `Rows` in src/ops/cuda/rows.rs.
#pragma once

#include <cstdint>

struct Rows {
    // Sizes of the dimensions before the last, from the outermost on; 1 where there are fewer.
    unsigned dims[3];
    // From one element of a row to the next.
    int step;
    long long strides[3];

    // Where a row begins, in elements.
    __device__ __forceinline__ long long offset(unsigned row) const {
        unsigned c = row % dims[2], rest = row / dims[2];
        return (rest / dims[1]) * strides[0] + (rest % dims[1]) * strides[1] + c * strides[2];
    }
};
