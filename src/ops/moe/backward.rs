//! `moe` as an operation that gradients pass through: each expert computes the rows of the tokens that chose it.

use std::ops::Range;
use std::sync::Arc;

use candle::{DType, Result, Tensor};
use candle_core as candle;

use super::ExpertWeights;
use crate::ops::deferred::with_gradient;
use crate::ops::linear::{LinearMode, LinearWeight, StackedWeight};
use crate::ops::swiglu;

/// [`moe`](super::moe) of CPU tensors with gradients for `x`, `expert_weights` and the experts' weights.
pub(super) fn tracked(
    x: &Tensor,
    experts: &ExpertWeights,
    expert_indices: &Tensor,
    expert_weights: &Tensor,
    mode: LinearMode,
) -> Result<Tensor> {
    let (tokens, hidden) = x.dims2()?;
    let indices = expert_indices.to_vec2::<u32>()?;
    let k = expert_indices.dim(1)?;
    // The choices by expert, and within an expert by token.
    let mut places: Vec<(usize, usize)> = (0..tokens * k).map(|at| (indices[at / k][at % k] as usize, at)).collect();
    places.sort_unstable();
    let count = experts.gate_proj.weight.dim(0)?;
    let first = |expert: usize| places.partition_point(|place| place.0 < expert);
    let rows: Arc<[Range<usize>]> = (0..count).map(|expert| first(expert)..first(expert + 1)).collect();
    let ids = |of: fn(usize, usize) -> usize| {
        let ids = places.iter().map(|&(_, at)| of(at, k) as u32).collect();
        Tensor::from_vec(ids, places.len(), x.device())
    };
    let (token, choice) = (ids(|at, k| at / k)?, ids(|at, _| at)?);

    let ExpertWeights { gate_proj, up_proj, down_proj } = experts;
    let input = x.to_dtype(DType::F32)?.contiguous()?.index_select(&token, 0)?;
    let weight = expert_weights.to_dtype(DType::F32)?.flatten_all()?.index_select(&choice, 0)?.unsqueeze(1)?;
    let gate = grouped(&input, gate_proj, &rows, mode)?;
    let up = grouped(&input, up_proj, &rows, mode)?;
    let output = grouped(&swiglu(&gate, &up)?, down_proj, &rows, mode)?.broadcast_mul(&weight)?;
    let none = Tensor::zeros((tokens, hidden), DType::F32, x.device())?;
    none.index_add(&token, &output, 0)?.to_dtype(x.dtype())
}

/// The rows `x: [R, K]` f32 of each expert times the transpose of its matrix of `stack: [E, N, K]`, `[R, N]` f32.
/// `rows` are those of each expert, one after the other.
fn grouped(x: &Tensor, stack: &StackedWeight, rows: &Arc<[Range<usize>]>, mode: LinearMode) -> Result<Tensor> {
    let detach = |weight: &Tensor| weight.detach();
    let held =
        StackedWeight { weight: detach(&stack.weight), weight_scale_inv: stack.weight_scale_inv.as_ref().map(detach) };
    let input = x.detach();
    let mut out = Vec::new();
    for (expert, rows) in rows.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
        out.push(held.get(expert)?.forward(&input.narrow(0, rows.start, rows.len())?, mode)?);
    }
    let out = Tensor::cat(&out, 0)?;
    let (rows, learns) = (rows.clone(), stack.weight.track_op());
    let arguments = [x, &stack.weight];
    with_gradient(&out, if learns { &arguments } else { &arguments[..1] }, move |_, grad| {
        let (d_x, d_weight) = grouped_gradients(&input, &held, &rows, &grad.contiguous()?, learns)?;
        Ok(std::iter::once(d_x).chain(d_weight).collect())
    })
}

/// The gradient of `x` and, if it `learns`, that of the stacked weight.
fn grouped_gradients(
    x: &Tensor,
    stack: &StackedWeight,
    rows: &[Range<usize>],
    grad: &Tensor,
    learns: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let (_, n, k) = stack.weight.dims3()?;
    let dtype = stack.weight.dtype();
    let (mut d_x, mut d_weight) = (Vec::new(), Vec::new());
    let no_gradient = Tensor::zeros((1, n, k), dtype, x.device())?;
    for (expert, rows) in rows.iter().enumerate() {
        if rows.is_empty() {
            d_weight.push(no_gradient.clone());
            continue;
        }
        let grad = grad.narrow(0, rows.start, rows.len())?;
        d_x.push(grad.matmul(&wide(&stack.get(expert)?)?)?);
        if learns {
            let input = x.narrow(0, rows.start, rows.len())?;
            d_weight.push(grad.t()?.matmul(&input)?.to_dtype(dtype)?.unsqueeze(0)?);
        }
    }
    Ok((Tensor::cat(&d_x, 0)?, if learns { Some(Tensor::cat(&d_weight, 0)?) } else { None }))
}

/// `[N, K]` f32.
fn wide(weight: &LinearWeight) -> Result<Tensor> {
    match &weight.weight_scale_inv {
        Some(scale) => crate::ops::fp8::block_dequant(&weight.weight, scale, crate::ops::fp8::BLOCK),
        // A copy of its own: a cast converts all that a view looks at.
        None => weight.weight.force_contiguous()?.to_dtype(DType::F32),
    }
}
