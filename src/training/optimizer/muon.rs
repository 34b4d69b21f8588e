//! Muon.

use std::collections::{BTreeMap, HashMap};

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

use super::{AdamW, AdamWOptions, Optimizer, Weight, check_learning_rate, taken};
use crate::training::accumulate::Gradients;
use crate::training::error::{Result, TrainingError};
use crate::training::parameters::Parameters;

/// Parameters that AdamW trains though they are matrices: their rows are looked up, or are classes.
const TABLES: [&str; 3] = ["embed_tokens.weight", "lm_head.weight", "shared_head.head.weight"];

/// Coefficients of the iteration, chosen for a steep slope at 0.
const QUINTIC: [f64; 3] = [3.4445, -4.7750, 2.0315];

/// How [`Muon`] works.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MuonOptions {
    /// Share of the old momentum that each step keeps, in `0..1`.
    pub momentum: f64,
    /// Newton-Schulz iterations.
    pub iterations: usize,
    /// Each step takes this times the learning rate times the parameter from it.
    pub weight_decay: f64,
    /// What is not a matrix, embeddings and heads.
    pub adamw: AdamWOptions,
}

impl Default for MuonOptions {
    fn default() -> Self {
        Self { momentum: 0.95, iterations: 5, weight_decay: 0.1, adamw: AdamWOptions::default() }
    }
}

/// Momentum whose matrices are made nearly orthogonal before each step, times `0.2 * sqrt(max(rows, columns))`, which
/// gives a step the size of AdamW's: one learning rate serves both. Stacked matrices, such as those of experts, are taken
/// one by one. Vectors, embeddings and heads are AdamW's.
///
/// # Source
/// Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; Liu et al., "Muon is Scalable for LLM
/// Training" (arXiv 2502.16982), section 2.2.
#[derive(Debug)]
pub struct Muon {
    options: MuonOptions,
    slots: BTreeMap<String, Slot>,
    adamw: AdamW,
}

#[derive(Debug)]
struct Slot {
    weight: Weight,
    /// `None` before the first step.
    momentum: Option<Tensor>,
}

impl Muon {
    /// Returns an optimizer of `parameters` with an empty state.
    ///
    /// # Errors
    /// If an option is out of range.
    pub fn new(parameters: &Parameters, options: MuonOptions) -> Result<Self> {
        if !(0.0..1.0).contains(&options.momentum) {
            return Err(TrainingError::value("momentum", "in 0..1", options.momentum));
        }
        if !(options.weight_decay >= 0.0 && options.weight_decay.is_finite()) {
            return Err(TrainingError::value("weight_decay", "at least 0", options.weight_decay));
        }
        let mut slots = BTreeMap::new();
        for (name, variable) in parameters.iter().filter(|(name, variable)| is_matrix(name, variable.rank())) {
            slots.insert(name.to_string(), Slot { weight: Weight::new(variable)?, momentum: None });
        }
        let others = parameters.filtered(|name, variable| !is_matrix(name, variable.rank()));
        Ok(Self { options, slots, adamw: AdamW::new(&others, options.adamw)? })
    }
}

fn is_matrix(name: &str, rank: usize) -> bool {
    rank >= 2 && !TABLES.iter().any(|table| name.ends_with(table))
}

/// The matrices `[.., rows, columns]` with all singular values moved near 1.
fn orthogonalized(matrices: &Tensor, iterations: usize) -> candle_core::Result<Tensor> {
    let (rows, columns) = (matrices.dim(D::Minus2)?, matrices.dim(D::Minus1)?);
    let wide =
        |x: &Tensor| if rows > columns { x.transpose(D::Minus2, D::Minus1)?.contiguous() } else { Ok(x.clone()) };
    let x = wide(matrices)?;
    let norm = (x.sqr()?.sum_keepdim(D::Minus1)?.sum_keepdim(D::Minus2)?.sqrt()? + 1e-7)?;
    let mut x = x.broadcast_div(&norm)?;
    let [a, b, c] = QUINTIC;
    for _ in 0..iterations {
        let gram = x.matmul(&x.transpose(D::Minus2, D::Minus1)?.contiguous()?)?;
        let polynomial = ((&gram * b)? + (gram.matmul(&gram)? * c)?)?;
        x = ((&x * a)? + polynomial.matmul(&x)?)?;
    }
    wide(&x)
}

impl Optimizer for Muon {
    fn step(&mut self, gradients: &Gradients, learning_rate: f64) -> Result<()> {
        check_learning_rate(learning_rate)?;
        let MuonOptions { momentum: kept, iterations, weight_decay, .. } = self.options;
        for (name, Slot { weight, momentum }) in &mut self.slots {
            let Some(gradient) = weight.gradient(name, gradients)? else { continue };
            let buffer = match momentum.take() {
                Some(old) => ((old * kept)? + gradient)?,
                None => gradient.clone(),
            };
            // Nesterov's form: the momentum that the next step would have.
            let ahead = (gradient + (&buffer * kept)?)?;
            let size = weight.variable.dims().iter().rev().take(2).copied().max().unwrap_or(1);
            let step = (orthogonalized(&ahead, iterations)? * (learning_rate * 0.2 * (size as f64).sqrt()))?;
            *momentum = Some(buffer);
            weight.descend(&step, learning_rate, weight_decay)?;
        }
        self.adamw.step(gradients, learning_rate)
    }

    fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = self.adamw.state()?;
        for (name, slot) in &self.slots {
            slot.weight.save(name, &mut state);
            if let Some(momentum) = &slot.momentum {
                state.insert(format!("{name}.momentum"), momentum.clone());
            }
        }
        Ok(state)
    }

    fn load_state(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        self.adamw.load_state(state)?;
        for (name, slot) in &mut self.slots {
            slot.weight.load(name, state)?;
            let key = format!("{name}.momentum");
            slot.momentum = match state.contains_key(&key) {
                true => {
                    let momentum = taken(state, &key, slot.weight.variable.dims(), slot.weight.dtype())?;
                    Some(momentum.to_device(slot.weight.variable.device())?)
                }
                false => None,
            };
        }
        Ok(())
    }
}
