// The gradient of attention in MQA mode over listed rows of 576 numbers in bf16, for Hopper.
//
// A block takes 64 heads of a row of queries, whose queries and output gradients stay in shared memory, and goes through
// the row's list in tiles of 64 keys. One warpgroup gathers. The first of two others multiplies scores and their gradients,
// makes p and the gradients of the scores of them, and hands both on in bf16; each of the two sums up a part of the
// columns of the gradient of the queries, and multiplies a part of those of the tile's keys while the next tile is gathered.
//
// What bounds is that the keys' gradients are added up in L2. Where there are more than 64 heads, the two blocks of a cluster
// take 64 each of the same row and go through the list in step. Each sends the other half of the panels of its keys'
// gradients, in f32, from each thread to the thread with the same number, and adds up the other half of both. Panels of the
// tile that is done take the messages; these panels of the next tile are gathered last.
#include "sm90_mla_list.cuh"

using namespace sm90_mla;

// 64 rows of 64 columns in bf16, rows of 128 bytes.
constexpr int PANEL_BYTES = TILE * TILE * 2;
constexpr int PANELS = DIM / TILE, VALUE_PANELS = LATENT / TILE;
// Panels of the gradient of the queries that each warpgroup sums up; the second one also has the last.
constexpr int SHARE = 4;
// Panels of the keys' gradients of the first one; the second one has the others.
constexpr int SCORER_PANELS = 6;
// Accumulators of a thread for a panel.
constexpr int PANEL = TILE * TILE / WARPGROUP;

struct Shared {
    uint8_t q[PANELS][PANEL_BYTES];
    uint8_t d_out[VALUE_PANELS][PANEL_BYTES];
    uint8_t keys[PANELS][PANEL_BYTES];
    // [heads, keys]
    uint8_t p[PANEL_BYTES], d_scores[PANEL_BYTES];
    // Of this tile and the next: what its gatherer tells, and its keys' rows, or their places in the list; below 0 = none.
    TileNote notes[2];
    int targets[2][TILE];
    uint64_t item_full, item_free, keys_full, keys_free, scores_full, scores_free;
    // Of a pair of blocks. late_full: the panels that messages lie in are gathered; opened: the other block takes messages
    // for this tile; exchanged: this block has had all of them; received, consumed: a message of each warpgroup.
    uint64_t late_full, opened, exchanged, received[2], consumed[2];
};

// Must match `SHARED` in src/ops/sparse_mla/sm90_backward.rs.
static_assert(sizeof(Shared) == 230024, "shared memory of a block");

// Panels of keys that take the messages of a pair of blocks, two for each warpgroup; those before are gathered first.
constexpr int MESSAGE_PANEL = 5;
template <bool PAIR> constexpr int EARLY_PANELS = PAIR ? MESSAGE_PANEL : PANELS;
constexpr uint32_t MESSAGE_BYTES = 2 * PANEL_BYTES;

struct Arguments {
    const bf16* q;
    long long q_row, q_head;
    const bf16* kv;
    long long kv_stride;
    const void* indices;
    const bf16* d_out;  // [tokens, heads, 512]
    const float* lse;   // [tokens, heads]
    const float* shift; // [tokens, heads]
    bf16* d_q;          // [tokens, heads, 576]
    float* d_keys;      // [rows, 576], or [tokens, k, parts, 576]
    int items, heads, slots, k, is_i64; // items: pieces of work
    float scale;
};

// A row of queries and 64 of its heads; of a pair of blocks, the second has the 64 heads behind those of the first.
template <bool PAIR> struct Work {
    int token, part, parts, first_head;

    __device__ __forceinline__ Work(const Arguments& a, int item) {
        parts = (a.heads + TILE * (1 + PAIR) - 1) / (TILE * (1 + PAIR));
        token = item / parts;
        part = item % parts;
        first_head = (PAIR ? part * 2 + cluster_block() : part) * TILE;
    }

    __device__ __forceinline__ static int first() { return blockIdx.x / (1 + PAIR); }
    __device__ __forceinline__ static int step() { return gridDim.x / (1 + PAIR); }
};

