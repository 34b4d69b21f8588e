// Attention in MQA mode over listed rows of 576 numbers in bf16, for Hopper.
#include "sm90_mla.cuh"

SM90_MLA(sparse_mla_bf16_bf16_64, 1, bf16)
SM90_MLA(sparse_mla_bf16_bf16_128, 2, bf16)
