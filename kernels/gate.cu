// The router's selection: one block a token, one thread an expert. An expert's rank is the number of experts before it.
#include "reduce.cuh"

extern "C" __global__ void __launch_bounds__(1024) gate_f32(
    const float* logits, long long stride, const float* bias, unsigned* indices, float* weights, int experts, int groups,
    int topk_group, int k, int normalise, float scaling) {
    extern __shared__ float shared[];
    float* choices = shared;                // What experts are chosen by, [experts].
    float* chosen_scores = shared + experts; // Scores of the chosen, [k].
    float* group_scores = chosen_scores + k; // [groups]
    __shared__ int has_nan;
    int size = experts / groups;
    if (threadIdx.x == 0) has_nan = 0;
    __syncthreads();
    for (int e = threadIdx.x; e < experts; e += blockDim.x) {
        // In f64, and so the f32 that is nearest to the exponential, which the CPU's library gives too.
        float score = 1.f / ((float)exp(-(double)logits[blockIdx.x * stride + e]) + 1.f);
        float choice = bias ? score + bias[e] : score;
        if (choice != choice) has_nan = 1;
        choices[e] = choice != choice ? -INFINITY : choice;
    }
    __syncthreads();
    if (topk_group < groups) {
        for (int g = threadIdx.x; g < groups; g += blockDim.x) {
            float first = -INFINITY, second = -INFINITY;
            for (int i = 0; i < size; i++) {
                float value = choices[g * size + i];
                if (value > first) { second = first; first = value; } else if (value > second) second = value;
            }
            group_scores[g] = size == 1 ? first : first + second;
        }
        __syncthreads();
        for (int e = threadIdx.x; e < experts; e += blockDim.x) {
            int group = e / size, rank = 0;
            float own = group_scores[group];
            for (int g = 0; g < groups; g++) rank += group_scores[g] > own || (group_scores[g] == own && g < group);
            if (rank >= topk_group) choices[e] = -INFINITY;
        }
        __syncthreads();
    }
    // The chosen, in ascending order: first whether an expert is, then its place among them.
    int* is_chosen = (int*)(group_scores + groups); // [experts]
    for (int e = threadIdx.x; e < experts; e += blockDim.x) {
        float own = choices[e];
        int rank = 0;
        for (int other = 0; other < experts; other++) {
            rank += choices[other] > own || (choices[other] == own && other < e);
        }
        is_chosen[e] = rank < k;
    }
    __syncthreads();
    for (int e = threadIdx.x; e < experts; e += blockDim.x) {
        if (!is_chosen[e]) continue;
        int place = 0;
        for (int other = 0; other < e; other++) place += is_chosen[other];
        indices[blockIdx.x * (long long)k + place] = e;
        chosen_scores[place] = 1.f / ((float)exp(-(double)logits[blockIdx.x * stride + e]) + 1.f);
    }
    __syncthreads();
    float divisor = 1.f;
    if (normalise) {
        float sum = 0.f;
        for (int i = 0; i < k; i++) sum += chosen_scores[i];
        divisor = sum + 1e-20f;
    }
    for (int i = threadIdx.x; i < k; i += blockDim.x) {
        float weight = __fmul_rn(chosen_scores[i] / divisor, scaling);
        weights[blockIdx.x * (long long)k + i] = has_nan ? NAN : weight;
    }
}