// Copies the panels FIRST..LAST of 64 rows; `row(first, i)` is the address of row first + i, null for zeros.
template <int FIRST, int LAST, class Row> __device__ __forceinline__ void gather(uint32_t to, int thread, Row row) {
    int chunk = thread % 8, first = thread / 8;
    to += first * 128 + ((chunk ^ (first & 7)) << 4);
#pragma unroll
    for (int i = 0; i < TILE; i += WARPGROUP / 8) {
        const uint8_t* from = row(first, i);
        uint32_t bytes = from ? 16 : 0;
#pragma unroll
        for (int p = FIRST; p < LAST; p++) copy16(to + p * PANEL_BYTES + i * 128, from + p * 128 + chunk * 16, bytes);
    }
}

// The warpgroup that gathers. ADDED: gradients of keys go to the keys' rows, else to rows of their own for every entry of
// a list and every part of the heads.
template <bool ADDED, bool PAIR> __device__ __forceinline__ void gatherer(const Arguments& a, Shared& shared) {
    int thread = threadIdx.x % WARPGROUP;
    uint32_t item_parity = 0, tile = 0;
    for (int item = Work<PAIR>::first(); item < a.items; item += Work<PAIR>::step()) {
        Work<PAIR> work(a, item);
        List<Arguments> list(a, work.token, 0, max((a.k + TILE - 1) / TILE - 1, 0));
        // Tiles without rows are left out, but one stays.
        Listed listed = list.next();
        while (listed.empty() && list.more()) listed = list.next();
        int at = list.tile - 1;

        wait(shared_address(&shared.item_free), item_parity ^ 1);
        item_parity ^= 1;
        auto head = [&](int i) { return work.first_head + i; };
        const bf16* q = a.q + work.token * a.q_row;
        gather<0, PANELS>(shared_address(shared.q), thread, [&](int first, int i) {
            int h = head(first + i);
            return h < a.heads ? reinterpret_cast<const uint8_t*>(q + h * a.q_head) : nullptr;
        });
        const bf16* d_out = a.d_out + (long long)work.token * a.heads * LATENT;
        gather<0, VALUE_PANELS>(shared_address(shared.d_out), thread, [&](int first, int i) {
            int h = head(first + i);
            return h < a.heads ? reinterpret_cast<const uint8_t*>(d_out + h * LATENT) : nullptr;
        });
        arrive_after_copies(shared_address(&shared.item_full));

        for (bool more = true; more; tile++) {
            Listed next = list.next();
            while (next.empty() && list.more()) next = list.next();
            int next_at = list.tile - 1;
            more = !next.empty();
            wait(shared_address(&shared.keys_free), (tile & 1) ^ 1);
            auto key = [&](int first, int i) {
                int row = listed.row(first, i);
                return row < 0 ? nullptr : reinterpret_cast<const uint8_t*>(a.kv + row * a.kv_stride);
            };
            gather<0, EARLY_PANELS<PAIR>>(shared_address(shared.keys), thread, key);
            uint32_t full = shared_address(&shared.keys_full);
            arrive_after_copies(full);
            if (thread == 0) {
                TileNote& note = shared.notes[tile & 1];
                note.named[0] = listed.named[0];
                note.named[1] = listed.named[1];
                note.flags = more ? 0 : LAST;
            }
            if (thread < WARP) {
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int place = at * TILE + i * WARP + thread;
                    shared.targets[tile & 1][i * WARP + thread] = ADDED || listed.rows[i] < 0 ? listed.rows[i] : place;
                }
            }
            // What was stored is seen by those who wait.
            arrive(full);
            if (PAIR) {
                wait(shared_address(&shared.exchanged), (tile & 1) ^ 1);
                gather<EARLY_PANELS<PAIR>, PANELS>(shared_address(shared.keys), thread, key);
                arrive_after_copies(shared_address(&shared.late_full));
            }
            listed = next;
            at = next_at;
        }
    }
}

