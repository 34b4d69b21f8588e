//! Linear layers on CPU: weights are read where they lie, outputs are divided among threads.

use std::borrow::Cow;

use candle::{CpuStorage, D, DType, Result, Storage, StorageRef, Tensor};
use candle_core as candle;
use rayon::prelude::*;

use super::gemm::{Codes, Weight, X_ROWS, gemm, gemm_pairs, pairs};
use super::in_order::gemm_in_order;
use super::{LinearMode, LinearWeight, StackedWeight, amx};
use crate::ops::cpu::floats::{Floats, to_tensor};
use crate::ops::cpu::simd::{Isa, has_bf16, isa, simd_kernel};
use crate::ops::fp8::{BLOCK, cpu::quantise_rows};

/// Multiply-adds that are worth a thread of their own.
const MACS_PER_THREAD: usize = 200_000;
/// Tasks per thread, so that threads that finish early find more work.
const TASKS_PER_THREAD: usize = 4;
/// Rows of the weight that a task has at least, except the last.
const TASK_WEIGHT_ROWS: usize = 32;
/// How far back a job looks for one with the same input; those that share one stand side by side.
const SHARED_WITHIN: usize = 8;

/// [`linear`](super::linear), and [`linear_fp8`](super::linear_fp8) in the mode [`LinearMode::Fp8`], for a CPU `x`.
pub(super) fn linear(x: &Tensor, weight: &Tensor, scale: Option<&Tensor>, mode: LinearMode) -> Result<Tensor> {
    let values = Floats::new(x)?;
    let held = HeldWeight::new(weight, scale)?;
    let guard = held.read()?;
    let weight = guard.weight()?;
    let input = prepare(values.as_slice(), weight, mode);
    let mut out = vec![0.0; rows_of(x) * guard.n];
    project(vec![Job { x: input.view(), weight, out: &mut out }]);
    to_tensor(out, &output_dims(x, guard.n), x.dtype())
}

/// [`linear_in_order`](super::linear_in_order) for a CPU `x`.
pub(super) fn linear_in_order(x: &Tensor, weight: &Tensor, scale: Option<&Tensor>) -> Result<Tensor> {
    let values = Floats::new(x)?;
    let held = HeldWeight::new(weight, scale)?;
    let guard = held.read()?;
    let ones = vec![1.0; rows_of(x) * guard.k.div_ceil(BLOCK)];
    let mut out = vec![0.0; rows_of(x) * guard.n];
    let x_view = Activations { values: values.as_slice(), scale: &ones, pairs: false };
    project(vec![Job { x: x_view, weight: guard.weight()?, out: &mut out }]);
    to_tensor(out, &output_dims(x, guard.n), x.dtype())
}

/// [`linear_many`](super::linear_many) for a CPU `x`.
pub(super) fn linear_many(x: &Tensor, weights: &[&LinearWeight], mode: LinearMode) -> Result<Vec<Tensor>> {
    let values = Floats::new(x)?;
    let held: Vec<_> = weights.iter().map(|weight| HeldWeight::of(weight)).collect::<Result<_>>()?;
    let guards: Vec<_> = held.iter().map(HeldWeight::read).collect::<Result<_>>()?;
    let plain = Input::plain(values.as_slice());
    let quantised = match mode {
        LinearMode::Fp8 { ue8m0 } if guards.iter().any(|guard| guard.scale.is_some()) => {
            Some(Input::quantised(values.as_slice(), x.dims().last().copied().unwrap_or(1), ue8m0))
        }
        _ => None,
    };
    let mut rounded = Vec::with_capacity(guards.len());
    for guard in &guards {
        let weight = guard.weight()?;
        let rounds = mode == LinearMode::Bf16 && matches!(weight.codes, Codes::Bf16(_));
        rounded.push(rounds.then(|| Input::rounded(values.as_slice(), weight)));
    }
    let mut outs: Vec<_> = guards.iter().map(|guard| vec![0.0; rows_of(x) * guard.n]).collect();
    let mut jobs = Vec::with_capacity(guards.len());
    for ((guard, rounded), out) in guards.iter().zip(&rounded).zip(&mut outs) {
        let input = match (&quantised, &guard.scale) {
            _ if rounded.is_some() => rounded.as_ref().unwrap_or(&plain),
            (Some(quantised), Some(_)) => quantised,
            _ => &plain,
        };
        jobs.push(Job { x: input.view(), weight: guard.weight()?, out });
    }
    project(jobs);
    let results = outs.into_iter().zip(&guards);
    results.map(|(out, guard)| to_tensor(out, &output_dims(x, guard.n), x.dtype())).collect()
}

