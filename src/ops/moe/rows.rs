//! The mixture of experts of few rows of f32 on a GPU: one warp a number, without a plan.

use candle::{DType, Result, Tensor};
use candle_core as candle;

use super::ExpertWeights;
use crate::ops::cuda::{Launch, blocks, device_of, empty, modules};

/// Pairs of a token and a choice up to which reading a weight for each pair costs less than sorting them.
const PAIRS: usize = 128;
/// Threads of a block, and the warps of it.
const BLOCK: usize = 256;
const WARPS: usize = BLOCK / 32;

/// [`moe`](super::moe) of contiguous tensors on one GPU, f32 rows and weights without scales; `None` for others and for more rows.
pub(super) fn moe(x: &Tensor, experts: &ExpertWeights, indices: &Tensor, weights: &Tensor) -> Result<Option<Tensor>> {
    let ExpertWeights { gate_proj, up_proj, down_proj } = experts;
    let ((tokens, inner), k) = (x.dims2()?, indices.dim(1)?);
    let dtype = gate_proj.weight.dtype();
    let alike = [up_proj, down_proj].iter().all(|stack| stack.weight.dtype() == dtype);
    let known = x.dtype() == DType::F32 && [DType::F32, DType::BF16].contains(&dtype);
    if !known || !alike || tokens * k > PAIRS {
        return Ok(None);
    }
    let dtype = dtype.as_str();
    let (device, (count, width, _)) = (device_of(x)?, gate_proj.weight.dims3()?);
    let hidden = empty((tokens * k, width), DType::F32, device)?;
    Launch::new(&modules::MOE_ROWS, format!("moe_rows_up_f32_{dtype}"))
        .tensor("x", x)
        .tensor("expert_indices", indices)
        .tensor("gate_proj", &gate_proj.weight)
        .tensor("up_proj", &up_proj.weight)
        .tensor("hidden", &hidden)
        .int(count)
        .int(width)
        .int(inner)
        .int(k)
        .run(device, [blocks(width, WARPS), tokens * k], BLOCK, 0)?;
    let out = empty((tokens, inner), DType::F32, device)?;
    Launch::new(&modules::MOE_ROWS, format!("moe_rows_down_f32_{dtype}"))
        .tensor("hidden", &hidden)
        .tensor("expert_indices", indices)
        .tensor("expert_weights", weights)
        .tensor("down_proj", &down_proj.weight)
        .tensor("out", &out)
        .int(count)
        .int(width)
        .int(inner)
        .int(k)
        .run(device, [blocks(inner, WARPS), tokens], BLOCK, 0)?;
    Ok(Some(out))
}
