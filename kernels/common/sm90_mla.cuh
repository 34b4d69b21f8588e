// Attention in MQA mode over listed rows for latents of 512 + 64 values and up to 128 heads, by a cluster of two blocks.
//
// Each block of the cluster holds half of the columns: 256 of the latent and 32 behind it. It gathers its half of every
// listed row alone, so that a row comes from L2 once for all heads. A warpgroup takes 64 heads; the warpgroups of the same
// heads in both blocks each multiply their halves, exchange the partial scores, compute the same softmax and sum up their
// halves of the values. One more warpgroup gathers.
#pragma once

#include "sm90_mla_tiles.cuh"

namespace sm90_mla {

// Partial scores of a warpgroup.
constexpr int SCORES = TILE * TILE / WARPGROUP;
constexpr int SCORE_BYTES = TILE * TILE * 4;

// Largest growth of a row's peak, in powers of two, that is left to the sum instead of being scaled away.
constexpr float SLACK = 8.f;

template <int GROUPS> struct Shared {
    static constexpr int STAGES = GROUPS == 2 ? 3 : 4;
    uint8_t q[GROUPS][TILE_BYTES];
    uint8_t tiles[STAGES][TILE_BYTES];
    float4 scores[GROUPS][SCORES / 4][WARPGROUP]; // from the other block
    TileNote notes[STAGES];
    uint64_t tile_full[STAGES], tile_free[STAGES];
    uint64_t q_full, q_free;
    uint64_t scores_full[GROUPS], scores_free[GROUPS];
};

// Must match `SHARED` in src/ops/sparse_mla/sm90.rs.
static_assert(sizeof(Shared<1>) == 200864 && sizeof(Shared<2>) == 217232, "shared memory of a block");

// A piece of work of a cluster: one token, up to 64 * GROUPS heads, some of the list's tiles.
template <int GROUPS> struct Work {
    int token, first_head, split, first_tile, last_tile;

    template <class Keys> __device__ __forceinline__ Work(const Arguments<Keys>& a, int item) {
        int head_groups = (a.heads + TILE * GROUPS - 1) / (TILE * GROUPS);
        split = item % a.splits;
        item /= a.splits;
        first_head = item % head_groups * (TILE * GROUPS);
        token = item / head_groups;
        int tiles = (a.k + TILE - 1) / TILE, share = (tiles + a.splits - 1) / a.splits;
        first_tile = split * share;
        last_tile = max(min(first_tile + share, tiles) - 1, first_tile);
    }
};

// The warpgroup that gathers queries and keys.
template <int GROUPS, class Keys>
__device__ __forceinline__ void gatherer(const Arguments<Keys>& a, Shared<GROUPS>& shared, int block) {
    using Tile = typename TileOf<Keys>::Tile;
    int thread = threadIdx.x % WARPGROUP;
    Ring<Shared<GROUPS>::STAGES> ring;
    uint32_t q_parity = 0;
    for (int item = blockIdx.x / BLOCKS; item < a.items; item += gridDim.x / BLOCKS) {
        Work<GROUPS> work(a, item);
        List<Arguments<Keys>> list(a, work.token, work.first_tile, work.last_tile);
        // Tiles without rows are left out, but one stays.
        Listed listed = list.next();
        while (listed.empty() && list.more()) listed = list.next();
        Tile tile;
        tile.begin(a, listed, block, thread);

        wait(shared_address(&shared.q_free), q_parity ^ 1);
        q_parity ^= 1;
        const bf16* q = a.q + work.token * a.q_row;
#pragma unroll
        for (int group = 0; group < GROUPS; group++) {
            gather(shared_address(shared.q[group]), block, thread, [&](int first, int i) {
                int head = work.first_head + group * TILE + first + i;
                return head < a.heads ? reinterpret_cast<const uint8_t*>(q + head * a.q_head) : nullptr;
            });
        }
        arrive_after_copies(shared_address(&shared.q_full));

        for (bool more = true; more; ring.next()) {
            Listed next = list.next();
            while (next.empty() && list.more()) next = list.next();
            more = !next.empty();
            wait(shared_address(&shared.tile_free[ring.stage]), ring.parity ^ 1);
            tile.fill(a, listed, next, block, thread, shared_address(shared.tiles[ring.stage]));
            uint32_t full = shared_address(&shared.tile_full[ring.stage]);
            arrive_after_copies(full);
            if (thread == 0) {
                TileNote& note = shared.notes[ring.stage];
                note.named[0] = listed.named[0];
                note.named[1] = listed.named[1];
                note.flags = (more ? 0 : LAST) | (listed.bad ? BAD : 0);
            }
            // What was stored is seen by those who wait.
            arrive(full);
            listed = next;
        }
    }
}

// Registers of a multiplying and of a gathering thread where two warpgroups multiply, and whether those are enough to
// multiply a tile's scores ahead.
template <class Keys> struct Registers;
template <> struct Registers<bf16> {
    static constexpr int MULTIPLIER = 232, GATHERER = 40;
    static constexpr bool AHEAD = true;
};
template <> struct Registers<packed> {
    static constexpr int MULTIPLIER = 208, GATHERER = 88;
    static constexpr bool AHEAD = false;
};

// A warpgroup that takes 64 heads. A thread has two rows of every 16: lane / 4 and lane / 4 + 8.
template <int GROUPS, class Keys>
__device__ __forceinline__ void multiplier(const Arguments<Keys>& a, Shared<GROUPS>& shared, int block, int group) {
    constexpr bool AHEAD = Registers<Keys>::AHEAD || GROUPS == 1, TURNS = GROUPS == 2;
    int thread = threadIdx.x % WARPGROUP, lane = thread % WARP, quad = lane % 4;
    uint32_t q = shared_address(shared.q[group]);
    uint32_t received = shared_address(&shared.scores[group][0][thread]);
    uint32_t scores_full = shared_address(&shared.scores_full[group]);
    uint32_t scores_free = shared_address(&shared.scores_free[group]);
    // What has address x here has x + there in the other block.
    uint32_t there = address_in_block(received, block ^ 1) - received;
    float scale = a.scale * LOG2_E;

    Ring<Shared<GROUPS>::STAGES> ring;
    uint32_t q_parity = 0, sent_parity = 0, received_parity = 0;
    float scores[SCORES], next[SCORES], sum[HALF * TILE / WARPGROUP];
    uint32_t named[2], flags;

    // Enqueues x = q k^T of a tile, once it has come.
    auto multiply_keys = [&](float(&x)[SCORES], const Ring<Shared<GROUPS>::STAGES>& at) {
        wait(shared_address(&shared.tile_full[at.stage]), at.parity);
        fence_products();
        Matrix a = q, b = shared_address(shared.tiles[at.stage]);
        products_begin();
#pragma unroll
        for (int p = 0; p < PANELS; p++) {
#pragma unroll
            for (int c = 0; c < PANEL_COLUMNS / 16; c++) {
                uint32_t at = p * PANEL_BYTES + c * 32;
                product_64x64<0, 0>(x, a.at<ROWS_128, 1024>(at), b.at<ROWS_128, 1024>(at), p + c > 0);
            }
        }
#pragma unroll
        for (int c = 0; c < HALF_ROPE / 16; c++) {
            uint32_t at = PANELS * PANEL_BYTES + c * 32;
            product_64x64<0, 0>(x, a.at<ROWS_64, 512>(at), b.at<ROWS_64, 512>(at), true);
        }
        products_commit();
    };
    // Two warpgroups take turns at products, so that one multiplies while the other has its softmax or sends.
    auto turn_begin = [&]() {
        if (TURNS) meet(1 + group, 2 * WARPGROUP);
    };
    auto turn_end = [&]() {
        if (TURNS) announce(2 - group, 2 * WARPGROUP);
    };
    if (TURNS && group == 1) turn_end();
    auto send = [&](const float(&x)[SCORES]) {
        wait(scores_free, sent_parity ^ 1);
        sent_parity ^= 1;
#pragma unroll
        for (int i = 0; i < SCORES; i += 4) send16(received + there + i * (WARPGROUP * 4), x + i, scores_full + there);
    };
    auto read_note = [&](int stage) {
        const volatile TileNote& note = shared.notes[stage];
        named[0] = note.named[0], named[1] = note.named[1], flags = note.flags;
    };

    for (int item = blockIdx.x / BLOCKS; item < a.items; item += gridDim.x / BLOCKS) {
        float peak[2] = {-INFINITY, -INFINITY}, total[2] = {0.f, 0.f};
        bool bad = false;
#pragma unroll
        for (int i = 0; i < HALF * TILE / WARPGROUP; i++) sum[i] = 0.f;
#pragma unroll
        for (int i = 0; i < SCORES; i++) scores[i] = 0.f;

        wait(shared_address(&shared.q_full), q_parity);
        q_parity ^= 1;
        turn_begin();
        multiply_keys(scores, ring);
        turn_end();
        read_note(ring.stage);
        products_wait<0>();
        pin(scores);
        send(scores);

        // The softmax of `scores` into p, while the values of the tile before, at stage `before`, are multiplied.
        uint32_t p[TILE / 16][4];
        auto soften = [&](int before) {
            wait(scores_full, received_parity);
            received_parity ^= 1;
#pragma unroll
            for (int i = 0; i < SCORES; i += 4) {
                float4 part = load16(received + i * (WARPGROUP * 4));
                scores[i] += part.x, scores[i + 1] += part.y, scores[i + 2] += part.z, scores[i + 3] += part.w;
            }
            // Waits for what was loaded: an arrival can overtake loads of shared memory that are still in flight.
            fence_products();
            __syncwarp();
            if (lane == 0) arrive_there(scores_free + there);
            if (thread == 0) arrive_expecting(scores_full, SCORE_BYTES);

            bad |= (flags & BAD) != 0;
            if ((named[0] & named[1]) != ALL_LANES) {
#pragma unroll
                for (int i = 0; i < TILE / 8; i++) {
                    uint32_t bits = named[i / 4] >> (i % 4 * 8 + quad * 2);
                    if (!(bits & 1)) scores[i * 4] = scores[i * 4 + 2] = -INFINITY;
                    if (!(bits & 2)) scores[i * 4 + 1] = scores[i * 4 + 3] = -INFINITY;
                }
            }
            float shift[2], shrink[2];
            bool grown = false;
#pragma unroll
            for (int r = 0; r < 2; r++) {
                float largest = scores[r * 2];
#pragma unroll
                for (int i = 0; i < TILE / 8; i++) {
                    largest = fmaxf(largest, fmaxf(scores[i * 4 + r * 2], scores[i * 4 + r * 2 + 1]));
                }
                largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 1));
                largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 2));
                largest *= scale;
                shrink[r] = 1.f;
                if (largest > peak[r] + SLACK) {
                    shrink[r] = exp2_fast(peak[r] - largest);
                    peak[r] = largest;
                    grown = true;
                }
                shift[r] = peak[r] == -INFINITY ? 0.f : peak[r];
            }
            if (!AHEAD) {
                // The values of the tile before are in the sum.
                products_wait<0>();
                pin(sum);
                if (before >= 0 && lane == 0) arrive(shared_address(&shared.tile_free[before]));
            }
            if (__any_sync(ALL_LANES, grown)) {
#pragma unroll
                for (int i = 0; i < HALF * TILE / WARPGROUP; i++) sum[i] *= shrink[i / 2 % 2];
            }
            float tile_total[2] = {0.f, 0.f};
