// Instructions of Hopper (sm_90a) for products of whole tiles: copies of boxes of a matrix, copies to both blocks of a
// cluster, products whose operands both lie in shared memory.
#pragma once

#include "sm90_e4m3.cuh"

namespace sm90 {

// A matrix in global memory as the copy engine addresses it, made by `cuTensorMapEncodeTiled`.
struct alignas(64) TensorMap {
    uint64_t opaque[16];
};

// Both blocks of a cluster of two.
constexpr uint16_t BOTH = 3;

__device__ __forceinline__ uint32_t cluster_block() {
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// Waits for all threads of the cluster; writes to shared memory before it are seen after it.
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Arrives at the barrier that lies at this address in a block of the cluster.
__device__ __forceinline__ void arrive_in_block(uint32_t barrier, uint32_t block) {
    asm volatile(
        "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(barrier), "r"(block)
        : "memory");
}

__device__ __forceinline__ void prefetch_map(const TensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// Copies a box of a matrix whose first element is (row, column) to `to`, and counts its bytes at a barrier.
__device__ __forceinline__ void copy_box(uint32_t to, const TensorMap* map, int row, int column, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
        "l"(map), "r"(column), "r"(row), "r"(barrier)
        : "memory");
}

// The same, to the same place in both blocks of the cluster, counted at each one's barrier.
__device__ __forceinline__ void copy_box_to_both(uint32_t to, const TensorMap* map, int row, int column, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
        "l"(map), "r"(column), "r"(row), "r"(barrier), "h"(BOTH)
        : "memory");
}

__device__ __forceinline__ void copy_bulk_to_both(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(to),
        "l"(from), "r"(bytes), "r"(barrier), "h"(BOTH)
        : "memory");
}

// Copies from shared to global memory; `store_wait` waits until what this thread began has been read.
__device__ __forceinline__ void store_bulk(void* to, uint32_t from, uint32_t bytes) {
    asm volatile(
        "cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;\ncp.async.bulk.commit_group;" ::"l"(to), "r"(from),
        "r"(bytes)
        : "memory");
}
__device__ __forceinline__ void store_wait() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }

// Waits until `threads` threads of the block have come.
__device__ __forceinline__ void meet(int barrier, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Rows of 128 bytes in shared memory as `Matrix` has them, as an operand of a product. The number of the block in the
// cluster, which an address has in its top byte, is left out; the shuffle tells the compiler that a warp's lanes have the
// same address, which it then keeps in uniform registers.
struct Operand {
    uint32_t address;

    __device__ __forceinline__ Operand(uint32_t address)
        : address(__shfl_sync(0xffffffffu, (address & 0x3ffff) >> 4, 0)) {}

    // The rows from a number of bytes on.
    __device__ __forceinline__ uint64_t at(uint32_t offset) const {
        constexpr uint32_t HIGH = 1024 >> 4 | 1u << 30;
        return (uint64_t)HIGH << 32 | (address + (offset >> 4) + (1 << 16));
    }
};

#define F4(x, i) "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3])
#define F8(x, i) F4(x, i), F4(x, i + 4)

// In the accumulators of a product [64, N], element (i, j) is x[j / 8 * 4 + i / 8 % 2 * 2 + j % 2] of lane
// i % 8 * 4 + j / 2 % 4 of warp i / 16. Both operands lie in shared memory with the summed dimension in a row.

// x [64, 128] = a [64, 32] b [128, 32]^T in e4m3, added to x if `add`.
__device__ __forceinline__ void product_e4m3(float (&x)[64], uint64_t a, uint64_t b, bool add) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
        "}, %64, %65, p, 1, 1;\n}"
        : F8(x, 0), F8(x, 8), F8(x, 16), F8(x, 24), F8(x, 32), F8(x, 40), F8(x, 48), F8(x, 56)
        : "l"(a), "l"(b), "r"((int)add));
}

// x [64, 128] = a [64, 16] b [128, 16]^T in bf16, added to x if `add`.
__device__ __forceinline__ void product_bf16(float (&x)[64], uint64_t a, uint64_t b, bool add) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
        "}, %64, %65, p, 1, 1, 0, 0;\n}"
        : F8(x, 0), F8(x, 8), F8(x, 16), F8(x, 24), F8(x, 32), F8(x, 40), F8(x, 48), F8(x, 56)
        : "l"(a), "l"(b), "r"((int)add));
}

// The same with 256 rows of b.
__device__ __forceinline__ void product_bf16(float (&x)[128], uint64_t a, uint64_t b, bool add) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
        "}, %128, %129, p, 1, 1, 0, 0;\n}"
        : F8(x, 0), F8(x, 8), F8(x, 16), F8(x, 24), F8(x, 32), F8(x, 40), F8(x, 48), F8(x, 56),
          F8(x, 64), F8(x, 72), F8(x, 80), F8(x, 88), F8(x, 96), F8(x, 104), F8(x, 112), F8(x, 120)
        : "l"(a), "l"(b), "r"((int)add));
}

#undef F8
#undef F4

} // namespace sm90
