//! Projections, plain or block-FP8, from a `VarBuilder`.

use candle::{DType, Error, Result, Tensor};
use candle_core as candle;
use candle_nn::VarBuilder;

use super::init::normal;
use crate::ops::fp8::BLOCK;
use crate::ops::linear::{LinearWeight, StackedWeight};

/// Gets `weight: [out_dim, in_dim]` and, where `vb` has it, `weight_scale_inv`. A `vb` that makes what it lacks draws
/// the weight from a normal distribution of standard deviation `stdev`.
pub(super) fn linear(in_dim: usize, out_dim: usize, stdev: f64, vb: VarBuilder) -> Result<LinearWeight> {
    let (weight, weight_scale_inv) = weight_and_scale(&[], (in_dim, out_dim), stdev, vb)?;
    Ok(LinearWeight { weight, weight_scale_inv })
}

/// As [`linear`] for one projection of `count` experts, stacked in `{projection}.weight: [count, out_dim, in_dim]`. If
/// `vb` has a checkpoint's names, `{expert}.{projection}.weight`, the experts are copied into a stack one by one.
pub(super) fn stacked(
    count: usize,
    (in_dim, out_dim): (usize, usize),
    stdev: f64,
    projection: &str,
    vb: VarBuilder,
) -> Result<StackedWeight> {
    let whole = vb.pp(projection);
    let one = |expert: usize| linear(in_dim, out_dim, stdev, vb.pp(expert).pp(projection));
    let is_there = whole.contains_tensor("weight");
    if !is_there && vb.pp(0).pp(projection).contains_tensor("weight") {
        return stack(count, one);
    }
    match weight_and_scale(&[count], (in_dim, out_dim), stdev, whole) {
        Ok((weight, weight_scale_inv)) => Ok(StackedWeight { weight, weight_scale_inv }),
        // What a checkpoint lacks has its own name in the error.
        Err(error) if !is_there && is_missing(&error) => stack(count, one),
        Err(error) => Err(error),
    }
}

/// `weight: [outer.., out_dim, in_dim]` and the scales of its blocks.
fn weight_and_scale(
    outer: &[usize],
    (in_dim, out_dim): (usize, usize),
    stdev: f64,
    vb: VarBuilder,
) -> Result<(Tensor, Option<Tensor>)> {
    let shape = [outer, &[out_dim, in_dim]].concat();
    if !vb.contains_tensor("weight_scale_inv") {
        return Ok((vb.get_with_hints(shape, "weight", normal(stdev))?, None));
    }
    let weight = vb.get_with_hints_dtype(shape, "weight", Default::default(), DType::F8E4M3)?;
    let blocks = [outer, &[out_dim.div_ceil(BLOCK), in_dim.div_ceil(BLOCK)]].concat();
    let scale = vb.get_with_hints_dtype(blocks, "weight_scale_inv", Default::default(), DType::F32)?;
    Ok((weight, Some(scale)))
}

/// Copies the weights of `count` experts into one stack, holding one of them at a time beside it.
fn stack(count: usize, get: impl Fn(usize) -> Result<LinearWeight>) -> Result<StackedWeight> {
    let mut stack: Option<StackedWeight> = None;
    for expert in 0..count {
        let LinearWeight { weight, weight_scale_inv } = get(expert)?;
        if weight.is_variable() {
            candle::bail!("expert {expert}: the variables of experts must be stacked, one for each projection")
        }
        let zeros = |one: &Tensor| Tensor::zeros([&[count], one.dims()].concat(), one.dtype(), one.device());
        let stack = match &mut stack {
            Some(stack) => stack,
            None => stack.insert(StackedWeight {
                weight: zeros(&weight)?,
                weight_scale_inv: weight_scale_inv.as_ref().map(zeros).transpose()?,
            }),
        };
        let put = |stack: &Tensor, one: &Tensor| stack.slice_set(&one.unsqueeze(0)?.contiguous()?, 0, expert);
        put(&stack.weight, &weight)?;
        match (&stack.weight_scale_inv, &weight_scale_inv) {
            (Some(stack), Some(scale)) => put(stack, scale)?,
            (None, None) => {}
            _ => candle::bail!("expert {expert}: all experts of a projection must have scales, or none"),
        }
    }
    match stack {
        Some(stack) => Ok(stack),
        None => candle::bail!("n_routed_experts is 0, but a layer has experts"),
    }
}

fn is_missing(error: &Error) -> bool {
    match error {
        Error::CannotFindTensor { .. } => true,
        Error::WithBacktrace { inner, .. } => is_missing(inner),
        _ => false,
    }
}