#pragma unroll
            for (int i = 0; i < SCORES / 2; i++) {
                int r = i % 2;
                float low = exp2_fast(fmaf(scores[i * 2], scale, -shift[r]));
                float high = exp2_fast(fmaf(scores[i * 2 + 1], scale, -shift[r]));
                tile_total[r] += low + high;
                p[i / 4][i % 4] = two_bf16(low, high);
            }
#pragma unroll
            for (int r = 0; r < 2; r++) total[r] = total[r] * shrink[r] + tile_total[r];
        };
        // Enqueues sum += p v.
        auto multiply_values = [&](int stage) {
            Matrix v = shared_address(shared.tiles[stage]);
            products_begin();
#pragma unroll
            for (int i = 0; i < TILE / 16; i++) {
                product_64x256(sum, p[i], v.at<ROWS_128, 1024, PANEL_BYTES>(i * 2048));
            }
            products_commit();
        };

        int before = -1;
        while (!(flags & LAST)) {
            if (AHEAD) {
                // The next tile's scores are multiplied during this tile's softmax, and sent during its second product.
                before = ring.stage;
                ring.next();
                turn_begin();
                multiply_keys(next, ring);
                turn_end();
                soften(before);
                pin(sum);
                multiply_values(before);
                read_note(ring.stage);
                products_wait<1>();
                pin(next);
                send(next);
                products_wait<0>();
                pin(sum);
                if (lane == 0) arrive(shared_address(&shared.tile_free[before]));
#pragma unroll
                for (int i = 0; i < SCORES; i++) scores[i] = next[i];
            } else {
                soften(before);
                before = ring.stage;
                ring.next();
                pin(sum);
                turn_begin();
                multiply_keys(scores, ring);
                multiply_values(before);
                turn_end();
                read_note(ring.stage);
                products_wait<1>();
                pin(scores);
                send(scores);
            }
        }
        if (lane == 0) arrive(shared_address(&shared.q_free));
        soften(before);
        pin(sum);
        turn_begin();
        multiply_values(ring.stage);
        turn_end();
        products_wait<0>();
        pin(sum);
        if (lane == 0) arrive(shared_address(&shared.tile_free[ring.stage]));
        ring.next();

        Work<GROUPS> work(a, item);
        // Two rows of 256 columns a thread; lanes of a quad share them.
        int again = threadIdx.x; // Not to be kept in registers all the while.
        asm volatile("" : "+r"(again));
        int warp_head = work.first_head + again / WARP * 16 + again % WARP / 4, quad = again % 4;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int head = warp_head + r * 8;
            float all = total[r];
            all += __shfl_xor_sync(ALL_LANES, all, 1);
            all += __shfl_xor_sync(ALL_LANES, all, 2);
            float divisor = bad ? NAN : all == 0.f ? 1.f : all;
            float factor = 1.f / divisor;
            float lse = bad ? NAN : peak[r] / LOG2_E + logf(all);
            long long row = (long long)work.token * a.heads + head;
            if (a.splits > 1) {
                row = row * a.splits + work.split;
                if (head < a.heads) {
                    float* to = a.part_out + row * LATENT + block * HALF + quad * 2;
#pragma unroll
                    for (int i = 0; i < HALF / 8; i++) {
                        float2 two = make_float2(sum[i * 4 + r * 2] * factor, sum[i * 4 + r * 2 + 1] * factor);
                        *reinterpret_cast<float2*>(to + i * 8) = two;
                    }
                    if (block == 0 && quad == 0) a.part_lse[row] = lse;
                }
            } else {
                // Even lanes take columns of even eights, odd lanes of odd eights: 8 bytes a store.
                bf16* to = a.out + row * LATENT + block * HALF + (quad % 2) * 8 + (quad / 2) * 4;
#pragma unroll
                for (int i = 0; i < HALF / 8; i += 2) {
                    uint32_t even = two_bf16(sum[i * 4 + r * 2] * factor, sum[i * 4 + r * 2 + 1] * factor);
                    uint32_t odd = two_bf16(sum[i * 4 + 4 + r * 2] * factor, sum[i * 4 + 5 + r * 2] * factor);
                    uint32_t other = __shfl_xor_sync(ALL_LANES, quad % 2 ? even : odd, 1);
                    uint2 two = quad % 2 ? make_uint2(other, odd) : make_uint2(even, other);
                    if (head < a.heads) *reinterpret_cast<uint2*>(to + i * 8) = two;
                }
                if (head < a.heads && block == 0 && quad == 0) a.lse[row] = lse;
            }
        }
    }
}

