//! Rotary position embedding tables, plain and YaRN.

use std::f64::consts::PI;

use candle::{DType, Device, Result, Tensor};
use candle_core as candle;

use crate::config::{Config, Yarn};

/// The inverse frequencies of a model; one table serves MLA and the indexer.
#[derive(Debug, Clone)]
pub(super) struct Rope {
    inv_freq: Vec<f32>,
    /// Factor on cos and sin; 1 for DeepSeek's own configs.
    attention_factor: f32,
    device: Device,
}

/// cos and sin of a batch's rows, each `[T, qk_rope_head_dim / 2]` f32.
#[derive(Debug, Clone)]
pub(super) struct RopeTables {
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
}

impl Rope {
    pub(super) fn new(cfg: &Config, device: &Device) -> Self {
        let dim = cfg.qk_rope_head_dim;
        let theta = cfg.rope.rope_theta;
        // As in the reference, the power is rounded to f32 before anything is divided by it.
        let powers = (0..dim / 2).map(|i| theta.powf((2 * i) as f64 / dim as f64) as f32);
        let (inv_freq, attention_factor) = match &cfg.rope.yarn {
            None => (powers.map(|p| 1.0 / p).collect(), 1.0),
            Some(yarn) => {
                let (low, high) = correction_range(yarn, dim, theta);
                let interpolate = |(i, power): (usize, f32)| {
                    let ramp = (((i as f64 - low) / (high - low)) as f32).clamp(0.0, 1.0);
                    (1.0 / (yarn.factor as f32 * power)) * ramp + (1.0 / power) * (1.0 - ramp)
                };
                (powers.enumerate().map(interpolate).collect(), attention_factor(yarn) as f32)
            }
        };
        Self { inv_freq, attention_factor, device: device.clone() }
    }

    /// Tables for rows at these positions. Angles are f32 products of position and inverse frequency, as in the
    /// reference: at long positions an f64 angle would be another number.
    pub(super) fn tables(&self, positions: &[u32]) -> Result<RopeTables> {
        let shape = (positions.len(), self.inv_freq.len());
        let mut cos = Vec::with_capacity(shape.0 * shape.1);
        let mut sin = Vec::with_capacity(shape.0 * shape.1);
        for &position in positions {
            for &inv_freq in &self.inv_freq {
                let (s, c) = (position as f32 * inv_freq).sin_cos();
                cos.push(c * self.attention_factor);
                sin.push(s * self.attention_factor);
            }
        }
        Ok(RopeTables {
            cos: Tensor::from_vec(cos, shape, &self.device)?.to_dtype(DType::F32)?,
            sin: Tensor::from_vec(sin, shape, &self.device)?.to_dtype(DType::F32)?,
        })
    }
}

/// Between which pairs of dimensions YaRN passes from extrapolation to interpolation.
fn correction_range(yarn: &Yarn, dim: usize, theta: f64) -> (f64, f64) {
    let original = yarn.original_max_position_embeddings as f64;
    let correction = |rotations: f64| dim as f64 * (original / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let (mut low, mut high) = (correction(yarn.beta_fast), correction(yarn.beta_slow));
    if yarn.truncate {
        low = low.floor();
        high = high.ceil();
    }
    low = low.max(0.0);
    high = high.min((dim - 1) as f64);
    // The reference avoids the division by zero in this way.
    if low == high {
        high += 0.001;
    }
    (low, high)
}

/// What cos and sin are multiplied by: the two `mscale`s' ratio where both are set.
fn attention_factor(yarn: &Yarn) -> f64 {
    if let Some(factor) = yarn.attention_factor {
        return factor;
    }
    match (yarn.mscale, yarn.mscale_all_dim) {
        (Some(mscale), Some(all_dim)) if mscale != 0.0 && all_dim != 0.0 => {
            yarn_mscale(yarn.factor, mscale) / yarn_mscale(yarn.factor, all_dim)
        }
        _ => yarn_mscale(yarn.factor, 1.0),
    }
}

/// `0.1 * mscale * ln(factor) + 1`, or 1 where nothing is stretched.
fn yarn_mscale(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}
