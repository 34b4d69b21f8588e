//! Reads the tensors of a [`Checkpoint`] into memory, behind a `VarBuilder`.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Shape, Tensor, Var, WithDType};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{VarBuilder, VarMap};
use float8::F8E4M3;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

use super::checkpoint::{Checkpoint, Planned};
use super::decode::Element;
use super::error::{Result, TensorProblem, WeightsError};
use super::names::{EMBEDDING_SUFFIX, SCALE_SUFFIX, SELECTION_BIAS, TensorKind, place_in_stack};
use super::read::{Reader, read_scales};

/// How to load a checkpoint.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The dtype of the `VarBuilder`: f32, bf16 or f16. Norms have it, and so have activations of the model.
    pub dtype: DType,
    /// Converts every matrix to f32, bf16 or f16, with FP8 weights multiplied by their scales. `None` keeps the dtype
    /// of the file.
    pub weight_dtype: Option<DType>,
    /// The device of the tensors.
    pub device: Device,
}

impl Default for LoadOptions {
    /// f32, matrices as stored, on CPU.
    fn default() -> Self {
        Self { dtype: DType::F32, weight_dtype: None, device: Device::Cpu }
    }
}

/// Progress of loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Tensors in memory.
    pub tensors_done: usize,
    /// Tensors to load, scales not counted.
    pub tensors_total: usize,
    /// Bytes of the files read.
    pub bytes_done: u64,
    /// Bytes of the files to read.
    pub bytes_total: u64,
    /// The tensor just finished.
    pub name: &'a str,
}

impl Checkpoint {
    /// Reads every tensor and checks that it is finite.
    ///
    /// The `VarBuilder` returns matrices in the dtype of the file (or in `options.weight_dtype`), whatever dtype is
    /// requested: a `weight` may be `F8E4M3`, with a `weight_scale_inv` in f32 of one value for each block. Norms and
    /// biases have the requested dtype, `e_score_correction_bias` is always f32. Copies of the embedding and the head
    /// that the files lack (tied head, MTP layers) share the storage of the original.
    ///
    /// The routed experts of a layer are stacked, one tensor for each projection:
    /// `model.layers.N.mlp.experts.gate_proj.weight`, `[E, moe_intermediate_size, hidden_size]`, and its
    /// `weight_scale_inv`, `[E, ..]`. The names of the files, `model.layers.N.mlp.experts.0.gate_proj.weight`, give
    /// views of them. Experts of one projection that are stored in several dtypes are converted to f32.
    ///
    /// Tensors are read in parallel, each once and straight into its place, and their mapped pages are released behind
    /// the reader: the peak is the model's size plus some 16 MiB a thread. `progress` is called after every tensor of
    /// the files, from one thread at a time, with counts that only grow.
    ///
    /// # Errors
    /// [`WeightsError::Tensor`] for the first tensor, in the order of the model, with a
    /// value that is not finite or does not fit in the dtype it is converted to, or scales that are not positive;
    /// [`WeightsError::Candle`] for options with another dtype, or a device failure.
    pub fn var_builder(
        &self,
        options: &LoadOptions,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<VarBuilder<'static>> {
        let (mut tensors, copies) = self.load_tensors(options, &progress)?;
        for (copy, original) in copies.into_iter().chain(self.aliases.iter().cloned()) {
            if let Some(tensor) = tensors.get(&original).cloned() {
                tensors.insert(copy, tensor);
            }
        }
        Ok(VarBuilder::from_backend(Box::new(Tensors(tensors)), options.dtype, options.device.clone()))
    }

