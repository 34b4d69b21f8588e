//! The loss of a batch: what the model learns from it in each stage.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::balance::{ExpertLoad, sequence_balance_loss};
use super::batch::{Batch, Denominators};
use super::error::{Result, TrainingError};
use super::indexer_loss::{IndexerBatch, indexer_loss};
use super::language_model::next_token_loss;
use crate::model::{Model, Trace, TrainingOptions, TrainingOutput};
use crate::ops::linear::LinearWeight;

/// What is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The language loss trains everything but indexers, which choose as they are. The stage of models without an
    /// indexer, and of V3.2 with a frozen one.
    #[default]
    Language,
    /// Dense warm-up: attention is dense, and the indexers alone learn, from its distribution.
    IndexerWarmUp,
    /// Sparse stage: the indexers learn from the attention over what they chose, all else from the language loss.
    Sparse,
}

impl Stage {
    /// Whether the stage trains the parameter of this name. None trains the router's selection bias, which
    /// [`ExpertLoad::update_biases`] moves.
    pub fn learns(self, name: &str) -> bool {
        let indexer = name.contains(".self_attn.indexer.");
        match self {
            Self::Language => !indexer && !name.ends_with(".e_score_correction_bias"),
            Self::IndexerWarmUp => indexer,
            Self::Sparse => !name.ends_with(".e_score_correction_bias"),
        }
    }

    fn has_language(self) -> bool {
        self != Self::IndexerWarmUp
    }

    fn has_indexer(self) -> bool {
        self != Self::Language
    }
}

/// What the loss is made of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Objective {
    /// The stage.
    pub stage: Stage,
    /// Weight of the MTP loss; 0: the MTP layer is not run for it.
    pub mtp_weight: f64,
    /// Weight of the indexers' losses.
    pub indexer_weight: f64,
    /// Weight of the sequence-wise balance loss; 0: it is not computed.
    pub balance_weight: f64,
}

impl Default for Objective {
    /// The weights of DeepSeek-V3's pre-training at its start, without the balance loss.
    fn default() -> Self {
        Self { stage: Stage::Language, mtp_weight: 0.3, indexer_weight: 1.0, balance_weight: 0.0 }
    }
}

/// The loss of one batch. All values are shares of the step's means: those of its batches add up to them.
#[derive(Debug, Clone)]
pub struct BatchLoss {
    /// The sum of the parts with their weights, a scalar f32 that gradients flow from.
    pub loss: Tensor,
    /// Mean next-token loss, nats a token.
    pub next_token: f64,
    /// Mean loss of the MTP layer without its weight, nats a token.
    pub mtp: f64,
    /// Mean divergence of the indexers without its weight, nats a row, summed over layers.
    pub indexer: f64,
    /// The sequence-wise balance loss without its weight, summed over layers.
    pub balance: f64,
    /// How many rows each expert got.
    pub load: ExpertLoad,
}

/// Runs a batch and computes its loss.
///
/// `denominators` are those of the whole step: the sum of [`Denominators::of`] over its batches and ranks. Of `options`,
/// what is returned is the stage's affair, and its warm-up has dense attention in any case. Losses are computed in f32,
/// whatever the activations are.
///
/// # Errors
/// If the model refuses the batch, a weight is negative or not finite, the stage needs an indexer that the model does not
/// have, or a denominator is 0 where the batch has something to divide.
///
/// # Source
/// DeepSeek-V3 technical report, sections 2.1.2 and 2.2; DeepSeek-V3.2-Exp, section 2.1.1.
pub fn batch_loss(
    model: &Model,
    batch: &Batch,
    objective: &Objective,
    denominators: &Denominators,
    options: TrainingOptions,
) -> Result<BatchLoss> {
    let Objective { stage, mtp_weight, indexer_weight, balance_weight } = *objective;
    for (name, weight) in
        [("mtp_weight", mtp_weight), ("indexer_weight", indexer_weight), ("balance_weight", balance_weight)]
    {
        if !(weight >= 0.0 && weight.is_finite()) {
            return Err(TrainingError::value(name, "at least 0", weight));
        }
    }
    if stage.has_indexer() && !model.config().has_indexer() {
        return Err(TrainingError::value("stage", "language: the model has no indexer", format!("{stage:?}")));
    }
    let options = TrainingOptions {
        dense_attention: options.dense_attention || stage == Stage::IndexerWarmUp,
        index_scores: false,
        indexer_inputs: stage.has_indexer(),
        ..options
    };
    let mut trace = Trace::experts();
    let main = model.forward_training(batch.ids(), batch.layout(), options, Some(&mut trace))?;
    let runs_mtp = model.has_mtp() && (stage.has_indexer() || mtp_weight > 0.0);
    let mtp = if runs_mtp {
        let next = batch.next_ids();
        Some(model.forward_mtp_training(&next, &main.hidden, batch.layout(), options, Some(&mut trace))?)
    } else {
        None
    };
    let mut parts = Parts { batch, loss: Tensor::zeros((), DType::F32, model.device())? };
    let (mut next_token, mut mtp_loss, mut indexer, mut balance) = (0.0, 0.0, 0.0, 0.0);
    if stage.has_language() {
        next_token = parts.language(&main.hidden, model.lm_head(), 1, 1.0, denominators.next_token)?;
        if let Some(mtp) = mtp.as_ref().filter(|_| mtp_weight > 0.0) {
            mtp_loss = parts.language(&mtp.hidden, model.mtp_head()?, 2, mtp_weight, denominators.mtp)?;
        }
    }
    let has_next = batch.has_next();
    let all = vec![true; batch.tokens()];
    let runs = [(Some(&main), &all, denominators.rows), (mtp.as_ref(), &has_next, denominators.mtp_rows)];
    for (output, rows, denominator) in runs {
        let Some(output) = output else { continue };
        if stage.has_indexer() {
            indexer += parts.indexers(output, model.config().index_topk, rows, indexer_weight, denominator)?;
        }
        if stage.has_language() && balance_weight > 0.0 {
            let indices = &trace.expert_indices;
            let first = if std::ptr::eq(output, &main) { 0 } else { main.router_logits.len() };
            for (logits, chosen) in output.router_logits.iter().zip(indices.iter().skip(first)) {
                let (Some(logits), Some(chosen)) = (logits, chosen) else { continue };
                let loss = sequence_balance_loss(logits, chosen, batch.layout(), denominators.rows)?;
                balance += loss.detach().to_dtype(DType::F64)?.to_scalar::<f64>()?;
                parts.loss = (parts.loss + (loss * balance_weight)?)?;
            }
        }
    }
    let mut load = ExpertLoad::default();
    for (layer, chosen) in trace.expert_indices.iter().enumerate() {
        if let Some(chosen) = chosen {
            let rows = if layer < main.router_logits.len() { &all } else { &has_next };
            load.add(layer, chosen, model.config().n_routed_experts, rows)?;
        }
    }
    Ok(BatchLoss { loss: parts.loss, next_token, mtp: mtp_loss, indexer, balance, load })
}

