//! What an answer can be asked to record for training.

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::error::{GenerationError, Result};
use super::request::Token;
use super::sampler::Logprobs;

/// The version of [`Record`]'s format.
pub const RECORD_VERSION: u32 = 1;

/// What to record of an answer. Default: nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecordOptions {
    /// Log-probabilities of the generated tokens.
    pub logprobs: bool,
    /// The tokens that each token was chosen among.
    pub kept: bool,
    /// The experts that each token was sent to, in every MoE layer.
    pub routes: bool,
}

impl RecordOptions {
    /// Everything.
    pub const ALL: Self = Self { logprobs: true, kept: true, routes: true };

    /// Whether anything is recorded.
    pub fn any(&self) -> bool {
        self.logprobs || self.kept || self.routes
    }
}

/// What was recorded of one answer: `P` tokens of the prompt and `G` generated tokens, by id and never tokenized again.
///
/// # Source
/// arXiv 2512.02556, section 3.1: "keep routing" trains on [`Self::routes`], "keep sampling mask" on [`Self::kept`], and
/// the ratios and the off-policy mask need [`Self::sampled_logprobs`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`RECORD_VERSION`].
    pub schema_version: u32,
    /// The version of the weights that answered: [`Engine::weights_version`](super::Engine::weights_version).
    pub weights_version: u64,
    /// The temperature of the choice; 0 = greedy.
    pub temperature: f64,
    /// The prompt, `[P]`.
    pub prompt_ids: Vec<u32>,
    /// The generated tokens, `[G]`, with the stop token if there is one.
    pub generated_ids: Vec<u32>,
    /// `[G]`: log-probabilities under the model, at temperature 1 over the whole vocabulary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<f32>>,
    /// `[G]`: log-probabilities under the distribution that each token was drawn from: with penalties, bias and
    /// temperature, over the kept tokens. 0 if greedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled_logprobs: Option<Vec<f32>>,
    /// `[G]`: the ids that each token was chosen among, ascending: those that `top_k`, `top_p`, `min_p`, a bias of -inf
    /// and the constraint left. `null` = the whole vocabulary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Vec<Option<Vec<u32>>>>,
    /// The experts of every token that went through the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Routes>,
}

/// The experts of one sequence's tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routes {
    /// The model's MoE layers, ascending, from 0, without the MTP layer.
    pub layers: Vec<usize>,
    /// Experts of each token in each layer.
    pub experts_per_token: usize,
    /// `[R, layers, experts_per_token]`, row after row, ascending in the last dimension: row `t` holds the experts of the
    /// token at position `t` of prompt and answer. The last generated token never goes through the model, so
    /// `R = P + G - 1`; less if the answer was cancelled within the prompt.
    pub expert_ids: Vec<u16>,
}

/// The shape of a model's routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteShape {
    /// The MoE layers, ascending, from 0.
    pub layers: Vec<usize>,
    /// Experts of each token in each layer.
    pub experts_per_token: usize,
}

impl RouteShape {
    /// Numbers of one token.
    pub fn row(&self) -> usize {
        self.layers.len() * self.experts_per_token
    }
}

impl Routes {
    /// The experts of the token at a position in the `layer`-th of [`Self::layers`], ascending; `None` beyond the end.
    pub fn of(&self, position: usize, layer: usize) -> Option<&[u16]> {
        if layer >= self.layers.len() {
            return None;
        }
        let at = position.checked_mul(self.layers.len())?.checked_add(layer)?.checked_mul(self.experts_per_token)?;
        self.expert_ids.get(at..at.checked_add(self.experts_per_token)?)
    }

    /// The experts of several sequences' tokens, the rows of one sequence after those of the other, as
    /// [`Model::replay`](crate::model::Model::replay) takes them: for each of a model's `num_hidden_layers` layers
    /// `[rows, experts_per_token]` u32 on CPU, `None` where the layer is not in [`Self::layers`].
    ///
    /// # Errors
    /// [`GenerationError::Record`] if the sequences are not of one model, or a layer is not below `num_hidden_layers`.
    pub fn expert_indices(sequences: &[&Self], num_hidden_layers: usize) -> Result<Vec<Option<Tensor>>> {
        let fault = |field, problem: String| Err(GenerationError::Record { field, problem });
        let mut all = vec![None; num_hidden_layers];
        let Some(first) = sequences.first() else { return Ok(all) };
        let (layers, k) = (&first.layers, first.experts_per_token);
        if let Some(other) = sequences.iter().find(|other| other.layers != *layers || other.experts_per_token != k) {
            let shape =
                |routes: &Self| format!("{} experts in the layers {:?}", routes.experts_per_token, routes.layers);
            return fault("routes", format!("are {} in one sequence and {} in another", shape(first), shape(other)));
        }
        for (place, &layer) in layers.iter().enumerate() {
            if layer >= num_hidden_layers {
                return fault(
                    "routes.layers",
                    format!("names layer {layer}, expected numbers below {num_hidden_layers}"),
                );
            }
            let rows = sequences.iter().flat_map(|routes| (0..routes.rows()).filter_map(|row| routes.of(row, place)));
            let ids: Vec<u32> = rows.flatten().map(|&expert| u32::from(expert)).collect();
            let rows = ids.len().checked_div(k).unwrap_or(0);
            all[layer] = Some(Tensor::from_vec(ids, (rows, k), &Device::Cpu)?);
        }
        Ok(all)
    }