/// What the product with `weight` sees of `x` in this mode.
pub(crate) fn prepare<'a>(x: &'a [f32], weight: Weight, mode: LinearMode) -> Input<'a> {
    match mode {
        LinearMode::Fp8 { ue8m0 } if !weight.scale.is_empty() => Input::quantised(x, weight.k, ue8m0),
        LinearMode::Bf16 if matches!(weight.codes, Codes::Bf16(_)) => Input::rounded(x, weight),
        _ => Input::plain(x),
    }
}

/// Rows `[M, K]` as a product takes them.
pub(crate) struct Input<'a> {
    values: Cow<'a, [f32]>,
    scale: Vec<f32>,
    pairs: bool,
}

impl<'a> Input<'a> {
    fn plain(x: &'a [f32]) -> Self {
        Self { values: Cow::Borrowed(x), scale: Vec::new(), pairs: false }
    }

    fn quantised(x: &[f32], k: usize, ue8m0: bool) -> Self {
        let (codes, scale) = quantise_rows(x, k, ue8m0);
        Self { values: Cow::Owned(codes), scale, pairs: false }
    }

    /// `x` rounded to bf16: as pairs where the processor multiplies these, else as f32.
    fn rounded(x: &[f32], weight: Weight) -> Self {
        let n = match weight.codes {
            Codes::Bf16(codes) => codes.len() / weight.k.max(1),
            _ => 0,
        };
        let isa = isa();
        // The matrix unit takes f32, and of values that are bf16 one part.
        if has_bf16() && pairs(weight).is_some() && !amx::takes(isa, x, weight, n) {
            let mut values = vec![0.0; x.len() / 2];
            round_pairs(isa, x, &mut values);
            return Self { values: Cow::Owned(values), scale: Vec::new(), pairs: true };
        }
        let mut values = x.to_vec();
        round_each(isa, &mut values);
        Self { values: Cow::Owned(values), scale: Vec::new(), pairs: false }
    }

    pub(crate) fn view(&self) -> Activations<'_> {
        Activations { values: &self.values, scale: &self.scale, pairs: self.pairs }
    }
}

/// A borrowed [`Input`].
#[derive(Clone, Copy)]
pub(crate) struct Activations<'a> {
    /// `[M, K]`: what the scales multiply, as e4m3 codes. With `pairs` `[M, K/2]`: two bf16 as the bits of each f32.
    pub(super) values: &'a [f32],
    /// `[M, ceil(K/128)]`, or empty. With scales, products are added in order.
    pub(super) scale: &'a [f32],
    pub(super) pairs: bool,
}

impl Activations<'_> {
    /// Elements of `values` in a row of `k` columns.
    fn width(&self, k: usize) -> usize {
        if self.pairs { k / 2 } else { k }
    }
}

/// The bits of `value` as bf16, rounded to nearest, ties to even; NaN stays NaN.
#[inline(always)]
fn bf16_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if value.is_nan() { bits >> 16 | 0x40 } else { rounded }
}

#[inline(always)]
fn round_pairs_body<const FMA: bool>(x: &[f32], pairs: &mut [f32]) {
    for (pair, x) in pairs.iter_mut().zip(x.as_chunks::<2>().0) {
        *pair = f32::from_bits(bf16_bits(x[0]) | bf16_bits(x[1]) << 16);
    }
}
simd_kernel! {
    /// `x` rounded to bf16, two in the bits of each of `pairs`.
    fn round_pairs(x: &[f32], pairs: &mut [f32]) = round_pairs_body
}

#[inline(always)]
fn round_each_body<const FMA: bool>(x: &mut [f32]) {
    for x in x {
        *x = f32::from_bits(bf16_bits(*x) << 16);
    }
}
simd_kernel! {
    /// Rounds to bf16.
    fn round_each(x: &mut [f32]) = round_each_body
}

