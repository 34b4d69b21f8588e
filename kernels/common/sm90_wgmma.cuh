// Instructions of Hopper (sm_90a) that CUDA C++ has no name for: barriers in shared memory, copies into it, messages to the
// other block of a cluster, and products of a warpgroup.
#pragma once

#include <cstdint>

namespace sm90 {

constexpr int WARPGROUP = 128;

__device__ __forceinline__ uint32_t shared_address(const void* pointer) { return __cvta_generic_to_shared(pointer); }

// The address of the same place in the shared memory of another block of the cluster.
__device__ __forceinline__ uint32_t address_in_block(uint32_t address, uint32_t block) {
    uint32_t there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(block));
    return there;
}

__device__ __forceinline__ uint32_t cluster_block() {
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// Waits for all threads of the cluster; writes to shared memory before it are seen after it.
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

__device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Makes initialized barriers known to the cluster and to the copy engine; a `cluster_sync` must follow.
__device__ __forceinline__ void barrier_init_done() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

__device__ __forceinline__ void arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives at a barrier of another block.
__device__ __forceinline__ void arrive_there(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives, and makes the phase wait for this many bytes more.
__device__ __forceinline__ void arrive_expecting(uint32_t barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// Arrives when the `cp.async` copies of this thread so far are done.
__device__ __forceinline__ void arrive_after_copies(uint32_t barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// Waits until the phase of this parity is over.
__device__ __forceinline__ void wait(uint32_t barrier, uint32_t parity) {
    uint32_t over;
    do {
        asm volatile(
            "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
            "selp.u32 %0, 1, 0, p;\n}"
            : "=r"(over) : "r"(barrier), "r"(parity) : "memory");
    } while (!over);
}

// Copies 16 bytes from global memory; with `bytes` 0 writes zeros and reads nothing.
__device__ __forceinline__ void copy16(uint32_t to, const void* from, uint32_t bytes) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

// Brings global memory into L2; `bytes` is a multiple of 16.
__device__ __forceinline__ void prefetch_l2(const void* from, uint32_t bytes) {
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}

// Stores 16 bytes in another block's shared memory, then counts them at a barrier there.
__device__ __forceinline__ void send16(uint32_t to, const float* x, uint32_t barrier) {
    asm volatile(
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
        "f"(x[0]), "f"(x[1]), "f"(x[2]), "f"(x[3]), "r"(barrier)
        : "memory");
}

__device__ __forceinline__ float4 load16(uint32_t from) {
    float4 x;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w) : "r"(from) : "memory");
    return x;
}

__device__ __forceinline__ float2 load8(uint32_t from) {
    float2 x;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(from) : "memory");
    return x;
}

__device__ __forceinline__ void store16(uint32_t to, uint4 x) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w) : "memory");
}

__device__ __forceinline__ void store4(uint32_t to, uint32_t x) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(x) : "memory");
}

// Adds four numbers to those at an address of 16 bytes in global memory.
__device__ __forceinline__ void add16(float* to, float4 x) {
    asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w)
                 : "memory");
}

