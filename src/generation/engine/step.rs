//! One step of the engine.

use std::time::Instant;

use candle_core::{DType, Tensor};

use super::super::draw::{Draw, Drawn};
use super::super::error::{GenerationError, Result};
use super::super::largest::Largest;
use super::super::request::Event;
use super::super::stop::FinishReason;
use super::super::token_model::TokenModel;
use super::answer::Row;
use super::draft::Drafting;
use super::{Engine, Sequence};
use crate::ops;
use crate::ops::layout::{BatchLayout, PAGE_SIZE};

/// What a step does for one sequence.
pub(super) struct Work {
    /// Index into the running sequences.
    pub sequence: usize,
    /// Known tokens that go through the model: 1 of an answer, a chunk of a prompt.
    pub tokens: usize,
    /// Most tokens to guess after them.
    pub max_drafts: usize,
    /// Guessed tokens, which go through the model too.
    pub drafts: Vec<u32>,
    /// Whether a token can be chosen after them: not in the middle of a prompt.
    pub chooses: bool,
    /// Whether the tokens are the prompt's.
    pub prompt: bool,
}

impl Work {
    fn rows(&self) -> usize {
        self.tokens + self.drafts.len()
    }
}

/// What the model made of a batch.
struct Output {
    layout: BatchLayout,
    /// `[T, hidden]`.
    hidden: Tensor,
    /// Experts of every row, `[T, layers, experts_per_token]`, if a request of the step records them.
    routes: Vec<u16>,
    /// Of the rows after which a token can be chosen, one after the other.
    rows: Rows,
}

/// What tokens are chosen from.
enum Rows {
    /// Logits, row by row.
    Logits(Vec<f32>),
    /// The largest logit of each row.
    Largest(Vec<Largest>),
    /// What the model chose for each row.
    Drawn(Vec<Drawn>),
}

impl Rows {
    fn rows(&self, vocab_size: usize) -> Box<dyn Iterator<Item = Row<'_>> + '_> {
        match self {
            Self::Logits(logits) => Box::new(logits.chunks_exact(vocab_size).map(Row::Logits)),
            Self::Largest(largest) => Box::new(largest.iter().copied().map(Row::Largest)),
            Self::Drawn(drawn) => Box::new(drawn.iter().map(Row::Drawn)),
        }
    }
}

impl<M: TokenModel> Engine<M> {
    /// One step; what happened goes to `self.events`.
    pub(super) fn advance(&mut self) -> Result<()> {
        self.remove_cancelled();
        self.admit()?;
        let mut plan = self.plan();
        if plan.is_empty() {
            return Ok(());
        }
        let drafting = self.first_drafts(&mut plan)?;
        let began = Instant::now();
        let output = match self.run(&mut plan, drafting) {
            Ok(output) => output,
            Err(error) => {
                self.roll_back(&plan)?;
                return Err(error);
            }
        };
        self.choose(&plan, &output)?;
        let rows = |prompt| plan.iter().filter(|work| work.prompt == prompt).map(Work::rows).sum();
        let (prompt_rows, answer_rows) = (rows(true), rows(false));
        self.stats.steps += 1;
        self.stats.prompt_tokens += prompt_rows;
        self.stats.add_time(began.elapsed().as_secs_f64(), prompt_rows, answer_rows);
        Ok(())
    }

    /// What goes into the step: every answer, then prompts in the order they came, as far as the budget goes. Beside
    /// answers, prompts get a smaller one by their number, so that no answer waits long for its next token and no prompt
    /// starves among many.
    fn plan(&self) -> Vec<Work> {
        let mut budget = self.options.step_tokens;
        let mut decode_rows = 0usize;
        let mut plan = Vec::with_capacity(self.running.len());
        let work = |sequence, tokens, max_drafts| {
            let (drafts, chooses, prompt) = (Vec::new(), true, false);
            Work { sequence, tokens, max_drafts, drafts, chooses, prompt }
        };
        for (index, sequence) in self.running.iter().enumerate().filter(|(_, sequence)| sequence.answers()) {
            // The token after the last right guess needs a position too.
            let max_drafts = self.options.draft_tokens.min(sequence.answer.room().saturating_sub(1));
            budget = budget.saturating_sub(1 + max_drafts);
            decode_rows += 1 + max_drafts;
            plan.push(work(index, 1, max_drafts));
        }
        if decode_rows > 0 {
            let prompts = self.running.iter().filter(|sequence| !sequence.answers());
            let rows = |sequence: &Sequence<M::Sequence>| {
                self.options.mixed_prefill_tokens.max(self.model.chunk_overhead(sequence.cached))
            };
            let prompt_rows = prompts.map(rows).fold(0, usize::saturating_add);
            let share = decode_rows.saturating_mul(self.options.prefill_per_decode);
            budget = budget.min(share.max(prompt_rows));
        }
        for (index, sequence) in self.running.iter().enumerate().filter(|(_, sequence)| !sequence.answers()) {
            let rest = sequence.answer.ids.len() - sequence.cached;
            let tokens = rest.min(self.options.prefill_chunk).min(budget);
            if tokens > 0 {
                budget -= tokens;
                plan.push(Work { chooses: tokens == rest, prompt: true, ..work(index, tokens, 0) });
            }
        }
        plan
    }