fn rows_of(x: &Tensor) -> usize {
    let dims = x.dims();
    dims[..dims.len().saturating_sub(1)].iter().product()
}

fn output_dims(x: &Tensor, n: usize) -> Vec<usize> {
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = n;
    }
    dims
}

/// A weight `[N, K]`, or several stacked, `[E, N, K]`, in row-major order.
pub(crate) struct HeldWeight {
    weight: Tensor,
    scale: Option<Tensor>,
}

impl HeldWeight {
    pub(crate) fn of(weight: &LinearWeight) -> Result<Self> {
        Self::new(&weight.weight, weight.weight_scale_inv.as_ref())
    }

    pub(crate) fn stacked(weight: &StackedWeight) -> Result<Self> {
        Self::new(&weight.weight, weight.weight_scale_inv.as_ref())
    }

    fn new(weight: &Tensor, scale: Option<&Tensor>) -> Result<Self> {
        Ok(Self { weight: weight.contiguous()?, scale: scale.cloned() })
    }

    /// Locks the weight for reading.
    pub(crate) fn read(&self) -> Result<WeightGuard<'_>> {
        let (n, k) = (self.weight.dim(D::Minus2)?, self.weight.dim(D::Minus1)?);
        let (guard, layout) = self.weight.storage_and_layout();
        let scale = self.scale.as_ref().map(Floats::new).transpose()?;
        Ok(WeightGuard { guard, start: layout.start_offset(), n, k, scale })
    }
}

/// A weight locked for reading.
pub(crate) struct WeightGuard<'a> {
    guard: StorageRef<'a>,
    start: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    scale: Option<Floats<'a>>,
}

impl WeightGuard<'_> {
    /// The weight, or the first of a stack.
    pub(crate) fn weight(&self) -> Result<Weight<'_>> {
        self.matrix(0)
    }

    /// Matrix `index` of a stack.
    pub(crate) fn matrix(&self, index: usize) -> Result<Weight<'_>> {
        let size = self.n * self.k;
        let range = self.start + index * size..self.start + (index + 1) * size;
        let codes = match &*self.guard {
            Storage::Cpu(CpuStorage::F32(values)) => Codes::F32(&values[range]),
            Storage::Cpu(CpuStorage::BF16(values)) => Codes::Bf16(&values[range]),
            Storage::Cpu(CpuStorage::F16(values)) => Codes::F16(&values[range]),
            Storage::Cpu(CpuStorage::F8E4M3(values)) => Codes::F8e4m3(&values[range]),
            _ => candle::bail!(
                "a weight must be on CPU and {:?}, {:?}, {:?} or {:?}",
                DType::F32,
                DType::BF16,
                DType::F16,
                DType::F8E4M3
            ),
        };
        let blocks = self.n.div_ceil(BLOCK) * self.k.div_ceil(BLOCK);
        let scale = self.scale.as_ref().map_or(&[][..], |scale| &scale.as_slice()[index * blocks..][..blocks]);
        Ok(Weight { codes, k: self.k, scale })
    }
}

/// A product to compute: `out` `[M, N]` becomes `x` `[M, K]` times `weightᵀ`.
pub(crate) struct Job<'a> {
    pub(crate) x: Activations<'a>,
    pub(crate) weight: Weight<'a>,
    pub(crate) out: &'a mut [f32],
}

/// Computes all products, on one thread if they are small, else divided among rayon's.
pub(crate) fn project(mut jobs: Vec<Job>) {
    jobs.retain(|job| !job.out.is_empty() && job.weight.k > 0);
    let isa = isa();
    let packed = Packings::new(isa, &jobs);
    let macs = |job: &Job| job.out.len() * job.weight.k;
    let total: usize = jobs.iter().map(macs).sum();
    let threads = rayon::current_num_threads().min(total / MACS_PER_THREAD);
    let macs_per_task = if threads <= 1 { total } else { total / (threads * TASKS_PER_THREAD) + 1 };
    let tasks = jobs.into_iter().enumerate().flat_map(|(job, parts)| divide(parts, packed.of(job), macs_per_task));
    if threads <= 1 {
        tasks.for_each(|task| task.run(isa));
    } else {
        tasks.collect::<Vec<_>>().into_par_iter().for_each(|task| task.run(isa));
    }
}