    /// Reads every tensor into the variables of `varmap`, for [`Model::init`](crate::model::Model::init) to train.
    ///
    /// Variables that are there are set, others are added. Matrices have `options.weight_dtype`, or `options.dtype` if
    /// that is `None`; norms, biases and `e_score_correction_bias` are f32. The routed experts of a layer are stacked as
    /// in [`Checkpoint::var_builder`]. An MTP layer's copies of the embedding and the head make no variables if they
    /// equal the original, which the model then shares.
    ///
    /// # Errors
    /// As [`Checkpoint::var_builder`], and if a variable has another shape or dtype.
    pub fn load_variables(
        &self,
        varmap: &VarMap,
        options: &LoadOptions,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<()> {
        let weight_dtype = options.weight_dtype.or(Some(options.dtype));
        let (tensors, _) = self.load_tensors(&LoadOptions { weight_dtype, ..options.clone() }, &progress)?;
        let mut variables = varmap.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for (name, tensor) in tensors {
            match variables.get(&name) {
                Some(variable) => {
                    variable.set(&tensor).map_err(|error| candle_core::Error::Msg(format!("{name}: {error}")))?
                }
                None => drop(variables.insert(name, Var::from_tensor(&tensor)?)),
            }
        }
        Ok(())
    }

    /// Reads every tensor, experts stacked. Returns them by name, without those that equal another.
    fn load_tensors(
        &self,
        options: &LoadOptions,
        progress: &(impl Fn(Progress) + Send + Sync),
    ) -> Result<(HashMap<String, Tensor>, Copies)> {
        for dtype in [Some(options.dtype), options.weight_dtype].into_iter().flatten() {
            if !matches!(dtype, DType::F32 | DType::BF16 | DType::F16) {
                return Err(candle_core::Error::Msg(format!("cannot load as {dtype:?}, only f32, bf16 or f16")).into());
            }
        }
        let stacks = self.stacks();
        let run = Run::new(self, options, progress);
        let results: Vec<_> = stacks.par_iter().map(|stack| run.load(stack)).collect();
        // What was skipped comes after a failure.
        let (loaded, failed): (Vec<_>, Vec<_>) = results.into_iter().flatten().partition(|result| result.is_ok());
        let first = failed.into_iter().filter_map(|result| result.err()).min_by_key(|failed| failed.position);
        if let Some(Failed { error, .. }) = first {
            return Err(error);
        }
        let mut tensors = HashMap::new();
        let mut copies = Vec::new();
        for (stack, loaded) in stacks.into_iter().zip(loaded.into_iter().flatten()) {
            match loaded {
                Loaded::Tensor(tensor, scale) => {
                    tensors.extend(scale.map(|scale| (format!("{}{SCALE_SUFFIX}", stack.name), scale)));
                    tensors.insert(stack.name, tensor);
                }
                Loaded::CopyOf(original) => copies.push((stack.name, original.to_string())),
            }
        }
        Ok((tensors, copies))
    }

    /// The plan, the experts of each projection together.
    fn stacks(&self) -> Vec<Stack<'_>> {
        let mut stacks: Vec<Stack> = Vec::new();
        let mut by_name = HashMap::new();
        for (position, planned) in self.plan.iter().enumerate() {
            let is_expert = place_in_stack(&planned.name);
            let stacked = is_expert.is_some();
            let name = is_expert.map_or_else(|| planned.name.clone(), |(name, _)| name);
            let index = *by_name.entry(name.clone()).or_insert(stacks.len());
            if index == stacks.len() {
                stacks.push(Stack { name, stacked, members: Vec::new() });
            }
            stacks[index].members.push((position, planned));
        }
        stacks
    }
}

/// Names of tensors, each with the name of the tensor that it equals.
type Copies = Vec<(String, String)>;

/// Tensors of the plan that become one.
struct Stack<'a> {
    /// The name of the one.
    name: String,
    /// Whether its first dimension counts experts; otherwise it has one member.
    stacked: bool,
    /// Each with its position in the plan; experts in ascending order.
    members: Vec<(usize, &'a Planned)>,
}

enum Loaded {
    /// With its scales, if it has any.
    Tensor(Tensor, Option<Tensor>),
    /// The file holds the same bytes as this tensor.
    CopyOf(&'static str),
}

struct Failed {
    /// Of the tensor at fault in the plan.
    position: usize,
    error: WeightsError,
}

/// One loading of a checkpoint, shared by the threads that take part.
struct Run<'a, P> {
    checkpoint: &'a Checkpoint,
    options: &'a LoadOptions,
    progress: &'a P,
    /// Tensors and bytes.
    total: (usize, u64),
    done: Mutex<(usize, u64)>,
    /// The position of the first tensor known to fail: what comes after it is skipped, what comes before it is not, so
    /// that the error does not depend on timing.
    first_failed: AtomicUsize,
}

