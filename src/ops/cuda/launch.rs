//! The one way in which a kernel is launched.

use std::fmt::Write;

use candle::cuda_backend::CudaStorageSlice;
use candle::cuda_backend::cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use candle::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtr, LaunchConfig, PushKernelArg, SyncOnDrop};
use candle::{CudaDevice, Layout, Result, Storage, Tensor};
use candle_core as candle;

use super::matrix::Matrix;
use super::module::{Module, function};
use super::{DeviceLayout, Rows};

/// Shared memory that a block gets without being asked for more.
const DEFAULT_SHARED: usize = 48 << 10;

/// A launch in the making: a kernel and its arguments, in the order of the kernel's parameters.
pub(crate) struct Launch<'a> {
    module: &'static Module,
    kernel: String,
    arguments: Vec<Argument<'a>>,
    too_large: Option<usize>,
}

enum Argument<'a> {
    /// The address of the tensor's first element; null for `None`.
    Tensor(&'static str, Option<&'a Tensor>),
    /// The tensor as a `Matrix`.
    Matrix(&'static str, &'a Tensor),
    Int(i32),
    Long(i64),
    Float(f32),
    Rows(Rows),
    Layout(&'a DeviceLayout),
}

/// An argument as the driver takes it.
enum Value {
    Address(u64),
    Matrix(Matrix),
    Int(i32),
    Long(i64),
    Float(f32),
    Rows(Rows),
}

impl<'a> Launch<'a> {
    pub(crate) fn new(module: &'static Module, kernel: impl Into<String>) -> Self {
        Self { module, kernel: kernel.into(), arguments: Vec::with_capacity(16), too_large: None }
    }

    /// A tensor that the kernel reads or writes; `name` is for errors. The kernel gets the address of its first element
    /// and must know its strides.
    pub(crate) fn tensor(self, name: &'static str, tensor: &'a Tensor) -> Self {
        self.maybe(name, Some(tensor))
    }

    /// A tensor, or a null pointer.
    pub(crate) fn maybe(mut self, name: &'static str, tensor: Option<&'a Tensor>) -> Self {
        self.arguments.push(Argument::Tensor(name, tensor));
        self
    }

    /// A contiguous matrix `[.., k]` as the copy engine addresses it: `const __grid_constant__ TensorMap`.
    pub(crate) fn matrix(mut self, name: &'static str, tensor: &'a Tensor) -> Self {
        self.arguments.push(Argument::Matrix(name, tensor));
        self
    }

    /// A tensor of any strides: its address, then a `Rows`.
    pub(crate) fn rows(mut self, name: &'static str, tensor: &'a Tensor, rows: Rows) -> Self {
        self.arguments.push(Argument::Tensor(name, Some(tensor)));
        self.arguments.push(Argument::Rows(rows));
        self
    }

    /// A batch's layout: `const uint4* spans, const unsigned* pages, int count`.
    pub(crate) fn layout(mut self, layout: &'a DeviceLayout) -> Self {
        self.arguments.push(Argument::Layout(layout));
        self
    }

    /// An `int`.
    pub(crate) fn int(mut self, value: usize) -> Self {
        match i32::try_from(value) {
            Ok(value) => self.arguments.push(Argument::Int(value)),
            Err(_) => self.too_large = Some(value),
        }
        self
    }

    /// A `long long`.
    pub(crate) fn long(mut self, value: usize) -> Self {
        match i64::try_from(value) {
            Ok(value) => self.arguments.push(Argument::Long(value)),
            Err(_) => self.too_large = Some(value),
        }
        self
    }

    /// A `float`.
    pub(crate) fn float(mut self, value: f64) -> Self {
        self.arguments.push(Argument::Float(value as f32));
        self
    }

    /// Enqueues the kernel on the stream of `device`; does nothing if the grid has no blocks.
    ///
    /// The caller sees to it that the arguments are those of the kernel, and that what the kernel addresses lies within
    /// its tensors.
    ///
    /// # Errors
    /// Names the kernel, its file, its tensors' shapes and dtypes, the grid and what the driver said.
    pub(crate) fn run(self, device: &CudaDevice, grid: [usize; 2], block: usize, shared: usize) -> Result<()> {
        let done = self.enqueue(device, grid, block, shared);
        done.map_err(|error| self.describe(grid, block, shared, &error))
    }

