//! Writes what a checkpoint computes for given tokens, to be compared with another implementation.
//!
//! ```bash
//! cargo run --release --example parity -- --model DIR --tokens 1,2,3 --out out.safetensors --greedy 16 --hidden --selected
//! ```
//!
//! Tensors of the file (B sequences of S tokens, K = `index_topk`, k = `num_experts_per_tok`):
//! - `input_ids` `[B, S]` i64; `logits` `[B, S, vocab_size]` f32
//! - with `--hidden`: `layer{i}.hidden` `[B, S, hidden_size]` f32, the residual stream after each layer; `final_norm`
//! - with `--selected`: `layer{i}.topk_idx` `[B, S, K]` i32, positions ascending, padded with -1 (layers with an
//!   indexer of their own); `layer{i}.expert_idx` `[B * S, k]` i64, ascending (sparse layers only)
//! - with `--greedy N`: `greedy_tokens` `[B, N]` i64; `decode_logits` `[B, N, vocab_size]` f32, row j = logits after
//!   greedy token j; with `--selected` `decode.layer{i}.topk_idx` `[B, N, K]` i32
//! - with `--mtp`: `mtp.hidden` `[B, S - 1, hidden_size]`, `mtp.logits` `[B, S - 1, vocab_size]` f32; with `--hidden`
//!   `mtp.block_out`, the layer's output before its norm; with `--selected` `mtp.topk_idx` and `mtp.expert_idx`

#[allow(dead_code)] // other examples use the rest
mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{D, DType, Device, IndexOp, Tensor};
use clap::Parser;
use deepseek_v32::Config;
use deepseek_v32::config::{IndexerType, MAX_POSITIONS};
use deepseek_v32::error::{one_line, one_line_path};
use deepseek_v32::model::{Cache, Model, SequenceId, Trace};
use deepseek_v32::ops::layout::BatchLayout;
use deepseek_v32::weights;

#[derive(Debug, Parser)]
#[command(about = "Writes a checkpoint's logits, hidden states and choices for given tokens as safetensors")]
struct Args {
    /// Folder of the checkpoint, or owner/name on the hub (feature hub). Default: the embedded one.
    #[arg(long)]
    model: Option<String>,
    /// Token ids, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = token_id, num_args = 1.., allow_negative_numbers = true, conflicts_with = "tokens_file", required_unless_present = "tokens_file")]
    tokens: Vec<u32>,
    /// File of token ids separated by commas or white space, or JSON: a list, or a list of equally long lists.
    #[arg(long)]
    tokens_file: Option<PathBuf>,
    /// File to write.
    #[arg(long)]
    out: PathBuf,
    /// Greedy tokens to add after the prompt.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    greedy: usize,
    /// Write the residual stream after each layer.
    #[arg(long)]
    hidden: bool,
    /// Write the selected tokens and experts.
    #[arg(long)]
    selected: bool,
    /// Write what the MTP layer predicts.
    #[arg(long)]
    mtp: bool,
    /// Tokens per forward pass of the prompt; 0 = all at once.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    chunk: usize,
    #[command(flatten)]
    model_args: common::ModelArgs,
}

fn main() -> ExitCode {
    common::start(run)
}

fn run(args: Args) -> Result<()> {
    let batch = read_batch(&args)?;
    let dir = common::resolve(args.model.as_deref())?;
    common::refuse_checkpoint_file("--out", &args.out, &dir)?;
    refuse_tokens_file(&args)?;
    let is_link = args.out.symlink_metadata().is_ok_and(|found| found.is_symlink());
    ensure!(!is_link || args.out.exists(), "--out {}: a link that leads to no file", one_line_path(&args.out));
    let (model, _) = common::load_model(&dir, &args.model_args.load_options()?, args.model_args)?;
    let vocab_size = model.config().vocab_size;
    if let Some(id) = batch.iter().flatten().find(|id| **id as usize >= vocab_size) {
        bail!("{}: token id {id} is not below vocab_size {vocab_size}", tokens_source(&args));
    }
    let (tokens, greedy, limit) = (batch[0].len(), args.greedy, model.config().max_position_embeddings);
    let context = tokens.saturating_add(greedy);
    let beyond = |limit| format!("{}: {tokens} tokens and {greedy} greedy ones exceed {limit}", tokens_source(&args));
    ensure!(context <= MAX_POSITIONS, beyond(MAX_POSITIONS.to_string()));
    if context > limit {
        // The numbers are well defined and other programs compute them too, so that they can be compared.
        common::terminal::complain(&format!("warning: {}", beyond(format!("max_position_embeddings {limit}"))));
    }
    if args.selected {
        check_selected(model.config(), batch.len(), context)
            .with_context(|| one_line_path(&dir.join(weights::CONFIG_FILE)))?;
    }
    let parity = Parity { model: &model, args: &args, tensors: BTreeMap::new() };
    let tensors = parity.run(&batch).with_context(|| one_line_path(&dir))?;
    save(&args.out, &tensors)?;
    writeln!(std::io::stdout(), "{}: {} tensors", one_line_path(&args.out), tensors.len()).context("standard output")
}