// Writes the rows of a thread's accumulators, `COLUMNS` columns in bf16, to d_q from column `first` on.
template <bool PAIR, int N> __device__ __forceinline__ void store_queries(
    const Arguments& a, const Work<PAIR>& work, float (&sum)[N], int first) {
    int thread = threadIdx.x % WARPGROUP, quad = thread % 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int head = work.first_head + thread / WARP * 16 + thread % WARP / 4 + r * 8;
        // Even lanes take columns of even eights, odd lanes of odd eights: 8 bytes a store.
        bf16* to = a.d_q + ((long long)work.token * a.heads + head) * DIM + first + (quad % 2) * 8 + (quad / 2) * 4;
#pragma unroll
        for (int i = 0; i < N / 4; i += 2) {
            uint32_t even = two_bf16(sum[i * 4 + r * 2], sum[i * 4 + r * 2 + 1]);
            uint32_t odd = two_bf16(sum[i * 4 + 4 + r * 2], sum[i * 4 + 5 + r * 2]);
            uint32_t other = __shfl_xor_sync(ALL_LANES, quad % 2 ? even : odd, 1);
            uint2 two = quad % 2 ? make_uint2(other, odd) : make_uint2(even, other);
            if (head < a.heads) *reinterpret_cast<uint2*>(to + i * 8) = two;
        }
    }
}

