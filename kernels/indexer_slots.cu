// The slots of the positions that were selected for each row; a row that sees no more than k positions takes them all.
#include "layout.cuh"

extern "C" __global__ void indexer_slots(
    const int* positions, const uint4* spans, const unsigned* pages, int count, int* slots, int k) {
    Seen seen(Layout{spans, pages, count}, blockIdx.x);
    bool takes_all = seen.position < k;
    for (int i = threadIdx.x; i < k; i += blockDim.x) {
        long long at = (long long)blockIdx.x * k + i;
        int position = takes_all ? (i <= seen.position ? i : -1) : positions[at];
        slots[at] = position < 0 ? -1 : (int)seen.slot(position);
    }
}