/// Writes the tensors to a file, which is whole or not there: they are written in a folder of their own beside it, which
/// Ctrl-C removes. A device or a pipe is written to.
fn save(out: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    /// Exit status of what SIGINT ended, as shells have it.
    const STATUS: i32 = 130;
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    let out = &out.canonicalize().unwrap_or_else(|_| out.to_path_buf());
    if out.metadata().is_ok_and(|found| !found.is_file()) {
        return Ok(weights::save_tensors(out, tensors)?);
    }
    let folder = out.with_file_name(format!(".parity-{}.part", std::process::id()));
    let part = folder.join("tensors");
    let removed = folder.clone();
    ctrlc::set_handler(move || {
        INTERRUPTED.store(true, Ordering::Release);
        // A file that is made meanwhile keeps the folder from going.
        while std::fs::remove_dir_all(&removed).is_err() && removed.exists() {}
        std::process::exit(STATUS);
    })?;
    std::fs::create_dir(&folder).with_context(|| one_line_path(out))?;
    let saved = weights::save_tensors(&part, tensors).map_err(anyhow::Error::from);
    let saved = saved.and_then(|()| std::fs::rename(&part, out).with_context(|| one_line_path(out)));
    let removed = std::fs::remove_dir_all(&folder).with_context(|| one_line_path(&folder));
    while INTERRUPTED.load(Ordering::Acquire) {
        // The program ends as soon as the folder is gone.
        std::thread::yield_now();
    }
    saved.and(removed)
}

/// Refuses to pad selections to an absurd width.
fn check_selected(config: &Config, rows: usize, context: usize) -> Result<()> {
    /// 1 GB. A sequence of the 671B model stays below it wherever there is padding.
    const MOST: usize = 1 << 28;
    let (topk, layers) = (config.index_topk.unwrap_or(0), config.num_hidden_layers);
    let entries = rows.saturating_mul(context).saturating_mul(topk).saturating_mul(layers);
    ensure!(
        topk <= context || entries <= MOST,
        "`index_topk`: --selected pads to {topk} for {rows} x {context} tokens in {layers} layers: {entries} entries, at \
         most {MOST} are written"
    );
    Ok(())
}

/// The prompt's rows, all of one length.
fn read_batch(args: &Args) -> Result<Vec<Vec<u32>>> {
    let batch = match &args.tokens_file {
        None => vec![args.tokens.clone()],
        Some(path) => parse_batch(&common::read_text(path)?).with_context(|| one_line_path(path))?,
    };
    let source = tokens_source(args);
    ensure!(batch.iter().all(|row| !row.is_empty()) && !batch.is_empty(), "{source}: no token ids");
    ensure!(batch.iter().all(|row| row.len() == batch[0].len()), "{source}: the rows are not equally long");
    Ok(batch)
}

fn token_id(text: &str) -> std::result::Result<u32, std::num::ParseIntError> {
    text.trim().parse()
}

/// Refuses to write over the tokens.
fn refuse_tokens_file(args: &Args) -> Result<()> {
    let Some(tokens) = &args.tokens_file else { return Ok(()) };
    let same = args.out.canonicalize().ok().is_some_and(|out| tokens.canonicalize().ok() == Some(out));
    ensure!(!same, "--out {}: the file of --tokens-file", one_line_path(&args.out));
    Ok(())
}

/// Where the tokens come from.
fn tokens_source(args: &Args) -> String {
    args.tokens_file.as_ref().map_or("--tokens".to_string(), |path| one_line_path(path))
}

fn parse_batch(text: &str) -> Result<Vec<Vec<u32>>> {
    let text = text.trim();
    if !text.starts_with('[') {
        let ids = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|id| !id.is_empty());
        let ids = ids.map(|id| id.parse::<u32>().with_context(|| format!("`{}` is not a token id", one_line(id))));
        return Ok(vec![ids.collect::<Result<_>>()?]);
    }
    if let Ok(row) = serde_json::from_str::<Vec<u32>>(text) {
        return Ok(vec![row]);
    }
    serde_json::from_str(text).context("neither a list of token ids nor a list of such lists")
}

