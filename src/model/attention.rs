//! Multi-head latent attention, in MHA mode (keys and values expanded) and MQA mode (weights absorbed).

use candle::{DType, Result, Tensor};
use candle_core as candle;
use candle_nn::VarBuilder;

use super::indexer::{IndexVectors, Indexer, IndexerOutput, round_to_fp8};
use super::keys::KeySource;
use super::layer::Given;
use super::linear::linear;
use super::norm::RmsNorm;
use super::parameters::{Function, Weights};
use super::rope::RopeTables;
use super::step::{AttentionForm, Contexts, RowGroup, Step};
use super::training::IndexerInputs;
use crate::config::Config;
use crate::ops;
use crate::ops::fp8::Fp8Row;
use crate::ops::layout::BatchLayout;
use crate::ops::linear::{LinearMode, LinearWeight};

/// Epsilon of the two latent norms: the reference leaves it at its default whatever `rms_norm_eps` says.
const LATENT_NORM_EPS: f64 = 1e-6;

/// Width of the groups in which an FP8 cache quantizes the latent.
const LATENT_FP8_GROUP: usize = ops::fp8::BLOCK;

#[derive(Debug, Clone)]
enum QueryProjection {
    Direct { q_proj: LinearWeight },
    Latent { q_a_proj: LinearWeight, q_a_layernorm: RmsNorm, q_b_proj: LinearWeight },
}

/// The queries of some rows.
struct Query<'a> {
    /// `[n, heads, nope]`.
    nope: Tensor,
    /// `[n, heads, rope]`, not rotated yet.
    pe: Tensor,
    rope: &'a RopeTables,
}

impl Query<'_> {
    /// The rotated part behind another, `[n, heads, ..]`.
    fn rotated_behind(&self, rest: &Tensor) -> Result<Tensor> {
        ops::rope_join(&self.pe, rest, &self.rope.cos, &self.rope.sin, true, false)
    }
}

/// What attention gives back.
pub(super) struct AttentionOutput {
    /// `[T, hidden_size]`.
    pub(super) out: Tensor,
    /// The slots that the step's sparse rows attended to, `[sparse rows, index_topk]`, -1 = none.
    pub(super) chosen: Option<Tensor>,
    /// The indexer's scores, `[T, longest context]` f32, if the step asks for them and the layer has an indexer.
    pub(super) index_scores: Option<Tensor>,
    /// What the indexer's loss is computed from, if the step asks for it and the layer has an indexer.
    pub(super) indexer_inputs: Option<IndexerInputs>,
}

/// The attention of one layer.
#[derive(Debug, Clone)]
pub(super) struct Attention {
    query: QueryProjection,
    kv_a_proj_with_mqa: LinearWeight,
    kv_a_layernorm: RmsNorm,
    kv_b_proj: LinearWeight,
    o_proj: LinearWeight,
    indexer: Option<Indexer>,
    heads: usize,
    nope_dim: usize,
    rope_dim: usize,
    v_dim: usize,
    latent_dim: usize,
    softmax_scale: f64,
    mode: LinearMode,
}

