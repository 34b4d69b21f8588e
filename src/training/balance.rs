//! Balance of experts: their load, the selection bias that evens it out, and the sequence-wise balance loss.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use candle_nn::VarMap;
use serde::{Deserialize, Serialize};

use super::error::{Result, TrainingError, check_count};
use crate::distributed::Communicator;
use crate::ops::layout::BatchLayout;

/// How many rows each expert of each layer got.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ExpertLoad {
    /// For each layer with experts, its number in the checkpoint and the rows of each expert, `[n_routed_experts]`.
    layers: BTreeMap<usize, Vec<f64>>,
}

/// How even the load of a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LoadMetrics {
    /// The layer's number in the checkpoint.
    pub layer: usize,
    /// The largest load over the mean one, minus 1: 0 where all are the same.
    pub max_violation: f64,
    /// The smallest load over the mean one: 1 where all are the same, 0 where an expert got nothing.
    pub min_share: f64,
    /// Entropy of the load over that of an even one, in `0..=1`.
    pub entropy: f64,
}

impl ExpertLoad {
    /// Adds the experts that the rows of a layer were sent to.
    ///
    /// - `chosen`: `[T, num_experts_per_tok]` u32, below `experts`
    /// - `rows`: `[T]`, which rows count
    ///
    /// # Errors
    /// If a shape or an expert is not as above, or the layer had another number of experts.
    pub fn add(&mut self, layer: usize, chosen: &Tensor, experts: usize, rows: &[bool]) -> Result<()> {
        let chosen = chosen.to_vec2::<u32>()?;
        check_count("rows", chosen.len(), rows.len())?;
        let load = self.layers.entry(layer).or_insert_with(|| vec![0.0; experts]);
        check_count("experts", load.len(), experts)?;
        for expert in chosen.iter().zip(rows).filter(|(_, counts)| **counts).flat_map(|(chosen, _)| chosen) {
            match load.get_mut(*expert as usize) {
                Some(load) => *load += 1.0,
                None => return Err(TrainingError::value("an expert", format!("below {experts}"), expert)),
            }
        }
        Ok(())
    }

    /// Adds the load of another batch.
    ///
    /// # Errors
    /// If a layer has another number of experts there.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        for (&layer, added) in &other.layers {
            let load = self.layers.entry(layer).or_insert_with(|| vec![0.0; added.len()]);
            check_count("experts", load.len(), added.len())?;
            load.iter_mut().zip(added).for_each(|(load, added)| *load += added);
        }
        Ok(())
    }

    /// Adds the loads of all ranks, whose layers must be the same.
    ///
    /// # Errors
    /// If the ranks cannot tell each other.
    pub fn all_reduce(&mut self, communicator: &dyn Communicator) -> Result<()> {
        for load in self.layers.values_mut() {
            *load = communicator.all_reduce_numbers(load)?;
        }
        Ok(())
    }

    /// The rows of each expert of a layer, if it has experts and rows were added.
    pub fn layer(&self, layer: usize) -> Option<&[f64]> {
        self.layers.get(&layer).map(Vec::as_slice)
    }

    /// How even the load of each layer is.
    pub fn metrics(&self) -> Vec<LoadMetrics> {
        let of = |(&layer, load): (&usize, &Vec<f64>)| {
            let sum: f64 = load.iter().sum();
            let mean = sum / load.len() as f64;
            let over_mean = |extreme: f64| if sum > 0.0 { extreme / mean } else { 1.0 };
            let largest = load.iter().copied().fold(0.0, f64::max);
            let smallest = load.iter().copied().fold(f64::INFINITY, f64::min);
            let entropy: f64 = load.iter().filter(|&&l| l > 0.0).map(|l| -(l / sum) * (l / sum).ln()).sum();
            let even = (load.len() as f64).ln();
            LoadMetrics {
                layer,
                max_violation: over_mean(largest) - 1.0,
                min_share: over_mean(smallest),
                entropy: if sum > 0.0 && even > 0.0 { entropy / even } else { 1.0 },
            }
        };
        self.layers.iter().map(of).collect()
    }

    /// Moves the selection biases of the routers in `varmap` by one step: those of experts with less than the mean load by
    /// `speed` up, those of experts with more by `speed` down. The bias decides which experts are chosen, not what they
    /// weigh.
    ///
    /// # Errors
    /// If `speed` is negative or not finite; [`TrainingError::Missing`] if a layer has no bias in `varmap`.
    ///
    /// # Source
    /// DeepSeek-V3 technical report, section 2.1.2, auxiliary-loss-free load balancing; Wang et al. (arXiv 2408.15664),
    /// algorithm 1.
    pub fn update_biases(&self, varmap: &VarMap, speed: f64) -> Result<()> {
        if !(speed >= 0.0 && speed.is_finite()) {
            return Err(TrainingError::value("speed", "at least 0", speed));
        }
        let variables = varmap.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for (layer, load) in &self.layers {
            let name = format!("model.layers.{layer}.mlp.gate.e_score_correction_bias");
            let Some(bias) = variables.get(&name) else { return Err(TrainingError::Missing { name }) };
            check_count("experts", bias.elem_count(), load.len())?;
            let mean = load.iter().sum::<f64>() / load.len() as f64;
            let moved = |load: &f64| match load.total_cmp(&mean) {
                std::cmp::Ordering::Less => speed,
                std::cmp::Ordering::Equal => 0.0,
                std::cmp::Ordering::Greater => -speed,
            };
            let moves: Vec<f64> = load.iter().map(moved).collect();
            let moves = Tensor::from_vec(moves, load.len(), bias.device())?.to_dtype(bias.dtype())?;
            bias.set(&(bias.as_tensor().detach() + moves)?)?;
        }
        Ok(())
    }
}

