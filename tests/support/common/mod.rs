//! What the op tests share: test data, comparisons, the ISAs and the golden vectors.
#![allow(dead_code)] // Each test binary uses a part.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use deepseek_v32::ops::simd::Isa;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Every instruction set; those that the processor lacks run as the best it has.
pub const ISAS: [Isa; 3] = [Isa::Baseline, Isa::Avx2, Isa::Avx512];

/// Deterministic values in `-1..1`.
pub fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Deterministic values in `-1..1` as a tensor.
pub fn tensor(seed: u64, dims: &[usize], dtype: DType) -> Tensor {
    let values = values(seed, dims.iter().product());
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// The same elements behind an offset and a row stride.
pub fn strided(tensor: &Tensor) -> Tensor {
    let last = tensor.rank() - 1;
    let padded = tensor.pad_with_zeros(last, 3, 2).unwrap();
    padded.narrow(last, 3, tensor.dims()[last]).unwrap()
}

/// The elements in row-major order, widened to f64.
pub fn to_f64(tensor: &Tensor) -> Vec<f64> {
    let wide = tensor.to_dtype(DType::F32).unwrap().to_dtype(DType::F64).unwrap();
    wide.flatten_all().unwrap().to_vec1().unwrap()
}

/// The bits of the elements, as f32.
pub fn bits(tensor: &Tensor) -> Vec<u32> {
    let wide = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    wide.into_iter().map(f32::to_bits).collect()
}

/// `1 - 2·<a, b> / (<a, a> + <b, b>)`: 0 for equal vectors.
pub fn calc_diff(actual: &[f64], expected: &[f64]) -> f64 {
    let product: f64 = actual.iter().zip(expected).map(|(a, b)| a * b).sum();
    let squares: f64 = actual.iter().chain(expected).map(|a| a * a).sum();
    if squares == 0.0 { 0.0 } else { 1.0 - 2.0 * product / squares }
}

/// Fails unless every element is within `tolerance · (1 + |expected|)`.
pub fn assert_close(actual: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}: number of elements");
    for (index, (a, e)) in actual.iter().zip(expected).enumerate() {
        let close = (a - e).abs() <= tolerance * (1.0 + e.abs()) || (a.is_nan() && e.is_nan());
        assert!(close, "{what}: element {index} is {a}, expected {e}, tolerance {tolerance}");
    }
}

/// The golden vectors of single primitives; how they were made is in `tests/data/README.md`.
pub fn unit() -> HashMap<String, Tensor> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/unit.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

/// A golden tensor of bytes as f8e4m3.
pub fn codes(bytes: &Tensor) -> Tensor {
    let values: Vec<u8> = bytes.flatten_all().unwrap().to_vec1().unwrap();
    let values: Vec<float8::F8E4M3> = values.into_iter().map(float8::F8E4M3::from_bits).collect();
    Tensor::from_vec(values, bytes.dims(), &Device::Cpu).unwrap()
}

/// The bytes of an f8e4m3 tensor.
pub fn code_bytes(codes: &Tensor) -> Vec<u8> {
    let values = codes.flatten_all().unwrap().to_vec1::<float8::F8E4M3>().unwrap();
    values.iter().map(float8::F8E4M3::to_bits).collect()
}