// The kernel of a cluster of two blocks of (GROUPS + 1) * 128 threads, for any number of clusters.
template <int GROUPS, class Keys> __device__ __forceinline__ void attention(const Arguments<Keys>& a) {
    extern __shared__ __align__(1024) uint8_t memory[];
    Shared<GROUPS>& shared = *reinterpret_cast<Shared<GROUPS>*>(memory);
    int block = cluster_block(), group = threadIdx.x / WARPGROUP;
    if (threadIdx.x == 0) {
        for (int i = 0; i < Shared<GROUPS>::STAGES; i++) {
            barrier_init(shared_address(&shared.tile_full[i]), 2 * WARPGROUP);
            barrier_init(shared_address(&shared.tile_free[i]), GROUPS * WARPGROUP / WARP);
        }
        barrier_init(shared_address(&shared.q_full), WARPGROUP);
        barrier_init(shared_address(&shared.q_free), GROUPS * WARPGROUP / WARP);
        for (int i = 0; i < GROUPS; i++) {
            barrier_init(shared_address(&shared.scores_full[i]), 1);
            barrier_init(shared_address(&shared.scores_free[i]), WARPGROUP / WARP);
            arrive_expecting(shared_address(&shared.scores_full[i]), SCORE_BYTES);
        }
        barrier_init_done();
    }
    cluster_sync();
    if (group == GROUPS) {
        if (GROUPS == 2) give_registers<Registers<Keys>::GATHERER>();
        gatherer<GROUPS, Keys>(a, shared, block);
    } else {
        if (GROUPS == 2) take_registers<Registers<Keys>::MULTIPLIER>();
        multiplier<GROUPS, Keys>(a, shared, block, group);
    }
    // The other block may still write here.
    cluster_sync();
}

} // namespace sm90_mla

// Defines a kernel for 64 * GROUPS heads a cluster.
#define SM90_MLA(name, GROUPS, Keys)                                                                                  \
    extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__((GROUPS + 1) * 128, 1) name(               \
        const bf16* q, long long q_row, long long q_head, const Keys* kv, long long kv_stride, const void* indices,   \
        bf16* out, float* lse, float* part_out, float* part_lse, int items, int heads, int slots, int k, int is_i64, \
        int splits, float scale) {                                                                      \
        sm90_mla::attention<GROUPS, Keys>(                                                                            \
            {q, q_row, q_head, kv, kv_stride, indices, out, lse, part_out, part_lse, items, heads, slots, k, is_i64, \
             splits, scale});                                                                               \
    }
