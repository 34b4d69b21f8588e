// Attention in MQA mode over listed packed rows (512 e4m3 codes, 4 scales, 64 numbers in bf16), for Hopper, and the
// combination of the parts of a list.
#include "sm90_mla.cuh"

SM90_MLA(sparse_mla_bf16_u8_64, 1, packed)
SM90_MLA(sparse_mla_bf16_u8_128, 2, packed)

// One block of 128 threads a pair of a token and a head.
extern "C" __global__ void __launch_bounds__(128) sparse_mla_combine_bf16(
    const float* part_out, const float* part_lse, bf16* out, float* lse, int splits) {
    constexpr int LATENT = sm90_mla::LATENT;
    long long pair = blockIdx.x;
    const float* parts = part_lse + pair * splits;
    float largest = -INFINITY;
    for (int i = 0; i < splits; i++) largest = fmaxf(largest, parts[i]);
    float shift = largest == -INFINITY ? 0.f : largest, total = 0.f;
    float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
    const float4* from = reinterpret_cast<const float4*>(part_out + pair * splits * LATENT) + threadIdx.x;
#pragma unroll 8
    for (int i = 0; i < splits; i++) {
        float weight = expf(parts[i] - shift);
        float4 part = from[i * (LATENT / 4)];
        total += weight;
        sum.x += weight * part.x, sum.y += weight * part.y, sum.z += weight * part.z, sum.w += weight * part.w;
    }
    float factor = total == 0.f ? 0.f : 1.f / total;
    uint2 two;
    two.x = sm90_mla::two_bf16(sum.x * factor, sum.y * factor);
    two.y = sm90_mla::two_bf16(sum.z * factor, sum.w * factor);
    reinterpret_cast<uint2*>(out + pair * LATENT)[threadIdx.x] = two;
    if (threadIdx.x == 0) lse[pair] = largest + logf(total);
}
