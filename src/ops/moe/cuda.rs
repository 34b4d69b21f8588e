//! The gated MLP and the mixture of experts on a GPU: pairs of a token and a choice, sorted by expert into tiles.

use candle::{D, DType, Result, Tensor};
use candle_core as candle;

use super::ExpertWeights;
use crate::ops::cuda::{BLOCK, Form, Grouped, Launch, blocks, device_of, empty, modules};
use crate::ops::fp8::cuda::rounded;
use crate::ops::join::join_rows;
use crate::ops::linear::{LinearMode, LinearWeight, StackedWeight};
use crate::ops::swiglu::swiglu;

/// Pairs and output columns of a tile, and the threads that multiply it.
const TILE_PAIRS: usize = 32;
const TILE_COLUMNS: usize = 64;
const TILE_THREADS: usize = 128;
/// Elements of the pairs' outputs that are in memory at a time.
const MAX_OUTPUTS: usize = 1 << 27;
/// The same of the kernels of Hopper, whose outputs are bf16 and which multiply many rows of an expert faster.
const MAX_OUTPUTS_OF_HOPPER: usize = 1 << 28;
/// Rows of an expert, on average, up to which the weights are read without shared memory.
const FEW_ROWS_OF_EXPERT: usize = 12;
/// The same of an MLP.
const FEW_ROWS_OF_MLP: usize = 32;
/// The most experts that the plan's shared memory holds.
const MOST_EXPERTS: usize = 4096;

/// [`mlp`](super::mlp) of tensors on one GPU; the hidden values have the dtype of `x`.
pub(super) fn mlp(
    x: &Tensor,
    gate_proj: &LinearWeight,
    up_proj: &LinearWeight,
    down_proj: &LinearWeight,
    mode: LinearMode,
) -> Result<Tensor> {
    if let Some(y) = mlp_on_hopper(x, gate_proj, up_proj, down_proj, mode)? {
        return Ok(y);
    }
    let hidden = swiglu(&gate_proj.forward(x, mode)?, &up_proj.forward(x, mode)?)?;
    down_proj.forward(&hidden, mode)
}

/// An MLP in FP8 arithmetic as an expert that all rows choose; `None` where it is no better than its linear layers.
fn mlp_on_hopper(
    x: &Tensor,
    gate_proj: &LinearWeight,
    up_proj: &LinearWeight,
    down_proj: &LinearWeight,
    mode: LinearMode,
) -> Result<Option<Tensor>> {
    let (_, k) = gate_proj.weight.dims2()?;
    let stacked = |weight: &LinearWeight| -> Result<StackedWeight> {
        let scale = weight.weight_scale_inv.as_ref().map(|scale| scale.unsqueeze(0)).transpose()?;
        Ok(StackedWeight { weight: weight.weight.unsqueeze(0)?, weight_scale_inv: scale })
    };
    let experts =
        ExpertWeights { gate_proj: stacked(gate_proj)?, up_proj: stacked(up_proj)?, down_proj: stacked(down_proj)? };
    let flat = x.reshape((x.elem_count() / k, k))?.contiguous()?;
    let Some(form) = hopper_form(&flat, &experts, mode)? else { return Ok(None) };
    let rows = flat.dim(0)?;
    let few = rows <= FEW_ROWS_OF_MLP;
    if !few && !matches!(form, Form::Codes { .. }) {
        return Ok(None);
    }
    let hidden = Grouped::rows(&flat, form, few)?.gated(&experts.gate_proj, &experts.up_proj)?;
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = down_proj.weight.dim(0)?;
    }
    hidden.product(&experts.down_proj)?.reshape(dims).map(Some)
}

/// [`moe`](super::moe) of tensors on one GPU.
pub(super) fn moe(
    x: &Tensor,
    experts: &ExpertWeights,
    expert_indices: &Tensor,
    expert_weights: &Tensor,
    mode: LinearMode,
) -> Result<Tensor> {
    let ExpertWeights { gate_proj, up_proj, .. } = experts;
    let count = gate_proj.weight.dim(0)?;
    let scaled = |stack: &StackedWeight| stack.weight_scale_inv.is_some();
    let alike = gate_proj.weight.dtype() == up_proj.weight.dtype() && scaled(gate_proj) == scaled(up_proj);
    if count == 0 || count > MOST_EXPERTS || !alike {
        return super::reference::moe(x, experts, expert_indices, expert_weights, mode);
    }
    let x = x.contiguous()?;
    let (indices, weights) = (expert_indices.contiguous()?, expert_weights.to_dtype(DType::F32)?.contiguous()?);
    let experts = ExpertWeights {
        gate_proj: contiguous(gate_proj)?,
        up_proj: contiguous(up_proj)?,
        down_proj: contiguous(&experts.down_proj)?,
    };
    let ((tokens, hidden), (_, k)) = (x.dims2()?, indices.dims2()?);
    if let Some(y) = super::rows::moe(&x, &experts, &indices, &weights)? {
        return Ok(y);
    }
    let width = experts.gate_proj.weight.dim(1)?;
    let form = hopper_form(&x, &experts, mode)?;
    let most = if form.is_some() { MAX_OUTPUTS_OF_HOPPER } else { MAX_OUTPUTS };
    let step = (most / (k * hidden.max(width)).max(1)).clamp(1, tokens);
    let mut parts = Vec::with_capacity(tokens.div_ceil(step));
    for row in (0..tokens).step_by(step) {
        let rows = step.min(tokens - row);
        let of = |tensor: &Tensor| tensor.narrow(0, row, rows);
        let (x, indices, weights) = (of(&x)?, of(&indices)?, of(&weights)?);
        parts.push(match form {
            Some(form) => on_hopper(&x, &experts, &indices, &weights, form)?,
            None => some_tokens(&x, &experts, &indices, &weights, mode)?,
        });
    }
    if parts.len() == 1 { Ok(parts.swap_remove(0)) } else { join_rows(&parts) }
}

