//! Random weights of any shape, as fast as memory takes them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use half::bf16;

/// Matrices of bf16 values, uniform with variance 1/K; norms are 1, biases 0. A name and shape always give the same
/// values.
struct RandomWeights {
    /// Dtype of the matrices.
    dtype: DType,
    made: Mutex<HashMap<(String, Vec<usize>), Tensor>>,
}

/// A `VarBuilder` that has every tensor, f32 activations and matrices in `dtype`. Models built from clones share memory.
pub fn random_weights(dtype: DType) -> VarBuilder<'static> {
    let weights = RandomWeights { dtype, made: Mutex::default() };
    VarBuilder::from_backend(Box::new(weights), DType::F32, Device::Cpu)
}

impl SimpleBackend for RandomWeights {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.to_string(), shape.dims().to_vec());
        if let Some(tensor) = made.get(&key) {
            return Ok(tensor.clone());
        }
        let tensor = if name.ends_with("bias") {
            Tensor::zeros(&shape, dtype, device)?
        } else if shape.rank() == 1 {
            Tensor::ones(&shape, dtype, device)?
        } else {
            matrix(&shape, name)?.to_dtype(self.dtype)?
        };
        made.insert(key, tensor.clone());
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("{name}: a random tensor needs a shape")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        name.ends_with("weight")
    }
}

fn matrix(shape: &Shape, name: &str) -> Result<Tensor> {
    // FNV-1a of the name, then xorshift: four values of 16 bits a step.
    let mut state =
        name.bytes().fold(0xcbf29ce484222325u64, |hash, byte| (hash ^ byte as u64).wrapping_mul(0x100000001b3)) | 1;
    let scale = (3.0 / *shape.dims().last().unwrap_or(&1) as f32).sqrt() / 32768.0;
    let mut values = Vec::with_capacity(shape.elem_count() + 3);
    while values.len() < shape.elem_count() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        values.extend([0, 16, 32, 48].map(|shift| bf16::from_f32((state >> shift) as i16 as f32 * scale)));
    }
    values.truncate(shape.elem_count());
    Tensor::from_vec(values, shape, &Device::Cpu)
}
