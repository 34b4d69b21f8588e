//! The gated MLP and the mixture of experts on CPU.

use candle::{CpuStorage, Result, Storage, Tensor};
use candle_core as candle;

use super::ExpertWeights;
use crate::ops::cpu::floats::{Floats, for_rows, to_tensor};
use crate::ops::cpu::simd::{isa, simd_kernel};
use crate::ops::linear::cpu::{HeldWeight, Job, WeightGuard, prepare, project};
use crate::ops::linear::{LinearMode, LinearWeight};
use crate::ops::swiglu::cpu::swiglu_in_place;

/// Most elements of the experts' outputs that are kept at once; tokens beyond are done in further rounds.
const MAX_OUTPUTS: usize = 1 << 26;

/// Most rows whose hidden values are kept at once: more would leave the cache, and take fresh memory each time. At least
/// twice the 32 from which on a processor with AMX computes otherwise, so that no round is below them.
const MLP_ROWS: usize = 192;

/// [`mlp`](super::mlp) of CPU tensors.
pub(super) fn mlp(
    x: &Tensor,
    gate_proj: &LinearWeight,
    up_proj: &LinearWeight,
    down_proj: &LinearWeight,
    mode: LinearMode,
) -> Result<Tensor> {
    let values = Floats::new(x)?;
    let held = HeldExpert::new(gate_proj, up_proj, down_proj)?;
    let expert = held.read()?;
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = expert.down.n;
    }
    let (rows, hidden) = (values.as_slice().len() / expert.gate.k.max(1), expert.gate.k);
    let round = rows.div_ceil(rows.div_ceil(MLP_ROWS).max(1)).max(1);
    let mut out = Vec::with_capacity(rows * expert.down.n);
    for x in values.as_slice().chunks((round * hidden).max(1)) {
        let outputs = run(vec![Batch { x: x.to_vec(), expert: &expert }], mode)?;
        out.extend(outputs.into_iter().flatten());
    }
    to_tensor(out, &dims, x.dtype())
}

/// [`moe`](super::moe) of CPU tensors.
pub(super) fn moe(
    x: &Tensor,
    experts: &[ExpertWeights],
    expert_indices: &Tensor,
    expert_weights: &Tensor,
    mode: LinearMode,
) -> Result<Tensor> {
    let (tokens, hidden) = x.dims2()?;
    let (_, k) = expert_indices.dims2()?;
    let (values, weights) = (Floats::new(x)?, Floats::new(expert_weights)?);
    let indices = read_indices(expert_indices, experts.len())?;
    let mut out = vec![0.0; tokens * hidden];
    let round = (MAX_OUTPUTS / (k * hidden)).max(1);
    let rounds = values.as_slice().chunks(round * hidden).zip(out.chunks_mut(round * hidden));
    let choices = indices.chunks(round * k).zip(weights.as_slice().chunks(round * k));
    for ((x, out), (indices, weights)) in rounds.zip(choices) {
        add_experts(x, experts, indices, weights, (k, hidden), mode, out)?;
    }
    to_tensor(out, x.dims(), x.dtype())
}

/// Where a token's choice of expert lies among the rows of that expert's batch.
#[derive(Clone, Copy)]
struct Place {
    batch: usize,
    row: usize,
}

/// Adds the weighted outputs of the chosen experts to `out`.
fn add_experts(
    x: &[f32],
    experts: &[ExpertWeights],
    indices: &[u32],
    weights: &[f32],
    (k, hidden): (usize, usize),
    mode: LinearMode,
    out: &mut [f32],
) -> Result<()> {
    let mut batch_of = vec![None; experts.len()];
    let mut held = Vec::new();
    let mut rows: Vec<Vec<f32>> = Vec::new();
    let mut places = Vec::with_capacity(indices.len());
    for (choice, &expert) in indices.iter().enumerate() {
        let expert = expert as usize;
        let batch = match batch_of[expert] {
            Some(batch) => batch,
            None => {
                let ExpertWeights { gate_proj, up_proj, down_proj } = &experts[expert];
                held.push(HeldExpert::new(gate_proj, up_proj, down_proj)?);
                rows.push(Vec::new());
                batch_of[expert] = Some(held.len() - 1);
                held.len() - 1
            }
        };
        places.push(Place { batch, row: rows[batch].len() / hidden });
        rows[batch].extend_from_slice(&x[choice / k * hidden..][..hidden]);
    }
    let guards: Vec<_> = held.iter().map(HeldExpert::read).collect::<Result<_>>()?;
    let batches = rows.into_iter().zip(&guards).map(|(x, expert)| Batch { x, expert }).collect();
    let outputs = run(batches, mode)?;
    let isa = isa();
    for_rows(out, hidden, |token, out| {
        let places = &places[token * k..][..k];
        for (&Place { batch, row }, &weight) in places.iter().zip(&weights[token * k..]) {
            add_weighted(isa, out, &outputs[batch][row * hidden..][..hidden], weight);
        }
    });
    Ok(())
}