impl Attention {
    /// `indexer`: whether the layer has an indexer of its own.
    pub(super) fn new(cfg: &Config, mode: LinearMode, indexer: bool, vb: VarBuilder) -> Result<Self> {
        let linear = |in_dim, out_dim, vb| linear(in_dim, out_dim, cfg.initializer_range, vb);
        let (hidden, heads) = (cfg.hidden_size, cfg.num_attention_heads);
        let q_dim = heads * (cfg.qk_nope_head_dim + cfg.qk_rope_head_dim);
        let query = match cfg.q_lora_rank {
            None => QueryProjection::Direct { q_proj: linear(hidden, q_dim, vb.pp("q_proj"))? },
            Some(rank) => QueryProjection::Latent {
                q_a_proj: linear(hidden, rank, vb.pp("q_a_proj"))?,
                q_a_layernorm: RmsNorm::new(rank, LATENT_NORM_EPS, vb.pp("q_a_layernorm"))?,
                q_b_proj: linear(rank, q_dim, vb.pp("q_b_proj"))?,
            },
        };
        // Rounding the indexer's inputs flips near ties between positions.
        let indexer_mode = if mode == LinearMode::Bf16 { LinearMode::Dequant } else { mode };
        let latent = cfg.kv_lora_rank;
        let kv_dim = heads * (cfg.qk_nope_head_dim + cfg.v_head_dim);
        Ok(Self {
            query,
            kv_a_proj_with_mqa: linear(hidden, latent + cfg.qk_rope_head_dim, vb.pp("kv_a_proj_with_mqa"))?,
            kv_a_layernorm: RmsNorm::new(latent, LATENT_NORM_EPS, vb.pp("kv_a_layernorm"))?,
            kv_b_proj: linear(latent, kv_dim, vb.pp("kv_b_proj"))?,
            o_proj: linear(heads * cfg.v_head_dim, hidden, vb.pp("o_proj"))?,
            indexer: if indexer { Some(Indexer::new(cfg, indexer_mode, vb.pp("indexer"))?) } else { None },
            heads,
            nope_dim: cfg.qk_nope_head_dim,
            rope_dim: cfg.qk_rope_head_dim,
            v_dim: cfg.v_head_dim,
            latent_dim: latent,
            softmax_scale: cfg.softmax_scale(),
            mode,
        })
    }

