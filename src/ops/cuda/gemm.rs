//! Products of cuBLAS over tensors of any row stride.

use std::ffi::c_void;

use candle::cuda_backend::cudarc::cublas::result::gemm_strided_batched_ex;
use candle::cuda_backend::cudarc::cublas::sys::{
    cublasComputeType_t, cublasGemmAlgo_t, cublasOperation_t, cudaDataType,
};
use candle::{DType, Result, Tensor};
use candle_core as candle;

use super::launch::address;
use super::{BLOCK, Launch, blocks, device_of, empty, modules};

/// A matrix of `[rows, columns]` for each of a batch, whose rows or columns are neighbours in memory.
struct Matrices {
    /// From one row to the next if the elements of a row are neighbours, else from one column to the next.
    leading: i32,
    is_transposed: bool,
    batch: i64,
}

impl Matrices {
    /// Dimensions 1 and 2 are the matrices', dimension 0 the batch's.
    fn of(tensor: &Tensor) -> Option<Self> {
        let (dims, strides) = (tensor.dims(), tensor.stride());
        let (is_transposed, leading, neighbours) = match (strides[1], strides[2]) {
            (row, 1) => (false, row, dims[2]),
            (1, column) => (true, column, dims[1]),
            _ => return None,
        };
        // A leading stride of a single row may be anything, but cuBLAS wants at least a row.
        let leading = i32::try_from(leading.max(neighbours).max(1)).ok()?;
        Some(Self { leading, is_transposed, batch: i64::try_from(strides[0]).ok()? })
    }
}

/// `x: [T, B, K]` and `weight: [B, K, N]`, both f32 or both bf16 and of any strides → `[T, B, N]`, with sums in f32.
///
/// # Errors
/// If neither rows nor columns of an argument are neighbours in memory, a size does not fit 31 bits, or cuBLAS fails.
pub(crate) fn product_by_head(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let device = device_of(x)?;
    let ((rows, batch, _), (_, _, n)) = (x.dims3()?, weight.dims3()?);
    let out = empty((rows, batch, n), x.dtype(), device)?;
    if out.elem_count() == 0 {
        return Ok(out);
    }
    let by_head = x.transpose(0, 1)?;
    multiply(&by_head, weight, 0.0, &out, int(batch * n)?, int(n)?.into())?;
    Ok(out)
}

/// `x: [M, K]` f32 · `weight: [N, K]` bf16, transposed → `[M, N]` f32: `x` is the sum of three bf16, whose products with the
/// weight are exact, so that tensor cores multiply at the precision of f32. Both contiguous.
///
/// # Errors
/// As [`product_by_head`].
pub(crate) fn product_in_parts(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (device, (rows, k), n) = (device_of(x)?, x.dims2()?, weight.dim(0)?);
    let (out, parts) = (empty((1, rows, n), DType::F32, device)?, empty((3, rows, k), DType::BF16, device)?);
    let elements = x.elem_count();
    Launch::new(&modules::COPY, "split_f32").tensor("x", x).tensor("parts", &parts).long(elements).run(
        device,
        [blocks(elements, BLOCK), 1],
        BLOCK,
        0,
    )?;
    let weight = weight.t()?.unsqueeze(0)?;
    // The smallest numbers first.
    for part in (0..3).rev() {
        let beta = if part == 2 { 0.0 } else { 1.0 };
        multiply(&parts.narrow(0, part, 1)?, &weight, beta, &out, int(n)?, 0)?;
    }
    out.squeeze(0)
}

fn int(value: usize) -> Result<i32> {
    match i32::try_from(value) {
        Ok(value) => Ok(value),
        Err(_) => candle::bail!("a product: {value} is too large"),
    }
}

/// `out = x · weight + beta · out` for each of a batch: `x: [B, T, K]`, `weight: [B, K, N]`, of which rows or columns are
/// neighbours; rows of `out` are `leading` elements apart, matrices `batch`.
fn multiply(x: &Tensor, weight: &Tensor, beta: f32, out: &Tensor, leading: i32, batch: i64) -> Result<()> {
    let device = device_of(x)?;
    let ((count, rows, k), (_, _, n)) = (x.dims3()?, weight.dims3()?);
    let (Some(a), Some(b)) = (Matrices::of(x), Matrices::of(weight)) else {
        candle::bail!("a product of {:?} by {:?}: rows or columns must be neighbours", x.stride(), weight.stride())
    };
    let of = |tensor: &Tensor| match tensor.dtype() {
        DType::F32 => Ok(cudaDataType::CUDA_R_32F),
        DType::BF16 => Ok(cudaDataType::CUDA_R_16BF),
        dtype => candle::bail!("a product of {}", dtype.as_str()),
    };
    if x.dtype() != weight.dtype() {
        candle::bail!("a product of {} by {}", x.dtype().as_str(), weight.dtype().as_str())
    }
    let operation = |matrices: &Matrices| match matrices.is_transposed {
        true => cublasOperation_t::CUBLAS_OP_T,
        false => cublasOperation_t::CUBLAS_OP_N,
    };
    let stream = device.cuda_stream();
    let storages = [x, weight, out].map(Tensor::storage_and_layout);
    let mut addresses = Vec::with_capacity(storages.len());
    for (storage, layout) in &storages {
        addresses.push(address(storage, layout, device, &stream)?);
    }
    let one = 1f32;
    let pointer = |at: usize| addresses[at].0 as *mut c_void;
    // cuBLAS counts columns first: rows of numbers are its columns, so it computes outᵀ = weightᵀ · xᵀ.
    // SAFETY: the addresses are those of tensors that live until the product is enqueued, of these sizes and strides; the
    // factors are read before the call returns.
    unsafe {
        gemm_strided_batched_ex(
            *device.cublas_handle().handle(),
            operation(&b),
            operation(&a),
            int(n)?,
            int(rows)?,
            int(k)?,
            (&raw const one).cast(),
            pointer(1),
            of(weight)?,
            b.leading,
            b.batch,
            pointer(0),
            of(x)?,
            a.leading,
            a.batch,
            (&raw const beta).cast(),
            pointer(2),
            of(out)?,
            leading,
            batch,
            int(count)?,
            cublasComputeType_t::CUBLAS_COMPUTE_32F,
            cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    }
    .map_err(candle::Error::wrap)
}
