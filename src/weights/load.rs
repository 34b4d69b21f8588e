//! A [`Checkpoint`]'s values into memory, as the tensors behind a `VarBuilder`.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Shape, Tensor, WithDType};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use float8::F8E4M3;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

use super::checkpoint::{CHUNK_BYTES, Checkpoint, Located, Planned};
use super::decode::{Element, append, append_converted, check_fit, scale_runs, scales};
use super::error::Result;
use super::error::TensorProblem;
use super::names::{EMBEDDING_SUFFIX, SELECTION_BIAS, TensorKind};

/// How to load a checkpoint.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The `VarBuilder`'s dtype, f32, bf16 or f16: what norms come in, and what the model computes in between.
    pub dtype: DType,
    /// Converts every matrix to f32, bf16 or f16; FP8 weights are multiplied by their scales. `None` keeps each in the
    /// dtype it is stored in.
    pub weight_dtype: Option<DType>,
    /// Where to put the tensors.
    pub device: Device,
}

impl Default for LoadOptions {
    /// f32, matrices as stored, on CPU.
    fn default() -> Self {
        Self { dtype: DType::F32, weight_dtype: None, device: Device::Cpu }
    }
}

/// How far loading has come.
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
    /// The `VarBuilder` hands out matrices in the dtype they are stored in (or in `options.weight_dtype`), whatever
    /// dtype it is asked for: `weight` may come as `F8E4M3`, and then `weight_scale_inv` is there too, always f32, one
    /// value a block. Norms and biases come in the dtype asked for, `e_score_correction_bias` always in f32. Copies of
    /// the embedding and the head that the files lack (tied head, MTP layers) share the original's storage.
    ///
    /// Tensors are read in parallel, each once, and their mapped pages let go behind the reader: the peak is the
    /// model's size plus some 16 MiB a thread. `progress` is called after every tensor, from one thread at a time,
    /// with counts that only grow.
    ///
    /// # Errors
    /// [`WeightsError::Tensor`](super::WeightsError::Tensor) for the first tensor, in the order of the model, with a
    /// value that is not finite or does not fit in the dtype it is converted to, or with scales that are not positive;
    /// [`WeightsError::Candle`](super::WeightsError::Candle) for a dtype that cannot be asked for, or a device failure.
    pub fn var_builder(
        &self,
        options: &LoadOptions,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<VarBuilder<'static>> {
        for dtype in [Some(options.dtype), options.weight_dtype].into_iter().flatten() {
            if !matches!(dtype, DType::F32 | DType::BF16 | DType::F16) {
                return Err(candle_core::Error::Msg(format!("cannot load as {dtype:?}, only f32, bf16 or f16")).into());
            }
        }
        let loaded = self.load_all(options, &progress)?;
        let mut tensors = HashMap::with_capacity(loaded.len());
        let mut copies = Vec::new();
        for (planned, tensor) in self.plan.iter().zip(loaded) {
            match tensor {
                Loaded::Tensor(tensor, None) => drop(tensors.insert(planned.name.clone(), tensor)),
                Loaded::Tensor(tensor, Some((scale_name, scale))) => {
                    tensors.insert(planned.name.clone(), tensor);
                    tensors.insert(scale_name, scale);
                }
                Loaded::CopyOf(original) => copies.push((planned.name.clone(), original.to_string())),
            }
        }
        for (copy, original) in copies.into_iter().chain(self.aliases.iter().cloned()) {
            if let Some(tensor) = tensors.get(&original).cloned() {
                tensors.insert(copy, tensor);
            }
        }
        Ok(VarBuilder::from_backend(Box::new(Tensors(tensors)), options.dtype, options.device.clone()))
    }

    /// Loads the plan in parallel. Which error is returned does not depend on timing: a tensor is skipped only if one
    /// before it has failed.
    fn load_all(&self, options: &LoadOptions, progress: &(impl Fn(Progress) + Send + Sync)) -> Result<Vec<Loaded>> {
        let size = |planned: &Planned| -> u64 {
            let names = [Some(planned.name.as_str()), planned.scale.as_deref()];
            let located = names.into_iter().flatten().filter_map(|name| self.located(name));
            located.map(|located| (located.entry.end - located.entry.start) as u64).sum()
        };
        let tensors_total = self.plan.len();
        let bytes_total = self.plan.iter().map(size).sum();
        let done = Mutex::new((0, 0));
        let first_failed = AtomicUsize::new(usize::MAX);
        let results: Vec<Option<Result<Loaded>>> = self
            .plan
            .par_iter()
            .enumerate()
            .map(|(i, planned)| {
                if first_failed.load(Ordering::Relaxed) < i {
                    return None;
                }
                let result = self.load_planned(planned, options);
                if result.is_err() {
                    first_failed.fetch_min(i, Ordering::Relaxed);
                    return Some(result);
                }
                let mut done = done.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                *done = (done.0 + 1, done.1 + size(planned));
                let (tensors_done, bytes_done) = *done;
                progress(Progress { tensors_done, tensors_total, bytes_done, bytes_total, name: &planned.name });
                Some(result)
            })
            .collect();
        // Nothing before the first failure was skipped, and nothing is returned after it.
        results.into_iter().flatten().collect()
    }

    fn load_planned(&self, planned: &Planned, options: &LoadOptions) -> Result<Loaded> {
        let Some(located) = self.located(&planned.name) else {
            return Err(self.tensor_error(&planned.name, TensorProblem::Missing));
        };
        let same = |name: &str| self.located(name).is_some_and(|original| self.identical(located, original));
        if let Some(original) = planned.copy_of.filter(|name| same(name)) {
            return Ok(Loaded::CopyOf(original));
        }
        let cast = match planned.kind {
            // A vector is stored in f32, which holds every value exactly, and converted when asked for.
            TensorKind::Vector => Some(DType::F32),
            _ => options.weight_dtype,
        };
        let scale = match &planned.scale {
            None => None,
            Some(name) => Some((name, self.load_scales(name)?)),
        };
        let scale_values = scale.as_ref().map(|(_, (values, _))| values.as_slice());
        // What norms are asked for in, and what the model turns rows of the embedding into.
        let becomes = match planned.kind {
            TensorKind::Vector => !planned.name.ends_with(SELECTION_BIAS),
            _ => planned.name.ends_with(EMBEDDING_SUFFIX),
        };
        let becomes = becomes.then_some(options.dtype);
        let reader = Reader { checkpoint: self, located, device: &options.device, becomes };
        let tensor = match (located.entry.dtype, cast) {
            (Dtype::F32, cast) => reader.read::<f32>(cast, None),
            (Dtype::BF16, cast) => reader.read::<bf16>(cast, None),
            (Dtype::F16, cast) => reader.read::<f16>(cast, None),
            (Dtype::F8_E4M3, cast) => reader.read::<F8E4M3>(cast, scale_values),
            (found, _) => Err(Failure::Problem(TensorProblem::DType { found, expected: "a float dtype" })),
        };
        let tensor = tensor.map_err(|failure| match failure {
            Failure::Problem(problem) => self.tensor_error(&planned.name, problem),
            Failure::Candle(error) => error.into(),
        })?;
        // Scales that were multiplied into the weight are spent.
        let scale = match scale {
            Some((name, (values, shape))) if cast.is_none() => {
                Some((name.clone(), Tensor::from_vec(values, shape, &options.device)?))
            }
            _ => None,
        };
        Ok(Loaded::Tensor(tensor, scale))
    }

    fn load_scales(&self, name: &str) -> Result<(Vec<f32>, Vec<usize>)> {
        let Some(located) = self.located(name) else {
            return Err(self.tensor_error(name, TensorProblem::Missing));
        };
        let bytes = self.bytes(located);
        let values = scales(bytes, located.entry.dtype).map_err(|problem| self.tensor_error(name, problem))?;
        self.release(located, 0..bytes.len());
        Ok((values, located.entry.shape.clone()))
    }
}