    /// `x: [T, hidden_size]`; `shared` is what an earlier layer chose, for layers without an indexer, and `given` is what
    /// takes the place of either.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        step: &Step,
        source: KeySource,
        shared: Option<Tensor>,
        given: &Given,
    ) -> Result<AttentionOutput> {
        let (q, qr) = self.project_query(x)?;
        let kv = source.kv(self.latent_rows(x, &step.rope)?, step)?;
        let IndexerOutput { chosen, scores: index_scores, vectors } = match (&self.indexer, &qr) {
            (Some(indexer), Some(qr)) if !given.again => indexer.forward(x, qr, step, source, given.chosen.as_ref())?,
            _ => IndexerOutput { chosen: given.chosen.clone().or(shared), ..IndexerOutput::default() },
        };
        let indexer_inputs = match vectors {
            Some(vectors) => Some(self.indexer_inputs(vectors, &q, &step.rope, &kv, chosen.clone())?),
            None => None,
        };
        let mut outs = Vec::with_capacity(step.groups.len());
        for group in &step.groups {
            outs.push(self.attend(group, &group.rows(&q)?, chosen.as_ref(), &kv)?);
        }
        let out = match outs.len() {
            0 => Tensor::zeros((0, self.heads, self.v_dim), q.dtype(), q.device())?,
            _ => step.join(outs)?,
        };
        let out = ops::cast(&out.reshape(((), self.heads * self.v_dim))?, x.dtype())?;
        Ok(AttentionOutput { out: self.o_proj.forward(&out, self.mode)?, chosen, index_scores, indexer_inputs })
    }

    /// The indexer's vectors beside what this attention computed, without its gradients: queries `[T, heads, nope + rope]`,
    /// not rotated yet, and the rows of all slots.
    fn indexer_inputs(
        &self,
        vectors: IndexVectors,
        q: &Tensor,
        rope: &RopeTables,
        kv: &Tensor,
        chosen: Option<Tensor>,
    ) -> Result<IndexerInputs> {
        let IndexVectors { q: index_q, index_k, weights } = vectors;
        let q = q.detach();
        let (q_nope, q_pe) = (q.narrow(2, 0, self.nope_dim)?, q.narrow(2, self.nope_dim, self.rope_dim)?);
        let kv_b_proj = LinearWeight { weight: self.kv_b_proj.weight.detach(), ..self.kv_b_proj.clone() };
        let q_latent = ops::absorb_query(&q_nope, &kv_b_proj, self.v_dim)?;
        Ok(IndexerInputs {
            index_q,
            index_k,
            weights,
            q: ops::rope_join(&q_pe, &q_latent, &rope.cos, &rope.sin, true, false)?,
            kv: kv.detach(),
            softmax_scale: self.softmax_scale,
            chosen,
        })
    }

    /// What the indexer gives for `x: [T, hidden_size]`, and nothing else of the layer: with `given` slots, its scores.
    pub(super) fn index(&self, x: &Tensor, step: &Step, source: KeySource, given: &Given) -> Result<IndexerOutput> {
        match (&self.indexer, &self.query) {
            (Some(indexer), QueryProjection::Latent { q_a_proj, q_a_layernorm, .. }) => {
                let qr = q_a_layernorm.forward(&q_a_proj.forward(x, self.mode)?)?;
                indexer.forward(x, &qr, step, source, given.chosen.as_ref())
            }
            _ => Ok(IndexerOutput::default()),
        }
    }

    /// The variables of the indexer.
    pub(super) fn index_variables(&self) -> Result<Vec<Tensor>> {
        self.indexer.variables()
    }

    /// The same attention without its indexer.
    pub(super) fn without_indexer(&self) -> Self {
        Self { indexer: None, ..self.clone() }
    }

    /// The rows of a group: `q: [n, heads, nope + rope]`, not rotated yet, over the slots of `kv: [slots, latent + rope]`
    /// → `[n, heads, v_head_dim]`.
    fn attend(&self, group: &RowGroup, q: &Tensor, chosen: Option<&Tensor>, kv: &Tensor) -> Result<Tensor> {
        let query = Query {
            nope: q.narrow(2, 0, self.nope_dim)?,
            pe: q.narrow(2, self.nope_dim, self.rope_dim)?,
            rope: &group.rope,
        };
        match (group.form, &group.contexts, chosen) {
            (AttentionForm::Expanded, Some(contexts), _) => self.expanded(&query, &group.layout, &contexts.slots, kv),
            (AttentionForm::Absorbed, ..) => self.absorbed(&query, &group.layout, kv),
            (AttentionForm::Sparse, Some(contexts), Some(chosen)) => self.sparse_expanded(&query, contexts, chosen, kv),
            (AttentionForm::Sparse, None, Some(chosen)) => self.sparse_absorbed(&query, chosen, kv),
            (form, ..) => candle::bail!("attention: {form:?} rows, but nothing was chosen for them"),
        }
    }

    /// Queries `[T, heads, nope + rope]` (not rotated yet) and the normalised query latent `[T, q_lora_rank]`.
    fn project_query(&self, x: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let (q, qr) = match &self.query {
            QueryProjection::Direct { q_proj } => (q_proj.forward(x, self.mode)?, None),
            QueryProjection::Latent { q_a_proj, q_a_layernorm, q_b_proj } => {
                let qr = q_a_layernorm.forward(&q_a_proj.forward(x, self.mode)?)?;
                (q_b_proj.forward(&qr, self.mode)?, Some(qr))
            }
        };
        Ok((q.reshape(((), self.heads, self.nope_dim + self.rope_dim))?, qr))
    }

    /// What the cache keeps of `x: [T, hidden_size]`: `[T, latent + rope]`.
    fn latent_rows(&self, x: &Tensor, rope: &RopeTables) -> Result<Tensor> {
        let kv = self.kv_a_proj_with_mqa.forward(x, self.mode)?;
        let mut latent = self.kv_a_layernorm.forward(&kv.narrow(1, 0, self.latent_dim)?)?;
        if let LinearMode::Fp8 { ue8m0 } = self.mode {
            latent = round_to_fp8(&latent, LATENT_FP8_GROUP, ue8m0)?;
        }
        let k_pe = kv.narrow(1, self.latent_dim, self.rope_dim)?.unsqueeze(1)?;
        ops::rope_join(&k_pe, &latent.unsqueeze(1)?, &rope.cos, &rope.sin, true, false)?.squeeze(1)
    }

    /// `[T, heads, latent + rope]`: the query against cached rows.
    fn absorbed_query(&self, query: &Query) -> Result<Tensor> {
        query.rotated_behind(&ops::absorb_query(&query.nope, &self.kv_b_proj, self.v_dim)?)
    }

    /// MHA mode: keys and values of every head from the latents of the contexts' `slots`, `[T, heads, v_head_dim]`.
    fn expanded(&self, query: &Query, layout: &BatchLayout, slots: &Tensor, kv: &Tensor) -> Result<Tensor> {
        let (k, v) = self.expand(slots, kv, query.nope.dtype())?;
        let q = query.rotated_behind(&query.nope)?;
        Ok(ops::mha(&q, &k, &v, layout, self.softmax_scale)?.0)
    }

    /// Keys `[n, heads, nope + rope]` and values `[n, heads, v_head_dim]` of these slots.
    fn expand(&self, slots: &Tensor, kv: &Tensor, dtype: DType) -> Result<(Tensor, Tensor)> {
        let n = slots.dim(0)?;
        let row = Fp8Row { quantized: self.latent_dim, plain: self.rope_dim };
        let kv = match kv.dtype() {
            DType::U8 => ops::cast(&ops::fp8::row_dequant(&ops::gather(kv, slots, DType::U8)?, row)?, dtype)?,
            _ => ops::gather(kv, slots, dtype)?,
        };
        let latent = kv.narrow(1, 0, self.latent_dim)?;
        let expanded = self.kv_b_proj.forward(&latent, self.mode)?;
        let expanded = expanded.reshape((n, self.heads, self.nope_dim + self.v_dim))?;
        let k_pe = kv.narrow(1, self.latent_dim, self.rope_dim)?.unsqueeze(1)?;
        let k_pe = k_pe.broadcast_as((n, self.heads, self.rope_dim))?;
        let k = ops::join(&expanded.narrow(2, 0, self.nope_dim)?, &k_pe)?;
        Ok((k, expanded.narrow(2, self.nope_dim, self.v_dim)?))
    }

    /// MHA mode over `chosen` slots `[T, index_topk]`.
    fn sparse_expanded(&self, query: &Query, contexts: &Contexts, chosen: &Tensor, kv: &Tensor) -> Result<Tensor> {
        let (slots, indices) = contexts.keys(chosen)?;
        let (k, v) = self.expand(&slots, kv, query.nope.dtype())?;
        let q = query.rotated_behind(&query.nope)?;
        Ok(ops::sparse_mha(&q, &k, &v, &indices, self.softmax_scale)?.0)
    }

    /// MQA mode over chosen slots `[T, index_topk]`.
    fn sparse_absorbed(&self, query: &Query, slots: &Tensor, kv: &Tensor) -> Result<Tensor> {
        let q = self.absorbed_query(query)?;
        let (latent, _) = ops::sparse_mla(&q, kv, slots, self.latent_dim, self.softmax_scale)?;
        ops::absorb_value(&latent, &self.kv_b_proj, self.nope_dim)
    }

    /// MQA mode: one key head of cached rows, with `kv_b_proj` absorbed into query and output.
    fn absorbed(&self, query: &Query, layout: &BatchLayout, kv: &Tensor) -> Result<Tensor> {
        let q = self.absorbed_query(query)?;
        let (latent, _) = ops::dense_mla(&q, kv, layout, self.latent_dim, self.softmax_scale)?;
        ops::absorb_value(&latent, &self.kv_b_proj, self.nope_dim)
    }
}

