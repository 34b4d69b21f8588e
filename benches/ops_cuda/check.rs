//! Comparisons with what the host computes in f64.

use anyhow::Result;
use candle_core::{DType, Tensor};
use rayon::prelude::*;

/// `|found - expected| / |expected|`; infinite where a number is not finite.
pub fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    if found.len() != expected.len() || found.iter().chain(expected).any(|x| !x.is_finite()) {
        return f64::INFINITY;
    }
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    difference / norm(&mut expected.iter().copied()).max(f64::MIN_POSITIVE)
}

/// The numbers of a tensor.
pub fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    let wide = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(wide.into_iter().map(f64::from).collect())
}

/// Some rows of a tensor, one after the other.
pub fn rows(tensor: &Tensor, rows: &[usize]) -> Result<Tensor> {
    let rows = rows.iter().map(|&row| tensor.narrow(0, row, 1)).collect::<candle_core::Result<Vec<_>>>()?;
    Ok(Tensor::cat(&rows, 0)?)
}

/// One row of attention: `q: [heads, dim]` over `keys: [n, dim]`, values of the first `value_dim` elements.
pub struct AttentionRow {
    pub q: Vec<f64>,
    pub keys: Vec<f64>,
    pub dim: usize,
    pub value_dim: usize,
    pub scale: f64,
}

impl AttentionRow {
    /// The weights of the keys, `[heads, n]`.
    fn weights(&self, q: &[f64]) -> Vec<f64> {
        let dot = |key: &[f64]| self.scale * q.iter().zip(key).map(|(a, b)| a * b).sum::<f64>();
        let scores: Vec<f64> = self.keys.chunks(self.dim).map(dot).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exponentials: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
        let sum: f64 = exponentials.iter().sum();
        exponentials.into_iter().map(|x| x / sum).collect()
    }

    /// `[heads, value_dim]`.
    pub fn forward(&self) -> Vec<f64> {
        let head = |q: &[f64]| {
            let mut out = vec![0.0; self.value_dim];
            for (weight, key) in self.weights(q).iter().zip(self.keys.chunks(self.dim)) {
                out.iter_mut().zip(key).for_each(|(out, value)| *out += weight * value);
            }
            out
        };
        self.q.par_chunks(self.dim).flat_map_iter(head).collect()
    }

    /// The gradient of `q`, `[heads, dim]`, for that of the output, `[heads, value_dim]`.
    pub fn backward_q(&self, grad: &[f64]) -> Vec<f64> {
        let head = |(q, grad): (&[f64], &[f64])| {
            let weights = self.weights(q);
            let along = |key: &[f64]| grad.iter().zip(key).map(|(a, b)| a * b).sum::<f64>();
            let alongs: Vec<f64> = self.keys.chunks(self.dim).map(along).collect();
            let mean: f64 = weights.iter().zip(&alongs).map(|(weight, along)| weight * along).sum();
            let mut out = vec![0.0; self.dim];
            for ((weight, along), key) in weights.iter().zip(&alongs).zip(self.keys.chunks(self.dim)) {
                let factor = weight * (along - mean) * self.scale;
                out.iter_mut().zip(key).for_each(|(out, key)| *out += factor * key);
            }
            out
        };
        self.q.par_chunks(self.dim).zip(grad.par_chunks(self.value_dim)).flat_map_iter(head).collect()
    }
}
