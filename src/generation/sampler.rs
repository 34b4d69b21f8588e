//! From a row of logits to a token.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, VecDeque};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};

use super::constraint::TokenSet;
use super::draw::{Draw, Drawn, LogitChange};
use super::error::{GenerationError, Result};
use super::largest::Largest;
use super::params::SamplingParams;

/// The log-probabilities of one chosen token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Logprobs {
    /// Log-probability of the token under the model: temperature 1, before penalties, bias and truncation.
    pub logprob: f32,
    /// Log-probability of the token under the distribution it was drawn from (0 if greedy).
    pub sampled_logprob: f32,
    /// The most probable tokens under the model with their log-probabilities, largest first, ties by id.
    pub top: Vec<(u32, f32)>,
}

/// A chosen token.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// The token.
    pub id: u32,
    /// Its log-probabilities, if they were asked for.
    pub logprobs: Option<Logprobs>,
    /// The tokens it was chosen among, ascending, if they were asked for; `None` also if nothing was left out.
    pub kept: Option<Vec<u32>>,
}

/// What [`Sampler::sample`] reports besides the token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Log-probabilities, with this many of the most probable tokens; `None` = no log-probabilities.
    pub logprobs: Option<usize>,
    /// The set of tokens that the truncation kept.
    pub kept: bool,
}

/// A distribution over the tokens that penalties, bias and truncation left.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// The tokens: by falling probability (ties by id) if `top_k` or `top_p` sorted them, else by id.
    pub ids: Vec<u32>,
    /// Their probabilities, which sum to 1.
    pub probs: Vec<f64>,
}

impl Distribution {
    /// Probability of a token; 0 for one that was left out.
    pub fn prob(&self, id: u32) -> f64 {
        self.ids.iter().position(|&kept| kept == id).map_or(0.0, |at| self.probs[at])
    }

    /// The index where the cumulated probability passes `u` in `[0, 1)`.
    fn at(&self, u: f64) -> usize {
        let mut rest = u;
        let mut last = 0;
        for (at, &prob) in self.probs.iter().enumerate() {
            if prob > 0.0 {
                last = at;
                if rest < prob {
                    break;
                }
                rest -= prob;
            }
        }
        last
    }
}

/// Chooses the tokens of one sequence: its parameters, its random numbers and the tokens it has seen.
///
/// Every sampled token takes exactly one random number, so the tokens depend on the seed and the logits alone,
/// not on how decoding was batched. All arithmetic is f64 over the f32 logits.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    rng: ChaCha8Rng,
    vocab_size: usize,
    seen: Seen,
}

impl Sampler {
    /// A sampler for a sequence that starts with `prompt`, over logits `[vocab_size]`.
    ///
    /// `default_seed` is used if `params.seed` is `None`.
    ///
    /// # Errors
    /// As [`SamplingParams::validate`].
    pub fn new(params: SamplingParams, prompt: &[u32], vocab_size: usize, default_seed: u64) -> Result<Self> {
        params.validate(vocab_size)?;
        let rng = ChaCha8Rng::seed_from_u64(params.seed.unwrap_or(default_seed));
        let mut seen = Seen::new(&params);
        prompt.iter().for_each(|&id| seen.push(id, false));
        Ok(Self { params, rng, vocab_size, seen })
    }

    /// The distribution that the next token would be drawn from; greedy gives the one token.
    ///
    /// - `logits`: `[vocab_size]`, the model's; -inf forbids a token.
    ///
    /// # Errors
    /// [`GenerationError::Logit`] for NaN or +inf, [`GenerationError::NoCandidate`] if all are -inf,
    /// [`GenerationError::ModelOutput`] for a row of another length.
    pub fn distribution(&self, logits: &[f32]) -> Result<Distribution> {
        self.distribution_among(logits, None)
    }

    /// As [`Self::distribution`], with no token outside `allowed` (`None` = all).
    fn distribution_among(&self, logits: &[f32], allowed: Option<&TokenSet>) -> Result<Distribution> {
        let mut candidates = self.candidates(logits, allowed)?;
        if self.params.is_greedy() {
            let best = candidates.iter().copied().min_by(descending).map_or(0, |best| best.id);
            return Ok(Distribution { ids: vec![best], probs: vec![1.0] });
        }
        self.truncate(&mut candidates);
        let total: f64 = candidates.iter().map(|c| c.value).sum();
        let probs = candidates.iter().map(|c| c.value / total).collect();
        Ok(Distribution { ids: candidates.iter().map(|c| c.id).collect(), probs })
    }