fn read_indices(indices: &Tensor, experts: usize) -> Result<Vec<u32>> {
    let indices = indices.contiguous()?;
    let (guard, layout) = indices.storage_and_layout();
    let Storage::Cpu(CpuStorage::U32(values)) = &*guard else {
        candle::bail!("moe: expert_indices must be u32 on CPU")
    };
    let indices = values[layout.start_offset()..][..indices.elem_count()].to_vec();
    match indices.iter().find(|&&index| index as usize >= experts) {
        Some(index) => candle::bail!("moe: expert index {index} is out of range of {experts} experts"),
        None => Ok(indices),
    }
}

/// An expert's weights in row-major order.
struct HeldExpert {
    gate: HeldWeight,
    up: HeldWeight,
    down: HeldWeight,
}

impl HeldExpert {
    fn new(gate: &LinearWeight, up: &LinearWeight, down: &LinearWeight) -> Result<Self> {
        Ok(Self { gate: HeldWeight::of(gate)?, up: HeldWeight::of(up)?, down: HeldWeight::of(down)? })
    }

    fn read(&self) -> Result<ExpertGuard<'_>> {
        Ok(ExpertGuard { gate: self.gate.read()?, up: self.up.read()?, down: self.down.read()? })
    }
}

/// An expert's weights locked for reading.
struct ExpertGuard<'a> {
    gate: WeightGuard<'a>,
    up: WeightGuard<'a>,
    down: WeightGuard<'a>,
}

/// Rows `[M, H]` for one expert.
struct Batch<'a> {
    x: Vec<f32>,
    expert: &'a ExpertGuard<'a>,
}

/// The MLP of every batch, `[M, H']` each. Products that do not need one another share a parallel region.
fn run(batches: Vec<Batch>, mode: LinearMode) -> Result<Vec<Vec<f32>>> {
    let buffers = |width: fn(&ExpertGuard) -> (usize, usize)| {
        let sized = batches.iter().map(move |batch| {
            let (n, k) = width(batch.expert);
            vec![0.0f32; batch.x.len() / k.max(1) * n]
        });
        sized.collect::<Vec<_>>()
    };
    let mut gates = buffers(|expert| (expert.gate.n, expert.gate.k));
    let mut ups = buffers(|expert| (expert.up.n, expert.up.k));
    let mut outs = buffers(|expert| (expert.down.n, expert.gate.k));

    let mut inputs = Vec::with_capacity(batches.len());
    for Batch { x, expert } in &batches {
        inputs.push([prepare(x, expert.gate.weight()?, mode), prepare(x, expert.up.weight()?, mode)]);
    }
    let mut jobs = Vec::with_capacity(2 * batches.len());
    for (((Batch { expert, .. }, [x, y]), gate), up) in batches.iter().zip(&inputs).zip(&mut gates).zip(&mut ups) {
        jobs.push(Job { x: x.view(), weight: expert.gate.weight()?, out: gate });
        jobs.push(Job { x: y.view(), weight: expert.up.weight()?, out: up });
    }
    project(jobs);
    gates.iter_mut().zip(&ups).for_each(|(gate, up)| swiglu_in_place(gate, up));

    let mut inputs = Vec::with_capacity(batches.len());
    for (Batch { expert, .. }, hidden) in batches.iter().zip(&gates) {
        inputs.push(prepare(hidden, expert.down.weight()?, mode));
    }
    let mut jobs = Vec::with_capacity(batches.len());
    for ((Batch { expert, .. }, x), out) in batches.iter().zip(&inputs).zip(&mut outs) {
        jobs.push(Job { x: x.view(), weight: expert.down.weight()?, out });
    }
    project(jobs);
    Ok(outs)
}

#[inline(always)]
fn add_weighted_body<const FMA: bool>(out: &mut [f32], values: &[f32], weight: f32) {
    for (out, value) in out.iter_mut().zip(values) {
        // Rounded twice, as in the reference: what FP8 arithmetic adds to the residual stream then has the same bits.
        *out += value * weight;
    }
}
simd_kernel! {
    /// `out += weight · values`.
    fn add_weighted(out: &mut [f32], values: &[f32], weight: f32) = add_weighted_body
}