impl<'a, P: Fn(Progress) + Send + Sync> Run<'a, P> {
    fn new(checkpoint: &'a Checkpoint, options: &'a LoadOptions, progress: &'a P) -> Self {
        let total = (checkpoint.plan.len(), checkpoint.plan.iter().map(|planned| bytes(checkpoint, planned)).sum());
        let (done, first_failed) = (Mutex::new((0, 0)), AtomicUsize::new(usize::MAX));
        Self { checkpoint, options, progress, total, done, first_failed }
    }

    fn report(&self, planned: &Planned) {
        let mut done = self.done.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *done = (done.0 + 1, done.1 + bytes(self.checkpoint, planned));
        let ((tensors_done, bytes_done), (tensors_total, bytes_total)) = (*done, self.total);
        (self.progress)(Progress { tensors_done, tensors_total, bytes_done, bytes_total, name: &planned.name });
    }

    /// Loads all members of a stack; `None` if a tensor before one of them has failed.
    fn load(&self, stack: &Stack) -> Option<std::result::Result<Loaded, Failed>> {
        if let [(_, planned)] = stack.members[..] {
            let same = |name: &str| {
                let pair = self.checkpoint.located(&planned.name).zip(self.checkpoint.located(name));
                pair.is_some_and(|(copy, original)| self.checkpoint.identical(copy, original))
            };
            if let Some(original) = planned.copy_of.filter(|name| same(name)) {
                self.report(planned);
                return Some(Ok(Loaded::CopyOf(original)));
            }
        }
        match self.dtype(stack) {
            DType::F8E4M3 => self.load_as::<F8E4M3>(stack),
            DType::BF16 => self.load_as::<bf16>(stack),
            DType::F16 => self.load_as::<f16>(stack),
            _ => self.load_as::<f32>(stack),
        }
    }

    /// The dtype that a stack is kept in.
    fn dtype(&self, stack: &Stack) -> DType {
        let mut kept = None;
        for (_, planned) in &stack.members {
            let stored = self.checkpoint.located(&planned.name).map(|located| located.entry.dtype);
            let dtype = match (planned.kind, self.options.weight_dtype, stored) {
                // Stored in f32, which holds every value exactly, and converted when asked for.
                (TensorKind::Vector, _, _) => DType::F32,
                (_, Some(dtype), _) => dtype,
                (_, None, Some(Dtype::F8_E4M3)) => DType::F8E4M3,
                (_, None, Some(Dtype::BF16)) => DType::BF16,
                (_, None, Some(Dtype::F16)) => DType::F16,
                (_, None, _) => DType::F32,
            };
            if *kept.get_or_insert(dtype) != dtype {
                return DType::F32;
            }
        }
        kept.unwrap_or(DType::F32)
    }

    fn load_as<T: Element + WithDType>(&self, stack: &Stack) -> Option<std::result::Result<Loaded, Failed>> {
        let located = |planned: &Planned| self.checkpoint.located(&planned.name);
        let elements = |planned: &Planned| located(planned).map_or(0, |l| l.entry.shape.iter().product::<usize>());
        let mut values: Vec<T> = Vec::with_capacity(stack.members.iter().map(|(_, planned)| elements(planned)).sum());
        let mut scales = Vec::new();
        let mut last = 0;
        for &(position, planned) in &stack.members {
            if self.first_failed.load(Ordering::Relaxed) < position {
                return None;
            }
            if let Err(error) = self.append(planned, &mut values, &mut scales) {
                self.first_failed.fetch_min(position, Ordering::Relaxed);
                return Some(Err(Failed { position, error }));
            }
            self.report(planned);
            last = position;
        }
        let tensor = self.tensor(stack, values, scales);
        Some(tensor.map_err(|error| Failed { position: last, error: error.into() }))
    }