    /// Chooses the next token and remembers it for the penalties.
    ///
    /// # Errors
    /// As [`Self::distribution`]; the sampler is then unchanged.
    pub fn sample(&mut self, logits: &[f32], report: Report) -> Result<Sampled> {
        self.sample_among(logits, None, report)
    }

    /// As [`Self::sample`], with no token outside `allowed` (`None` = all). Log-probabilities stay those of the
    /// model over the whole vocabulary.
    ///
    /// # Errors
    /// As [`Self::distribution`]; the sampler is then unchanged.
    pub fn sample_among(&mut self, logits: &[f32], allowed: Option<&TokenSet>, report: Report) -> Result<Sampled> {
        let greedy = self.params.is_greedy();
        let distribution = if self.takes_largest() && allowed.is_none() {
            self.check_length(logits)?;
            Distribution { ids: vec![self.greedy(Largest::of(logits))?], probs: vec![1.0] }
        } else {
            self.distribution_among(logits, allowed)?
        };
        let at = if greedy { 0 } else { distribution.at(uniform(&mut self.rng)) };
        let id = distribution.ids[at];
        let logprobs = report.logprobs.map(|top| {
            let normaliser = log_sum_exp(logits);
            let logprob = |id: u32| (f64::from(logits[id as usize]) - normaliser) as f32;
            Logprobs {
                logprob: logprob(id),
                sampled_logprob: distribution.probs[at].ln() as f32,
                top: largest(logits, top).into_iter().map(|id| (id, logprob(id))).collect(),
            }
        });
        let kept = (report.kept && distribution.ids.len() < self.vocab_size).then(|| {
            let mut ids = distribution.ids;
            ids.sort_unstable();
            ids
        });
        self.seen.push(id, true);
        Ok(Sampled { id, logprobs, kept })
    }

    /// Whether the choice is that of the largest logit, whatever the others are.
    pub(super) fn takes_largest(&self) -> bool {
        self.params.is_greedy() && !self.changes_logits()
    }

    /// Chooses the largest logit if [`Self::takes_largest`], as [`Self::sample`] does without log-probabilities.
    ///
    /// # Errors
    /// As [`Self::sample`].
    pub(super) fn take_largest(&mut self, largest: Largest, kept: bool) -> Result<Sampled> {
        let id = self.greedy(largest)?;
        self.seen.push(id, true);
        Ok(Sampled { id, logprobs: None, kept: (kept && self.vocab_size > 1).then(|| vec![id]) })
    }

    /// The choice that [`Self::sample_among`] would make, for another to carry out, after the tokens `ahead`, which count
    /// as chosen; [`Self::take_drawn`] takes the result.
    pub(super) fn draw(&self, ahead: &[u32], allowed: Option<TokenSet>, report: Report) -> Draw {
        let params = &self.params;
        let (greedy, mut rng) = (params.is_greedy(), self.rng.clone());
        let mut random = || if greedy { 0.0 } else { uniform(&mut rng) };
        for _ in ahead {
            random();
        }
        let uniform = random();
        let changes = if ahead.is_empty() {
            self.seen.changes(params)
        } else {
            let mut seen = self.seen.clone();
            ahead.iter().for_each(|&id| seen.push(id, true));
            seen.changes(params)
        };
        Draw {
            changes,
            repetition_penalty: params.repetition_penalty,
            presence_penalty: params.presence_penalty,
            frequency_penalty: params.frequency_penalty,
            allowed,
            greedy,
            temperature: params.temperature,
            top_k: params.top_k,
            top_p: params.top_p,
            min_p: params.min_p,
            uniform,
            logprobs: report.logprobs.is_some(),
            kept: report.kept,
        }
    }

