//! The lightning indexer: scores every cached token and keeps the `index_topk` best for each query.

use candle::{DType, Result, Tensor};
use candle_core as candle;
use candle_nn::VarBuilder;

use super::keys::KeySource;
use super::linear::linear;
use super::norm::LayerNorm;
use super::parameters::{Function, Weights, map_exact};
use super::rope::RopeTables;
use super::step::Step;
use crate::config::Config;
use crate::ops;
use crate::ops::linear::{LinearMode, LinearWeight};

/// LayerNorm epsilon of the index keys, the same in every config of the family.
const K_NORM_EPS: f64 = 1e-6;

/// The indexer of one layer.
#[derive(Debug, Clone)]
pub(super) struct Indexer {
    wq_b: LinearWeight,
    wk: LinearWeight,
    k_norm: LayerNorm,
    weights_proj: LinearWeight,
    n_heads: usize,
    head_dim: usize,
    rope_dim: usize,
    interleaved: bool,
    topk: usize,
    mode: LinearMode,
}

/// What an indexer gives back.
#[derive(Debug, Default)]
pub(super) struct IndexerOutput {
    /// The slots of the best-scored tokens for the step's sparse rows, `[sparse rows, index_topk]`, padded with -1;
    /// `None` if there are no such rows.
    pub(super) chosen: Option<Tensor>,
    /// The scores of all rows, `[T, longest context]` f32, -inf beyond a row's position, if the step asks for them.
    pub(super) scores: Option<Tensor>,
    /// What the scores are made of, if the step asks for it.
    pub(super) vectors: Option<IndexVectors>,
}

/// What an indexer's scores are made of.
#[derive(Debug, Clone)]
pub(super) struct IndexVectors {
    /// Index queries, `[T, index_n_heads, index_head_dim]`.
    pub(super) q: Tensor,
    /// Index keys by slot, `[slots, index_head_dim]`.
    pub(super) index_k: Tensor,
    /// Weights of the index heads, scaled, `[T, index_n_heads]` f32.
    pub(super) weights: Tensor,
}

impl Indexer {
    pub(super) fn new(cfg: &Config, mode: LinearMode, vb: VarBuilder) -> Result<Self> {
        let linear = |in_dim, out_dim, vb| linear(in_dim, out_dim, cfg.initializer_range, vb);
        let (n_heads, head_dim, topk, q_lora_rank) =
            match (cfg.index_n_heads, cfg.index_head_dim, cfg.index_topk, cfg.q_lora_rank) {
                (Some(n_heads), Some(head_dim), Some(topk), Some(rank)) => (n_heads, head_dim, topk, rank),
                _ => candle::bail!("the indexer needs index_n_heads, index_head_dim, index_topk and q_lora_rank"),
            };
        Ok(Self {
            wq_b: linear(q_lora_rank, n_heads * head_dim, vb.pp("wq_b"))?,
            wk: linear(cfg.hidden_size, head_dim, vb.pp("wk"))?,
            k_norm: LayerNorm::new(head_dim, K_NORM_EPS, vb.pp("k_norm"))?,
            weights_proj: linear(cfg.hidden_size, n_heads, vb.pp("weights_proj"))?,
            n_heads,
            head_dim,
            rope_dim: cfg.qk_rope_head_dim,
            interleaved: cfg.indexer_rope_interleave,
            topk,
            mode,
        })
    }

