//! A model without weights that answers with the last user message, whatever that is: so an answer is what a test says.
#![allow(dead_code)] // every test file uses its own part

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor};
use deepseek_v32::chat::Version;
use deepseek_v32::chat_model::LocalChat;
use deepseek_v32::generation::{Engine, EngineOptions, Service, TokenModel, Tokenizer};
use deepseek_v32::ops::layout::{BatchLayout, PAGE_SIZE, Span};

pub struct Echo {
    vocab_size: usize,
    user: u32,
    assistant: u32,
    eos: u32,
    sequences: BTreeMap<u32, Vec<u32>>,
    next: u32,
}

impl Echo {
    pub fn new(tokenizer: &Tokenizer) -> Self {
        let id = |token: &str| tokenizer.token_to_id(token).unwrap();
        Self {
            vocab_size: tokenizer.vocab_size(),
            user: id("<｜User｜>"),
            assistant: id("<｜Assistant｜>"),
            eos: id("<｜end▁of▁sentence｜>"),
            sequences: BTreeMap::new(),
            next: 0,
        }
    }

    /// The token after a history: of the question, as far as it has not been repeated behind the think mark.
    fn after(&self, history: &[u32]) -> u32 {
        let at = |token| history.iter().rposition(|&id| id == token);
        let (Some(user), Some(assistant)) = (at(self.user), at(self.assistant)) else { return self.eos };
        let question = history.get(user + 1..assistant).unwrap_or_default();
        let written = history.len().saturating_sub(assistant + 2);
        question.get(written).copied().unwrap_or(self.eos)
    }
}

impl TokenModel for Echo {
    /// Stands as the number of each page of it.
    type Sequence = u32;

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn max_context(&self) -> usize {
        1 << 16
    }

    fn has_mtp(&self) -> bool {
        false
    }

    fn create(&mut self) -> u32 {
        self.next += 1;
        self.sequences.insert(self.next, Vec::new());
        self.next
    }

    fn free(&mut self, sequence: u32) {
        self.sequences.remove(&sequence);
    }

    fn truncate(&mut self, sequence: u32, len: usize) -> Result<()> {
        self.sequences.get_mut(&sequence).unwrap().truncate(len);
        Ok(())
    }

    fn append(&mut self, new_tokens: &[(u32, usize)]) -> Result<BatchLayout> {
        let mut layout = BatchLayout::default();
        for &(sequence, new) in new_tokens {
            let (start, first) = (self.sequences[&sequence].len(), layout.tokens());
            let block_table = vec![sequence; (start + new).div_ceil(PAGE_SIZE)];
            layout.spans.push(Span { tokens: first..first + new, start, block_table, prefill: None });
        }
        Ok(layout)
    }

    fn forward(&mut self, ids: &[u32], layout: &BatchLayout) -> Result<Tensor> {
        let mut rows = Vec::new();
        for span in &layout.spans {
            for &id in &ids[span.tokens.clone()] {
                self.sequences.get_mut(&span.block_table[0]).unwrap().push(id);
                rows.push(self.after(&self.sequences[&span.block_table[0]]) as f32);
            }
        }
        Tensor::from_vec(rows, (ids.len(), 1), &Device::Cpu)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let mut logits = vec![0f32; hidden.dim(0)? * self.vocab_size];
        for (row, id) in hidden.flatten_all()?.to_vec1::<f32>()?.into_iter().enumerate() {
            logits[row * self.vocab_size + id as usize] = 50.0;
        }
        Tensor::from_vec(logits, (hidden.dim(0)?, self.vocab_size), &Device::Cpu)
    }

    fn forward_mtp(&mut self, _: &[u32], _: &Tensor, _: &BatchLayout) -> Result<Tensor> {
        unreachable!("no MTP layer")
    }

    fn mtp_logits(&self, _: &Tensor) -> Result<Tensor> {
        unreachable!("no MTP layer")
    }
}

/// A chat with it, with the embedded checkpoint's tokenizer.
pub fn echo(version: Version) -> LocalChat {
    let tokenizer = Tokenizer::load("examples/assets/tiny-v32").unwrap();
    let engine = Engine::new(Echo::new(&tokenizer), EngineOptions::default()).unwrap();
    let service = Service::start(engine.with_tokenizer(tokenizer).unwrap()).unwrap();
    LocalChat::new("echo", service, version).unwrap()
}
