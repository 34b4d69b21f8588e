//! Matrices as the copy engine of Hopper addresses them.

use std::ptr;

use candle::cuda_backend::cudarc::driver::{DeviceRepr, result::DriverError, sys};
use candle::{DType, Result, Tensor};
use candle_core as candle;

/// Rows of a box, and bytes of each.
const BOX_ROWS: u32 = 128;
const BOX_BYTES: usize = 128;

/// A contiguous tensor `[.., k]` as a matrix that is copied in boxes of 128 rows of 128 bytes, with chunks of 16 bytes
/// exchanged as the tensor cores read them; `TensorMap` of `kernels/common/sm90_clusters.cuh`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Matrix(sys::CUtensorMap);

// SAFETY: plain numbers in the layout of the C struct.
unsafe impl DeviceRepr for Matrix {}

impl Matrix {
    /// Describes `tensor`, f8e4m3 or bf16, whose first element is at `address`.
    ///
    /// # Errors
    /// If the tensor is of another dtype or not contiguous, or the driver refuses: the address and the bytes of a row are
    /// to be multiples of 16.
    pub(super) fn new(tensor: &Tensor, address: u64) -> Result<Self> {
        let kind = match tensor.dtype() {
            DType::F8E4M3 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT8,
            DType::BF16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            dtype => candle::bail!("a matrix of {} is not copied in boxes", dtype.as_str()),
        };
        let Some(&width) = tensor.dims().last() else { candle::bail!("a scalar is no matrix") };
        if !tensor.is_contiguous() {
            candle::bail!("a matrix that is copied in boxes is to be contiguous")
        }
        let size = tensor.dtype().size_in_bytes();
        let dims = [width as u64, (tensor.elem_count() / width.max(1)) as u64];
        let (strides, boxes, steps) = ([(width * size) as u64], [(BOX_BYTES / size) as u32, BOX_ROWS], [1, 1]);
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: every pointer is to a local array of the length that rank 2 asks for; the address is only recorded.
        let status = unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                kind,
                2,
                ptr::without_provenance_mut(address as usize),
                dims.as_ptr(),
                strides.as_ptr(),
                boxes.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        match status {
            sys::CUresult::CUDA_SUCCESS => Ok(Self(map)),
            status => Err(candle::Error::wrap(DriverError(status))),
        }
    }
}
