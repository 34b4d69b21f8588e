//! The two norms of the family, with f32 weights.

use candle::{DType, Result, Tensor};
use candle_core as candle;
use candle_nn::VarBuilder;
use candle_nn::init::{ONE, ZERO};

use super::parameters::{Function, Role, Weights};
use crate::ops;

/// RMSNorm over the last dimension, computed in f32.
#[derive(Debug, Clone)]
pub(super) struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    pub(super) fn new(size: usize, eps: f64, vb: VarBuilder) -> Result<Self> {
        let weight = vb.get_with_hints_dtype(size, "weight", ONE, DType::F32)?;
        Ok(Self { weight, eps })
    }

    /// `x: [.., size]` → the same shape and dtype.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::rms_norm(x, &self.weight, self.eps)
    }

    /// The sum of `x` and `a`, `[.., size]` each, and its norm.
    pub(super) fn forward_sum(&self, x: &Tensor, a: &Tensor) -> Result<(Tensor, Tensor)> {
        ops::add_rms_norm(x, a, &self.weight, self.eps)
    }
}

impl Weights for RmsNorm {
    fn with_weights(&self, f: &mut Function) -> Result<Self> {
        Ok(Self { weight: f(Role::Exact, &self.weight)?, eps: self.eps })
    }
}

/// LayerNorm with bias over the last dimension, computed in f32; the indexer's `k_norm`.
#[derive(Debug, Clone)]
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    pub(super) fn new(size: usize, eps: f64, vb: VarBuilder) -> Result<Self> {
        let weight = vb.get_with_hints_dtype(size, "weight", ONE, DType::F32)?;
        let bias = vb.get_with_hints_dtype(size, "bias", ZERO, DType::F32)?;
        Ok(Self { weight, bias, eps })
    }

    /// `x: [.., size]` → the same shape and dtype.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

impl Weights for LayerNorm {
    fn with_weights(&self, f: &mut Function) -> Result<Self> {
        Ok(Self { weight: f(Role::Exact, &self.weight)?, bias: f(Role::Exact, &self.bias)?, eps: self.eps })
    }
}