// The gradients of a tile's keys: a thread has two keys of every 16, lane / 4 and lane / 4 + 8. A warpgroup has the panels
// FIRST..LAST, and of a pair of blocks it has one message on its way to the other block and one from there.
template <bool ADDED, bool PAIR, int FIRST, int LAST> struct KeyGradients {
    static constexpr int GROUP = FIRST > 0, COUNT = LAST - FIRST;
    Matrix p, d_scores, q, d_out;
    float* to[2];
    bool there[2];
    Shared& shared;
    uint32_t parity, &messages; // messages: bit 0 and bit 1 change with every message sent and received.

    __device__ __forceinline__ KeyGradients(
        const Arguments& a, Shared& shared, int item, uint32_t parity, uint32_t& messages)
        : p(shared_address(shared.p)), d_scores(shared_address(shared.d_scores)), q(shared_address(shared.q)),
          d_out(shared_address(shared.d_out)), shared(shared), parity(parity), messages(messages) {
        int thread = threadIdx.x % WARPGROUP, quad = thread % 4, key = thread / WARP * 16 + thread % WARP / 4;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int target = *const_cast<const volatile int*>(&shared.targets[parity][key + r * 8]);
            there[r] = target >= 0;
            if (!ADDED) {
                Work<PAIR> work(a, item);
                target = (work.token * a.k + target) * work.parts + work.part;
            }
            to[r] = a.d_keys + (long long)max(target, 0) * DIM + (quad % 2) * 8 + (quad / 2) * 4;
        }
    }

    // The panel of a step. Of two panels, a block first has the one that it sends.
    __device__ __forceinline__ static int panel_of(int step) {
        int even = FIRST + step / 2 * 2;
        if (!PAIR || even + 1 == LAST) return FIRST + step;
        return even + (step % 2 ^ owned(even));
    }
    __device__ __forceinline__ static bool owned(int panel) { return !PAIR || panel % 2 == cluster_block(); }

    // Where this thread's numbers of a message lie.
    __device__ __forceinline__ uint32_t message() const {
        return shared_address(shared.keys[MESSAGE_PANEL + GROUP * 2]) + threadIdx.x % WARPGROUP * 16;
    }
    // What has address x here has x + there in the other block.
    __device__ __forceinline__ uint32_t other_block() const {
        uint32_t here = shared_address(&shared.opened);
        return address_in_block(here, cluster_block() ^ 1) - here;
    }

    // Tells the other block that this one takes messages for the tile.
    __device__ __forceinline__ void open() const {
        if (PAIR && threadIdx.x % WARP == 0) arrive_there(shared_address(&shared.opened) + other_block());
    }
    __device__ __forceinline__ void send(const float (&x)[PANEL], bool is_first) const {
        if (is_first) wait(shared_address(&shared.opened), parity);
        else wait(shared_address(&shared.consumed[GROUP]), ~messages & 1);
        messages ^= 1;
        uint32_t there = other_block(), barrier = shared_address(&shared.received[GROUP]) + there, to = message() + there;
#pragma unroll
        for (int i = 0; i < PANEL; i += 4) send16(to + i * (WARPGROUP * 4), x + i, barrier);
    }
    __device__ __forceinline__ void receive(float (&x)[PANEL]) const {
        uint32_t barrier = shared_address(&shared.received[GROUP]), from = message();
        wait(barrier, messages >> 1 & 1);
        messages ^= 2;
#pragma unroll
        for (int i = 0; i < PANEL; i += 4) {
            float4 more = load16(from + i * (WARPGROUP * 4));
            x[i] += more.x, x[i + 1] += more.y, x[i + 2] += more.z, x[i + 3] += more.w;
        }
        // Waits for what was loaded: an arrival can overtake loads of shared memory that are still in flight.
        fence_products();
        __syncwarp();
        if (threadIdx.x % WARP == 0) arrive_there(shared_address(&shared.consumed[GROUP]) + other_block());
        if (threadIdx.x % WARPGROUP == 0) arrive_expecting(barrier, MESSAGE_BYTES);
    }

    // Takes the products of the first step, which are enqueued, and multiplies those of the others.
    __device__ __forceinline__ void finish(float (&x)[PANEL]) const {
#pragma unroll 1
        for (int step = 0;;) {
            int panel = panel_of(step);
            products_wait<0>();
            pin(x);
            if (owned(panel)) {
                if (PAIR) receive(x);
                put(x, panel);
            } else {
                send(x, step == 0);
            }
            if (++step == COUNT) break;
            multiply(x, panel_of(step));
        }
        __syncwarp();
        if (threadIdx.x % WARP == 0) arrive(shared_address(&shared.scores_free));
        if (PAIR) arrive(shared_address(&shared.exchanged));
    }

    // Enqueues the products of 64 columns.
    __device__ __forceinline__ void multiply(float (&x)[PANEL], int panel) const {
        products_begin();
#pragma unroll
        for (int i = 0; i < TILE / 16; i++) {
            product_64x64<1, 1>(
                x, d_scores.at<ROWS_128, 1024>(i * 2048), q.at<ROWS_128, 1024>(panel * PANEL_BYTES + i * 2048), i > 0);
        }
        if (panel < VALUE_PANELS) {
#pragma unroll
            for (int i = 0; i < TILE / 16; i++) {
                product_64x64<1, 1>(
                    x, p.at<ROWS_128, 1024>(i * 2048), d_out.at<ROWS_128, 1024>(panel * PANEL_BYTES + i * 2048), true);
            }
        }
        products_commit();
    }

    // Adds, or writes, 64 columns.
    __device__ __forceinline__ void put(const float (&x)[PANEL], int panel) const {
        int quad = threadIdx.x % 4;
#pragma unroll
        for (int r = 0; r < 2; r++) {
#pragma unroll
            for (int i = 0; i < TILE / 8; i += 2) {
                // Even lanes take columns of even eights, odd lanes of odd eights: 16 bytes each.
                const float* even = x + i * 4 + r * 2;
                const float* odd = even + 4;
                float low = __shfl_xor_sync(ALL_LANES, quad % 2 ? even[0] : odd[0], 1);
                float high = __shfl_xor_sync(ALL_LANES, quad % 2 ? even[1] : odd[1], 1);
                float4 four = quad % 2 ? make_float4(low, high, odd[0], odd[1])
                                       : make_float4(even[0], even[1], low, high);
                float* at = to[r] + panel * TILE + i * 8;
                if (!there[r]) continue;
                if (ADDED) add16(at, four); else *reinterpret_cast<float4*>(at) = four;
            }
        }
    }
};

