//! Rotary position embedding tables, plain and YaRN.

use std::f64::consts::PI;

use candle::{Device, Result, Tensor};
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
        // Every step is rounded to f32, the exponent too, and in the reference's order: half a unit in the last place of
        // a frequency is a wrong angle some hundred tokens on.
        let powers = (0..dim / 2).map(|i| theta.powf(((2 * i) as f32 / dim as f32) as f64) as f32);
        let (inv_freq, attention_factor) = match &cfg.rope.yarn {
            None => (powers.map(|p| 1.0 / p).collect(), 1.0),
            Some(yarn) => {
                let (low, high) = correction_range(yarn, dim, theta);
                let interpolate = |(i, power): (usize, f32)| {
                    let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
                    let extrapolation = 1.0 - ramp;
                    (1.0 / (yarn.factor as f32 * power)) * (1.0 - extrapolation) + (1.0 / power) * extrapolation
                };
                (powers.enumerate().map(interpolate).collect(), yarn.cos_sin_factor() as f32)
            }
        };
        Self { inv_freq, attention_factor, device: device.clone() }
    }

    /// Tables for rows at these positions. Angles are f32 products of position and inverse frequency, as in the
    /// reference: at long positions an f64 angle would be another number.
    pub(super) fn tables(&self, positions: &[u32]) -> Result<RopeTables> {
        let shape = (positions.len(), self.inv_freq.len());
        let (cos, sin) = self.values(positions);
        Ok(RopeTables {
            cos: Tensor::from_vec(cos, shape, &self.device)?,
            sin: Tensor::from_vec(sin, shape, &self.device)?,
        })
    }

    /// The numbers of [`Self::tables`], row by row: cos and sin.
    pub(super) fn values(&self, positions: &[u32]) -> (Vec<f32>, Vec<f32>) {
        let count = positions.len() * self.inv_freq.len();
        let (mut cos, mut sin) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for &position in positions {
            for &inv_freq in &self.inv_freq {
                let (s, c) = (position as f32 * inv_freq).sin_cos();
                cos.push(c * self.attention_factor);
                sin.push(s * self.attention_factor);
            }
        }
        (cos, sin)
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

#[cfg(test)]
mod tests {
    use candle::DType;

    use super::*;

    /// Greatest relative difference of an inverse frequency, absolute one of a cosine: f32 rounding.
    const TOLERANCE: f32 = 1e-6;

    #[test]
    fn yarn_tables_of_the_release() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/unit.safetensors");
        let golden = candle::safetensors::load(path, &Device::Cpu).unwrap();
        let values = |name: &str| golden[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let rope = Rope::new(&Config::v32(), &Device::Cpu);
        for (found, expected) in rope.inv_freq.iter().zip(values("rope.inv_freq")) {
            assert!((found / expected - 1.0).abs() <= TOLERANCE, "{found} is not {expected}");
        }
        let positions = golden["rope.positions"].to_dtype(DType::U32).unwrap().to_vec1::<u32>().unwrap();
        let tables = rope.tables(&positions).unwrap();
        for (table, name) in [(tables.cos, "rope.cos"), (tables.sin, "rope.sin")] {
            let found = table.to_vec2::<f32>().unwrap();
            for ((row, expected), position) in found.iter().zip(values(name).chunks(row_len(&found))).zip(&positions) {
                // One unit in the last place of an inverse frequency moves the angle by that much times the position.
                let tolerance = TOLERANCE * (1.0 + 0.2 * *position as f32);
                for (found, expected) in row.iter().zip(expected) {
                    assert!((found - expected).abs() <= tolerance, "{name} at {position}: {found} is not {expected}");
                }
            }
        }
    }

    #[derive(serde::Deserialize)]
    struct Golden {
        qk_rope_head_dim: usize,
        rope_theta: f64,
        yarn: Option<GoldenYarn>,
        inv_freq_bits: Vec<u32>,
    }

    #[derive(serde::Deserialize)]
    struct GoldenYarn {
        factor: f64,
        original_max_position_embeddings: usize,
        beta_fast: f64,
        beta_slow: f64,
    }

    #[test]
    fn inverse_frequencies_have_the_bits_of_the_reference() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/rope_inv_freq.json");
        let cases: Vec<Golden> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for Golden { qk_rope_head_dim, rope_theta, yarn, inv_freq_bits } in cases {
            let mut cfg = Config { qk_rope_head_dim, ..Config::v32() };
            let release = cfg.rope.yarn.take();
            cfg.rope.rope_theta = rope_theta;
            cfg.rope.yarn =
                yarn.and_then(|GoldenYarn { factor, original_max_position_embeddings, beta_fast, beta_slow }| {
                    release.map(|yarn| Yarn { factor, original_max_position_embeddings, beta_fast, beta_slow, ..yarn })
                });
            let found: Vec<_> = Rope::new(&cfg, &Device::Cpu).inv_freq.iter().map(|value| value.to_bits()).collect();
            assert_eq!(found, inv_freq_bits, "{qk_rope_head_dim} {rope_theta} {:?}", cfg.rope.yarn);
        }
    }

    fn row_len(rows: &[Vec<f32>]) -> usize {
        rows[0].len()
    }
}