    /// Reads a tensor to the end of `values`, and its scales, if it stays FP8, to the end of `scales`.
    fn append<T: Element + WithDType>(
        &self,
        planned: &Planned,
        values: &mut Vec<T>,
        scales: &mut Vec<f32>,
    ) -> Result<()> {
        let fail = |name: &str, problem| self.checkpoint.tensor_error(name, problem);
        let Some(located) = self.checkpoint.located(&planned.name) else {
            return Err(fail(&planned.name, TensorProblem::Missing));
        };
        let own_scales = match &planned.scale {
            Some(name) => read_scales(self.checkpoint, name).map_err(|problem| fail(name, problem))?,
            None => Vec::new(),
        };
        // What norms are asked for in, and what the model turns rows of the embedding into.
        let becomes = match planned.kind {
            TensorKind::Vector => !planned.name.ends_with(SELECTION_BIAS),
            _ => planned.name.ends_with(EMBEDDING_SUFFIX),
        };
        let becomes = becomes.then_some(self.options.dtype);
        let reader = Reader { checkpoint: self.checkpoint, located, becomes, scales: &own_scales };
        reader.append(values).map_err(|problem| fail(&planned.name, problem))?;
        // Scales that were multiplied into the weight are spent.
        if T::DTYPE == DType::F8E4M3 {
            scales.extend(own_scales);
        }
        Ok(())
    }

    fn tensor<T: WithDType>(&self, stack: &Stack, values: Vec<T>, scales: Vec<f32>) -> candle_core::Result<Loaded> {
        let count = stack.stacked.then_some(stack.members.len());
        let shape = |name: Option<&str>| -> Vec<usize> {
            let one = name.and_then(|name| self.checkpoint.located(name)).map(|located| &located.entry.shape);
            count.iter().chain(one.into_iter().flatten()).copied().collect()
        };
        let planned = stack.members.first().map(|(_, planned)| planned);
        let device = &self.options.device;
        let tensor = Tensor::from_vec(values, shape(planned.map(|planned| planned.name.as_str())), device)?;
        let scale = match scales.is_empty() {
            true => None,
            false => Some(Tensor::from_vec(scales, shape(planned.and_then(|p| p.scale.as_deref())), device)?),
        };
        Ok(Loaded::Tensor(tensor, scale))
    }
}

/// Bytes of a tensor and its scales in the files.
fn bytes(checkpoint: &Checkpoint, planned: &Planned) -> u64 {
    let names = [Some(planned.name.as_str()), planned.scale.as_deref()];
    let located = names.into_iter().flatten().filter_map(|name| checkpoint.located(name));
    located.map(|located| (located.entry.end - located.entry.start) as u64).sum()
}

/// The loaded tensors by name, experts stacked; what is handed out shares their storage.
struct Tensors(HashMap<String, Tensor>);

impl Tensors {
    fn find(&self, name: &str) -> candle_core::Result<Tensor> {
        if let Some(tensor) = self.0.get(name) {
            return Ok(tensor.clone());
        }
        match self.stack_of(name) {
            Some((stack, expert)) => stack.get(expert),
            None => Err(candle_core::Error::CannotFindTensor { path: name.to_string() }.bt()),
        }
    }

    /// The stack that holds the expert's tensor `name`, and the expert.
    fn stack_of(&self, name: &str) -> Option<(&Tensor, usize)> {
        let (stack, expert) = place_in_stack(name)?;
        let stack = self.0.get(&stack)?;
        (expert < stack.dims().first().copied().unwrap_or(0)).then_some((stack, expert))
    }
}

impl SimpleBackend for Tensors {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let tensor = self.find(name)?;
        if tensor.shape() != &shape {
            let (msg, got) = (format!("shape mismatch for {name}"), tensor.shape().clone());
            return Err(candle_core::Error::UnexpectedShape { msg, expected: shape, got }.bt());
        }
        self.get_unchecked(name, dtype, device)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let tensor = self.find(name)?.to_device(device)?;
        if tensor.rank() == 1 && !name.ends_with(SELECTION_BIAS) { tensor.to_dtype(dtype) } else { Ok(tensor) }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains_key(name) || self.stack_of(name).is_some()
    }
}