/// Chosen positions `[T, n]` as `[T, topk]` i32: where less than `topk` tokens are cached, no more are chosen.
fn padded(chosen: &Tensor, topk: usize) -> Result<Tensor> {
    let (rows, width) = chosen.dims2()?;
    let chosen = chosen.to_dtype(DType::I32)?;
    if width >= topk {
        return Ok(chosen);
    }
    Ok(Tensor::cat(&[chosen, Tensor::full(-1i32, (rows, topk - width), &Device::Cpu)?], 1)?)
}

/// Steps of `[B * t, n]` as `[B, sum of t, n]`.
fn join(steps: impl Iterator<Item = Tensor>, b: usize) -> Result<Tensor> {
    let steps: Vec<_> = steps.map(|t| t.reshape((b, (), t.dim(D::Minus1)?))).collect::<Result<_, _>>()?;
    Ok(Tensor::cat(&steps, 1)?)
}

struct Parity<'a> {
    model: &'a Model,
    args: &'a Args,
    tensors: BTreeMap<String, Tensor>,
}

impl Parity<'_> {
    fn run(mut self, batch: &[Vec<u32>]) -> Result<BTreeMap<String, Tensor>> {
        let (b, s) = (batch.len(), batch[0].len());
        let ids: Vec<i64> = batch.concat().into_iter().map(i64::from).collect();
        self.put("input_ids", Tensor::from_vec(ids, (b, s), self.model.device())?);
        let mut cache = self.model.new_cache(0)?;
        let sequences: Vec<SequenceId> = (0..b).map(|_| cache.create()).collect();
        let chunk = if self.args.chunk == 0 { s } else { self.args.chunk };
        let mut steps = Vec::new();
        for from in (0..s).step_by(chunk) {
            let rows: Vec<Vec<u32>> = batch.iter().map(|row| row[from..(from + chunk).min(s)].to_vec()).collect();
            steps.push(self.step(&mut cache, &sequences, &rows)?);
        }
        let hidden = self.record("", &steps, b, true)?;
        let logits = self.model.logits(&hidden.flatten_to(1)?)?.reshape((b, s, ()))?;
        let last = logits.i((.., s - 1, ..))?.contiguous()?;
        self.put_logits("logits", logits)?;
        if self.args.mtp {
            self.mtp(batch)?;
        }
        if self.args.greedy > 0 {
            self.decode(&mut cache, &sequences, last)?;
        }
        Ok(self.tensors)
    }

    fn step(&self, cache: &mut Cache, sequences: &[SequenceId], rows: &[Vec<u32>]) -> Result<(Tensor, Trace)> {
        let layout = self.append(cache, sequences, rows)?;
        let mut trace = Trace::default();
        // What nobody asked for is not collected: selections can take more memory than the model.
        let wanted = (self.args.hidden || self.args.selected).then_some(&mut trace);
        let hidden = self.model.forward_batch(&rows.concat(), &layout, cache, wanted)?;
        Ok((hidden, trace))
    }

    fn append(&self, cache: &mut Cache, sequences: &[SequenceId], rows: &[Vec<u32>]) -> Result<BatchLayout> {
        let new: Vec<_> = sequences.iter().zip(rows).map(|(&sequence, row)| (sequence, row.len())).collect();
        Ok(cache.append(&new)?)
    }

    /// Stores what the steps' traces saw and returns the final hidden states, `[B, S, hidden_size]`.
    fn record(&mut self, prefix: &str, steps: &[(Tensor, Trace)], b: usize, prompt: bool) -> Result<Tensor> {
        let hidden = join(steps.iter().map(|(hidden, _)| hidden.clone()), b)?;
        let traced = self.args.hidden || self.args.selected;
        for layer in (0..self.model.config().num_hidden_layers).filter(|_| traced) {
            let traces = || steps.iter().map(|(_, trace)| trace);
            if self.args.hidden && prompt {
                let hidden = join(traces().map(|trace| trace.hidden[layer].clone()), b)?;
                self.put(&format!("layer{layer}.hidden"), hidden.to_dtype(DType::F32)?);
            }
            // A layer without an indexer of its own attends to what an earlier layer's says.
            let own_indexer = self.model.config().indexer_type(layer) == Some(IndexerType::Full);
            if self.args.selected && own_indexer {
                self.put_topk(&format!("{prefix}layer{layer}.topk_idx"), traces().map(|t| &t.topk_indices[layer]), b)?;
            }
            if self.args.selected && prompt {
                self.put_experts(&format!("layer{layer}.expert_idx"), traces().map(|t| &t.expert_indices[layer]), b)?;
            }
        }
        if self.args.hidden && prompt {
            self.put("final_norm", hidden.to_dtype(DType::F32)?);
        }
        Ok(hidden)
    }

    /// Stores the positions that a layer chose in each step, `[B, S, K]` i32.
    fn put_topk<'t>(&mut self, name: &str, steps: impl Iterator<Item = &'t Option<Tensor>>, b: usize) -> Result<()> {
        let topk = self.model.config().index_topk.unwrap_or(0);
        let steps: Vec<_> = steps.flatten().map(|chosen| padded(chosen, topk)).collect::<Result<_>>()?;
        if !steps.is_empty() {
            self.put(name, join(steps.into_iter(), b)?);
        }
        Ok(())
    }

    /// Stores the experts that a sparse layer chose in each step, `[B * S, k]` i64.
    fn put_experts<'t>(&mut self, name: &str, steps: impl Iterator<Item = &'t Option<Tensor>>, b: usize) -> Result<()> {
        let steps: Vec<Tensor> = steps.flatten().cloned().collect();
        if !steps.is_empty() {
            self.put(name, join(steps.into_iter(), b)?.flatten_to(1)?.to_dtype(DType::I64)?);
        }
        Ok(())
    }

    fn decode(&mut self, cache: &mut Cache, sequences: &[SequenceId], last: Tensor) -> Result<()> {
        let b = sequences.len();
        let (mut tokens, mut steps, mut logits) = (Vec::new(), Vec::new(), vec![last]);
        for step in 0..self.args.greedy {
            let next = logits[step].argmax(D::Minus1)?.to_vec1::<u32>()?;
            let rows: Vec<Vec<u32>> = next.iter().map(|&id| vec![id]).collect();
            steps.push(self.step(cache, sequences, &rows)?);
            logits.push(self.model.logits(&steps[step].0)?);
            tokens.push(Tensor::from_vec(next.into_iter().map(i64::from).collect(), (b, 1), self.model.device())?);
        }
        self.record("decode.", &steps, b, false)?;
        self.put_logits("decode_logits", join(logits.into_iter().skip(1), b)?)?;
        self.put("greedy_tokens", Tensor::cat(&tokens, 1)?);
        Ok(())
    }

    /// The MTP layer over all rows that have a next token, in a cache of its own.
    fn mtp(&mut self, batch: &[Vec<u32>]) -> Result<()> {
        let (b, s) = (batch.len(), batch[0].len());
        ensure!(s > 1, "--mtp needs at least two tokens");
        ensure!(self.model.has_mtp(), "--mtp: the checkpoint has no MTP layer");
        let rows: Vec<Vec<u32>> = batch.iter().map(|row| row[..s - 1].to_vec()).collect();
        let next: Vec<u32> = batch.iter().flat_map(|row| row[1..].to_vec()).collect();
        let mut cache = self.model.new_cache(0)?;
        let sequences: Vec<SequenceId> = (0..b).map(|_| cache.create()).collect();
        let layout = self.append(&mut cache, &sequences, &rows)?;
        let hidden = self.model.forward_batch(&rows.concat(), &layout, &mut cache, None)?;
        let mut trace = Trace::default();
        let hidden = self.model.forward_mtp(&next, &hidden, &layout, &mut cache, Some(&mut trace))?;
        if self.args.hidden {
            self.put("mtp.block_out", trace.hidden[0].reshape((b, s - 1, ()))?.to_dtype(DType::F32)?);
        }
        if self.args.selected {
            self.put_topk("mtp.topk_idx", trace.topk_indices.iter(), b)?;
            self.put_experts("mtp.expert_idx", trace.expert_indices.iter(), b)?;
        }
        self.put_logits("mtp.logits", self.model.mtp_logits(&hidden)?.reshape((b, s - 1, ()))?)?;
        self.put("mtp.hidden", hidden.reshape((b, s - 1, ()))?.to_dtype(DType::F32)?);
        Ok(())
    }

    /// Stores logits, which must be finite.
    fn put_logits(&mut self, name: &str, logits: Tensor) -> Result<()> {
        let finite = logits.flatten_all()?.to_vec1::<f32>()?.iter().all(|logit| logit.is_finite());
        ensure!(finite, "lm_head.weight: {name} are not all finite: the weights overflow in this dtype");
        self.put(name, logits);
        Ok(())
    }

    fn put(&mut self, name: &str, tensor: Tensor) {
        self.tensors.insert(name.to_string(), tensor);
    }
}
