// A flattened batch on the device; must match `DeviceLayout` in src/ops/cuda/layout.rs.
#pragma once

constexpr int PAGE_SIZE = 64;

// The spans (first row, start position, first entry of the block table, first row of the contexts laid end to end).
struct Layout {
    const uint4* spans;
    const unsigned* pages;
    int count;

    // The span that a row belongs to: the last that begins at or before it and has rows.
    __device__ __forceinline__ uint4 span(unsigned row) const {
        int low = 0, high = count;
        while (high - low > 1) {
            int middle = (low + high) / 2;
            if (spans[middle].x <= row) low = middle; else high = middle;
        }
        return spans[low];
    }
};

// What a row sees: the positions 0..=position of its sequence.
struct Seen {
    unsigned position;
    const unsigned* pages;
    unsigned base;

    __device__ __forceinline__ Seen(const Layout& layout, unsigned row) {
        uint4 span = layout.span(row);
        position = span.y + (row - span.x);
        pages = layout.pages + span.z;
        base = span.w;
    }

    __device__ __forceinline__ unsigned slot(unsigned at) const { return pages[at / PAGE_SIZE] * PAGE_SIZE + at % PAGE_SIZE; }
};