// The warpgroup of the scores. A thread has two heads of every 16: lane / 4 and lane / 4 + 8.
template <bool ADDED, bool PAIR> __device__ __forceinline__ void scorer(const Arguments& a, Shared& shared) {
    int thread = threadIdx.x % WARPGROUP, lane = thread % WARP, quad = lane % 4;
    float scale = a.scale * LOG2_E;
    uint32_t parities = 0, messages = 0; // Bit 0 of parities: of the tile, bit 1: of the item.
    uint32_t squares[2] = {shared_address(shared.p), shared_address(shared.d_scores)};
    // Where the thread's first two keys of its first head lie in a panel.
    int row = thread / WARP * 16 + lane / 4, swizzle = lane / 4;
    for (int item = Work<PAIR>::first(); item < a.items; item += Work<PAIR>::step()) {
        Work<PAIR> work(a, item);
        float lse[2], shift[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int head = work.first_head + row + r * 8;
            long long at = (long long)work.token * a.heads + head;
            float sum = head < a.heads ? a.lse[at] * LOG2_E : -INFINITY;
            // Where there is nothing to see, p is 0.
            lse[r] = sum == -INFINITY ? INFINITY : sum;
            shift[r] = head < a.heads ? a.shift[at] : 0.f;
        }
        float sum[SHARE * PANEL];
#pragma unroll
        for (int i = 0; i < SHARE * PANEL; i++) sum[i] = 0.f;
        wait(shared_address(&shared.item_full), parities >> 1);
        parities ^= 2;
        uint32_t flags;
        do {
            uint32_t parity = parities & 1;
            wait(shared_address(&shared.keys_full), parity);
            fence_products();
            const volatile TileNote& note = shared.notes[parity];
            uint32_t named[2] = {note.named[0], note.named[1]};
            flags = note.flags;
            float p[PANEL], d_p[PANEL];
            Matrix q = shared_address(shared.q), keys = shared_address(shared.keys), d_out = shared_address(shared.d_out);
            auto multiply_scores = [&](int first, int last) {
#pragma unroll
                for (int i = first * 4; i < last * 4; i++) {
                    uint32_t at = i / 4 * PANEL_BYTES + i % 4 * 32;
                    product_64x64<0, 0>(p, q.at<ROWS_128, 1024>(at), keys.at<ROWS_128, 1024>(at), i > 0);
                }
            };
            auto multiply_values = [&](int first, int last) {
#pragma unroll
                for (int i = first * 4; i < last * 4; i++) {
                    uint32_t at = i / 4 * PANEL_BYTES + i % 4 * 32;
                    product_64x64<0, 0>(d_p, d_out.at<ROWS_128, 1024>(at), keys.at<ROWS_128, 1024>(at), i > 0);
                }
            };
            products_begin();
            if (PAIR) {
                multiply_scores(0, EARLY_PANELS<PAIR>);
                multiply_values(0, EARLY_PANELS<PAIR>);
                products_commit();
                wait(shared_address(&shared.late_full), parity);
                fence_products();
                products_begin();
                multiply_scores(EARLY_PANELS<PAIR>, PANELS);
                products_commit();
                multiply_values(EARLY_PANELS<PAIR>, VALUE_PANELS);
            } else {
                multiply_scores(0, PANELS);
                products_commit();
                multiply_values(0, VALUE_PANELS);
            }
            products_commit();
            products_wait<1>();
            pin(p);
#pragma unroll
            for (int i = 0; i < PANEL; i++) p[i] = exp2_fast(fmaf(p[i], scale, -lse[i / 2 % 2]));
            if ((named[0] & named[1]) != ALL_LANES) {
#pragma unroll
                for (int i = 0; i < TILE / 8; i++) {
                    uint32_t bits = named[i / 4] >> (i % 4 * 8 + quad * 2);
                    if (!(bits & 1)) p[i * 4] = p[i * 4 + 2] = 0.f;
                    if (!(bits & 2)) p[i * 4 + 1] = p[i * 4 + 3] = 0.f;
                }
            }
            products_wait<0>();
            pin(d_p);
            // The keys' gradients of the tile before have been multiplied.
            wait(shared_address(&shared.scores_free), parity ^ 1);
            uint32_t d_scores[TILE / 16][4];
#pragma unroll
            for (int i = 0; i < PANEL / 2; i++) {
                int r = i % 2;
                float low = p[i * 2] * (d_p[i * 2] - shift[r]) * a.scale;
                float high = p[i * 2 + 1] * (d_p[i * 2 + 1] - shift[r]) * a.scale;
                d_scores[i / 4][i % 4] = two_bf16(low, high);
                uint32_t at = (row + r * 8) * 128 + ((i / 2 ^ swizzle) << 4) + quad * 4;
                store4(squares[0] + at, two_bf16(p[i * 2], p[i * 2 + 1]));
                store4(squares[1] + at, d_scores[i / 4][i % 4]);
            }
            fence_products();
            arrive(shared_address(&shared.scores_full));
            pin(sum);
            products_begin();
#pragma unroll
            for (int i = 0; i < TILE / 16; i++) {
                product_64x256(
                    sum, d_scores[i], keys.at<ROWS_128, 1024, PANEL_BYTES>(SHARE * PANEL_BYTES + i * 2048));
            }
            products_commit();
            // While the next tile is gathered: the keys' gradients in the first panels.
            wait(shared_address(&shared.scores_full), parity);
            KeyGradients<ADDED, PAIR, 0, SCORER_PANELS> gradients(a, shared, item, parity, messages);
            gradients.multiply(p, gradients.panel_of(0));
            products_wait<1>();
            pin(sum);
            arrive(shared_address(&shared.keys_free));
            gradients.open();
            gradients.finish(p);
            parities ^= 1;
        } while (!(flags & LAST));
        if (lane == 0) arrive(shared_address(&shared.item_free));
        store_queries(a, work, sum, SHARE * TILE);
    }
}

