//! The router's selection on CPU.

use candle::{Device, Result, Tensor};
use candle_core as candle;

use super::{GateConfig, NORM_EPS};
use crate::ops::cpu::floats::Floats;

/// [`gate`](super::gate) of CPU tensors.
pub(super) fn gate(logits: &Tensor, bias: Option<&Tensor>, cfg: &GateConfig) -> Result<(Tensor, Tensor)> {
    let (tokens, experts) = logits.dims2()?;
    let (logits, bias) = (Floats::new(logits)?, bias.map(Floats::new).transpose()?);
    let bias = bias.as_ref().map(Floats::as_slice);
    let k = cfg.num_experts_per_tok;
    let mut row = Row { scores: vec![0.0; experts], choice: vec![0.0; experts], kept: Vec::new(), best: Vec::new() };
    let (mut indices, mut weights) = (Vec::with_capacity(tokens * k), Vec::with_capacity(tokens * k));
    for (token, logits) in logits.as_slice().chunks(experts).enumerate() {
        row.score(logits, bias);
        if row.choice.iter().any(|choice| choice.is_nan()) {
            candle::bail!("gate: a router score of row {token} is NaN")
        }
        row.exclude_groups(cfg);
        select(&row.choice, k, &mut row.best);
        row.best.sort_unstable();
        let sum: f32 = row.best.iter().map(|&expert| row.scores[expert]).sum();
        let divisor = if cfg.norm_topk_prob { sum + NORM_EPS as f32 } else { 1.0 };
        for &expert in &row.best {
            indices.push(expert as u32);
            weights.push(row.scores[expert] / divisor * cfg.routed_scaling_factor as f32);
        }
    }
    Ok((Tensor::from_vec(indices, (tokens, k), &Device::Cpu)?, Tensor::from_vec(weights, (tokens, k), &Device::Cpu)?))
}

/// Scratch for one token.
struct Row {
    /// `sigmoid(logits)`, `[E]`.
    scores: Vec<f32>,
    /// What experts are chosen by, `[E]`.
    choice: Vec<f32>,
    /// The groups that stay.
    kept: Vec<usize>,
    /// The chosen experts.
    best: Vec<usize>,
}

impl Row {
    fn score(&mut self, logits: &[f32], bias: Option<&[f32]>) {
        for (score, logit) in self.scores.iter_mut().zip(logits) {
            // The reference's own expression, so that both select alike.
            *score = ((-logit).exp() + 1.0).recip();
        }
        self.choice.copy_from_slice(&self.scores);
        if let Some(bias) = bias {
            self.choice.iter_mut().zip(bias).for_each(|(choice, bias)| *choice += bias);
        }
    }

    fn exclude_groups(&mut self, cfg: &GateConfig) {
        if cfg.topk_group >= cfg.n_group {
            return;
        }
        let size = self.choice.len() / cfg.n_group;
        let group_scores: Vec<f32> = self.choice.chunks(size).map(best_two).collect();
        select(&group_scores, cfg.topk_group, &mut self.kept);
        for (group, choice) in self.choice.chunks_mut(size).enumerate() {
            if !self.kept.contains(&group) {
                choice.fill(f32::NEG_INFINITY);
            }
        }
    }
}

/// Sum of the two largest values, or the one there is.
fn best_two(values: &[f32]) -> f32 {
    let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for &value in values {
        if value > first {
            (first, second) = (value, first);
        } else if value > second {
            second = value;
        }
    }
    if values.len() == 1 { first } else { first + second }
}

/// Indices of the `k` largest values, largest first, into `best`; of equals the smaller index.
fn select(values: &[f32], k: usize, best: &mut Vec<usize>) {
    best.clear();
    for (index, &value) in values.iter().enumerate() {
        if best.len() == k {
            match best.last() {
                Some(&last) if value > values[last] => best.pop(),
                _ => continue,
            };
        }
        let place = best.partition_point(|&other| values[other] >= value);
        best.insert(place, index);
    }
}
