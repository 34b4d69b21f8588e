//! What fits the memory of a GPU, before it is filled.

use std::fmt;

use candle_core::{Device, Result};

use super::options::EngineOptions;
use crate::config::Config;
use crate::model::{Cache, CacheFormat, ModelOptions};
use crate::ops::layout::PAGE_SIZE;
use crate::weights::{Checkpoint, LoadOptions};

/// The share of what is left beside weights and workspace that stays free: rounding of the allocator, and one tensor of the
/// cache twice while it grows.
const SPARE: f64 = 0.05;
/// Scores of indexers that are in memory at a time, in bytes.
const SCORES: u64 = 4 << 26;

/// How the free memory of a GPU is divided. Its text says in one line what fits.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct MemoryPlan {
    /// Bytes that were free.
    pub free: u64,
    /// Bytes of the weights.
    pub weights: u64,
    /// Bytes of what the largest step holds at a time, estimated.
    pub workspace: u64,
    /// Bytes that are left for the cache.
    pub cache: u64,
    /// Bytes of a cached token in all layers.
    pub bytes_per_token: u64,
}

impl MemoryPlan {
    /// Returns the plan for a checkpoint that is to be loaded; `None` on CPU, whose memory the system manages.
    ///
    /// # Errors
    /// If the device does not tell its free memory, or the dtype of `load` makes no cache.
    pub fn new(
        checkpoint: &Checkpoint,
        load: &LoadOptions,
        model: ModelOptions,
        engine: &EngineOptions,
    ) -> Result<Option<Self>> {
        let Some(free) = free_bytes(&load.device)? else { return Ok(None) };
        let config = checkpoint.config();
        let format = model.cache_format.map_or_else(|| CacheFormat::exact_for(load.dtype), Ok)?;
        let weights = checkpoint.loaded_bytes(load.weight_dtype);
        let workspace = workspace(config, load.dtype.size_in_bytes(), engine);
        let left = free.saturating_sub(weights).saturating_sub(workspace);
        let bytes_per_token = Cache::bytes_per_token(config, format) as u64;
        Ok(Some(Self { free, weights, workspace, cache: left - (left as f64 * SPARE) as u64, bytes_per_token }))
    }

    /// Returns how many tokens the cache can hold, in whole pages of 64.
    pub fn tokens(&self) -> usize {
        let tokens = self.cache.checked_div(self.bytes_per_token).unwrap_or(0);
        usize::try_from(tokens).unwrap_or(usize::MAX) / PAGE_SIZE * PAGE_SIZE
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
        write!(
            f,
            "memory: {:.1} GiB free; weights {:.1}, workspace {:.1}, cache {:.1} GiB: {} tokens of {} bytes",
            gib(self.free),
            gib(self.weights),
            gib(self.workspace),
            gib(self.cache),
            self.tokens(),
            self.bytes_per_token
        )
    }
}

/// What the largest step holds at a time: of each row some vectors of every width that a layer has, and scores and logits.
fn workspace(config: &Config, number: usize, engine: &EngineOptions) -> u64 {
    let heads = config.num_attention_heads;
    let head = config.qk_nope_head_dim + config.qk_rope_head_dim;
    let latent = config.kv_lora_rank + config.qk_rope_head_dim;
    let attention = heads * (3 * head + 2 * latent + 2 * config.v_head_dim);
    let experts = config.num_experts_per_tok * (config.moe_intermediate_size + config.hidden_size);
    let row = number * (8 * config.hidden_size + attention + 3 * config.intermediate_size) + 4 * experts;
    let logits = engine.max_sequences * (1 + engine.draft_tokens) * config.vocab_size * 4;
    (engine.step_tokens * row + 3 * logits) as u64 + SCORES
}

#[cfg(feature = "cuda")]
fn free_bytes(device: &Device) -> Result<Option<u64>> {
    match device {
        Device::Cuda(device) => crate::ops::cuda::free_bytes(device).map(|bytes| Some(bytes as u64)),
        _ => Ok(None),
    }
}

#[cfg(not(feature = "cuda"))]
fn free_bytes(_device: &Device) -> Result<Option<u64>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_fill_whole_pages() {
        let gib = 1u64 << 30;
        let plan = MemoryPlan {
            free: 140 * gib,
            weights: 40 * gib,
            workspace: 5 * gib,
            cache: 90 * gib,
            bytes_per_token: Cache::bytes_per_token(&Config::v32(), CacheFormat::Fp8) as u64,
        };
        // 61 layers and the MTP layer, 656 and 132 bytes each.
        assert_eq!(plan.bytes_per_token, 62 * (656 + 132));
        assert_eq!(plan.tokens(), (90 * gib / (62 * 788)) as usize / 64 * 64);
        let expected =
            "memory: 140.0 GiB free; weights 40.0, workspace 5.0, cache 90.0 GiB: 1977984 tokens of 48856 bytes";
        assert_eq!(plan.to_string(), expected);
        let bf16 = Cache::bytes_per_token(&Config::v32(), CacheFormat::Bf16);
        assert_eq!(bf16, 62 * 2 * (576 + 128));
    }

    #[test]
    fn a_cpu_has_no_plan() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/assets/tiny-v32");
        let checkpoint = Checkpoint::open(dir).unwrap();
        let (load, engine) = (LoadOptions::default(), EngineOptions::default());
        assert_eq!(MemoryPlan::new(&checkpoint, &load, ModelOptions::default(), &engine).unwrap(), None);
        let stored: usize = checkpoint.tensors().map(|(.., bytes)| bytes.len()).sum();
        assert_eq!(checkpoint.loaded_bytes(None), stored as u64);
        assert!(checkpoint.loaded_bytes(Some(candle_core::DType::F32)) > stored as u64 * 19 / 10);
    }
}
