//! A model without weights: its logits are a pure function of the token history, which it reads back from its cache
//! slot by slot, so that a wrong slot, a stale row or a wrong hidden state changes the answer or panics.
#![allow(dead_code)] // every test file uses its own part

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Result, Tensor, bail};
use deepseek_v32::generation::{
    FinishReason, Largest, Pages, Report, Request, RouteShape, Sampled, Sampler, TokenModel,
};
use deepseek_v32::ops::layout::{BatchLayout, PAGE_SIZE, Span};

/// The hash of a history with one more token.
pub fn extend(history: u64, token: u32) -> u64 {
    let mut z = (history ^ u64::from(token)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The hash of a history.
pub fn hash(tokens: &[u32]) -> u64 {
    tokens.iter().fold(0, |history, &token| extend(history, token))
}

/// Logits after a history: multiples of 1/8 in [-4, 4), so that there are ties.
pub fn logits_after(history: u64, vocab_size: usize) -> Vec<f32> {
    (0..vocab_size as u32).map(|id| (extend(history, id) % 64) as f32 / 8.0 - 4.0).collect()
}

/// The MoE layers of the mock, and the experts of each token in each.
pub const MOE_LAYERS: [usize; 3] = [1, 2, 4];
pub const EXPERTS_PER_TOKEN: usize = 2;

/// The experts of the last token of a history, `[layers, experts_per_token]`.
pub fn experts_after(history: u64) -> Vec<u16> {
    let of = |&layer: &usize| {
        let experts = extend(history, layer as u32);
        [(experts % 100) as u16, 100 + (experts / 100 % 100) as u16]
    };
    MOE_LAYERS.iter().flat_map(of).collect()
}

/// When the MTP layer guesses right, by the hash of the history it guesses from.
pub type Right = fn(u64) -> bool;

pub struct Mock {
    pub vocab_size: usize,
    pub max_context: usize,
    /// `None` = no MTP layer.
    pub right: Option<Right>,
    /// Most pages that were ever in use.
    pub peak_pages: usize,
    /// Most rows of one `forward`.
    pub peak_rows: usize,
    /// The call of `append`, `forward` or `forward_mtp` that fails (counted down to 0).
    pub fail_in: Option<Arc<AtomicUsize>>,
    /// Rows whose largest logit alone was asked for.
    pub largest_rows: AtomicUsize,
    /// Rows whose logits were asked for.
    pub logit_rows: AtomicUsize,
    /// Tokens of a context for each row that a chunk costs beside its own; 0 = none.
    pub context_per_row: usize,
    /// Logits of histories with this hash are replaced.
    pub poison: Option<(u64, Vec<f32>)>,
    /// Token per slot in the main layers.
    main: Vec<Option<u32>>,
    /// Hash of the history up to the next token, per slot, in the MTP layer.
    mtp: Vec<Option<u64>>,
    free_pages: Vec<u32>,
    /// Sequences that own each page.
    owners: BTreeMap<u32, usize>,
    sequences: BTreeMap<u64, (Vec<u32>, usize)>,
    next: u64,
}

impl Mock {
    pub fn new(vocab_size: usize, max_context: usize) -> Self {
        Self {
            vocab_size,
            max_context,
            right: None,
            peak_pages: 0,
            peak_rows: 0,
            fail_in: None,
            largest_rows: AtomicUsize::new(0),
            logit_rows: AtomicUsize::new(0),
            context_per_row: 0,
            poison: None,
            main: Vec::new(),
            mtp: Vec::new(),
            free_pages: Vec::new(),
            owners: BTreeMap::new(),
            sequences: BTreeMap::new(),
            next: 0,
        }
    }

    pub fn with_mtp(mut self, right: Right) -> Self {
        self.right = Some(right);
        self
    }

    pub fn used_pages(&self) -> usize {
        self.owners.len()
    }

    pub fn sequences(&self) -> usize {
        self.sequences.len()
    }

    fn may_fail(&self) -> Result<()> {
        let Some(count) = &self.fail_in else { return Ok(()) };
        if count.fetch_sub(1, Ordering::Relaxed) == 0 { bail!("the mock failed as told") } else { Ok(()) }
    }

    /// Rows that the main layers hold of the sequence with this block table.
    fn cached(&self, span: &Span) -> usize {
        let mut owners = self.sequences.values().filter(|(pages, _)| pages.starts_with(&span.block_table));
        let (_, len) = owners.next().expect("a block table that is no sequence's");
        assert!(owners.next().is_none(), "rows go to pages that sequences share");
        *len
    }

    fn release(&mut self, pages: Vec<u32>) {
        for page in pages {
            let owners = self.owners.get_mut(&page).expect("a page that nobody owns");
            *owners -= 1;
            if *owners == 0 {
                self.owners.remove(&page);
                self.free_pages.push(page);
            }
        }
    }

    fn check_alone(&self, span: &Span, position: usize) {
        let page = span.block_table[position / PAGE_SIZE];
        assert_eq!(self.owners[&page], 1, "a row is written to a page that sequences share");
    }

    fn row_of_logits(&self, history: u64) -> Vec<f32> {
        match &self.poison {
            Some((poisoned, row)) if *poisoned == history => row.clone(),
            _ => logits_after(history, self.vocab_size),
        }
    }

    fn history(&self, span: &Span, len: usize) -> u64 {
        (0..len).fold(0, |history, position| {
            extend(history, self.main[span.slot(position)].expect("a main row that was never written"))
        })
    }
}

/// A hash as a row of the hidden states.
fn to_row(history: u64) -> [f32; 3] {
    [0, 24, 48].map(|shift| ((history >> shift) & 0xff_ffff) as f32)
}

fn from_row(row: &[f32]) -> u64 {
    row.iter().zip([0, 24, 48]).map(|(&part, shift)| (part as u64) << shift).sum()
}

fn hidden_of(histories: Vec<u64>) -> Result<Tensor> {
    let rows: Vec<f32> = histories.iter().flat_map(|&history| to_row(history)).collect();
    Tensor::from_vec(rows, (histories.len(), 3), &Device::Cpu)
}

impl TokenModel for Mock {
    type Sequence = u64;

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn max_context(&self) -> usize {
        self.max_context
    }

    fn has_mtp(&self) -> bool {
        self.right.is_some()
    }

    fn chunk_overhead(&self, context: usize) -> usize {
        context.checked_div(self.context_per_row).unwrap_or(0)
    }

    fn create(&mut self) -> u64 {
        self.next += 1;
        self.sequences.insert(self.next, (Vec::new(), 0));
        self.next
    }

    fn free(&mut self, sequence: u64) {
        let (pages, _) = self.sequences.remove(&sequence).expect("freed twice");
        self.release(pages);
    }

    fn fork(&mut self, sequence: u64, len: usize) -> Result<Option<u64>> {
        let (pages, old) = self.sequences.get(&sequence).expect("no such sequence");
        assert!(len <= *old && len > 0 && len.is_multiple_of(PAGE_SIZE), "forked at {len} of {old}");
        let pages = pages[..len / PAGE_SIZE].to_vec();
        pages.iter().for_each(|page| *self.owners.get_mut(page).unwrap() += 1);
        self.next += 1;
        self.sequences.insert(self.next, (pages, len));
        Ok(Some(self.next))
    }

    fn truncate(&mut self, sequence: u64, len: usize) -> Result<()> {
        let (pages, old) = self.sequences.get_mut(&sequence).expect("no such sequence");
        assert!(len <= *old, "truncated to more than there is");
        *old = len;
        let dropped = pages.split_off(len.div_ceil(PAGE_SIZE));
        self.release(dropped);
        Ok(())
    }

    fn pages(&self) -> Option<Pages> {
        Some(Pages { used: self.used_pages(), free: self.free_pages.len() })
    }

    fn route_shape(&self) -> Option<RouteShape> {
        Some(RouteShape { layers: MOE_LAYERS.to_vec(), experts_per_token: EXPERTS_PER_TOKEN })
    }

    fn forward_with_routes(&mut self, ids: &[u32], layout: &BatchLayout) -> Result<(Tensor, Vec<u16>)> {
        let hidden = self.forward(ids, layout)?;
        let routes = hidden.to_vec2::<f32>()?.iter().flat_map(|row| experts_after(from_row(row))).collect();
        Ok((hidden, routes))
    }

    fn argmax(&self, hidden: &Tensor) -> Result<Vec<Largest>> {
        let rows = hidden.to_vec2::<f32>()?;
        self.largest_rows.fetch_add(rows.len(), Ordering::Relaxed);
        let largest = rows.iter().map(|row| {
            let row = self.row_of_logits(from_row(row));
            let bad = row.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY);
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let id = bad.or_else(|| row.iter().position(|&logit| logit == largest)).unwrap();
            Largest { id: id as u32, logit: row[id] }
        });
        Ok(largest.collect())
    }

    fn append(&mut self, new_tokens: &[(u64, usize)]) -> Result<BatchLayout> {
        let mut layout = BatchLayout::default();
        for (at, &(sequence, new)) in new_tokens.iter().enumerate() {
            assert!(new > 0, "an empty span");
            if at > 0 {
                self.may_fail()?; // half-way
            }
            let (pages, len) = self.sequences.get_mut(&sequence).expect("no such sequence");
            let start = *len;
            *len += new;
            while pages.len() * PAGE_SIZE < *len {
                // The page freed last comes first: stale rows are met at once.
                let page = self.free_pages.pop().unwrap_or((self.main.len() / PAGE_SIZE) as u32);
                self.main.resize(self.main.len().max((page as usize + 1) * PAGE_SIZE), None);
                self.mtp.resize(self.main.len(), None);
                self.owners.insert(page, 1);
                pages.push(page);
            }
            // What lies in the new slots is another sequence's, or a wrong guess.
            for position in start..*len {
                let slot = pages[position / PAGE_SIZE] as usize * PAGE_SIZE + position % PAGE_SIZE;
                (self.main[slot], self.mtp[slot]) = (None, None);
            }
            let first = layout.tokens();
            layout.spans.push(Span { tokens: first..first + new, start, block_table: pages.clone(), prefill: None });
        }
        self.peak_pages = self.peak_pages.max(self.used_pages());
        Ok(layout)
    }

    fn forward(&mut self, ids: &[u32], layout: &BatchLayout) -> Result<Tensor> {
        self.may_fail()?;
        assert_eq!(ids.len(), layout.tokens());
        self.peak_rows = self.peak_rows.max(ids.len());
        let mut histories = Vec::new();
        for span in &layout.spans {
            assert_eq!(self.cached(span), span.context());
            let mut history = self.history(span, span.start);
            for (position, &id) in (span.start..).zip(&ids[span.tokens.clone()]) {
                self.check_alone(span, position);
                self.main[span.slot(position)] = Some(id);
                history = extend(history, id);
                histories.push(history);
            }
        }
        hidden_of(histories)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let rows = hidden.to_vec2::<f32>()?;
        self.logit_rows.fetch_add(rows.len(), Ordering::Relaxed);
        let logits: Vec<f32> = rows.iter().flat_map(|row| self.row_of_logits(from_row(row))).collect();
        Tensor::from_vec(logits, (hidden.dim(0)?, self.vocab_size), &Device::Cpu)
    }

    fn forward_mtp(&mut self, next_ids: &[u32], hidden: &Tensor, layout: &BatchLayout) -> Result<Tensor> {
        self.may_fail()?;
        assert_eq!(next_ids.len(), layout.tokens());
        let hidden = hidden.to_vec2::<f32>()?;
        let mut histories = Vec::new();
        for span in &layout.spans {
            let cached = self.cached(span);
            let mut known = 0;
            // Rows of earlier calls must be there, and those at known tokens must be right.
            for position in 0..span.start {
                let row = self.mtp[span.slot(position)].expect("an MTP row that was never written");
                let token = |position: usize| self.main[span.slot(position)];
                if position + 1 < cached
                    && let (Some(this), Some(next)) = (token(position), token(position + 1))
                {
                    known = extend(known, this);
                    assert_eq!(row, extend(known, next), "an MTP row of another history");
                }
            }
            for (row, position) in span.tokens.clone().zip(span.start..) {
                let before = from_row(&hidden[row]);
                if position < cached && self.main[span.slot(position)].is_some() {
                    assert_eq!(before, self.history(span, position + 1), "the hidden state of another position");
                }
                let after = extend(before, next_ids[row]);
                self.check_alone(span, position);
                self.mtp[span.slot(position)] = Some(after);
                histories.push(after);
            }
        }
        hidden_of(histories)
    }

    fn mtp_logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let right = self.right.expect("no MTP layer");
        let mut logits = Vec::new();
        for row in hidden.to_vec2::<f32>()? {
            let history = from_row(&row);
            let mut row = logits_after(history, self.vocab_size);
            if !right(history) {
                row.rotate_right(1);
            }
            logits.extend(row);
        }
        Tensor::from_vec(logits, (hidden.dim(0)?, self.vocab_size), &Device::Cpu)
    }
}

/// What a request must yield, one token after the other, without an engine. `params.seed` must be set if it samples.
pub fn alone(request: &Request, vocab_size: usize, max_context: usize) -> (Vec<Sampled>, FinishReason) {
    let mut sampler = Sampler::new(request.params.clone(), &request.prompt_ids, vocab_size, 0).unwrap();
    let report = Report { logprobs: request.logprobs, kept: request.kept };
    let mut ids = request.prompt_ids.clone();
    let mut tokens = Vec::new();
    loop {
        let sampled = sampler.sample(&logits_after(hash(&ids), vocab_size), report).unwrap();
        let id = sampled.id;
        ids.push(id);
        tokens.push(sampled);
        if request.stop.ids.contains(&id) {
            return (tokens, FinishReason::StopId(id));
        }
        if request.max_tokens == Some(tokens.len()) {
            return (tokens, FinishReason::MaxTokens);
        }
        if ids.len() == max_context {
            return (tokens, FinishReason::ContextLimit);
        }
    }
}
