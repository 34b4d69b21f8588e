//! Times steps of a model whose cache holds made-up contexts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use deepseek_v32::Config;
use deepseek_v32::generation::{LocalModel, TokenModel};
use deepseek_v32::model::{Model, SequenceId};
use deepseek_v32::ops::layout::PAGE_SIZE;

/// Rows that are written to the cache at a time.
const FILL_ROWS: usize = 4096;
/// Most time for the runs of one point.
const BUDGET: Duration = Duration::from_secs(2);

/// The points of one model: seconds of each, in the order of `contexts`.
pub struct Times {
    /// For each of `batches`.
    pub decode: Vec<Vec<f64>>,
    /// Of a chunk that ends at the context.
    pub prefill: Vec<f64>,
}

/// What is measured.
pub struct Plan<'a> {
    /// Ascending.
    pub contexts: &'a [usize],
    pub batches: &'a [usize],
    /// Tokens of a prompt that are computed at a time.
    pub chunk: usize,
    pub repeats: usize,
}

impl Plan<'_> {
    /// Tokens of the chunk that ends at a context.
    pub fn chunk_at(&self, context: usize) -> usize {
        self.chunk.min(context)
    }

    fn longest(&self) -> usize {
        self.contexts.last().copied().unwrap_or(0)
    }

    pub fn sequences(&self) -> usize {
        self.batches.iter().copied().max().unwrap_or(1)
    }

    /// Pages of the cache that the plan needs.
    pub fn pages(&self) -> usize {
        self.sequences() * self.longest().div_ceil(PAGE_SIZE)
    }
}

/// Times every point of the plan.
pub fn measure(model: Model, plan: &Plan) -> Result<Times> {
    let mut cache = model.new_cache(plan.pages())?;
    cache.set_max_pages(plan.pages());
    let mut model = LocalModel::with_cache(Arc::new(model), cache);
    let sequences: Vec<SequenceId> = (0..plan.sequences()).map(|_| model.create()).collect();
    let mut times = Times { decode: vec![Vec::new(); plan.batches.len()], prefill: Vec::new() };
    for &context in plan.contexts {
        for &sequence in &sequences {
            fill(&mut model, sequence, context - 1)?;
        }
        for (&batch, times) in plan.batches.iter().zip(&mut times.decode) {
            times.push(decode(&mut model, &sequences[..batch], context, plan.repeats)?);
        }
        times.prefill.push(prefill(&mut model, sequences[0], context, plan)?);
    }
    Ok(times)
}

/// Fills a sequence up to `len` tokens with random keys: the same in every layer, in memory of their own.
fn fill(local: &mut LocalModel, sequence: SequenceId, len: usize) -> Result<()> {
    let model = local.model().clone();
    let (config, device) = (model.config(), model.device());
    let cache = local.cache_mut();
    while cache.len(sequence) < len {
        let rows = FILL_ROWS.min(len - cache.len(sequence));
        let layout = cache.append(&[(sequence, rows)])?;
        let random = |width: usize| Tensor::randn(0f32, 1.0, (rows, width), device)?.to_dtype(model.dtype());
        let kv = random(config.kv_lora_rank + config.qk_rope_head_dim)?;
        let index_k = config.index_head_dim.filter(|_| config.has_indexer()).map(random).transpose()?;
        for layer in 0..config.num_hidden_layers {
            cache.write(&layout, layer, &kv, index_k.as_ref())?;
        }
    }
    Ok(())
}

/// The ids of some tokens, as different as they can be.
fn ids(config: &Config, count: usize, run: usize) -> Vec<u32> {
    (0..count).map(|i| ((i + 31 * run + 7) * 7919 % config.vocab_size) as u32).collect()
}

/// Seconds of a step that decodes one token of each sequence, which then sees `context` positions: layers, head, and the
/// choice of the most probable token, as the engine takes it.
fn decode(model: &mut LocalModel, sequences: &[SequenceId], context: usize, repeats: usize) -> Result<f64> {
    let device = model.model().device().clone();
    median(&device, repeats, |run| {
        let new: Vec<_> = sequences.iter().map(|&sequence| (sequence, 1)).collect();
        let layout = model.append(&new)?;
        let ids = ids(model.model().config(), sequences.len(), run);
        let rows: Vec<usize> = (0..sequences.len()).collect();
        let chosen = match model.forward_largest(&ids, &layout, &rows)? {
            Some((_, chosen)) => chosen,
            None => {
                let hidden = model.forward(&ids, &layout)?;
                model.argmax(&hidden)?
            }
        };
        ensure!(chosen.len() == sequences.len(), "{} tokens were chosen for {}", chosen.len(), sequences.len());
        sequences.iter().try_for_each(|&sequence| model.truncate(sequence, context - 1))?;
        Ok(())
    })
}

/// Seconds of a chunk of a prompt that ends at `context`, with the choice of the next token.
fn prefill(model: &mut LocalModel, sequence: SequenceId, context: usize, plan: &Plan) -> Result<f64> {
    let (device, chunk) = (model.model().device().clone(), plan.chunk_at(context));
    let start = context - chunk;
    let time = median(&device, plan.repeats.div_ceil(2), |run| {
        model.truncate(sequence, start)?;
        let mut layout = model.append(&[(sequence, chunk)])?;
        for span in &mut layout.spans {
            span.prefill = Some(0..context);
        }
        let ids = ids(model.model().config(), chunk, run);
        let hidden = model.forward(&ids, &layout)?;
        model.argmax(&hidden.narrow(0, chunk - 1, 1)?)?;
        Ok(())
    });
    model.truncate(sequence, start)?;
    time
}

/// The median of the times of some runs after one that does not count; fewer where they take long.
fn median(device: &Device, repeats: usize, mut body: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    body(0)?;
    device.synchronize()?;
    let (begin, mut times) = (Instant::now(), Vec::with_capacity(repeats));
    for run in 1..=repeats.max(1) {
        let start = Instant::now();
        body(run)?;
        device.synchronize()?;
        times.push(start.elapsed().as_secs_f64());
        if begin.elapsed() > BUDGET {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Operations a second of a matrix product in `dtype`, and bytes a second of a copy, those read and those written.
pub fn ceilings(dtype: DType, device: &Device) -> Result<(f64, f64)> {
    let (size, bytes) = if device.is_cuda() { (8192, 4usize << 30) } else { (512, 64 << 20) };
    let random = || Tensor::randn(0f32, 1.0, (size, size), device)?.to_dtype(dtype);
    let (a, b) = (random()?, random()?);
    let product = median(device, 9, |_| a.matmul(&b).map(drop).map_err(Into::into))?;
    let (from, to) = (Tensor::ones(bytes / 4, DType::F32, device)?, Tensor::zeros(bytes / 4, DType::F32, device)?);
    let copy = median(device, 9, |_| to.slice_set(&from, 0, 0).map_err(Into::into))?;
    Ok((2.0 * (size as f64).powi(3) / product, 2.0 * bytes as f64 / copy))
}
