//! One request's tokens and text, from prompt to end, without its place in the cache.

use super::super::constraint::Constraint;
use super::super::detokenizer::Detokenizer;
use super::super::draw::{Draw, Drawn};
use super::super::error::{GenerationError, Result};
use super::super::largest::Largest;
use super::super::params::parameter;
use super::super::record::{Record, Recording, Routes};
use super::super::request::{Cancel, Request, RequestId, Token, Usage};
use super::super::sampler::{Report, Sampled, Sampler};
use super::super::stop::{FinishReason, StopMatcher};
use super::super::tokenizer::{SpecialTokens, Tokenizer};

/// A request in progress.
#[derive(Debug)]
pub(super) struct Answer {
    pub id: RequestId,
    /// Prompt and answer.
    pub ids: Vec<u32>,
    /// Most tokens of prompt and answer together.
    pub max_len: usize,
    pub usage: Usage,
    /// Set by `Engine::cancel`.
    pub cancelled: bool,
    max_tokens: Option<usize>,
    sampler: Sampler,
    report: Report,
    /// Whether tokens are told with log-probabilities and kept sets, or these are recorded only.
    tells: Report,
    recording: Option<Recording>,
    stop_ids: Vec<u32>,
    text: Option<TextView>,
    cancel: Option<Cancel>,
    constraint: Option<Box<dyn Constraint>>,
}

