// Attention in MQA mode over listed packed rows (512 e4m3 codes, 4 scales, 64 numbers in bf16), for Hopper, and the
// combination of the parts of a list.
#include "sm90_mla.cuh"

SM90_MLA(sparse_mla_bf16_u8_64, 1, packed)
SM90_MLA(sparse_mla_bf16_u8_128, 2, packed)

// One block of two halves of 128 threads a pair of a token and a head: each half adds up every second part.
extern "C" __global__ void __launch_bounds__(256) sparse_mla_combine_bf16(
    const float* part_out, const float* part_lse, bf16* out, float* lse, int splits) {
    constexpr int LATENT = sm90_mla::LATENT;
    __shared__ float4 other[LATENT / 4];
    long long pair = blockIdx.x;
    int half = threadIdx.x / (LATENT / 4), column = threadIdx.x % (LATENT / 4);
    const float* parts = part_lse + pair * splits;
    const float4* from = reinterpret_cast<const float4*>(part_out + pair * splits * LATENT) + column;
    float largest = -INFINITY;
    for (int i = 0; i < splits; i++) largest = fmaxf(largest, parts[i]);
    float shift = largest == -INFINITY ? 0.f : largest, total = 0.f;
    for (int i = 0; i < splits; i++) total += expf(parts[i] - shift);
    float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 16
    for (int i = half; i < splits; i += 2) {
        float weight = expf(parts[i] - shift);
        float4 part = from[i * (LATENT / 4)];
        sum.x += weight * part.x, sum.y += weight * part.y, sum.z += weight * part.z, sum.w += weight * part.w;
    }
    if (half) other[column] = sum;
    __syncthreads();
    if (half) return;
    float factor = total == 0.f ? 0.f : 1.f / total;
    float4 more = other[column];
    uint2 four;
    four.x = sm90_mla::two_bf16((sum.x + more.x) * factor, (sum.y + more.y) * factor);
    four.y = sm90_mla::two_bf16((sum.z + more.z) * factor, (sum.w + more.w) * factor);
    reinterpret_cast<uint2*>(out + pair * LATENT)[column] = four;
    if (column == 0) lse[pair] = largest + logf(total);
}