    /// Takes what the latest [`Self::draw`] with nothing ahead gave, as [`Self::sample`] does what it chooses itself.
    ///
    /// # Errors
    /// As [`Self::sample`].
    pub(super) fn take_drawn(&mut self, drawn: &Drawn, report: Report) -> Result<Sampled> {
        if let Some((id, value)) = drawn.fault {
            check_logit(id as usize, value)?;
        }
        let id = match drawn.id {
            Some(id) if (id as usize) < self.vocab_size => id,
            Some(id) => {
                let (expected, got) = (format!("an id below {}", self.vocab_size), id.to_string());
                return Err(GenerationError::ModelOutput { what: "drawn token", expected, got });
            }
            None => return Err(GenerationError::NoCandidate { vocab_size: self.vocab_size }),
        };
        if !self.params.is_greedy() {
            uniform(&mut self.rng);
        }
        self.seen.push(id, true);
        let (logprob, sampled_logprob) = (drawn.logprob, drawn.sampled_logprob);
        let logprobs = report.logprobs.map(|_| Logprobs { logprob, sampled_logprob, top: Vec::new() });
        let kept = (report.kept && drawn.kept.len() < self.vocab_size).then(|| drawn.kept.clone());
        Ok(Sampled { id, logprobs, kept })
    }

    fn changes_logits(&self) -> bool {
        self.seen.active() || !self.params.logit_bias.is_empty()
    }

    fn check_length(&self, logits: &[f32]) -> Result<()> {
        if logits.len() == self.vocab_size {
            return Ok(());
        }
        Err(GenerationError::ModelOutput {
            what: "row of logits",
            expected: self.vocab_size.to_string(),
            got: logits.len().to_string(),
        })
    }

    fn greedy(&self, largest: Largest) -> Result<u32> {
        check_logit(largest.id as usize, largest.logit)?;
        if largest.logit == f32::NEG_INFINITY {
            return Err(GenerationError::NoCandidate { vocab_size: self.vocab_size });
        }
        Ok(largest.id)
    }

    /// The tokens that are not forbidden, by id, with their logits after penalties and bias.
    fn candidates(&self, logits: &[f32], allowed: Option<&TokenSet>) -> Result<Vec<Candidate>> {
        self.check_length(logits)?;
        let mut values = Vec::with_capacity(logits.len());
        for (id, &value) in logits.iter().enumerate() {
            check_logit(id, value)?;
            values.push(f64::from(value));
        }
        self.seen.penalise(&self.params, &mut values);
        for (&id, &bias) in &self.params.logit_bias {
            values[id as usize] += f64::from(bias);
        }
        let candidates: Vec<_> = values
            .into_iter()
            .enumerate()
            .filter(|&(id, value)| value > f64::NEG_INFINITY && allowed.is_none_or(|set| set.contains(id as u32)))
            .map(|(id, value)| Candidate { id: id as u32, value })
            .collect();
        if candidates.is_empty() {
            return Err(GenerationError::NoCandidate { vocab_size: logits.len() });
        }
        Ok(candidates)
    }

    /// Logits to weights relative to the largest (`exp((z - max) / temperature)`), then top-k, top-p, min-p.
    fn truncate(&self, candidates: &mut Vec<Candidate>) {
        let params = &self.params;
        let max = candidates.iter().map(|c| c.value).fold(f64::NEG_INFINITY, f64::max);
        let top_k = params.top_k.filter(|&k| k < candidates.len());
        if let Some(k) = top_k {
            candidates.select_nth_unstable_by(k - 1, descending);
            candidates.truncate(k);
            candidates.sort_unstable_by(descending);
        }
        // Ties must be broken by logits: weights may underflow to equal zeros. So the order comes first.
        let weight = |value: f64| ((value - max) / params.temperature).exp();
        if params.top_p < 1.0 {
            let target = params.top_p * candidates.iter().map(|c| weight(c.value)).sum::<f64>();
            let nucleus = nucleus(candidates, target, weight);
            candidates.truncate(nucleus);
        }
        candidates.iter_mut().for_each(|c| c.value = weight(c.value));
        if params.min_p > 0.0 {
            candidates.retain(|c| c.value >= params.min_p);
        }
    }
}

/// Sorts the front of `candidates` as far as is needed for its weights to reach `target`; returns how many that are.
fn nucleus(candidates: &mut [Candidate], target: f64, weight: impl Fn(f64) -> f64) -> usize {
    let mut mass = 0.0;
    let mut sorted = 0;
    let mut block = 128;
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        if rest.len() > block {
            rest.select_nth_unstable_by(block - 1, descending);
        }
        let front = rest.len().min(block);
        rest[..front].sort_unstable_by(descending);
        for (at, candidate) in rest[..front].iter().enumerate() {
            mass += weight(candidate.value);
            if mass >= target {
                return sorted + at + 1;
            }
        }
        sorted += front;
        block *= 4;
    }
    candidates.len()
}