/// The share of a batch in the sequence-wise balance loss of a layer:
/// `sum over sequences of T_s / denominator * sum over e of f_e P_e`, where `f_e` is `E / (k T_s)` times the rows of the
/// sequence that chose expert `e`, and `P_e` the mean of `e`'s scores, each row's divided by their sum. An even load has
/// the value 1 for a whole step.
///
/// - `router_logits`: `[T, E]` f32, tracked
/// - `chosen`: `[T, k]` u32
/// - `denominator`: the rows of the whole step
/// - result: a scalar f32. The gradient flows through `P` alone
///
/// # Errors
/// If a shape or an expert is not as above, or the denominator is not positive.
///
/// # Source
/// DeepSeek-V3 technical report, equations 17 to 20.
pub fn sequence_balance_loss(
    router_logits: &Tensor,
    chosen: &Tensor,
    layout: &BatchLayout,
    denominator: f64,
) -> Result<Tensor> {
    let (tokens, experts) = router_logits.dims2()?;
    layout.check_rows(tokens)?;
    if !(denominator > 0.0 && denominator.is_finite()) {
        return Err(TrainingError::value("denominator", "more than 0", denominator));
    }
    let chosen = chosen.to_vec2::<u32>()?;
    check_count("chosen experts: rows", tokens, chosen.len())?;
    let mut factors = vec![0f32; tokens * experts];
    for span in &layout.spans {
        let mut counts = vec![0f64; experts];
        for expert in chosen[span.tokens.clone()].iter().flatten() {
            match counts.get_mut(*expert as usize) {
                Some(count) => *count += 1.0,
                None => return Err(TrainingError::value("an expert", format!("below {experts}"), expert)),
            }
        }
        // The rows of the sequence cancel out of T_s * P_e.
        let all: f64 = counts.iter().sum();
        let factor = |count: &f64| (experts as f64 * count / all.max(1.0) / denominator) as f32;
        for row in span.tokens.clone() {
            factors[row * experts..][..experts].iter_mut().zip(&counts).for_each(|(to, count)| *to = factor(count));
        }
    }
    let factors = Tensor::from_vec(factors, (tokens, experts), router_logits.device())?;
    let scores = candle_nn::ops::sigmoid(&router_logits.to_dtype(DType::F32)?)?;
    let shares = scores.broadcast_div(&scores.sum_keepdim(1)?)?;
    Ok((shares * factors)?.sum_all()?)
}