enum Loaded {
    /// With its scales, if it has any, and their name.
    Tensor(Tensor, Option<(String, Tensor)>),
    /// The file holds the same bytes as this tensor.
    CopyOf(&'static str),
}

enum Failure {
    Problem(TensorProblem),
    Candle(candle_core::Error),
}

impl From<TensorProblem> for Failure {
    fn from(problem: TensorProblem) -> Self {
        Self::Problem(problem)
    }
}

/// Reads one tensor chunk by chunk.
struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    located: &'a Located,
    device: &'a Device,
    /// The dtype that the values must fit in, whatever they are stored as.
    becomes: Option<DType>,
}

impl Reader<'_> {
    /// The tensor, stored as `T`, in dtype `cast` and multiplied by its scales, or unchanged without `cast`.
    fn read<T: Element + WithDType>(
        &self,
        cast: Option<DType>,
        scales: Option<&[f32]>,
    ) -> std::result::Result<Tensor, Failure> {
        match cast {
            Some(cast) if cast != T::DTYPE => match cast {
                DType::F32 => self.convert::<T, f32>(scales),
                DType::BF16 => self.convert::<T, bf16>(scales),
                _ => self.convert::<T, f16>(scales),
            },
            _ => {
                let mut out = Vec::with_capacity(self.elements());
                self.for_each_chunk::<T>(|bytes, first| {
                    append::<T>(bytes, first, &mut out)?;
                    self.check_fit(&out[first..], first)
                })?;
                self.tensor(out)
            }
        }
    }

    fn convert<T: Element + WithDType, U: Element + WithDType>(
        &self,
        scales: Option<&[f32]>,
    ) -> std::result::Result<Tensor, Failure> {
        let mut out: Vec<U> = Vec::with_capacity(self.elements());
        let mut chunk: Vec<T> = Vec::new();
        let columns = self.located.entry.shape.last().copied().unwrap_or(1);
        let block = self.checkpoint.config().quantization_config.as_ref().map(|q| q.weight_block_size);
        self.for_each_chunk::<T>(|bytes, first| {
            chunk.clear();
            append::<T>(bytes, first, &mut chunk)?;
            self.check_fit(&chunk, first)?;
            let (Some(scales), Some([block_rows, block_columns])) = (scales, block) else {
                return append_converted(chunk.iter().map(|value| value.to_f32()), first, &mut out);
            };
            let scale_columns = columns.div_ceil(block_columns);
            let mut rest = chunk.as_slice();
            let mut element = first;
            while !rest.is_empty() {
                let (row, column) = (element / columns, element % columns);
                let run = (columns - column).min(rest.len());
                let (now, later) = rest.split_at(run);
                let row_scales = scales.get(row / block_rows * scale_columns..).unwrap_or_default();
                let row_scales = scale_runs(row_scales, block_columns, column, run);
                let values = now.iter().zip(row_scales).map(|(value, scale)| value.to_f32() * scale);
                append_converted(values, element, &mut out)?;
                (rest, element) = (later, element + run);
            }
            Ok(())
        })?;
        self.tensor(out)
    }

    fn check_fit<T: Element + WithDType>(&self, values: &[T], first: usize) -> std::result::Result<(), TensorProblem> {
        match self.becomes {
            Some(DType::F16) if T::DTYPE != DType::F16 => check_fit::<T, f16>(values, first),
            Some(DType::BF16) if T::DTYPE == DType::F32 => check_fit::<T, bf16>(values, first),
            _ => Ok(()),
        }
    }

    fn elements(&self) -> usize {
        self.located.entry.shape.iter().product()
    }

    fn tensor<T: WithDType>(&self, values: Vec<T>) -> std::result::Result<Tensor, Failure> {
        Tensor::from_vec(values, self.located.entry.shape.as_slice(), self.device).map_err(Failure::Candle)
    }

    /// Calls `body(bytes, index of the first element)` for each chunk, and lets its pages go.
    fn for_each_chunk<T: Element>(
        &self,
        mut body: impl FnMut(&[u8], usize) -> std::result::Result<(), TensorProblem>,
    ) -> std::result::Result<(), TensorProblem> {
        // A multiple of every element size.
        for (i, bytes) in self.checkpoint.bytes(self.located).chunks(CHUNK_BYTES).enumerate() {
            let start = i * CHUNK_BYTES;
            body(bytes, start / T::SIZE)?;
            self.checkpoint.release(self.located, start..start + bytes.len());
        }
        Ok(())
    }
}

/// The loaded tensors by name; what is handed out shares their storage.
struct Tensors(HashMap<String, Tensor>);

impl Tensors {
    fn find(&self, name: &str) -> candle_core::Result<&Tensor> {
        self.0.get(name).ok_or_else(|| candle_core::Error::CannotFindTensor { path: name.to_string() }.bt())
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
        self.0.contains_key(name)
    }
}
