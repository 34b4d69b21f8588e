//! Copies to tensors that keep their place.

use candle::cuda_backend::cudarc::driver::DeviceRepr;
use candle::cuda_backend::cudarc::driver::result::{memcpy_dtod_async, memcpy_htod_async};
use candle::{Result, Tensor};
use candle_core as candle;

use super::launch::address;
use super::{contiguous, device_of};

/// Writes numbers to the beginning of a contiguous tensor of 32-bit elements, in the order of its stream.
///
/// # Errors
/// If the tensor has fewer elements or larger ones, or the copy fails.
pub(crate) fn upload<T: DeviceRepr>(values: &[T], to: &Tensor) -> Result<()> {
    if size_of::<T>() != to.dtype().size_in_bytes() || values.len() > to.elem_count() || !to.is_contiguous() {
        candle::bail!("upload: {} numbers to {:?} {}", values.len(), to.dims(), to.dtype().as_str())
    }
    if values.is_empty() {
        return Ok(());
    }
    let device = device_of(to)?;
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().map_err(candle::Error::wrap)?;
    let (storage, layout) = to.storage_and_layout();
    let (address, _guard) = address(&storage, layout, device, &stream)?;
    // SAFETY: the tensor has as many elements; from memory that is not pinned the driver copies before it returns.
    unsafe { memcpy_htod_async(address, values, stream.cu_stream()) }.map_err(candle::Error::wrap)
}

/// Writes the elements of a tensor to the beginning of a contiguous one, in the order of its stream.
///
/// # Errors
/// If the dtypes differ, `to` has fewer elements, or the copy fails.
pub(crate) fn copy_to(from: &Tensor, to: &Tensor) -> Result<()> {
    if from.dtype() != to.dtype() || from.elem_count() > to.elem_count() || !to.is_contiguous() {
        candle::bail!("copy: {:?} {} to {:?} {}", from.dims(), from.dtype().as_str(), to.dims(), to.dtype().as_str())
    }
    let from = contiguous(from)?;
    let device = device_of(to)?;
    let stream = device.cuda_stream();
    let bytes = from.elem_count() * from.dtype().size_in_bytes();
    let storages = [&from, to].map(Tensor::storage_and_layout);
    let (source, _guard) = address(&storages[0].0, storages[0].1, device, &stream)?;
    let (target, _guard) = address(&storages[1].0, storages[1].1, device, &stream)?;
    // SAFETY: both tensors have so many bytes, and live until the copy is enqueued.
    unsafe { memcpy_dtod_async(target, source, bytes, stream.cu_stream()) }.map_err(candle::Error::wrap)
}