    /// Takes slots, makes the further guesses and runs the main layers over everything.
    fn run(&mut self, plan: &mut [Work], drafting: Drafting) -> Result<Output> {
        // Guesses still to be made take their slots now: the MTP layer needs them for the guesses after.
        let rows = |work: &Work| work.tokens + if work.drafts.is_empty() { 0 } else { work.max_drafts };
        let wanted: Vec<_> = plan.iter().map(|work| (self.running[work.sequence].handle, rows(work))).collect();
        let mut layout = self.model.append(&wanted)?;
        self.check_layout(&layout, plan, wanted.iter().map(|&(_, rows)| rows))?;
        for (span, work) in layout.spans.iter_mut().zip(plan.iter()) {
            span.prefill = self.running[work.sequence].prefill(span.start);
        }
        self.further_drafts(plan, drafting, &layout)?;
        let mut ids = Vec::with_capacity(layout.tokens());
        let mut rows = Vec::new();
        for work in plan.iter() {
            let sequence = &self.running[work.sequence];
            ids.extend_from_slice(&sequence.answer.ids[sequence.cached..sequence.cached + work.tokens]);
            let last = ids.len() - 1;
            ids.extend_from_slice(&work.drafts);
            if work.chooses {
                rows.extend(last..ids.len());
            }
        }
        if let Some((hidden, rows)) = self.pass(plan, &ids, &layout, &rows)? {
            expect_rows("hidden states", &hidden, ids.len())?;
            return Ok(Output { layout, hidden, routes: Vec::new(), rows });
        }
        let (hidden, routes) = self.forward(plan, &ids, &layout)?;
        expect_rows("hidden states", &hidden, ids.len())?;
        let rows = self.read_rows(plan, &hidden, &rows)?;
        Ok(Output { layout, hidden, routes, rows })
    }

    /// The main layers over a batch, and what tokens are chosen from at `rows`, in one pass; `None` if the model has no such
    /// pass, a request records routes, or no token is chosen.
    fn pass(
        &mut self,
        plan: &[Work],
        ids: &[u32],
        layout: &BatchLayout,
        rows: &[usize],
    ) -> Result<Option<(Tensor, Rows)>> {
        if rows.is_empty() || plan.iter().any(|work| self.running[work.sequence].routes.is_some()) {
            return Ok(None);
        }
        let vocab_size = self.model.vocab_size();
        if self.takes_largest(plan) {
            let Some((hidden, largest)) = self.model.forward_largest(ids, layout, rows)? else { return Ok(None) };
            let largest = expect_largest("largest logits", largest, rows.len(), vocab_size)?;
            return Ok(Some((hidden, Rows::Largest(largest))));
        }
        let Some((hidden, logits)) = self.model.forward_logits(ids, layout, rows)? else { return Ok(None) };
        if let Some(draws) = self.draws(plan)
            && let Some(drawn) = self.model.draw(&logits, &draws)?
        {
            if drawn.len() == rows.len() {
                return Ok(Some((hidden, Rows::Drawn(drawn))));
            }
            let (expected, got) = (format!("{} tokens", rows.len()), drawn.len().to_string());
            return Err(GenerationError::ModelOutput { what: "drawn tokens", expected, got });
        }
        Ok(Some((hidden, Rows::Logits(logit_rows("logits", &logits, rows.len(), vocab_size)?))))
    }