    /// Chooses slots for the step's sparse rows, and gives what else the step asks for. `given` slots take the place of its
    /// choice.
    ///
    /// `x: [T, hidden_size]`, `qr: [T, q_lora_rank]` the normalised query latent. No gradient flows into them: the
    /// indexer learns from its scores alone, and the model does not learn from them.
    ///
    /// # Source
    /// DeepSeek-V3.2-Exp, section 2.1: the indexer's input is detached.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        qr: &Tensor,
        step: &Step,
        source: KeySource,
        given: Option<&Tensor>,
    ) -> Result<IndexerOutput> {
        let only_chooses = !step.index_scores && !step.indexer_inputs;
        if let Some(given) = given.filter(|_| only_chooses) {
            return Ok(IndexerOutput { chosen: Some(given.clone()), ..IndexerOutput::default() });
        }
        let (x, qr) = (x.detach(), qr.detach());
        let index_k = source.index_k(self.keys(&x, &step.rope)?, step)?;
        if only_chooses {
            let Some(group) = step.sparse() else { return Ok(IndexerOutput::default()) };
            let rope = &group.rope;
            let (x, qr) = (group.rows(&x)?, group.rows(&qr)?);
            // Beside a cache of codes the queries stay codes as well.
            let (q, weights) = match index_k.dtype() {
                DType::U8 if self.rounds() => self.coded_queries(&x, &qr, rope)?,
                _ => self.queries(&x, &qr, rope)?,
            };
            let chosen = ops::indexer_topk(&q, &index_k, &weights, &group.layout, self.topk)?;
            return Ok(IndexerOutput { chosen: Some(chosen), ..IndexerOutput::default() });
        }
        let (q, weights) = self.queries(&x, &qr, &step.rope)?;
        let chosen = match (given, step.sparse()) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(group)) => {
                let (q, weights) = (group.rows(&q)?, group.rows(&weights)?);
                Some(ops::indexer_topk(&q, &index_k, &weights, &group.layout, self.topk)?)
            }
            (None, None) => None,
        };
        let scores = match step.index_scores {
            true => Some(ops::mqa_logits(&q, &index_k, &weights, &step.layout)?),
            false => None,
        };
        Ok(IndexerOutput {
            chosen,
            scores,
            vectors: step.indexer_inputs.then_some(IndexVectors { q, index_k, weights }),
        })
    }

    /// Index keys `[T, index_head_dim]` of `x: [T, hidden_size]`.
    fn keys(&self, x: &Tensor, rope: &RopeTables) -> Result<Tensor> {
        let k = self.k_norm.forward(&self.wk.forward(x, self.mode)?)?;
        self.rotate(&k.unsqueeze(1)?, rope)?.squeeze(1)
    }

    /// Index queries `[T, index_n_heads, index_head_dim]` and head weights `[T, index_n_heads]` f32, scaled.
    fn queries(&self, x: &Tensor, qr: &Tensor, rope: &RopeTables) -> Result<(Tensor, Tensor)> {
        Ok((self.rotate(&self.vectors(qr)?, rope)?, self.head_weights(x, None)?))
    }

    /// [`Self::queries`] in FP8 precision as e4m3 codes, whose scales are in the head weights. The scores are the same to
    /// the last bit: the scales are powers of two.
    fn coded_queries(&self, x: &Tensor, qr: &Tensor, rope: &RopeTables) -> Result<(Tensor, Tensor)> {
        let q = ops::hadamard(&self.rotate_exactly(&self.vectors(qr)?, rope)?)?;
        let (codes, scale) = ops::fp8::act_quant(&q, self.head_dim, true)?;
        Ok((codes, self.head_weights(x, Some(&scale.squeeze(2)?))?))
    }

    /// Index queries `[T, index_n_heads, index_head_dim]` before they are rotated.
    fn vectors(&self, qr: &Tensor) -> Result<Tensor> {
        self.wq_b.forward(qr, self.mode)?.reshape(((), self.n_heads, self.head_dim))
    }

    /// The heads' weights times `by`, the scales of the queries' codes.
    fn head_weights(&self, x: &Tensor, by: Option<&Tensor>) -> Result<Tensor> {
        // They stay f32: rounding them flips near ties.
        let weights = self.weights_proj.forward_f32(x, self.mode)?;
        ops::scale(&weights, ((self.n_heads * self.head_dim) as f64).powf(-0.5), by)
    }

    /// Whether index vectors go through the Hadamard transform and e4m3.
    fn rounds(&self) -> bool {
        matches!(self.mode, LinearMode::Fp8 { .. })
    }

    /// Rotates the first `rope_dim` elements of `x: [T, heads, head_dim]`; in FP8 precision the whole vector then goes
    /// through the Hadamard transform and e4m3.
    fn rotate(&self, x: &Tensor, rope: &RopeTables) -> Result<Tensor> {
        let x = self.rotate_exactly(x, rope)?;
        if !self.rounds() {
            return Ok(x);
        }
        // One power-of-two scale for each head's vector, whatever the format of the weights' scales.
        round_to_fp8(&ops::hadamard(&x)?, self.head_dim, true)
    }

    /// Rotates the first `rope_dim` elements of `x: [T, heads, head_dim]`.
    fn rotate_exactly(&self, x: &Tensor, rope: &RopeTables) -> Result<Tensor> {
        let pe = x.narrow(2, 0, self.rope_dim)?;
        let rest = x.narrow(2, self.rope_dim, self.head_dim - self.rope_dim)?;
        ops::rope_join(&pe, &rest, &rope.cos, &rope.sin, self.interleaved, true)
    }
}

impl Weights for Indexer {
    fn with_weights(&self, f: &mut Function) -> Result<Self> {
        Ok(Self {
            wq_b: self.wq_b.with_weights(f)?,
            wk: self.wk.with_weights(f)?,
            k_norm: self.k_norm.with_weights(f)?,
            weights_proj: map_exact(&self.weights_proj, f)?,
            ..*self
        })
    }
}

/// Quantizes groups of the last dimension to e4m3 and back.
pub(super) fn round_to_fp8(x: &Tensor, group: usize, ue8m0: bool) -> Result<Tensor> {
    let (codes, scale) = ops::fp8::act_quant(x, group, ue8m0)?;
    ops::cast(&ops::fp8::act_dequant(&codes, &scale, group)?, x.dtype())
}
