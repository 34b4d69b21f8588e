//! What the GPU does at most: products of cuBLAS and a copy.

use std::ffi::c_void;

use anyhow::Result;
use candle_core::cuda_backend::cudarc::cublaslt::{result, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr, DevicePtrMut};
use candle_core::{DType, Device, Tensor};
use deepseek_v32::ops::fp8::act_quant;

use crate::timer::{Call, Timer};

/// Rows, columns and depth of the products.
const SIZE: usize = 8192;
const COPY_BYTES: usize = 4 << 30;

/// Which ceiling a case has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ceiling {
    Bf16,
    Fp8,
    Copy,
}

impl Ceiling {
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16 matmul",
            Self::Fp8 => "fp8 matmul",
            Self::Copy => "copy",
        }
    }
}

/// The ceilings: operations a second, and bytes a second that are read and written.
#[derive(Debug, Clone, Copy)]
pub struct Ceilings {
    pub bf16: f64,
    pub fp8: f64,
    pub copy: f64,
}

impl Ceilings {
    pub fn measure(device: &Device, timer: &mut Timer) -> Result<Self> {
        let flops = 2.0 * (SIZE as f64).powi(3);
        let normal = || Tensor::randn(0f32, 1.0, (SIZE, SIZE), device);
        let (a, b) = (normal()?.to_dtype(DType::BF16)?, normal()?.to_dtype(DType::BF16)?);
        let product: Call = Box::new(|| a.matmul(&b).map(drop));
        let bf16 = flops / timer.cold(&[product])? * 1e3;

        let codes = || Ok::<_, anyhow::Error>(act_quant(&normal()?, SIZE, true)?.0);
        let product = Fp8Product::new(codes()?, codes()?)?;
        let fp8 = flops / timer.cold(&[Box::new(|| product.run())])? * 1e3;

        let stream = device.as_cuda_device()?.cuda_stream();
        let from = stream.alloc_zeros::<u8>(COPY_BYTES)?;
        let to = std::cell::RefCell::new(stream.alloc_zeros::<u8>(COPY_BYTES)?);
        let copy: Call =
            Box::new(|| stream.memcpy_dtod(&from, &mut *to.borrow_mut()).map_err(candle_core::Error::wrap));
        let copy = 2.0 * COPY_BYTES as f64 / timer.cold(&[copy])? * 1e3;
        Ok(Self { bf16, fp8, copy })
    }

    pub fn of(&self, ceiling: Ceiling) -> f64 {
        match ceiling {
            Ceiling::Bf16 => self.bf16,
            Ceiling::Fp8 => self.fp8,
            Ceiling::Copy => self.copy,
        }
    }
}

/// `a · bᵀ` of e4m3 codes `[SIZE, SIZE]` to bf16 by cuBLASLt.
struct Fp8Product {
    a: Tensor,
    b: Tensor,
    out: std::cell::RefCell<CudaSlice<half::bf16>>,
    workspace: CudaSlice<u8>,
    handle: sys::cublasLtHandle_t,
    product: sys::cublasLtMatmulDesc_t,
    codes: sys::cublasLtMatrixLayout_t,
    output: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Fp8Product {
    fn new(a: Tensor, b: Tensor) -> Result<Self> {
        let workspace_bytes = 32usize << 20;
        let stream = a.device().as_cuda_device()?.cuda_stream();
        let (size, step) = (SIZE as u64, SIZE as i64);
        let handle = result::create_handle()?;
        let product =
            result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sys::cudaDataType_t::CUDA_R_32F)?;
        // Columns of both factors lie in order, which is all that e4m3 is multiplied in.
        let transposed = 1i32;
        // SAFETY: the attribute is an i32 of four bytes.
        unsafe {
            result::set_matmul_desc_attribute(
                product,
                sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
                (&raw const transposed).cast(),
                size_of::<i32>(),
            )?;
        }
        let codes = result::create_matrix_layout(sys::cudaDataType_t::CUDA_R_8F_E4M3, size, size, step)?;
        let output = result::create_matrix_layout(sys::cudaDataType_t::CUDA_R_16BF, size, size, step)?;
        let preference = result::create_matmul_pref()?;
        // SAFETY: the attribute is a size; descriptor and layouts are those made above.
        let found = unsafe {
            result::set_matmul_pref_attribute(
                preference,
                sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const workspace_bytes).cast(),
                size_of::<usize>(),
            )?;
            let found = result::get_matmul_algo_heuristic(handle, product, codes, codes, output, output, preference)?;
            result::destroy_matmul_pref(preference)?;
            found
        };
        let out = std::cell::RefCell::new(stream.alloc_zeros(SIZE * SIZE)?);
        let workspace = stream.alloc_zeros(workspace_bytes)?;
        Ok(Self { a, b, out, workspace, handle, product, codes, output, algorithm: found.algo })
    }

    fn run(&self) -> candle_core::Result<()> {
        let stream = self.a.device().as_cuda_device()?.cuda_stream();
        let (a, b) = (self.a.storage_and_layout().0, self.b.storage_and_layout().0);
        let codes = |storage: &candle_core::Storage| match storage {
            candle_core::Storage::Cuda(storage) => {
                let slice = storage.as_cuda_slice::<float8::F8E4M3>()?;
                Ok(slice.device_ptr(&stream).0)
            }
            _ => candle_core::bail!("the codes are not on a GPU"),
        };
        let (a, b) = (codes(&a)?, codes(&b)?);
        let mut out = self.out.borrow_mut();
        let (out, _out) = out.device_ptr_mut(&stream);
        let (workspace, _workspace) = self.workspace.device_ptr(&stream);
        let (one, zero) = (1f32, 0f32);
        // SAFETY: all matrices have SIZE * SIZE elements of the layouts' types and live as long as `self`; the stream is
        // that of their device.
        unsafe {
            result::matmul(
                self.handle,
                self.product,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                a as *const c_void,
                self.codes,
                b as *const c_void,
                self.codes,
                out as *const c_void,
                self.output,
                out as *mut c_void,
                self.output,
                &raw const self.algorithm,
                workspace as *mut c_void,
                self.workspace.len(),
                stream.cu_stream().cast(),
            )
        }
        .map_err(candle_core::Error::wrap)
    }
}

impl Drop for Fp8Product {
    fn drop(&mut self) {
        // SAFETY: made in `new` and used nowhere else. A failure leaves a handle behind, nothing more.
        unsafe {
            let _ = result::destroy_matrix_layout(self.codes);
            let _ = result::destroy_matrix_layout(self.output);
            let _ = result::destroy_matmul_desc(self.product);
            let _ = result::destroy_handle(self.handle);
        }
    }
}