    /// How the step's tokens are to be chosen; `None` if an answer needs the logits.
    fn draws(&mut self, plan: &[Work]) -> Option<Vec<Draw>> {
        let mut draws = Vec::new();
        for work in plan.iter().filter(|work| work.chooses) {
            draws.extend(self.running[work.sequence].answer.draws(&work.drafts)?);
        }
        Some(draws)
    }

    /// Whether the largest logits are all that the step's answers need.
    fn takes_largest(&self, plan: &[Work]) -> bool {
        let mut choosing = plan.iter().filter(|work| work.chooses);
        choosing.all(|work| self.running[work.sequence].answer.takes_largest())
    }

    /// The main layers over a batch, with the experts of its rows if a request of the step records them.
    fn forward(&mut self, plan: &[Work], ids: &[u32], layout: &BatchLayout) -> Result<(Tensor, Vec<u16>)> {
        if !plan.iter().any(|work| self.running[work.sequence].routes.is_some()) {
            return Ok((self.model.forward(ids, layout)?, Vec::new()));
        }
        let row = self.model.route_shape().map_or(0, |shape| shape.row());
        let (hidden, routes) = self.model.forward_with_routes(ids, layout)?;
        if routes.len() != ids.len() * row {
            let expected = format!("{} rows of {row} experts", ids.len());
            let got = format!("{} experts", routes.len());
            return Err(GenerationError::ModelOutput { what: "routes", expected, got });
        }
        Ok((hidden, routes))
    }

    /// What tokens are chosen from at `rows` of the hidden states `[T, hidden]`: the largest logits, if no answer needs
    /// more.
    fn read_rows(&self, plan: &[Work], hidden: &Tensor, rows: &[usize]) -> Result<Rows> {
        if rows.is_empty() {
            return Ok(Rows::Largest(Vec::new()));
        }
        let hidden = gather(hidden, rows)?;
        if self.takes_largest(plan) {
            let largest = self.model.argmax(&hidden)?;
            return Ok(Rows::Largest(expect_largest("largest logits", largest, rows.len(), self.model.vocab_size())?));
        }
        let logits = self.model.logits(&hidden)?;
        Ok(Rows::Logits(logit_rows("logits", &logits, rows.len(), self.model.vocab_size())?))
    }

    /// Checks that the model laid the batch out as asked.
    fn check_layout(&self, layout: &BatchLayout, plan: &[Work], rows: impl Iterator<Item = usize>) -> Result<()> {
        let mut end = 0;
        let expected: Vec<_> = plan
            .iter()
            .zip(rows)
            .map(|(work, rows)| {
                end += rows;
                (end - rows..end, self.running[work.sequence].cached)
            })
            .collect();
        let got: Vec<_> = layout.spans.iter().map(|span| (span.tokens.clone(), span.start)).collect();
        let covered = layout.spans.iter().all(|span| span.context() <= span.block_table.len() * PAGE_SIZE);
        if got == expected && covered {
            return Ok(());
        }
        let (expected, got) = (format!("{expected:?}"), format!("{got:?}, block tables long enough: {covered}"));
        Err(GenerationError::ModelOutput { what: "batch layout (rows, start)", expected, got })
    }

    /// Forgets what a failed step appended.
    fn roll_back(&mut self, plan: &[Work]) -> Result<()> {
        for sequence in plan.iter().map(|work| &self.running[work.sequence]) {
            self.model.truncate(sequence.handle, sequence.cached)?;
        }
        Ok(())
    }

