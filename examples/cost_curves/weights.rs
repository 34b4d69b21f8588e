//! Random weights of a model, made where they are to lie.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use candle_core::{DType, Device, Error, Result, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use deepseek_v32::ops::fp8::{BLOCK, block_quant};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a checkpoint in block FP8 keeps in bf16 all the same.
const PLAIN: [&str; 4] = ["embed_tokens.weight", "lm_head.weight", "mlp.gate.weight", "indexer.weights_proj.weight"];
const SCALE_SUFFIX: &str = "_scale_inv";

/// Block-FP8 weights under the names of a checkpoint, experts stacked. What was made once is handed out again, so that
/// models of the first few layers share them.
pub fn random(dtype: DType, device: &Device, seed: u64) -> Result<VarBuilder<'static>> {
    if device.is_cuda() {
        device.set_seed(seed)?;
    }
    let made = Made { tensors: HashMap::new(), rng: ChaCha8Rng::seed_from_u64(seed) };
    Ok(VarBuilder::from_backend(Box::new(RandomWeights(Mutex::new(made))), dtype, device.clone()))
}

struct RandomWeights(Mutex<Made>);

struct Made {
    tensors: HashMap<String, Tensor>,
    rng: ChaCha8Rng,
}

impl RandomWeights {
    fn made(&self) -> Result<MutexGuard<'_, Made>> {
        self.0.lock().map_err(|_| Error::msg("making weights has failed before"))
    }
}

impl Made {
    /// Numbers of a normal distribution of mean 0, f32; on a GPU from its own generator.
    fn normal(&mut self, shape: &[usize], stdev: f64, device: &Device) -> Result<Tensor> {
        if device.is_cuda() {
            return Tensor::randn(0f32, stdev as f32, shape, device);
        }
        // The sum of twelve numbers between 0 and 1 has a variance of 1.
        let number = |rng: &mut ChaCha8Rng| (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
        let values = (0..shape.iter().product()).map(|_| number(&mut self.rng) * stdev as f32).collect::<Vec<_>>();
        Tensor::from_vec(values, shape, device)
    }

    /// A weight `[.., N, K]` in e4m3 and its scales.
    fn quantized(&mut self, shape: &[usize], stdev: f64, device: &Device) -> Result<(Tensor, Tensor)> {
        let [stack @ .., n, k] = shape else { candle_core::bail!("a weight of {shape:?}") };
        let one = |made: &mut Self| block_quant(&made.normal(&[*n, *k], stdev, device)?, BLOCK, true);
        let [count] = stack else { return one(self) };
        let weights = Tensor::zeros(shape, DType::F8E4M3, device)?;
        let scales = Tensor::zeros((*count, n.div_ceil(BLOCK), k.div_ceil(BLOCK)), DType::F32, device)?;
        for expert in 0..*count {
            let (weight, scale) = one(self)?;
            weights.slice_set(&weight.unsqueeze(0)?, 0, expert)?;
            scales.slice_set(&scale.unsqueeze(0)?, 0, expert)?;
        }
        Ok((weights, scales))
    }
}

impl SimpleBackend for RandomWeights {
    fn get(&self, shape: Shape, name: &str, _: candle_nn::Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let mut made = self.made()?;
        if !made.tensors.contains_key(name) {
            let dims = shape.dims();
            let stdev = (dims.last().copied().unwrap_or(1) as f64).powf(-0.5);
            let tensor = match dims {
                [_] if name.ends_with("bias") => Tensor::zeros(dims, dtype, device)?,
                [_] => Tensor::ones(dims, dtype, device)?,
                _ if dtype == DType::F8E4M3 => {
                    let (weight, scale) = made.quantized(dims, stdev, device)?;
                    made.tensors.insert(format!("{name}{SCALE_SUFFIX}"), scale);
                    weight
                }
                _ => made.normal(dims, stdev, device)?.to_dtype(dtype)?,
            };
            made.tensors.insert(name.to_string(), tensor);
        }
        match made.tensors.get(name) {
            Some(tensor) if tensor.shape() == &shape => Ok(tensor.clone()),
            _ => candle_core::bail!("{name}: asked for as {shape:?}, made in another shape"),
        }
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        match self.made()?.tensors.get(name) {
            Some(tensor) => Ok(tensor.clone()),
            None => Err(Error::CannotFindTensor { path: name.to_string() }.bt()),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        match name.strip_suffix(SCALE_SUFFIX) {
            Some(weight) => !PLAIN.iter().any(|plain| weight.ends_with(plain)),
            None => !name.contains("eh_proj"),
        }
    }
}