/// What the model says of a next token.
#[derive(Debug, Clone, Copy)]
pub(super) enum Row<'a> {
    /// All logits, `[vocab_size]`.
    Logits(&'a [f32]),
    /// The largest, for an answer that [takes it](Answer::takes_largest).
    Largest(Largest),
    /// What one of its [draws](Answer::draws) gave.
    Drawn(&'a Drawn),
}

/// The text of the answer's tokens up to a stop string.
#[derive(Debug)]
struct TextView {
    detokenizer: Detokenizer,
    matcher: StopMatcher,
    /// Stop strings that are tokens without text, which no text ever contains.
    stop_tokens: Vec<(u32, String)>,
}

impl TextView {
    fn new(tokenizer: &Tokenizer, special: SpecialTokens, strings: Vec<String>) -> Self {
        let stop_token = |string: &String| {
            let id = tokenizer.token_to_id(string)?;
            (!tokenizer.is_text(id, special)).then(|| (id, string.clone()))
        };
        let stop_tokens = strings.iter().filter_map(stop_token).collect();
        Self { detokenizer: tokenizer.detokenizer(special), matcher: StopMatcher::new(&strings), stop_tokens }
    }

    /// The text that a token frees, and the stop string that it completes.
    fn push(&mut self, id: u32) -> Result<(String, Option<String>)> {
        let Some((_, string)) = self.stop_tokens.iter().find(|(stop, _)| *stop == id) else {
            return Ok(self.matcher.push(&self.detokenizer.push(id)?));
        };
        let string = string.clone();
        let (text, stop) = self.finish()?;
        Ok((text, Some(stop.unwrap_or(string))))
    }

    /// The text still held back, and the stop string that it completes.
    fn finish(&mut self) -> Result<(String, Option<String>)> {
        let (mut text, stop) = self.matcher.push(&self.detokenizer.finish()?);
        if stop.is_none() {
            text.push_str(&self.matcher.finish());
        }
        Ok((text, stop))
    }
}

impl Answer {
    /// Checks the request against the model's sizes.
    pub fn new(
        id: RequestId,
        request: Request,
        tokenizer: Option<&Tokenizer>,
        vocab_size: usize,
        max_context: usize,
        default_seed: u64,
    ) -> Result<Self> {
        let prompt_tokens = request.prompt_ids.len();
        if prompt_tokens == 0 {
            return Err(GenerationError::EmptyPrompt);
        }
        let unknown = request.prompt_ids.iter().position(|&id| id as usize >= vocab_size);
        if let Some(at) = unknown {
            let place = format!("prompt_ids[{at}]");
            return Err(GenerationError::TokenId { place, id: request.prompt_ids[at], vocab_size });
        }
        if prompt_tokens >= max_context {
            return Err(GenerationError::PromptTooLong { tokens: prompt_tokens, max_context });
        }
        if request.max_tokens == Some(0) {
            return Err(parameter("max_tokens", 0, "at least 1"));
        }
        if request.stop.strings.iter().any(String::is_empty) {
            return Err(parameter("stop.strings", "\"\"", "strings that are not empty"));
        }
        if tokenizer.is_none() && !request.stop.strings.is_empty() {
            return Err(GenerationError::StopStringsWithoutTokenizer);
        }
        if let Some(top) = request.logprobs.filter(|&top| top > vocab_size) {
            return Err(parameter("logprobs", top, "at most the model's vocab_size"));
        }
        let recording = Recording::new(request.record, request.params.temperature);
        let tells = Report { logprobs: request.logprobs, kept: request.kept };
        let report = Report {
            logprobs: request.logprobs.or(request.record.logprobs.then_some(0)),
            kept: request.kept || request.record.kept,
        };
        let sampler = Sampler::new(request.params, &request.prompt_ids, vocab_size, default_seed)?;
        let strings = request.stop.strings;
        let text = tokenizer.map(|tokenizer| TextView::new(tokenizer, request.special_tokens, strings));
        let max_len = request.max_tokens.map_or(max_context, |max| max_context.min(prompt_tokens.saturating_add(max)));
        Ok(Self {
            id,
            ids: request.prompt_ids,
            max_len,
            usage: Usage { prompt_tokens, ..Usage::default() },
            cancelled: false,
            max_tokens: request.max_tokens,
            sampler,
            report,
            tells,
            recording,
            stop_ids: request.stop.ids,
            text,
            cancel: request.cancel,
            constraint: request.constraint,
        })
    }

    /// Tokens the answer may still come to.
    pub fn room(&self) -> usize {
        self.max_len.saturating_sub(self.ids.len())
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled || self.cancel.as_ref().is_some_and(Cancel::is_cancelled)
    }

    /// Whether the next token is that of the largest logit and nothing is told of the others.
    pub fn takes_largest(&self) -> bool {
        self.constraint.is_none() && self.report.logprobs.is_none() && self.sampler.takes_largest()
    }

    /// The choices of the next token and of those after each of the `drafts`, for the model to make. `None` if they need the
    /// logits: the most probable tokens are told, a constraint depends on drafts, or it fails.
    pub fn draws(&mut self, drafts: &[u32]) -> Option<Vec<Draw>> {
        if self.report.logprobs.is_some_and(|top| top > 0) || (self.constraint.is_some() && !drafts.is_empty()) {
            return None;
        }
        let allowed = match &mut self.constraint {
            Some(constraint) => constraint.allowed().ok()?,
            None => None,
        };
        let draw = |ahead| self.sampler.draw(&drafts[..ahead], allowed.clone(), self.report);
        Some((0..=drafts.len()).map(draw).collect())
    }

    /// Chooses the next token; also says whether the answer ends with it.
    pub fn next(&mut self, row: Row<'_>) -> Result<(Token, Option<FinishReason>)> {
        let sampled = match row {
            Row::Largest(largest) => self.sampler.take_largest(largest, self.report.kept)?,
            Row::Logits(logits) => self.sample(logits)?,
            Row::Drawn(drawn) => {
                let sampled = self.sampler.take_drawn(drawn, self.report)?;
                if let Some(constraint) = &mut self.constraint {
                    constraint.accept(sampled.id).map_err(GenerationError::Constraint)?;
                }
                sampled
            }
        };
        self.ids.push(sampled.id);
        self.usage.generated_tokens += 1;
        let (text, reason) = self.read(sampled.id)?;
        let mut token = Token { id: sampled.id, text, logprobs: sampled.logprobs, kept: sampled.kept };
        if let Some(recording) = &mut self.recording {
            recording.push(&token);
            token.logprobs = token.logprobs.filter(|_| self.tells.logprobs.is_some());
            token.kept = token.kept.filter(|_| self.tells.kept);
        }
        Ok((token, reason))
    }

    /// Whether the experts of the answer's tokens are recorded.
    pub fn records_routes(&self) -> bool {
        self.recording.as_ref().is_some_and(Recording::routes)
    }

    /// The record, if one was asked for.
    pub fn record(&mut self, weights_version: u64, routes: Option<Routes>) -> Option<Box<Record>> {
        let recording = self.recording.take()?;
        Some(Box::new(recording.finish(&self.ids, self.usage.prompt_tokens, weights_version, routes)))
    }

    /// Chooses a token from its logits, within the constraint.
    fn sample(&mut self, logits: &[f32]) -> Result<Sampled> {
        let allowed = match &mut self.constraint {
            Some(constraint) => constraint.allowed().map_err(GenerationError::Constraint)?,
            None => None,
        };
        let sampled = self.sampler.sample_among(logits, allowed.as_ref(), self.report)?;
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(sampled.id).map_err(GenerationError::Constraint)?;
        }
        Ok(sampled)
    }

    /// The text that a token frees, and the reason to end after it.
    fn read(&mut self, id: u32) -> Result<(String, Option<FinishReason>)> {
        if self.stop_ids.contains(&id) {
            return Ok((String::new(), Some(FinishReason::StopId(id))));
        }
        let (text, stop) = match &mut self.text {
            Some(view) => view.push(id)?,
            None => (String::new(), None),
        };
        let reason = match stop {
            Some(stop) => Some(FinishReason::StopString(stop)),
            None if self.max_tokens == Some(self.usage.generated_tokens) => Some(FinishReason::MaxTokens),
            None if self.room() == 0 => Some(FinishReason::ContextLimit),
            None => None,
        };
        Ok((text, reason))
    }

    /// The text still held back when the answer ends for `reason`.
    pub fn finish(&mut self, reason: &FinishReason) -> Result<String> {
        let Some(view) = &mut self.text else { return Ok(String::new()) };
        if matches!(reason, FinishReason::StopString(_)) {
            return Ok(String::new());
        }
        Ok(view.finish()?.0)
    }
}