    /// Rows, `R`; 0 if the model has no MoE layer.
    pub fn rows(&self) -> usize {
        self.expert_ids.len().checked_div(self.layers.len().saturating_mul(self.experts_per_token)).unwrap_or(0)
    }
}

impl Record {
    /// Checks the version and that everything has the length that it must have.
    ///
    /// # Errors
    /// [`GenerationError::Record`] names the first field at fault.
    pub fn validate(&self) -> Result<()> {
        let fault = |field, problem: String| Err(GenerationError::Record { field, problem });
        if self.schema_version != RECORD_VERSION {
            return fault("schema_version", format!("is {}, expected {RECORD_VERSION}", self.schema_version));
        }
        if !self.temperature.is_finite() || self.temperature < 0.0 {
            return fault("temperature", format!("is {}, expected a finite number >= 0", self.temperature));
        }
        let generated = self.generated_ids.len();
        let lengths = [
            ("logprobs", self.logprobs.as_ref().map(Vec::len)),
            ("sampled_logprobs", self.sampled_logprobs.as_ref().map(Vec::len)),
            ("kept", self.kept.as_ref().map(Vec::len)),
        ];
        for (field, length) in lengths {
            if let Some(length) = length.filter(|&length| length != generated) {
                return fault(
                    field,
                    format!("has {length} entries, expected {generated}, one of each generated token"),
                );
            }
        }
        if let Some(routes) = &self.routes {
            let row = routes.layers.len().saturating_mul(routes.experts_per_token);
            let most = (self.prompt_ids.len() + generated).saturating_sub(1).saturating_mul(row);
            let length = routes.expert_ids.len();
            if length > most || row > 0 && !length.is_multiple_of(row) {
                return fault(
                    "routes.expert_ids",
                    format!("has {length} entries, expected rows of {row}, {most} at most"),
                );
            }
        }
        Ok(())
    }
}

/// A record in progress.
#[derive(Debug)]
pub(super) struct Recording {
    options: RecordOptions,
    temperature: f64,
    logprobs: Vec<Logprobs>,
    kept: Vec<Option<Vec<u32>>>,
}

impl Recording {
    /// `None` if nothing is asked for.
    pub fn new(options: RecordOptions, temperature: f64) -> Option<Self> {
        options.any().then(|| Self { options, temperature, logprobs: Vec::new(), kept: Vec::new() })
    }

    /// Whether routes are recorded.
    pub fn routes(&self) -> bool {
        self.options.routes
    }

    /// Takes what a token brought.
    pub fn push(&mut self, token: &Token) {
        if let Some(logprobs) = token.logprobs.as_ref().filter(|_| self.options.logprobs) {
            self.logprobs.push(Logprobs { top: Vec::new(), ..*logprobs });
        }
        if self.options.kept {
            self.kept.push(token.kept.clone());
        }
    }

    /// The record of `ids`, prompt and answer.
    pub fn finish(self, ids: &[u32], prompt_tokens: usize, weights_version: u64, routes: Option<Routes>) -> Record {
        let (prompt_ids, generated_ids) = ids.split_at(prompt_tokens);
        let logprobs = |of: fn(&Logprobs) -> f32| self.options.logprobs.then(|| self.logprobs.iter().map(of).collect());
        Record {
            schema_version: RECORD_VERSION,
            weights_version,
            temperature: self.temperature,
            prompt_ids: prompt_ids.to_vec(),
            generated_ids: generated_ids.to_vec(),
            logprobs: logprobs(|logprobs| logprobs.logprob),
            sampled_logprobs: logprobs(|logprobs| logprobs.sampled_logprob),
            kept: self.options.kept.then_some(self.kept),
            routes: routes.filter(|_| self.options.routes),
        }
    }
}
