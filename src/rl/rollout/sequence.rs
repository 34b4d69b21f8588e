//! One stretch of tokens that a model went through from beginning to end.

use serde::{Deserialize, Serialize};

use crate::generation::{Record, Routes};
use crate::rl::error::{Result, RlError};

/// The tokens of an episode, as the model saw and wrote them; `L` of them.
///
/// An episode is one sequence as long as its conversation only grows. Where reasoning is dropped, the context is managed
/// or the weights change, the next answer begins another sequence, in which only its own tokens count as generated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sequence {
    /// The version of the weights that wrote the generated tokens.
    pub weights_version: u64,
    /// The temperature of the choice; above 0.
    pub temperature: f64,
    /// Token ids, `[L]`.
    pub ids: Vec<u32>,
    /// `[L]`: whether the model generated the token. Prompts, results of tools and template text are not generated.
    pub generated: Vec<bool>,
    /// `[L]`: the log-probability that the sampler gave the token, after temperature and kept set; 0 where it was not
    /// generated.
    pub sampled_logprobs: Vec<f32>,
    /// `[L]`: the ids that the token was chosen among, ascending; within the list, `None` = the whole vocabulary. `None` if
    /// they were not recorded.
    pub kept: Option<Vec<Option<Vec<u32>>>>,
    /// The experts of the first `L - 1` tokens; `None` if they were not recorded.
    pub routes: Option<Routes>,
}

impl Sequence {
    /// The sequences of the answers of one episode, in their order.
    ///
    /// # Errors
    /// [`RlError::Rollout`] if an answer was recorded without log-probabilities, was chosen greedily, or has fields of
    /// different lengths.
    pub fn join<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<Vec<Self>> {
        let mut sequences: Vec<Self> = Vec::new();
        for (answer, record) in records.into_iter().enumerate() {
            let fault = |problem: String| RlError::Rollout { place: format!("answer {answer}"), problem };
            record.validate().map_err(|error| fault(error.to_string()))?;
            let Some(logprobs) = &record.sampled_logprobs else {
                return Err(fault("was recorded without log-probabilities, which every ratio needs".to_string()));
            };
            if record.temperature <= 0.0 {
                return Err(fault("was chosen greedily: no probability to compare with".to_string()));
            }
            match sequences.last_mut().filter(|sequence| sequence.continues(record)) {
                Some(sequence) => sequence.extend(record, logprobs),
                None => sequences.push(Self::begin(record, logprobs)),
            }
        }
        Ok(sequences)
    }

    /// Tokens, `L`.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Generated tokens.
    pub fn generated_tokens(&self) -> usize {
        self.generated.iter().filter(|generated| **generated).count()
    }

    /// Whether all fields have the lengths that belong together.
    ///
    /// # Errors
    /// [`RlError::Rollout`] names the first field at fault.
    pub fn validate(&self) -> Result<()> {
        let tokens = self.len();
        let fault = |field: &str, problem: String| Err(RlError::Rollout { place: field.to_string(), problem });
        for (field, found) in [
            ("generated", self.generated.len()),
            ("sampled_logprobs", self.sampled_logprobs.len()),
            ("kept", self.kept.as_ref().map_or(tokens, Vec::len)),
        ] {
            if found != tokens {
                return fault(field, format!("has {found} entries, expected {tokens} as ids has"));
            }
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return fault("temperature", format!("is {}, expected a finite number above 0", self.temperature));
        }
        let rows = tokens.saturating_sub(1);
        if let Some(routes) = self.routes.as_ref().filter(|routes| !routes.layers.is_empty() && routes.rows() != rows) {
            return fault("routes", format!("has {} rows, expected {rows}, one less than ids", routes.rows()));
        }
        for (at, kept) in self.kept.iter().flatten().enumerate() {
            if kept.as_ref().is_some_and(|kept| kept.binary_search(&self.ids[at]).is_err()) {
                return fault(&format!("kept[{at}]"), format!("lacks the token itself, {}", self.ids[at]));
            }
        }
        Ok(())
    }

    fn begin(record: &Record, logprobs: &[f32]) -> Self {
        let prompt = record.prompt_ids.len();
        let mut sequence = Self {
            weights_version: record.weights_version,
            temperature: record.temperature,
            ids: record.prompt_ids.clone(),
            generated: vec![false; prompt],
            sampled_logprobs: vec![0.0; prompt],
            kept: record.kept.as_ref().map(|_| vec![None; prompt]),
            routes: None,
        };
        sequence.append(record, logprobs);
        sequence
    }

    /// Whether the prompt of an answer is this sequence and more.
    fn continues(&self, record: &Record) -> bool {
        record.weights_version == self.weights_version
            && record.temperature == self.temperature
            && record.kept.is_some() == self.kept.is_some()
            && record.prompt_ids.starts_with(&self.ids)
    }

    fn extend(&mut self, record: &Record, logprobs: &[f32]) {
        let between = &record.prompt_ids[self.len()..];
        self.ids.extend(between);
        self.generated.resize(self.ids.len(), false);
        self.sampled_logprobs.resize(self.ids.len(), 0.0);
        if let Some(kept) = &mut self.kept {
            kept.resize(self.ids.len(), None);
        }
        self.append(record, logprobs);
    }

    /// Adds an answer behind its prompt. Its routes are those of the prompt, too.
    fn append(&mut self, record: &Record, logprobs: &[f32]) {
        self.ids.extend(&record.generated_ids);
        self.generated.resize(self.ids.len(), true);
        self.sampled_logprobs.extend(logprobs);
        if let (Some(all), Some(kept)) = (&mut self.kept, &record.kept) {
            all.extend(kept.iter().cloned());
        }
        self.routes = record.routes.clone();
    }
}