// The warpgroup of most of the keys' gradients.
template <bool ADDED, bool PAIR> __device__ __forceinline__ void keeper(const Arguments& a, Shared& shared) {
    int lane = threadIdx.x % WARP;
    uint32_t parities = 0, messages = 0; // Bit 0 of parities: of the tile, bit 1: of the item.
    for (int item = Work<PAIR>::first(); item < a.items; item += Work<PAIR>::step()) {
        float sum[SHARE * PANEL], rest[PANEL];
#pragma unroll
        for (int i = 0; i < SHARE * PANEL; i++) sum[i] = 0.f;
#pragma unroll
        for (int i = 0; i < PANEL; i++) rest[i] = 0.f;
        wait(shared_address(&shared.item_full), parities >> 1);
        parities ^= 2;
        uint32_t flags;
        do {
            uint32_t parity = parities & 1;
            wait(shared_address(&shared.keys_full), parity);
            if (PAIR) wait(shared_address(&shared.late_full), parity);
            wait(shared_address(&shared.scores_full), parity);
            fence_products();
            flags = *const_cast<const volatile uint32_t*>(&shared.notes[parity].flags);
            KeyGradients<ADDED, PAIR, SCORER_PANELS, PANELS> gradients(a, shared, item, parity, messages);
            Matrix keys = shared_address(shared.keys), d_scores = gradients.d_scores;
            pin(sum);
            pin(rest);
            products_begin();
#pragma unroll
            for (int i = 0; i < TILE / 16; i++) {
                uint64_t some = d_scores.at<ROWS_128, 1024>(i * 32);
                product_64x256(sum, some, keys.at<ROWS_128, 1024, PANEL_BYTES>(i * 2048));
                product_64x64<0, 1>(rest, some, keys.at<ROWS_128, 1024>(VALUE_PANELS * PANEL_BYTES + i * 2048), true);
            }
            products_commit();
            float x[PANEL];
            gradients.multiply(x, gradients.panel_of(0));
            products_wait<1>();
            pin(sum);
            pin(rest);
            arrive(shared_address(&shared.keys_free));
            gradients.open();
            gradients.finish(x);
            parities ^= 1;
        } while (!(flags & LAST));
        if (lane == 0) arrive(shared_address(&shared.item_free));
        Work<PAIR> work(a, item);
        store_queries(a, work, sum, 0);
        store_queries(a, work, rest, LATENT);
    }
}

