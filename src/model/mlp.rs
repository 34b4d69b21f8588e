//! SwiGLU feed-forward: dense layers and shared experts.

use candle::{Result, Tensor};
use candle_core as candle;
use candle_nn::VarBuilder;

use super::linear::linear;
use super::parameters::{Function, Weights};
use crate::config::Config;
use crate::ops;
use crate::ops::linear::{LinearMode, LinearWeight};

/// `down_proj(silu(gate_proj(x)) * up_proj(x))`.
#[derive(Debug, Clone)]
pub(super) struct Mlp {
    gate_proj: LinearWeight,
    up_proj: LinearWeight,
    down_proj: LinearWeight,
    mode: LinearMode,
}

impl Mlp {
    /// `width`: of the hidden values between the projections.
    pub(super) fn new(cfg: &Config, width: usize, mode: LinearMode, vb: VarBuilder) -> Result<Self> {
        let hidden_size = cfg.hidden_size;
        let linear = |in_dim, out_dim, vb| linear(in_dim, out_dim, cfg.initializer_range, vb);
        Ok(Self {
            gate_proj: linear(hidden_size, width, vb.pp("gate_proj"))?,
            up_proj: linear(hidden_size, width, vb.pp("up_proj"))?,
            down_proj: linear(width, hidden_size, vb.pp("down_proj"))?,
            mode,
        })
    }

    /// `x: [T, hidden_size]` → `[T, hidden_size]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::mlp(x, &self.gate_proj, &self.up_proj, &self.down_proj, self.mode)
    }
}

impl Weights for Mlp {
    fn with_weights(&self, f: &mut Function) -> Result<Self> {
        let (gate_proj, up_proj) = (self.gate_proj.with_weights(f)?, self.up_proj.with_weights(f)?);
        Ok(Self { gate_proj, up_proj, down_proj: self.down_proj.with_weights(f)?, mode: self.mode })
    }
}
