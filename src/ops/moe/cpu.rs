//! The gated MLP and the mixture of experts on CPU.

use candle::{Result, Tensor};
use candle_core as candle;

use super::ExpertWeights;
use crate::ops::cpu::floats::{Floats, for_rows, to_tensor};
use crate::ops::cpu::simd::{isa, simd_kernel};
use crate::ops::linear::cpu::{HeldWeight, Job, WeightGuard, prepare, project};
use crate::ops::linear::gemm::Weight;
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
    let held = [HeldWeight::of(gate_proj)?, HeldWeight::of(up_proj)?, HeldWeight::of(down_proj)?];
    let guards = read(&held)?;
    let expert = Expert::of(&guards, 0)?;
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = expert.outputs;
    }
    let hidden = expert.gate.k;
    let rows = values.as_slice().len() / hidden.max(1);
    let round = rows.div_ceil(rows.div_ceil(MLP_ROWS).max(1)).max(1);
    let mut out = Vec::with_capacity(rows * expert.outputs);
    for x in values.as_slice().chunks((round * hidden).max(1)) {
        let outputs = run(vec![Batch { x: x.to_vec(), expert }], mode);
        out.extend(outputs.into_iter().flatten());
    }
    to_tensor(out, &dims, x.dtype())
}

/// [`moe`](super::moe) of CPU tensors.
pub(super) fn moe(
    x: &Tensor,
    experts: &ExpertWeights,
    expert_indices: &Tensor,
    expert_weights: &Tensor,
    mode: LinearMode,
) -> Result<Tensor> {
    let (tokens, hidden) = x.dims2()?;
    let (_, k) = expert_indices.dims2()?;
    let (values, weights) = (Floats::new(x)?, Floats::new(expert_weights)?);
    let indices = expert_indices.flatten_all()?.to_vec1::<u32>()?;
    let ExpertWeights { gate_proj, up_proj, down_proj } = experts;
    let held = [HeldWeight::stacked(gate_proj)?, HeldWeight::stacked(up_proj)?, HeldWeight::stacked(down_proj)?];
    let guards = read(&held)?;
    let count = gate_proj.weight.dim(0)?;
    let mut out = vec![0.0; tokens * hidden];
    let round = (MAX_OUTPUTS / (k * hidden)).max(1);
    let rounds = values.as_slice().chunks(round * hidden).zip(out.chunks_mut(round * hidden));
    let choices = indices.chunks(round * k).zip(weights.as_slice().chunks(round * k));
    for ((x, out), (indices, weights)) in rounds.zip(choices) {
        add_experts(x, &guards, indices, weights, (count, k, hidden), mode, out)?;
    }
    to_tensor(out, x.dims(), x.dtype())
}

/// Where a token's choice of expert lies among the rows of that expert's batch.
#[derive(Clone, Copy)]
struct Place {
    batch: usize,
    row: usize,
}

/// Adds the weighted outputs of the chosen experts to `out`; `guards` are the stacked gate, up and down.
fn add_experts(
    x: &[f32],
    guards: &[WeightGuard; 3],
    indices: &[u32],
    weights: &[f32],
    (count, k, hidden): (usize, usize, usize),
    mode: LinearMode,
    out: &mut [f32],
) -> Result<()> {
    let mut batch_of = vec![None; count];
    let mut batches: Vec<Batch> = Vec::new();
    let mut places = Vec::with_capacity(indices.len());
    for (choice, &expert) in indices.iter().enumerate() {
        let expert = expert as usize;
        let batch = match batch_of[expert] {
            Some(batch) => batch,
            None => {
                batches.push(Batch { x: Vec::new(), expert: Expert::of(guards, expert)? });
                batch_of[expert] = Some(batches.len() - 1);
                batches.len() - 1
            }
        };
        places.push(Place { batch, row: batches[batch].x.len() / hidden });
        batches[batch].x.extend_from_slice(&x[choice / k * hidden..][..hidden]);
    }
    let outputs = run(batches, mode);
    let isa = isa();
    for_rows(out, hidden, |token, out| {
        let places = &places[token * k..][..k];
        for (&Place { batch, row }, &weight) in places.iter().zip(&weights[token * k..]) {
            add_weighted(isa, out, &outputs[batch][row * hidden..][..hidden], weight);
        }
    });
    Ok(())
}

/// Locks gate, up and down for reading.
fn read(held: &[HeldWeight; 3]) -> Result<[WeightGuard<'_>; 3]> {
    let [gate, up, down] = held;
    Ok([gate.read()?, up.read()?, down.read()?])
}

/// The weights of one gated MLP, locked for reading.
#[derive(Clone, Copy)]
struct Expert<'a> {
    gate: Weight<'a>,
    up: Weight<'a>,
    down: Weight<'a>,
    /// Hidden values a row.
    width: usize,
    /// Outputs a row.
    outputs: usize,
}

impl<'a> Expert<'a> {
    /// Matrix `index` of each of gate, up and down.
    fn of(guards: &'a [WeightGuard; 3], index: usize) -> Result<Self> {
        let [gate, up, down] = guards;
        let (width, outputs) = (gate.n, down.n);
        Ok(Self { gate: gate.matrix(index)?, up: up.matrix(index)?, down: down.matrix(index)?, width, outputs })
    }
}

/// Rows `[M, H]` for one expert.
struct Batch<'a> {
    x: Vec<f32>,
    expert: Expert<'a>,
}

/// The MLP of every batch, `[M, H']` each. Products that do not need one another share a parallel region.
fn run(batches: Vec<Batch>, mode: LinearMode) -> Vec<Vec<f32>> {
    let buffers = |columns: fn(&Expert) -> usize| -> Vec<Vec<f32>> {
        let rows = |batch: &Batch| batch.x.len() / batch.expert.gate.k.max(1);
        batches.iter().map(|batch| vec![0.0; rows(batch) * columns(&batch.expert)]).collect()
    };
    let mut gates = buffers(|expert| expert.width);
    let mut ups = buffers(|expert| expert.width);
    let mut outs = buffers(|expert| expert.outputs);

    let inputs: Vec<_> = batches
        .iter()
        .map(|Batch { x, expert }| [prepare(x, expert.gate, mode), prepare(x, expert.up, mode)])
        .collect();
    let mut jobs = Vec::with_capacity(2 * batches.len());
    for (((Batch { expert, .. }, [x, y]), gate), up) in batches.iter().zip(&inputs).zip(&mut gates).zip(&mut ups) {
        jobs.push(Job { x: x.view(), weight: expert.gate, out: gate });
        jobs.push(Job { x: y.view(), weight: expert.up, out: up });
    }
    project(jobs);
    gates.iter_mut().zip(&ups).for_each(|(gate, up)| swiglu_in_place(gate, up));

    let hidden = batches.iter().zip(&gates);
    let inputs: Vec<_> = hidden.map(|(Batch { expert, .. }, hidden)| prepare(hidden, expert.down, mode)).collect();
    let jobs = batches.iter().zip(&inputs).zip(&mut outs);
    project(jobs.map(|((Batch { expert, .. }, x), out)| Job { x: x.view(), weight: expert.down, out }).collect());
    outs
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