impl Weights for QueryProjection {
    fn with_weights(&self, f: &mut Function) -> Result<Self> {
        Ok(match self {
            Self::Direct { q_proj } => Self::Direct { q_proj: q_proj.with_weights(f)? },
            Self::Latent { q_a_proj, q_a_layernorm, q_b_proj } => Self::Latent {
                q_a_proj: q_a_proj.with_weights(f)?,
                q_a_layernorm: q_a_layernorm.with_weights(f)?,
                q_b_proj: q_b_proj.with_weights(f)?,
            },
        })
    }
}

impl Weights for Attention {
    fn with_weights(&self, f: &mut Function) -> Result<Self> {
        Ok(Self {
            query: self.query.with_weights(f)?,
            kv_a_proj_with_mqa: self.kv_a_proj_with_mqa.with_weights(f)?,
            kv_a_layernorm: self.kv_a_layernorm.with_weights(f)?,
            kv_b_proj: self.kv_b_proj.with_weights(f)?,
            o_proj: self.o_proj.with_weights(f)?,
            indexer: self.indexer.with_weights(f)?,
            ..*self
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle::Device;

    use super::*;
    use crate::model::{Cache, CacheFormat};

    /// Greatest absolute difference of two f32 ways to the same numbers, of a size of one.
    const TOLERANCE: f32 = 1e-5;

    fn random(shape: &[usize]) -> Tensor {
        Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
    }

    fn attention(cfg: &Config) -> Attention {
        let (hidden, heads, latent) = (cfg.hidden_size, cfg.num_attention_heads, cfg.kv_lora_rank);
        let shapes = [
            ("q_proj", vec![heads * cfg.qk_head_dim(), hidden]),
            ("kv_a_proj_with_mqa", vec![latent + cfg.qk_rope_head_dim, hidden]),
            ("kv_a_layernorm", vec![latent]),
            ("kv_b_proj", vec![heads * (cfg.qk_nope_head_dim + cfg.v_head_dim), latent]),
            ("o_proj", vec![hidden, heads * cfg.v_head_dim]),
        ];
        let scaled = |shape: &[usize]| (random(shape) / (shape[shape.len() - 1] as f64).sqrt()).unwrap();
        let tensors = shapes.map(|(name, shape)| (format!("{name}.weight"), scaled(&shape)));
        let vb = VarBuilder::from_tensors(HashMap::from(tensors), DType::F32, &Device::Cpu);
        Attention::new(cfg, LinearMode::Dequant, false, vb).unwrap()
    }

    fn close(what: &str, a: &Tensor, b: &Tensor) {
        let largest = |t: Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        let (size, difference) = (largest(a.clone()), largest((a - b).unwrap()));
        assert!(size > 0.1 && difference <= TOLERANCE * size.max(1.0), "{what}: {difference} of {size}");
    }

    #[test]
    fn both_modes_agree() {
        for (heads, nope, rope, value, latent) in [(8, 24, 16, 20, 32), (1, 7, 4, 33, 40), (5, 128, 64, 128, 512)] {
            let cfg = Config {
                q_lora_rank: None,
                num_attention_heads: heads,
                qk_nope_head_dim: nope,
                qk_rope_head_dim: rope,
                v_head_dim: value,
                kv_lora_rank: latent,
                ..Config::tiny()
            };
            let attention = attention(&cfg);
            let mut cache = Cache::new(&cfg, CacheFormat::F32, &Device::Cpu, 0).unwrap();
            let sequences = [cache.create(), cache.create(), cache.create()];
            // Contexts over several pages, in turns, so that no sequence lies in order.
            for _ in 0..3 {
                cache.append(&sequences.map(|sequence| (sequence, 50))).unwrap();
            }
            let layout = cache.append(&[(sequences[0], 9), (sequences[1], 1), (sequences[2], 70)]).unwrap();
            let kv = &random(&[cache.pages() * 64, latent + rope]);
            let rows = layout.tokens();
            let tables = RopeTables { cos: random(&[rows, rope / 2]), sin: random(&[rows, rope / 2]) };
            let (nope, pe) = (random(&[rows, heads, nope]), random(&[rows, heads, rope]));
            let query = Query { nope, pe, rope: &tables };
            let contexts = Contexts::new(&layout, &Device::Cpu).unwrap();
            let expanded = attention.expanded(&query, &layout, &contexts.slots, kv).unwrap();
            close("dense", &expanded, &attention.absorbed(&query, &layout, kv).unwrap());

            // A few slots for each row, of which the contexts hold more, and many, of which they hold fewer.
            let all = contexts.slots.to_vec1::<u32>().unwrap();
            for k in [1, 7] {
                let pick = |i: usize| if i % 6 == 5 { -1 } else { i64::from(all[(i * 37 + i % 6 * 61) % all.len()]) };
                let chosen = Tensor::from_vec((0..rows * k).map(pick).collect(), (rows, k), &Device::Cpu).unwrap();
                let (keys, _) = contexts.keys(&chosen).unwrap();
                assert_eq!(keys.dims1().unwrap(), if k == 1 { rows } else { all.len() });
                let expanded = attention.sparse_expanded(&query, &contexts, &chosen, kv).unwrap();
                close("sparse", &expanded, &attention.sparse_absorbed(&query, &chosen, kv).unwrap());
            }
        }
    }
}