/// Inputs laid out for the matrix unit, once for all jobs that share one.
struct Packings {
    packings: Vec<amx::Packed>,
    /// Index of each job's packing.
    of_job: Vec<Option<usize>>,
}

impl Packings {
    fn new(isa: Isa, jobs: &[Job]) -> Self {
        let mut this = Self { packings: Vec::new(), of_job: Vec::with_capacity(jobs.len()) };
        for (index, Job { x, weight, out }) in jobs.iter().enumerate() {
            // The unit would add the products in another order.
            if !x.scale.is_empty() || x.pairs {
                this.of_job.push(None);
                continue;
            }
            let x = x.values;
            let n = out.len() / (x.len() / weight.k);
            let same = |&other: &usize| {
                std::ptr::eq(jobs[other].x.values, x)
                    && jobs[other].weight.k == weight.k
                    && this.of_job[other].is_some()
            };
            let packing = match (0..index).rev().take(SHARED_WITHIN).find(same) {
                Some(other) if amx::takes(isa, x, *weight, n) => this.of_job[other],
                _ => amx::Packed::new(isa, x, *weight, n).map(|packed| {
                    this.packings.push(packed);
                    this.packings.len() - 1
                }),
            };
            this.of_job.push(packing);
        }
        this
    }

    fn of(&self, job: usize) -> Option<&amx::Packed> {
        self.of_job[job].map(|packing| &self.packings[packing])
    }
}

/// A part of a product: rows of `x` with rows of the weight.
struct Task<'a> {
    x: Activations<'a>,
    /// All rows laid out for the matrix unit, and which of them is the first of `x`.
    packed: Option<(&'a amx::Packed, usize)>,
    weight: Weight<'a>,
    first_row: usize,
    out: Vec<&'a mut [f32]>,
}

impl Task<'_> {
    fn run(mut self, isa: Isa) {
        let rows = self.out.first().map_or(0, |row| row.len());
        let rows = self.first_row..self.first_row + rows;
        match self.packed {
            Some((packed, first_x)) => amx::gemm(packed, first_x, self.weight, rows, &mut self.out),
            None if self.x.pairs => gemm_pairs(self.x.values, self.weight, rows, &mut self.out),
            None if self.x.scale.is_empty() => gemm(isa, self.x.values, self.weight, rows, &mut self.out),
            None => gemm_in_order(isa, self.x, self.weight, rows, &mut self.out),
        }
    }
}

/// Cuts a product into tasks of about `macs_per_task`; bits do not depend on where.
fn divide<'a>(job: Job<'a>, packed: Option<&'a amx::Packed>, macs_per_task: usize) -> Vec<Task<'a>> {
    let Job { x, weight, out } = job;
    let k = weight.k;
    let width = x.width(k);
    let rows = x.values.len() / width;
    let n = out.len() / rows;
    let scale_columns = if x.scale.is_empty() { 0 } else { k.div_ceil(BLOCK) };
    let (task_rows, most_columns) = match packed {
        Some(_) => (amx::TASK_ROWS, amx::TASK_COLUMNS),
        None => (X_ROWS, usize::MAX),
    };
    let mut tasks = Vec::new();
    for (block, (values, out)) in x.values.chunks(task_rows * width).zip(out.chunks_mut(task_rows * n)).enumerate() {
        let scale = &x.scale[block * task_rows * scale_columns..][..values.len() / width * scale_columns];
        let x = Activations { values, scale, pairs: x.pairs };
        let columns =
            (macs_per_task / (values.len() / width * k)).next_multiple_of(TASK_WEIGHT_ROWS).max(TASK_WEIGHT_ROWS);
        let columns = columns.min(most_columns);
        let mut parts: Vec<Vec<&mut [f32]>> = Vec::new();
        parts.resize_with(n.div_ceil(columns), || Vec::with_capacity(values.len() / width));
        for row in out.chunks_mut(n) {
            parts.iter_mut().zip(row.chunks_mut(columns)).for_each(|(part, piece)| part.push(piece));
        }
        let packed = packed.map(|packed| (packed, block * task_rows));
        let parts = parts.into_iter().enumerate();
        tasks.extend(parts.map(|(part, out)| Task { x, packed, weight, first_row: part * columns, out }));
    }
    tasks
}
