//! Projections, plain or block-FP8, from a `VarBuilder`.

use candle::{DType, Result};
use candle_core as candle;
use candle_nn::VarBuilder;

use super::init::normal;
use crate::ops::fp8::BLOCK;
use crate::ops::linear::LinearWeight;

/// Gets `weight: [out_dim, in_dim]` and, where `vb` has it, `weight_scale_inv`. A `vb` that makes what it lacks draws
/// the weight from a normal distribution of standard deviation `stdev`.
pub(super) fn linear(in_dim: usize, out_dim: usize, stdev: f64, vb: VarBuilder) -> Result<LinearWeight> {
    if !vb.contains_tensor("weight_scale_inv") {
        let weight = vb.get_with_hints((out_dim, in_dim), "weight", normal(stdev))?;
        return Ok(LinearWeight { weight, weight_scale_inv: None });
    }
    let weight = vb.get_with_hints_dtype((out_dim, in_dim), "weight", Default::default(), DType::F8E4M3)?;
    let blocks = (out_dim.div_ceil(BLOCK), in_dim.div_ceil(BLOCK));
    let scale = vb.get_with_hints_dtype(blocks, "weight_scale_inv", Default::default(), DType::F32)?;
    Ok(LinearWeight { weight, weight_scale_inv: Some(scale) })
}
