//! How a model computes and what its cache keeps.

use candle::{DType, Result};
use candle_core as candle;

use super::cache::CacheFormat;
use crate::config::Config;
use crate::ops::linear::LinearMode;

/// The arithmetic of a model's projections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// FP8 weights are dequantized, everything else keeps the activations' dtype.
    #[default]
    Dequant,
    /// The reference's FP8 arithmetic: activations of FP8 projections, the indexer's queries and keys, and the cached
    /// latent are rounded to e4m3. Nothing changes for a checkpoint without FP8 weights but the indexer, the cache and
    /// the order of the router's additions.
    Fp8,
    /// Projections with bf16 weights round their inputs to bf16 and add the products in f32; their outputs keep the
    /// activations' dtype. Faster on processors with AVX512-BF16 or AMX. The router, the indexer's own projections, the
    /// absorbed products with `kv_b_proj`, `lm_head` and other weights are computed as with `Dequant`.
    Bf16,
}

impl Precision {
    /// The mode of the linear layers.
    pub(super) fn mode(self, cfg: &Config) -> LinearMode {
        match self {
            Self::Dequant => LinearMode::Dequant,
            Self::Fp8 => LinearMode::Fp8 { ue8m0: cfg.quantization_config.as_ref().is_some_and(|q| q.ue8m0) },
            Self::Bf16 => LinearMode::Bf16,
        }
    }
}

/// How a model computes and what its cache keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModelOptions {
    /// The arithmetic of the projections.
    pub precision: Precision,
    /// The format of the caches that [`Model::new_cache`](super::Model::new_cache) makes; `None` = that of the
    /// activations' dtype.
    pub cache_format: Option<CacheFormat>,
}

impl ModelOptions {
    /// The cache's format for activations of this dtype.
    pub(super) fn cache_format(self, dtype: DType) -> Result<CacheFormat> {
        self.cache_format.map_or_else(|| CacheFormat::exact_for(dtype), Ok)
    }
}

impl From<Precision> for ModelOptions {
    fn from(precision: Precision) -> Self {
        Self { precision, cache_format: None }
    }
}