/// A token with its logit, later its weight.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    value: f64,
}

/// Larger value first, then smaller id. No value is NaN; 0 and -0 are equal, which `total_cmp` would not say.
fn descending(a: &Candidate, b: &Candidate) -> Ordering {
    b.value.partial_cmp(&a.value).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

fn check_logit(id: usize, value: f32) -> Result<()> {
    if value.is_nan() || value == f32::INFINITY { Err(GenerationError::Logit { id, value }) } else { Ok(()) }
}

/// A number in `[0, 1)` with 53 random bits.
fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// `ln sum exp` of logits of which at least one is finite.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - max).exp()).sum();
    f64::from(max) + sum.ln()
}

/// Ids of the `count` largest logits, largest first, ties by id.
fn largest(logits: &[f32], count: usize) -> Vec<u32> {
    let order = |&a: &u32, &b: &u32| {
        let by_logit = logits[b as usize].partial_cmp(&logits[a as usize]);
        by_logit.unwrap_or(Ordering::Equal).then(a.cmp(&b))
    };
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    if count == 0 {
        return Vec::new();
    }
    if count < ids.len() {
        ids.select_nth_unstable_by(count - 1, order);
        ids.truncate(count);
    }
    ids.sort_unstable_by(order);
    ids
}

/// Counts of a sequence's tokens, as far as the penalties need them.
#[derive(Debug, Clone)]
struct Seen {
    repetition: bool,
    /// Bound of `window`; `None` = the whole sequence, of which only the counts are kept.
    last_n: Option<usize>,
    window: VecDeque<u32>,
    in_window: HashMap<u32, usize>,
    answer: bool,
    in_answer: HashMap<u32, usize>,
}

impl Seen {
    fn new(params: &SamplingParams) -> Self {
        Self {
            repetition: params.repetition_penalty != 1.0 && params.repeat_last_n != Some(0),
            last_n: params.repeat_last_n,
            window: VecDeque::new(),
            in_window: HashMap::new(),
            answer: params.presence_penalty != 0.0 || params.frequency_penalty != 0.0,
            in_answer: HashMap::new(),
        }
    }

    fn active(&self) -> bool {
        self.repetition || self.answer
    }

    fn push(&mut self, id: u32, generated: bool) {
        if self.answer && generated {
            *self.in_answer.entry(id).or_default() += 1;
        }
        if !self.repetition {
            return;
        }
        *self.in_window.entry(id).or_default() += 1;
        let Some(last_n) = self.last_n else { return };
        self.window.push_back(id);
        if self.window.len() > last_n
            && let Some(oldest) = self.window.pop_front()
            && let Some(count) = self.in_window.get_mut(&oldest)
        {
            *count -= 1;
            if *count == 0 {
                self.in_window.remove(&oldest);
            }
        }
    }

    /// What the penalties and the bias change.
    fn changes(&self, params: &SamplingParams) -> Vec<LogitChange> {
        let mut changes = BTreeMap::new();
        let mut of = |id: u32, change: &dyn Fn(&mut LogitChange)| {
            change(changes.entry(id).or_insert(LogitChange { id, repeated: false, count: 0, bias: 0.0 }));
        };
        self.in_window.keys().for_each(|&id| of(id, &|change| change.repeated = true));
        self.in_answer.iter().for_each(|(&id, &count)| of(id, &|change| change.count = count as u32));
        params.logit_bias.iter().for_each(|(&id, &bias)| of(id, &|change| change.bias = bias));
        changes.into_values().collect()
    }

    fn penalise(&self, params: &SamplingParams, values: &mut [f64]) {
        for &id in self.in_window.keys() {
            if let Some(value) = values.get_mut(id as usize).filter(|value| value.is_finite()) {
                let penalised =
                    if *value > 0.0 { *value / params.repetition_penalty } else { *value * params.repetition_penalty };
                // An extreme penalty stays a number: infinities would turn into NaN later.
                *value = penalised.clamp(-f64::MAX, f64::MAX);
            }
        }
        for (&id, &count) in &self.in_answer {
            if let Some(value) = values.get_mut(id as usize) {
                *value -= params.presence_penalty + params.frequency_penalty * count as f64;
            }
        }
    }
}