    /// Chooses tokens, keeps what the cache rightly holds and ends what is at its end.
    fn choose(&mut self, plan: &[Work], output: &Output) -> Result<()> {
        let mut all_rows = output.rows.rows(self.model.vocab_size());
        let mut ended = Vec::new();
        for (work, span) in plan.iter().zip(&output.layout.spans) {
            let mut end = None;
            let mut accepted = 0;
            if work.chooses {
                let rows = all_rows.by_ref().take(1 + work.drafts.len()).collect::<Vec<_>>();
                (accepted, end) = self.choose_run(work, &rows);
            }
            let rows = work.tokens + accepted;
            let cached = span.start + rows;
            if let Some(routes) = &mut self.running[work.sequence].routes {
                let row = output.routes.len() / output.layout.tokens();
                routes.extend_from_slice(&output.routes[span.tokens.start * row..(span.tokens.start + rows) * row]);
            }
            if let Some(end) = end {
                ended.push((work.sequence, cached, end));
                continue;
            }
            let handle = self.running[work.sequence].handle;
            if accepted < work.drafts.len() {
                self.model.truncate(handle, cached)?;
            }
            let pending = self.keep_hidden(&self.running[work.sequence], &output.hidden, span.tokens.start, rows)?;
            let sequence = &mut self.running[work.sequence];
            sequence.cached = cached;
            if self.options.draft_tokens == 0 {
                sequence.whole = cached;
            }
            sequence.block_table.clone_from(&span.block_table);
            sequence.pending = pending;
        }
        // From the last on, so that the indices before stay right; reported in order.
        ended.sort_unstable_by_key(|&(index, ..)| index);
        let mut reports = Vec::with_capacity(ended.len());
        for (index, cached, end) in ended.into_iter().rev() {
            let mut sequence = self.running.remove(index);
            sequence.cached = cached;
            self.retire(&sequence)?;
            reports.push((sequence.answer, sequence.routes, end));
        }
        for (answer, routes, end) in reports.into_iter().rev() {
            match end {
                End::Finished(reason) => self.report(answer, reason, routes),
                End::Failed(error) => self.events.push((answer.id, Err(error))),
            }
        }
        Ok(())
    }

    /// Chooses tokens of one sequence, row by row, for as long as the guesses are right; returns how many were.
    fn choose_run(&mut self, work: &Work, rows: &[Row<'_>]) -> (usize, Option<End>) {
        let answer = &mut self.running[work.sequence].answer;
        answer.usage.drafted += work.drafts.len();
        self.stats.drafted += work.drafts.len();
        for (at, &row) in rows.iter().enumerate() {
            let (token, reason) = match answer.next(row) {
                Ok(next) => next,
                Err(error) => return (at, Some(End::Failed(error))),
            };
            let right = work.drafts.get(at) == Some(&token.id);
            self.stats.generated_tokens += 1;
            self.stats.accepted += usize::from(right);
            answer.usage.accepted += usize::from(right);
            self.events.push((answer.id, Ok(Event::Token(token))));
            if let Some(reason) = reason {
                return (at, Some(End::Finished(reason)));
            }
            if !right {
                return (at, None);
            }
        }
        (work.drafts.len(), None)
    }
}

/// How a sequence ended.
enum End {
    Finished(FinishReason),
    Failed(GenerationError),
}

/// The rows of `[T, hidden]` asked for, in order.
pub(super) fn gather(hidden: &Tensor, rows: &[usize]) -> Result<Tensor> {
    if rows.len() == hidden.dim(0)? && rows.iter().enumerate().all(|(at, &row)| at == row) {
        return Ok(hidden.clone());
    }
    let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
    Ok(ops::gather(hidden, &Tensor::from_slice(&rows, rows.len(), hidden.device())?, hidden.dtype())?)
}

/// Checks that a matrix has `rows` rows.
pub(super) fn expect_rows(what: &'static str, matrix: &Tensor, rows: usize) -> Result<()> {
    if matrix.rank() == 2 && matrix.dim(0)? == rows {
        return Ok(());
    }
    let (expected, got) = (format!("[{rows}, hidden]"), format!("{:?}", matrix.dims()));
    Err(GenerationError::ModelOutput { what, expected, got })
}

/// Checks that a model named a token of its vocabulary for each row.
pub(super) fn expect_largest(
    what: &'static str,
    largest: Vec<Largest>,
    rows: usize,
    vocab_size: usize,
) -> Result<Vec<Largest>> {
    let unknown = largest.iter().find(|largest| largest.id as usize >= vocab_size);
    if largest.len() == rows && unknown.is_none() {
        return Ok(largest);
    }
    let expected = format!("{rows} ids below {vocab_size}");
    let got = unknown.map_or_else(|| format!("{} ids", largest.len()), |largest| format!("id {}", largest.id));
    Err(GenerationError::ModelOutput { what, expected, got })
}

/// The numbers of a matrix of logits `[rows, vocab_size]`, row by row.
fn logit_rows(what: &'static str, logits: &Tensor, rows: usize, vocab_size: usize) -> Result<Vec<f32>> {
    if logits.dims() != [rows, vocab_size] {
        let (expected, got) = (format!("[{rows}, {vocab_size}]"), format!("{:?}", logits.dims()));
        return Err(GenerationError::ModelOutput { what, expected, got });
    }
    Ok(logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}