template <bool ADDED, bool PAIR> __device__ __forceinline__ void gradients(const Arguments& a) {
    extern __shared__ __align__(1024) uint8_t memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    if (threadIdx.x == 0) {
        constexpr int WARPS = WARPGROUP / WARP;
        barrier_init(shared_address(&shared.item_full), WARPGROUP);
        barrier_init(shared_address(&shared.item_free), 2 * WARPS);
        barrier_init(shared_address(&shared.keys_full), 2 * WARPGROUP);
        barrier_init(shared_address(&shared.keys_free), 2 * WARPGROUP);
        barrier_init(shared_address(&shared.scores_full), WARPGROUP);
        barrier_init(shared_address(&shared.scores_free), 2 * WARPS);
        barrier_init(shared_address(&shared.late_full), WARPGROUP);
        barrier_init(shared_address(&shared.opened), 2 * WARPS);
        barrier_init(shared_address(&shared.exchanged), 2 * WARPGROUP);
        for (int i = 0; i < 2; i++) {
            barrier_init(shared_address(&shared.received[i]), 1);
            barrier_init(shared_address(&shared.consumed[i]), WARPS);
            arrive_expecting(shared_address(&shared.received[i]), MESSAGE_BYTES);
        }
        barrier_init_done();
    }
    if (PAIR) cluster_sync(); else __syncthreads();
    int role = __shfl_sync(ALL_LANES, threadIdx.x / WARPGROUP, 0);
    if (role == 2) {
        give_registers<40>();
        gatherer<ADDED, PAIR>(a, shared);
    } else {
        take_registers<232>();
        if (role == 0) scorer<ADDED, PAIR>(a, shared);
        else keeper<ADDED, PAIR>(a, shared);
    }
    // The other block may still write here.
    if (PAIR) cluster_sync();
}

// `added`: the gradients of keys are added to d_keys [slots, 576] in any order. `rows`: those of each entry of a list and
// each part of the heads are written to rows of their own; where an entry names nothing, nothing is written. A part has 64
// heads, of `pair` kernels 128.
#define KERNEL(name, ADDED, PAIR)                                                                                      \
    extern "C" __global__ void __cluster_dims__(1 + PAIR, 1, 1) __launch_bounds__(3 * WARPGROUP, 1)                    \
        sparse_mla_backward_bf16_##name(                                                                               \
            const bf16* q, long long q_row, long long q_head, const bf16* kv, long long kv_stride, const void* indices, \
            const bf16* d_out, const float* lse, const float* shift, bf16* d_q, float* d_keys, int items, int heads,   \
            int slots, int k, int is_i64, float scale) {                                                               \
        gradients<ADDED, PAIR>(                                                                                        \
            {q, q_row, q_head, kv, kv_stride, indices, d_out, lse, shift, d_q, d_keys, items, heads, slots, k, is_i64, \
             scale});                                                                                                  \
    }
KERNEL(added, true, false)
KERNEL(rows, false, false)
KERNEL(added_pair, true, true)
KERNEL(rows_pair, false, true)