// Makes shared memory that was written by ordinary stores and `cp.async` known to warpgroup products.
__device__ __forceinline__ void fence_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Barriers of threads of a block by number: one side waits until `threads` have come, the other goes on.
__device__ __forceinline__ void meet(int barrier, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ __forceinline__ void announce(int barrier, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

template <int N> __device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> __device__ __forceinline__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

// A warpgroup's products are enqueued between `products_begin` and `products_commit`, and run while the warpgroup goes on.
__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most N of the groups that were committed are not done.
template <int N> __device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

// Keeps the compiler from moving what it does with registers past this point.
template <int N> __device__ __forceinline__ void pin(float (&x)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(x[i])::"memory");
}

// Rows of 128 (64) bytes whose chunks of 16 bytes are exchanged by the rows' bits: chunk c of row r lies at c ^ (r % 8)
// (c ^ (r / 2 % 4)).
enum Swizzle : uint32_t { ROWS_128 = 1, ROWS_64 = 2 };

// Matrices in shared memory as a product takes them.
struct Matrix {
    uint32_t address;

    // Without the number of the block in the cluster, which an address has in its top byte. The shuffle tells the compiler
    // that a warp's lanes have the same address, which it then keeps in uniform registers.
    __device__ __forceinline__ Matrix(uint32_t address)
        : address(__shfl_sync(0xffffffffu, (address & 0x3ffff) >> 4, 0)) {}

    // `GROUP` bytes lie between 8 rows and the next 8, `PANEL` bytes between panels of columns where the rows are the summed
    // dimension.
    template <Swizzle SWIZZLE, uint32_t GROUP, uint32_t PANEL = 16>
    __device__ __forceinline__ uint64_t at(uint32_t offset) const {
        constexpr uint32_t HIGH = GROUP >> 4 | (uint32_t)SWIZZLE << 30;
        return (uint64_t)HIGH << 32 | (address + (offset >> 4) + (PANEL >> 4 << 16));
    }
};

#define F4(x, i) "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3])
#define F8(x, i) F4(x, i), F4(x, i + 4)

// In the accumulators of a product [64, N], element (i, j) is x[j / 8 * 4 + i / 8 % 2 * 2 + j % 2] of lane
// i % 8 * 4 + j / 2 % 4 of warp i / 16.

// x [64, 64] = a [64, 16] b [16, 64], both in shared memory; added to x if `add`. A_ROWS (B_ROWS): a (b) lies by rows of the
// summed dimension, else that dimension is in a row.
template <int A_ROWS, int B_ROWS>
__device__ __forceinline__ void product_64x64(float (&x)[32], uint64_t a, uint64_t b, bool add) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
        "}, %32, %33, p, 1, 1, %35, %36;\n}"
        : F8(x, 0), F8(x, 8), F8(x, 16), F8(x, 24)
        : "l"(a), "l"(b), "r"((int)add), "n"(A_ROWS), "n"(B_ROWS));
}

// x [64, N] = a [64, 16] b [N, 16]^T, both in shared memory with the summed dimension in a row; added to x if `add`. N = 128,
// 64 or 32.
__device__ __forceinline__ void product_rows(float (&x)[64], uint64_t a, uint64_t b, bool add) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
        "}, %64, %65, p, 1, 1, 0, 0;\n}"
        : F8(x, 0), F8(x, 8), F8(x, 16), F8(x, 24),
          F8(x, 32), F8(x, 40), F8(x, 48), F8(x, 56)
        : "l"(a), "l"(b), "r"((int)add));
}

__device__ __forceinline__ void product_rows(float (&x)[32], uint64_t a, uint64_t b, bool add) {
    product_64x64<0, 0>(x, a, b, add);
}

__device__ __forceinline__ void product_rows(float (&x)[16], uint64_t a, uint64_t b, bool add) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %18, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
        "}, %16, %17, p, 1, 1, 0, 0;\n}"
        : F8(x, 0), F8(x, 8)
        : "l"(a), "l"(b), "r"((int)add));
}

// x [64, 256] += a [64, 16] b [16, 256]: a in registers in the order of accumulators, b in shared memory by rows of the
// summed dimension.
__device__ __forceinline__ void product_64x256(float (&x)[128], const uint32_t (&a)[4], uint64_t b) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.eq.u32 p, 0, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
        "}, {%128, %129, %130, %131}, %132, p, 1, 1, 1;\n}"
        : F8(x, 0), F8(x, 8), F8(x, 16), F8(x, 24),
          F8(x, 32), F8(x, 40), F8(x, 48), F8(x, 56),
          F8(x, 64), F8(x, 72), F8(x, 80), F8(x, 88),
          F8(x, 96), F8(x, 104), F8(x, 112), F8(x, 120)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// The same with a in shared memory, the summed dimension in a row.
__device__ __forceinline__ void product_64x256(float (&x)[128], uint64_t a, uint64_t b) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.eq.u32 p, 0, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
        "}, %128, %129, p, 1, 1, 0, 1;\n}"
        : F8(x, 0), F8(x, 8), F8(x, 16), F8(x, 24),
          F8(x, 32), F8(x, 40), F8(x, 48), F8(x, 56),
          F8(x, 64), F8(x, 72), F8(x, 80), F8(x, 88),
          F8(x, 96), F8(x, 104), F8(x, 112), F8(x, 120)
        : "l"(a), "l"(b));
}

#undef F8
#undef F4

} // namespace sm90