/// The mean next-token loss over batches, nats a token.
///
/// # Errors
/// As [`batch_loss`], and if no token has a next one.
pub(super) fn language_loss(model: &Model, batches: &[Batch], options: TrainingOptions) -> Result<f64> {
    let objective = Objective { mtp_weight: 0.0, ..Objective::default() };
    let denominators: Denominators = batches.iter().map(Denominators::of).sum();
    if denominators.next_token == 0.0 {
        return Err(TrainingError::value("examples", "tokens that have a next one", "none"));
    }
    let loss = |batch| Ok(batch_loss(model, batch, &objective, &denominators, options)?.next_token);
    batches.iter().map(loss).sum()
}

/// A loss that is being added up.
struct Parts<'a> {
    batch: &'a Batch,
    loss: Tensor,
}

impl Parts<'_> {
    /// Adds the loss of the tokens `ahead` of the rows; returns the share of the mean without `weight`.
    fn language(
        &mut self,
        hidden: &Tensor,
        head: &LinearWeight,
        ahead: usize,
        weight: f64,
        denominator: f64,
    ) -> Result<f64> {
        let targets = self.batch.targets(ahead);
        let counted = targets.iter().flatten().count();
        let share = share(counted, denominator, if ahead == 1 { "next_token" } else { "mtp" })?;
        let weights: Vec<f64> = targets.iter().map(|target| f64::from(u8::from(target.is_some())) * share).collect();
        let ids: Vec<u32> = targets.iter().map(|target| target.unwrap_or_default()).collect();
        let found = next_token_loss(hidden, head, &ids, &weights)?;
        self.loss = (&self.loss + (found.loss.to_dtype(DType::F32)? * weight)?)?;
        Ok(found.negative_log_likelihood.iter().zip(&weights).map(|(nll, weight)| nll * weight).sum())
    }

    /// Adds the losses of the indexers of all layers of a pass; returns the share of their mean without `weight`.
    fn indexers(
        &mut self,
        output: &TrainingOutput,
        index_topk: Option<usize>,
        rows: &[bool],
        weight: f64,
        denominator: f64,
    ) -> Result<f64> {
        let share = share(rows.iter().filter(|&&row| row).count(), denominator, "rows")?;
        let weights: Vec<f64> = rows.iter().map(|&row| f64::from(u8::from(row)) * share).collect();
        let mut value = 0.0;
        for inputs in output.indexer_inputs.iter().flatten() {
            let batch = IndexerBatch::of_layer(inputs, self.batch.layout(), index_topk)?;
            let found = indexer_loss(&batch, &weights)?;
            self.loss = (&self.loss + (found.loss.to_dtype(DType::F32)? * weight)?)?;
            value += found.kl.iter().zip(&weights).map(|(kl, weight)| kl * weight).sum::<f64>();
        }
        Ok(value)
    }
}

/// One over the denominator, if there is something to divide.
fn share(counted: usize, denominator: f64, name: &str) -> Result<f64> {
    if counted == 0 {
        return Ok(0.0);
    }
    if denominator.is_finite() && denominator >= counted as f64 {
        return Ok(1.0 / denominator);
    }
    Err(TrainingError::value(format!("denominators.{name}"), format!("at least {counted}"), denominator))
}