    fn enqueue(&self, device: &CudaDevice, grid: [usize; 2], block: usize, shared: usize) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        if let Some(value) = self.too_large {
            candle::bail!("{value} is too large for one of its parameters")
        }
        let dimension = |value: usize, most: usize| match u32::try_from(value) {
            Ok(value) if value as usize <= most => Ok(value),
            _ => candle::bail!("a grid may be {most} wide in this dimension, not {value}"),
        };
        let config = LaunchConfig {
            grid_dim: (dimension(grid[0], i32::MAX as usize)?, dimension(grid[1], 65_535)?, 1),
            block_dim: (dimension(block, 1024)?, 1, 1),
            shared_mem_bytes: dimension(shared, i32::MAX as usize)?,
        };
        let stream = device.cuda_stream();
        let function = function(stream.context(), self.module, &self.kernel)?;
        if shared > DEFAULT_SHARED {
            let attribute = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(attribute, shared as i32).map_err(candle::Error::wrap)?;
        }
        // The storages stay locked until the kernel is enqueued.
        let tensors = self.arguments.iter().flat_map(|argument| match argument {
            Argument::Tensor(_, tensor) => [*tensor, None],
            Argument::Matrix(_, tensor) => [Some(*tensor), None],
            Argument::Layout(layout) => [Some(&layout.spans), Some(&layout.pages)],
            _ => [None, None],
        });
        let storages: Vec<_> = tensors.flatten().map(Tensor::storage_and_layout).collect();
        let mut addresses = Vec::with_capacity(storages.len());
        for (storage, layout) in &storages {
            addresses.push(address(storage, layout, device, &stream)?);
        }
        let mut next = addresses.iter().map(|(address, _)| *address);
        let mut values = Vec::with_capacity(self.arguments.len() + 2);
        for argument in &self.arguments {
            match argument {
                Argument::Tensor(_, None) => values.push(Value::Address(0)),
                Argument::Tensor(_, Some(_)) => values.extend(next.next().map(Value::Address)),
                Argument::Matrix(_, tensor) => {
                    let matrix = next.next().map(|address| Matrix::new(tensor, address)).transpose()?;
                    values.extend(matrix.map(Value::Matrix));
                }
                Argument::Layout(layout) => {
                    values.extend(next.by_ref().take(2).map(Value::Address));
                    values.push(Value::Int(layout.count));
                }
                Argument::Int(value) => values.push(Value::Int(*value)),
                Argument::Long(value) => values.push(Value::Long(*value)),
                Argument::Float(value) => values.push(Value::Float(*value)),
                Argument::Rows(rows) => values.push(Value::Rows(*rows)),
            }
        }
        let mut builder = stream.launch_builder(&function);
        for value in &values {
            match value {
                Value::Address(value) => builder.arg(value),
                Value::Matrix(value) => builder.arg(value),
                Value::Int(value) => builder.arg(value),
                Value::Long(value) => builder.arg(value),
                Value::Float(value) => builder.arg(value),
                Value::Rows(value) => builder.arg(value),
            };
        }
        // SAFETY: the addresses are those of tensors that live until the launch is enqueued, and their memory is freed
        // in the order of the stream; that the kernel keeps within them is what the callers of `run` see to.
        unsafe { builder.launch(config) }.map_err(candle::Error::wrap)?;
        Ok(())
    }

    fn describe(&self, grid: [usize; 2], block: usize, shared: usize, error: &candle::Error) -> candle::Error {
        let mut text = format!("kernel {} (kernels/{}.cu)", self.kernel, self.module.name);
        for argument in &self.arguments {
            if let Argument::Tensor(name, Some(tensor)) | Argument::Matrix(name, tensor) = argument {
                // Writing to a string does not fail.
                let _ = write!(text, ", {name} {:?} {}", tensor.dims(), tensor.dtype().as_str());
            }
        }
        candle::Error::Msg(format!("{text}, grid {grid:?}, block {block}, shared memory {shared}: {error}")).bt()
    }
}

/// Threads of a block, for kernels with one thread an element.
pub(crate) const BLOCK: usize = 256;

/// Threads of a block that works on a row of `width` elements: whole warps.
pub(crate) fn row_block(width: usize) -> usize {
    width.clamp(1, 1024).next_multiple_of(32)
}

/// Blocks of `size` that hold `count` threads or elements.
pub(crate) fn blocks(count: usize, size: usize) -> usize {
    count.div_ceil(size)
}

/// The address of a tensor's first element.
pub(super) fn address<'a>(
    storage: &'a Storage,
    layout: &Layout,
    device: &CudaDevice,
    stream: &'a CudaStream,
) -> Result<(u64, SyncOnDrop<'a>)> {
    fn of<'a, T>(slice: &'a CudaSlice<T>, layout: &Layout, stream: &'a CudaStream) -> (u64, SyncOnDrop<'a>) {
        let (base, guard) = slice.device_ptr(stream);
        (base + (layout.start_offset() * size_of::<T>()) as u64, guard)
    }
    let Storage::Cuda(storage) = storage else { candle::bail!("one of its tensors is not on a GPU") };
    if storage.device.id() != device.id() {
        candle::bail!("its tensors are on several GPUs")
    }
    Ok(match &storage.slice {
        CudaStorageSlice::U8(slice) => of(slice, layout, stream),
        CudaStorageSlice::U32(slice) => of(slice, layout, stream),
        CudaStorageSlice::I32(slice) => of(slice, layout, stream),
        CudaStorageSlice::I64(slice) => of(slice, layout, stream),
        CudaStorageSlice::BF16(slice) => of(slice, layout, stream),
        CudaStorageSlice::F16(slice) => of(slice, layout, stream),
        CudaStorageSlice::F32(slice) => of(slice, layout, stream),
        CudaStorageSlice::F64(slice) => of(slice, layout, stream),
        CudaStorageSlice::F8E4M3(slice) => of(slice, layout, stream),
        _ => candle::bail!("one of its tensors has a dtype that no kernel takes"),
    })
}