fn contiguous(stack: &StackedWeight) -> Result<StackedWeight> {
    let scale = stack.weight_scale_inv.as_ref();
    Ok(StackedWeight {
        weight: stack.weight.contiguous()?,
        weight_scale_inv: scale.map(|scale| scale.to_dtype(DType::F32)?.contiguous()).transpose()?,
    })
}

/// The form in which Hopper's tensor cores take all three projections, or `None`.
fn hopper_form(x: &Tensor, experts: &ExpertWeights, mode: LinearMode) -> Result<Option<Form>> {
    let ExpertWeights { gate_proj, up_proj, down_proj } = experts;
    let form = Form::of(x, gate_proj, mode)?;
    // The hidden values are bf16 rows too, of whole groups.
    let alike = Form::of(x, up_proj, mode)? == form && Form::of(x, down_proj, mode)? == form;
    Ok(form.filter(|_| alike))
}

/// Tokens whose outputs fit into memory, on Hopper's tensor cores; all tensors are contiguous.
fn on_hopper(x: &Tensor, experts: &ExpertWeights, indices: &Tensor, weights: &Tensor, form: Form) -> Result<Tensor> {
    let count = experts.gate_proj.weight.dim(0)?;
    let few = indices.elem_count() <= count * FEW_ROWS_OF_EXPERT;
    let hidden = Grouped::of_experts(x, indices, count, form, few)?.gated(&experts.gate_proj, &experts.up_proj)?;
    hidden.combined(&hidden.product(&experts.down_proj)?, weights)
}

/// Tokens whose outputs fit into memory; all tensors are contiguous.
fn some_tokens(
    x: &Tensor,
    experts: &ExpertWeights,
    indices: &Tensor,
    weights: &Tensor,
    mode: LinearMode,
) -> Result<Tensor> {
    let device = device_of(x)?;
    let ((tokens, hidden), k) = (x.dims2()?, indices.dim(1)?);
    let ExpertWeights { gate_proj, up_proj, down_proj } = experts;
    let (count, width, _) = gate_proj.weight.dims3()?;
    let pairs = tokens * k;

    let most_tiles = pairs.div_ceil(TILE_PAIRS) + count.min(pairs);
    let (order, tiles) = (empty(pairs, DType::I32, device)?, empty((most_tiles, 3), DType::I32, device)?);
    Launch::new(&modules::MOE, "moe_plan")
        .tensor("expert_indices", indices)
        .tensor("order", &order)
        .tensor("tiles", &tiles)
        .int(pairs)
        .int(count)
        .int(most_tiles)
        .run(device, [1, 1], 1024, 2 * count * size_of::<i32>())?;

    let input = quantised(x, gate_proj, mode)?;
    let input = input.as_ref().unwrap_or(x);
    let hidden_values = empty((pairs, width), DType::F32, device)?;
    let dtype = gate_proj.weight.dtype().as_str();
    Launch::new(&modules::MOE, format!("moe_up_{}_{dtype}", input.dtype().as_str()))
        .tensor("x", input)
        .tensor("order", &order)
        .tensor("tiles", &tiles)
        .tensor("gate_proj", &gate_proj.weight)
        .maybe("gate_proj_scale_inv", gate_proj.weight_scale_inv.as_ref())
        .tensor("up_proj", &up_proj.weight)
        .maybe("up_proj_scale_inv", up_proj.weight_scale_inv.as_ref())
        .tensor("hidden", &hidden_values)
        .int(width)
        .int(hidden)
        .int(k)
        .run(device, [most_tiles, blocks(width, TILE_COLUMNS)], TILE_THREADS, 0)?;

    let input = quantised(&hidden_values, down_proj, mode)?;
    let outputs = empty((pairs, hidden), DType::F32, device)?;
    Launch::new(&modules::MOE, format!("moe_down_{}", down_proj.weight.dtype().as_str()))
        .tensor("hidden", input.as_ref().unwrap_or(&hidden_values))
        .tensor("order", &order)
        .tensor("tiles", &tiles)
        .tensor("down_proj", &down_proj.weight)
        .maybe("down_proj_scale_inv", down_proj.weight_scale_inv.as_ref())
        .tensor("outputs", &outputs)
        .int(hidden)
        .int(width)
        .run(device, [most_tiles, blocks(hidden, TILE_COLUMNS)], TILE_THREADS, 0)?;

    let out = empty(x.dims(), x.dtype(), device)?;
    Launch::new(&modules::MOE, format!("moe_combine_{}", x.dtype().as_str()))
        .tensor("outputs", &outputs)
        .tensor("expert_indices", indices)
        .tensor("expert_weights", weights)
        .tensor("out", &out)
        .int(k)
        .int(count)
        .int(hidden)
        .long(x.elem_count())
        .run(device, [blocks(x.elem_count(), BLOCK), 1], BLOCK, 0)?;
    Ok(out)
}

/// In FP8 arithmetic the inputs of a projection with block scales, rounded to e4m3.
fn quantised(x: &Tensor, stack: &StackedWeight, mode: LinearMode) -> Result<Option<Tensor>> {
    match (mode, &stack.weight_scale_inv) {
        (LinearMode::Fp8 { ue8m0 }, Some(_)) if x.dim(D::Minus1)? > 0 => rounded(x, ue8m0).map(Some),
        _ => Ok(None),
    }
}
